"""Service nodes as the controller knows them, and the packets that they claim."""

import re
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network

from anabranch.fabric.errors import MisuseError
from anabranch.fabric.frames import Headers
from anabranch.fabric.model import PortRef
from anabranch.fabric.openflow.oxm import ETH_IPV4, IP_TCP, IP_UDP, Match
from anabranch.fabric.openflow.wire import canonical_mac

SIGNALLING_PORT = 270
"""UDP port of GIST (RFC 5971, section 9)."""
MAX_FILTERS = 1024
MAX_PORTS = 16
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,39}")
_DESTINATION_PORTS = {IP_TCP: "tcp_dst", IP_UDP: "udp_dst"}


@dataclass(frozen=True, slots=True, order=True)
class Filter:
    """Packets that a user's modules on a node are to be given: by where they go.

    Attributes:
        user: whose they are; nodes of one stage with the same user share the packets.
        destination: the addresses that they are for.
        protocol: an IP protocol's number; None: any.
        ports: destination ports, at most 16, of TCP or UDP; empty: any.
    """

    user: str
    destination: IPv4Network
    protocol: int | None = None
    ports: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if not 1 <= len(self.user) <= 100:
            raise MisuseError("a filter's user has 1 to 100 characters")
        if self.protocol is not None and not 0 < self.protocol < 256:
            raise MisuseError(f"{self.protocol} is no protocol")
        if self.ports and self.protocol not in _DESTINATION_PORTS:
            raise MisuseError("a switch tells ports of TCP and UDP only")
        if len(self.ports) > MAX_PORTS or not all(0 < port < 65536 for port in self.ports):
            raise MisuseError(f"a filter has up to {MAX_PORTS} ports, each 1 to 65535")

    def covers(self, key: "FlowKey") -> bool:
        """Say whether packets of this flow are claimed."""
        return (
            key.ipv4_dst in self.destination
            and self.protocol in {None, key.ip_proto}
            and (not self.ports or key.port in self.ports)
        )

    def matches(self) -> tuple[Match, ...]:
        """Return which packets these are, as a switch tells them."""
        fields: dict[str, object] = {"eth_type": ETH_IPV4, "vlan_vid": 0}
        if self.destination.prefixlen:
            fields["ipv4_dst"] = str(self.destination)
        if self.protocol is None:
            return (Match(**fields),)  # type: ignore[arg-type]
        fields["ip_proto"] = self.protocol
        name = _DESTINATION_PORTS.get(self.protocol, "")
        return tuple(
            Match(**fields, **each)  # type: ignore[arg-type]
            for each in ([{name: port} for port in self.ports] or [{}])
        )


@dataclass(frozen=True, slots=True)
class FlowKey:
    """What one flow entry is for: packets between two hosts that are treated alike.

    Attributes:
        port: destination port of TCP and UDP, 0 in later fragments; None: another protocol.
    """

    eth_src: str
    eth_dst: str
    ipv4_src: IPv4Address
    ipv4_dst: IPv4Address
    ip_proto: int
    port: int | None = None

    @classmethod
    def of(cls, headers: Headers) -> "FlowKey | None":
        """Return the flow that an untagged packet of IPv4 is of; None: it is none."""
        fields = headers.fields
        if headers.vlans or fields.get("eth_type") != ETH_IPV4 or "ipv4_dst" not in fields:
            return None
        eth_src, eth_dst = headers.mac("eth_src"), headers.mac("eth_dst")
        protocol = fields["ip_proto"]
        name = _DESTINATION_PORTS.get(protocol)
        port = None if name is None else fields.get(name, 0)
        source, destination = IPv4Address(fields["ipv4_src"]), IPv4Address(fields["ipv4_dst"])
        assert eth_src is not None
        assert eth_dst is not None
        return cls(eth_src, eth_dst, source, destination, protocol, port)

    @property
    def signalling(self) -> bool:
        """Whether it is GIST looking for the next node."""
        return self.ip_proto == IP_UDP and self.port == SIGNALLING_PORT

    def match(self, in_port: int) -> Match:
        """Return which packets these are where they come in by a port."""
        name = _DESTINATION_PORTS.get(self.ip_proto)
        ports = {} if name is None or self.port is None else {name: self.port}
        return Match(
            in_port=in_port,
            eth_src=self.eth_src,
            eth_dst=self.eth_dst,
            eth_type=ETH_IPV4,
            vlan_vid=0,
            ip_proto=self.ip_proto,
            ipv4_src=str(self.ipv4_src),
            ipv4_dst=str(self.ipv4_dst),
            **ports,  # type: ignore[arg-type]
        )


@dataclass(frozen=True, slots=True)
class ServiceNode:
    """A service node at a port of a switch.

    Attributes:
        name: unique among all; 1 to 40 letters, digits, ``_``, ``.``, ``-``.
        at: its service port: packets go out to it and come back by it.
        mac, address: its own, by which it speaks for itself.
        stage: nodes of one stage share the flows of a user; those of several stages are passed in
            turn, in the order of the stages' names.
        filters: what its modules claim.
    """

    name: str
    at: PortRef
    mac: str
    address: IPv4Address
    stage: str = ""
    filters: tuple[Filter, ...] = ()

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name) or (self.stage and not _NAME.fullmatch(self.stage)):
            raise MisuseError("nodes and stages are named by up to 40 letters, digits, _ . -")
        object.__setattr__(self, "mac", canonical_mac(self.mac))
        if not 1 <= self.at.port_no <= 0xFFFF:
            raise MisuseError(f"{self.at} has too high a number for a service port")
        if len(self.filters) > MAX_FILTERS:
            raise MisuseError(f"{self.name} claims more than {MAX_FILTERS} kinds of packets")

    @property
    def rank(self) -> tuple[str, str]:
        """Its place among the nodes of a switch: no packet ever goes to one before."""
        return self.stage, self.name
