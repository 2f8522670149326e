"""What policies can have done, as records; each becomes an event with its reason."""

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import ClassVar

from anabranch.core.events import Event
from anabranch.tree.state import Lowering, NodeState, Phase, SiteState


@dataclass(frozen=True, slots=True)
class LowerRendition:
    """Give the viewers of ``stream`` below ``subtree`` the next lower rendition.

    It stays until monotonic ``until`` at least, and while the trouble lasts.
    """

    kind: ClassVar[str] = "tree.rendition-lowered"
    subtree: str
    stream: str
    until: float
    hold_s: float
    reason: str


@dataclass(frozen=True, slots=True)
class RestoreRendition:
    """Take a lowering back."""

    kind: ClassVar[str] = "tree.rendition-restored"
    subtree: str
    stream: str
    reason: str


@dataclass(frozen=True, slots=True)
class DrainLeaf:
    """Send nobody new to this leaf."""

    kind: ClassVar[str] = "tree.leaf-draining"
    node: str
    reason: str


@dataclass(frozen=True, slots=True)
class UndrainLeaf:
    """Send viewers to it again."""

    kind: ClassVar[str] = "tree.leaf-undrained"
    node: str
    reason: str


@dataclass(frozen=True, slots=True)
class AddLeaf:
    """Switch an idle leaf on, below ``parent``; ``near``: the node that it is to relieve."""

    kind: ClassVar[str] = "tree.leaf-added"
    node: str
    parent: str
    near: str
    reason: str


@dataclass(frozen=True, slots=True)
class AddRelay:
    """Switch an idle relay on, below ``parent``."""

    kind: ClassVar[str] = "tree.relay-added"
    node: str
    parent: str
    reason: str


@dataclass(frozen=True, slots=True)
class InsertLevel:
    """Switch an idle relay on, below ``parent``, and hang some of that one's children from it."""

    kind: ClassVar[str] = "tree.level-inserted"
    node: str
    parent: str
    children: tuple[str, ...]
    reason: str


@dataclass(frozen=True, slots=True)
class SwitchOff:
    """Return an empty node to the idle pool."""

    kind: ClassVar[str] = "tree.node-switched-off"
    node: str
    reason: str


Action = (
    LowerRendition
    | RestoreRendition
    | DrainLeaf
    | UndrainLeaf
    | AddLeaf
    | AddRelay
    | InsertLevel
    | SwitchOff
)


def event_of(action: Action) -> Event:
    """Return the event that tells of an action."""
    data = {
        each.name: getattr(action, each.name)
        for each in fields(action)
        if each.name != "until"  # monotonic: nobody else's clock
    }
    subject = data.pop(
        "subtree" if isinstance(action, LowerRendition | RestoreRendition) else "node"
    )
    if isinstance(action, InsertLevel):
        data["children"] = " ".join(action.children)
    return Event(action.kind, subject, data)


def apply(state: SiteState, action: Action, now: float) -> SiteState:
    """Return the state as it is once ``action`` has been begun at monotonic ``now``."""
    match action:
        case LowerRendition(subtree, stream, until, hold_s):
            lowering = Lowering(until, hold_s)
            return replace(state, lowerings={**state.lowerings, (subtree, stream): lowering})
        case RestoreRendition(subtree, stream):
            key = subtree, stream
            ended = replace(state.lowerings[key], restored=now)
            return replace(state, lowerings={**state.lowerings, key: ended})
        case DrainLeaf(node):
            return _with(state, replace(state.nodes[node], phase=Phase.DRAINING, since=now))
        case UndrainLeaf(node):
            return _with(state, replace(state.nodes[node], phase=Phase.UP, since=now))
        case AddLeaf(node, parent) | AddRelay(node, parent):
            return _with(state, _switched_on(state.nodes[node], parent, now))
        case InsertLevel(node, parent, children):
            relay = replace(_switched_on(state.nodes[node], parent, now), empty_since=None)
            moved = [replace(state.nodes[child], parent=node) for child in children]
            return _with(state, relay, *moved)
        case SwitchOff(node):
            off = replace(
                state.nodes[node],
                parent=None,
                phase=Phase.IDLE,
                since=now,
                ready=False,
                streams=frozenset(),
                cpu=None,
                egress=None,
            )
            return _with(state, off)


def _switched_on(node: NodeState, parent: str, now: float) -> NodeState:
    return replace(
        node,
        parent=parent,
        phase=Phase.UP,
        ready=False,
        since=now,
        on_since=now,
        empty_since=now,
        viewers=0,
    )


def _with(state: SiteState, *changed: NodeState) -> SiteState:
    nodes: Mapping[str, NodeState] = {**state.nodes, **{node.name: node for node in changed}}
    return replace(state, nodes=nodes)
