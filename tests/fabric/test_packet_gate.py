"""The token bucket, with time stepped by hand."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from anabranch.fabric import frames
from anabranch.fabric.assembly import base
from anabranch.fabric.openflow.actions import PORT_CONTROLLER, Output
from anabranch.fabric.openflow.codec import encode
from anabranch.fabric.openflow.messages import PacketIn
from anabranch.fabric.openflow.oxm import Match
from anabranch.fabric.packet_gate import PacketGate, is_discovery
from anabranch.fabric.pipeline import EDGE, HOST_SERVICE_PRIORITY
from anabranch.fabric.softswitch.switch import SoftSwitch
from anabranch.fabric.tables import INTENT_COOKIE, Rule, Tables

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
def test_discovery_is_what_the_compilers_rule_sends(version: int) -> None:
    to_controller = (Output(PORT_CONTROLLER, 0xFFFF),)
    edge = Rule(EDGE, HOST_SERVICE_PRIORITY, Match(), to_controller, INTENT_COOKIE)
    switch = SoftSwitch(1, (1,))
    switch.load(Tables(frozenset({*base(()).rules, edge})), 0.0)
    found = []
    for eth_type in (frames.ETH_LLDP, frames.ETH_ARP):
        frame = frames.ethernet(frames.BROADCAST, "02:00:00:00:00:01", eth_type, bytes(50))
        switch.process(1, frame, 0.0)
        (news,) = switch.news()
        assert isinstance(news, PacketIn)
        found.append(is_discovery(encode(news, version)))
    assert found == [True, False]


@given(st.binary(max_size=24))
def test_a_short_message_is_no_discovery(data: bytes) -> None:
    assert not is_discovery(data[:23])
