"""The plan of a site on one machine: every name, address and port, before any is made.

Pure: the same settings give the same plan, so a restarted director finds what it left.
"""

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Interface, IPv4Network

from anabranch.core.errors import UsageError
from anabranch.fabric.model import Link, LinkInfo, PortRef
from anabranch.host.journal import TABLE_PREFIX
from anabranch.host.network import Port
from anabranch.site.settings import RedundancyLink, SiteSettings
from anabranch.tree.model import Role, Tree

BRIDGE = "overlay"
HOST_DEVICE = "host0"
ACCESS_DEVICE = "access0"
HOST_PORT = 1
UP_PORT = 2
_FIRST_CHILD_PORT = 10
_FIRST_RESERVE_PORT = 1000


@dataclass(frozen=True, slots=True)
class NodePlan:
    """One node: a namespace with a switch, and a host behind port 1 of the switch.

    Attributes:
        dpid: OpenFlow datapath identifier.
        host: the host's end of the link to its switch.
        ports: OpenFlow port number of each device of the switch.
        child_ports: port number towards each child.
        access: the leaf's end of its access link, or None.
        gateway: this machine's end of the access link, or None.
        media_ports: first and last UDP port of the leaf's viewers.
    """

    name: str
    role: Role
    namespace: str
    dpid: int
    host: Port
    switch_end: Port
    ports: Mapping[str, int]
    child_ports: Mapping[str, int]
    access: Port | None = None
    gateway: Port | None = None
    media_ports: tuple[int, int] = (0, 0)

    @property
    def overlay_address(self) -> IPv4Address:
        assert self.host.address is not None
        return self.host.address.ip


@dataclass(frozen=True, slots=True)
class SitePlan:
    """All nodes, root first, and the veth pairs that join them.

    ``fabric_links`` are the same pairs as the fabric knows them, each in both directions.
    """

    tree: Tree
    nodes: Mapping[str, NodePlan]
    links: tuple[tuple[Port, Port], ...]
    fabric_links: Mapping[Link, LinkInfo]
    table: str

    @property
    def edge(self) -> frozenset[PortRef]:
        """The ports behind which hosts are."""
        return frozenset(PortRef(name, HOST_PORT) for name in self.nodes)

    @property
    def dhcp_port(self) -> PortRef:
        """The one port behind which the overlay's DHCP server may be."""
        return PortRef(self.tree.root.name, HOST_PORT)

    @property
    def link_devices(self) -> Mapping[str, tuple[str, ...]]:
        """By node, the devices that lead to other switches."""
        return {
            node.name: tuple(device for device, port in node.ports.items() if port != HOST_PORT)
            for node in self.nodes.values()
        }

    @property
    def leaves(self) -> tuple[NodePlan, ...]:
        return tuple(node for node in self.nodes.values() if node.role is Role.LEAF)


def make_plan(settings: SiteSettings) -> SitePlan:
    """Compute the plan.

    Raises:
        TreeError: the nodes are no tree.
        UsageError: an address or port range is too small for the nodes, or a redundancy link does
            not join two of them.
    """
    tree = Tree(settings.nodes)
    reserves = _reserve_ports(tree, settings.fabric.redundancy)
    names = [node.name for node in tree]
    overlay, access = settings.addresses.overlay, settings.addresses.access
    if overlay.num_addresses - 2 < len(names):
        raise UsageError(f"the overlay {overlay} has no room for {len(names)} nodes")
    if settings.fabric.dhcp and overlay.num_addresses // 2 - 1 < len(names):
        raise UsageError(f"the lower half of the overlay {overlay} has no room for the nodes")
    if access.num_addresses // 4 < len(tree.leaves):
        raise UsageError(f"the access network {access} has no room for {len(tree.leaves)} leaves")
    nodes: dict[str, NodePlan] = {}
    links: list[tuple[Port, Port]] = []
    fabric_links: dict[Link, LinkInfo] = {}
    shares = share_ports(settings.ports.media, len(tree.leaves))
    subnets = access.subnets(new_prefix=30)
    # Two sites on one machine differ in the tag of their devices and MAC addresses.
    tag = zlib.crc32(settings.name.encode()) & 0xFFFF
    for index, node in enumerate(tree):
        namespace = namespace_of(settings.name, node.name)
        child_ports = {
            child: _FIRST_CHILD_PORT + n for n, child in enumerate(tree.children(node.name))
        }
        ports = {"sw-host": HOST_PORT}
        if node.parent is not None:
            ports["up0"] = UP_PORT
        ports |= {f"down{port - _FIRST_CHILD_PORT}": port for port in child_ports.values()}
        ports |= {_reserve_device(port): port for port in reserves[node.name]}
        leaf = node.role is Role.LEAF
        leaf_link = _access_link(namespace, index, tag, next(subnets)) if leaf else (None, None)
        nodes[node.name] = NodePlan(
            name=node.name,
            role=node.role,
            namespace=namespace,
            dpid=0xAB << 40 | tag << 16 | index + 1,
            host=Port(
                HOST_DEVICE,
                namespace,
                mac=_mac(tag, index),
                address=IPv4Interface(f"{overlay[index + 1]}/{overlay.prefixlen}"),
            ),
            switch_end=Port("sw-host", namespace),
            ports=ports,
            child_ports=child_ports,
            access=leaf_link[0],
            gateway=leaf_link[1],
            media_ports=shares.pop(0) if leaf else (0, 0),
        )
        if node.parent is not None:
            parent = nodes[node.parent]
            device = f"down{parent.child_ports[node.name] - _FIRST_CHILD_PORT}"
            links.append(
                (
                    Port(device, parent.namespace, rate_mbit=node.rate_mbit),
                    Port("up0", namespace, rate_mbit=node.rate_mbit),
                )
            )
            link = Link(
                PortRef(node.parent, parent.child_ports[node.name]), PortRef(node.name, UP_PORT)
            )
            info = LinkInfo(capacity_mbit=node.rate_mbit)
            fabric_links |= {link: info, link.reverse: info}
    for number, reserve in enumerate(settings.fabric.redundancy, _FIRST_RESERVE_PORT):
        one, other = nodes[reserve.one], nodes[reserve.other]
        device = _reserve_device(number)
        links.append(
            (
                Port(device, one.namespace, rate_mbit=reserve.rate_mbit),
                Port(device, other.namespace, rate_mbit=reserve.rate_mbit),
            )
        )
        link = Link(PortRef(one.name, number), PortRef(other.name, number))
        info = LinkInfo(capacity_mbit=reserve.rate_mbit, redundant=True)
        fabric_links |= {link: info, link.reverse: info}
    table = TABLE_PREFIX + settings.name.replace("-", "_")
    return SitePlan(tree, nodes, tuple(links), fabric_links, table)


def _reserve_ports(tree: Tree, redundancy: Sequence[RedundancyLink]) -> dict[str, list[int]]:
    """Return the port numbers of every node's redundancy links: one number for both ends."""
    ports: dict[str, list[int]] = {node.name: [] for node in tree}
    for number, link in enumerate(redundancy, _FIRST_RESERVE_PORT):
        for name in (link.one, link.other):
            if name not in ports:
                raise UsageError(f"a redundancy link ends at {name}, which is no node")
            ports[name].append(number)
        if link.one == link.other:
            raise UsageError(f"a redundancy link joins {link.one} with itself")
        if link.rate_mbit <= 0:
            raise UsageError(f"the redundancy link {link.one}-{link.other} has no rate")
    return ports


def _reserve_device(number: int) -> str:
    return f"reserve{number - _FIRST_RESERVE_PORT}"


def namespace_of(site: str, node: str) -> str:
    """Return the name of a node's network namespace."""
    return f"ab-{site}-{node}"


def share_ports(span: tuple[int, int], count: int) -> list[tuple[int, int]]:
    """Cut a port range into ``count`` equal shares.

    Raises:
        UsageError: a share would have fewer than 10 ports.
    """
    first, last = span
    size = (last - first + 1) // max(count, 1)
    if size < 10:
        raise UsageError(f"the ports {first} to {last} are too few for {count} leaves")
    return [(first + n * size, first + (n + 1) * size - 1) for n in range(count)]


def _access_link(namespace: str, index: int, tag: int, subnet: IPv4Network) -> tuple[Port, Port]:
    outer, inner = subnet[1], subnet[2]
    return (
        Port(ACCESS_DEVICE, namespace, address=IPv4Interface(f"{inner}/30")),
        Port(f"ab{tag:04x}-{index}", None, address=IPv4Interface(f"{outer}/30")),
    )


def _mac(tag: int, index: int) -> str:
    """Return a locally administered unicast address."""
    return ":".join(
        f"{byte:02x}" for byte in (0x02, 0xAB, tag >> 8, tag & 0xFF, index >> 8, index & 0xFF)
    )
