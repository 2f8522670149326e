"""How a tree grows from its root: the minimum one, or what is missing of one that stands.

Relays are joined first, by Prim's algorithm: unlike Kruskal's it knows the root, and so the depth
and the fan-out of what it takes. Each leaf then takes its lightest link. A leaf is nobody's parent,
so both steps together give the least weight of all trees that respect the roles. With limits of
fan-out the problem is NP-hard: then room is made by moving others, and the weight may not be least.
"""

from collections import deque
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from enum import StrEnum
from heapq import heapify, heappop, heappush
from math import inf

from anabranch.tree.description import Description
from anabranch.tree.model import Role

_RESERVE = 1e12  # more than all links that are no reserves weigh together

_Way = tuple[float, float, bool]  # weight, -Mbit/s, is not the present parent: the least is best
_Ways = Mapping[str, Mapping[str, _Way]]  # of every node but the root, to who may be its parent
_Place = tuple[str, bool]  # where somebody moves to, and whether a relay moves on the way there
_Step = tuple[float, int, float, bool, int, str, str]


class Reason(StrEnum):
    """Why a node is not in the tree."""

    IDLE = "idle"
    UNREACHABLE = "unreachable"
    DANGLING = "dangling"
    UNUSED = "unused"
    FULL = "full"

    @property
    def text(self) -> str:
        """What to say after the node's name."""
        return _TEXTS[self]


_TEXTS = {
    Reason.IDLE: "is not available",
    Reason.UNREACHABLE: "has no way to the root, or only through leaves",
    Reason.DANGLING: "leads to no leaf",
    Reason.UNUSED: "is needed by no leaf",
    Reason.FULL: "finds no room within the limits of fan-out",
}


@dataclass(frozen=True, slots=True)
class Grown:
    """The parent of every node of the tree but the root, and why the others are not in it."""

    parents: Mapping[str, str]
    pruned: Mapping[str, Reason]


def grow(
    description: Description, *, kept: Mapping[str, str] | None, present: Mapping[str, str]
) -> Grown:
    """Return the tree of a description; the order of its nodes and links does not matter.

    Args:
        description: nodes, links, limits.
        kept: parents to leave as they are where they still can be. Nodes that lost theirs hang
            from the best that is left, if need be by a redundancy link or from a relay that was
            not in the tree. None: a tree from scratch, without redundancy links.
        present: parents to prefer among those of equal weight and depth.
    """
    pruned = {node.name: Reason.IDLE for node in description.nodes if not node.available}
    ways = _ways(description, present, reserves=kept is not None)
    pruned |= _strays(description.root, description.roles, ways)
    ways = _without(ways, pruned)
    if kept is None:
        growth = _Growth(description, {})
    else:
        growth = _Growth(description, {n: p for n, p in kept.items() if p in ways.get(n, ())})
        orphans = growth.leaves.union(kept).difference(growth.parents)
        idle = {name for name in ways if name not in kept and name not in growth.leaves}
        reserves = {
            (child, parent)
            for child in ways.keys() - orphans
            for parent, way in ways[child].items()
            if way[0] >= _RESERVE
        }
        growth.extend(_without(ways, idle, reserves))
    growth.extend(ways)
    growth.trim()
    for name in ways:
        if name not in growth.parents and name not in pruned:
            pruned[name] = Reason.FULL if name in growth.leaves else Reason.UNUSED
    return Grown(growth.parents, dict(sorted(pruned.items())))


def _ways(description: Description, present: Mapping[str, str], *, reserves: bool) -> _Ways:
    """Return by what links each available node could hang; ``reserves``: by redundant ones, too."""
    roles, weights = description.roles, description.weights
    available = {node.name for node in description.nodes if node.available}
    ways: dict[str, dict[str, _Way]] = {name: {} for name in available - {description.root}}
    for link in description.links:
        if link.redundant and not reserves:
            continue
        pair = link.ends
        weight = weights[pair] + _RESERVE * link.redundant
        for child, parent in (pair, pair[::-1]):
            if child in ways and parent in available and roles[parent] is not Role.LEAF:
                ways[child][parent] = (weight, -link.rate_mbit, present.get(child) != parent)
    return ways


def _without(ways: _Ways, names: Collection[str], pairs: Collection[tuple[str, str]] = ()) -> _Ways:
    return {
        child: {
            parent: way
            for parent, way in parents.items()
            if parent not in names and (child, parent) not in pairs
        }
        for child, parents in ways.items()
        if child not in names
    }


def _strays(root: str, roles: Mapping[str, Role], ways: _Ways) -> dict[str, Reason]:
    """Return what is not connected to the root, and the branches that end in no leaf."""
    joined: dict[str, set[str]] = {name: set() for name in (root, *ways)}
    for child, parents in ways.items():
        for parent in parents:
            joined[child].add(parent)
            joined[parent].add(child)
    reached = {root: None}
    pending = [root]
    for name in pending:
        if roles[name] is not Role.LEAF:
            fresh = joined[name] - reached.keys()
            reached.update(dict.fromkeys(fresh))
            pending.extend(fresh)
    strays = {name: Reason.UNREACHABLE for name in ways if name not in reached}
    relays = [name for name in reached if roles[name] is Role.RELAY]
    for name in relays:  # grows: a relay may be the end of its branch once another is gone
        if name not in strays and len(joined[name]) < 2:
            strays[name] = Reason.DANGLING
            for other in joined[name]:
                joined[other].discard(name)
                if roles[other] is Role.RELAY:
                    relays.append(other)
    return strays


class _Growth:
    """A tree in the making; subtrees whose top has no parent yet hang together already.

    Attributes:
        parents: of every node that has one.
        leaves: all leaves of the description.
    """

    def __init__(self, description: Description, parents: Mapping[str, str]) -> None:
        self._roles = description.roles
        self._fan_out = description.fan_out
        self._root = description.root
        self.leaves = {name for name, role in self._roles.items() if role is Role.LEAF}
        self._children: dict[str, set[str]] = {name: set() for name in self._roles}
        self.parents = dict(parents)
        for child, parent in parents.items():
            self._children[parent].add(child)
        self._depths: dict[str, int] = {}  # of what is joined to the root
        self._settle(self._root, 0)
        self._ways: _Ways = {}

    def extend(self, ways: _Ways) -> None:
        """Join every leaf and every subtree that can be joined by ``ways``."""
        self._ways = ways
        if not any(
            name in self.leaves or self._children[name] for name in ways if name not in self.parents
        ):
            return
        self._span(lambda top: bool(self._children[top]))
        if self._hang_leaves():
            self._span(lambda _: True)
            for leaf in self._hang_leaves():
                self._displace(leaf)

    def trim(self) -> None:
        """Take relays that serve no leaf away, and what is not joined to the root."""
        for name in self.parents.keys() - self._depths.keys():
            self._cut(name)
        pending = [
            name
            for name in self._depths
            if self._roles[name] is Role.RELAY and not self._children[name]
        ]
        for name in pending:
            parent = self.parents[name]
            self._cut(name)
            if parent != self._root and not self._children[parent]:
                pending.append(parent)

    def _span(self, matters: Callable[[str], bool]) -> None:
        """Join the relays, whole subtrees where possible, else their parts.

        Others make room for those that matter.
        """
        while True:
            self._spread()
            tops = sorted(self._ways.keys() - self.parents.keys() - self.leaves)
            if any(matters(top) and self._make_room(top) for top in tops):
                continue
            orphaned = [child for top in tops for child in self._children[top]]
            if not orphaned:
                return
            for child in orphaned:
                self._cut(child)

    def _spread(self) -> None:
        """Prim's algorithm, on from what is joined."""
        down: dict[str, list[str]] = {}
        for child, parents in self._ways.items():
            if child not in self.parents and child not in self.leaves:
                for parent in parents:
                    down.setdefault(parent, []).append(child)
        steps = [self._step(child, name) for name in self._depths for child in down.get(name, ())]
        heapify(steps)
        while steps:
            step = heappop(steps)
            child, parent = step[-2:]
            if child in self.parents or not self._has_room(parent):
                continue
            if (now := self._step(child, parent)) > step:  # the parent has more children since
                heappush(steps, now)
                continue
            for name in self._join(child, parent):
                for next_child in down.get(name, ()):
                    heappush(steps, self._step(next_child, name))

    def _step(self, child: str, parent: str) -> _Step:
        weight, slowness, changes = self._ways[child][parent]
        crowd = len(self._children[parent])
        return weight, self._depths[parent], slowness, changes, crowd, child, parent

    def _hang_leaves(self) -> list[str]:
        """Hang what leaves hang from nobody yet; return those for which there is no room."""
        waiting = sorted(self.leaves & self._ways.keys() - self.parents.keys())
        return [leaf for leaf in waiting if not self._hang(leaf)]

    def _hang(self, leaf: str) -> bool:
        steps = [
            self._step(leaf, parent)
            for parent in self._ways[leaf]
            if parent in self._depths and self._has_room(parent)
        ]
        if steps:
            self._join(leaf, min(steps)[-1])
            return True
        return self._make_room(leaf)

    def _make_room(self, node: str) -> bool:
        """Join ``node`` by the fewest moves of others, of which one may be a relay's.

        More than one relay on the move could close a circle.
        """
        first: list[_Place] = [(name, False) for name in sorted(self._ways[node])]
        came: dict[_Place, tuple[str, _Place | None]] = {
            place: (node, None) for place in first if place[0] in self._depths
        }
        pending = deque(came)
        while pending:
            place = pending.popleft()
            parent, moved = place
            moves = _path(place, came)
            if self._has_room(parent):
                for child, new_parent in moves:
                    self._cut(child)
                    self._join(child, new_parent)
                return True
            movers = self._children[parent] - dict(moves).keys()
            for child in sorted(movers if not moved else movers & self.leaves):
                is_relay = child not in self.leaves
                for other in sorted(self._ways.get(child, ())):
                    target = (other, moved or is_relay)
                    if other == parent or other not in self._depths or target in came:
                        continue
                    if not (is_relay and self._is_below(other, child)):
                        came[target] = (child, place)
                        pending.append(target)
        return False

    def _displace(self, leaf: str) -> bool:
        """Hang a leaf in the place of a relay that serves no leaf, if there is one."""
        for parent in sorted(self._ways[leaf]):
            for child in sorted(self._children[parent] - self.leaves):
                if parent in self._depths and not self._serves(child):
                    self._cut(child)
                    self._join(leaf, parent)
                    return True
        return False

    def _serves(self, top: str) -> bool:
        names = [top]
        for name in names:
            if name in self.leaves:
                return True
            names.extend(self._children[name])
        return False

    def _has_room(self, parent: str) -> bool:
        return len(self._children[parent]) < self._fan_out.get(self._roles[parent], inf)

    def _is_below(self, name: str, top: str) -> bool:
        while name != top and name in self.parents:
            name = self.parents[name]
        return name == top

    def _join(self, child: str, parent: str) -> list[str]:
        """Hang ``child`` with all that is below it; return the names."""
        self.parents[child] = parent
        self._children[parent].add(child)
        return self._settle(child, self._depths[parent] + 1)

    def _settle(self, top: str, depth: int) -> list[str]:
        self._depths[top] = depth
        names = [top]
        for name in names:
            for child in self._children[name]:
                self._depths[child] = self._depths[name] + 1
                names.append(child)
        return names

    def _cut(self, child: str) -> None:
        """Take ``child`` from its parent, if it has one; what is below stays below it."""
        parent = self.parents.pop(child, None)
        if parent is not None:
            self._children[parent].discard(child)
        pending = [child]
        for name in pending:
            self._depths.pop(name, None)
            pending.extend(self._children[name])


def _path(place: _Place, came: Mapping[_Place, tuple[str, _Place | None]]) -> list[tuple[str, str]]:
    """Return who moves where, in an order in which there is always room."""
    moves = []
    at: _Place | None = place
    while at is not None:
        child, before = came[at]
        moves.append((child, at[0]))
        at = before
    return moves
