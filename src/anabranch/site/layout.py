"""Which nodes of a site are up, and which cables join them, for the tree or as a reserve.

Pure. Ports are numbered so that any two nodes can be joined at any time: towards the node of index
*i* a switch has port ``100 + i``. Redundancy links are numbered from 1000, the same at both ends.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from anabranch.core.errors import UsageError
from anabranch.fabric.model import Link, LinkInfo, PortRef
from anabranch.site.settings import RedundancyLink, SiteNode, SiteSettings
from anabranch.tree.description import Candidate, CandidateLink, Description, ends
from anabranch.tree.model import Role, TreeError
from anabranch.tree.planning import Plan, plan

HOST_PORT = 1
OUTLET_PORT = 2
FIRST_NODE_PORT = 100
FIRST_RESERVE_PORT = 1000
MAX_NODES = FIRST_RESERVE_PORT - FIRST_NODE_PORT
_TO, _RESERVE = "to", "reserve"


@dataclass(frozen=True, slots=True, order=True)
class CableEnd:
    """Where a cable is plugged in: a device of a node's namespace, a port of its switch."""

    node: str
    port_no: int

    @property
    def device(self) -> str:
        """The name of the device, after the node that it leads to."""
        if self.port_no >= FIRST_RESERVE_PORT:
            return f"{_RESERVE}{self.port_no - FIRST_RESERVE_PORT}"
        return f"{_TO}{self.port_no - FIRST_NODE_PORT}"


def is_cable(device: str) -> bool:
    """Say whether a device of a node's namespace is the end of a cable."""
    return device.rstrip("0123456789") in {_RESERVE, _TO}


@dataclass(frozen=True, slots=True, order=True)
class Cable:
    """A veth pair between two switches, the lesser name first; ``rate_mbit`` both ways."""

    one: CableEnd
    other: CableEnd
    rate_mbit: float

    @property
    def ends(self) -> tuple[CableEnd, CableEnd]:
        return self.one, self.other

    @property
    def nodes(self) -> tuple[str, str]:
        return self.one.node, self.other.node

    @property
    def link(self) -> Link:
        """The direction from ``one`` to ``other``, as the fabric knows it."""
        return Link(
            PortRef(self.one.node, self.one.port_no), PortRef(self.other.node, self.other.port_no)
        )


@dataclass(frozen=True)
class Layout:
    """What is there of a site, or shall be.

    Attributes:
        up: the nodes.
        cables: between them; True: a reserve, False: part of the tree.
    """

    up: frozenset[str]
    cables: Mapping[Cable, bool]

    @cached_property
    def links(self) -> Mapping[Link, LinkInfo]:
        """The cables as the fabric knows them, each in both directions."""
        links: dict[Link, LinkInfo] = {}
        for cable, reserve in self.cables.items():
            info = LinkInfo(capacity_mbit=cable.rate_mbit, redundant=reserve)
            links |= {cable.link: info, cable.link.reverse: info}
        return links

    def at(self, node: str) -> Iterator[tuple[Cable, CableEnd]]:
        """Yield the cables of a node with their ends there."""
        for cable in self.cables:
            for end in (cable.one, cable.other):
                if end.node == node:
                    yield cable, end


def describe(settings: SiteSettings) -> Description:
    """Return from what the tree is planned: all nodes, and every link that is drawn.

    A redundancy link between two nodes that are joined by another link is only a cable more.

    Raises:
        TreeError: nodes or links contradict each other.
    """
    nodes = tuple(
        Candidate(node.name, node.role, available=not node.idle) for node in settings.nodes
    )
    _check_nodes(settings.nodes)
    links = list(settings.links)
    given = {link.ends for link in links}
    for node in settings.nodes:
        if node.parent is None:
            continue
        if (pair := ends(node.name, node.parent)) in given:
            raise TreeError(
                f"the link {' - '.join(pair)} is that of {node.name} to its parent: leave out"
                " either the link or the parent"
            )
        links.append(CandidateLink(node.name, node.parent, node.rate_mbit))
    drawn = {link.ends for link in links}
    for reserve in settings.fabric.redundancy:
        pair = ends(reserve.one, reserve.other)
        if pair not in drawn and reserve.one != reserve.other:
            drawn.add(pair)
            links.append(
                CandidateLink(reserve.one, reserve.other, reserve.rate_mbit, redundant=True)
            )
    return Description(nodes, tuple(links), settings.tree.fan_out)


def _check_nodes(nodes: Sequence[SiteNode]) -> None:
    for node in nodes:
        if node.capacity is not None and node.role is not Role.LEAF:
            raise TreeError(f"the {node.role} {node.name} has a capacity, which is a leaf's")
    roles = {node.name: node.role for node in nodes}
    parents = {node.name: node.parent for node in nodes if node.parent is not None}
    for name, parent in parents.items():
        if roles[name] is Role.ROOT:
            raise TreeError(f"the root {name} has a parent")
        if parent not in roles:
            raise TreeError(f"the parent of node {name} is unknown: {parent}")
        if roles[parent] is Role.LEAF:
            raise TreeError(f"the parent of node {name} is a leaf: {parent}")
        above = [name]
        while (parent := parents.get(above[-1], "")) and parent not in above:
            above.append(parent)
        if parent == name:
            raise TreeError(f"the parents of nodes go round in a circle: {', '.join(above)}")


def first_tree(settings: SiteSettings) -> Plan:
    """Return the tree with which a site starts: whoever was given a parent hangs from it.

    Raises:
        TreeError: nodes or links contradict each other, or a leaf that is not idle has no way to
            the root.
    """
    description = describe(settings)
    given = {node.name: node.parent for node in settings.nodes if node.parent is not None}

    def may_be(link: CandidateLink) -> bool:
        if any(given.get(end) == other for end, other in (link.ends, link.ends[::-1])):
            return True
        return not any(
            end in given and (roles[end] is Role.LEAF or other == root or other in given)
            for end, other in (link.ends, link.ends[::-1])
            if roles[other] is not Role.LEAF
        )

    roles, root = description.roles, description.root
    links = tuple(link for link in description.links if may_be(link))
    first = plan(replace(description, links=links))
    return Plan(description, first.parents, first.pruned)


def lay_out(
    tree: Plan,
    up: Collection[str],
    indices: Mapping[str, int],
    redundancy: Sequence[RedundancyLink],
) -> Layout:
    """Return the layout for a tree: every link that is drawn between nodes that are up.

    Args:
        tree: nodes that are up need not be in it.
        up: the nodes.
        indices: of all nodes of the site.
        redundancy: the administrator's; the first between two nodes stands for a redundant link.
    """
    up = frozenset(up)
    used = {ends(child, parent) for child, parent in tree.parents.items()}
    redundant = {link.ends for link in tree.description.links if link.redundant}
    cables: dict[Cable, bool] = {}
    for link in tree.description.links:
        one, other = link.ends
        if up.issuperset(link.ends) and not link.redundant:
            cable = Cable(
                CableEnd(one, FIRST_NODE_PORT + indices[other]),
                CableEnd(other, FIRST_NODE_PORT + indices[one]),
                link.rate_mbit,
            )
            cables[cable] = link.ends not in used
    for number, reserve in enumerate(redundancy, FIRST_RESERVE_PORT):
        one, other = ends(reserve.one, reserve.other)
        if up.issuperset((one, other)):
            cable = Cable(CableEnd(one, number), CableEnd(other, number), reserve.rate_mbit)
            cables[cable] = (one, other) not in used & redundant
            redundant.discard((one, other))
    return Layout(up, cables)


def check_redundancy(redundancy: Sequence[RedundancyLink], nodes: Collection[str]) -> None:
    """Refuse redundancy links that cannot be.

    Raises:
        UsageError: one does not join two nodes, or has no rate.
    """
    for link in redundancy:
        for name in (link.one, link.other):
            if name not in nodes:
                raise UsageError(f"a redundancy link ends at {name}, which is no node")
        if link.one == link.other:
            raise UsageError(f"a redundancy link joins {link.one} with itself")
        if link.rate_mbit <= 0:
            raise UsageError(f"the redundancy link {link.one}-{link.other} has no rate")
