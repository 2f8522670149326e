"""Flows as data: what the site wants of every switch, and the rules that follow from it.

There is no rule for what nobody wants, and a switch drops what no rule matches.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import IPv4Address

from anabranch.fabric.errors import MisuseError
from anabranch.fabric.openflow.actions import (
    PORT_IN_PORT,
    PORT_LOCAL,
    PORT_MAX,
    Action,
    Output,
    SetField,
)
from anabranch.fabric.openflow.oxm import ETH_IPV4, IP_UDP, Match
from anabranch.fabric.openflow.wire import canonical_ipv4, canonical_mac
from anabranch.fabric.tables import Rule

MEDIA_TABLE = 0
MEDIA_PRIORITY = 1000


@dataclass(frozen=True, slots=True)
class Delivery:
    """Where copies leave the fabric at a switch, and what is rewritten (None: untouched).

    Attributes:
        port_no: OpenFlow port of the receiver; it may be the port the flow comes in by.
        eth_dst: the receiver's MAC address.
        ip_dst: the receiver's IPv4 address.
        udp_dst: the receiver's UDP port, 1 to 65535.

    Raises:
        MisuseError: one of them is none.
    """

    port_no: int
    eth_dst: str | None = None
    ip_dst: str | None = None
    udp_dst: int | None = None

    def __post_init__(self) -> None:
        _check_port(self.port_no)
        if self.eth_dst is not None:
            object.__setattr__(self, "eth_dst", canonical_mac(self.eth_dst))
        if self.ip_dst is not None:
            object.__setattr__(self, "ip_dst", canonical_ipv4(self.ip_dst))
        if self.udp_dst is not None:
            _check_udp(self.udp_dst)


@dataclass(frozen=True, slots=True)
class MediaFlow:
    """One RTP/UDP flow of the overlay: its name, multicast group and destination port.

    Raises:
        MisuseError: ``group`` is not an IPv4 multicast address or ``udp_port`` not a port.
    """

    name: str
    group: str
    udp_port: int

    def __post_init__(self) -> None:
        object.__setattr__(self, "group", canonical_ipv4(self.group))
        if not IPv4Address(self.group).is_multicast:
            raise MisuseError(f"{self.group} is not a multicast address")
        _check_udp(self.udp_port)


@dataclass(frozen=True, slots=True)
class Hop:
    """How a flow passes one switch: in by one port, out unchanged and out as deliveries.

    Raises:
        MisuseError: a port is none, or the flow would leave unchanged where it came from.
    """

    switch: str
    in_port: int
    out_ports: frozenset[int] = frozenset()
    deliveries: tuple[Delivery, ...] = ()

    def __post_init__(self) -> None:
        for port_no in (self.in_port, *self.out_ports):
            _check_port(port_no)
        if self.in_port in self.out_ports:
            raise MisuseError(f"a flow at {self.switch} would go back out of port {self.in_port}")


@dataclass(slots=True)
class _Outlets:
    out_ports: set[int] = field(default_factory=set)
    deliveries: set[Delivery] = field(default_factory=set)


def rules_for(flow: MediaFlow, hops: Iterable[Hop], cookie: int) -> dict[str, list[Rule]]:
    """Return the rules, by switch, that carry ``flow`` along ``hops``.

    A rule matches the port the flow comes in by, its group and its UDP port. Hops of one switch
    and port are joined; a hop that leads nowhere gives no rule.
    """
    outlets: dict[tuple[str, int], _Outlets] = {}
    for hop in hops:
        joined = outlets.setdefault((hop.switch, hop.in_port), _Outlets())
        joined.out_ports |= hop.out_ports
        joined.deliveries.update(hop.deliveries)
    rules: dict[str, list[Rule]] = {}
    for (switch, in_port), joined in outlets.items():
        actions = _actions(flow, in_port, joined)
        if not actions:
            continue
        match = Match(
            in_port=in_port,
            eth_type=ETH_IPV4,
            ip_proto=IP_UDP,
            ipv4_dst=flow.group,
            udp_dst=flow.udp_port,
        )
        rules.setdefault(switch, []).append(
            Rule(MEDIA_TABLE, MEDIA_PRIORITY, match, actions, cookie)
        )
    return rules


def _actions(flow: MediaFlow, in_port: int, outlets: _Outlets) -> tuple[Action, ...]:
    """Order the copies so that none sees what was rewritten for another.

    A rewritten field stays so for all later actions. Plain copies therefore go first; then
    deliveries that leave the MAC address alone, since nothing tells what it was; then the rest.
    Group and UDP port are known from the match and are put back where a delivery wants them.
    """
    actions: list[Action] = [Output(port_no) for port_no in sorted(outlets.out_ports)]
    ip_dst, udp_dst = flow.group, flow.udp_port
    for delivery in sorted(outlets.deliveries, key=_delivery_order):
        if delivery.eth_dst is not None:
            actions.append(SetField("eth_dst", delivery.eth_dst))
        if delivery.ip_dst is not None or ip_dst != flow.group:
            ip_dst = delivery.ip_dst or flow.group
            actions.append(SetField("ipv4_dst", ip_dst))
        if delivery.udp_dst is not None or udp_dst != flow.udp_port:
            udp_dst = delivery.udp_dst or flow.udp_port
            actions.append(SetField("udp_dst", udp_dst))
        # A switch never sends out of the port a packet came in by unless asked in this way.
        hairpin = delivery.port_no == in_port
        actions.append(Output(PORT_IN_PORT if hairpin else delivery.port_no))
    return tuple(actions)


def _delivery_order(delivery: Delivery) -> tuple[bool, int, str, str, int]:
    return (
        delivery.eth_dst is not None,
        delivery.port_no,
        delivery.eth_dst or "",
        delivery.ip_dst or "",
        delivery.udp_dst or 0,
    )


def sending_order(names: Iterable[str], order: Sequence[str]) -> list[str]:
    """Return ``names`` from upstream to downstream: as in ``order``, then the others by name.

    Additions are sent in reverse and deletions as it is, so that a flow reaches a switch only
    while that switch has a rule for it.
    """
    place: Mapping[str, int] = {name: number for number, name in enumerate(order)}
    return sorted(names, key=lambda name: (place.get(name, len(place)), name))


def _check_port(port_no: int) -> None:
    if not 1 <= port_no <= PORT_MAX and port_no != PORT_LOCAL:
        raise MisuseError(f"{port_no} is not a port number: 1 to {PORT_MAX} are")


def _check_udp(port: int) -> None:
    if not 1 <= port <= 0xFFFF:
        raise MisuseError(f"{port} is not a UDP port: 1 to 65535 are")
