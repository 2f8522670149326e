"""SIP messages: what is read, what is refused, what is answered."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from anabranch.services.blocks import sip
from anabranch.services.blocks.sip import SipError

INVITE = (
    b"INVITE sip:bob@biloxi.example.com SIP/2.0\r\n"
    b"Via: SIP/2.0/UDP client.example.com:5060;branch=z9hG4bK74bf9;rport\r\n"
    b"Max-Forwards: 70\r\n"
    b'From: "Alice; tag=not, \\"this\\"" <sip:alice@example.com;tag=nor-this>;tag=9fxced76sl\r\n'
    b"To: Bob <sip:bob@biloxi.example.com>\r\n"
    b"Call-ID: 3848276298220188511@atlanta.example.com\r\n"
    b"CSeq: 1 INVITE\r\n"
    b"Content-Length: 4\r\n\r\nv=0\n"
)


def changed(old: bytes, new: bytes) -> bytes:
    assert old in INVITE
    return INVITE.replace(old, new)


def test_a_request_is_read() -> None:
    message = sip.parse(INVITE)
    assert (message.method, message.uri) == (b"INVITE", b"sip:bob@biloxi.example.com")
    assert (message.from_tag, message.to_tag) == (b"9fxced76sl", b"")
    assert message.cseq == (1, b"INVITE")
    assert message.via.branch == b"z9hG4bK74bf9"
    assert (message.via.host, message.via.port) == (b"client.example.com", 5060)
    assert message.body == b"v=0\n"


def test_compact_forms_and_folds_are_the_long_forms() -> None:
    """RFC 3261, 7.3.1 and 7.3.3; as in the torture test of RFC 4475, 3.1.1.1."""
    compact = (
        b"OPTIONS sip:u@example.com SIP/2.0\r\n"
        b"v :  SIP  / 2.0\r\n /UDP\r\n    192.0.2.2:5061  ;branch = 390skdjuw , SIP/2.0/TCP a\r\n"
        b"t: <sip:vivekg@example.com> ;  tag = 1918181833n\r\n"
        b"f: sip:a@example.com;tag=1\r\ni: x\r\nCSEQ: 9 OPTIONS\r\nl: 0\r\n\r\n"
    )
    message = sip.parse(compact)
    assert message.via == sip.Via(b"UDP", b"192.0.2.2", 5061, {b"branch": b"390skdjuw"})
    assert message.to_tag == b"1918181833n"
    assert message.get(b"content-length") == b"0"


def test_a_response_is_read() -> None:
    message = sip.parse(
        changed(b"INVITE sip:bob@biloxi.example.com SIP/2.0", b"SIP/2.0 180 Ringing")
    )
    assert (message.method, message.status, message.cseq) == (b"", 180, (1, b"INVITE"))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"SIP/2.0\r\nVia", b"SIP/3.0\r\nVia"),
        (b"INVITE sip:bob@biloxi.example.com", b"INVITE  sip:bob@biloxi.example.com"),
        (b"CSeq: 1 INVITE", b"CSeq: 1 BYE"),
        (b"CSeq: 1 INVITE", b"CSeq: 99999999999 INVITE"),
        (b"Call-ID: 3848276298220188511@atlanta.example.com\r\n", b""),
        (b"Call-ID: 3848276298220188511@atlanta.example.com", b"Call-ID:"),
        (b"Max-Forwards: 70", b"To: <sip:another@example.com>"),
        (b"Max-Forwards: 70", b"no header"),
        (b"Max-Forwards: 70\r\n", b"Max-Forwards: 70\n"),
        (b"Max-Forwards: 70", b"Content-Length: 3"),
        (b"Content-Length: 4", b"Content-Length: 5"),
        (b"Content-Length: 4", b"Content-Length: -4"),
        (b"SIP/2.0/UDP client", b"SIP/2.0/UDP @client"),
        (b":5060;branch", b":99999;branch"),
        (b"\r\n\r\n", b"\r\n"),
        (b"Max-Forwards: 70", b"\r\n".join([b"X: y"] * 300)),
    ],
)
def test_what_breaks_the_rules_is_refused(old: bytes, new: bytes) -> None:
    with pytest.raises(SipError):
        sip.parse(changed(old, new))


def test_a_response_repeats_what_it_must() -> None:
    """RFC 3261, 8.2.6: all Vias in order, From, To with a tag, Call-ID, CSeq; RFC 3581, 4."""
    two = sip.parse(changed(b"Max-Forwards: 70", b"Via: SIP/2.0/UDP proxy;branch=z9hG4bKx"))
    answer = sip.respond(
        two, 503, b"Service Unavailable", to_tag=b"t1", source=(b"192.0.2.9", 40000),
        headers=[(b"Retry-After", b"5")],
    )  # fmt: skip
    read = sip.parse(answer)
    assert read.status == 503
    assert read.values(b"via") == [
        b"SIP/2.0/UDP client.example.com:5060;branch=z9hG4bK74bf9;rport=40000;received=192.0.2.9",
        b"SIP/2.0/UDP proxy;branch=z9hG4bKx",
    ]
    assert read.get(b"from") == two.get(b"from")
    assert read.to_tag == b"t1"
    assert (read.call_id, read.cseq) == (two.call_id, two.cseq)
    assert read.get(b"retry-after") == b"5"
    assert read.body == b""


def test_a_tag_that_is_there_stays() -> None:
    request = sip.parse(changed(b"biloxi.example.com>", b"biloxi.example.com>;tag=old"))
    assert sip.parse(sip.respond(request, 503, b"No", to_tag=b"new")).to_tag == b"old"


def test_the_ack_to_a_stateless_answer_is_known() -> None:
    request = sip.parse(INVITE)
    tag = sip.stateless_tag(request, b"key")
    assert tag == sip.stateless_tag(sip.parse(INVITE), b"key")
    ack = changed(b"INVITE", b"ACK").replace(b"biloxi.example.com>", b"b>;tag=" + tag)
    assert sip.is_ack_to(sip.parse(ack), b"key")
    assert not sip.is_ack_to(sip.parse(ack), b"another key")
    assert not sip.is_ack_to(sip.parse(ack.replace(tag, b"foreign")), b"key")


@given(st.binary(max_size=600))
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    try:
        message = sip.parse(data)
    except SipError:
        return
    sip.respond(message, 503, b"No", to_tag=b"t", source=(b"192.0.2.1", 1))


@given(st.data())
def test_a_damaged_request_is_read_or_refused(data: st.DataObject) -> None:
    at = data.draw(st.integers(0, len(INVITE) - 1))
    end = data.draw(st.integers(at, min(at + 40, len(INVITE))))
    damaged = INVITE[:at] + data.draw(st.binary(max_size=40)) + INVITE[end:]
    try:
        message = sip.parse(damaged)
    except SipError:
        return
    answer = sip.parse(sip.respond(message, 503, b"No", to_tag=b"t", source=(b"192.0.2.1", 1)))
    assert answer.call_id == message.call_id
    assert len(answer.values(b"via")) == len(message.values(b"via"))
    assert sip.stateless_tag(message, b"k")
