"""DHCP messages: what RFC 2131 shows, and whatever else arrives on port 67."""

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.fabric.host_services.line import A, Dhcp

from anabranch.fabric.errors import ProtocolError
from anabranch.fabric.host_services.dhcp_message import (
    BOOTREPLY,
    BOOTREQUEST,
    DhcpMessage,
    DhcpType,
    parse_dhcp,
)

# REQUEST of dhclient 4.4, as captured: options 53, 54, 50, 12, 55; padded to 300 bytes.
REQUEST = bytes.fromhex(
    "010106008f2b4c7100000000" + "00" * 16 + "02aabbccdd01" + "00" * 10 + "00" * 192
    + "63825363" + "350103" + "36040a000009" + "32040a000065" + "0c0468656c6f"
    + "370d011c02030f06770c2c2f1a792a" + "ff"
)  # fmt: skip


def test_a_request():
    message = parse_dhcp(REQUEST + bytes(300 - len(REQUEST)))
    assert message == DhcpMessage(
        BOOTREQUEST, DhcpType.REQUEST, 0x8F2B4C71, "02:aa:bb:cc:dd:01", server_id="10.0.0.9"
    )


def test_an_ack():
    data = Dhcp(5, op=2, ciaddr="10.0.0.5", yiaddr="10.0.0.7").message()
    message = parse_dhcp(data)
    assert (message.op, message.type, message.chaddr) == (BOOTREPLY, DhcpType.ACK, A)
    assert (message.ciaddr, message.yiaddr, message.server_id) == ("10.0.0.5", "10.0.0.7", None)


def test_an_option_in_two_parts_is_joined():
    """RFC 3396: also one as short as this."""
    data = Dhcp(1, options=bytes.fromhex("36020a00" + "00" + "36020009")).message()
    assert parse_dhcp(data).server_id == "10.0.0.9"


@pytest.mark.parametrize(
    "data",
    [
        b"",
        REQUEST[:239],  # the cookie cut
        REQUEST.replace(b"\x63\x82\x53\x63", b"\x63\x82\x53\x64"),  # plain BOOTP
        REQUEST[:240] + b"\xff",  # no message type
        REQUEST[:240] + b"\x35\x02\x03\x03\xff",  # a message type of two bytes
        REQUEST[:240] + b"\x35\x01\x09\xff",  # DHCPFORCERENEW
        REQUEST[:240] + b"\x35\x01",  # an option cut
        REQUEST[:240] + b"\x35",
        REQUEST[:240] + b"\x35\x01\x03\x36\x03\x0a\x00\x00\xff",  # half an address
        b"\x03" + REQUEST[1:],
        REQUEST[:1] + b"\x06" + REQUEST[2:],  # not Ethernet
        REQUEST[:2] + b"\x10" + REQUEST[3:],
        REQUEST + bytes(4096),
        Dhcp(2).message(),  # an OFFER of a client
        Dhcp(3, op=2).message(),
    ],
)
def test_what_is_no_message(data):
    with pytest.raises(ProtocolError):
        parse_dhcp(data)


@given(st.binary(max_size=400))
def test_any_bytes(data):
    with suppress(ProtocolError):
        parse_dhcp(data)


@given(st.binary(max_size=80))
def test_any_options(options):
    with suppress(ProtocolError):
        message = parse_dhcp(REQUEST[:240] + options)
        assert message.op == BOOTREQUEST
        assert isinstance(message.type, DhcpType)


@given(
    st.sampled_from([1, 3, 4, 7, 8]),
    st.binary(min_size=6, max_size=6).map(lambda raw: raw.hex(":")),
    st.ip_addresses(v=4).map(str),
    st.lists(st.tuples(st.integers(55, 254), st.binary(max_size=255)), max_size=5),
)
def test_what_clients_send(kind, mac, address, options):
    encoded = b"".join(bytes((code, len(value))) + value for code, value in options)
    message = parse_dhcp(Dhcp(kind, mac, ciaddr=address, options=encoded).message())
    assert (message.type, message.chaddr) == (kind, mac)
    assert message.ciaddr == (None if address == "0.0.0.0" else address)
