"""The ingress' tables, with the soft switch as the oracle: who gets through, how much of it."""

import struct
from ipaddress import IPv4Address, IPv6Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from anabranch.fabric import frames
from anabranch.fabric.ingress import (
    DOOR_BURST_KBIT,
    DOOR_KBPS,
    INSIDE,
    KNOCKS,
    LANE_BURST_KBIT,
    LANE_KBPS,
    LANES,
    OUTSIDE,
    SHOWN,
    Door,
    Ends,
    Session,
    Shown,
    count,
    ingress_tables,
    read,
)
from anabranch.fabric.openflow.messages import (
    FlowStats,
    MeterStats,
    MultipartRequest,
    MultipartType,
    PacketIn,
)
from anabranch.fabric.openflow.oxm import ETH_IPV6, IP_UDP, Match
from anabranch.fabric.softswitch.statistics import answer as answer_to
from anabranch.fabric.softswitch.switch import SoftSwitch
from anabranch.fabric.tables import check
from anabranch.host.gateway import Protocol, Way

ENDS = Ends(IPv4Address("10.97.0.253"), IPv4Address("10.97.0.254"))
STUDIO, STRANGER = "192.0.2.10", "198.51.100.7"
SRT, RTMP = Way(Protocol.UDP, 9000), Way(Protocol.TCP, 1935)
OUTER_MAC, INNER_MAC = "02:00:00:00:00:01", "02:00:00:00:00:02"
RATE_KBPS = 20_000


def switch_with(*doors: Door) -> SoftSwitch:
    tables = ingress_tables(ENDS, doors, RATE_KBPS)
    check(tables)
    switch = SoftSwitch(1, [OUTSIDE, INSIDE])
    switch.load(tables, 0.0)
    return switch


def udp(source: str, port: int, to_port: int = SRT.port, data: bytes = b"x" * 60) -> bytes:
    to = str(ENDS.inner)
    return frames.ipv4_udp(OUTER_MAC, INNER_MAC, source, to, port, to_port, data)


def answer(to: str, port: int, from_port: int = SRT.port, data: bytes = b"y" * 60) -> bytes:
    return frames.ipv4_udp(INNER_MAC, OUTER_MAC, str(ENDS.inner), to, from_port, port, data)


def gets_in(switch: SoftSwitch, frame: bytes, now: float = 1.0) -> bool:
    left = switch.process(OUTSIDE, frame, now)
    assert all((out.port_no, out.frame) == (INSIDE, frame) for out in left)
    return bool(left)


def packet_ins(switch: SoftSwitch) -> list[PacketIn]:
    return [news for news in switch.news() if isinstance(news, PacketIn)]


def passing(*ports: int | None, way: Way = SRT, number: int = 0) -> Door:
    sessions = tuple((Session(way, IPv4Address(STUDIO), port), 3) for port in ports)
    return Door(way, number, sessions)


def test_only_the_known_session_passes_a_door_that_waits_for_nobody() -> None:
    switch = switch_with(passing(5000))
    assert gets_in(switch, udp(STUDIO, 5000))
    assert not gets_in(switch, udp(STUDIO, 5001))  # a forged source address, another port
    assert not gets_in(switch, udp(STRANGER, 5000))
    assert not gets_in(switch, udp(STUDIO, 5000, SRT.port + 1))
    assert packet_ins(switch) == []


def test_a_session_without_a_port_is_any_of_its_address() -> None:
    switch = switch_with(passing(None))
    assert gets_in(switch, udp(STUDIO, 5000))
    assert gets_in(switch, udp(STUDIO, 5001))
    assert not gets_in(switch, udp(STRANGER, 5000))


def test_whoever_floods_closes_one_lane_and_no_more_than_the_door_is_let_through() -> None:
    switch = switch_with(Door(SRT, 0, open=True))
    flood, caller = udp("203.0.113.1", 4000, data=b"x" * 1000), udp("203.0.113.2", 4000)
    passed = 0
    for n in range(10_000):
        passed += gets_in(switch, flood, 1.0 + n / 1000)
        assert n % 100 or gets_in(switch, caller, 1.0 + n / 1000)
    assert passed * len(flood) * 8 <= (10 * LANE_KBPS + LANE_BURST_KBIT) * 1000
    everybody = [udp(f"203.0.113.{n}", 4000, data=b"x" * 1000) for n in range(LANES)]
    passed = sum(gets_in(switch, each, 11.0 + n / 1000) for n in range(2000) for each in everybody)
    assert passed * len(flood) * 8 <= (2 * DOOR_KBPS + DOOR_BURST_KBIT) * 1000


ENDS_6 = Ends(
    *(ENDS.outer, ENDS.inner),
    (IPv6Address("fd56::2"), IPv6Address("fe80::2")),
    (IPv6Address("fd56::3"), IPv6Address("fe80::3")),
)
WHIP = Way(Protocol.UDP, 8189)
STUDIO_6 = IPv6Address("2001:db8:0:1::10")


def switch_6(*doors: Door) -> SoftSwitch:
    tables = ingress_tables(ENDS_6, doors, RATE_KBPS)
    check(tables)
    switch = SoftSwitch(1, [OUTSIDE, INSIDE])
    switch.load(tables, 0.0)
    return switch


def udp_6(source: IPv6Address | str, port: int, to: str = "fd56::3", size: int = 60) -> bytes:
    datagram = frames.udp(str(source), to, port, WHIP.port, b"x" * size)
    packet = frames.ipv6(str(source), to, IP_UDP, datagram)
    return frames.ethernet(INNER_MAC, OUTER_MAC, ETH_IPV6, packet)


def test_by_ipv6_a_session_passes_and_only_a_door_that_says_so_has_any() -> None:
    session = (Session(WHIP, STUDIO_6, 5000), 3)
    switch = switch_6(Door(WHIP, 0, (session,), by_6=True))
    assert gets_in(switch, udp_6(STUDIO_6, 5000))
    assert not gets_in(switch, udp_6(STUDIO_6, 5001))
    assert not gets_in(switch, udp_6("2001:db8:0:1::11", 5000))
    assert not gets_in(switch, udp_6(STUDIO_6, 5000, to="fe80::3"))  # past the forwarding
    out = frames.udp("fd56::3", str(STUDIO_6), WHIP.port, 5000, b"y")
    answered = frames.ethernet(
        OUTER_MAC, INNER_MAC, ETH_IPV6, frames.ipv6("fd56::3", str(STUDIO_6), IP_UDP, out)
    )
    assert [left.port_no for left in switch.process(INSIDE, answered, 1.0)] == [OUTSIDE]
    only_4 = switch_6(Door(WHIP, 0, open=True))
    assert not gets_in(only_4, udp_6(STUDIO_6, 5000))
    assert not gets_in(switch_with(Door(WHIP, 0, open=True, by_6=True)), udp_6(STUDIO_6, 5000))


def test_by_ipv6_whoever_has_a_network_has_one_lane_however_many_addresses() -> None:
    switch = switch_6(Door(WHIP, 0, open=True, by_6=True))
    passed = sum(
        gets_in(switch, udp_6(f"2001:db8:0:1::{n:x}", 4000, size=1000), 1.0) for n in range(500)
    )
    assert passed * 1062 * 8 <= LANE_BURST_KBIT * 1000
    assert gets_in(switch, udp_6("2001:db8:0:2::1", 4000), 1.0)  # another lane
    shown = read(packet_ins(switch)[0])
    assert shown is not None
    assert (shown.session.way, shown.session.source.version) == (WHIP, 6)


def test_by_ipv6_who_is_expected_is_known_by_the_network() -> None:
    expected = frozenset({STUDIO_6, IPv6Address("2001:db8:0:1::99")})
    switch = switch_6(Door(WHIP, 0, open=True, expected=expected, by_6=True))
    for n in range(500):
        switch.process(OUTSIDE, udp_6(f"2001:db8:0:9::{n:x}", 4000, size=1000), 1.0)  # same bits
    assert gets_in(switch, udp_6("2001:db8:0:1::77", 4000), 1.0)


def test_neighbours_at_the_ends_of_the_cable_find_each_other_and_nobody_else() -> None:
    def solicitation(of: str, source: str) -> bytes:
        to = "ff02::1:ff00:3"
        message = struct.pack("!BBHI", 135, 0, 0, 0) + IPv6Address(of).packed
        return frames.ethernet(
            "33:33:ff:00:00:03", OUTER_MAC, ETH_IPV6, frames.ipv6(source, to, 58, message, 255)
        )

    switch = switch_6()
    for of in ("fd56::3", "fe80::3"):
        assert gets_in(switch, solicitation(of, "fe80::2"))
    assert not gets_in(switch, solicitation("fd56::9", "fe80::2"))
    (left,) = switch.process(INSIDE, solicitation("fd56::2", "fe80::3"), 1.0)
    assert left.port_no == OUTSIDE


def test_a_flood_of_all_lanes_harms_no_session_and_no_other_door() -> None:
    other = Way(Protocol.UDP, 9001)
    sound = (Session(SRT, IPv4Address(STUDIO), 5000), 3)
    switch = switch_with(Door(SRT, 0, (sound,), open=True), Door(other, 1, open=True))
    for n in range(4000):
        switch.process(OUTSIDE, udp(f"198.51.{n // 250}.{n % 250}", n + 1), 1.0)
    assert gets_in(switch, udp(STUDIO, 5000))
    assert gets_in(switch, udp(STRANGER, 5000, other.port))
    assert len(packet_ins(switch)) <= 2 * 20


def test_a_registered_address_alone_may_knock() -> None:
    switch = switch_with(Door(SRT, 0, open=True, only=frozenset({IPv4Address(STUDIO)})))
    assert gets_in(switch, udp(STUDIO, 5000))
    assert not gets_in(switch, udp(STRANGER, 5000))


def test_an_expected_address_has_a_meter_apart() -> None:
    switch = switch_with(Door(SRT, 0, open=True, expected=frozenset({IPv4Address(STUDIO)})))
    for n in range(4000):
        switch.process(OUTSIDE, udp(f"198.51.{n // 250}.{n % 250}", n + 1), 1.0)
    assert gets_in(switch, udp(STUDIO, 5000))


def test_a_producer_is_held_to_its_rate() -> None:
    switch = switch_with(passing(5000))
    frame = udp(STUDIO, 5000, data=b"x" * 1400)
    passed = sum(gets_in(switch, frame, 1.0 + n / 10_000) for n in range(20_000))  # 115 Mbit/s
    assert passed * len(frame) * 8 <= 3 * RATE_KBPS * 1000  # two seconds, and the bucket
    assert passed * len(frame) * 8 >= 2 * RATE_KBPS * 1000


def test_from_inside_only_the_doors_answer() -> None:
    switch = switch_with(passing(5000), Door(RTMP, 1, open=True))
    frame = answer(STUDIO, 5000)
    (out,) = switch.process(INSIDE, frame, 1.0)
    assert (out.port_no, out.frame) == (OUTSIDE, frame)
    assert switch.process(INSIDE, answer(STUDIO, 53, from_port=40_000), 1.0) == []
    forged = frames.ipv4_udp(INNER_MAC, OUTER_MAC, "10.98.0.1", STUDIO, SRT.port, 5000, b"z")
    assert switch.process(INSIDE, forged, 1.0) == []


def test_arp_is_answered_for_the_ends_of_the_cable_alone() -> None:
    switch = switch_with()
    outer, inner = str(ENDS.outer), str(ENDS.inner)
    assert gets_in(switch, frames.arp_request(OUTER_MAC, outer, inner))
    assert not gets_in(switch, frames.arp_request(OUTER_MAC, "10.97.0.1", inner))
    assert len(switch.process(INSIDE, frames.arp_request(INNER_MAC, inner, outer), 1.0)) == 1
    assert switch.process(INSIDE, frames.arp_request(INNER_MAC, STUDIO, outer), 1.0) == []


def test_strangers_and_a_listeners_answers_are_shown() -> None:
    switch = switch_with(Door(SRT, 0, open=True, answers=True))
    switch.process(OUTSIDE, udp(STRANGER, 4000, data=b"hello"), 1.0)
    switch.process(INSIDE, answer(STRANGER, 4000, data=b"welcome"), 1.0)
    session = Session(SRT, IPv4Address(STRANGER), 4000)
    assert [read(each) for each in packet_ins(switch)] == [
        Shown(session, False, b"hello"),
        Shown(session, True, b"welcome"),
    ]


@given(st.binary(max_size=200), st.sampled_from([KNOCKS, SHOWN, 0]))
def test_whatever_is_shown_is_read_or_passed_over(data: bytes, table: int) -> None:
    read(PacketIn(0xFFFFFFFF, len(data), 1, table, 0, Match(in_port=1), data))


@given(st.integers(0, 60))
def test_a_cut_packet_is_read_or_passed_over(length: int) -> None:
    whole = udp(STRANGER, 4000)
    read(PacketIn(0xFFFFFFFF, len(whole), 1, KNOCKS, 0, Match(in_port=1), whole[:length]))


def test_a_fragment_is_no_knock() -> None:
    whole = bytearray(udp(STRANGER, 4000))
    struct.pack_into("!H", whole, 14 + 6, 1)  # its offset: there are no ports in it
    found = read(PacketIn(0xFFFFFFFF, len(whole), 1, KNOCKS, 0, Match(in_port=1), bytes(whole)))
    assert found is None


def stats_of(switch: SoftSwitch) -> tuple[list[FlowStats], list[MeterStats]]:
    flows = answer_to(switch, MultipartRequest(MultipartType.FLOW), 1.0)
    meters = answer_to(switch, MultipartRequest(MultipartType.METER_STATS), 1.0)
    return (
        [entry for entry in flows if isinstance(entry, FlowStats)],
        [entry for entry in meters if isinstance(entry, MeterStats)],
    )


def test_everything_is_counted_where_it_belongs() -> None:
    doors = [passing(5000), Door(RTMP, 1, open=True)]
    switch = switch_with(*doors)
    for _ in range(3):
        switch.process(OUTSIDE, udp(STUDIO, 5000), 1.0)
    switch.process(OUTSIDE, udp(STRANGER, 5000), 1.0)
    switch.process(OUTSIDE, udp(STRANGER, 5000, 7), 1.0)
    switch.process(INSIDE, answer(STRANGER, 7, from_port=8), 1.0)
    for _ in range(1000):
        to = str(ENDS.inner)
        segment = frames.tcp(STRANGER, to, 4000, RTMP.port, b"x" * 1000)
        packet = frames.ipv4(STRANGER, to, 6, segment)
        knock = frames.ethernet(INNER_MAC, OUTER_MAC, 0x0800, packet)
        switch.process(OUTSIDE, knock, 1.0)
    counts = count(*stats_of(switch), doors)
    session, _ = doors[0].sessions[0]
    assert counts.sessions == {session: 3 * len(udp(STUDIO, 5000))}
    assert counts.doors[SRT].passed == 3
    assert counts.doors[SRT].dropped == counts.no_door == counts.inside == 1
    assert counts.doors[RTMP].strangers == 1000
    assert 900 < counts.doors[RTMP].metered < 1000


def test_what_a_producers_meter_drops_counts_at_its_first_door() -> None:
    media = passing(5000)
    reports = passing(None, way=Way(Protocol.UDP, SRT.port + 1), number=1)
    switch = switch_with(media, reports)
    for _ in range(5000):
        switch.process(OUTSIDE, udp(STUDIO, 5000, data=b"x" * 1200), 1.0)
    counts = count(*stats_of(switch), [media, reports])
    assert counts.doors[SRT].metered > 1000
    assert counts.doors[reports.way].metered == 0


def test_numbers_do_not_collide() -> None:
    ways = [Way(protocol, port) for protocol in Protocol for port in (1, 1935, 65535)]
    sessions = [(Session(way, IPv4Address(STUDIO), 5000), n) for n, way in enumerate(ways)]
    doors = [
        Door(way, n, (sessions[n],), True, frozenset(), frozenset({IPv4Address(STUDIO)}), True)
        for n, way in enumerate(ways)
    ]
    tables = ingress_tables(ENDS, doors, RATE_KBPS)
    check(tables)
    assert len(tables.meters) == 1 + len(ways) * (1 + LANES + 4)
    assert all(meter.meter_id < 1 << 18 for meter in tables.meters)


@pytest.mark.parametrize("number", [0, 4095])
def test_a_doors_meters_are_its_own(number: int) -> None:
    tables = ingress_tables(ENDS, [Door(SRT, number, open=True)], RATE_KBPS)
    assert all(1 <= meter.meter_id < 1 << 17 for meter in tables.meters)
