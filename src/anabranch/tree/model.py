"""The role-based tree (seed 000, sections 1.2.2 and 5.2.3): one root, relays, leaves.

The tree is the plan; whether a packet goes along a branch is the fabric's business.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from anabranch.core.errors import UsageError
from anabranch.core.names import check_name


class TreeError(UsageError):
    """The nodes given cannot be a delivery tree; the message names the node."""


class Role(StrEnum):
    """What a node does: take streams in, hand them on, or serve viewers."""

    ROOT = "root"
    RELAY = "relay"
    LEAF = "leaf"


@dataclass(frozen=True, slots=True)
class Node:
    """One switch and its host.

    ``parent`` is None for the root; ``rate_mbit`` shapes the link to the parent, both ways.
    """

    name: str
    role: Role
    parent: str | None = None
    rate_mbit: float = 100.0


@dataclass(frozen=True, slots=True)
class Branching:
    """What one node does with a flow: hand it to ``children``, and perhaps keep a copy."""

    node: str
    children: tuple[str, ...]
    deliver: bool


class Tree:
    """A checked tree, iterable from the root down."""

    def __init__(self, nodes: Sequence[Node]) -> None:
        """Take ``nodes`` in any order.

        Raises:
            TreeError: not exactly one root, an unknown or missing parent, a circle, a leaf that
                has children, no leaf, a name used twice, a rate that is not positive.
        """
        self._nodes: dict[str, Node] = {}
        for node in nodes:
            check_name(node.name)
            if node.name in self._nodes:
                raise TreeError(f"two nodes are named {node.name}")
            if node.rate_mbit <= 0:
                raise TreeError(f"the link of node {node.name} has no rate")
            self._nodes[node.name] = node
        roots = [node for node in nodes if node.role is Role.ROOT]
        if len(roots) != 1:
            raise TreeError(f"a tree has one root; this one has {len(roots)}")
        self.root = roots[0]
        self.leaves = tuple(node for node in nodes if node.role is Role.LEAF)
        if not self.leaves:
            raise TreeError("a tree without a leaf serves nobody")
        for node in nodes:
            self._check_parent(node)
        children: dict[str, list[str]] = {name: [] for name in self._nodes}
        for node in nodes:
            if node.parent is not None:
                children[node.parent].append(node.name)
        self._children: Mapping[str, tuple[str, ...]] = {
            name: tuple(below) for name, below in children.items()
        }

    def _check_parent(self, node: Node) -> None:
        if node.role is Role.ROOT:
            if node.parent is not None:
                raise TreeError(f"the root {node.name} has a parent")
            return
        seen = {node.name}
        at = node
        while at.parent is not None:
            parent = self._nodes.get(at.parent)
            if parent is None:
                raise TreeError(f"the parent of node {at.name} is unknown: {at.parent}")
            if parent.role is Role.LEAF:
                raise TreeError(f"node {at.name} hangs from the leaf {parent.name}")
            if parent.name in seen:
                raise TreeError(f"node {node.name} hangs in a circle")
            seen.add(parent.name)
            at = parent
        if at.role is not Role.ROOT:
            raise TreeError(f"node {at.name} has no parent")

    def __iter__(self) -> Iterator[Node]:
        """Yield parents before their children."""
        pending = [self.root.name]
        for name in pending:
            pending.extend(self._children[name])
            yield self._nodes[name]

    def __getitem__(self, name: str) -> Node:
        return self._nodes[name]

    def children(self, name: str) -> tuple[str, ...]:
        return self._children[name]

    def branchings(self, leaves: Collection[str]) -> tuple[Branching, ...]:
        """Return what each node does with a flow wanted at ``leaves``; root first.

        Every link carries the flow at most once, and only links on the way to a wanting leaf
        carry it. Nodes that do nothing are left out.
        """
        wanted = set(leaves)
        for name in leaves:
            at = self._nodes[name]
            while at.parent is not None:
                wanted.add(at.parent)
                at = self._nodes[at.parent]
        return tuple(
            Branching(
                node.name,
                tuple(child for child in self._children[node.name] if child in wanted),
                node.name in leaves,
            )
            for node in self
            if node.name in wanted
        )
