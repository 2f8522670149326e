"""DHCP on a line of soft switches: the server is at s1:2, and nobody else ever hears of it."""

from dataclasses import replace

import pytest
from tests.fabric.host_services.line import (
    B_AT,
    B_IP,
    C_AT,
    FREE_AT,
    HOST_A,
    HOST_B,
    HOST_SERVER,
    SERVER,
    SERVER_AT,
    SERVER_IP,
    SETTINGS,
    A,
    B,
    Dhcp,
)
from tests.fabric.host_services.soft_line import SoftLine

from anabranch.fabric import frames
from anabranch.fabric.model import Host, PortRef
from anabranch.fabric.openflow.oxm import Match

DISCOVER, REQUEST = Dhcp(1, B).from_client(), Dhcp(3, B).from_client()
OFFER, ACK = (Dhcp(kind, B, op=2, yiaddr=B_IP).from_server() for kind in (2, 5))
RENEWAL = Dhcp(3, B, ciaddr=B_IP).from_client(None, SERVER, B_IP, SERVER_IP)
RENEWED = frames.ipv4_udp(
    B, SERVER, SERVER_IP, B_IP, 67, 68, Dhcp(5, B, op=2, ciaddr=B_IP, yiaddr=B_IP).message()
)


def leased(**settings) -> SoftLine:
    line = SoftLine(settings=replace(SETTINGS, **settings))
    assert line.send(B_AT, DISCOVER) == {SERVER_AT: [DISCOVER]}
    assert line.send(SERVER_AT, OFFER) == {B_AT: [OFFER]}
    assert line.send(B_AT, REQUEST) == {SERVER_AT: [REQUEST]}
    assert line.send(SERVER_AT, ACK) == {B_AT: [ACK]}
    return line


def test_a_lease_is_seen_by_client_and_server_alone_and_teaches_both_addresses():
    line = leased()
    assert dict(line.network.hosts) == {
        B: Host(B, B_AT, B_IP),
        SERVER: Host(SERVER, SERVER_AT, SERVER_IP),
    }
    assert not any(line.reactive().values())
    assert line.services.counters == {"dhcp_relayed": 2, "dhcp_answered": 2}


def test_answers_to_the_clients_own_address():
    """A client that does not ask for broadcasts gets these."""
    line = SoftLine()
    line.send(B_AT, DISCOVER)
    offer = Dhcp(2, B, op=2, yiaddr=B_IP).from_server(B)
    assert line.send(SERVER_AT, offer) == {B_AT: [offer]}


def test_the_first_renewal_makes_rules_and_the_next_needs_nobody():
    line = leased()
    asked = len(line.asked)
    assert line.send(B_AT, RENEWAL) == {SERVER_AT: [RENEWAL]}
    assert line.send(SERVER_AT, RENEWED) == {B_AT: [RENEWED]}
    line.wait(5)
    assert line.send(B_AT, RENEWAL) == {SERVER_AT: [RENEWAL]}
    assert line.send(SERVER_AT, RENEWED) == {B_AT: [RENEWED]}
    assert len(line.asked) == asked + 1
    (there, port_no), (back, _) = sorted(
        line.reactive()["s3"], key=lambda rule: rule[0].eth_src != B
    )
    assert port_no == 8
    assert (there.udp_src, there.udp_dst, there.ipv4_src) == (68, 67, B_IP)
    assert (back.udp_src, back.udp_dst, back.ipv4_dst) == (67, 68, B_IP)
    line.wait(11)
    assert not any(line.reactive().values())


def test_a_renewal_of_another_address_makes_no_rule():
    line = leased()
    other = Dhcp(3, B).from_client(None, SERVER, "10.0.0.77", SERVER_IP)
    assert line.send(B_AT, other) == {SERVER_AT: [other]}
    assert not any(line.reactive().values())


def test_a_renewal_whose_rule_is_lost_at_an_inner_switch_still_arrives():
    line = leased()
    line.send(B_AT, RENEWAL)
    line._remove("s2", Match(eth_src=B))
    assert line.send(B_AT, RENEWAL) == {SERVER_AT: [RENEWAL]}
    assert line.asked[-1] == PortRef("s2", 9)


def test_rules_for_any_unicast_let_no_lease_pass_unseen():
    line = leased(unicast="any")
    line.send(B_AT, frames.icmp_echo(SERVER, B, B_IP, SERVER_IP))
    assert any(line.reactive().values())
    other = "10.0.0.55"
    unicast = replace(Dhcp(5, B, op=2), yiaddr=other).from_server(B)
    assert line.send(SERVER_AT, unicast) == {B_AT: [unicast]}
    assert line.network.hosts[B].ipv4 == other


@pytest.mark.parametrize("eth_dst", [frames.BROADCAST, B])
@pytest.mark.parametrize("at", [C_AT, FREE_AT, PortRef("s1", 1)])
def test_a_rogue_server_is_not_heard(at, eth_dst):
    """Its answers end at its own switch and cost the controller nothing."""
    line = SoftLine()
    line.send(B_AT, DISCOVER)
    asked = list(line.asked)
    rogue = Dhcp(2, B, op=2, yiaddr="10.9.9.9").from_server(eth_dst, "02:00:00:00:00:66")
    assert line.send(at, rogue) == {}
    assert line.asked == asked
    acts = line.services.packet_in(at.switch, at.port_no, rogue, line.network, line.now)
    assert acts == []  # even if a switch let it through
    assert line.services.counters["dhcp_rogue"] == 1


def test_a_server_port_asks_nobody():
    line = SoftLine()
    assert line.send(SERVER_AT, Dhcp(1, SERVER).from_client()) == {}


def test_without_a_server_nothing_moves():
    line = SoftLine(settings=replace(SETTINGS, dhcp_server=None))
    assert line.send(B_AT, DISCOVER) == {}
    assert line.send(SERVER_AT, OFFER) == {}
    assert line.asked == []


def test_a_client_speaks_for_itself_only():
    """Otherwise one port could lease all addresses."""
    line = SoftLine(HOST_A)
    forged = Dhcp(1, "02:00:00:00:00:77").from_client(B)
    assert line.send(B_AT, forged) == {}
    assert line.services.counters == {"dhcp_refused": 1}
    assert line.send(B_AT, Dhcp(1, "03:00:00:00:00:01").from_client()) == {}


def test_a_flood_of_one_port_does_not_keep_others_waiting():
    line = SoftLine()
    for n in range(50):
        line.send(C_AT, Dhcp(1, f"02:00:00:00:01:{n:02x}").from_client())
    assert line.services.counters == {"dhcp_relayed": 20, "dhcp_limited": 30}
    assert line.send(B_AT, DISCOVER) == {SERVER_AT: [DISCOVER]}


def test_answers_nobody_asked_for():
    line = SoftLine(HOST_B)
    assert line.send(SERVER_AT, OFFER) == {}
    assert line.services.counters == {"dhcp_unknown_client": 1}


def test_an_answer_goes_where_the_client_asked_last():
    line = leased()
    assert line.send(FREE_AT, REQUEST) == {}  # first it has to be known to have moved
    assert line.send(FREE_AT, REQUEST) == {SERVER_AT: [REQUEST]}
    assert line.send(SERVER_AT, ACK) == {FREE_AT: [ACK]}
    assert line.network.hosts[B].at == FREE_AT


def test_a_lease_of_an_address_that_another_holds_does_not_move_it():
    line = SoftLine(HOST_SERVER, Host(A, C_AT, B_IP))
    line.send(B_AT, REQUEST)
    assert line.send(SERVER_AT, ACK) == {B_AT: [ACK]}
    assert line.network.hosts[B].ipv4 is None


@pytest.mark.parametrize(
    ("at", "frame"),
    [
        (B_AT, DISCOVER[:200]),
        (B_AT, DISCOVER[:12] + DISCOVER[12:42] + bytes(250)),
        (B_AT, Dhcp(2, B).from_client()),
        (SERVER_AT, Dhcp(1, B, op=2).from_server()),
        (SERVER_AT, Dhcp(5, B, op=2, yiaddr=B_IP).from_server("02:00:00:00:00:01")),
    ],
)
def test_malformed_messages_go_nowhere(at, frame):
    line = SoftLine(HOST_A, HOST_B)
    assert line.send(at, frame) == {}
    assert line.services.counters == {"dhcp_malformed": 1}


def test_a_fragment_is_not_read():
    frame = bytearray(DISCOVER)
    frame[20] |= 0x20  # more fragments
    line = SoftLine()
    assert line.send(B_AT, bytes(frame)) == {}
