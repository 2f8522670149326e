"""The tables of the switch that producers meet: who passes, how fast, and what is dropped. Pure.

A bridge of its own with two ports: OUTSIDE leads to this machine, INSIDE to where all that listens
for producers runs. A *door* is a port that producers send to. Known *sessions* pass, each producer
through a meter of its own. Whoever else comes to a door that waits for somebody is a *stranger*:
it passes a lane, a small meter that it shares with those whose addresses end as its own does, and
then the door's own, which all strangers together share. So one who floods closes one lane to
newcomers, and no flood is more than the door's meter; sessions and other doors know nothing of it.
Everything else is dropped and counted. From inside only answers get out, by the doors' ports.

Strangers' packets, and the answers of a listener that speaks for itself whether it has let somebody
in, are shown to the controller, few a second for each door. What is done then is decided elsewhere
(``site/doors.py``).
"""

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import IntEnum
from ipaddress import IPv4Address, IPv6Address, ip_address
from types import MappingProxyType

from anabranch.fabric.frames.headers import parse
from anabranch.fabric.openflow.actions import PORT_CONTROLLER, Output
from anabranch.fabric.openflow.messages import FlowStats, MeterBand, MeterStats, PacketIn
from anabranch.fabric.openflow.oxm import (
    ETH_ARP,
    ETH_IPV4,
    ETH_IPV6,
    IP_ICMP,
    IP_ICMPV6,
    Match,
)
from anabranch.fabric.tables import INTENT_COOKIE, MeterSpec, Rule, Tables
from anabranch.host.gateway import Protocol, Way

OUTSIDE, INSIDE = 1, 2
Address = IPv4Address | IPv6Address

# The tables
CLASSIFY, DOORS, STRANGERS, KNOCKS, ANSWERS, SHOWN = range(6)
# CLASSIFY
_ARP_PRIORITY = 400
_ERRORS_PRIORITY = 310  # "fragmentation needed" and its like
_IP_PRIORITY = 300
# DOORS
_SESSION_PRIORITY = 300
_EXPECTED_PRIORITY = 200
_LANE_PRIORITY = 100
_CLOSED_PRIORITY = 50
# all
_REST_PRIORITY = 0

LANES = 8
"""A power of two; a stranger's lane is told by the last bits of its address, or of the first half
of one of IPv6: the other half whoever has that network draws at will (RFC 8981)."""
_WHOSE_6 = "ffff:ffff:ffff:ffff::"
_ANYBODY: Mapping[str, str | int] = MappingProxyType({})
LANE_KBPS, LANE_BURST_KBIT = 200, 400
"""What a lane lets through; a handshake is 1 to 5 kB."""
DOOR_KBPS, DOOR_BURST_KBIT = 800, 1600
"""What the strangers of a door together are let through: more than one lane can use up."""
SHOWN_PPS, SHOWN_BURST = 20, 20
ANSWERS_PPS, ANSWERS_BURST = 200, 50
ERRORS_PPS = 20
_SHOWN_BYTES = 192
"""As much of a packet as the controller gets: headers and an SRT handshake's fixed part."""
_UNREACHABLE = 3  # RFC 792
_ERRORS_6 = (1, 2)  # unreachable, packet too big: RFC 4443
_ASKED, _ANSWERED = 135, 136  # for neighbours: RFC 4861

MAX_DOORS = 4096
MAX_SOURCES = 65536
_METERS_A_DOOR = 16
_EXPECTED_METER, _DOOR_METER, _SHOWN_METER, _ANSWERS_METER = range(LANES, LANES + 4)
_ERRORS_METER = 1
_FIRST_SOURCE_METER = 1 << 17  # Open vSwitch's userspace datapath has numbers up to 1 << 18


class Kind(IntEnum):
    """What a rule is for; in its cookie, with the way."""

    OTHER = 0
    SESSION = 1
    EXPECTED = 2
    STRANGERS = 3
    CLOSED = 4
    NO_DOOR = 5
    INSIDE = 6


@dataclass(frozen=True, slots=True, order=True)
class Session:
    """Whose packets pass: sender's address and port, and the port that it sends to.

    ``source_port`` None: whatever port of that address.
    """

    way: Way
    source: Address
    source_port: int | None = None

    def __str__(self) -> str:
        port = "" if self.source_port is None else f":{self.source_port}"
        return f"{self.source}{port} to {self.way}"


@dataclass(frozen=True, slots=True)
class Door:
    """A port that producers send to.

    Attributes:
        number: of no other door; 0 to MAX_DOORS - 1.
        sessions: who passes, each with its producer's number, 0 to MAX_SOURCES - 1.
        open: strangers may knock.
        only: if there are any, strangers of these addresses alone.
        expected: addresses that somebody is known to come from: they have a meter apart.
        answers: what its listener answers is shown to the controller.
        by_6: producers come by IPv6, too.
    """

    way: Way
    number: int
    sessions: tuple[tuple[Session, int], ...] = ()
    open: bool = False
    only: frozenset[Address] = frozenset()
    expected: frozenset[Address] = frozenset()
    answers: bool = False
    by_6: bool = False

    @property
    def families(self) -> tuple[int, ...]:
        """The Ethernet types of what comes to it."""
        return (ETH_IPV4, ETH_IPV6) if self.by_6 else (ETH_IPV4,)


@dataclass(frozen=True, slots=True)
class Ends:
    """Addresses of the cable: this machine's, and that of what listens.

    ``outer_6``, ``inner_6``: of IPv6, first the one that others know; empty: it carries none.
    """

    outer: IPv4Address
    inner: IPv4Address
    outer_6: tuple[IPv6Address, ...] = ()
    inner_6: tuple[IPv6Address, ...] = ()


def ingress_tables(ends: Ends, doors: Collection[Door], rate_kbps: int) -> Tables:
    """Return what the switch shall hold; ``rate_kbps`` is what each producer may send at most."""
    rules, meters = [*_frame(ends)], [_packets(_ERRORS_METER, ERRORS_PPS, ERRORS_PPS)]
    sources = set[int]()
    for door in doors:
        rules += _sessions(door)
        rules += _strangers(door)
        rules += _answers(door)
        meters += _meters(door)
        sources |= {source for _, source in door.sessions}
    meters += (
        MeterSpec(_FIRST_SOURCE_METER + source, (MeterBand(rate_kbps, rate_kbps),))
        for source in sources
    )
    return Tables(frozenset(rules), frozenset(), frozenset(meters))


def _frame(ends: Ends) -> Iterator[Rule]:
    """The rules that are there whatever the doors are."""
    outer, inner = str(ends.outer), str(ends.inner)
    arp_in = Match(in_port=OUTSIDE, eth_type=ETH_ARP, arp_spa=outer, arp_tpa=inner)
    arp_out = Match(in_port=INSIDE, eth_type=ETH_ARP, arp_spa=inner, arp_tpa=outer)
    other = _cookie(Kind.OTHER)
    yield Rule(CLASSIFY, _ARP_PRIORITY, arp_in, (Output(INSIDE),), other)
    yield Rule(CLASSIFY, _ARP_PRIORITY, arp_out, (Output(OUTSIDE),), other)
    errors = Match(
        in_port=OUTSIDE,
        eth_type=ETH_IPV4,
        ip_proto=IP_ICMP,
        ipv4_dst=inner,
        icmpv4_type=_UNREACHABLE,
    )
    yield Rule(CLASSIFY, _ERRORS_PRIORITY, errors, (Output(INSIDE),), other, meter=_ERRORS_METER)
    into = Match(in_port=OUTSIDE, eth_type=ETH_IPV4, ipv4_dst=inner)
    out = Match(in_port=INSIDE, eth_type=ETH_IPV4, ipv4_src=inner)
    yield Rule(CLASSIFY, _IP_PRIORITY, into, (), other, goto_table=DOORS)
    yield Rule(CLASSIFY, _IP_PRIORITY, out, (), other, goto_table=ANSWERS)
    if ends.inner_6:
        yield from _frame_6(ends)
    for table, kind in (
        (CLASSIFY, Kind.OTHER),
        (DOORS, Kind.NO_DOOR),
        (STRANGERS, Kind.OTHER),
        (KNOCKS, Kind.OTHER),
        (ANSWERS, Kind.INSIDE),
        (SHOWN, Kind.OTHER),
    ):
        yield Rule(table, _REST_PRIORITY, Match(), (), _cookie(kind))


def _frame_6(ends: Ends) -> Iterator[Rule]:
    """The same for IPv6: neighbours are asked for by ICMPv6 (RFC 4861)."""
    other, inner = _cookie(Kind.OTHER), str(ends.inner_6[0])
    for theirs, asker, owner in (
        (ends.inner_6, OUTSIDE, INSIDE),
        (ends.outer_6, INSIDE, OUTSIDE),
    ):
        for address in map(str, theirs):
            for kind, from_, to in ((_ASKED, asker, owner), (_ANSWERED, owner, asker)):
                neighbours = _icmp_6(kind, in_port=from_, icmpv6_code=0, ipv6_nd_target=address)
                yield Rule(CLASSIFY, _ARP_PRIORITY, neighbours, (Output(to),), other)
    for kind in _ERRORS_6:
        errors = _icmp_6(kind, in_port=OUTSIDE, ipv6_dst=inner)
        yield Rule(
            CLASSIFY, _ERRORS_PRIORITY, errors, (Output(INSIDE),), other, meter=_ERRORS_METER
        )
    into = Match(in_port=OUTSIDE, eth_type=ETH_IPV6, ipv6_dst=inner)
    out = Match(in_port=INSIDE, eth_type=ETH_IPV6, ipv6_src=inner)
    yield Rule(CLASSIFY, _IP_PRIORITY, into, (), other, goto_table=DOORS)
    yield Rule(CLASSIFY, _IP_PRIORITY, out, (), other, goto_table=ANSWERS)


def _icmp_6(kind: int, **more: int | str) -> Match:
    return Match(eth_type=ETH_IPV6, ip_proto=IP_ICMPV6, icmpv6_type=kind, **more)  # type: ignore[arg-type]


def _sessions(door: Door) -> Iterator[Rule]:
    for session, source in door.sessions:
        port = {} if session.source_port is None else _source_port(door.way, session.source_port)
        match = _to(door.way, source={**_source(session.source), **port})
        yield Rule(
            DOORS,
            # One that is told more exactly goes first, so that each has its own counters.
            _SESSION_PRIORITY + bool(port),
            match,
            (Output(INSIDE),),
            _cookie(Kind.SESSION, door.way),
            meter=_FIRST_SOURCE_METER + source,
        )


def _strangers(door: Door) -> Iterator[Rule]:
    way = door.way
    for family in door.families:
        yield Rule(DOORS, _CLOSED_PRIORITY, _to(way, family), (), _cookie(Kind.CLOSED, way))
    knocks = _cookie(Kind.STRANGERS, way)
    expected = _cookie(Kind.EXPECTED, way)
    for match in {_to(way, source=_network(address)) for address in door.expected}:
        meter = _meter(door, _EXPECTED_METER)
        yield Rule(
            DOORS, _EXPECTED_PRIORITY, match, (Output(INSIDE),), expected, KNOCKS, meter=meter
        )
    if not door.open:
        if door.expected:
            yield from _shown(door)
        return
    if door.only:
        for address in door.only - door.expected:
            match = _to(way, source=_source(address))
            yield Rule(DOORS, _LANE_PRIORITY, match, (), knocks, STRANGERS, meter=_meter(door, 0))
    else:
        for lane, match in _lanes(door):
            yield Rule(
                DOORS, _LANE_PRIORITY, match, (), knocks, STRANGERS, meter=_meter(door, lane)
            )
    for family in door.families:
        yield Rule(
            STRANGERS,
            _LANE_PRIORITY,
            _to(way, family),
            (Output(INSIDE),),
            _cookie(Kind.OTHER, way),
            goto_table=KNOCKS,
            meter=_meter(door, _DOOR_METER),
        )
    yield from _shown(door)


def _lanes(door: Door) -> Iterator[tuple[int, Match]]:
    for lane in range(LANES):
        yield lane, _to(door.way, source={"ipv4_src": f"0.0.0.{lane}/0.0.0.{LANES - 1}"})
        if door.by_6:
            which = f"0:0:0:{lane}::/0:0:0:{LANES - 1}::"
            yield lane, _to(door.way, source={"ipv6_src": which})


def _source(address: Address) -> dict[str, str]:
    return {"ipv4_src" if address.version == 4 else "ipv6_src": str(address)}


def _network(address: Address) -> dict[str, str]:
    """Match whose address this is: of IPv6, by its first half."""
    if address.version == 4:
        return _source(address)
    first = IPv6Address(int(address) >> 64 << 64)
    return {"ipv6_src": f"{first}/{_WHOSE_6}"}


def _shown(door: Door) -> Iterator[Rule]:
    to_controller = (Output(PORT_CONTROLLER, _SHOWN_BYTES),)
    for family in door.families:
        yield Rule(
            KNOCKS,
            _LANE_PRIORITY,
            _to(door.way, family),
            to_controller,
            _cookie(Kind.OTHER, door.way),
            meter=_meter(door, _SHOWN_METER),
        )


def _answers(door: Door) -> Iterator[Rule]:
    cookie = _cookie(Kind.OTHER, door.way)
    goto = SHOWN if door.answers else None
    for family in door.families:
        match = _from(door.way, family)
        yield Rule(ANSWERS, _LANE_PRIORITY, match, (Output(OUTSIDE),), cookie, goto_table=goto)
        if door.answers:
            to_controller = (Output(PORT_CONTROLLER, _SHOWN_BYTES),)
            meter = _meter(door, _ANSWERS_METER)
            yield Rule(SHOWN, _LANE_PRIORITY, match, to_controller, cookie, meter=meter)


def _meters(door: Door) -> Iterator[MeterSpec]:
    lane_band = (MeterBand(LANE_KBPS, LANE_BURST_KBIT),)
    if door.expected:
        yield MeterSpec(_meter(door, _EXPECTED_METER), lane_band)
    if door.open:
        for lane in range(1 if door.only else LANES):
            yield MeterSpec(_meter(door, lane), lane_band)
        yield MeterSpec(_meter(door, _DOOR_METER), (MeterBand(DOOR_KBPS, DOOR_BURST_KBIT),))
    if door.open or door.expected:
        yield _packets(_meter(door, _SHOWN_METER), SHOWN_PPS, SHOWN_BURST)
    if door.answers:
        yield _packets(_meter(door, _ANSWERS_METER), ANSWERS_PPS, ANSWERS_BURST)


def _packets(number: int, rate: int, burst: int) -> MeterSpec:
    return MeterSpec(number, (MeterBand(rate, burst),), packets=True)


def _meter(door: Door, which: int) -> int:
    return _METERS_A_DOOR * (door.number + 1) + which


def _to(way: Way, family: int = ETH_IPV4, source: Mapping[str, str | int] = _ANYBODY) -> Match:
    port = "tcp_dst" if way.protocol is Protocol.TCP else "udp_dst"
    fields: dict[str, int | str] = {port: way.port, **source}
    family = ETH_IPV6 if "ipv6_src" in source else family
    return Match(eth_type=family, ip_proto=int(way.protocol), **fields)  # type: ignore[arg-type]


def _from(way: Way, family: int) -> Match:
    fields = _source_port(way, way.port)
    return Match(eth_type=family, ip_proto=int(way.protocol), **fields)  # type: ignore[arg-type]


def _source_port(way: Way, port: int) -> dict[str, int]:
    return {"tcp_src" if way.protocol is Protocol.TCP else "udp_src": port}


def _cookie(kind: Kind, way: Way | None = None) -> int:
    place = 0 if way is None else way.protocol << 16 | way.port
    return INTENT_COOKIE | kind << 32 | place


# what the switch tells


@dataclass(frozen=True, slots=True)
class Shown:
    """A packet that the switch has shown: of a stranger, or a listener's answer to ``session``."""

    session: Session
    answer: bool
    payload: bytes


def read(packet: PacketIn) -> Shown | None:
    """Return what a packet_in is about; None if it is no packet of a door."""
    headers = parse(packet.data)
    fields = headers.fields
    try:
        protocol = Protocol(fields["ip_proto"])
        name = protocol.name.lower()
        source, to = _ends_of(fields)
        port, to_port = fields[f"{name}_src"], fields[f"{name}_dst"]
    except (KeyError, ValueError):
        return None
    if packet.table_id == SHOWN:
        return Shown(Session(Way(protocol, port), to, to_port), True, headers.payload)
    if packet.table_id == KNOCKS:
        return Shown(Session(Way(protocol, to_port), source, port), False, headers.payload)
    return None


def _ends_of(fields: Mapping[str, int]) -> tuple[Address, Address]:
    if "ipv6_src" in fields:
        return IPv6Address(fields["ipv6_src"]), IPv6Address(fields["ipv6_dst"])
    return IPv4Address(fields["ipv4_src"]), IPv4Address(fields["ipv4_dst"])


@dataclass(slots=True)
class Count:
    """What came to a door, in packets and bytes since the rules were made.

    ``strangers`` is before, ``metered`` what their meters, or the producers' own, dropped.
    """

    passed: int = 0
    passed_bytes: int = 0
    strangers: int = 0
    dropped: int = 0
    metered: int = 0


@dataclass(frozen=True, slots=True)
class Counts:
    """What a switch has counted.

    Attributes:
        sessions: bytes of each.
        doors: by way.
        no_door: packets for ports that are no door.
        inside: packets that were kept from getting out.
    """

    sessions: dict[Session, int]
    doors: dict[Way, Count]
    no_door: int = 0
    inside: int = 0


def count(
    stats: Iterable[FlowStats], meters: Iterable[MeterStats], doors: Collection[Door]
) -> Counts:
    """Return what the counters of rules and meters say of these doors."""
    sessions = {session for door in doors for session, _ in door.sessions}
    counts = {door.way: Count() for door in doors}
    found: dict[Session, int] = {}
    rest = dict.fromkeys(Kind, 0)
    for entry in stats:
        kind, way = _meaning(entry.cookie)
        if kind is None or way not in counts:
            if kind is not None:
                rest[kind] += entry.packet_count
            continue
        count = counts[way]
        match kind:
            case Kind.SESSION:
                count.passed += entry.packet_count
                count.passed_bytes += entry.byte_count
                session = _session(way, entry.match)
                if session in sessions:
                    found[session] = entry.byte_count
            case Kind.STRANGERS | Kind.EXPECTED:
                count.strangers += entry.packet_count
            case Kind.CLOSED:
                count.dropped += entry.packet_count
            case _:
                pass
    owners = dict[int, Way]()
    for door in sorted(doors, key=lambda it: it.way):
        for number in _dropping(door):
            # A producer's doors share its meter, which counts at the first: media before RTCP.
            owners.setdefault(number, door.way)
    for meter in meters:
        if meter.meter_id in owners:
            counts[owners[meter.meter_id]].metered += sum(packets for packets, _ in meter.bands)
    return Counts(found, counts, rest[Kind.NO_DOOR], rest[Kind.INSIDE])


def _dropping(door: Door) -> Iterator[int]:
    """Return the meters that drop packets of a door; not those of what is shown."""
    yield from (_meter(door, which) for which in (*range(LANES), _EXPECTED_METER, _DOOR_METER))
    yield from (_FIRST_SOURCE_METER + source for _, source in door.sessions)


def _meaning(cookie: int) -> tuple[Kind | None, Way | None]:
    if cookie & (0xFF << 56) != INTENT_COOKIE:
        return None, None
    try:
        kind = Kind(cookie >> 32 & 0xFFFF)
        place = cookie & 0xFFFFFFFF
        return kind, Way(Protocol(place >> 16), place & 0xFFFF) if place else None
    except ValueError:
        return None, None


def _session(way: Way, match: Match) -> Session:
    port = match.tcp_src if way.protocol is Protocol.TCP else match.udp_src
    return Session(way, ip_address(match.ipv4_src or match.ipv6_src or "0.0.0.0"), port)
