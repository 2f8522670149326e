"""Policies: from the state of the site and what is wrong to what is to be done.

Each is a pure function. :class:`Standard` applies them in order, each to the state as those
before it leave it. A package offers another by an entry point of the group
``anabranch.tree_policy``: an object that satisfies :class:`Policy`, or a class that makes one.

It never flaps: what takes nodes away wants the load below the lower mark afterwards, a cool-down
since the node came, and time without anybody; what brings nodes wants the load above the upper one.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from math import ceil, inf
from typing import Protocol, runtime_checkable

from anabranch.core.errors import UsageError
from anabranch.core.plugins import find_plugin
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
)
from anabranch.tree.metrics import Severity
from anabranch.tree.model import Role
from anabranch.tree.state import NodeState, Phase, SiteState
from anabranch.tree.trouble import Diagnosis, Scope

GROUP = "anabranch.tree_policy"
DEFAULT = "standard"


_SECONDS = ("quiet_s", "cool_down_s", "settle_s", "start_s", "lower_s", "most_lower_s")


@dataclass(frozen=True, slots=True)
class Marks:
    """What the operator asks of the site.

    Attributes:
        high: share of the leaves' capacity in use above which a leaf is added.
        low: share that must be left at most where a leaf is taken away.
        cpu_high: per cent of a core, mean of the leaves or of one relay, that counts as too much.
        egress_high: share of the rate of a relay's way out that counts as too much.
        least_leaves, least_relays: that stay up, whatever the load.
        quiet_s: seconds that a node is empty before it is switched off.
        cool_down_s: seconds that a node stays up at least.
        settle_s: seconds until figures show what an action has done.
        start_s: seconds that a node may take to be ready.
        lower_at: how bad a trouble of most viewers is for a lower rendition.
        lower_s: seconds that a lower rendition stays at least; twice as long each time that the
            trouble is back soon after it has ended.
        most_lower_s: upper bound of that.

    Raises:
        UsageError: these do not fit together.
    """

    high: float = 0.8
    low: float = 0.5
    cpu_high: float = 80.0
    egress_high: float = 0.85
    least_leaves: int = 1
    least_relays: int = 0
    quiet_s: float = 120.0
    cool_down_s: float = 300.0
    settle_s: float = 30.0
    start_s: float = 60.0
    lower_at: Severity = Severity.DANGER
    lower_s: float = 60.0
    most_lower_s: float = 3600.0

    def __post_init__(self) -> None:
        if not 0 < self.low < self.high <= 1:
            raise UsageError(
                f"the marks of load need 0 < low < high <= 1, not {self.low:g} and {self.high:g}"
            )
        for name in ("cpu_high", "egress_high"):
            if not 0 < getattr(self, name) < inf:
                raise UsageError(f"the mark {name} needs to be above 0")
        for name in ("least_leaves", "least_relays", *_SECONDS):
            if not 0 <= getattr(self, name) < inf:
                raise UsageError(f"the mark {name} needs to be 0 or more")


@runtime_checkable
class Policy(Protocol):
    """Decides what is done about the state of the site. A pure function of its arguments."""

    def decide(
        self, state: SiteState, diagnoses: Sequence[Diagnosis], now: float
    ) -> tuple[Action, ...]:
        """Return what is to be done at monotonic ``now``, in this order."""
        ...


Step = Callable[[SiteState, Sequence[Diagnosis], float, Marks], Iterator[Action]]
"""One policy. What it yields holds in the state that it is given after what it yielded before."""


class Standard:
    """The policies of this module, in order; see :class:`Policy`."""

    def __init__(self, marks: Marks | None = None) -> None:
        self._marks = marks or Marks()

    def decide(
        self, state: SiteState, diagnoses: Sequence[Diagnosis], now: float
    ) -> tuple[Action, ...]:
        """See :class:`Policy`."""
        done: list[Action] = []
        for step in STEPS:
            for action in step(state, diagnoses, now, self._marks):
                done.append(action)
                state = apply(state, action, now)
        return tuple(done)


def find(name: str = DEFAULT) -> Policy:
    """Return the policy called ``name``.

    Raises:
        UsageError: there is none, it cannot be imported, or it is no policy.
    """
    return find_plugin(GROUP, name, Policy, {DEFAULT: Standard})  # type: ignore[type-abstract]


def lower_renditions(
    state: SiteState, diagnoses: Sequence[Diagnosis], now: float, marks: Marks
) -> Iterator[Action]:
    """Lower a stream's rendition where most viewers suffer; restore it when that is over.

    A few slow viewers change nothing for the others.
    """
    troubled = {
        (each.node, each.stream): each
        for each in diagnoses
        if each.scope is Scope.MOST and each.severity >= marks.lower_at
    }
    lowered = {key for key, each in state.lowerings.items() if each.restored is None}
    for key in sorted(lowered):
        subtree, stream = key
        if key not in troubled and now >= state.lowerings[key].until:
            yield RestoreRendition(subtree, stream, "the trouble is over")
    for (subtree, stream), found in sorted(troubled.items()):
        if any((above, stream) in lowered for above in state.ancestry(subtree)):
            continue
        lowered.add((subtree, stream))
        last = state.lowerings.get((subtree, stream))
        hold = marks.lower_s
        if last is not None and last.restored is not None and now - last.restored < last.hold_s:
            hold = min(2 * last.hold_s, marks.most_lower_s)
        reason = f"{found.metric} troubles {found.share:.0%} of the viewers"
        yield LowerRendition(subtree, stream, now + hold, hold, reason)


def grow(
    state: SiteState, diagnoses: Sequence[Diagnosis], now: float, marks: Marks
) -> Iterator[Action]:
    """Bring leaves while the load is above the upper mark: draining ones first, then idle ones.

    CPU tells only after a while what a new leaf has changed: for it, one leaf at a time.
    """
    sick = _sick(diagnoses)
    while True:
        serving = _serving(state, sick, now, marks)
        reason = _want(state, serving, now, marks)
        if reason is None:
            return
        steps = _another_leaf(state, serving, sick, reason)
        if not steps:
            return
        for action in steps:
            yield action
            state = apply(state, action, now)


def drain(
    state: SiteState, diagnoses: Sequence[Diagnosis], now: float, marks: Marks
) -> Iterator[Action]:
    """Drain a leaf that is in danger itself, if others can take its place."""
    sick = _sick(diagnoses)
    for found in sorted(diagnoses, key=lambda each: each.node):
        node = state.nodes.get(found.node)
        if node is None or found.node not in sick or node.role is not Role.LEAF:
            continue
        others = [leaf for leaf in _serving(state, sick, now, marks) if leaf.ready]
        if (
            node.phase is not Phase.UP
            or now - node.since < marks.settle_s
            or len(others) < max(1, marks.least_leaves)
            or all(leaf.viewers >= leaf.capacity for leaf in others)
        ):
            continue
        action = DrainLeaf(node.name, f"{found.metric} is in danger")
        yield action
        state = apply(state, action, now)


def insert_levels(
    state: SiteState, diagnoses: Sequence[Diagnosis], now: float, marks: Marks
) -> Iterator[Action]:
    """Put a relay between a node with too much to do, or too many children, and half of them."""
    sick = _sick(diagnoses)
    for node in sorted(state.inner(), key=lambda each: each.name):
        children = state.children(node.name)
        reason = _overload(node, children, sick, now, marks)
        if reason is None:
            continue
        action = _insertion(state, node, sick, reason)
        if action is not None:
            yield action
            state = apply(state, action, now)


def spare(
    state: SiteState, diagnoses: Sequence[Diagnosis], now: float, marks: Marks
) -> Iterator[Action]:
    """Drain the leaf with the fewest viewers, if the others are enough: one at a time."""
    serving = _serving(state, _sick(diagnoses), now, marks)
    old = [leaf for leaf in serving if not leaf.stays and now - leaf.since >= marks.cool_down_s]
    # An empty leaf needs no draining to be switched off.
    if not old or state.leaves(Phase.DRAINING) or not all(leaf.viewers for leaf in serving):
        return
    leaf = min(old, key=lambda each: (each.viewers, each.name))
    rest = [each for each in serving if each is not leaf and each.ready]
    if _are_enough(state, rest, len(serving), leaf.viewers, marks):
        yield DrainLeaf(leaf.name, "the other leaves are enough")


def switch_off(
    state: SiteState, diagnoses: Sequence[Diagnosis], now: float, marks: Marks
) -> Iterator[Action]:
    """Switch off what has been empty for long enough and is not missed."""
    sick = _sick(diagnoses)
    for node in sorted(state.nodes.values(), key=lambda each: each.name):
        if (
            node.phase is Phase.IDLE
            or node.stays
            or node.role is Role.ROOT
            or node.empty_since is None
            or now - node.empty_since < marks.quiet_s
            or now - node.on_since < marks.cool_down_s
        ):
            continue
        if node.role is Role.RELAY:
            relays = sum(each.role is Role.RELAY for each in state.inner())
            missed = relays <= marks.least_relays or state.children(node.name) != []
        elif node.phase is Phase.DRAINING:
            missed = node.viewers > 0
        else:
            serving = _serving(state, sick, now, marks)
            rest = [leaf for leaf in serving if leaf.name != node.name]
            enough = _are_enough(state, rest, len(serving), 0, marks)
            missed = node.viewers > 0 or not (enough or node not in serving)
        if missed:
            continue
        action = SwitchOff(node.name, f"empty for {now - node.empty_since:.0f} s")
        yield action
        state = apply(state, action, now)


STEPS: tuple[Step, ...] = (lower_renditions, grow, drain, insert_levels, spare, switch_off)


def _sick(diagnoses: Sequence[Diagnosis]) -> frozenset[str]:
    """Return the nodes that are in danger as machines."""
    return frozenset(
        each.node
        for each in diagnoses
        if each.scope is Scope.NODE and each.severity is Severity.DANGER
    )


def _serving(state: SiteState, sick: frozenset[str], now: float, marks: Marks) -> list[NodeState]:
    """Return the leaves that take viewers, or soon will."""
    return [
        leaf
        for leaf in state.leaves(Phase.UP)
        if leaf.name not in sick and _works(leaf, now, marks)
    ]


def _works(node: NodeState, now: float, marks: Marks) -> bool:
    return node.ready or now - node.on_since < marks.start_s


def _load(state: SiteState, serving: Sequence[NodeState], moving: int = 0) -> float:
    """Return the share of the leaves' capacity that is, or should be, in use."""
    capacity = sum(leaf.capacity for leaf in serving)
    wanted = sum(leaf.viewers for leaf in serving) + state.waiting + moving
    if not wanted:
        return 0.0
    return wanted / capacity if capacity else float("inf")


def _cpu(leaves: Sequence[NodeState]) -> float:
    known = [leaf.cpu for leaf in leaves if leaf.cpu is not None]
    return sum(known) / len(known) if known else 0.0


def _want(state: SiteState, serving: Sequence[NodeState], now: float, marks: Marks) -> str | None:
    """Return why another leaf is wanted; None: it is not."""
    if len(serving) < marks.least_leaves:
        return f"{len(serving)} of at least {marks.least_leaves} leaves serve"
    load = _load(state, serving)
    if load > marks.high:
        return f"the load is {load:.0%} of the leaves' capacity" if serving else "no leaf serves"
    settled = all(now - leaf.since >= marks.settle_s for leaf in serving)
    cpu = _cpu(serving)
    if settled and cpu > marks.cpu_high:
        return f"the leaves' mean CPU load is {cpu:.0f} %"
    return None


def _are_enough(
    state: SiteState, rest: Sequence[NodeState], before: int, moving: int, marks: Marks
) -> bool:
    """Say whether the leaves ``rest`` of ``before`` do without the others.

    ``moving`` viewers come to them. The CPU load is taken to spread evenly.
    """
    if len(rest) < marks.least_leaves or state.waiting:
        return False
    if _load(state, rest, moving) > marks.low:
        return False
    share = before / len(rest) if rest else 1.0
    return _cpu(rest) * share <= marks.cpu_high * marks.low / marks.high


def _another_leaf(
    state: SiteState, serving: Sequence[NodeState], sick: frozenset[str], reason: str
) -> list[Action]:
    """Return what brings one more leaf; nothing, if there is none or no place for it."""
    near = max(
        serving or state.inner(),
        key=lambda each: (each.viewers / max(1, each.capacity), each.name),
        default=None,
    )
    if near is None:
        return []
    draining = [
        leaf
        for leaf in state.leaves(Phase.DRAINING)
        if leaf.ready and leaf.name not in sick and leaf.viewers < leaf.capacity
    ]
    if draining:
        leaf = min(draining, key=lambda each: (-each.nearness(near), each.viewers, each.name))
        return [UndrainLeaf(leaf.name, reason)]
    pool = sorted(
        (leaf for leaf in state.idle(Role.LEAF) if leaf.name not in sick and leaf.capacity > 0),
        key=lambda each: (-each.nearness(near), each.since, each.name),
    )
    for leaf in pool:
        steps, parent = _place_for(state, leaf, sick, reason)
        if parent is not None:
            return [*steps, AddLeaf(leaf.name, parent, near.name, reason)]
    return []


def _place_for(
    state: SiteState, leaf: NodeState, sick: frozenset[str], reason: str
) -> tuple[list[Action], str | None]:
    """Return a parent for ``leaf``, and what makes room there first.

    A relay with room is best. The root's last place goes to a relay, if there is one to add.
    """
    room = {
        node.name: node.capacity - len(state.children(node.name))
        for node in state.inner()
        if node.name not in sick
    }
    relays = [each for each in state.idle(Role.RELAY) if each.name not in sick]

    def best(nodes: list[NodeState], of: NodeState) -> NodeState | None:
        fit = [node for node in nodes if room[node.name] > 0 and of.can_hang_from(node.name)]
        return max(
            fit,
            key=lambda each: (
                each.role is Role.RELAY,
                each.nearness(of),
                room[each.name],
                each.name,
            ),
            default=None,
        )

    inner = [node for node in state.inner() if node.name in room]
    parent = best(inner, leaf)
    if parent is not None and (parent.role is Role.RELAY or room[parent.name] > 1 or not relays):
        return [], parent.name
    for relay in _by_age(relays):
        above = best(inner, relay)
        if above is not None and relay.capacity > 0 and leaf.can_hang_from(relay.name):
            return [AddRelay(relay.name, above.name, reason)], relay.name
    if parent is not None:
        return [], parent.name
    for node in inner:
        insertion = _insertion(state, node, sick, reason)
        if insertion is None:
            continue
        if leaf.can_hang_from(node.name):
            return [insertion], node.name
    return [], None


def _overload(
    node: NodeState,
    children: Sequence[NodeState],
    sick: frozenset[str],
    now: float,
    marks: Marks,
) -> str | None:
    """Return why a root or relay has too much to do; None: it has not."""
    if len(children) > node.capacity:
        return f"{len(children)} children, {node.capacity} at most"
    if any(now - each.on_since < marks.settle_s for each in children):
        return None
    if node.name in sick:
        return "it is in danger"
    if node.cpu is not None and node.cpu > marks.cpu_high:
        return f"its CPU load is {node.cpu:.0f} %"
    if node.egress is not None and node.egress > marks.egress_high:
        return f"its way out is {node.egress:.0%} full"
    return None


def _insertion(
    state: SiteState, node: NodeState, sick: frozenset[str], reason: str
) -> InsertLevel | None:
    """Return how a relay takes half of a node's children, those nearest to it, at least two."""
    children = state.children(node.name)
    count = max(2, ceil(len(children) / 2), len(children) - node.capacity + 1)
    for relay in _by_age(each for each in state.idle(Role.RELAY) if each.name not in sick):
        if not relay.can_hang_from(node.name):
            continue
        movable = _nearest([each for each in children if each.can_hang_from(relay.name)], relay)
        moved = movable[: min(count, relay.capacity)]
        if len(moved) >= 2:
            names = tuple(sorted(each.name for each in moved))
            return InsertLevel(relay.name, node.name, names, f"{node.name}: {reason}")
    return None


def _nearest(nodes: Sequence[NodeState], to: NodeState) -> list[NodeState]:
    return sorted(nodes, key=lambda each: (-each.nearness(to), each.name))


def _by_age(nodes: Iterator[NodeState] | Sequence[NodeState]) -> list[NodeState]:
    """Return idle nodes, those first that have been so for longest: the others may have failed."""
    return sorted(nodes, key=lambda each: (each.since, each.name))
