"""The state of a site's tree that policies decide on, as plain records."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from ipaddress import IPv4Network, IPv6Network
from math import inf

from anabranch.tree.model import Role


class Phase(StrEnum):
    """What a node is there for: nothing, its role, or only those it has already."""

    IDLE = "idle"
    UP = "up"
    DRAINING = "draining"


@dataclass(frozen=True, slots=True)
class NodeState:
    """One node. All times are monotonic seconds; ``-inf``: as long as can be remembered.

    Attributes:
        parent: None for the root and for idle nodes.
        ready: it does its work now; a node that has just been switched on is not.
        stays: it is not from the pool of idle nodes: nobody switches it off for want of work.
        since: when ``phase`` changed last.
        on_since: when it was switched on last.
        empty_since: when its last viewer or child went; None: it has some.
        viewers: of a leaf.
        capacity: viewers that a leaf can serve, children that a root or relay can have.
        cpu: per cent of a core; None: not known.
        egress: share of the rate of its way out that is in use; None: not known.
        place: where it is, from the wide to the narrow: ``europe/naples/room3``.
        streams: what it receives now.
        links: nodes that it can hang from; none: any.
        serves: networks whose viewers can reach it; none: everybody can.
    """

    name: str
    role: Role
    parent: str | None = None
    phase: Phase = Phase.UP
    ready: bool = True
    stays: bool = False
    since: float = -inf
    on_since: float = -inf
    empty_since: float | None = None
    viewers: int = 0
    capacity: int = 0
    cpu: float | None = None
    egress: float | None = None
    place: str = ""
    streams: frozenset[str] = frozenset()
    links: frozenset[str] = frozenset()
    serves: tuple[IPv4Network | IPv6Network, ...] = ()

    def can_hang_from(self, parent: str) -> bool:
        """Say whether there is a link to ``parent``."""
        return not self.links or parent in self.links

    def nearness(self, other: "NodeState") -> int:
        """Return how many parts of their places, from the wide to the narrow, are the same."""
        count = 0
        for mine, theirs in zip(self.place.split("/"), other.place.split("/"), strict=False):
            if not mine or mine != theirs:
                break
            count += 1
        return count


@dataclass(frozen=True, slots=True)
class Lowering:
    """A lower rendition in a subtree.

    Attributes:
        until: it stays at least so long, monotonic seconds.
        hold_s: how long it was to stay at least.
        restored: when it ended; None: it lasts.
    """

    until: float
    hold_s: float
    restored: float | None = None


@dataclass(frozen=True, slots=True)
class SiteState:
    """The whole site.

    Attributes:
        nodes: by name.
        waiting: viewers who were turned away since the last decision for want of a leaf.
        lowerings: by node whose subtree it is, and stream; also those that have ended.
    """

    nodes: Mapping[str, NodeState]
    waiting: int = 0
    lowerings: Mapping[tuple[str, str], Lowering] = field(default_factory=dict)

    def children(self, name: str) -> list[NodeState]:
        """Return the nodes that hang from ``name``."""
        return [node for node in self.nodes.values() if node.parent == name]

    def inner(self) -> list[NodeState]:
        """Return the root and the relays that are up."""
        return [
            node
            for node in self.nodes.values()
            if node.role is not Role.LEAF and node.phase is Phase.UP
        ]

    def leaves(self, phase: Phase) -> list[NodeState]:
        """Return the leaves in that phase."""
        return self._of(Role.LEAF, phase)

    def idle(self, role: Role) -> list[NodeState]:
        """Return the pool of idle nodes for ``role``."""
        return self._of(role, Phase.IDLE)

    def ancestry(self, name: str) -> Iterator[str]:
        """Yield ``name``, its parent, and so on up to the root."""
        at: str | None = name
        while at is not None:
            yield at
            node = self.nodes.get(at)
            at = node.parent if node else None

    def _of(self, role: Role, phase: Phase) -> list[NodeState]:
        return [n for n in self.nodes.values() if n.role is role and n.phase is phase]
