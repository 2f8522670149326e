"""What hangs below one node: its children, and what each says hangs below it.

A node may be claimed by two children at once, for a while: one has not noticed yet that it left.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from anabranch.core.errors import UsageError
from anabranch.core.names import check_name
from anabranch.tree.model import Role
from anabranch.tree.soleil.messages import Descendant

MAX_BELOW_CHILD = 1000
"""Nodes that one child may have below it."""
MAX_BELOW = 2000
"""Nodes below one that is not the root: what fits into its CHILDSUPDATE."""


class LieError(UsageError):
    """What a child says about its descendants cannot be."""


@dataclass(frozen=True, slots=True)
class Claim:
    """``link`` says that a node hangs from ``parent``; a larger ``order`` is newer."""

    link: int
    parent: str
    role: Role
    order: int


@dataclass(slots=True)
class _Child:
    name: str
    role: Role
    number: int = -1
    below: Mapping[str, Descendant] = field(default_factory=dict)


class Subtree:
    """The children of the node ``name`` by link, and the descendants of each.

    Args:
        name: the node's own.
        most: how many nodes may be below it.
        belongs: says whether a node (first) may be below a child (second) at all.

    Attributes:
        below: each node below with the child by which it is reached, as ``routing`` wants it.
        sworn: by name, the parent that a node itself has said it hangs from; it outweighs what
            others say.
    """

    def __init__(
        self,
        name: str,
        *,
        most: int = MAX_BELOW,
        belongs: Callable[[str, str], bool] = lambda _name, _child: True,
    ) -> None:
        self._name = name
        self._most = most
        self._belongs = belongs
        self.below: Mapping[str, str] = _Below(self)
        self._children: dict[int, _Child] = {}
        self._links: dict[str, int] = {}
        self._claims: dict[str, dict[int, Claim]] = {}
        self._order = 0
        self.sworn: dict[str, str] = {}

    @property
    def children(self) -> Mapping[str, int]:
        """The links of all direct children by name."""
        return self._links

    def child(self, link: int) -> str | None:
        """Return the name of the child at ``link``."""
        child = self._children.get(link)
        return None if child is None else child.name

    def attach(self, link: int, name: str, role: Role) -> None:
        """Take a child in; it has no other link here."""
        self._children[link] = _Child(name, role)
        self._links[name] = link
        self._claim(link, name, self._name, role)

    def detach(self, link: int) -> set[str]:
        """Forget a child; return the nodes that this touches."""
        child = self._children.pop(link, None)
        if child is None:
            return set()
        del self._links[child.name]
        touched = {child.name, *child.below}
        for name in touched:
            self._drop(link, name)
        return touched

    def update(
        self, link: int, number: int, descendants: Sequence[Descendant]
    ) -> tuple[set[str], set[str]]:
        """Take a CHILDSUPDATE of the child at ``link``.

        Returns the nodes that this touches, and those of the list that are not believed.

        Raises:
            LieError: it cannot be; what was known before stays.
        """
        child = self._children[link]
        if number <= child.number:
            return set(), set()
        below = self._checked(child, descendants)
        child.number = number
        old, child.below = child.below, below
        for name in old.keys() - below.keys():
            self._drop(link, name)
        for name, node in below.items():
            if old.get(name) != node:
                self._claim(link, name, node.parent, node.role)
        touched = {name for name in old.keys() | below.keys() if old.get(name) != below.get(name)}
        return touched, {node.name for node in descendants} - below.keys()

    def claim(self, name: str) -> Claim | None:
        """Return who is believed about a node: its own session, its own word, then the newest."""
        claims = self._claims.get(name)
        if not claims:
            return None
        if len(claims) == 1:
            return next(iter(claims.values()))
        sworn = self.sworn.get(name)
        return max(
            claims.values(),
            key=lambda claim: (claim.parent == self._name, claim.parent == sworn, claim.order),
        )

    def claims(self, name: str) -> Iterable[Claim]:
        """Return everything that is said about where a node hangs."""
        return self._claims.get(name, {}).values()

    def __len__(self) -> int:
        return len(self._claims)

    def __iter__(self) -> Iterator[str]:
        return iter(self._claims)

    def listing(self) -> tuple[Descendant, ...]:
        """Return everything below, parents before their children."""
        below: dict[str, list[Descendant]] = {}
        for name in self._claims:
            claim = self.claim(name)
            assert claim is not None
            below.setdefault(claim.parent, []).append(Descendant(name, claim.role, claim.parent))
        found = below.get(self._name, [])
        for node in found:  # grows meanwhile
            found += below.get(node.name, [])
        return tuple(found)

    def _checked(self, child: _Child, descendants: Sequence[Descendant]) -> dict[str, Descendant]:
        """Return what may be believed of a list.

        What the child may have from a liar, this node below itself or one that does not belong
        there, is left out with all that hangs from it.
        """
        others = len(self._claims) - len(child.below)
        if len(descendants) > min(MAX_BELOW_CHILD, self._most - others):
            raise LieError(f"{child.name} has {len(descendants)} nodes below it")
        below: dict[str, Descendant] = {}
        parents = {child.name} if child.role is not Role.LEAF else set[str]()
        left_out = {self._name}
        for node in descendants:
            check_name(node.name)
            if (
                node.name == self._name
                or node.parent in left_out
                or (node.name not in child.below and not self._belongs(node.name, child.name))
            ):
                left_out.add(node.name)
                continue
            if node.name == child.name or node.name in below:
                raise LieError(f"{child.name} names {node.name} twice")
            if node.parent not in parents:
                raise LieError(f"{node.name} cannot hang from {node.parent}")
            if node.role is Role.ROOT:
                raise LieError(f"{node.name} below {child.name} is no root")
            if node.role is Role.RELAY:
                parents.add(node.name)
            below[node.name] = node
        return below

    def _claim(self, link: int, name: str, parent: str, role: Role) -> None:
        self._order += 1
        self._claims.setdefault(name, {})[link] = Claim(link, parent, role, self._order)

    def _drop(self, link: int, name: str) -> None:
        claims = self._claims.get(name, {})
        claims.pop(link, None)
        if not claims:
            self._claims.pop(name, None)


class _Below(Mapping[str, str]):
    """A live view of a :class:`Subtree`."""

    def __init__(self, subtree: Subtree) -> None:
        self._subtree = subtree

    def __getitem__(self, name: str) -> str:
        claim = self._subtree.claim(name)
        child = None if claim is None else self._subtree.child(claim.link)
        if child is None:
            raise KeyError(name)
        return child

    def __iter__(self) -> Iterator[str]:
        return iter(self._subtree)

    def __len__(self) -> int:
        return len(self._subtree)
