"""What an SRT listener's packets say."""

import struct

from hypothesis import given
from hypothesis import strategies as st

from anabranch.media.srt import calls, lets_in

KEEPALIVE, ACK, NAK, SHUTDOWN = 0x8001, 0x8002, 0x8003, 0x8005
INDUCTION, CONCLUSION, BAD_SECRET = 1, 0xFFFFFFFF, 1010


def control(kind: int, body: bytes = b"") -> bytes:
    return struct.pack("!HHIII", kind, 0, 0, 1234, 77) + body


def handshake(step: int, version: int = 5) -> bytes:
    fixed = struct.pack("!IHHIIIII", version, 0, 1, 1, 1500, 8192, step, 4711)
    return control(0x8000, fixed + bytes(20))


def test_who_is_let_in() -> None:
    assert lets_in(handshake(CONCLUSION))
    assert not lets_in(handshake(INDUCTION))
    assert not lets_in(handshake(BAD_SECRET))
    assert not lets_in(handshake(CONCLUSION, version=4))


def test_what_belongs_to_a_connection() -> None:
    assert all(lets_in(control(kind, bytes(4))) for kind in (KEEPALIVE, ACK, NAK))
    assert not lets_in(control(SHUTDOWN))
    assert not lets_in(struct.pack("!IIII", 5, 0, 0, 77) + b"media")


def test_who_calls() -> None:
    assert calls(handshake(INDUCTION, version=4))
    assert calls(handshake(CONCLUSION))
    assert not calls(control(KEEPALIVE, bytes(60)))


@given(st.binary(max_size=100))
def test_any_bytes_are_judged(data: bytes) -> None:
    assert lets_in(data) in (True, False)
    assert calls(data) in (True, False)


@given(st.integers(0, 63))
def test_what_is_cut_short_lets_nobody_in(length: int) -> None:
    whole = handshake(CONCLUSION)
    assert lets_in(whole[:length]) == (length >= 44)
