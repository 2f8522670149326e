"""The token bucket, with time stepped by hand."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from anabranch.fabric import frames
from anabranch.fabric.assembly import base
from anabranch.fabric.host_services.rules import base_rules
from anabranch.fabric.host_services.settings import Settings
from anabranch.fabric.model import Network
from anabranch.fabric.moves import PROBE_MAC
from anabranch.fabric.openflow.actions import NO_BUFFER
from anabranch.fabric.openflow.codec import encode
from anabranch.fabric.openflow.messages import PacketIn
from anabranch.fabric.openflow.oxm import Match
from anabranch.fabric.packet_gate import DISCOVERY_RATE, PacketGate, SwitchGates, discovery_port
from anabranch.fabric.pipeline import CLASSIFY
from anabranch.fabric.softswitch.switch import SoftSwitch
from anabranch.fabric.tables import INTENT_COOKIE, Tables

GAPS = st.lists(st.floats(0, 0.02), max_size=100)


@given(GAPS, st.integers(1, 20), st.floats(10, 1000))
def test_never_more_than_burst_and_rate_allow(gaps: list[float], burst: int, rate: float) -> None:
    gate = PacketGate(100.0, rate, burst)
    now, admitted = 100.0, []
    for gap in gaps:
        now += gap
        if gate.admits(now):
            admitted.append(now)
    assert gate.dropped + len(admitted) == len(gaps)
    for start, first in enumerate(admitted):
        for end in range(start, len(admitted)):
            allowed = burst + (admitted[end] - first) * rate
            assert end - start + 1 <= allowed + 1.001


@given(st.lists(st.floats(0.001, 1), max_size=100))
def test_what_keeps_to_the_rate_is_never_held_back(gaps: list[float]) -> None:
    gate, now = PacketGate(0.0, 1000.0, 1.0), 0.0
    for gap in gaps:
        now += gap * 1.001
        assert gate.admits(now)
    assert gate.dropped == 0


def test_a_flood_is_told_once_and_a_second_one_again() -> None:
    gate, told = PacketGate(0.0, 100.0, 10.0), []
    for began in (0.0, 1.0):
        for number in range(50):
            if not gate.admits(began + number / 1000) and gate.outbreak():
                told.append(began)
    assert told == [0.0, 1.0]


def test_a_clock_that_stands_still_gives_nothing() -> None:
    gate = PacketGate(5.0, 1000.0, 2.0)
    assert [gate.admits(5.0) for _ in range(4)] == [True, True, False, False]
    assert not gate.admits(4.0)


@pytest.mark.parametrize("version", [4, 5, 6])
def test_discovery_is_what_the_compilers_rule_sends_and_what_hosts_answer(version: int) -> None:
    (rules,) = base_rules(Settings(), Network({"s1": 1})).values()
    switch = SoftSwitch(1, (1, 7))
    switch.load(Tables(frozenset({*base(()).rules, *rules})), 0.0)
    found = []
    for eth_dst, eth_type in (
        (frames.BROADCAST, frames.ETH_LLDP),
        (PROBE_MAC, frames.ETH_ARP),
        (frames.BROADCAST, frames.ETH_ARP),
    ):
        frame = frames.ethernet(eth_dst, "02:00:00:00:00:01", eth_type, bytes(50))
        switch.process(7, frame, 0.0)
        (news,) = switch.news()
        assert isinstance(news, PacketIn)
        found.append(discovery_port(encode(news, version)))
    assert found == [7, 7, None]


@given(st.binary(max_size=80), st.integers(0, 80))
def test_what_is_no_whole_packet_in_is_no_discovery(data: bytes, cut: int) -> None:
    assert discovery_port(data) is None
    about = (CLASSIFY, INTENT_COOKIE, Match(in_port=7))
    whole = encode(PacketIn(NO_BUFFER, 0, 0, *about, b""))
    assert discovery_port(whole) == 7
    assert discovery_port(whole[: min(cut, len(whole) - 1)]) is None


def test_a_port_that_floods_costs_no_other_its_discovery() -> None:
    gates, ports, now, heeded = SwitchGates(0.0, 100.0), range(1, 4), 0.0, 0
    for number in range(10_000):
        now = number / 1000
        heeded += gates.gate(1, ports, now).admits(now)
        if number % 100 == 0:
            assert gates.gate(2, ports, now).admits(now)
            assert gates.gate(None, ports, now).admits(now)
    assert heeded <= DISCOVERY_RATE * (1 + now) + 1


@given(
    st.lists(st.tuples(st.integers(0, 12), st.sets(st.integers(1, 12), max_size=6)), max_size=60)
)
def test_there_are_no_more_gates_than_ports(asked: list[tuple[int, set[int]]]) -> None:
    gates = SwitchGates(0.0, 100.0)
    most = 0
    for port_no, ports in asked:
        most = max(most, len(ports))
        gate = gates.gate(port_no, ports, 0.0)
        assert (gate is gates.gate(None, ports, 0.0)) == (port_no not in ports)
        assert len(gates) <= 1 + most
