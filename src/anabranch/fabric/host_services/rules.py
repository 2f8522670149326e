"""The rules that every switch holds for the services: what goes to the controller, what nowhere.

Hosts' questions (ARP, broadcast DHCP) are caught at EDGE, where only packets of edge ports pass.
What reactive rules carry is caught at HOSTS, below those rules.
"""

from collections.abc import Iterator, Mapping
from dataclasses import replace

from anabranch.fabric.frames import BROADCAST, ETH_ARP, ETH_IPV4, ETH_LLDP, IP_ICMP, IP_UDP
from anabranch.fabric.host_services.settings import Settings, Unicast
from anabranch.fabric.model import Network
from anabranch.fabric.moves import PROBE_MAC
from anabranch.fabric.openflow.actions import PORT_CONTROLLER, Output
from anabranch.fabric.openflow.messages import MeterBand
from anabranch.fabric.openflow.oxm import Match
from anabranch.fabric.pipeline import (
    CLASSIFY,
    EDGE,
    GUARD_PRIORITY,
    HOST_SERVICE_PRIORITY,
    HOSTS,
    LLDP_PRIORITY,
    SERVICES,
)
from anabranch.fabric.tables import INTENT_COOKIE, MeterSpec, Rule

SERVER_PORT, CLIENT_PORT = 67, 68
PACKET_IN_METER = 0xAC01  # Open vSwitch's userspace datapath knows ids below 65536

OUTSIDE_PRIORITY = 500  # HOSTS: above every reactive rule

# HOSTS: a lease must never pass unseen by a rule for other traffic, so its miss is above that.
DHCP_PRIORITY = 400
DHCP_MISS_PRIORITY = 350
UNICAST_PRIORITY = 300
UNICAST_MISS_PRIORITY = 100

# A packet_in says by it that nothing but the two hosts' addresses decides about the packet.
UNICAST_MISS_COOKIE = INTENT_COOKIE | 0x484F5354

# A packet_in says by it that a host has answered a question of the controller's own.
ANSWER_COOKIE = INTENT_COOKIE | 0x50524F42

_PUNT = (Output(PORT_CONTROLLER, 0xFFFF),)


def base_rules(settings: Settings, network: Network) -> Mapping[str, tuple[Rule, ...]]:
    """Return by switch what the services need at every switch of ``network``."""
    return {switch: tuple(_rules(settings, switch)) for switch in network.switches}


def meters(settings: Settings, network: Network) -> Mapping[str, tuple[MeterSpec, ...]]:
    """Return by switch the meters that these rules refer to."""
    rate = settings.packet_in_rate
    if rate is None:
        return {}
    spec = MeterSpec(PACKET_IN_METER, (MeterBand(rate, rate),), packets=True)
    return dict.fromkeys(network.switches, (spec,))


def _rules(settings: Settings, switch: str) -> Iterator[Rule]:
    meter = None if settings.packet_in_rate is None else PACKET_IN_METER
    server = settings.dhcp_server

    def punt(table: int, priority: int, match: Match) -> Rule:
        return Rule(table, priority, match, _PUNT, INTENT_COOKIE, meter=meter)

    for port in sorted(settings.edge | settings.outside):
        if port.switch == switch:
            forged = Match(in_port=port.port_no, eth_type=ETH_LLDP)
            yield Rule(CLASSIFY, LLDP_PRIORITY + 1, forged, (), INTENT_COOKIE)
    for port in sorted(settings.outside):
        if port.switch == switch:
            foreign = Match(in_port=port.port_no)
            yield Rule(EDGE, GUARD_PRIORITY + 3, foreign, (), INTENT_COOKIE, goto_table=SERVICES)
            yield Rule(HOSTS, OUTSIDE_PRIORITY, foreign, (), INTENT_COOKIE)
    yield punt(EDGE, HOST_SERVICE_PRIORITY, Match(eth_type=ETH_ARP))
    # Not metered: who floods a switch shall not silence a host that is asked where it is.
    answer = Match(eth_dst=PROBE_MAC, eth_type=ETH_ARP)
    yield Rule(EDGE, HOST_SERVICE_PRIORITY + 1, answer, _PUNT, ANSWER_COOKIE)
    replies = Match(eth_type=ETH_IPV4, ip_proto=IP_UDP, udp_src=SERVER_PORT)
    yield Rule(EDGE, GUARD_PRIORITY, replies, (), INTENT_COOKIE)
    if server is not None:
        yield from _dhcp(settings, switch, meter)
    if settings.unicast is Unicast.ICMP:
        yield punt(HOSTS, UNICAST_MISS_PRIORITY, Match(eth_type=ETH_IPV4, ip_proto=IP_ICMP))
    if settings.unicast is Unicast.ANY:
        any_ipv4 = Match(eth_type=ETH_IPV4)
        yield Rule(HOSTS, UNICAST_MISS_PRIORITY, any_ipv4, _PUNT, UNICAST_MISS_COOKIE)


def _dhcp(settings: Settings, switch: str, meter: int | None) -> Iterator[Rule]:
    """Broadcasts go to the controller at once; unicast is a renewal, see :mod:`.dhcp`."""
    server = settings.dhcp_server
    asked = Match(
        eth_dst=BROADCAST,
        eth_type=ETH_IPV4,
        ip_proto=IP_UDP,
        udp_src=CLIENT_PORT,
        udp_dst=SERVER_PORT,
    )
    yield Rule(EDGE, HOST_SERVICE_PRIORITY, asked, _PUNT, INTENT_COOKIE, meter=meter)
    renewal = Match(eth_type=ETH_IPV4, ip_proto=IP_UDP, udp_src=CLIENT_PORT, udp_dst=SERVER_PORT)
    yield Rule(HOSTS, DHCP_MISS_PRIORITY, renewal, _PUNT, INTENT_COOKIE, meter=meter)
    if server is None or server.switch != switch:
        return
    unicast = Match(
        in_port=server.port_no,
        eth_type=ETH_IPV4,
        ip_proto=IP_UDP,
        udp_src=SERVER_PORT,
        udp_dst=CLIENT_PORT,
    )
    # Not metered: who floods a switch with questions shall not cost others their answers.
    broadcast = replace(unicast, eth_dst=BROADCAST)
    yield Rule(EDGE, GUARD_PRIORITY + 2, broadcast, _PUNT, INTENT_COOKIE)
    yield Rule(EDGE, GUARD_PRIORITY + 1, unicast, (), INTENT_COOKIE, goto_table=SERVICES)
    # in_port: nobody else's answer shall ever come as far as here.
    yield Rule(HOSTS, DHCP_MISS_PRIORITY, unicast, _PUNT, INTENT_COOKIE)
