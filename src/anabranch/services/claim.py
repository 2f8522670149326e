"""Claims: which packets of the path a module is given."""

import re
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import Self

from anabranch.services.errors import ServicesError

Network = IPv4Network | IPv6Network
PROTOCOLS = {"udp": 17, "tcp": 6, "icmp": 1}
_TEXT = re.compile(r"(?:(udp|tcp|icmp|ip)\b)?(?:/(\d{1,5}))?(?: ?to (\S+))?")


class ClaimError(ServicesError):
    """A claim that cannot be, or is not this tenant's to make."""


@dataclass(frozen=True, slots=True)
class Claim:
    """Packets by where they go: the seed's ``filter-proto``, ``filter-port`` and ``filter-dst``.

    Attributes:
        destination: the addresses that the packets are for.
        protocol: ``udp``, ``tcp``, ``icmp``, or None for any.
        port: destination port, or None for any; not without UDP or TCP.
    """

    destination: Network
    protocol: str | None = None
    port: int | None = None

    def __post_init__(self) -> None:
        if self.protocol is not None and self.protocol not in PROTOCOLS:
            raise ClaimError(f"the protocol is udp, tcp or icmp, not {self.protocol!r}")
        if self.port is not None and self.protocol not in {"udp", "tcp"}:
            raise ClaimError("a port needs the protocol udp or tcp")
        if self.port is not None and not 0 < self.port < 65536:
            raise ClaimError(f"{self.port} is no port")

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read what :meth:`__str__` writes: ``udp/5060 to 192.0.2.1/32``, ``ip to 192.0.2.0/24``.

        Raises:
            ClaimError: it is no claim.
        """
        found = _TEXT.fullmatch(text)
        if found is None or found[3] is None:
            raise ClaimError(f"no claim, such as udp/5060 to 192.0.2.1: {text[:80]!r}")
        try:
            destination = ip_network(found[3])
        except ValueError as error:
            raise ClaimError(str(error)) from None
        protocol = found[1] if found[1] != "ip" else None
        return cls(destination, protocol, int(found[2]) if found[2] else None)

    def within(self, networks: tuple[Network, ...]) -> bool:
        """Say whether all that is claimed goes to one of these networks."""
        return any(
            self.destination.version == network.version and self.destination.subnet_of(network)  # type: ignore[arg-type]
            for network in networks
        )

    def __str__(self) -> str:
        port = f"/{self.port}" if self.port is not None else ""
        return f"{self.protocol or 'ip'}{port} to {self.destination}"
