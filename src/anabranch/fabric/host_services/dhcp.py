"""DHCP between the edge and the one server, never flooded (RFC 2131).

A client's broadcast goes to the server's port alone, and the answer to the client's port alone, by
packet_out: the controller sees every lease. A renewal is unicast; the first one makes reactive
rules for it and its answer, so that a host that keeps its address costs the controller nothing.
"""

from collections import Counter, OrderedDict
from dataclasses import dataclass

from anabranch.fabric.errors import ProtocolError
from anabranch.fabric.frames import BROADCAST, ETH_IPV4, IP_UDP, Headers
from anabranch.fabric.host_services.acts import Act, SendPacket
from anabranch.fabric.host_services.claims import Claims
from anabranch.fabric.host_services.dhcp_message import (
    BOOTREPLY,
    BOOTREQUEST,
    DhcpMessage,
    DhcpType,
    parse_dhcp,
)
from anabranch.fabric.host_services.limits import RateLimit
from anabranch.fabric.host_services.paths import ReactivePaths
from anabranch.fabric.host_services.rules import CLIENT_PORT, DHCP_PRIORITY, SERVER_PORT
from anabranch.fabric.host_services.settings import Settings
from anabranch.fabric.host_services.view import View
from anabranch.fabric.model import PortRef
from anabranch.fabric.openflow.oxm import Match

_MAX_CLIENTS = 65536
_PER_PORT, _BURST = 10.0, 20.0  # messages of clients


@dataclass(slots=True)
class _Client:
    """Where a client asked, and what it was given by whom."""

    at: PortRef
    ipv4: str | None = None
    server_mac: str | None = None
    server_ipv4: str | None = None


class DhcpRelay:
    """Carries messages between clients and the server.

    ``counters`` gets ``dhcp_relayed``, ``dhcp_answered``, ``dhcp_rogue`` (an answer from another
    port than the server's), ``dhcp_refused`` (a client that is not who it says), ``dhcp_moving``
    (it may have moved), ``dhcp_limited``, ``dhcp_unknown_client`` and ``dhcp_malformed``.
    """

    def __init__(
        self, settings: Settings, claims: Claims, paths: ReactivePaths, counters: Counter[str]
    ) -> None:
        self._server = settings.dhcp_server
        self._claims = claims
        self._paths = paths
        self._counters = counters
        self._clients: OrderedDict[str, _Client] = OrderedDict()
        self._limit = RateLimit(_PER_PORT, _BURST)

    @staticmethod
    def concerns(headers: Headers) -> bool:
        """Say whether a packet is one between a DHCP client and a server, either way."""
        ports = headers.get("udp_src"), headers.get("udp_dst")
        return ports in ((CLIENT_PORT, SERVER_PORT), (SERVER_PORT, CLIENT_PORT))

    def packet(self, at: PortRef, headers: Headers, view: View, now: float) -> list[Act]:
        """Take a packet that :meth:`concerns` this and came in at ``at``."""
        server = self._server
        answers = headers.get("udp_src") == SERVER_PORT
        if server is None or (answers and at != server):
            self._counters["dhcp_rogue" if answers else "dhcp_no_server"] += 1
            return []
        try:
            if headers.fragment:
                raise ProtocolError("a fragment of a DHCP message")
            message = parse_dhcp(headers.payload)
        except ProtocolError:
            self._counters["dhcp_malformed"] += 1
            return []
        if answers:
            return self._answer(message, at, headers, view, now)
        return self._question(message, at, server, headers, view, now)

    def _question(
        self,
        message: DhcpMessage,
        at: PortRef,
        server: PortRef,
        headers: Headers,
        view: View,
        now: float,
    ) -> list[Act]:
        mac = message.chaddr
        if message.op != BOOTREQUEST or mac != headers.mac("eth_src"):
            self._counters["dhcp_refused"] += 1
            return []
        send = SendPacket(server.switch, server.port_no, headers.frame)
        if not view.is_edge(at):  # a rule of a renewal's path is missing at an inner switch
            return [send]
        if not self._limit.allow(at, now):
            self._counters["dhcp_limited"] += 1
            return []
        if self._claims.is_elsewhere(mac, at, view):
            self._counters["dhcp_moving"] += 1
            return [self._claims.seen(mac, at)]
        if at == server or not self._claims.accept(mac, at, None, view, now):
            self._counters["dhcp_refused"] += 1
            return []
        client = self._clients.get(mac)
        if client is None or client.at != at:
            client = self._clients[mac] = _Client(at)
        self._clients.move_to_end(mac)
        if len(self._clients) > _MAX_CLIENTS:
            self._clients.popitem(last=False)
        self._counters["dhcp_relayed"] += 1
        return [
            self._claims.seen(mac, at),
            *self._renewal(mac, client, server, headers, view, now),
            send,
        ]

    def _renewal(
        self,
        mac: str,
        client: _Client,
        server: PortRef,
        headers: Headers,
        view: View,
        now: float,
    ) -> list[Act]:
        """Return the rules for a unicast renewal and its answer."""
        if client.ipv4 is None or client.server_mac is None or client.server_ipv4 is None:
            return []
        wanted = (client.server_mac, client.ipv4, client.server_ipv4)
        if wanted != (headers.mac("eth_dst"), headers.ipv4("ipv4_src"), headers.ipv4("ipv4_dst")):
            return []
        there = Match(
            eth_src=mac,
            eth_dst=client.server_mac,
            eth_type=ETH_IPV4,
            ip_proto=IP_UDP,
            ipv4_src=client.ipv4,
            ipv4_dst=client.server_ipv4,
            udp_src=CLIENT_PORT,
            udp_dst=SERVER_PORT,
        )
        back = Match(
            eth_src=client.server_mac,
            eth_dst=mac,
            eth_type=ETH_IPV4,
            ip_proto=IP_UDP,
            ipv4_src=client.server_ipv4,
            ipv4_dst=client.ipv4,
            udp_src=SERVER_PORT,
            udp_dst=CLIENT_PORT,
        )
        ends = (mac, client.at), (client.server_mac, server)
        return self._paths.connect(there, back, *ends, DHCP_PRIORITY, view.network, now) or []

    def _answer(
        self, message: DhcpMessage, at: PortRef, headers: Headers, view: View, now: float
    ) -> list[Act]:
        mac, source = message.chaddr, headers.mac("eth_src")
        if message.op != BOOTREPLY or headers.mac("eth_dst") not in (mac, BROADCAST):
            self._counters["dhcp_malformed"] += 1
            return []
        client = self._clients.get(mac)
        if client is None or source is None:
            self._counters["dhcp_unknown_client"] += 1
            return []
        acts: list[Act] = []
        address = headers.ipv4("ipv4_src")
        if self._claims.accept(source, at, address, view, now):
            acts.append(self._claims.seen(source, at, address))
        if message.type is DhcpType.ACK and message.yiaddr is not None:
            client.ipv4, client.server_mac, client.server_ipv4 = message.yiaddr, source, address
            if self._claims.accept(mac, client.at, message.yiaddr, view, now):
                acts.append(self._claims.seen(mac, client.at, message.yiaddr))
        self._counters["dhcp_answered"] += 1
        return [*acts, SendPacket(client.at.switch, client.at.port_no, headers.frame)]
