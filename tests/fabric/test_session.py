"""The session of one switch, its time stepped by hand."""

import struct
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from anabranch.fabric import session as session_module
from anabranch.fabric.errors import MisuseError, ProtocolError
from anabranch.fabric.messages import (
    BarrierReply,
    Command,
    FlowMod,
    MultipartRequest,
    MultipartType,
    PacketIn,
    PortReason,
    PortStatus,
)
from anabranch.fabric.oxm import Match
from anabranch.fabric.session import Answer, Lost, Refused, Session, SwitchUp

DPID = 0xAB


def greeted(speech: Any, now: float = 0.0) -> tuple[Session, int, int]:
    """Return a session after HELLO and FEATURES, with the xids of both requests answered next."""
    session = Session(now)
    assert [kind for kind, _, _ in speech.split(session.data_to_send())] == [0]
    assert session.receive(speech.hello(4, 5, 6), now) == []
    sent = speech.split(session.data_to_send())
    assert [kind for kind, _, _ in sent] == [9, 5]
    assert session.receive(speech.features(DPID, sent[1][1]), now) == []
    ((kind, xid, body),) = speech.split(session.data_to_send())
    assert (kind, body[:2]) == (18, b"\0\x0d")
    return session, sent[1][1], xid


def up(speech: Any, now: float = 0.0) -> Session:
    session, _, xid = greeted(speech, now)
    reply = speech.multipart(13, speech.port(1, "r1") + speech.port(2, "r2", down=True), xid)
    (event,) = session.receive(reply, now)
    assert isinstance(event, SwitchUp)
    assert event.dpid == DPID
    assert [(port.port_no, port.name, port.up) for port in event.ports] == [
        (1, "r1", True),
        (2, "r2", False),
    ]
    assert session.up
    return session


def test_the_handshake_gives_the_switch_and_its_ports(speech: Any) -> None:
    up(speech)


def test_the_handshake_works_byte_by_byte(speech: Any) -> None:
    session = Session(0.0)
    for byte in speech.hello(4):
        session.receive(bytes([byte]), 0.0)
    assert [kind for kind, _, _ in speech.split(session.data_to_send())] == [0, 9, 5]


def test_a_hello_without_bitmap_counts_by_its_version(speech: Any) -> None:
    session = Session(0.0)
    session.receive(speech.message(0, version=5), 0.0)
    assert len(speech.split(session.data_to_send())) == 3


@pytest.mark.parametrize("versions", [(1,), (5, 6), (1, 2, 3)])
def test_a_switch_without_openflow_13_is_told_so(speech: Any, versions: tuple[int, ...]) -> None:
    session = Session(0.0)
    session.data_to_send()
    with pytest.raises(ProtocolError, match=r"OpenFlow 1\.3 is needed; offered: wire versions"):
        session.receive(speech.hello(*versions), 0.0)
    ((kind, _, body),) = speech.split(session.data_to_send())
    assert (kind, body[:4]) == (1, bytes(4))
    assert b"OpenFlow 1.3 is needed" in body
    assert session.next_timer() is None
    assert session.receive(b"anything", 1.0) == []
    with pytest.raises(MisuseError):
        session.barrier()


def test_a_hello_of_an_old_switch_without_bitmap_is_refused(speech: Any) -> None:
    with pytest.raises(ProtocolError, match="up to wire version 1"):
        Session(0.0).receive(speech.message(0, version=1), 0.0)


def test_anything_before_hello_is_refused(speech: Any) -> None:
    with pytest.raises(ProtocolError, match="before HELLO"):
        Session(0.0).receive(speech.message(2), 0.0)
    with pytest.raises(ProtocolError, match=r"refused OpenFlow 1\.3: b'no way'"):
        Session(0.0).receive(speech.error(0, 0, 0, b"no way"), 0.0)


def test_anything_twice_is_refused(speech: Any) -> None:
    with pytest.raises(ProtocolError, match="Hello in the middle"):
        up(speech).receive(speech.hello(4), 0.0)
    with pytest.raises(ProtocolError, match="FeaturesReply in the middle"):
        up(speech).receive(speech.features(1, 1), 0.0)


def test_a_refused_handshake_ends_the_session(speech: Any) -> None:
    session, _, xid = greeted(speech)
    with pytest.raises(ProtocolError, match="refused the handshake: port desc request"):
        session.receive(speech.error(1, 2, xid), 0.0)


def test_an_echo_is_answered_with_its_data(speech: Any) -> None:
    session = up(speech)
    session.receive(speech.message(2, b"ping", xid=77), 0.0)
    assert speech.split(session.data_to_send()) == [(3, 77, b"ping")]


def test_silence_is_asked_about_every_five_seconds_and_ends_after_fifteen(speech: Any) -> None:
    session = up(speech, 100.0)
    assert session.next_timer() == 105.0
    assert session.handle_timer(104.9) == []
    assert session.data_to_send() == b""
    for now in (105.0, 110.0):
        assert session.next_timer() == now
        assert session.handle_timer(now) == []
        assert [kind for kind, _, _ in speech.split(session.data_to_send())] == [2]
    assert session.next_timer() == 115.0
    assert session.handle_timer(115.0) == [Lost("nothing heard for 15.0 s")]
    assert session.next_timer() is None
    assert not session.up


def test_any_message_ends_the_silence(speech: Any) -> None:
    session = up(speech, 0.0)
    session.handle_timer(5.0)
    session.receive(speech.message(3), 6.0)
    assert session.next_timer() == 11.0
    session.receive(speech.message(3)[:5], 10.0)  # half a message is no sign of life
    assert session.next_timer() == 11.0


def test_a_handshake_that_drags_on_is_given_up(speech: Any) -> None:
    session = Session(0.0)
    session.receive(speech.hello(4), 9.0)
    assert session.next_timer() == 10.0
    assert session.handle_timer(10.0) == [Lost("nothing heard for 1.0 s during the handshake")]


def test_an_error_names_the_request(speech: Any) -> None:
    session = up(speech)
    xid = session.send(FlowMod(Command.ADD), "rule of channel news")
    barrier = session.barrier()
    events = session.receive(
        speech.error(4, 9, xid) + speech.message(21, xid=barrier) + speech.error(4, 9, xid), 0.0
    )
    assert events == [
        Refused(xid, 4, 9, "rule of channel news"),
        BarrierReply(xid=barrier),
        Refused(xid, 4, 9, None),
    ]


def test_descriptions_of_requests_are_bounded(speech: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session_module, "_MAX_DESCRIBED", 3)
    session = up(speech)
    xids = [session.send(FlowMod(Command.ADD), f"rule {number}") for number in range(4)]
    events = session.receive(b"".join(speech.error(4, 9, xid) for xid in xids), 0.0)
    assert [event.request for event in events if isinstance(event, Refused)] == [
        None,
        "rule 1",
        "rule 2",
        "rule 3",
    ]


def test_answers_in_parts_are_joined_by_xid(speech: Any) -> None:
    session = up(speech)
    first = session.ask(MultipartRequest(MultipartType.PORT_DESC))
    second = session.ask(MultipartRequest(MultipartType.PORT_DESC))
    port = [speech.port(number, f"p{number}") for number in range(4)]
    parts = [
        speech.multipart(13, port[0], first, more=True),
        speech.multipart(13, port[1], second, more=True),
        speech.multipart(13, port[2], first),
        speech.multipart(13, b"", second),
        speech.multipart(13, port[3], first),  # nobody waits for this one any more
    ]
    events = session.receive(b"".join(parts), 0.0)
    assert [
        (event.xid, [entry.name for entry in event.entries])
        for event in events
        if isinstance(event, Answer)
    ] == [(first, ["p0", "p2"]), (second, ["p1"])]


def test_an_answer_to_another_question_is_refused(speech: Any) -> None:
    session = up(speech)
    xid = session.ask(MultipartRequest(MultipartType.FLOW))
    with pytest.raises(ProtocolError, match="asked for FLOW, answered with type 13"):
        session.receive(speech.multipart(13, speech.port(1, "x"), xid), 0.0)


def test_an_endless_answer_is_refused(speech: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session_module, "MAX_ANSWER", 200)
    session = up(speech)
    xid = session.ask(MultipartRequest(MultipartType.PORT_DESC))
    part = speech.multipart(13, speech.port(1, "x"), xid, more=True)
    session.receive(part, 0.0)
    session.receive(part, 0.0)
    with pytest.raises(ProtocolError, match="more than 200 bytes"):
        session.receive(part, 0.0)


def test_news_before_the_handshake_is_complete_is_passed_over(speech: Any) -> None:
    session, _, _ = greeted(speech)
    assert session.receive(speech.port_status(0, speech.port(3, "p3")), 0.0) == []


def test_news_of_ports_and_packets_are_handed_on(speech: Any, captures: dict[str, bytes]) -> None:
    session = up(speech)
    news = speech.port_status(1, speech.port(2, "r2")) + captures["packet_in"]
    status, packet = session.receive(news + speech.message(29, b"??"), 0.0)
    assert isinstance(status, PortStatus)
    assert status.reason is PortReason.DELETE
    assert isinstance(packet, PacketIn)
    assert packet.match == Match(in_port=1)


def test_xids_never_become_zero(speech: Any) -> None:
    session = up(speech)
    session._xid = 0xFFFFFFFE
    assert [session.barrier() for _ in range(3)] == [0xFFFFFFFF, 1, 2]


@given(st.binary(max_size=200), st.booleans())
def test_any_bytes_give_events_or_the_one_error(data: bytes, whole: bool) -> None:
    session = Session(0.0)
    prefix = struct.pack("!BBHI", 4, 0, 8, 0)
    pieces = [prefix + data] if whole else [bytes([byte]) for byte in prefix + data]
    try:
        for piece in pieces:
            session.receive(piece, 0.0)
    except ProtocolError:
        assert session.receive(data, 0.0) == []
