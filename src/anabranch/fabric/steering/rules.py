"""The rules by which a switch leads packets to service nodes and back (seed 003, figure 8.2).

Ahead of any packet: what comes back by a service port is marked as served; signalling goes to each
node in turn; what a filter claims and no entry is for goes to the controller. On the first packet
of a flow: entries that lead it on from the port where it comes in, and from each service port.
All of it is at HOSTS, so that what an intent carries is carried as it says.
"""

from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise

from anabranch.fabric.flow_rules import return_rule
from anabranch.fabric.openflow.actions import (
    PORT_CONTROLLER,
    PORT_IN_PORT,
    Action,
    Output,
    SetField,
)
from anabranch.fabric.openflow.messages import MeterBand
from anabranch.fabric.openflow.oxm import ETH_IPV4, IP_UDP, Match
from anabranch.fabric.pipeline import (
    CLASSIFY,
    EDGE,
    HOSTS,
    RETURN_PRIORITY,
    SERVED_MASK,
    SERVED_SHIFT,
)
from anabranch.fabric.steering.model import SIGNALLING_PORT, FlowKey, ServiceNode
from anabranch.fabric.tables import INTENT_COOKIE, REACTIVE_COOKIE, MeterSpec, Rule

# HOSTS: above what host services do there, below what is outside
SIGNALLING_TO_PRIORITY = 490  # to a node's own address
SIGNALLING_ON_PRIORITY = 488  # from a node to the next one
SIGNALLING_OUT_PRIORITY = 487  # from the last one (reactive), and its miss
SIGNALLING_MISS_PRIORITY = 486
SIGNALLING_IN_PRIORITY = 485  # from anywhere else to the first one
STEERED_PRIORITY = 470  # a flow's entries (reactive)
CLAIMED_PRIORITY = 450  # their miss
RETURNED_PRIORITY = 445  # what a module answers or changed (reactive)
RETURN_MISS_PRIORITY = 440

STEERING_COOKIE = INTENT_COOKIE | 0x53544552
"""A packet_in says by it that it is about a packet to be steered."""
STEERING_METER = 0xAC02
MISSES_PPS = 500
IDLE_S = 30
_PUNT = (Output(PORT_CONTROLLER, 0xFFFF),)
_SIGNALLING = {
    "eth_type": ETH_IPV4, "vlan_vid": 0, "ip_proto": IP_UDP, "udp_dst": SIGNALLING_PORT,
}  # fmt: skip


def meter() -> MeterSpec:
    """Return the meter of packets that have no entry yet."""
    return MeterSpec(STEERING_METER, (MeterBand(MISSES_PPS, MISSES_PPS),), packets=True)


def base_rules(nodes: Sequence[ServiceNode]) -> Iterator[Rule]:
    """Yield what a switch holds ahead of any packet; ``nodes`` are its own, by rank."""
    if not nodes:
        return
    yield from _returns(nodes)
    yield from _signalling(nodes)
    claimed = {match for node in nodes for each in node.filters for match in each.matches()}
    for match in sorted(claimed, key=str):
        yield _miss(CLAIMED_PRIORITY, match)


def _returns(nodes: Iterable[ServiceNode]) -> Iterator[Rule]:
    for node in nodes:
        port_no = node.at.port_no
        yield return_rule(port_no)
        # What it says for itself is a host's like any other.
        own = Match(in_port=port_no, eth_src=node.mac)
        yield Rule(CLASSIFY, RETURN_PRIORITY + 1, own, (), INTENT_COOKIE, goto_table=EDGE)
        served = Match(metadata=(port_no << SERVED_SHIFT, SERVED_MASK))
        yield _miss(RETURN_MISS_PRIORITY, served)


def _signalling(nodes: Sequence[ServiceNode]) -> Iterator[Rule]:
    for node in nodes:
        to_it = Match(**_SIGNALLING, ipv4_dst=str(node.address))  # type: ignore[arg-type]
        yield _signal(SIGNALLING_TO_PRIORITY, to_it, node)
    yield _signal(SIGNALLING_IN_PRIORITY, Match(**_SIGNALLING), nodes[0])  # type: ignore[arg-type]
    for node, follower in pairwise(nodes):
        yield _signal(SIGNALLING_ON_PRIORITY, _signalling_from(node.at.port_no), follower)
    yield _miss(SIGNALLING_MISS_PRIORITY, _signalling_from(nodes[-1].at.port_no))


def _signalling_from(port_no: int, **more: str) -> Match:
    return Match(in_port=port_no, **_SIGNALLING, **more)  # type: ignore[arg-type]


def _signal(priority: int, match: Match, node: ServiceNode) -> Rule:
    # By its own MAC address, or its kernel would take it for somebody else's.
    actions = SetField("eth_dst", node.mac), Output(node.at.port_no)
    return Rule(HOSTS, priority, match, actions, INTENT_COOKIE)


def _miss(priority: int, match: Match) -> Rule:
    return Rule(HOSTS, priority, match, _PUNT, STEERING_COOKIE, meter=STEERING_METER)


def steered(
    in_port: int, key: FlowKey, nodes: Sequence[ServiceNode], out_port: int
) -> tuple[Rule, ...]:
    """Return the entries that lead a flow through nodes and out, the first one where it comes in.

    Args:
        nodes: at least one, or ``in_port`` is a service port.
        out_port: by which its destination is reached.
    """
    ways = [*(node.at.port_no for node in nodes), out_port]
    ports = [in_port, *ways[:-1]]
    return tuple(
        _entry(STEERED_PRIORITY, key.match(port), to, notify=not place)
        for place, (port, to) in enumerate(zip(ports, ways, strict=True))
    )


def returned(in_port: int, key: FlowKey, out_port: int) -> tuple[Rule, ...]:
    """Return the entry for what a module answers, or has changed so that nobody claims it."""
    match = Match(in_port=in_port, eth_src=key.eth_src, eth_dst=key.eth_dst, eth_type=ETH_IPV4)
    return (_entry(RETURNED_PRIORITY, match, out_port, notify=True),)


def signalled(in_port: int, key: FlowKey, out_port: int) -> tuple[Rule, ...]:
    """Return the entry for signalling that the last node sends on towards its destination."""
    match = _signalling_from(in_port, eth_dst=key.eth_dst)
    return (_entry(SIGNALLING_OUT_PRIORITY, match, out_port, notify=True),)


def _entry(priority: int, match: Match, out_port: int, *, notify: bool) -> Rule:
    # A switch never sends out of the port a packet came in by unless asked in this way.
    out: Action = Output(PORT_IN_PORT if out_port == match.in_port else out_port)
    return Rule(HOSTS, priority, match, (out,), REACTIVE_COOKIE, idle_timeout=IDLE_S, notify=notify)
