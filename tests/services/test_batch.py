"""A batch against packets whose fields and checksums were made independently."""

from ipaddress import IPv4Address, ip_address

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.services.packets import ip, is_right, leaving, slots_of, tcp, udp, udp_segment

from anabranch.services.batch import Batch
from anabranch.services.chain import Chain
from anabranch.services.errors import ModuleError
from anabranch.services.module import Module

SIX = ("2001:db8::1", "2001:db8::2")


def batch_of(*packets: bytes) -> Batch:
    slots = slots_of(*packets)
    return Batch(slots, slots.whole())


def six_udp(payload: bytes) -> bytes:
    return ip(17, *SIX, udp_segment(payload, *SIX, (1000, 2000)), ttl=9)


def test_fields_of_udp() -> None:
    batch = batch_of(udp(b"abc", ttl=7), udp(b"", source="192.0.2.9", ports=(1, 65535)))
    assert batch.source.tolist() == [int(IPv4Address(a)) for a in ("10.1.0.1", "192.0.2.9")]
    assert batch.destination.tolist() == [int(IPv4Address("10.2.0.1"))] * 2
    assert batch.ttl.tolist() == [7, 64]
    assert batch.protocol.tolist() == [17, 17]
    assert batch.source_port.tolist() == [40000, 1]
    assert batch.destination_port.tolist() == [5060, 65535]
    assert batch.payload_length.tolist() == [3, 0]
    assert bytes(batch.payload(0)) == b"abc"
    assert batch.packets[0, 28:31].tobytes() == b"abc"


def test_packets_of_all_kinds_in_one_batch() -> None:
    batch = batch_of(
        udp(b"with options", options=b"\x94\x04\0\0"),
        six_udp(b"six"),
        tcp(b"GET /", options=b"\1\1\1\1"),
        ip(1, "10.0.0.1", "10.0.0.2", b"\x08\0\xf7\xff\0\0\0\0ping"),
        ip(17, "10.0.0.1", "10.0.0.2", b"later part of a packet", fragment=0x0003),
    )
    assert batch.version.tolist() == [4, 6, 4, 4, 4]
    assert batch.header_length.tolist() == [24, 40, 20, 20, 20]
    assert batch.source_port.tolist() == [40000, 1000, 40000, 0, 0]
    assert batch.destination_port.tolist() == [5060, 2000, 80, 0, 0]
    assert batch.ttl.tolist() == [64, 9, 64, 64, 64]
    assert batch.protocol.tolist() == [17, 17, 6, 1, 17]
    assert batch.fragment.tolist() == [False, False, False, False, True]
    assert batch.source.tolist()[1] == 0
    assert bytes(batch.source6[1]) == ip_address(SIX[0]).packed
    assert bytes(batch.destination6[1]) == ip_address(SIX[1]).packed
    assert not batch.source6[0].any()
    payloads = [bytes(batch.payload(i)) for i in range(3)]
    assert payloads == [b"with options", b"six", b"GET /"]


def test_what_is_no_packet_is_not_shown_and_not_sent() -> None:
    good = udp(b"x" * 20)
    cut, wrong = good[:30], b"\x35" + good[1:]
    slots = slots_of(cut, good, wrong, b"", b"\x60\0\0\0\xff\xff")
    seen: list[int] = []

    class Look(Module):
        def process(self, batch: Batch) -> None:
            seen.append(len(batch))

    run(slots, Look())
    assert seen == [1]
    assert leaving(slots) == [good]


def run(slots, *modules: Module) -> list[Exception]:
    from anabranch.services.chain import Link

    failures: list[Exception] = []
    chain = Chain(lambda _link, error: failures.append(error))
    chain.links += [Link(str(i), module) for i, module in enumerate(modules)]
    chain.run(slots)
    return failures


def test_dropped_packets_do_not_leave() -> None:
    packets = [udp(bytes([i])) for i in range(5)]
    slots = slots_of(*packets)
    batch = Batch(slots, slots.whole())
    batch.drop(batch.packets[:, 28] % 2 == 0)
    batch.drop(1)
    batch.drop(np.array([], np.intp))
    assert leaving(slots) == [packets[3]]


@given(st.binary(max_size=300), st.booleans())
def test_reply_has_right_checksums(payload: bytes, options: bool) -> None:
    came = udp(b"hello", options=b"\1" * 8 if options else b"", ttl=3)
    slots = slots_of(came, came)
    batch = Batch(slots, slots.whole())
    batch.reply(0, payload)
    answer, untouched = leaving(slots)
    assert untouched == came
    assert is_right(answer)
    back = batch_of(answer)
    assert back.source.tolist() == [int(IPv4Address("10.2.0.1"))]
    assert back.destination.tolist() == [int(IPv4Address("10.1.0.1"))]
    assert (back.source_port[0], back.destination_port[0]) == (5060, 40000)
    assert back.ttl[0] == 64
    assert bytes(back.payload(0)) == payload


def test_reply_by_ipv6() -> None:
    slots = slots_of(six_udp(b"hello"), udp(b"hello"))
    batch = Batch(slots, slots.whole())
    batch.reply(payloads=[b"odd", b"even"])
    answers = leaving(slots)
    assert all(map(is_right, answers))
    back = batch_of(*answers)
    assert bytes(back.source6[0]) == ip_address(SIX[1]).packed
    assert [bytes(back.payload(i)) for i in range(2)] == [b"odd", b"even"]


@given(st.lists(st.binary(max_size=64), min_size=1, max_size=8), st.integers(0, 65535))
def test_rewritten_packets_have_right_checksums(payloads: list[bytes], port: int) -> None:
    slots = slots_of(*(udp(p) for p in payloads), tcp(b"over tcp"), six_udp(b"over six"))
    batch = Batch(slots, slots.whole())
    batch.rewrite(batch.version == 4, destination=IPv4Address("203.0.113.5"), ttl=5)
    batch.rewrite(destination_port=port)
    packets = leaving(slots)
    assert all(map(is_right, packets))
    back = batch_of(*packets)
    assert set(back.destination_port.tolist()) == {port}
    assert set(back.destination.tolist()) == {int(IPv4Address("203.0.113.5")), 0}
    assert [bytes(back.payload(i)) for i in range(len(payloads))] == payloads


def test_payload_changed_in_place() -> None:
    slots = slots_of(udp(b"abcdef"))
    batch = Batch(slots, slots.whole())
    batch.payload(0)[:3] = b"xyz"
    batch.rewrite(0)
    (packet,) = leaving(slots)
    assert is_right(packet)
    assert packet.endswith(b"xyzdef")


def test_checksum_of_udp_is_never_zero() -> None:
    """A sum that comes out as 0 is sent as 0xFFFF: 0 would say that there is none."""
    found = False
    for value in range(65536):
        packet = udp(value.to_bytes(2, "big"))
        if packet[26:28] == b"\xff\xff":
            found = True
            break
    assert found
    slots = slots_of(packet)
    Batch(slots, slots.whole()).rewrite()
    assert leaving(slots) == [packet]


def test_matrix_of_payloads() -> None:
    slots = slots_of(*(udp(b"12345678") for _ in range(3)))
    batch = Batch(slots, slots.whole())
    batch.reply(np.array([0, 2]), np.frombuffer(b"oneTWO", np.uint8).reshape(2, 3))
    packets = leaving(slots)
    assert [packet[28:] for packet in packets] == [b"one", b"12345678", b"TWO"]
    assert all(map(is_right, packets))


def test_what_cannot_be_is_refused() -> None:
    fragment = ip(17, "10.0.0.1", "10.0.0.2", b"first part", fragment=0x2000)
    batch = batch_of(udp(b""), tcp(b""), six_udp(b""), fragment,
                     ip(1, "10.0.0.1", "10.0.0.2", b"\x08\0\xf7\xff\0\0\0\0"))  # fmt: skip
    for index in (1, 3, 4):
        with pytest.raises(ModuleError, match="whole UDP"):
            batch.reply(index)
    with pytest.raises(ModuleError, match="IPv4"):
        batch.rewrite(2, source=IPv4Address("10.0.0.1"))
    with pytest.raises(ModuleError, match="ports"):
        batch.rewrite(4, source_port=1)
    with pytest.raises(ModuleError, match="room"):
        batch.rewrite(0, payloads=b"x" * 2000)
    with pytest.raises(ModuleError, match="2 payloads for 1"):
        batch.rewrite(0, payloads=[b"", b""])
    with pytest.raises(ModuleError, match="emit"):
        batch.emit(b"\x11nonsense")


def test_modules_see_packets_in_turn() -> None:
    class DropFirst(Module):
        def process(self, batch: Batch) -> None:
            batch.drop(0)

    class Answer(Module):
        def process(self, batch: Batch) -> None:
            batch.rewrite(payloads=b"changed")
            batch.reply(batch.packets[:, 28] == ord("c"))

    class Last(Module):
        seen = 0

        def process(self, batch: Batch) -> None:
            Last.seen += len(batch)

    slots = slots_of(udp(b"a"), udp(b"b"), udp(b"c"))
    assert not run(slots, DropFirst(), Module(), Answer(), Last())
    assert Last.seen == 0
    assert [packet[28:] for packet in leaving(slots)] == [b"changed", b"changed"]


def test_a_module_sees_what_the_one_before_made_of_a_packet() -> None:
    ports: list[int] = []

    class Redirect(Module):
        def process(self, batch: Batch) -> None:
            batch.rewrite(destination_port=99)

    class Look(Module):
        def process(self, batch: Batch) -> None:
            ports.extend(batch.destination_port.tolist())

    assert not run(slots_of(udp(b"a")), Look(), Redirect(), Look())
    assert ports == [5060, 99]


def test_packets_pass_a_module_that_fails() -> None:
    class Broken(Module):
        def process(self, batch: Batch) -> None:
            raise ZeroDivisionError

    packet = udp(b"a")
    broken = Broken()
    slots = slots_of(packet)
    assert len(run(slots, broken)) == 1
    assert leaving(slots) == [packet]


@given(st.lists(st.binary(max_size=120), min_size=1, max_size=5))
def test_any_bytes_are_a_packet_or_not(frames: list[bytes]) -> None:
    """Whatever arrives: fields can be read and packets changed, or they are not shown."""

    class Everything(Module):
        def process(self, batch: Batch) -> None:
            for name in (
                "source",
                "destination",
                "source6",
                "destination6",
                "ttl",
                "protocol",
                "source_port",
                "destination_port",
                "payload_length",
                "fragment",
            ):
                assert len(getattr(batch, name)) == len(batch)
            for i in range(len(batch)):
                assert len(batch.payload(i)) == batch.payload_length[i] >= 0
            batch.rewrite(ttl=1)

    slots = slots_of(*frames)
    assert not run(slots, Everything())
    leaving(slots)


def test_whole_packets_in_the_place_of_others() -> None:
    """They leave with right checksums; what is no such packet is refused and changes nothing."""
    before = [
        udp(b"abcdef", ttl=9),
        udp(b"ghi"),
        tcp(b"jkl"),
        ip(17, *SIX, udp_segment(b"m", *SIX, (1, 2))),
    ]
    after = [
        udp(b"ABC", "10.9.9.9"),
        udp(b"ghi!", ttl=1),
        tcp(b"JKLM"),
        ip(17, *SIX, udp_segment(b"mn", *SIX, (1, 2))),
    ]
    slots = slots_of(*before)
    batch = Batch(slots, slots.whole())
    rows = np.zeros((4, 80), np.uint8)
    for row, packet in zip(rows, after, strict=True):
        row[: len(packet)] = np.frombuffer(packet, np.uint8)
    for at, value in ((0, 0x46), (0, 0x55), (6, 0x20), (9, 6), (2, 9), (3, 27)):
        wrong = rows[:1].copy()
        wrong[0, at] = value
        with pytest.raises(ModuleError):
            batch.replace(0, wrong)
    assert leaving(slots) == before
    wrong_sums = rows.copy()
    wrong_sums[:3, 10] ^= 0xFF
    batch.replace(None, wrong_sums)
    assert leaving(slots) == after
