"""One snapshot of the network, arranged for the questions that packets raise."""

from collections.abc import Iterator

from anabranch.fabric.model import Host, Network, PortRef
from anabranch.fabric.openflow.actions import PORT_LOCAL, PORT_MAX


class View:
    """Answers about ``network``; made once for each snapshot."""

    def __init__(self, network: Network) -> None:
        self.network = network
        self._inner = {end for link in network.links for end in (link.src, link.dst)}
        self._by_ipv4 = {host.ipv4: host for host in network.hosts.values() if host.ipv4}

    def host(self, mac: str | None) -> Host | None:
        """Return the host with this MAC address."""
        return None if mac is None else self.network.hosts.get(mac)

    def holder(self, ipv4: str) -> Host | None:
        """Return the host that is known to have this IPv4 address."""
        return self._by_ipv4.get(ipv4)

    def is_edge(self, at: PortRef) -> bool:
        """Say whether hosts may be behind a port: it is a real one or LOCAL, and no link's end."""
        real = 0 < at.port_no <= PORT_MAX or at.port_no == PORT_LOCAL
        return real and at not in self._inner

    def edge(self) -> Iterator[PortRef]:
        """Return every edge port that is up."""
        return (at for at, port in self.network.ports.items() if port.up and self.is_edge(at))
