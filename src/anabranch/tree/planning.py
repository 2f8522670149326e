"""Planning a delivery tree: roles respected, least weight, the rest as redundancy links.

The method of seed 000, section 5.3, made to hold always: dangling branches are pruned to a fixed
point, links weigh what their ends' roles weigh, and :mod:`anabranch.tree.growth` finds the tree.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

from anabranch.tree.description import CandidateLink, Description, ends
from anabranch.tree.growth import Reason, grow
from anabranch.tree.model import Node, Role, Tree, TreeError


@dataclass(frozen=True)
class Plan:
    """A tree over the nodes of a description; equal where nodes, links and parents are.

    Attributes:
        parents: of every node in the tree but the root.
        pruned: why each other node is not in it.

    Raises:
        TreeError: the parents are no tree over available nodes, one is not joined to its parent by
            a link, or nodes in the tree and pruned ones are not all nodes.
    """

    description: Description
    parents: Mapping[str, str]
    pruned: Mapping[str, Reason]

    def __post_init__(self) -> None:
        drawn = self.description.weights
        for child, parent in self.parents.items():
            if ends(child, parent) not in drawn:
                raise TreeError(f"there is no link from node {child} to its parent {parent}")
        names = {self.description.root, *self.parents}
        for node in self.description.nodes:
            if (node.name in names) == (node.name in self.pruned):
                raise TreeError(f"node {node.name} must be either in the tree or pruned")
            if node.name in names and not node.available:
                raise TreeError(f"node {node.name} is in the tree but not available")
        unknown = (names | self.pruned.keys()) - self.description.roles.keys()
        if unknown:
            raise TreeError(f"node {min(unknown)} is not in the description")
        for each in self.tree:
            if each.role is Role.RELAY and not self.tree.children(each.name):
                raise TreeError(f"the relay {each.name} leads to no leaf")

    @cached_property
    def tree(self) -> Tree:
        """The tree; each link to a parent has the rate that the description gives it."""
        roles = self.description.roles
        rates = {link.ends: link.rate_mbit for link in self.description.links}
        nodes = [Node(self.description.root, Role.ROOT)]
        for node in self.description.nodes:
            parent = self.parents.get(node.name)
            if parent is not None:
                rate = rates[ends(node.name, parent)]
                nodes.append(Node(node.name, roles[node.name], parent, rate))
        return Tree(nodes)

    @cached_property
    def redundancy(self) -> tuple[CandidateLink, ...]:
        """The links between nodes of the tree that are not part of it (seed 000, section 5.2)."""
        return tuple(
            link
            for link in self.description.links
            if link.one not in self.pruned
            and link.other not in self.pruned
            and self.parents.get(link.one) != link.other
            and self.parents.get(link.other) != link.one
        )

    @property
    def weight(self) -> float:
        """The weight of all links of the tree."""
        weights = self.description.weights
        return sum(weights[ends(*pair)] for pair in self.parents.items())


@dataclass(frozen=True, slots=True)
class Move:
    """A node that hangs elsewhere: ``old`` None: it comes; ``new`` None: it goes."""

    name: str
    old: str | None
    new: str | None


def plan(description: Description, present: Plan | None = None) -> Plan:
    """Return the tree of least weight over the nodes that it needs; a pure function.

    Among trees of that weight: the least depth where weights are those of the roles alone, then the
    faster links, then the parents of ``present``, then the fewer children a parent, then names.
    With limits of fan-out the weight is not always least.

    Raises:
        TreeError: an available leaf cannot be joined; the message names it.
    """
    grown = grow(description, kept=None, present=present.parents if present else {})
    available = [node for node in description.nodes if node.available]
    for node in available:
        if node.role is Role.LEAF and node.name in grown.pruned:
            raise TreeError(f"the leaf {node.name} {grown.pruned[node.name].text}")
    return Plan(description, grown.parents, grown.pruned)


def moves(before: Plan, after: Plan) -> tuple[Move, ...]:
    """Return what changes: first who comes or moves, parents before children, then who goes."""
    changed = [
        Move(node.name, before.parents.get(node.name), node.parent)
        for node in after.tree
        if node.parent != before.parents.get(node.name)
    ]
    gone = [
        Move(node.name, node.parent, None)
        for node in before.tree
        if node.parent is not None and node.name not in after.parents
    ]
    return (*changed, *reversed(gone))
