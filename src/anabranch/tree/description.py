"""What a tree is planned from: nodes with roles, and the links that could join them.

An administrator draws both (seed 000, sections 5.3 and 6.5.2); what is drawn need not be a tree.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from math import inf, isfinite

from anabranch.core.names import check_name
from anabranch.tree.model import Role, TreeError

MAX_COST = 1e6
ROLE_WEIGHTS: Mapping[Role, float] = {Role.ROOT: 1, Role.RELAY: 2, Role.LEAF: 4}
"""A link weighs the sum of its ends, and its cost (docs/tree.md says why these)."""


def ends(one: str, other: str) -> tuple[str, str]:
    """Return what a link is known by: both its nodes, the lesser name first."""
    return (one, other) if one < other else (other, one)


@dataclass(frozen=True, slots=True)
class Candidate:
    """A node that may become part of the tree; one not ``available`` is idle, drained or down."""

    name: str
    role: Role
    available: bool = True


@dataclass(frozen=True, slots=True)
class CandidateLink:
    """A link that may become part of the tree, in either direction.

    Attributes:
        rate_mbit: what it carries, Mbit/s, both ways.
        cost: added to its weight, 0 to 1e6; 1 is as much as one step in depth, which is the
            difference between a link to the root and one to a relay.
        redundant: never planned as part of the tree, only a reserve.
    """

    one: str
    other: str
    rate_mbit: float = 100.0
    cost: float = 0.0
    redundant: bool = False

    @property
    def ends(self) -> tuple[str, str]:
        return ends(self.one, self.other)

    def __str__(self) -> str:
        return " - ".join(self.ends)


@dataclass(frozen=True)
class Description:
    """Nodes, links, and how many children a node of each role may have at most.

    Raises:
        TreeError: not exactly one root, or it is not available; no leaf; a name used twice; a link
            with an unknown end, to itself, drawn twice, without a rate, or with a wrong cost; a
            limit below 1 or for leaves.
        UsageError: a name is not allowed.
    """

    nodes: tuple[Candidate, ...]
    links: tuple[CandidateLink, ...]
    fan_out: Mapping[Role, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        names: set[str] = set()
        for node in self.nodes:
            if check_name(node.name) in names:
                raise TreeError(f"two nodes are named {node.name}")
            names.add(node.name)
        roots = [node for node in self.nodes if node.role is Role.ROOT]
        if len(roots) != 1:
            found = ", ".join(node.name for node in roots) or "none"
            raise TreeError(f"a tree has one root; here: {found}")
        if not roots[0].available:
            raise TreeError(f"the root {roots[0].name} is not available")
        if not any(node.role is Role.LEAF for node in self.nodes):
            raise TreeError("a tree without a leaf serves nobody")
        self._check_links(names)
        for role, limit in self.fan_out.items():
            if role is Role.LEAF or limit < 1:
                raise TreeError(f"a {role} cannot be limited to {limit} children")

    def _check_links(self, names: set[str]) -> None:
        drawn = set()
        for link in self.links:
            for end in (link.one, link.other):
                if end not in names:
                    raise TreeError(f"the link {link} leads to an unknown node: {end}")
            if link.one == link.other:
                raise TreeError(f"a link leads from node {link.one} to itself")
            pair = link.ends
            if pair in drawn:
                raise TreeError(f"the link {link} is there twice")
            drawn.add(pair)
            if not 0 < link.rate_mbit < inf:
                raise TreeError(f"the link {link} has no rate")
            if not (isfinite(link.cost) and 0 <= link.cost <= MAX_COST):
                raise TreeError(f"the cost of the link {link} is not within 0 to {MAX_COST:g}")

    @property
    def root(self) -> str:
        return next(node.name for node in self.nodes if node.role is Role.ROOT)

    @cached_property
    def roles(self) -> Mapping[str, Role]:
        """The role of every node by name, available or not."""
        return {node.name: node.role for node in self.nodes}

    @cached_property
    def weights(self) -> Mapping[tuple[str, str], float]:
        """The weight of every link by its ends."""
        roles = self.roles
        return {
            link.ends: ROLE_WEIGHTS[roles[link.one]] + ROLE_WEIGHTS[roles[link.other]] + link.cost
            for link in self.links
        }
