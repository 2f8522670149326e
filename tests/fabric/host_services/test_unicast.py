"""ICMP, or any unicast, on a line of soft switches: rules that come when needed and go again."""

from dataclasses import replace

import pytest
from tests.fabric.host_services.line import (
    A_AT,
    A_IP,
    B_AT,
    B_IP,
    C_AT,
    C_IP,
    EVERYBODY,
    FREE_AT,
    HOST_A,
    HOST_B,
    HOST_C,
    S12,
    S23,
    SETTINGS,
    A,
    B,
    C,
    ping,
)
from tests.fabric.host_services.soft_line import SoftLine

from anabranch.fabric import frames
from anabranch.fabric.host_services import Settings, Unicast
from anabranch.fabric.host_services.paths import SETTLE
from anabranch.fabric.model import Host, Link, LinkInfo, PortRef
from anabranch.fabric.moves import PROBE_MAC, probe_frame
from anabranch.fabric.openflow.oxm import Match
from anabranch.fabric.pipeline import FROM_LINK, ORIGIN_MASK

THERE, BACK = (
    Match(eth_src=source, eth_dst=target, eth_type=0x0800, ip_proto=1)
    for source, target in ((A, B), (B, A))
)
PING, PONG = ping(A, B), ping(B, A, B_IP, A_IP)
TCP = frames.ethernet(
    B, A, 0x0800, frames.ipv4(A_IP, B_IP, 6, frames.tcp(A_IP, B_IP, 40000, 80, b"x"))
)
ANY = replace(SETTINGS, unicast=Unicast.ANY)
DOWN = LinkInfo(up=False)
D = "02:00:00:00:00:04"
ARRIVAL = A_AT.switch, A_AT.port_no, PING


def everybody(settings=SETTINGS) -> SoftLine:
    return SoftLine(HOST_A, HOST_B, HOST_C, settings=settings)


def by_link(match: Match) -> Match:
    return replace(match, metadata=(FROM_LINK, ORIGIN_MASK))


def test_the_first_packet_makes_the_way_there_and_back():
    line = everybody()
    assert line.send(A_AT, PING) == {B_AT: [PING]}
    assert line.reactive() == {
        "s1": {(replace(THERE, in_port=1), 9), (by_link(BACK), 1)},
        "s2": {(by_link(THERE), 9), (by_link(BACK), 8)},
        "s3": {(by_link(THERE), 1), (replace(BACK, in_port=1), 8)},
    }
    assert line.send(B_AT, PONG) == {A_AT: [PONG]}
    assert line.send(A_AT, PING) == {B_AT: [PING]}
    assert line.asked == [A_AT]
    assert line.services.counters == {"unicast_connected": 1}


def test_rules_end_when_nobody_uses_them_and_come_back():
    line = everybody()
    line.send(A_AT, PING)
    for _ in range(3):
        line.wait(9)
        line.send(A_AT, PING)
        line.send(B_AT, PONG)
    assert line.asked == [A_AT]
    line.wait(10.1)
    assert line.reactive() == {"s1": set(), "s2": set(), "s3": set()}
    assert line.send(B_AT, PONG) == {A_AT: [PONG]}
    assert line.asked == [A_AT, B_AT]
    assert line.services.invalidate(replace(line.network, links={})) != []  # the new ones only


def test_an_idle_path_is_forgotten():
    line = everybody()
    line.send(A_AT, PING)
    line.wait(11)
    assert line.services.invalidate(replace(line.network, hosts={})) == []


def test_hosts_of_one_switch():
    line = everybody()
    line.send(FREE_AT, frames.arp_request("02:00:00:00:00:77", "10.0.0.77", B_IP))
    packet = ping("02:00:00:00:00:77", B)
    assert line.send(FREE_AT, packet) == {B_AT: [packet]}
    assert {name for name, rules in line.reactive().items() if rules} == {"s3"}


def test_a_sender_not_known_yet_is_known_afterwards():
    line = SoftLine(HOST_B)
    assert line.send(A_AT, PING) == {B_AT: [PING]}
    assert line.network.hosts[A].at == A_AT
    assert line.send(B_AT, PONG) == {A_AT: [PONG]}


@pytest.mark.parametrize(
    ("frame", "why"),
    [
        (ping(A, "01:00:5e:00:00:01"), "ignored"),
        (ping(A, frames.BROADCAST), "ignored"),
        (ping(A, A), "ignored"),
        (ping("03:00:00:00:00:01", B), "refused"),
    ],
)
def test_what_goes_nowhere(frame, why):
    line = everybody()
    assert line.send(A_AT, frame) == {}
    assert not any(line.reactive().values())
    assert line.services.counters == {f"unicast_{why}": 1}


def test_a_host_that_has_said_nothing_yet_is_asked_for_and_answers():
    """It alone is asked, once in a second; what was for it meanwhile is lost."""
    line = SoftLine(HOST_A)
    sent = line.send(A_AT, PING)
    assert A_AT not in sent
    assert {frame for heard in sent.values() for frame in heard} == {probe_frame(B, B_IP)}
    assert B_AT in sent
    assert line.send(A_AT, PING) == {}
    assert line.send(B_AT, frames.arp_reply(B, B_IP, PROBE_MAC, "0.0.0.0")) == {}
    assert line.send(A_AT, PING) == {B_AT: [PING]}
    assert line.services.counters["host_sought"] == 1


def test_a_flood_for_unknown_hosts_asks_little():
    line = SoftLine(HOST_A, settings=replace(SETTINGS, edge=frozenset({A_AT, B_AT})))
    for number in range(1000):
        line.send(A_AT, ping(A, f"02:00:00:01:{number >> 8:02x}:{number & 255:02x}"))
    assert line.services.counters["host_sought"] == 20
    silent = SoftLine(HOST_A, settings=replace(SETTINGS, ask_unknown=False))
    assert silent.send(A_AT, PING) == {}


def test_a_vms_address_is_not_believed_elsewhere():
    line = SoftLine(HOST_A, HOST_B, replace(HOST_C, vm=True))
    assert line.send(A_AT, ping(C, B)) == {}
    assert line.services.counters == {"unicast_refused": 1}


def test_no_way_no_rule():
    line = everybody()
    line.change({S23: DOWN, S23.reverse: DOWN})
    assert line.send(A_AT, PING) == {}
    assert not any(line.reactive().values())
    assert line.services.counters == {"unicast_unreachable": 1}


def test_a_broken_link_takes_its_rules_along_and_no_others():
    line = everybody()
    line.send(A_AT, PING)
    line.send(A_AT, ping(A, C))
    line.change({S23: DOWN, S23.reverse: DOWN})
    left = line.reactive()
    assert {match.eth_dst for rules in left.values() for match, _ in rules} == {A, C}
    assert left["s3"] == set()
    assert line.send(A_AT, PING) == {}
    line.change({S23: LinkInfo(), S23.reverse: LinkInfo()})
    assert line.send(A_AT, PING) == {B_AT: [PING]}


def test_a_path_stays_on_a_link_of_last_resort_while_there_is_no_better_way():
    line = everybody()
    line.send(A_AT, PING)
    before = line.reactive()
    doubtful = LinkInfo(up=False, last_resort=True)
    line.change({S23: doubtful, S23.reverse: doubtful})
    assert line.reactive() == before
    direct = Link(PortRef("s1", 7), PortRef("s3", 7))
    line.change({direct: LinkInfo(), direct.reverse: LinkInfo()})
    assert not any(line.reactive().values())


def test_who_sends_in_anothers_name_gets_no_path():
    line = everybody()
    assert line.send(FREE_AT, PONG) == {}
    assert line.services.counters["unicast_moving"] == 1
    assert not any(line.reactive().values())


@pytest.mark.parametrize("settings", [Settings(), Settings(unicast=Unicast.ANY)])
@pytest.mark.parametrize("at", [PortRef("s1", 2), PortRef("s2", 2), FREE_AT])
def test_nobody_on_the_way_uses_a_path_in_its_sources_name(settings, at):
    line = everybody(settings)
    assert line.send(A_AT, PING) == {B_AT: [PING]}
    assert line.send(at, PING) == {}
    assert line.asked == [A_AT, at]
    assert line.services.counters["unicast_moving"] == 1


def test_hosts_of_one_switch_cannot_send_in_each_others_names():
    line = SoftLine(HOST_B, Host(D, FREE_AT))
    assert line.send(FREE_AT, ping(D, B)) == {B_AT: [ping(D, B)]}
    assert line.send(B_AT, ping(D, B)) == {}
    assert line.send(PortRef("s2", 2), ping(D, B)) == {}


def test_a_host_that_moves_on_its_switch_leaves_no_rule_at_its_old_port():
    line = everybody()
    line.send(A_AT, PING)
    beside = PortRef("s1", 2)
    line.network = replace(EVERYBODY, hosts={B: HOST_B, A: replace(HOST_A, at=beside)})
    assert line.send(beside, PING) == {B_AT: [PING]}, "before the change has been settled"
    line.settle()
    assert line.send(beside, PING) == {B_AT: [PING]}
    assert line.asked == [A_AT, beside], "the old rule's end is not the new path's"
    assert {match.in_port for match, _ in line.reactive()["s1"]} == {2, None}
    line.network = replace(line.network, links={})
    line.settle()
    assert not any(line.reactive().values())


def test_a_path_follows_a_host_that_moves():
    line = everybody()
    line.send(A_AT, PING)
    line.send(FREE_AT, frames.arp_request(B, B_IP, B_IP))  # it announces itself there
    assert line.send(A_AT, PING) == {FREE_AT: [PING]}
    pong = line.send(FREE_AT, PONG)
    assert pong == {A_AT: [PONG]}


def test_a_host_that_moves_in_silence_and_speaks_first():
    line = everybody()
    line.send(A_AT, PING)
    line.wait(1)
    line.send(PortRef("s2", 2), ping(B, C, B_IP, C_IP))
    assert line.network.hosts[B].at == PortRef("s2", 2)
    assert line.send(A_AT, PING) == {PortRef("s2", 2): [PING]}


def test_a_rule_lost_at_an_inner_switch_is_mended():
    line = everybody()
    line.send(A_AT, PING)
    line._remove("s2", THERE)
    line._remove("s2", BACK)
    assert line.send(A_AT, PING) == {B_AT: [PING]}
    assert line.asked == [A_AT, PortRef("s2", 8)]
    assert line.reactive()["s2"] == {(by_link(THERE), 9)}
    assert line.send(B_AT, PONG) == {A_AT: [PONG]}
    assert line.reactive()["s2"] == {(by_link(THERE), 9), (by_link(BACK), 8)}
    line.change({S12: DOWN})
    assert not any(match.eth_dst == B for rules in line.reactive().values() for match, _ in rules)


def test_packets_that_overtook_the_rules_make_no_second_ones():
    line = everybody()
    first = line.services.packet_in(*ARRIVAL, line.network, line.now)
    again = line.services.packet_in(*ARRIVAL, line.network, line.now + SETTLE / 2)
    later = line.services.packet_in(*ARRIVAL, line.network, line.now + SETTLE * 2)
    assert again == first[-1:]
    assert later == first


def test_rules_come_downstream_first_and_the_packet_last():
    line = everybody()
    acts = line.services.packet_in(*ARRIVAL, line.network, line.now)
    assert [act.switch for act in acts] == ["s3", "s2", "s1", "s3"]
    assert acts[-1].data == PING


def test_only_icmp_unless_any_is_wanted():
    line = everybody()
    assert line.send(A_AT, TCP) == {}
    line.send(A_AT, PING)
    assert line.send(A_AT, TCP) == {}
    assert line.asked == [A_AT]  # nothing but ICMP ever comes to the controller
    assert line.services.counters == {"unicast_connected": 1}


def test_any_unicast():
    line = everybody(ANY)
    assert line.send(A_AT, TCP) == {B_AT: [TCP]}
    assert line.send(B_AT, PONG) == {A_AT: [PONG]}
    assert line.asked == [A_AT]
    assert line.reactive()["s2"] == {
        (by_link(Match(eth_src=A, eth_dst=B, eth_type=0x0800)), 9),
        (by_link(Match(eth_src=B, eth_dst=A, eth_type=0x0800)), 8),
    }


def test_none():
    line = everybody(replace(SETTINGS, unicast=Unicast.NONE))
    assert line.send(A_AT, PING) == {}
    assert line.asked == []


def test_the_number_of_paths_is_bounded(monkeypatch):
    monkeypatch.setattr("anabranch.fabric.host_services.paths.MAX_PATHS", 2)
    line = everybody()
    line.send(A_AT, PING)
    line.send(A_AT, ping(A, C))
    left = {match.eth_dst for rules in line.reactive().values() for match, _ in rules}
    assert left == {A, C}
    assert {match.eth_src for rules in line.reactive().values() for match, _ in rules} == {A, C}
    assert line.send(A_AT, PING) == {B_AT: [PING]}
    assert C_AT not in line.send(A_AT, PING)
