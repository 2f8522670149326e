"""The parts of ``bench fabric`` that judge and count: a wrong one would measure nothing."""

import asyncio
import socket
import struct
import threading
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from anabranch.app.bench.fabric import buckets, paths
from anabranch.app.bench.fabric.hosts import SOURCES, TARGETS, frame, source_mac, target_mac
from anabranch.app.bench.fabric.load import (
    PAIRS,
    SOURCE_PORT,
    TARGET_PORT,
    FakeSwitch,
    all_pairs,
    packet_in,
)
from anabranch.app.bench.fabric.own_controller import NAME, known_network, tables
from anabranch.app.bench.fabric.traffic import Arrival, Record
from anabranch.app.bench.report import sampled
from anabranch.fabric.controller import Controller
from anabranch.fabric.frames import parse
from anabranch.fabric.model import PortRef
from anabranch.fabric.openflow.codec import decode, encode
from anabranch.fabric.openflow.messages import BarrierRequest, FlowMod, PacketIn, PacketOut
from anabranch.fabric.reactive import ReactiveForwarder
from anabranch.fabric.tables import difference


def arrivals(numbers: list[int], *, late: float = 0.001) -> tuple[Arrival, ...]:
    return tuple(Arrival(n, 0, 100 + n / 1000, 100 + n / 1000 + late) for n in numbers)


def test_a_record_knows_what_was_lost_and_for_how_long() -> None:
    record = Record(100, arrivals([n for n in range(100) if not 40 <= n < 50]))
    assert (record.lost, record.duplicates) == (10, 0)
    assert record.outage_ms(100, 101) == pytest.approx(11)
    assert record.outage_ms(100.06, 101) == 0  # it was before
    assert record.outage_ms(99, 100.03) == 0  # it was after


def test_disorder_and_delay_are_no_loss() -> None:
    numbers = list(range(100))
    Random(1).shuffle(numbers)
    record = Record(100, arrivals([*numbers, 5, 6], late=3.0))
    assert (record.lost, record.duplicates) == (0, 2)
    assert record.outage_ms(100, 101) == 0


@given(st.sets(st.integers(1, 98)))
def test_the_outage_is_the_longest_run_of_losses(gone: set[int]) -> None:
    record = Record(100, arrivals([n for n in range(100) if n not in gone]))
    longest = run = 0
    for number in range(100):
        run = run + 1 if number in gone else 0
        longest = max(longest, run)
    expected = longest + 1 if longest else 0
    assert record.outage_ms(99, 102) == pytest.approx(expected)


def test_percentiles_of_a_result() -> None:
    result = sampled("m", "ms", [n / 100 for n in range(101)], digits=2, p99=True)
    assert (result.p50, result.p95, result.p99, result.max) == (0.5, 0.95, 0.99, 1.0)
    assert sampled("m", "ms", [1, 2, 3]).as_dict().keys() == {
        *("metric", "unit", "n", "p50", "p95", "max")
    }


def test_frames_are_whole_ipv4_packets() -> None:
    made = frame(target_mac(3), source_mac(2))
    fields = parse(made).fields
    assert len(made) == 64
    assert fields["eth_dst"] == int.from_bytes(target_mac(3))
    assert (fields["ip_proto"], fields["udp_dst"]) == (17, 9)
    words = struct.unpack("!10H", made[14:34])
    total = sum(words)
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    assert total == 0xFFFF


def test_every_pair_of_hosts_is_another_packet() -> None:
    length, packets = all_pairs()
    assert len(packets) == length * PAIRS == length * SOURCES * TARGETS
    messages = {packets[at : at + length] for at in range(0, len(packets), length)}
    assert len(messages) == PAIRS
    message = decode(packets[:length])
    assert isinstance(message, PacketIn)
    assert (message.match.in_port, len(message.data)) == (SOURCE_PORT, 64)


def test_our_controller_answers_each_of_them_with_one_flow() -> None:
    forwarder = ReactiveForwarder()
    forwarder.update(known_network())
    for number in (0, 255):
        raw = packet_in(SOURCE_PORT, frame(target_mac(number), source_mac(number)))
        answer = forwarder.hot(NAME, raw)
        assert answer is not None
        first = int.from_bytes(answer[2:4])
        flow, out = decode(answer[:first]), decode(answer[first:])
        assert isinstance(flow, FlowMod)
        assert isinstance(out, PacketOut)
        assert flow.match.eth_src == source_mac(number).hex(":")
        assert [a.port_no for a in out.actions if hasattr(a, "port_no")] == [TARGET_PORT]


class Answerer(threading.Thread):
    """Answers every PACKET_IN by hand, in pieces of bytes that end anywhere."""

    def __init__(self, *, flows: int) -> None:
        super().__init__(daemon=True)
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.answer = encode(FlowMod(0), 4) * flows + encode(PacketOut(b"x" * 60, ()), 4)  # type: ignore[arg-type]
        self.seen = 0

    def run(self) -> None:
        connection, _ = self.listener.accept()
        draw = Random(1)
        rest = b""
        with connection:
            while data := connection.recv(65536):
                rest += data
                answers = b""
                while len(rest) >= 4 and len(rest) >= (length := int.from_bytes(rest[2:4])):
                    if rest[1] == 10:
                        self.seen += 1
                        answers += self.answer
                    rest = rest[length:]
                while answers:
                    size = draw.randint(1, 200)
                    try:
                        connection.sendall(answers[:size])
                    except OSError:
                        return
                    answers = answers[size:]


@pytest.mark.parametrize("window", [1, 7])
def test_the_load_counts_what_comes_back(window: int) -> None:
    answerer = Answerer(flows=1)
    answerer.start()
    switch = FakeSwitch(answerer.listener.getsockname()[1])
    try:
        per_s, round_trips = switch.load(window, 0.5)
    finally:
        switch.close()
        answerer.listener.close()
    # Rate times time is what was answered, give or take the warm-up before.
    assert 0 < per_s * 0.5 <= answerer.seen
    assert bool(round_trips) == (window == 1)
    answerer.join(5)


def test_a_controller_that_answers_nothing_is_no_result() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        switch = FakeSwitch(listener.getsockname()[1])
        connection, _ = listener.accept()
        connection.close()
        with pytest.raises(OSError):  # noqa: PT011
            switch.load(4, 0.1)
        switch.close()


async def test_our_controller_and_the_fake_switch_understand_each_other() -> None:
    forwarder = ReactiveForwarder()
    forwarder.update(known_network())
    controller = Controller(lambda _: None, names={1: NAME}, hot=forwarder.hot)
    try:
        port = await controller.listen_tcp("127.0.0.1", 0)
        await controller.apply({NAME: tables()})

        def load() -> float:
            switch = FakeSwitch(port)
            try:
                switch.settle()
                switch.introduce()
                return switch.load(8, 0.3)[0]
            finally:
                switch.close()

        per_s = await asyncio.to_thread(load)
        assert 0 < per_s * 0.3 <= forwarder.set_up
        assert encode(BarrierRequest(), 4)
    finally:
        await controller.close()


def test_a_move_changes_one_bucket_of_either_group() -> None:
    before, after = buckets._tables(0), buckets._tables(1)
    assert not difference(before.rules, after.rules)
    for was, now in zip(
        sorted(before.groups, key=lambda g: g.group_id),
        sorted(after.groups, key=lambda g: g.group_id),
        strict=True,
    ):
        assert len(was.buckets) == len(now.buckets) == buckets.BUCKETS
        assert sum(a != b for a, b in zip(was.buckets, now.buckets, strict=True)) == 1


def test_paths_are_different_flows_over_all_switches() -> None:
    first, second = paths.path(0), paths.path(1)
    assert first.match != second.match
    assert first.ingress == PortRef("s1", 1)
    assert [egress.at.switch for egress in first.egress] == [f"s{paths.SWITCHES}"]
