"""Where a node's pipelines may receive and send: what no description decides."""

from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address

from anabranch.core.errors import UsageError
from anabranch.tree.soleil.messages import Endpoint


@dataclass(frozen=True, slots=True)
class Overlay:
    """A node's place on the overlay.

    Attributes:
        address: the node's; sources receive there, and outlets send from it.
        ports: UDP ports for sources; the node's own, nobody else binds them.
        destinations: outlets send to addresses in these networks only.
        interface: by which multicast leaves; None: as the routing table has it.
        ttl: of the IP packets sent.
        netns: network namespace of the pipelines; None: the node's own.
    """

    address: str
    ports: range
    destinations: tuple[IPv4Network | IPv6Network, ...]
    interface: str | None = None
    ttl: int = 16
    netns: str | None = None

    def check_destination(self, to: Endpoint) -> Endpoint:
        """Return ``to``, its address in the usual form.

        Raises:
            UsageError: it is no address, outside the overlay, a privileged port, or a source of
                this node: what went there would come out and go there again.
        """
        try:
            address: IPv4Address | IPv6Address = ip_address(to.host)
        except ValueError:
            raise UsageError(f"{to.host[:60]!r} is not an IP address") from None
        if not any(address in network for network in self.destinations):
            raise UsageError(f"{address} is not on the overlay")
        if to.port < 1024:
            raise UsageError(f"port {to.port} is privileged")
        if address == ip_address(self.address) and to.port in self.ports:
            raise UsageError(f"{address}:{to.port} is for this node's own sources")
        return Endpoint(str(address), to.port)
