"""The agents of one machine over real sockets: they hang as planned, and report to the root."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs
from tests.waiting import until

from anabranch.core.errors import UnavailableError, UsageError
from anabranch.site.agent import Reporting
from anabranch.site.agents import Agents
from anabranch.tree.admission import Admission
from anabranch.tree.branch import BranchMember
from anabranch.tree.certificates import Authority, Credentials
from anabranch.tree.events import Deliver, Joined, NodeEvent
from anabranch.tree.metrics import CPU, MACHINES, Threshold
from anabranch.tree.model import Role
from anabranch.tree.pipelines.overlay import Overlay
from anabranch.tree.receivers import ReceiverReport
from anabranch.tree.reporter import Readings
from anabranch.tree.runtime import TreeNode
from anabranch.tree.soleil.messages import (
    Body,
    ChildsUpdate,
    Descendant,
    Endpoint,
    Error,
    Fault,
    FullStats,
    Message,
    PipeDef,
    PipeDefInfo,
    ReqFullStats,
    Stats,
    StreamStats,
)

UP = {"relay1": Role.RELAY, "relay2": Role.RELAY, "leaf1": Role.LEAF, "leaf2": Role.LEAF}
PLAN = {"relay1": "root", "relay2": "root", "leaf1": "relay1", "leaf2": "relay2"}


class Gauge:
    """A node whose load is known, with a viewer if it is a leaf."""

    def __init__(self, name: str, fails: set[str]) -> None:
        self._name = name
        self._fails = fails

    async def read(self) -> Readings:
        if self._name in self._fails:
            raise UnavailableError("the gauge is broken")
        viewers = {}
        if self._name.startswith("leaf"):
            viewers["v"] = ReceiverReport("news/high", 1000, 0, packets_sent=10, jitter_ms=7.0)
        return Readings(viewers, cpu=20.0)


class Machine:
    def __init__(self, directory: Path, **connection: Any) -> None:
        self.events: list[NodeEvent] = []
        self.fails: set[str] = set()
        self.agents = Agents(
            "root",
            directory / "tree",
            Reporting(interval_s=0.05),
            lambda name: Gauge(name, self.fails),
            on_event=self.events.append,
            overlay=lambda _name: Overlay("127.0.0.1", range(22000, 22010), ()),
            **connection,
        )

    def heard(self, kind: type[Body]) -> list[Message]:
        found = [event.message for event in self.events if isinstance(event, Deliver)]
        return [message for message in found if isinstance(message.body, kind)]

    @property
    def present(self) -> dict[str, str]:
        places = self.agents.registry.nodes.values()
        return {place.name: place.parent for place in places if place.lost is None}

    def whole(self, stream: str) -> dict[str, float]:
        containers = self.agents.root.reporter.whole.containers
        for each in containers:
            if each.stream == stream:
                return {**each.values, "weight": each.weight or 0.0}
        return {}


@pytest.fixture
async def machine(tmp_path: Path) -> AsyncIterator[Machine]:
    made = Machine(tmp_path)
    await made.agents.start()
    await made.agents.follow(PLAN, UP)
    yield made
    await made.agents.stop()


async def settled(machine: Machine, plan: dict[str, str], up: dict[str, Role]) -> None:
    async with asyncio.timeout(20.0):
        while machine.present != plan:
            await machine.agents.follow(plan, up)  # as the site does, in every round
            await asyncio.sleep(0.05)


async def test_nodes_hang_as_planned_and_the_root_knows_all_figures(machine: Machine) -> None:
    await settled(machine, PLAN, UP)
    await until(lambda: machine.whole(MACHINES).get("weight") == 5)
    assert machine.whole(MACHINES)[CPU] == 20.0
    await until(lambda: machine.whole("news/high").get("weight") == 2)
    assert machine.whole("news/high")["injitter"] == 7.0
    assert machine.agents.root.reporter.last().keys() == {"relay1", "relay2"}


async def test_nodes_follow_the_plan(machine: Machine) -> None:
    await settled(machine, PLAN, UP)
    moved = {**PLAN, "leaf1": "relay2", "relay1": "relay2"}
    await settled(machine, moved, UP)
    without = {"relay2": "root", "leaf1": "relay2", "leaf2": "relay2"}
    up = {name: UP[name] for name in without}
    await settled(machine, without, up)
    assert machine.agents.agent("relay1") is None
    await settled(machine, PLAN, UP)
    await until(lambda: machine.whole(MACHINES).get("weight") == 5)


async def test_a_node_answers_with_its_own_figures(machine: Machine) -> None:
    await settled(machine, PLAN, UP)
    await until(lambda: machine.whole("news/high").get("weight") == 2)
    asked = 1368548950000
    machine.agents.root.node.send(
        ReqFullStats("news/high"), "leaf2", time_ms=asked, in_seconds=True
    )

    await until(lambda: len(machine.heard(FullStats)) == 1)
    (answer,) = machine.heard(FullStats)
    assert answer.sender == "leaf2"
    assert isinstance(answer.body, FullStats)
    assert (answer.time_ms, answer.in_seconds) == (asked, True)  # seconds, as the request's
    assert answer.body.pipeline == "news/high"
    assert {each.stream for each in answer.body.containers} == {"news/high"}


async def test_a_root_that_begins_anew_finds_its_tree_again(machine: Machine) -> None:
    await settled(machine, PLAN, UP)
    before = machine.agents.root
    await machine.agents.restart_root()
    assert machine.agents.root is not before
    await settled(machine, PLAN, UP)
    await until(lambda: machine.whole(MACHINES).get("weight") == 5)


async def test_a_root_that_begins_anew_is_told_of_all_pipelines(machine: Machine) -> None:
    await settled(machine, PLAN, UP)
    sound = PipeDef("sound", "audiotestsrc ! opusenc ! rtpopuspay ! anabranchsink name=out")
    for node in ("leaf1", "relay2"):  # one below a relay, one at the root
        machine.agents.root.node.send(sound, node)
    await until(lambda: len(machine.heard(PipeDefInfo)) == 2)
    machine.events.clear()
    await machine.agents.restart_root()
    await until(lambda: {m.sender for m in machine.heard(PipeDefInfo)} == {"leaf1", "relay2"})


class Guest:
    """A node of another machine, and what it is answered."""

    def __init__(self, name: str, credentials: Credentials, root: Endpoint) -> None:
        self.answers: list[Message] = []
        self.node = TreeNode(
            BranchMember(name, Role.RELAY, (root,)), self._happened, credentials=credentials
        )
        self.node.start()

    def _happened(self, event: NodeEvent) -> None:
        if isinstance(event, Deliver):
            self.answers.append(event.message)

    def errors(self) -> list[Error]:
        return [answer.body for answer in self.answers if isinstance(answer.body, Error)]


@pytest.fixture
async def open_machine(tmp_path: Path) -> AsyncIterator[tuple[Machine, Guest]]:
    authority = Authority.open(tmp_path / "authority.pem")
    admission = Admission(authority, tmp_path / "nodes.json")
    own, theirs = Credentials(tmp_path / "root"), Credentials(tmp_path / "evil1")
    authority.provide(own, "root", Role.ROOT)
    authority.provide(theirs, "evil1", Role.RELAY)
    for name, role in (UP | {"leaf3": Role.LEAF, "evil1": Role.RELAY}).items():
        admission.adopt(name, role)
    made = Machine(tmp_path, credentials=own, admission=admission)
    await made.agents.start()
    guest = Guest(
        "evil1", theirs, Endpoint("127.0.0.1", made.agents.root.node.listen("127.0.0.1", 0))
    )
    plan = {**PLAN, "evil1": "root"}
    await settled(made, plan, UP)
    yield made, guest
    await guest.node.stop()
    await made.agents.stop()


async def test_a_guest_cannot_claim_a_node_that_is_away(
    open_machine: tuple[Machine, Guest],
) -> None:
    machine, guest = open_machine
    before = machine.present
    machine.events.clear()
    with capture_logs() as logs:
        for number in range(50):
            claimed = (Descendant("leaf3", Role.LEAF, "evil1"),)
            guest.node.send(ChildsUpdate(10**9 + number, claimed))
        await until(lambda: len(guest.errors()) == 50)
    assert {(e.fault, e.regarding, e.text) for e in guest.errors()} == {
        (Fault.CONFLICT, "childsupdate", "not below you: leaf3")
    }
    assert machine.present == before
    assert not any(isinstance(event, Joined) for event in machine.events)
    lines = [each for each in logs if each["event"] == "node broke a rule"]
    assert [(each["node"], each["reason"]) for each in lines] == [("evil1", "not below you: leaf3")]


async def test_a_guest_has_below_it_what_the_plan_says(
    open_machine: tuple[Machine, Guest],
) -> None:
    machine, guest = open_machine
    plan = {**PLAN, "evil1": "root", "leaf3": "evil1"}
    await machine.agents.follow(plan, UP)
    guest.node.send(ChildsUpdate(10**9, (Descendant("leaf3", Role.LEAF, "evil1"),)))
    await until(lambda: machine.present == plan)
    assert guest.errors() == []


async def test_a_report_that_is_refused_is_answered_and_told_once(
    open_machine: tuple[Machine, Guest],
) -> None:
    machine, guest = open_machine
    twice = Stats((StreamStats("x", 0.0, 1.0, 0, {}, 1.0),) * 2)
    with capture_logs() as logs:
        for _ in range(20):
            guest.node.send(twice)
        await until(lambda: len(guest.errors()) == 20)
    assert {(e.fault, e.regarding, e.text) for e in guest.errors()} == {
        (Fault.MALFORMED, "stats", "stream 'x' comes twice")
    }
    assert len({error.answers for error in guest.errors()}) == 20
    assert [each["node"] for each in logs if each["event"] == "report refused"] == ["evil1"]
    assert "evil1" in machine.present


def test_a_threshold_of_what_is_no_figure_is_refused() -> None:
    with pytest.raises(
        UsageError, match="no figure 'lss'; there are cpu, injitter, linkloss, loss"
    ):
        Reporting(thresholds={"lss": Threshold(1.0, 2.0)})


async def test_a_node_that_cannot_be_read_is_missing_and_comes_back(machine: Machine) -> None:
    await settled(machine, PLAN, UP)
    await until(lambda: machine.whole("news/high").get("weight") == 2)
    machine.fails.add("leaf1")
    await until(lambda: machine.whole("news/high").get("weight") == 1)
    machine.fails.clear()
    await until(lambda: machine.whole("news/high").get("weight") == 2)
