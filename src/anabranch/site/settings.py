"""What an operator may set about a site. The composition root fills these in."""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Network, IPv6Network, ip_address
from pathlib import Path
from typing import Literal

from anabranch.host.forwarding import FAMILIES, Family, family_of
from anabranch.media.leaf import LeafKind
from anabranch.media.rendition import DEFAULT_LADDER, Format, Rendition
from anabranch.site.rules import PlacementRules, TreeRules
from anabranch.tree.description import CandidateLink
from anabranch.tree.model import Role


@dataclass(frozen=True, slots=True)
class Outlet:
    """A port of a leaf's switch behind which receivers of plain seats are.

    Attributes:
        device: of this machine; the switch's while the leaf is up.
        networks: where the receivers are; those of others are reached as they were without it.
        next_hop: MAC address of the router, or of the one receiver, at the other end.
        source: the IPv4 address from which they are sent to.
    """

    device: str
    networks: tuple[IPv4Network, ...]
    next_hop: str
    source: IPv4Address

    def leads_to(self, address: str) -> bool:
        """Say whether a receiver is behind it."""
        return any(ip_address(address) in network for network in self.networks)


@dataclass(frozen=True, slots=True)
class SiteNode:
    """A node that the site has, or may start.

    Attributes:
        parent: from which it hangs as a rule; None: the links tell from which it may hang.
        rate_mbit: of the link to the parent, both ways.
        idle: belongs to the pool: not started with the site.
        capacity: viewers that a leaf takes at most; None: as many as come.
        server: whether a leaf has a server for browsers, or is a sort switch and nothing else.
        outlet: where its switch sends to receivers by itself; None: all by the kernel behind it.
    """

    name: str
    role: Role
    parent: str | None = None
    rate_mbit: float = 100.0
    idle: bool = False
    capacity: int | None = None
    server: Literal["webrtc", "none"] = "webrtc"
    outlet: Outlet | None = None


DEFAULT_NODES = (
    SiteNode("root", Role.ROOT),
    SiteNode("relay", Role.RELAY, "root"),
    SiteNode("leaf1", Role.LEAF, "relay"),
    SiteNode("leaf2", Role.LEAF, "relay"),
)


_OVERLAY = IPv4Network("10.98.0.0/24")
_ACCESS = IPv4Network("10.97.0.0/24")
_GROUPS = IPv4Network("239.192.0.0/16")
_TUNNELS = IPv4Network("10.96.0.0/24")
ACCESS_6 = IPv6Network("fd56:2b7e:91c4::/48")
"""Drawn once, as RFC 4193 section 3.2 has it."""


@dataclass(frozen=True, slots=True)
class Addresses:
    """Address ranges of a site.

    Attributes:
        overlay: hosts of the nodes, behind their switches.
        access: the links by which viewers reach the leaves; four addresses a leaf.
        groups: multicast range of the streams (RFC 2365: organisation-local scope).
        tunnels: ends of the tunnels to nodes on other machines.
        access_6: those of ``access`` for IPv6; each site has a /64 of its own there.
    """

    overlay: IPv4Network = _OVERLAY
    access: IPv4Network = _ACCESS
    groups: IPv4Network = _GROUPS
    tunnels: IPv4Network = _TUNNELS
    access_6: IPv6Network = ACCESS_6


@dataclass(frozen=True, slots=True)
class Ports:
    """Ports of this machine that a site uses; ranges are first and last.

    ``media`` is shared out among the leaves, ``srt`` and ``rtp`` among channels that name none;
    every node has ``pipelines`` of its own, for the sources of media pipelines. Publishers by WHIP
    send to ``whip``, and what they send goes on to ffmpeg by ``handover``, on the loopback address.
    """

    media: tuple[int, int] = (20000, 20999)
    inlets: tuple[int, int] = (21000, 21999)
    pipelines: tuple[int, int] = (22000, 22999)
    rtmp: int = 1935
    whip: int = 8189
    handover: tuple[int, int] = (23000, 23999)
    srt: tuple[int, int] = (9000, 9099)
    rtp: tuple[int, int] = (5004, 5103)


@dataclass(frozen=True, slots=True)
class RedundancyLink:
    """A link beside the tree, between any two nodes; flows take it where a tree link fails."""

    one: str
    other: str
    rate_mbit: float = 100.0


@dataclass(frozen=True, slots=True)
class FabricSettings:
    """How the switches are joined and controlled.

    Attributes:
        redundancy: reserves of the tree's links (seed 000, section 5.2).
        bfd_ms: interval at which both ends of every link assure each other that it carries
            packets; 0: only a link that is plainly down counts as down.
        controllers: 0: the director itself programs the switches; 1 or 2: processes of their own
            do, of which one is at work and the other stands by.
        dhcp: give virtual machines on the overlay addresses from its upper half; the server is on
            the root node, and no other is heard.
    """

    redundancy: tuple[RedundancyLink, ...] = ()
    bfd_ms: int = 0
    controllers: int = 0
    dhcp: bool = False


@dataclass(frozen=True, slots=True)
class RemoteSettings:
    """How nodes on other machines come in.

    Attributes:
        listen: address and port: TCP for SOLEIL, and UDP of the same number for WireGuard.
        state: directory of the site's authority and its books.
        bus: URL of a NATS server by which nodes may come, too; None: there is none.
    """

    listen: tuple[str, int]
    state: Path
    bus: str | None = None


@dataclass(frozen=True, slots=True)
class LeafSettings:
    """The leaf servers.

    Attributes:
        kind: which program they are.
        threads: of each server of our own, how many carry packets.
        repair: servers of our own ask ring servers of relays and root for lost packets.
        warm: channels that servers of our own keep at hand though nobody watches, so that the first
            viewer waits for nothing; None: all.
    """

    kind: LeafKind = "anabranch"
    threads: int = 1
    warm: frozenset[str] | None = frozenset()
    repair: bool = False


def families_of(public_addresses: Iterable[str], leaf: LeafKind) -> tuple[Family, ...]:
    """Return the families by which leaves of a kind are reached; a Janus by IPv4 alone."""
    there = {family_of(address) for address in public_addresses}
    able = {"janus": FAMILIES[:1], "anabranch": FAMILIES}[leaf]
    return tuple(family for family in able if family in there)


MAX_PER_LEAF = 2000
"""Plain seats that a sort switch has groups for; see :mod:`anabranch.fabric.groups`."""


@dataclass(frozen=True, slots=True)
class SeatSettings:
    """The plain seats.

    Attributes:
        allow: addresses of receivers that anybody may name; without the operator's token only
            one's own otherwise.
        per_client: seats that a client may have who is not the operator.
        per_leaf: seats at one leaf at most.
        hold_s: seconds that a stream is brought to a leaf after its last seat left.
        neighbours: channels on either side of one that is watched which are brought as well, so
            that nobody waits who goes up and down the dial.
    """

    allow: tuple[IPv4Network | IPv6Network, ...] = ()
    per_client: int = 8
    per_leaf: int = 500
    hold_s: float = 3.0
    neighbours: int = 0


@dataclass(frozen=True, slots=True)
class IngressSettings:
    """The gateway between producers and what listens for them; only where there are switches.

    Attributes:
        enabled: without it producers meet the listeners directly.
        rate_kbps: what a producer may send at most.
    """

    enabled: bool = False
    rate_kbps: int = 20_000


@dataclass(frozen=True, slots=True)
class ServiceSettings:
    """The site's nodes as service nodes: modules of others run there.

    Attributes:
        state: directory of tenants' code, files and logs.
        users: a file of users beside those in the store; None: there is none.
        nodes: which nodes; None: all on this machine.
    """

    state: Path
    users: Path | None = None
    nodes: frozenset[str] | None = None


@dataclass(frozen=True, slots=True)
class SiteSettings:
    """A site.

    ``switches`` False sends the channels straight to a single leaf server: no namespaces, no
    Open vSwitch, no root needed. ``public_addresses`` are what other computers reach the
    leaves by, IPv4 and IPv6; ``console`` is the URL by which they reach the pages.
    ``callback_port`` of 127.0.0.1 is where the RTMP server asks whether a publisher is allowed.
    ``links`` could be part of the tree, beside those to the nodes' parents. ``remote`` None: there
    are no nodes on other machines. ``services`` None: no node is a service node.
    """

    name: str
    run_id: str
    run_dir: Path
    database_url: str
    switches: bool = True
    nodes: Sequence[SiteNode] = DEFAULT_NODES
    links: Sequence[CandidateLink] = ()
    addresses: Addresses = field(default_factory=Addresses)
    ports: Ports = field(default_factory=Ports)
    fabric: FabricSettings = field(default_factory=FabricSettings)
    format: Format = field(default_factory=Format)
    ladder: tuple[Rendition, ...] = DEFAULT_LADDER
    public_addresses: tuple[str, ...] = ()
    test_channels: int = 2
    keyframe_on_join: bool = True
    console: str = "http://127.0.0.1:8080"
    callback_port: int = 0
    tree: TreeRules = field(default_factory=TreeRules)
    placement: PlacementRules = field(default_factory=PlacementRules)
    leaf: LeafSettings = field(default_factory=LeafSettings)
    seats: SeatSettings = field(default_factory=SeatSettings)
    ingress: IngressSettings = field(default_factory=IngressSettings)
    remote: RemoteSettings | None = None
    services: ServiceSettings | None = None

    def public_besides(self, local: Collection[str]) -> tuple[str, ...]:
        """Return the public addresses that are none of these, which are told anyhow."""
        return tuple(address for address in self.public_addresses if address not in local)

    @property
    def families(self) -> tuple[Family, ...]:
        """The families by which other computers reach the leaves."""
        return families_of(self.public_addresses, self.leaf.kind)

    @property
    def producers_host(self) -> str:
        """Where others reach the servers for RTMP, SRT and RTP: these are at IPv4 alone."""
        by_4 = (each for each in self.public_addresses if family_of(each) == "ip")
        return next(by_4, "127.0.0.1")
