"""Unicast between known hosts by reactive rules: ICMP, or any IPv4 (RFC 792, 791)."""

from collections import Counter

from anabranch.fabric.frames import ETH_IPV4, IP_ICMP, Headers
from anabranch.fabric.host_services.acts import Act, SendPacket
from anabranch.fabric.host_services.claims import Claims, is_station
from anabranch.fabric.host_services.paths import ReactivePaths
from anabranch.fabric.host_services.rules import UNICAST_PRIORITY
from anabranch.fabric.host_services.seeking import Seeker
from anabranch.fabric.host_services.settings import Settings, Unicast
from anabranch.fabric.host_services.view import View
from anabranch.fabric.model import PortRef
from anabranch.fabric.openflow.oxm import Match


class UnicastPaths:
    """Makes a way for the packet that found no rule, and sends it on at the last switch.

    ``counters`` gets ``unicast_connected``, ``unicast_unknown`` (no host has the destination
    address), ``unicast_refused`` (forged source), ``unicast_moving`` (the source may have moved),
    ``unicast_unreachable`` and ``unicast_ignored``.
    """

    def __init__(
        self, settings: Settings, claims: Claims, paths: ReactivePaths, seeker: Seeker,
        counters: Counter[str],
    ) -> None:  # fmt: skip
        self._kind = settings.unicast
        self._claims = claims
        self._paths = paths
        self._seeker = seeker
        self._counters = counters

    def packet(self, at: PortRef, headers: Headers, view: View, now: float) -> list[Act]:
        """Take an IPv4 packet that no reactive rule matched."""
        source_mac, target_mac = headers.mac("eth_src"), headers.mac("eth_dst")
        if source_mac is None or target_mac is None or not is_station(target_mac):
            return self._drop("ignored")
        if not self._carries(headers):
            return self._drop("ignored")
        target = view.host(target_mac)
        if target is None:
            return [*self._drop("unknown"), *self._seek(target_mac, at, headers, view, now)]
        if target.at == at:
            return self._drop("ignored")  # both are behind the same port
        end = target.mac, target.at
        there, back = self._match(source_mac, target_mac), self._match(target_mac, source_mac)
        seen: list[Act] = []
        if view.is_edge(at):
            known = view.host(source_mac)
            if self._claims.is_elsewhere(source_mac, at, view):
                return [self._claims.seen(source_mac, at), *self._drop("moving")]
            if not self._claims.accept(source_mac, at, None, view, now):
                return self._drop("refused")
            if known is None or known.at != at:
                seen.append(self._claims.seen(source_mac, at))
            acts = self._paths.connect(
                *(there, back, (source_mac, at), end), UNICAST_PRIORITY, view.network, now
            )
        else:
            acts = self._paths.mend(there, at.switch, end, UNICAST_PRIORITY, view.network, now)
        if acts is None:
            return seen + self._drop("unreachable")
        self._counters["unicast_connected"] += 1
        send = SendPacket(target.at.switch, target.at.port_no, headers.frame)
        return [*seen, *acts, send]

    def _seek(self, mac: str, at: PortRef, headers: Headers, view: View, now: float) -> list[Act]:
        address = headers.ipv4("ipv4_dst")
        return [] if address is None else self._seeker.ask(mac, address, at, view, now)

    def _carries(self, headers: Headers) -> bool:
        if self._kind is Unicast.ICMP:
            return headers.get("ip_proto") == IP_ICMP
        return self._kind is Unicast.ANY and headers.get("ip_proto") is not None

    def _match(self, source: str, target: str) -> Match:
        if self._kind is Unicast.ICMP:
            return Match(eth_src=source, eth_dst=target, eth_type=ETH_IPV4, ip_proto=IP_ICMP)
        return Match(eth_src=source, eth_dst=target, eth_type=ETH_IPV4)

    def _drop(self, why: str) -> list[Act]:
        self._counters[f"unicast_{why}"] += 1
        return []
