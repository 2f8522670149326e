"""One connection, its time stepped by hand; and any bytes at all."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from anabranch.tree.model import Role
from anabranch.tree.peering import MAX_GREETING, Lost, Peering
from anabranch.tree.soleil.codec import MAX_BYTES, decode, encode
from anabranch.tree.soleil.messages import (
    Bye,
    Error,
    Fault,
    Hello,
    Message,
    Ping,
    Pong,
    Redirect,
    Stats,
)

HELLO = Message(Hello("leaf", Role.LEAF), 1, to="^")


def framed(*messages: Message) -> bytes:
    peering = Peering(0.0)
    for message in messages:
        peering.send(encode(message))
    return peering.data_to_send()


def said(peering: Peering) -> list:
    return [decode(document).body for document in peering.documents_to_send()]


def up() -> Peering:
    peering = Peering(0.0)
    assert peering.receive(framed(HELLO), 0.0) == [HELLO]
    peering.establish(0.0)
    assert peering.established
    return peering


def test_messages_arrive_whole_or_byte_by_byte() -> None:
    messages = [HELLO, Message(Stats(), 2), Message(Bye(), 3)]
    data = framed(*messages)
    peering = up()
    assert peering.receive(data, 1.0) == messages
    found = [event for byte in data for event in peering.receive(bytes([byte]), 1.0)]
    assert found == messages


def test_before_hello_nothing_else_passes() -> None:
    for body in (Stats(), Bye(), Ping("n")):
        peering = Peering(0.0)
        events = peering.receive(framed(Message(body, 1)), 0.0)
        if isinstance(body, Ping):
            assert (events, said(peering)) == ([], [Pong("n")])
        else:
            assert isinstance(events[0], Lost)
            assert said(peering)[0].fault is Fault.FORBIDDEN
            assert peering.receive(framed(HELLO), 0.0) == []
    for body in (Redirect("relay", ()), Error(Fault.FORBIDDEN)):
        assert len(Peering(0.0).receive(framed(Message(body, 1)), 0.0)) == 1


def test_a_greeting_has_a_deadline_that_bytes_do_not_move() -> None:
    peering = Peering(0.0, greeting=10.0)
    for second in range(9):
        peering.receive(b"\0", float(second)) if second < 3 else None
        assert peering.handle_timer(float(second)) == []
    assert peering.next_timer() == 10.0
    assert peering.handle_timer(10.0) == [Lost("no HELLO in time")]
    assert peering.next_timer() is None


def test_liveness() -> None:
    peering = up()
    assert peering.next_timer() == 3.0
    assert peering.handle_timer(2.9) == []
    assert peering.handle_timer(3.0) == []
    (ping,) = said(peering)
    peering.receive(framed(Message(Pong(ping.nonce), 1)), 3.1)
    assert peering.next_timer() == pytest.approx(6.1)
    for now in (6.1, 9.1):
        assert peering.handle_timer(now) == []
    peering.receive((1000).to_bytes(4, "big") + b"half a message", 12.0)
    assert len(said(peering)) == 2
    assert peering.handle_timer(12.1) == [Lost("nothing heard for 9.0 s")]


def test_pings_to_the_neighbour_are_answered_others_are_handed_on() -> None:
    peering = up()
    assert peering.receive(framed(Message(Ping("a"), 1)), 0.0) == []
    assert said(peering) == [Pong("a")]
    far = Message(Ping("b"), 1, to="other", sender="leaf")
    assert peering.receive(framed(far), 0.0) == [far]


def test_bad_documents_are_answered_and_after_eight_in_a_minute_it_is_over() -> None:
    peering = up()
    bad = (3).to_bytes(4, "big") + b"<x>"
    for _ in range(8):
        assert peering.receive(bad, 1.0) == []
    assert all(error.fault is Fault.MALFORMED for error in said(peering))
    assert peering.receive(bad, 61.5) == []  # forgiven
    for _ in range(7):
        assert peering.receive(bad, 62.0) == []
    (lost,) = peering.receive(bad + framed(HELLO), 62.0)
    assert isinstance(lost, Lost)
    assert peering.blame("more", 62.0) == []


@pytest.mark.parametrize("greeting", [True, False])
def test_what_is_too_long_ends_it_before_it_is_read(greeting: bool) -> None:
    peering = Peering(0.0) if greeting else up()
    limit = MAX_GREETING if greeting else MAX_BYTES
    assert peering.receive(limit.to_bytes(4, "big"), 0.0) == []
    peering = Peering(0.0) if greeting else up()
    (lost,) = peering.receive((limit + 1).to_bytes(4, "big") + b"x" * 50, 0.0)
    assert isinstance(lost, Lost)
    assert [error.fault for error in said(peering)] == [Fault.TOO_LARGE]


@given(st.lists(st.binary(max_size=200), max_size=10), st.booleans())
def test_any_bytes_give_messages_or_the_end(chunks: list[bytes], established: bool) -> None:
    peering = up() if established else Peering(0.0)
    for now, chunk in enumerate(chunks):
        for event in peering.receive(chunk, float(now)):
            assert isinstance(event, Message | Lost)
        for event in peering.receive_document(chunk, float(now)):
            assert isinstance(event, Message | Lost)
        peering.handle_timer(float(now))
    for document in peering.documents_to_send():
        decode(document)


@given(st.data())
def test_a_damaged_stream_does_not_get_through_unnoticed(data: st.DataObject) -> None:
    whole = bytearray(framed(HELLO, Message(Stats(), 2)))
    at = data.draw(st.integers(0, len(whole) - 1))
    whole[at] ^= data.draw(st.integers(1, 255))
    for event in up().receive(bytes(whole), 0.0):
        assert isinstance(event, Message | Lost)
