"""The services for hosts, joined: packets from the edge in, decisions out. No I/O.

Source: seed 000, sections 5.2.2 and 6.4.2.
"""

from collections import Counter
from collections.abc import Mapping

from anabranch.fabric import frames, graph
from anabranch.fabric.frames import ETH_ARP, ETH_IPV4
from anabranch.fabric.host_services import rules
from anabranch.fabric.host_services.acts import Act, HostSeen
from anabranch.fabric.host_services.arp import ArpResponder
from anabranch.fabric.host_services.claims import Claims
from anabranch.fabric.host_services.dhcp import DhcpRelay
from anabranch.fabric.host_services.paths import ReactivePaths, Route
from anabranch.fabric.host_services.seeking import Seeker
from anabranch.fabric.host_services.settings import Settings
from anabranch.fabric.host_services.unicast import UnicastPaths
from anabranch.fabric.host_services.view import View
from anabranch.fabric.model import Network, PortRef
from anabranch.fabric.openflow.oxm import Match
from anabranch.fabric.tables import MeterSpec, Rule


def shortest_route(network: Network, src: str, dst: str) -> graph.Path | None:
    """Return the shortest path between two switches, () between a switch and itself."""
    return () if src == dst else graph.shortest(network, src, dst)


class HostServices:
    """ARP, DHCP and unicast for the hosts at the edge.

    Args:
        settings: what the operator chose.
        route: how packets between two hosts find their way.

    Attributes:
        counters: what was done and refused, by name; see the parts.
    """

    def __init__(self, settings: Settings, route: Route = shortest_route) -> None:
        self.settings = settings
        self.counters: Counter[str] = Counter()
        self._claims = Claims(settings)
        self._paths = ReactivePaths(route, settings.idle_timeout)
        self._arp = ArpResponder(settings, self._claims, self.counters)
        self._dhcp = DhcpRelay(settings, self._claims, self._paths, self.counters)
        self._seeker = Seeker(settings, self.counters)
        self._unicast = UnicastPaths(
            settings, self._claims, self._paths, self._seeker, self.counters
        )
        self._view = View(Network())

    def base_rules(self, network: Network) -> Mapping[str, tuple[Rule, ...]]:
        """Return by switch the rules that bring hosts' packets here."""
        return rules.base_rules(self.settings, network)

    def meters(self, network: Network) -> Mapping[str, tuple[MeterSpec, ...]]:
        """Return by switch the meters that these rules refer to, if any."""
        return rules.meters(self.settings, network)

    def packet_in(
        self, switch: str, in_port: int, frame: bytes, network: Network, now: float
    ) -> list[Act]:
        """Return what to do about a packet that one of the rules brought here, in this order.

        Args:
            switch, in_port: where it came in.
            frame: the whole of it; whatever its bytes.
            network: as known now; the same object as long as nothing changes.
            now: monotonic seconds.
        """
        self._look_at(network)
        at = PortRef(switch, in_port)
        if at in self.settings.outside:  # it came before the rules did
            self.counters["outside"] += 1
            return []
        headers = frames.parse(frame)
        eth_type = headers.get("eth_type")
        if headers.vlans or eth_type not in (ETH_ARP, ETH_IPV4):
            self.counters["ignored"] += 1
            return []
        if eth_type == ETH_ARP:
            return self._arp.packet(at, headers, self._view, now)
        if self._dhcp.concerns(headers):
            return self._dhcp.packet(at, headers, self._view, now)
        return self._unicast.packet(at, headers, self._view, now)

    def sender(self, at: PortRef, frame: bytes, network: Network, now: float) -> list[HostSeen]:
        """Return the news of who sent a packet, if whoever it is may be there; else nothing."""
        self._look_at(network)
        mac = frames.parse(frame).mac("eth_src")
        if mac is None or at in self.settings.outside:
            return []
        if self._claims.is_elsewhere(mac, at, self._view) or self._claims.accept(
            mac, at, None, self._view, now
        ):
            return [self._claims.seen(mac, at)]
        return []

    def seek(self, at: PortRef, frame: bytes, network: Network, now: float) -> list[Act]:
        """Return what asks for the host that a packet of IPv4 is for, where it is not known."""
        self._look_at(network)
        headers = frames.parse(frame)
        mac, address = headers.mac("eth_dst"), headers.ipv4("ipv4_dst")
        if mac is None or address is None:
            return []
        return self._seeker.ask(mac, address, at, self._view, now)

    def _look_at(self, network: Network) -> None:
        if network is not self._view.network:
            self._view = View(network)

    def flow_removed(self, switch: str, match: Match) -> None:
        """Take note of a reactive rule's end (a FLOW_REMOVED with REACTIVE_COOKIE)."""
        self._paths.ended(switch, match)

    def invalidate(self, network: Network) -> list[tuple[str, Match]]:
        """Return the reactive rules that must go since the network is ``network`` now.

        These are the rules of every path that passes a link that is down or gone, or ends where
        its host no longer is.
        """
        return self._paths.invalidate(network)
