"""The hot path: its answers are the codec's messages, and soft switches do what they say."""

import struct
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.fabric.host_services.line import (
    EVERYBODY,
    HOST_A,
    HOST_B,
    HOST_C,
    HOST_SERVER,
    S12,
    S23,
    SETTINGS,
    A,
    B,
    C,
    network,
    ping,
)
from tests.fabric.host_services.soft_line import SoftLine

from anabranch.fabric import frames
from anabranch.fabric.host_services.rules import UNICAST_MISS_COOKIE, UNICAST_PRIORITY
from anabranch.fabric.model import Host, LinkInfo, PortRef
from anabranch.fabric.openflow.actions import NO_BUFFER, ApplyActions, Output
from anabranch.fabric.openflow.codec import Framer, decode, encode
from anabranch.fabric.openflow.messages import Command, FlowMod, PacketIn, PacketOut
from anabranch.fabric.openflow.oxm import Match
from anabranch.fabric.openflow.templates import VERSIONS
from anabranch.fabric.pipeline import EDGE, HOSTS
from anabranch.fabric.reactive import ReactiveForwarder
from anabranch.fabric.tables import REACTIVE_COOKIE

PING = ping(A, B)
ASKED = PacketIn(NO_BUFFER, len(PING), 1, HOSTS, UNICAST_MISS_COOKIE, Match(in_port=1), PING)
DOWN = LinkInfo(up=False)


@pytest.fixture
def forwarder() -> ReactiveForwarder:
    made = ReactiveForwarder(idle_timeout=30)
    assert made.update(EVERYBODY) == []
    return made


def messages(answer: bytes | None) -> list[FlowMod | PacketOut]:
    assert answer is not None
    return [decode(raw) for raw in Framer().feed(answer)]


def expected(source: str, target: str, in_port: int, port_no: int) -> FlowMod:
    return FlowMod(
        Command.ADD,
        Match(in_port=in_port, eth_dst=target, eth_src=source, eth_type=0x0800),
        (ApplyActions((Output(port_no),)),),
        priority=UNICAST_PRIORITY,
        table_id=HOSTS,
        cookie=REACTIVE_COOKIE,
        idle_timeout=30,
    )


@pytest.mark.parametrize("version", sorted(VERSIONS))
@pytest.mark.parametrize(
    ("switch", "in_port", "port_no"), [("s1", 1, 9), ("s2", 8, 9), ("s3", 8, 1)]
)
def test_one_hop_at_a_time(forwarder, version, switch, in_port, port_no):
    asked = encode(replace(ASKED, match=Match(in_port=in_port)), version)
    answer = forwarder.hot(switch, asked)
    out = PacketOut(PING, (Output(port_no),), in_port)
    rule = expected(A, B, in_port, port_no)
    assert answer == encode(rule, version) + encode(out, version)
    assert forwarder.set_up == 1


def test_a_packet_the_switch_holds_is_not_sent_back(forwarder):
    held = replace(ASKED, buffer_id=7, data=PING[:60])
    (rule,) = messages(forwarder.hot("s1", encode(held)))
    assert replace(rule, buffer_id=NO_BUFFER) == expected(A, B, 1, 9)
    assert rule.buffer_id == 7


@pytest.mark.parametrize(
    ("switch", "asked"),
    [
        ("s1", replace(ASKED, cookie=0)),
        ("s1", replace(ASKED, table_id=EDGE)),
        ("s1", replace(ASKED, data=PING[:-1])),  # cut short: it cannot be sent on
        ("s1", replace(ASKED, data=PING[:13], total_len=13)),
        ("s1", replace(ASKED, data=ping("02:00:00:00:00:66", B))),
        ("s1", replace(ASKED, data=ping(A, "02:00:00:00:00:66"))),
        ("s1", replace(ASKED, data=ping(A, frames.BROADCAST))),
        ("s1", replace(ASKED, match=Match(in_port=2))),  # A is at port 1
        ("s2", replace(ASKED, match=Match(in_port=1))),  # nor does A's packet enter here
        ("s2", replace(ASKED, match=Match(in_port=9))),  # back by the way it came
        ("s9", replace(ASKED, match=Match(in_port=9))),
    ],
)
def test_what_takes_the_ordinary_way(forwarder, switch, asked):
    assert forwarder.hot(switch, encode(asked)) is None
    assert forwarder.set_up == 0


@given(st.binary(max_size=150))
def test_any_bytes_take_the_ordinary_way(raw):
    forwarder = ReactiveForwarder()
    forwarder.update(EVERYBODY)
    assert forwarder.hot("s1", raw) is None


@given(st.data())
def test_broken_messages_do_no_harm(data):
    forwarder = ReactiveForwarder()
    forwarder.update(EVERYBODY)
    raw = bytearray(encode(ASKED))
    for _ in range(data.draw(st.integers(0, 3))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    answer = forwarder.hot("s1", bytes(raw))
    if answer is not None:
        assert 1 <= len(messages(answer)) <= 2


def test_nothing_is_known_before_the_first_network():
    assert ReactiveForwarder().hot("s1", encode(ASKED)) is None


def test_rules_that_lead_the_wrong_way_are_named(forwarder):
    for switch, in_port in (("s1", 1), ("s2", 8), ("s3", 8)):
        assert forwarder.hot(switch, encode(replace(ASKED, match=Match(in_port=in_port))))
    assert forwarder.update(EVERYBODY) == []
    to_b = Match(eth_dst=B)
    moved = network(HOST_A, HOST_C, HOST_SERVER, Host(B, PortRef("s2", 2)))
    was_there = "s3", Match(in_port=1, eth_src=B)
    assert set(forwarder.update(moved)) == {("s2", to_b), ("s3", to_b), was_there}
    assert forwarder.update(moved) == []
    (rule, _) = messages(forwarder.hot("s2", encode(replace(ASKED, match=Match(in_port=8)))))
    assert rule.instructions == (ApplyActions((Output(2),)),)
    gone, was_there = network(HOST_A, HOST_C, HOST_SERVER), ("s2", Match(in_port=2, eth_src=B))
    assert set(forwarder.update(gone)) == {("s1", to_b), ("s2", to_b), was_there}


def test_a_link_down_and_up_again(forwarder):
    assert forwarder.hot("s1", encode(ASKED))
    broken = replace(EVERYBODY, links={**EVERYBODY.links, S23: DOWN, S23.reverse: DOWN})
    assert forwarder.update(broken) == [("s1", Match(eth_dst=B))]
    assert forwarder.hot("s1", encode(ASKED)) is None
    assert forwarder.hot("s1", encode(replace(ASKED, data=ping(A, C))))
    assert forwarder.update(EVERYBODY) == []
    assert forwarder.hot("s1", encode(ASKED))
    away = replace(EVERYBODY, switches={"s1": 1, "s2": 2}, links={S12: LinkInfo()})
    no_links = {("s2", Match(in_port=9)), ("s3", Match(in_port=8))}
    assert set(forwarder.update(away)) == {("s1", Match(eth_dst=B)), *no_links}


def test_who_comes_where_another_was_cannot_use_its_rules(forwarder):
    line = SoftLine(HOST_A, HOST_B, settings=replace(SETTINGS, unicast="any"))
    (rule, _) = messages(forwarder.hot("s1", encode(ASKED)))
    line.switches["s1"].flow_mod(rule, line.now)
    for switch, match in forwarder.update(network(HOST_B, HOST_C, HOST_SERVER)):
        line._remove(switch, match)
    assert not any(line.reactive().values())


def test_soft_switches_carry_packets_by_it(forwarder):
    """Each switch asks once for each direction, and never again while packets pass."""
    line = SoftLine(HOST_A, HOST_B, settings=replace(SETTINGS, unicast="any"))
    asked = []

    def hear(name: str) -> None:
        for news in line.switches[name].news():
            assert isinstance(news, PacketIn)
            asked.append(name)
            for message in messages(forwarder.hot(name, encode(news))):
                if isinstance(message, FlowMod):
                    line.switches[name].flow_mod(message, line.now)
                else:
                    line._carry(name, line.switches[name].packet_out(message, line.now))

    line._hear = hear
    back = ping(B, A)
    for _ in range(3):
        assert line.send(PortRef("s1", 1), PING) == {PortRef("s3", 1): [PING]}
        assert line.send(PortRef("s3", 1), back) == {PortRef("s1", 1): [back]}
    assert asked == ["s1", "s2", "s3", "s3", "s2", "s1"]
    assert all(len(rules) == 2 for rules in line.reactive().values())


@pytest.mark.parametrize("size", [60, 1514, 9000])
def test_the_packet_comes_back_whole(forwarder, size):
    data = PING + bytes(size - len(PING))
    asked = encode(replace(ASKED, data=data, total_len=size))
    _, out = messages(forwarder.hot("s1", asked))
    assert out.data == data
    assert struct.unpack_from("!H", asked, 2) == (len(asked),)
