"""The plan of a site on one machine: every name, address and number, before anything is made.

Pure: the same settings give the same plan, so a restarted director finds what it left. What a node
is given is its own for the life of the site, whether it is up or in the pool.
"""

import re
import zlib
from dataclasses import dataclass, fields, replace
from functools import cached_property
from ipaddress import IPv4Address, IPv4Interface, IPv4Network, IPv6Interface, IPv6Network
from itertools import combinations

from anabranch.core.errors import UsageError
from anabranch.fabric.model import PortRef
from anabranch.host.journal import TABLE_PREFIX
from anabranch.host.network import Port
from anabranch.site.guests import Guest, guest_address, hub_address
from anabranch.site.layout import (
    FIRST_NODE_PORT,
    HOST_PORT,
    MAX_NODES,
    OUTLET_PORT,
    Cable,
    CableEnd,
    Layout,
    check_redundancy,
    first_tree,
    lay_out,
)
from anabranch.site.settings import Addresses, Outlet, RedundancyLink, SiteSettings
from anabranch.tree.model import Role
from anabranch.tree.pipelines.overlay import Overlay
from anabranch.tree.planning import Plan

BRIDGE = "overlay"
HOST_DEVICE = "host0"
ACCESS_DEVICE = "access0"
SWITCH_DEVICE = "sw-host"
_SITES_6 = 48
"""Bits of the prefix in which every site has a /64."""


@dataclass(frozen=True, slots=True)
class NodePlan:
    """One node: a namespace with a switch, and a host behind port 1 of the switch.

    Attributes:
        index: its place among the site's nodes, 0 for the root.
        dpid: OpenFlow datapath identifier.
        host: the host's end of the link to its switch.
        access: the leaf's end of its access link, or None.
        gateway: this machine's end of the access link, or None.
        media_ports: first and last UDP port of the leaf's viewers.
        capacity: viewers of a leaf at most; None: as many as come.
        tunnel: where a guest's tunnel ends; None: the node is on this machine.
        sorts_only: it is a leaf without a server for browsers.
        outlet: behind OUTLET_PORT of its switch receivers of plain seats are.
    """

    name: str
    role: Role
    index: int
    namespace: str
    dpid: int
    host: Port
    switch_end: Port
    access: Port | None = None
    gateway: Port | None = None
    media_ports: tuple[int, int] = (0, 0)
    capacity: int | None = None
    tunnel: IPv4Address | None = None
    sorts_only: bool = False
    outlet: Outlet | None = None

    @property
    def overlay_address(self) -> IPv4Address:
        assert self.host.address is not None
        return self.host.address.ip

    @property
    def inner_addresses(self) -> tuple[str, ...]:
        """The leaf's addresses that viewers are not told of: IPv6 for them is forwarded there."""
        if self.access is None or self.access.address_6 is None:
            return ()
        return (str(self.access.address_6.ip),)

    def overlay(self, ports: tuple[int, int]) -> Overlay:
        """Return where the node's pipelines are; ``ports``: first and last for their sources."""
        assert self.host.address is not None
        return Overlay(
            str(self.host.address.ip),
            range(ports[0], ports[1] + 1),
            (self.host.address.network,),
            interface=self.host.device,
            netns=self.namespace,
        )


@dataclass(frozen=True)
class SitePlan:
    """All nodes, root first, and the tree with which the site starts.

    Attributes:
        tree: the site's first; idle nodes are pruned from it.
        table: the nft table of the site.
        hub: namespace where the tunnels to other machines end, at the address ``hub_address``.
    """

    nodes: dict[str, NodePlan]
    tree: Plan
    redundancy: tuple[RedundancyLink, ...]
    table: str
    hub: str
    hub_address: IPv4Address

    def admit(self, node: NodePlan) -> None:
        """Have a guest among the nodes, in place of an earlier one of its name."""
        self.nodes[node.name] = node

    def dismiss(self, name: str) -> None:
        """Have a guest among the nodes no longer."""
        del self.nodes[name]

    @property
    def root(self) -> NodePlan:
        return self.nodes[self.tree.description.root]

    @property
    def edge(self) -> frozenset[PortRef]:
        """The ports behind which hosts are, or will be."""
        return frozenset(PortRef(name, HOST_PORT) for name in self.nodes)

    @property
    def outside(self) -> frozenset[PortRef]:
        """The ports behind which receivers of plain seats are: nobody there is a host of ours."""
        nodes = self.nodes.values()
        return frozenset(PortRef(node.name, OUTLET_PORT) for node in nodes if node.outlet)

    @property
    def dhcp_port(self) -> PortRef:
        """The one port behind which the overlay's DHCP server may be."""
        return PortRef(self.root.name, HOST_PORT)

    @property
    def leaves(self) -> tuple[NodePlan, ...]:
        return tuple(node for node in self.nodes.values() if node.role is Role.LEAF)

    @cached_property
    def layout(self) -> Layout:
        """What is there at the start."""
        candidates = self.tree.description.nodes
        return self.lay_out(self.tree, frozenset(n.name for n in candidates if n.available))

    def lay_out(self, tree: Plan, up: frozenset[str]) -> Layout:
        """Return the layout for a tree and the nodes that are up."""
        indices = {node.name: node.index for node in self.nodes.values()}
        return lay_out(tree, up, indices, self.redundancy)

    def port_towards(self, node: str) -> int:
        """Return the port by which any switch reaches its neighbour ``node``."""
        return FIRST_NODE_PORT + self.nodes[node].index

    def ends_of(self, cable: Cable) -> tuple[Port, Port]:
        """Return a cable as the veth pair that it is."""
        return self._port(cable, cable.one), self._port(cable, cable.other)

    def _port(self, cable: Cable, end: CableEnd) -> Port:
        return Port(end.device, self.nodes[end.node].namespace, rate_mbit=cable.rate_mbit)


def _check_apart(addresses: Addresses) -> None:
    ranges = {each.name: getattr(addresses, each.name) for each in fields(addresses)}
    for (one, ours), (other, theirs) in combinations(ranges.items(), 2):
        if ours.overlaps(theirs):
            raise UsageError(f"the addresses of {one}, {ours}, and of {other}, {theirs}, overlap")


def make_plan(settings: SiteSettings) -> SitePlan:
    """Compute the plan.

    Raises:
        TreeError: the nodes that are not idle cannot be joined to a tree.
        UsageError: an address or port range is too small for the nodes, two address ranges overlap,
            or a redundancy link does not join two nodes.
    """
    _check_apart(settings.addresses)
    given = sorted(settings.nodes, key=lambda node: node.role is not Role.ROOT)
    names = [node.name for node in given]
    check_redundancy(settings.fabric.redundancy, names)
    tree = first_tree(settings)
    leaves = [node for node in given if node.role is Role.LEAF]
    overlay, access = settings.addresses.overlay, settings.addresses.access
    if overlay.num_addresses - 2 < len(names):
        raise UsageError(f"the overlay {overlay} has no room for {len(names)} nodes")
    if settings.fabric.dhcp and overlay.num_addresses // 2 - 1 < len(names):
        raise UsageError(f"the lower half of the overlay {overlay} has no room for the nodes")
    if access.num_addresses // 4 < len(leaves):
        raise UsageError(f"the access network {access} has no room for {len(leaves)} leaves")
    if settings.addresses.access_6.prefixlen > _SITES_6:
        raise UsageError(f"the access network {settings.addresses.access_6} is no /{_SITES_6}")
    if len(names) > MAX_NODES:
        raise UsageError(f"a site on one machine has at most {MAX_NODES} nodes")
    devices = [node.outlet.device for node in given if node.outlet is not None]
    if twice := {device for device in devices if devices.count(device) > 1}:
        raise UsageError(f"two nodes have the outlet {min(twice)}")
    shares = share_ports(settings.ports.media, len(leaves))
    subnets = access.subnets(new_prefix=30)
    tag = tag_of(settings.name)
    nodes: dict[str, NodePlan] = {}
    for index, node in enumerate(given):
        made = _node_plan(settings, node.name, node.role, index, node.capacity)
        if node.role is Role.ROOT and "ip6" in settings.families:
            # Encoders there send by IPv6 what plain seats take so.
            address_6 = encoders_address_6(settings.addresses.access_6, tag)
            made = replace(made, host=replace(made.host, address_6=address_6))
        if node.role is Role.LEAF:
            inner, outer = _access_link(made.namespace, index, tag, next(subnets))
            if "ip6" in settings.families:
                ends = access_ends_6(settings.addresses.access_6, tag, index)
                inner, outer = replace(inner, address_6=ends[0]), replace(outer, address_6=ends[1])
            made = replace(
                made,
                access=inner,
                gateway=outer,
                media_ports=shares.pop(0),
                sorts_only=node.server == "none",
                outlet=node.outlet,
            )
        nodes[node.name] = made
    table = TABLE_PREFIX + settings.name.replace("-", "_")
    hub = hub_address(settings.addresses.tunnels).ip
    # No node can be called that: names have no dot.
    namespace = namespace_of(settings.name, ".hub")
    return SitePlan(nodes, tree, tuple(settings.fabric.redundancy), table, namespace, hub)


def guest_plan(settings: SiteSettings, guest: Guest) -> NodePlan:
    """Return what a node on another machine is given."""
    made = _node_plan(settings, guest.name, guest.role, guest.index, guest.capacity)
    return replace(made, tunnel=guest_address(settings.addresses.tunnels, guest.index).ip)


def _node_plan(
    settings: SiteSettings, name: str, role: Role, index: int, capacity: int | None
) -> NodePlan:
    overlay, tag = settings.addresses.overlay, _tag(settings)
    namespace = namespace_of(settings.name, name)
    return NodePlan(
        name=name,
        role=role,
        index=index,
        namespace=namespace,
        dpid=0xAB << 40 | tag << 16 | index + 1,
        host=Port(
            HOST_DEVICE,
            namespace,
            mac=_mac(tag, index),
            address=IPv4Interface(f"{overlay[index + 1]}/{overlay.prefixlen}"),
        ),
        switch_end=Port(SWITCH_DEVICE, namespace),
        capacity=capacity,
    )


def _tag(settings: SiteSettings) -> int:
    """Return by what two sites on one machine differ: in their devices and MAC addresses."""
    return zlib.crc32(settings.name.encode()) & 0xFFFF


def tag_of(site: str) -> int:
    """Return the 16 bits in which the devices and MAC addresses of two sites differ."""
    return zlib.crc32(site.encode()) & 0xFFFF


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


def access_ends_6(
    network: IPv6Network, subnet: int, number: int
) -> tuple[IPv6Interface, IPv6Interface]:
    """Return both ends of an access link, the leaf's first: a /127 (RFC 6164).

    Args:
        network: a /48 or larger.
        subnet: 16 bits: which /64 of it.
        number: of the link, less than 2**62.
    """
    outer = int(network.network_address) + (subnet << 64) + 2 * (number + 1)
    return IPv6Interface((outer + 1, 127)), IPv6Interface((outer, 127))


def encoders_address_6(network: IPv6Network, subnet: int) -> IPv6Interface:
    """Return an address of a site's /64 that is no access link's, see :func:`access_ends_6`."""
    return IPv6Interface((int(network.network_address) + (subnet << 64) + (1 << 63), 128))


def ingress_ends_6(network: IPv6Network, subnet: int) -> tuple[IPv6Interface, IPv6Interface]:
    """Return both ends of the cable to the ingress, the inner first; see :func:`access_ends_6`."""
    inner, outer = access_ends_6(network, subnet, 1 << 62)
    return inner, outer


def is_access_link(device: str) -> bool:
    """Return whether a device of this machine leads to a leaf or the ingress of any site.

    It will not last.
    """
    return re.fullmatch("ab[0-9a-f]{4}-([0-9]+|in)|aba[0-9a-f]{8}", device) is not None


def _mac(tag: int, index: int) -> str:
    """Return a locally administered unicast address."""
    return ":".join(
        f"{byte:02x}" for byte in (0x02, 0xAB, tag >> 8, tag & 0xFF, index >> 8, index & 0xFF)
    )
