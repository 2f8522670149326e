"""The templates against the ordinary codec: the same bytes, and one error for wrong ones."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from anabranch.fabric.errors import MisuseError, ProtocolError
from anabranch.fabric.openflow.actions import NO_BUFFER, PORT_MAX, ApplyActions, Output
from anabranch.fabric.openflow.codec import decode, encode
from anabranch.fabric.openflow.messages import Command, FlowMod, PacketIn, PacketOut
from anabranch.fabric.openflow.oxm import Match, encode_match
from anabranch.fabric.openflow.templates import VERSIONS, flow_add, packet_out, parse_packet_in

U8, U16 = st.integers(0, 0xFF), st.integers(0, 0xFFFF)
U32, U64 = st.integers(0, 0xFFFFFFFF), st.integers(0, 0xFFFFFFFFFFFFFFFF)
PORT = st.integers(1, PORT_MAX)
MAC = st.binary(min_size=6, max_size=6)
VERSION = st.sampled_from(sorted(VERSIONS))
DATA = st.binary(max_size=200)
MATCH = st.builds(
    Match,
    in_port=PORT,
    metadata=U64 | st.none(),
    tunnel_id=U64 | st.none(),
    other=st.sampled_from([b"", bytes.fromhex("80006001ff")]),
)


def packet_in(version: int, xid: int, head: tuple[int, ...], match: bytes, data: bytes) -> bytes:
    body = struct.pack("!IHBBQ", *head) + match + b"\0\0" + data
    return struct.pack("!BBHI", version, 10, 8 + len(body), xid) + body


@given(VERSION, U32, st.tuples(U32, U16, st.integers(0, 5), U8, U64), MATCH, DATA)
def test_a_packet_in_is_read_as_the_codec_reads_it(version, xid, head, match, data):
    raw = packet_in(version, xid, head, encode_match(match), data)
    *fields, in_port, data_at = parse_packet_in(raw)
    message = decode(raw)
    assert isinstance(message, PacketIn)
    assert fields == [
        message.xid,
        message.buffer_id,
        message.total_len,
        message.reason,
        message.table_id,
        message.cookie,
    ]
    assert in_port == message.match.in_port
    assert raw[data_at:] == message.data == data


def test_in_port_need_not_come_first():
    """Nothing tells a switch the order of fields that do not require each other."""
    port, metadata = struct.pack("!II", 0x80000004, 7), struct.pack("!IQ", 0x80000408, 9)
    match = struct.pack("!HH", 1, 4 + 12 + 8) + metadata + port
    raw = packet_in(4, 5, (NO_BUFFER, 3, 1, 2, 6), match, b"abc")
    assert parse_packet_in(raw) == (5, NO_BUFFER, 3, 1, 2, 6, 7, len(raw) - 3)


@given(st.binary(max_size=120))
def test_nonsense_is_a_protocol_error_or_consistent(raw):
    try:
        *_, data_at = parse_packet_in(raw)
    except ProtocolError:
        return
    assert 34 <= data_at <= len(raw)


@given(VERSION, U32, MATCH, DATA, st.data())
def test_a_broken_packet_in_is_a_protocol_error_or_still_whole(version, xid, match, data, draw):
    raw = bytearray(packet_in(version, xid, (1, 2, 0, 3, 4), encode_match(match), data))
    place = draw.draw(st.integers(0, len(raw) - 1))
    raw[place] = draw.draw(U8)
    try:
        *_, data_at = parse_packet_in(bytes(raw))
    except ProtocolError:
        return
    assert 34 <= data_at <= len(raw)


@given(VERSION, MATCH, st.integers(0, 60))
def test_a_packet_in_cut_short_is_a_protocol_error(version, match, cut):
    raw = packet_in(version, 1, (1, 2, 0, 3, 4), encode_match(match), b"")
    with pytest.raises(ProtocolError):
        parse_packet_in(raw[: max(0, len(raw) - 1 - cut)])


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ((0, b"\x07"), "a version that has no such message"),
        ((1, b"\x0b"), "another message"),
        ((2, b"\xff\xff"), "a length beyond its end"),
        ((24, b"\x00\x00"), "a match that is not of the OXM kind"),
        ((28, b"\x80\x00\x01"), "a match without in_port"),
        ((26, b"\x00\x04"), "an empty match"),
    ],
)
def test_what_is_no_packet_in(change, why):
    raw = bytearray(packet_in(4, 1, (1, 2, 0, 3, 4), encode_match(Match(in_port=1)), b""))
    parse_packet_in(bytes(raw))
    at, new = change
    raw[at : at + len(new)] = new
    with pytest.raises(ProtocolError):
        parse_packet_in(bytes(raw))


@given(
    VERSION,
    st.tuples(U8, U16, U64, U16, st.none() | U16, st.sampled_from([0, 1])),
    st.tuples(U32, PORT, MAC, MAC, PORT),
)
def test_a_flow_mod_is_the_codecs(version, entry, values):
    table, priority, cookie, idle_timeout, eth_type, flags = entry
    xid, in_port, eth_dst, eth_src, port_no = values
    pack = flow_add(
        version,
        table=table,
        priority=priority,
        cookie=cookie,
        idle_timeout=idle_timeout,
        eth_type=eth_type,
        flags=flags,
    )
    ordinary = FlowMod(
        Command.ADD,
        Match(
            in_port=in_port, eth_dst=eth_dst.hex(":"), eth_src=eth_src.hex(":"), eth_type=eth_type
        ),
        (ApplyActions((Output(port_no),)),),
        priority=priority,
        table_id=table,
        cookie=cookie,
        idle_timeout=idle_timeout,
        flags=flags,
        xid=xid,
    )
    assert pack(xid, NO_BUFFER, in_port, eth_dst, eth_src, port_no) == encode(ordinary, version)
    held = pack(xid, 77, in_port, eth_dst, eth_src, port_no)
    assert struct.unpack_from("!I", held, 32) == (77,)  # ofp_flow_mod.buffer_id


@given(VERSION, U32, PORT, PORT, DATA)
def test_a_packet_out_is_the_codecs(version, xid, in_port, port_no, data):
    ordinary = PacketOut(data, (Output(port_no),), in_port, xid=xid)
    assert packet_out(version)(xid, in_port, port_no, data) == encode(ordinary, version)


def test_what_no_template_can_express():
    numbers = {"table": 0, "priority": 1, "cookie": 2, "idle_timeout": 3}
    for version in (1, 3, 7):
        with pytest.raises(MisuseError):
            flow_add(version, **numbers)
        with pytest.raises(MisuseError):
            packet_out(version)
    for name in numbers:
        with pytest.raises(MisuseError):
            flow_add(4, **{**numbers, name: 1 << 64})
    with pytest.raises(MisuseError):
        flow_add(4, **numbers, eth_type=1 << 16)
