"""The root's picture of the tree: every node, where it hangs, since when, under which addresses."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from anabranch.tree.events import Introduced, Joined, Left, Moved, TreeEvent
from anabranch.tree.model import Role
from anabranch.tree.soleil.messages import Hello
from anabranch.tree.subtree import Subtree

_ASK_EVERY_S = 2.0


@dataclass(slots=True)
class Place:
    """One node.

    Attributes:
        since: when it came to hang where it does, monotonic seconds.
        hello: how it presented itself last; None: not yet.
        lost: since when nobody has it below; it may come back elsewhere.
        farewell: why it said it leaves.
    """

    name: str
    role: Role
    parent: str
    since: float
    hello: Hello | None = None
    lost: float | None = None
    farewell: str | None = None


class Registry:
    """Follows what ``subtree`` believes, and gives lost nodes time to come back.

    Args:
        root: the root's name.
        subtree: the root's.
        grace: seconds after which a node that nobody has below counts as gone.
    """

    def __init__(self, root: str, subtree: Subtree, *, grace: float = 15.0) -> None:
        self._root = root
        self._subtree = subtree
        self._grace = grace
        self._places: dict[str, Place] = {}
        self._lost: dict[str, float] = {}
        self._strangers: dict[str, float] = {}

    @property
    def nodes(self) -> Mapping[str, Place]:
        """Return every node but the root, by name; lost ones are among them."""
        return self._places

    def is_present(self, name: str) -> bool:
        """Say whether a node is in the tree and not lost."""
        place = self._places.get(name)
        return name == self._root or (place is not None and place.lost is None)

    def may_hang_below(self, name: str, top: str) -> bool:
        """Say whether a node is below ``top``, or has been told to go there."""
        seen, pending = set[str](), [name]
        while pending:
            at = pending.pop()
            if at == top:
                return True
            if at in seen:
                continue
            seen.add(at)
            if (place := self._places.get(at)) is not None:
                pending.append(place.parent)
            if (sworn := self._subtree.sworn.get(at)) is not None:
                pending.append(sworn)
        return False

    def children(self, name: str) -> list[str]:
        """Return the nodes that hang from ``name``, lost ones left out."""
        return [
            place.name
            for place in self._places.values()
            if place.parent == name and place.lost is None
        ]

    def settle(self, names: Iterable[str], now: float) -> list[TreeEvent]:
        """Look anew at where each of ``names`` hangs."""
        return [event for name in names for event in self._settle(name, now)]

    def introduce(self, hello: Hello, now: float) -> list[TreeEvent]:
        """Take a node's HELLO; one with another boot than before has begun anew.

        Or it is an old HELLO that comes late: the node is asked once more.
        """
        place = self._places.get(hello.name)
        if place is None:
            return []
        self._strangers.pop(place.name, None)
        before, place.hello = place.hello, hello
        if before == hello:
            return []
        events: list[TreeEvent] = [Introduced(place.name, hello)]
        if before is not None and before.boot != hello.boot:
            place.since = now
            self._strangers[place.name] = now + _ASK_EVERY_S
            events[:0] = [
                Left(place.name, "it has started anew"),
                Joined(place.name, place.role, place.parent),
            ]
        return events

    def take_leave(self, name: str, reason: str) -> None:
        """Note that a node leaves on purpose: once nobody has it below, it is gone."""
        if (place := self._places.get(name)) is not None:
            place.farewell = reason

    def next_timer(self) -> float | None:
        """Return when ``expire`` or ``strangers`` has something to say."""
        due = [since + self._grace for since in list(self._lost.values())[:1]]
        due += list(self._strangers.values())[:1]
        return min(due, default=None)

    def expire(self, now: float) -> list[TreeEvent]:
        """Give up nodes whose time to come back is over."""
        events: list[TreeEvent] = []
        while self._lost:
            name, since = next(iter(self._lost.items()))
            if now < since + self._grace:
                break
            events.append(self._gone(name, "lost"))
        return events

    def strangers(self, now: float) -> list[str]:
        """Return nodes that have not presented themselves, each every two seconds.

        After the root has restarted, that is every node but its children.
        """
        found = []
        while self._strangers:
            name, due = next(iter(self._strangers.items()))
            if now < due:
                break
            del self._strangers[name]
            self._strangers[name] = now + _ASK_EVERY_S
            found.append(name)
        return found

    def _settle(self, name: str, now: float) -> list[TreeEvent]:
        claim = self._subtree.claim(name)
        place = self._places.get(name)
        if claim is None:
            if place is None:
                return []
            if place.farewell is not None:
                return [self._gone(name, place.farewell)]
            if place.lost is None:
                place.lost = self._lost[name] = now
            return []
        if place is None:
            self._places[name] = Place(name, claim.role, claim.parent, now)
            self._strangers[name] = now + _ASK_EVERY_S
            return [Joined(name, claim.role, claim.parent)]
        place.lost = place.farewell = None
        self._lost.pop(name, None)
        place.role = claim.role
        if place.parent == claim.parent:
            return []
        before, place.parent, place.since = place.parent, claim.parent, now
        return [Moved(name, claim.parent, before)]

    def _gone(self, name: str, reason: str) -> Left:
        del self._places[name]
        self._lost.pop(name, None)
        self._strangers.pop(name, None)
        self._subtree.sworn.pop(name, None)
        return Left(name, reason)
