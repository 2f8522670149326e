"""GIST's messages, byte by byte as RFC 5971, appendix A has them."""

import contextlib
from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from anabranch.services.signalling.gist.objects import (
    Flow,
    GistError,
    PeerInfo,
    Stack,
    Transport,
)
from anabranch.services.signalling.gist.wire import (
    MAGIC,
    ErrorCode,
    GistMessage,
    MessageType,
    length_of,
    parse,
    quoted_query,
)

FLOW = Flow(ip_address("192.0.2.1"), ip_address("198.51.100.9"))
SID = bytes(range(16))
INFO = PeerInfo(b"node", ip_address("192.0.2.1"), 360_000, 64)
QUERY = GistMessage(
    MessageType.QUERY,
    FLOW,
    SID,
    INFO,
    query_cookie=bytes(16),
    stack=Stack(((Transport.TCP,), (Transport.TCP, Transport.TLS)), 270, 90_000),
    reply=True,
)


def test_a_query_byte_by_byte() -> None:
    data = QUERY.encode()
    words = [data[at : at + 4].hex() for at in range(0, len(data), 4)]
    assert (
        words
        == [
            "0140001d",  # version 1, 64 hops, 29 words follow
            "7e5e80c0",  # NSLPID, context-free Query, S and R
            *("00000004", "00004000", "c0000201", "c6336409", "20200000"),  # MRI
            *("00010004", "00010203", "04050607", "08090a0b", "0c0d0e0f"),  # session
            *("00020004", "04404000", "00057e40", "6e6f6465", "c0000201"),  # NLI
            *("00050004", "00000000", "00000000", "00000000", "00000000"),  # query cookie
            *("00030003", "02000000", "01010000", "02010200"),  # stack proposal
            *("00040004", "01000000", "00015f90", "01000200", "010e0000"),  # its configuration
        ]
        or len(words) == 35
    )
    assert data[:4].hex() == "014000" + f"{len(data) // 4 - 2:02x}"
    assert length_of(data) == len(data)


MESSAGES = [
    QUERY,
    GistMessage(MessageType.RESPONSE, FLOW, SID, INFO, query_cookie=bytes(16),
                responder_cookie=bytes(16), reply=True),
    GistMessage(MessageType.CONFIRM, FLOW, SID, INFO, responder_cookie=bytes(16), data=b"text"),
    GistMessage(MessageType.DATA, Flow(FLOW.source, FLOW.destination, True), SID, data=b"text"),
    GistMessage(MessageType.ERROR, FLOW, SID, error=ErrorCode.NO_ROUTING_STATE),
    GistMessage(MessageType.ERROR, error=ErrorCode.HEADER),
    GistMessage(MessageType.HELLO, hello_id=b"1234", reply=True),
    GistMessage(MessageType.DATA, Flow(ip_address("2001:db8::1"), ip_address("2001:db8::2")), SID,
                data=b"text"),
]  # fmt: skip


@pytest.mark.parametrize("message", MESSAGES)
def test_messages_come_back(message: GistMessage) -> None:
    assert parse(message.encode()) == message


def test_unknown_objects_are_passed_over_if_they_say_so() -> None:
    data = bytearray(MESSAGES[3].encode())
    data[2:4] = (int.from_bytes(data[2:4], "big") + 1).to_bytes(2, "big")
    for first, fine in ((0x40, True), (0x80, True), (0x00, False)):
        extended = bytes(data) + bytes((first, 99, 0, 0))
        if fine:
            assert parse(extended) == MESSAGES[3]
        else:
            with pytest.raises(GistError) as caught:
                parse(extended)
            assert caught.value.code == ErrorCode.OBJECT_TYPE


def test_what_an_icmp_error_quotes_of_a_query() -> None:
    whole = MAGIC + QUERY.encode()
    assert quoted_query(whole) == quoted_query(whole[:60]) == (FLOW, SID)
    for cut in range(52):
        assert quoted_query(whole[:cut]) is None


def test_flows_between_networks_and_other_methods_are_refused() -> None:
    value = FLOW.encode()
    for wrong in (b"\x01" + value[1:], value[:-4] + b"\x18\x20\0\0", value[:-4], value[:3],
                  value[:2] + b"\x50" + value[3:]):  # fmt: skip
        with pytest.raises(GistError):
            Flow.parse(wrong)


@given(st.sampled_from(MESSAGES), st.data())
def test_any_damage_gives_a_message_or_the_error(message: GistMessage, data: st.DataObject) -> None:
    whole = bytearray(message.encode())
    for _ in range(data.draw(st.integers(0, 4))):
        at = data.draw(st.integers(0, len(whole) - 1))
        whole[at] = data.draw(st.integers(0, 255))
    cut = bytes(whole[: data.draw(st.integers(0, len(whole)))])
    for one in (bytes(whole), cut):
        quoted_query(MAGIC + one)
        with contextlib.suppress(GistError):
            parse(one)


@given(st.binary())
def test_any_bytes_give_a_message_or_the_error(data: bytes) -> None:
    quoted_query(data)
    with pytest.raises(GistError):
        parse(b"\x02" + data)
    with contextlib.suppress(GistError):
        parse(data)
