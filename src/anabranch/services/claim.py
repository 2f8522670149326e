"""Claims: which packets of the path a tenant's modules are given."""

from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Network

from anabranch.services.errors import ServicesError

Network = IPv4Network | IPv6Network
NAMES = {1: "icmp", 6: "tcp", 17: "udp", 132: "sctp"}
WITH_PORTS = frozenset({6, 17, 132})


class ClaimError(ServicesError):
    """A claim that cannot be, or that another tenant has already."""


@dataclass(frozen=True, slots=True)
class Claim:
    """Packets by where they go: the seed's ``filter-dst``, ``filter-proto`` and ``filter-port``.

    Attributes:
        destination: the addresses that the packets are for.
        protocol: an IP protocol's number; None: any.
        ports: destination ports; empty: any. They need UDP, TCP or SCTP. Of a packet in fragments
            only the first has ports: claim all ports to be given all fragments.
        server: TCP connections are led there, to the same port, and no packet to a module.
    """

    destination: Network
    protocol: int | None = None
    ports: tuple[int, ...] = ()
    server: IPv4Address | None = None

    def __post_init__(self) -> None:
        if self.protocol is not None and not 0 < self.protocol < 256:
            raise ClaimError(f"{self.protocol} is no protocol")
        if self.ports and self.protocol not in WITH_PORTS:
            raise ClaimError("ports need the protocol udp, tcp or sctp")
        if not all(0 < port < 65536 for port in self.ports):
            raise ClaimError("a port is 1 to 65535")
        if self.server is not None and (
            self.protocol != 6 or not self.ports or self.destination.version != 4
        ):
            raise ClaimError("only TCP over IPv4 to a port can be led to a server")

    def overlaps(self, other: "Claim") -> bool:
        """Say whether some packet is in both."""
        return (
            self.destination.version == other.destination.version
            and self.destination.overlaps(other.destination)
            and (self.protocol == other.protocol or None in {self.protocol, other.protocol})
            and (not self.ports or not other.ports or not set(self.ports).isdisjoint(other.ports))
        )

    def __str__(self) -> str:
        protocol = "ip" if self.protocol is None else NAMES.get(self.protocol, str(self.protocol))
        ports = "/" + ",".join(map(str, self.ports)) if self.ports else ""
        return f"{protocol}{ports} to {self.destination}"
