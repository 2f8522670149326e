"""Who has gone, by what networks say of them; and by nothing else."""

import socket
import struct
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from anabranch.channels.presence import (
    PATIENCE_S,
    Refusal,
    Refusals,
    has_expired,
    refusal_of,
    refusal_of_6,
)
from anabranch.channels.seats import PlainSeat

RECEIVER, LEAF, GATEWAY = "192.0.2.7", "10.97.0.2", "10.97.0.1"
OWN = {GATEWAY, "198.51.100.1"}


def ip(source: str, to: str, protocol: int, payload: bytes, options: bytes = b"") -> bytes:
    words = 5 + len(options) // 4
    head = struct.pack(
        "!BBHHHBBH4s4s",
        *(0x40 | words, 0, 4 * words + len(payload), 0, 0, 64, protocol, 0),
        socket.inet_aton(source),
        socket.inet_aton(to),
    )
    return head + options + payload


def unreachable(
    sender: str, code: int = 3, *, kind: int = 3, protocol: int = 17, options: bytes = b""
) -> bytes:
    sent = ip(LEAF, RECEIVER, protocol, struct.pack("!HHHH", 5004, 6000, 1324, 0), options)
    return ip(sender, LEAF, 1, struct.pack("!BBHI", kind, code, 0, 0) + sent, options)


@pytest.mark.parametrize("options", [b"", b"\1\1\1\0"])
def test_the_receivers_own_word_counts_and_this_machines_that_there_is_none(options) -> None:
    assert refusal_of(unreachable(RECEIVER, options=options), OWN) == Refusal(RECEIVER, 6000)
    assert refusal_of(unreachable(GATEWAY, 1, options=options), OWN) == Refusal(RECEIVER, 6000)


@pytest.mark.parametrize(
    "packet",
    [
        unreachable("198.51.100.9"),  # a stranger about somebody else
        unreachable(GATEWAY),
        unreachable(RECEIVER, 1),
        unreachable("198.51.100.9", 1),
        unreachable(RECEIVER, 4),  # too large for a link: it is there
        unreachable(RECEIVER, kind=11),
        unreachable(RECEIVER, protocol=6),
        *(unreachable(RECEIVER)[:length] for length in range(0, 52, 4)),
    ],
)
def test_nothing_else_counts(packet: bytes) -> None:
    assert refusal_of(packet, OWN) is None


@given(st.binary(max_size=80) | st.binary(max_size=80).map(lambda more: b"E" + more))
def test_whatever_comes_is_a_refusal_or_none(packet: bytes) -> None:
    refusal_of(packet, OWN)


@given(st.data())
def test_a_cut_or_changed_message_is_a_refusal_or_none(data: st.DataObject) -> None:
    packet = bytearray(unreachable(RECEIVER))
    for _ in range(data.draw(st.integers(0, 4))):
        packet[data.draw(st.integers(0, len(packet) - 1))] = data.draw(st.integers(0, 255))
    refusal_of(bytes(packet[: data.draw(st.integers(0, len(packet)))]), OWN)


RECEIVER_6, LEAF_6, GATEWAY_6 = "2001:db8::7", "fd00::2", "fd00::1"


def unreachable_6(code: int = 4, *, kind: int = 1, protocol: int = 17) -> bytes:
    head = struct.pack("!IHBB", 6 << 28, 8, protocol, 63)
    ends = b"".join(socket.inet_pton(socket.AF_INET6, each) for each in (LEAF_6, RECEIVER_6))
    sent = head + ends + struct.pack("!HHHH", 5004, 6000, 8, 0)
    return struct.pack("!BBHI", kind, code, 0, 0) + sent


def test_of_ipv6_the_same_counts_and_nothing_else() -> None:
    refused = Refusal(RECEIVER_6, 6000)
    assert refusal_of_6(unreachable_6(), RECEIVER_6, {GATEWAY_6}) == refused
    assert refusal_of_6(unreachable_6(3), GATEWAY_6, {GATEWAY_6}) == refused
    for message, sender in [
        (unreachable_6(), "2001:db8::9"),  # a stranger about somebody else
        (unreachable_6(), GATEWAY_6),
        (unreachable_6(3), "2001:db8::9"),
        (unreachable_6(1), RECEIVER_6),
        (unreachable_6(0, kind=2), RECEIVER_6),  # too large for a link: it is there
        (unreachable_6(protocol=6), RECEIVER_6),
        *((unreachable_6()[:length], RECEIVER_6) for length in range(0, 52, 4)),
    ]:
        assert refusal_of_6(message, sender, {GATEWAY_6}) is None


@given(st.binary(max_size=80) | st.binary(max_size=80).map(lambda more: unreachable_6()[:8] + more))
def test_whatever_comes_by_ipv6_is_a_refusal_or_none(message: bytes) -> None:
    refusal_of_6(message, RECEIVER_6, {GATEWAY_6})


def test_a_receiver_that_refuses_for_a_while_has_gone() -> None:
    refusals = Refusals()
    heard = [refusals.refused("a", float(second)) for second in range(8)]
    assert heard == [second >= PATIENCE_S for second in range(8)]


def test_one_that_was_only_restarted_has_not() -> None:
    refusals = Refusals()
    assert not any(refusals.refused("a", float(second)) for second in range(5))
    assert not any(refusals.refused("a", 60.0 + second) for second in range(5))
    refusals.forget("a")
    assert not any(refusals.refused("a", 65.0 + second) for second in range(5))
    assert not any(refusals.refused("b", 69.0 + second) for second in range(5))


def test_a_lease_ends_unless_it_is_renewed() -> None:
    seat = PlainSeat("news", "high", "leaf1", RECEIVER, 6000, ttl_s=10, renewed=100.0)
    assert not has_expired(seat, 110.0)
    assert has_expired(seat, 110.1)
    assert not has_expired(replace(seat, ttl_s=None), 1e9)
