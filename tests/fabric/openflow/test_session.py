"""The session of one switch, its time stepped by hand."""

import struct
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from anabranch.fabric.errors import MisuseError, ProtocolError
from anabranch.fabric.openflow import session as session_module
from anabranch.fabric.openflow.messages import (
    BarrierReply,
    Command,
    ControllerRole,
    FlowMod,
    MultipartRequest,
    MultipartType,
    PacketIn,
    PortReason,
    PortStatus,
    RoleReply,
    RoleStatus,
)
from anabranch.fabric.openflow.oxm import Match
from anabranch.fabric.openflow.session import Answer, Lost, Refused, Session, SwitchUp

DPID = 0xAB


def greeted(speech: Any, now: float = 0.0) -> tuple[Session, int, int]:
    """Return a session after HELLO and FEATURES, with the xids of both requests answered next."""
    session = Session(now)
    assert [kind for kind, _, _ in speech.split(session.data_to_send())] == [0]
    assert session.receive(speech.hello(4), now) == []
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
    for version, common in ((4, 4), (5, 5), (6, 6), (9, 6)):
        session = Session(0.0)
        session.receive(speech.message(0, version=version), 0.0)
        assert session.version == common
    with pytest.raises(ProtocolError, match="up to wire version 4"):
        Session(0.0, versions=frozenset({5, 6})).receive(speech.message(0, version=4), 0.0)


@pytest.mark.parametrize(
    ("offered", "ours", "common"),
    [
        ((4, 5, 6), {4, 5, 6}, 6),
        ((1, 4, 5), {4, 5, 6}, 5),
        ((1, 2, 3, 4, 7), {4, 5, 6}, 4),
        ((4, 5, 6), {4}, 4),
        ((5, 6), {4, 5}, 5),
    ],
)
def test_the_highest_common_version_is_spoken(
    speech: Any, offered: tuple[int, ...], ours: set[int], common: int
) -> None:
    session = Session(0.0, versions=frozenset(ours))
    hello = session.data_to_send()
    assert hello[0] == session.version == max(ours)
    assert int.from_bytes(hello[-4:], "big") == sum(1 << version for version in ours)
    session.receive(speech.hello(*offered), 0.0)
    assert session.version == common
    sent = session.data_to_send()
    assert [kind for kind, _, _ in speech.split(sent)] == [9, 5]
    assert sent[0] == common


@pytest.mark.parametrize("version", [4, 5, 6])
def test_the_handshake_of_every_version_says_which_it_was(speech: Any, version: int) -> None:
    session = Session(0.0)
    session.receive(speech.hello(version), 0.0)
    xid = speech.split(session.data_to_send())[1][1]
    session.receive(speech.features(DPID, xid, version=version), 0.0)
    ((_, xid, _),) = speech.split(session.data_to_send())
    port = speech.port(1, "p1", down=True, version=version)
    (event,) = session.receive(speech.multipart(13, port, xid, version=version), 0.0)
    assert isinstance(event, SwitchUp)
    assert event.version == version
    assert [(port.port_no, port.name, port.up) for port in event.ports] == [(1, "p1", False)]


@pytest.mark.parametrize("versions", [(1,), (1, 2, 3), (7,)])
def test_a_switch_of_no_version_of_ours_is_told_so(speech: Any, versions: tuple[int, ...]) -> None:
    session = Session(0.0)
    session.data_to_send()
    with pytest.raises(
        ProtocolError, match=r"1\.3, 1\.4 or 1\.5 is needed; offered: wire versions"
    ):
        session.receive(speech.hello(*versions), 0.0)
    ((kind, _, body),) = speech.split(session.data_to_send())
    assert (kind, body[:4]) == (1, bytes(4))
    assert b"OpenFlow 1.3, 1.4 or 1.5 is needed" in body
    assert session.next_timer() is None
    assert session.receive(b"anything", 1.0) == []
    with pytest.raises(MisuseError):
        session.barrier()


def test_only_versions_that_exist_can_be_offered() -> None:
    for versions in (frozenset[int](), frozenset({3, 4})):
        with pytest.raises(MisuseError):
            Session(0.0, versions=versions)


def test_a_version_is_kept_to_the_end(speech: Any) -> None:
    session = up(speech)
    refusal = session.receive(speech.error(1, 0, 5, version=6), 0.0)
    assert refusal == [Refused(5, 1, 0, None)]  # who does not know our version says so in another
    with pytest.raises(ProtocolError, match="version 6 in the middle of a connection of 4"):
        session.receive(speech.message(21, version=6), 0.0)


def test_a_hello_of_an_old_switch_without_bitmap_is_refused(speech: Any) -> None:
    with pytest.raises(ProtocolError, match="up to wire version 1"):
        Session(0.0).receive(speech.message(0, version=1), 0.0)


def test_anything_before_hello_is_refused(speech: Any) -> None:
    with pytest.raises(ProtocolError, match="before HELLO"):
        Session(0.0).receive(speech.message(2), 0.0)
    with pytest.raises(ProtocolError, match="refused our versions: b'no way'"):
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
    status, packet = session.receive(news + speech.message(99, b"??"), 0.0)
    assert isinstance(status, PortStatus)
    assert status.reason is PortReason.DELETE
    assert isinstance(packet, PacketIn)
    assert packet.match == Match(in_port=1)


def test_xids_never_become_zero(speech: Any) -> None:
    session = up(speech)
    session._xid = 0xFFFFFFFE
    assert [session.barrier() for _ in range(3)] == [0xFFFFFFFF, 1, 2]


def test_a_refusal_is_read_as_words(speech: Any) -> None:
    session = up(speech)
    assert [
        event.reason
        for event in session.receive(
            speech.error(5, 1, 1)
            + speech.error(6, 0, 2)
            + speech.error(11, 0, 3)
            + speech.error(0xFFFF, 2302, 4)
            + speech.error(17, 2, 4)
            + speech.error(5, 0, 5)
            + speech.error(77, 3, 6),
            0.0,
        )
        if isinstance(event, Refused)
    ] == [
        "table full",
        "group exists",
        "stale generation id",
        "unknown bundle",
        "unknown bundle",
        None,
        None,
    ]


def test_a_role_is_asked_for_and_its_loss_is_heard_of(speech: Any) -> None:
    session = up(speech)
    xid = session.ask_role(ControllerRole.MASTER, 2**63)
    ((kind, sent, body),) = speech.split(session.data_to_send())
    assert (kind, sent, body) == (24, xid, struct.pack("!I4xQ", 2, 2**63))
    reply = speech.message(25, body, xid=xid)
    status = speech.message(30, struct.pack("!IB3xQ", 3, 0, 7))
    assert session.receive(reply + status, 0.0) == [
        RoleReply(ControllerRole.MASTER, 2**63, xid=xid),
        RoleStatus(ControllerRole.SLAVE, 0, 7),
    ]
    stale = session.ask_role(ControllerRole.MASTER, 1)
    assert session.receive(speech.error(11, 0, stale), 0.0) == [
        Refused(stale, 11, 0, "role master")
    ]


def test_the_hot_path_answers_packets_unread(speech: Any, captures: dict[str, bytes]) -> None:
    packet = captures["packet_in"]
    seen = []

    def hot(raw: bytes) -> bytes | None:
        seen.append(raw)
        return b"at once" if len(seen) == 1 else None

    session, _, xid = greeted(speech)
    session.hot = hot
    session.receive(packet, 0.0)
    assert seen == []  # not before the session is up
    session.receive(speech.multipart(13, b"", xid), 0.0)
    echo = speech.message(2, b"!", xid=9)
    (event,) = session.receive(packet + echo + packet, 3.0)
    assert isinstance(event, PacketIn)
    assert seen == [packet, packet]
    assert session.data_to_send() == b"at once" + speech.message(3, b"!", xid=9)
    assert session.next_timer() == 8.0


@given(st.binary(max_size=200), st.booleans())
def test_any_bytes_give_events_or_the_one_error(data: bytes, whole: bool) -> None:
    session = Session(0.0)
    prefix = struct.pack("!BBHI", 6, 0, 8, 0)
    pieces = [prefix + data] if whole else [bytes([byte]) for byte in prefix + data]
    try:
        for piece in pieces:
            session.receive(piece, 0.0)
    except ProtocolError:
        assert session.receive(data, 0.0) == []
