"""Policies: single decisions, and whole sites under any load that never flap."""

from collections import Counter
from dataclasses import replace
from math import inf, nan
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from anabranch.core.errors import UsageError
from anabranch.tree.actions import (
    Action,
    AddLeaf,
    AddRelay,
    DrainLeaf,
    InsertLevel,
    LowerRendition,
    RestoreRendition,
    SwitchOff,
    UndrainLeaf,
    apply,
    event_of,
)
from anabranch.tree.metrics import CPU, LOSS, MACHINES, Severity
from anabranch.tree.model import Node, Role, Tree
from anabranch.tree.placement import takes
from anabranch.tree.policies import Marks, Policy, Standard, find
from anabranch.tree.state import NodeState, Phase, SiteState
from anabranch.tree.trouble import Diagnosis, Scope

STREAM = "news-high"
MARKS = Marks()


def leaf(name: str, viewers: int = 0, **more: object) -> NodeState:
    empty_since = None if viewers else 0.0
    made = NodeState(name, Role.LEAF, "root", empty_since=empty_since, viewers=viewers, capacity=10)
    return replace(made, **more)  # type: ignore[arg-type]


def idle(name: str, role: Role = Role.LEAF, **more: object) -> NodeState:
    made = NodeState(name, role, phase=Phase.IDLE, ready=False, capacity=10)
    return replace(made, **more)  # type: ignore[arg-type]


def relay(name: str, **more: object) -> NodeState:
    return replace(NodeState(name, Role.RELAY, "root", capacity=10), **more)  # type: ignore[arg-type]


def site(*nodes: NodeState, root: int = 10, **more: int) -> SiteState:
    every = (NodeState("root", Role.ROOT, capacity=root), *nodes)
    return SiteState({node.name: node for node in every}, **more)


def decide(state: SiteState, *diagnoses: Diagnosis, now: float = 1000.0) -> tuple[Action, ...]:
    return Standard(MARKS).decide(state, diagnoses, now)


def danger(node: str) -> Diagnosis:
    return Diagnosis(node, MACHINES, CPU, 1.0, Severity.DANGER, Scope.NODE)


def trouble(node: str, scope: Scope, severity: Severity = Severity.DANGER) -> Diagnosis:
    return Diagnosis(node, STREAM, LOSS, 0.7, severity, scope)


def kinds(actions: tuple[Action, ...]) -> list[type[Action]]:
    return [type(action) for action in actions]


def test_nothing_is_done_without_need() -> None:
    assert decide(site(leaf("a", 5), leaf("b", 7), idle("c"))) == ()


def test_a_leaf_is_added_above_the_upper_mark_near_who_needs_it() -> None:
    state = site(
        leaf("a", 9, place="eu/rome"),
        leaf("b", 8, place="eu/oslo"),
        idle("c", place="eu/oslo"),
        idle("d", place="eu/rome/hall"),
    )
    (action,) = decide(state)
    assert action == AddLeaf("d", "root", "a", "the load is 85% of the leaves' capacity")
    assert kinds(decide(site(leaf("a", 10), idle("c"), idle("d"), waiting=9))) == [AddLeaf, AddLeaf]


def test_the_cpu_load_adds_one_leaf_at_a_time() -> None:
    state = site(leaf("a", 2, cpu=95.0), idle("c"), idle("d"))
    (action,) = decide(state)
    assert isinstance(action, AddLeaf)
    state = apply(state, action, 1000.0)
    assert decide(state, now=1020.0) == ()


def test_a_draining_leaf_comes_back_before_an_idle_one() -> None:
    state = site(leaf("a", 9), leaf("b", 3, phase=Phase.DRAINING), idle("c"))
    assert kinds(decide(state)) == [UndrainLeaf]
    assert kinds(decide(state, danger("b"))) == [AddLeaf]


def test_the_least_number_of_leaves_is_kept_up() -> None:
    assert kinds(decide(site(idle("a"), idle("b")))) == [AddLeaf]


def test_a_leaf_that_does_not_start_is_no_leaf() -> None:
    state = site(leaf("a", ready=False, on_since=950.0), idle("b"), waiting=5)
    assert decide(state) == ()
    assert kinds(decide(state, now=1011.0)) == [AddLeaf]


def test_a_leaf_in_danger_is_drained_when_another_takes_its_place() -> None:
    alone = site(leaf("a", 5), idle("b"))
    (added,) = decide(alone, danger("a"))
    assert isinstance(added, AddLeaf)
    state = apply(alone, added, 1000.0)
    assert decide(state, danger("a"), now=1001.0) == ()  # it is not ready
    state = replace(state, nodes={**state.nodes, "b": replace(state.nodes["b"], ready=True)})
    assert decide(state, danger("a"), now=1002.0) == (DrainLeaf("a", "cpu is in danger"),)
    assert decide(site(leaf("a", 5)), danger("a")) == ()


def test_a_relay_is_added_for_the_roots_last_place_and_a_level_where_there_is_none() -> None:
    two = [leaf("a", 10), leaf("b", 10)]
    added = decide(site(*two, idle("c"), idle("r", Role.RELAY), root=3))
    assert kinds(added) == [AddRelay, AddLeaf]
    assert added[1].parent == "r"  # type: ignore[union-attr]
    assert kinds(decide(site(*two, idle("c"), root=3))) == [AddLeaf]
    three = [*two, leaf("d", 10)]
    inserted = decide(site(*three, idle("c"), idle("r", Role.RELAY), root=3))
    assert kinds(inserted) == [InsertLevel, AddLeaf]
    assert inserted[0].children == ("a", "b")  # type: ignore[union-attr]
    assert decide(site(*three, idle("c"), root=3)) == ()
    linked = idle("c", links=frozenset({"x"}))
    assert decide(site(leaf("a", 10), linked)) == ()


@pytest.mark.parametrize("load", [{"cpu": 95.0}, {"egress": 0.9}, {"capacity": 3}])
def test_an_overloaded_relay_hands_half_of_its_children_to_another(load: dict[str, float]) -> None:
    children = [leaf(f"l{n}", 6, parent="r", place=f"x/{n % 2}") for n in range(4)]
    busy = site(relay("r", **load), *children, idle("s", Role.RELAY, place="x/1"))
    (action,) = decide(busy)
    assert isinstance(action, InsertLevel)
    assert (action.node, action.parent, action.children) == ("s", "r", ("l1", "l3"))
    after = apply(busy, action, 1000.0)
    assert decide(after, now=1001.0) == ()
    assert [node.name for node in after.children("r")] == ["l0", "l2", "s"]


def test_the_leaf_with_the_fewest_viewers_is_spared_where_the_others_are_enough() -> None:
    leaves = [leaf("a", 4), leaf("b", 1), leaf("c", 3)]
    assert decide(site(*leaves)) == (DrainLeaf("b", "the other leaves are enough"),)
    assert decide(site(*leaves, leaf("d", phase=Phase.DRAINING, on_since=990.0))) == ()
    assert decide(site(leaf("a", 4), leaf("b", 4))) == ()
    assert decide(site(leaf("a", 4, cpu=60.0), leaf("b", 1, cpu=60.0))) == ()
    young = [replace(each, since=900.0) for each in leaves]
    assert decide(site(*young)) == ()


def test_what_is_empty_goes_after_a_while() -> None:
    empty = leaf("b", empty_since=890.0)
    state = site(leaf("a", 3), empty)
    assert decide(state) == ()
    assert decide(state, now=1010.0) == (SwitchOff("b", "empty for 120 s"),)
    assert decide(site(leaf("a", 3), replace(empty, on_since=800.0)), now=1010.0) == ()
    assert decide(site(leaf("a", 7), empty), now=1010.0) == ()  # missed
    assert decide(site(empty), now=1010.0) == ()  # the last
    assert kinds(decide(site(leaf("a", 7), replace(empty, phase=Phase.DRAINING)), now=1010.0)) == [
        SwitchOff
    ]


def test_a_relay_goes_when_nothing_hangs_from_it() -> None:
    state = site(leaf("a", 3), relay("r", empty_since=0.0), relay("s"), leaf("b", 4, parent="s"))
    assert decide(state) == (SwitchOff("r", "empty for 1000 s"),)
    kept = Standard(replace(MARKS, least_relays=2))
    assert kept.decide(state, (), 1000.0) == ()


def test_a_lower_rendition_lasts_as_long_as_most_viewers_suffer() -> None:
    state = site(relay("r"), leaf("a", 5, parent="r"))
    assert decide(state, trouble("r", Scope.FEW)) == ()
    assert decide(state, trouble("r", Scope.MOST, Severity.WARNING)) == ()
    lowered = decide(state, trouble("r", Scope.MOST), trouble("a", Scope.MOST))
    assert [action.subtree for action in lowered] == ["a", "r"]  # type: ignore[union-attr]
    (lower,) = decide(state, trouble("r", Scope.MOST))
    assert lower == LowerRendition("r", STREAM, 1060.0, 60.0, "loss troubles 70% of the viewers")
    state = apply(state, lower, 1000.0)
    assert decide(state, trouble("r", Scope.MOST), trouble("a", Scope.MOST), now=2000.0) == ()
    assert decide(state, now=1059.0) == ()
    (restore,) = decide(state, now=1060.0)
    assert restore == RestoreRendition("r", STREAM, "the trouble is over")
    state = apply(state, restore, 1060.0)
    assert decide(state, now=1061.0) == ()
    (again,) = decide(state, trouble("r", Scope.MOST), now=1090.0)
    assert isinstance(again, LowerRendition)
    assert again.hold_s == 120.0
    (much_later,) = decide(state, trouble("r", Scope.MOST), now=9000.0)
    assert isinstance(much_later, LowerRendition)
    assert much_later.hold_s == 60.0


def test_every_action_is_an_event_with_its_reason() -> None:
    event = event_of(InsertLevel("s", "r", ("a", "b"), "too much"))
    assert (event.kind, event.subject) == ("tree.level-inserted", "s")
    assert event.data == {"parent": "r", "children": "a b", "reason": "too much"}
    lowered = event_of(LowerRendition("r", STREAM, 1060.0, 60.0, "over"))
    assert lowered.subject == "r"
    assert lowered.data == {"stream": STREAM, "hold_s": 60.0, "reason": "over"}


def test_policies_are_found_by_name() -> None:
    assert isinstance(find(), Standard)
    assert isinstance(find(), Policy)
    with pytest.raises(UsageError, match="there are: standard"):
        find("other")
    with pytest.raises(UsageError, match="low < high"):
        Marks(low=0.8, high=0.8)
    for name, value in (
        ("cpu_high", 0.0),
        ("least_leaves", -1),
        ("quiet_s", nan),
        ("lower_s", inf),
    ):
        with pytest.raises(UsageError, match=name):
            Marks(**{name: value})


class World:
    """A site that does what is decided, and whose viewers go to the leaf with the least load."""

    def __init__(self, state: SiteState, rng: Random, starts_in: float) -> None:
        self.state = state
        self.rng = rng
        self.starts_in = starts_in
        self.done: list[tuple[float, Action]] = []
        self.homeless = 0

    def turn(self, now: float, change: int, *diagnoses: Diagnosis) -> None:
        """Let ``change`` viewers come or go, decide, and place who waits."""
        self._get_ready(now)
        for _ in range(-change):
            self._leave(now)
        self.homeless += max(0, change)
        self._place(now)
        self.state = replace(self.state, waiting=self.homeless)
        for action in Standard(MARKS).decide(self.state, diagnoses, now):
            self.state = apply(self.state, action, now)
            self.done.append((now, action))
        self.state = replace(self.state, waiting=0)
        for node in self.state.inner():
            empty = not self.state.children(node.name)
            since = (now if node.empty_since is None else node.empty_since) if empty else None
            self._set(replace(node, empty_since=since))

    def _get_ready(self, now: float) -> None:
        for node in self.state.nodes.values():
            if node.phase is Phase.UP and now - node.on_since >= self.starts_in:
                self._set(replace(node, ready=True))

    def _place(self, now: float) -> None:
        while self.homeless:
            open_ = [each for each in self.state.nodes.values() if self._is_open(each)]
            if not open_:
                return
            best = min(open_, key=lambda each: (each.viewers / each.capacity, each.name))
            self._set(replace(best, viewers=best.viewers + 1, empty_since=None))
            self.homeless -= 1

    def _is_open(self, node: NodeState) -> bool:
        return node.role is Role.LEAF and takes(node, None)

    def _leave(self, now: float) -> None:
        if self.homeless:
            self.homeless -= 1
            return
        taken = [each for each in self.state.nodes.values() if each.viewers]
        if taken:
            node = self.rng.choice(taken)
            left = node.viewers - 1
            self._set(replace(node, viewers=left, empty_since=None if left else now))

    def _set(self, node: NodeState) -> None:
        self.state = replace(self.state, nodes={**self.state.nodes, node.name: node})

    def check(self) -> None:
        """The site is a tree, nobody watches at a node that is off, and there is room for all."""
        up = [node for node in self.state.nodes.values() if node.phase is not Phase.IDLE]
        if any(node.role is Role.LEAF for node in up):
            Tree([Node(node.name, node.role, node.parent) for node in up])
        assert all(node.viewers <= node.capacity for node in up)
        assert not any(n.viewers for n in self.state.nodes.values() if n.phase is Phase.IDLE)
        assert all(len(self.state.children(n.name)) <= n.capacity for n in self.state.inner())


@st.composite
def worlds(draw: st.DrawFn) -> World:
    capacities = draw(st.lists(st.integers(1, 12), min_size=1, max_size=6))
    nodes = [idle(f"l{n}", capacity=each) for n, each in enumerate(capacities)]
    fan_out = draw(st.integers(2, 4))
    nodes += [idle(f"r{n}", Role.RELAY, capacity=fan_out) for n in range(6)]
    rng = Random(draw(st.integers(0, 1000)))
    return World(site(*nodes, root=fan_out), rng, draw(st.sampled_from([0.0, 7.0, 25.0])))


@given(worlds(), st.lists(st.integers(-12, 12), min_size=1, max_size=60), st.integers(1, 90))
@settings(max_examples=60, deadline=None)
def test_with_any_load_no_node_flaps_and_everybody_is_served(
    world: World, trace: list[int], step_s: int
) -> None:
    on: dict[str, float] = {}
    for turn, change in enumerate(trace):
        world.turn(turn * step_s, change)
        world.check()
        everything = sum(
            each.capacity for each in world.state.nodes.values() if each.role is Role.LEAF
        )
        serving = world.state.leaves(Phase.UP)
        viewers = sum(each.viewers for each in world.state.nodes.values())
        room = sum(each.capacity - each.viewers for each in serving)
        assert room >= min(world.homeless, everything - viewers)
    for now, action in world.done:
        if isinstance(action, AddLeaf | AddRelay | InsertLevel):
            on[action.node] = now
        if isinstance(action, SwitchOff):
            assert now - on[action.node] >= MARKS.cool_down_s
    drained: dict[str, float] = {}
    for now, action in world.done:
        if isinstance(action, UndrainLeaf | AddLeaf):
            drained[action.node] = now
        if isinstance(action, DrainLeaf):
            assert now - drained[action.node] >= MARKS.cool_down_s


@given(worlds(), st.integers(0, 60), st.lists(st.sampled_from(["l0", "l1", "r0"]), max_size=2))
@settings(max_examples=40, deadline=None)
def test_with_a_constant_load_there_is_an_end_to_actions(
    world: World, viewers: int, sick: list[str]
) -> None:
    diagnoses = [danger(name) for name in sick] + [trouble("l0", Scope.MOST)]
    world.turn(0.0, viewers, *diagnoses)
    for turn in range(1, 200):
        world.turn(10.0 * turn, 0, *diagnoses)
        world.check()
    assert all(now < 1500 for now, _ in world.done)
    assert len(world.done) <= 40


@given(worlds(), st.integers(1, 40))
@settings(max_examples=30, deadline=None)
def test_when_all_have_gone_the_least_number_stays(world: World, viewers: int) -> None:
    world.turn(0.0, viewers)
    for turn in range(1, 30):
        world.turn(10.0 * turn, 0)
    world.turn(300.0, -10 * viewers)
    for turn in range(1, 100):
        world.turn(300.0 + 10.0 * turn, 0)
    phases = Counter(each.phase for each in world.state.nodes.values() if each.role is Role.LEAF)
    assert phases[Phase.UP] == MARKS.least_leaves
    assert phases[Phase.DRAINING] == 0
