"""From reports to actions: who is asked, one action at a time, and what fails is not repeated."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from anabranch.core.errors import UnavailableError
from anabranch.core.events import Event
from anabranch.site import reaction as module
from anabranch.site.agent import Reporting
from anabranch.site.picture import NodeView, Picture
from anabranch.site.reaction import Hands, Reaction
from anabranch.site.rules import TreeRules
from anabranch.tree.actions import Action
from anabranch.tree.metrics import CPU, LOSS, MACHINES, summary
from anabranch.tree.model import Role
from anabranch.tree.policies import Marks
from anabranch.tree.soleil.messages import StreamStats
from anabranch.tree.state import Phase, SiteState
from anabranch.tree.trouble import Sensitivity

HIGH, LOW = "news/high", "news/low"


class World:
    """A root, a relay, and leaves that do what they are told; time is stepped by hand."""

    def __init__(self, *, act: bool = True, viewers: int = 2) -> None:
        self.now = 1000.0
        self.viewers = viewers
        self.up = {"root": Role.ROOT, "relay": Role.RELAY, "leaf1": Role.LEAF}
        self.idle = {"leaf2": Role.LEAF, "leaf3": Role.LEAF}
        self.fails: set[str] = set()
        self.asked: list[tuple[str, str]] = []
        self.acted: list[str] = []
        self.events: list[Event] = []
        self.picture = Picture()
        rules = TreeRules(
            act,
            Reporting(),
            Sensitivity(rounds=1, calm_s=5.0),
            marks=Marks(quiet_s=5.0, cool_down_s=5.0, settle_s=1.0, lower_s=10.0),
            pause_s=0.0,
        )
        hands = Hands(
            self.state,
            lambda node, stream: self.asked.append((node, stream)),
            self.act,
            lambda stream: stream == LOW,
            self.events.append,
        )
        self.reaction = Reaction(rules, self.picture, hands)

    def state(self, now: float) -> SiteState:
        views = [
            NodeView(
                name,
                role,
                Phase.UP,
                None if role is Role.ROOT else "relay" if role is Role.LEAF else "root",
                pool=name in ("leaf2", "leaf3"),
                viewers=self.viewers if name == "leaf1" else 0,
                capacity=10,
                busy=name not in ("leaf2", "leaf3"),
            )
            for name, role in self.up.items()
        ]
        views += [NodeView(n, role, Phase.IDLE, capacity=10) for n, role in self.idle.items()]
        return self.picture.state(views, now)

    async def act(self, action: Action) -> None:
        name = getattr(action, "node", getattr(action, "subtree", ""))
        if name in self.fails:
            raise UnavailableError("no power")
        self.acted.append(f"{action.kind.removeprefix('tree.')} {name}")
        if action.kind == "tree.leaf-added":
            self.up[name] = self.idle.pop(name)
        if action.kind == "tree.node-switched-off":
            self.idle[name] = self.up.pop(name)

    async def round(self, *losses: float, stream: str = HIGH, cpu: float = 10.0) -> None:
        self.now += 2.0
        reports = {"relay": (report(losses, stream), machine(cpu))}
        self.reaction.round(reports, self.now)
        for node, about in self.asked[:]:
            whole = report(losses, about)
            self.reaction.answered(node, (whole, part(whole, node)), frozenset({"leaf1"}))
        await asyncio.sleep(0)
        if self.reaction._acting is not None:
            await self.reaction._acting

    def told(self, kind: str) -> list[str]:
        return [event.subject for event in self.events if event.kind == kind]


def report(losses: tuple[float, ...], stream: str) -> StreamStats:
    return summary(stream, (0.0, 2.0), {LOSS: losses}, members=len(losses))


def part(whole: StreamStats, node: str) -> StreamStats:
    return StreamStats(*(whole.stream, 0.0, 2.0, 0, whole.values, whole.weight), node=node)


def machine(cpu: float) -> StreamStats:
    return summary(MACHINES, (0.0, 2.0), {CPU: [cpu]})


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> list[World]:
    """Have the reaction see the time of the world that the test makes."""
    made: list[World] = []
    monkeypatch.setattr(module.time, "monotonic", lambda: made[-1].now if made else 0.0)
    return made


@pytest.fixture
async def world(clock: list[World]) -> AsyncIterator[World]:
    clock.append(World())
    yield clock[-1]
    await clock[-1].reaction.stop()


async def test_trouble_of_most_lowers_until_it_is_over(world: World) -> None:
    await world.round(0.0, 0.0)
    assert world.asked == []
    await world.round(30.0, 30.0)
    assert world.asked == [("relay", HIGH)]
    assert world.told("tree.sign") == ["relay"]
    assert world.told("tree.diagnosis") == ["relay"]
    await world.round(30.0, 30.0)
    assert world.acted == ["rendition-lowered relay"]
    assert world.told("tree.rendition-lowered") == ["relay"]
    for _ in range(3):
        await world.round(30.0, 30.0)
    assert len(world.acted) == 1
    for _ in range(6):
        await world.round(0.0, 0.0)
    assert world.acted[1:] == ["rendition-restored relay"]
    assert world.reaction.diagnoses == ()
    assert [deed.outcome for deed in world.reaction.history] == ["done", "done"]


async def test_nothing_is_lowered_that_has_nothing_below_it(world: World) -> None:
    for _ in range(4):
        await world.round(30.0, 30.0, stream=LOW)
    assert world.told("tree.diagnosis")
    assert world.acted == []


async def test_a_load_brings_one_leaf_and_when_it_is_gone_so_is_the_leaf(world: World) -> None:
    world.viewers = 9
    await world.round()
    await world.round()
    assert world.acted == ["leaf-added leaf2"]
    world.viewers = 1
    for _ in range(8):
        await world.round()
    assert world.acted == ["leaf-added leaf2", "node-switched-off leaf2"]
    assert world.reaction.counts == {("leaf-added", "done"): 1, ("node-switched-off", "done"): 1}


async def test_a_leaf_that_does_not_start_is_told_and_another_is_taken(world: World) -> None:
    world.fails = {"leaf2"}
    world.viewers = 9
    await world.round()
    assert world.told("tree.action-failed") == ["leaf2"]
    assert world.reaction.history[-1].outcome == "no power"
    assert world.reaction.history[-1].concerns("relay")
    await world.round()
    assert world.acted == ["leaf-added leaf3"]
    world.fails = {"leaf2"}
    world.viewers = 19
    for _ in range(10):
        await world.round()
    assert len(world.told("tree.action-failed")) == 1  # not again at once
    world.now += 60.0
    await world.round()
    assert len(world.told("tree.action-failed")) == 2


async def test_a_site_that_only_tells_does_nothing(clock: list[World]) -> None:
    clock.append(World(act=False, viewers=9))
    world = clock[-1]
    for _ in range(10):
        await world.round()
    assert world.acted == []
    assert world.told("tree.advice") == ["leaf2", "leaf3"]  # one after the other, once
    assert {deed.outcome for deed in world.reaction.history} == {"told"}


async def test_a_child_that_has_left_has_no_trouble(world: World) -> None:
    await world.round(30.0, 30.0)
    assert world.reaction.diagnoses
    world.reaction.round({}, world.now + 2.0)
    assert world.reaction.diagnoses == ()


async def test_a_node_is_not_followed_by_another_at_once(clock: list[World]) -> None:
    clock.append(World(viewers=50))
    world = clock[-1]
    world.reaction.rules = TreeRules(pause_s=5.0)
    await world.round()
    assert world.acted == ["leaf-added leaf2"]
    await world.round()
    assert world.acted == ["leaf-added leaf2"]
    await world.round()
    await world.round()
    assert world.acted == ["leaf-added leaf2", "leaf-added leaf3"]
