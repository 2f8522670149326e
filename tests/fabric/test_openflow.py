"""The codec against os-ken, against bytes that Open vSwitch sent, and against nonsense."""

import struct
from contextlib import suppress
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from os_ken.ofproto import ofproto_parser, ofproto_v1_3, ofproto_v1_3_parser

from anabranch.fabric.actions import (
    PORT_CONTROLLER,
    PORT_IN_PORT,
    SETTABLE,
    ApplyActions,
    GotoTable,
    Group,
    OtherAction,
    OtherInstruction,
    Output,
    SetField,
    decode_instructions,
    encode_instructions,
)
from anabranch.fabric.errors import MisuseError, ProtocolError
from anabranch.fabric.messages import (
    BarrierRequest,
    Command,
    Desc,
    EchoReply,
    EchoRequest,
    Error,
    FeaturesReply,
    FeaturesRequest,
    FlowMod,
    FlowRemoved,
    FlowStats,
    Hello,
    MultipartReply,
    MultipartRequest,
    MultipartType,
    PacketIn,
    PacketOut,
    Port,
    PortReason,
    PortStats,
    PortStatus,
    SetConfig,
    Unknown,
)
from anabranch.fabric.openflow import Framer, decode, encode
from anabranch.fabric.oxm import FIELDS, Match, decode_match, encode_match
from anabranch.fabric.wire import Reader

DATAPATH = SimpleNamespace(ofproto=ofproto_v1_3, ofproto_parser=ofproto_v1_3_parser)
MAC = st.binary(min_size=6, max_size=6).map(lambda raw: raw.hex(":"))
IPV4 = st.ip_addresses(v=4).map(str)
PREFIX = st.tuples(IPV4, st.integers(1, 32)).map(lambda pair: f"{pair[0]}/{pair[1]}")
U16, U32, U64 = (st.integers(0, 2**bits - 1) for bits in (16, 32, 64))

MATCHES = st.builds(
    Match,
    in_port=st.none() | U32,
    eth_dst=st.none() | MAC,
    eth_src=st.none() | MAC,
    eth_type=st.none() | U16,
    ip_proto=st.none() | st.integers(0, 255),
    ipv4_src=st.none() | IPV4 | PREFIX,
    ipv4_dst=st.none() | IPV4 | PREFIX,
    udp_src=st.none() | U16,
    udp_dst=st.none() | U16,
    arp_op=st.none() | U16,
    arp_tpa=st.none() | IPV4 | PREFIX,
)
ACTIONS = (
    st.builds(Output, st.integers(1, 0xFFFFFF00))
    | st.builds(Output, st.just(PORT_CONTROLLER), U16)
    | st.builds(Group, st.integers(0, 1000))
    | st.builds(SetField, st.sampled_from(["eth_dst", "eth_src"]), MAC)
    | st.builds(SetField, st.sampled_from(["ipv4_dst", "ipv4_src"]), IPV4)
    | st.builds(SetField, st.sampled_from(["udp_dst", "udp_src"]), U16)
)
INSTRUCTIONS = st.lists(
    st.builds(ApplyActions, st.lists(ACTIONS, max_size=6).map(tuple))
    | st.builds(GotoTable, st.integers(1, 254)),
    max_size=2,
).map(tuple)


def oracle(data: bytes) -> Any:
    """Return what os-ken reads in one message."""
    version, kind, length, xid = struct.unpack_from("!BBHI", data)
    return ofproto_parser.msg(DATAPATH, version, kind, length, xid, data)


def theirs_match(match: Any) -> dict[str, Any]:
    return dict(match.items())


def ours_match(match: Match) -> dict[str, Any]:
    """Return a match in os-ken's spelling: masked addresses are pairs."""
    values = {}
    for field in FIELDS:
        value = getattr(match, field.name)
        if isinstance(value, str) and "/" in value:
            address, mask = value.split("/")
            if "." not in mask:
                bits = (0xFFFFFFFF << (32 - int(mask))) & 0xFFFFFFFF
                mask = ".".join(str(byte) for byte in bits.to_bytes(4, "big"))
            value = (address, mask)
        if value is not None:
            values[field.name] = value
    return values


def theirs_instructions(instructions: list[Any]) -> list[Any]:
    found: list[Any] = []
    for instruction in instructions:
        if isinstance(instruction, ofproto_v1_3_parser.OFPInstructionGotoTable):
            found.append(("goto", instruction.table_id))
        else:
            found.append([theirs_action(action) for action in instruction.actions])
    return found


def theirs_action(action: Any) -> tuple[Any, ...]:
    match action:
        case ofproto_v1_3_parser.OFPActionOutput():
            return "output", action.port, action.max_len
        case ofproto_v1_3_parser.OFPActionGroup():
            return "group", action.group_id
        case _:
            return "set", action.key, action.value


def ours_instructions(instructions: tuple[Any, ...]) -> list[Any]:
    found: list[Any] = []
    for instruction in instructions:
        if isinstance(instruction, GotoTable):
            found.append(("goto", instruction.table_id))
        else:
            found.append([ours_action(action) for action in instruction.actions])
    return found


def ours_action(action: Any) -> tuple[Any, ...]:
    match action:
        case Output(port_no, max_len):
            return "output", port_no, max_len
        case Group(group_id):
            return "group", group_id
        case _:
            return "set", action.field, action.value


@given(
    MATCHES, INSTRUCTIONS, st.sampled_from(Command), U16, st.integers(0, 255), U64, U64, U16, U32
)
def test_os_ken_reads_our_flow_mod(
    match: Match,
    instructions: tuple[Any, ...],
    command: Command,
    priority: int,
    table: int,
    cookie: int,
    mask: int,
    timeout: int,
    xid: int,
) -> None:
    mod = FlowMod(
        command,
        match,
        instructions,
        priority=priority,
        table_id=table,
        cookie=cookie,
        cookie_mask=mask,
        idle_timeout=timeout,
        hard_timeout=timeout ^ 1,
        flags=1,
        xid=xid,
    )
    seen = oracle(encode(mod))
    assert (seen.xid, seen.command, seen.priority, seen.table_id) == (xid, command, priority, table)
    assert (seen.cookie, seen.cookie_mask, seen.flags) == (cookie, mask, 1)
    assert (seen.idle_timeout, seen.hard_timeout) == (timeout, timeout ^ 1)
    assert (seen.buffer_id, seen.out_port, seen.out_group) == (0xFFFFFFFF,) * 3
    assert theirs_match(seen.match) == ours_match(match)
    assert theirs_instructions(seen.instructions) == ours_instructions(instructions)


def their_action(action: Any) -> Any:
    """Return one of our actions as os-ken's."""
    parser = ofproto_v1_3_parser
    match action:
        case Output(port_no, max_len):
            return parser.OFPActionOutput(port_no, max_len)
        case Group(group_id):
            return parser.OFPActionGroup(group_id)
        case _:
            return parser.OFPActionSetField(**{action.field: action.value})


def serialized(message: Any, xid: int) -> bytes:
    message.version, message.xid = 4, xid
    message.serialize()
    return bytes(message.buf)


@given(st.lists(ACTIONS, min_size=1, max_size=5).map(tuple), st.binary(max_size=200))
def test_our_packet_out_is_that_of_os_ken(actions: tuple[Any, ...], data: bytes) -> None:
    theirs = ofproto_v1_3_parser.OFPPacketOut(
        DATAPATH, 0xFFFFFFFF, PORT_CONTROLLER, list(map(their_action, actions)), data
    )
    assert encode(PacketOut(data, actions, xid=3)) == serialized(theirs, 3)


def test_os_ken_reads_our_small_requests() -> None:
    hello = oracle(encode(Hello(frozenset({1, 4, 6}), xid=1)))
    assert [element.versions for element in hello.elements] == [[1, 4, 6]]
    config = ofproto_v1_3_parser.OFPSetConfig(DATAPATH, 0, 0xFFFF)
    assert encode(SetConfig(xid=2)) == serialized(config, 2)
    assert oracle(encode(EchoRequest(b"ab"))).data == b"ab"
    assert oracle(encode(EchoReply(b"ab", xid=9))).xid == 9
    error = oracle(encode(Error(0, 0, b"no")))
    assert (error.type, error.code, error.data) == (0, 0, b"no")
    assert encode(FeaturesRequest(xid=5)).hex() == "0405000800000005"
    assert encode(BarrierRequest(xid=6)).hex() == "0414000800000006"


@pytest.mark.parametrize("kind", MultipartType)
def test_our_multipart_requests_are_those_of_os_ken(kind: MultipartType) -> None:
    match = Match(eth_type=0x0800, ipv4_dst="239.0.0.0/8")
    ours = encode(MultipartRequest(kind, port_no=3, table_id=2, match=match, cookie=5, xid=7))
    parser = ofproto_v1_3_parser
    any_ = 0xFFFFFFFF
    their_match = parser.OFPMatch(eth_type=0x0800, ipv4_dst=("239.0.0.0", "255.0.0.0"))
    theirs = {
        MultipartType.DESC: lambda: parser.OFPDescStatsRequest(DATAPATH, 0),
        MultipartType.PORT_DESC: lambda: parser.OFPPortDescStatsRequest(DATAPATH, 0),
        MultipartType.PORT_STATS: lambda: parser.OFPPortStatsRequest(DATAPATH, 0, 3),
        MultipartType.FLOW: lambda: parser.OFPFlowStatsRequest(
            DATAPATH, 0, 2, any_, any_, 5, 0, their_match
        ),
    }[kind]()
    assert ours == serialized(theirs, 7)


def test_what_open_vswitch_sends_is_read_as_os_ken_reads_it(captures: dict[str, bytes]) -> None:
    features, seen = decode(captures["features_reply"]), oracle(captures["features_reply"])
    assert isinstance(features, FeaturesReply)
    assert features.dpid == seen.datapath_id == 2
    assert (features.n_tables, features.capabilities) == (seen.n_tables, seen.capabilities)

    packet, seen = decode(captures["packet_in"]), oracle(captures["packet_in"])
    assert isinstance(packet, PacketIn)
    assert (packet.data, packet.total_len) == (seen.data, seen.total_len)
    assert (packet.reason, packet.table_id, packet.cookie) == (seen.reason, seen.table_id, 2)
    assert ours_match(packet.match) == theirs_match(seen.match) == {"in_port": 1}

    removed, seen = decode(captures["flow_removed"]), oracle(captures["flow_removed"])
    assert isinstance(removed, FlowRemoved)
    assert (removed.cookie, removed.priority, removed.reason) == (77, 77, seen.reason)
    assert removed.packet_count == seen.packet_count
    assert ours_match(removed.match) == theirs_match(seen.match)

    status, seen = decode(captures["port_status"]), oracle(captures["port_status"])
    assert isinstance(status, PortStatus)
    assert status.reason is PortReason.MODIFY
    assert not status.port.up
    assert_port(status.port, seen.desc)

    error, seen = decode(captures["error"]), oracle(captures["error"])
    assert isinstance(error, Error)
    assert (error.type, error.code, error.data) == (seen.type, seen.code, seen.data)

    hello = decode(captures["hello"])
    assert isinstance(hello, Hello)
    assert hello.version == 6
    assert hello.versions == {4, 5, 6}
    assert hello.speaks(4)
    assert decode(captures["echo_reply"]) == EchoReply(b"ping", xid=decode_xid(captures, "echo"))


def decode_xid(captures: dict[str, bytes], name: str) -> int:
    return int.from_bytes(captures[f"{name}_reply"][4:8], "big")


def assert_port(ours: Port, theirs: Any) -> None:
    assert ours.name.encode() == theirs.name.rstrip(b"\0")
    for field in ("port_no", "hw_addr", "config", "state", "curr", "curr_speed", "max_speed"):
        assert getattr(ours, field) == getattr(theirs, field)


def test_statistics_of_open_vswitch_are_read_as_os_ken_reads_them(
    captures: dict[str, bytes],
) -> None:
    ports, seen = decode(captures["multipart_13"]), oracle(captures["multipart_13"])
    assert isinstance(ports, MultipartReply)
    for port, theirs in zip(ports.entries, seen.body, strict=True):
        assert isinstance(port, Port)
        assert_port(port, theirs)

    stats, seen = decode(captures["multipart_4"]), oracle(captures["multipart_4"])
    assert isinstance(stats, MultipartReply)
    for counters, theirs in zip(stats.entries, seen.body, strict=True):
        assert isinstance(counters, PortStats)
        for name in PortStats.__slots__[:-1]:
            assert getattr(counters, name) == getattr(theirs, name)

    flows, seen = decode(captures["multipart_1"]), oracle(captures["multipart_1"])
    assert isinstance(flows, MultipartReply)
    assert len(flows.entries) == 5
    for flow, theirs in zip(flows.entries, seen.body, strict=True):
        assert isinstance(flow, FlowStats)
        for name in ("table_id", "priority", "cookie", "packet_count", "byte_count", "flags"):
            assert getattr(flow, name) == getattr(theirs, name)
        assert ours_match(flow.match) == theirs_match(theirs.match)
        assert ours_instructions(flow.instructions) == theirs_instructions(theirs.instructions)

    desc = decode(captures["multipart_0"])
    assert isinstance(desc, MultipartReply)
    assert desc.entries == (Desc("Nicira, Inc.", "Open vSwitch", "3.1.0", "None", "None"),)


@given(MATCHES)
def test_a_match_survives_the_wire(match: Match) -> None:
    raw = encode_match(match)
    assert len(raw) % 8 == 0
    reader = Reader(raw)
    assert decode_match(reader) == match
    assert len(reader) == 0


@given(INSTRUCTIONS)
def test_instructions_survive_the_wire(instructions: tuple[Any, ...]) -> None:
    assert decode_instructions(Reader(encode_instructions(instructions))) == instructions


def test_what_the_codec_does_not_know_is_kept_as_it_came() -> None:
    tunnel = bytes.fromhex("80004c08" + "00000000000000ff")  # OXM tunnel_id
    masked_mac = bytes.fromhex("8000070c" + "010000000000" + "010000000000")
    raw = struct.pack("!HH", 1, 4 + 12 + 16) + tunnel + masked_mac
    match = decode_match(Reader(raw))
    assert match == Match(other=tunnel + masked_mac)
    assert encode_match(match) == raw
    for action in ("0019001080000a0208060000", "0012000800000000"):  # set eth_type, pop vlan
        action_raw = bytes.fromhex(action).ljust(16 if len(action) > 16 else 8, b"\0")
        apply = struct.pack("!HH4x", 4, 8 + len(action_raw)) + action_raw
        assert decode_instructions(Reader(apply)) == (ApplyActions((OtherAction(action_raw),)),)
        assert encode_instructions(decode_instructions(Reader(apply))) == apply
    meter = bytes.fromhex("0006000800000001")
    assert decode_instructions(Reader(meter)) == (OtherInstruction(meter),)
    assert encode_instructions((OtherInstruction(meter),)) == meter


def test_equal_matches_have_one_spelling() -> None:
    assert Match(ipv4_dst="10.1.2.3/8") == Match(ipv4_dst="10.0.0.0/255.0.0.0")
    assert Match(ipv4_dst="10.1.2.3/32") == Match(ipv4_dst="10.1.2.3")
    assert Match(ipv4_dst="10.1.2.3/0") == Match()
    assert Match(eth_dst="AA:bb:CC:00:11:22").eth_dst == "aa:bb:cc:00:11:22"
    assert Match(ipv4_src="10.1.2.3/255.0.255.0").ipv4_src == "10.0.2.0/255.0.255.0"
    assert Output(3, 128) == Output(3)


@pytest.mark.parametrize(
    "values",
    [
        {"in_port": -1},
        {"in_port": "1"},
        {"udp_dst": 65536},
        {"eth_dst": "aa:bb"},
        {"eth_dst": 5},
        {"ipv4_dst": "10.0.0.256"},
        {"ipv4_dst": "10.0.0.1/33"},
        {"ipv4_dst": "10.0.0.1/x"},
        {"ip_proto": 256},
    ],
)
def test_impossible_matches_are_misuse(values: dict[str, Any]) -> None:
    with pytest.raises(MisuseError):
        Match(**values)


def test_impossible_messages_are_misuse() -> None:
    for make in (
        lambda: Output(0),
        lambda: Group(-1),
        lambda: SetField("eth_type", 1),
        lambda: SetField("ipv4_dst", "10.0.0.0/8"),
        lambda: encode(FlowMod(Command.ADD, priority=65536)),
        lambda: encode(Hello(frozenset({40}))),
        lambda: encode(PacketOut(bytes(65536), ())),
    ):
        with pytest.raises(MisuseError):
            make()


def test_unknown_messages_and_statistics_are_kept() -> None:
    assert decode(bytes.fromhex("041d000a00000001abcd")) == Unknown(29, b"\xab\xcd", xid=1)
    meter = bytes.fromhex("0413001200000001" + "0009000100000000" + "beef")
    assert decode(meter) == MultipartReply(9, (b"\xbe\xef",), True, xid=1)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        ("", "cut short"),
        ("0415000900000000", "says it has 9"),
        ("0115000800000000", "version 1 in the middle"),
        ("0400000c00000000" + "00010000", "cut short"),  # element shorter than its header
        ("0400000e00000000" + "00010006ffff", "bitmap of 2"),
        ("0406000800000000", "cut short"),
        ("040c005000000000" + "09" + "00" * 71, "reason 9"),
        ("0413001200000000" + "0001000000000000" + "0000", "cut short"),
    ],
)
def test_broken_messages_say_what_is_wrong(data: str, reason: str) -> None:
    with pytest.raises(ProtocolError, match=reason):
        decode(bytes.fromhex(data))


def test_a_field_may_appear_once_in_a_match() -> None:
    port = "8000000400000001"
    with pytest.raises(ProtocolError, match="in_port twice"):
        decode_match(Reader(bytes.fromhex("00010014" + port + port + "00000000")))


def feed_all(data: bytes, step: int) -> list[bytes]:
    framer = Framer()
    messages = []
    for at in range(0, len(data), step):
        messages += framer.feed(data[at : at + step])
    return messages


@given(st.binary(max_size=400))
def test_any_bytes_give_messages_or_the_one_error(data: bytes) -> None:
    for step in (1, max(len(data), 1)):
        try:
            for raw in feed_all(data, step):
                decode(raw)
        except ProtocolError:
            pass


@given(st.integers(0, 30), st.binary(max_size=300))
def test_any_body_gives_a_message_or_the_one_error(kind: int, body: bytes) -> None:
    with suppress(ProtocolError):
        decode(struct.pack("!BBHI", 4, kind, 8 + len(body), 0) + body)


@settings(max_examples=400, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_damaged_captures_give_a_message_or_the_one_error(
    captures: dict[str, bytes], data: st.DataObject
) -> None:
    raw = bytearray(captures[data.draw(st.sampled_from(sorted(captures)))])
    for _ in range(data.draw(st.integers(1, 4))):
        raw[data.draw(st.integers(8, max(8, min(len(raw) - 1, 300)))) % len(raw)] = data.draw(
            st.integers(0, 255)
        )
    cut = data.draw(st.integers(8, len(raw)))
    raw = raw[:cut]
    raw[2:4] = struct.pack("!H", len(raw))
    with suppress(ProtocolError):
        decode(bytes(raw))


def test_messages_come_out_whole_however_they_are_cut(captures: dict[str, bytes]) -> None:
    stream = b"".join(captures.values())
    for step in (1, 7, 8, 9, 1000, len(stream)):
        assert feed_all(stream, step) == list(captures.values())


@pytest.mark.parametrize("data", [b"GET / HTTP/1.1\r\n", b"\x04\0\0\x07\0\0\0\0", bytes(8)])
def test_a_stream_that_is_not_openflow_is_refused_at_once(data: bytes) -> None:
    with pytest.raises(ProtocolError):
        Framer().feed(data)


def test_a_framer_may_set_a_lower_limit() -> None:
    with pytest.raises(ProtocolError, match="101 bytes"):
        Framer(100).feed(struct.pack("!BBHI", 4, 2, 101, 0))


def test_every_settable_field_is_written() -> None:
    values = {"eth": "02:00:00:00:00:01", "ipv4": "1.2.3.4", "udp": 7}
    actions = tuple(SetField(name, values[name.split("_")[0]]) for name in SETTABLE)
    instructions = (ApplyActions((*actions, Output(PORT_IN_PORT))),)
    seen = oracle(encode(FlowMod(Command.ADD, instructions=instructions)))
    assert [action.key for action in seen.instructions[0].actions[:-1]] == list(SETTABLE)
