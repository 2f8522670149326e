"""The codec against os-ken, against bytes that Open vSwitch sent, and against nonsense."""

import struct
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.fabric.openflow.oracle import (
    ACTION_LISTS,
    ACTIONS,
    ALL_VERSIONS,
    DATAPATHS,
    INSTRUCTIONS,
    MATCHES,
    PARSERS,
    U8,
    U16,
    U32,
    U64,
    VALUES,
    oracle,
    ours_match,
    serialized,
    their_action,
    their_instructions,
    theirs_match,
)

from anabranch.fabric.errors import MisuseError, ProtocolError
from anabranch.fabric.openflow.actions import (
    PORT_CONTROLLER,
    SETTABLE,
    Action,
    ApplyActions,
    Group,
    Instruction,
    Meter,
    OtherAction,
    OtherInstruction,
    Output,
    PopVlan,
    SetField,
    decode_instructions,
    encode_instructions,
)
from anabranch.fabric.openflow.codec import Framer, decode, encode
from anabranch.fabric.openflow.messages import (
    BarrierReply,
    BarrierRequest,
    BundleAdd,
    BundleControl,
    BundleType,
    Command,
    ControllerRole,
    EchoReply,
    EchoRequest,
    Error,
    FeaturesReply,
    FeaturesRequest,
    FlowMod,
    FlowRemoved,
    GetConfigReply,
    GetConfigRequest,
    GroupCommand,
    GroupMod,
    Hello,
    Message,
    MeterCommand,
    MeterMod,
    MultipartReply,
    PacketIn,
    PacketOut,
    Port,
    PortReason,
    PortStatus,
    RoleReply,
    RoleRequest,
    RoleStatus,
    SetConfig,
    Unknown,
)
from anabranch.fabric.openflow.oxm import Match
from anabranch.fabric.openflow.wire import Reader

NANOSECONDS = st.tuples(st.integers(0, 1000), st.integers(0, 999_999_999)).map(
    lambda parts: parts[0] + parts[1] / 1e9
)
FLOW_MODS = st.builds(
    FlowMod,
    st.sampled_from(Command),
    MATCHES,
    INSTRUCTIONS,
    priority=U16,
    table_id=U8,
    cookie=U64,
    cookie_mask=U64,
    idle_timeout=U16,
    hard_timeout=U16,
    out_port=U32,
    out_group=U32,
    flags=U16,
    buffer_id=U32,
    xid=U32,
)
PORTS = st.builds(
    Port,
    *(U32, VALUES["arp_sha"].filter(lambda mac: "/" not in mac)),
    st.text("abcdefgh0123456789-", max_size=15),
    *(U32,) * 8,
)
PACKETS_IN = st.builds(
    PacketIn, U32, st.integers(99, 0xFFFF), U8, U8, U64, MATCHES, st.binary(max_size=99), xid=U32
)
FLOWS_REMOVED = st.builds(
    FlowRemoved, U64, U16, U8, U8, NANOSECONDS, U16, U16, U64, U64, MATCHES, xid=U32
)


@given(FLOW_MODS, ALL_VERSIONS)
def test_os_ken_reads_our_flow_mod(mod: FlowMod, version: int) -> None:
    raw = encode(mod, version)
    seen = oracle(raw)
    for name in FlowMod.__slots__:
        if name not in ("match", "instructions"):
            assert getattr(seen, name) == getattr(mod, name)
    assert seen.xid == mod.xid
    assert theirs_match(seen.match) == ours_match(mod.match)
    theirs = bytearray()
    for instruction in their_instructions(mod.instructions, version):
        instruction.serialize(theirs, len(theirs))
    assert raw.endswith(bytes(theirs))
    assert len(seen.instructions) == len(their_instructions(mod.instructions, version))


@given(FLOW_MODS, ALL_VERSIONS)
def test_a_flow_mod_survives_the_wire(mod: FlowMod, version: int) -> None:
    assert decode(encode(mod, version)) == mod


@given(INSTRUCTIONS, ALL_VERSIONS)
def test_instructions_survive_the_wire(instructions: tuple[Instruction, ...], version: int) -> None:
    raw = encode_instructions(instructions, version)
    assert decode_instructions(Reader(raw), version) == instructions


def test_openflow_15_has_its_meters_as_actions() -> None:
    raw = encode_instructions((Meter(7),), 6)
    assert raw == bytes.fromhex("0004001000000000" + "001d000800000007")
    assert decode_instructions(Reader(raw), 6) == (Meter(7),)
    as_in_13 = decode_instructions(Reader(raw), 4)
    assert as_in_13 == (ApplyActions((OtherAction(raw[8:]),)),)
    behind = (ApplyActions((Output(1), OtherAction(raw[8:]))),)  # not the first: stays an action
    assert decode_instructions(Reader(encode_instructions(behind, 6)), 6) == behind


# Without any action os-ken forgets the data.
@given(ACTION_LISTS.filter(bool), st.binary(max_size=200), st.integers(1, 0xFFFFFFFF), ALL_VERSIONS)
def test_our_packet_out_is_that_of_os_ken(
    actions: tuple[Action, ...], data: bytes, in_port: int, version: int
) -> None:
    parser, datapath = PARSERS[version], DATAPATHS[version]
    ours = PacketOut(data, actions, in_port, xid=3)
    where = {"match": parser.OFPMatch(in_port=in_port)} if version == 6 else {"in_port": in_port}
    theirs = parser.OFPPacketOut(
        datapath,
        0xFFFFFFFF,
        actions=[their_action(action, version) for action in actions],
        data=data,
        **where,
    )
    assert encode(ours, version) == serialized(theirs, 3, version)
    assert decode(encode(ours, version)) == ours


def test_every_settable_field_is_written() -> None:
    values = {
        **dict.fromkeys(("eth_dst", "eth_src", "arp_sha", "arp_tha"), "02:00:00:00:00:01"),
        **dict.fromkeys(("ipv4_src", "ipv4_dst", "arp_spa", "arp_tpa"), "1.2.3.4"),
        **dict.fromkeys(("ipv6_src", "ipv6_dst"), "2001:db8::1"),
    }
    actions = tuple(SetField(name, values.get(name, 5)) for name in SETTABLE)
    mod = FlowMod(Command.ADD, instructions=(ApplyActions(actions),))
    seen = oracle(encode(mod))
    assert [action.key for action in seen.instructions[0].actions] == list(SETTABLE)


@pytest.mark.parametrize("version", [4, 5, 6])
def test_our_small_requests_are_those_of_os_ken(version: int) -> None:
    parser, datapath = PARSERS[version], DATAPATHS[version]
    hello = oracle(encode(Hello(frozenset({1, 4, 6}), version, xid=1)))
    assert [element.versions for element in hello.elements] == [[1, 4, 6]]
    for ours, theirs in (
        (SetConfig(xid=2), parser.OFPSetConfig(datapath, 0, 0xFFFF)),
        (GetConfigRequest(xid=2), parser.OFPGetConfigRequest(datapath)),
        (FeaturesRequest(xid=2), parser.OFPFeaturesRequest(datapath)),
        (BarrierRequest(xid=2), parser.OFPBarrierRequest(datapath)),
        (EchoRequest(b"ab", xid=2), parser.OFPEchoRequest(datapath, b"ab")),
        (EchoReply(b"ab", xid=2), parser.OFPEchoReply(datapath, b"ab")),
        (Error(5, 1, b"no", xid=2), parser.OFPErrorMsg(datapath, 5, 1, b"no")),
        (
            RoleRequest(ControllerRole.MASTER, 2**63, xid=2),
            parser.OFPRoleRequest(datapath, role=2, generation_id=2**63, **short_id(version)),
        ),
    ):
        assert encode(ours, version) == serialized(theirs, 2, version)
        assert decode(encode(ours, version)) == ours


def short_id(version: int) -> dict[str, int]:
    return {"short_id": 0} if version == 6 else {}


@given(
    st.one_of(
        st.builds(FeaturesReply, U64, U32, U8, U8, U32, xid=U32),
        st.builds(GetConfigReply, U16, U16, xid=U32),
        PACKETS_IN,
        st.builds(PortStatus, st.sampled_from(PortReason), PORTS, xid=U32),
        st.builds(RoleReply, st.sampled_from(ControllerRole), U64, xid=U32),
        st.builds(BarrierReply, xid=U32),
        FLOWS_REMOVED,
    ),
    ALL_VERSIONS,
)
def test_os_ken_reads_what_our_switches_say(message: Message, version: int) -> None:
    raw = encode(message, version)
    assert decode(raw) == message
    seen = oracle(raw)
    assert type(seen).__name__.endswith(type(message).__name__.replace("FeaturesReply", "Features"))
    assert_same(message, seen)


def assert_same(ours: Any, theirs: Any) -> None:
    """Compare every attribute that os-ken has under the same name, or one we know it by."""
    stats = dict(theirs.stats.fields) if hasattr(theirs, "stats") else {}
    properties = {} if not getattr(theirs, "properties", None) else vars(theirs.properties[0])
    compared = 0
    for name in ours.__dataclass_fields__:
        value = getattr(ours, name)
        other = {"dpid": "datapath_id", "port": "desc"}.get(name, name)
        if name == "duration":
            parts = stats.get("duration") or (theirs.duration_sec, theirs.duration_nsec)
            assert value == parts[0] + parts[1] / 1e9
        elif name == "match":
            assert ours_match(value) == theirs_match(theirs.match)
        elif name == "name":
            assert value.encode() == theirs.name.rstrip(b"\0")
        elif isinstance(value, Port):
            assert_same(value, theirs.desc)
        elif name not in ("entries", "more", "instructions", "buckets", "bands"):
            seen = {**properties, **stats, **vars(theirs)} if hasattr(theirs, "__dict__") else {}
            assert value == (seen[other] if other in seen else getattr(theirs, other)), name
        compared += 1
    assert compared == len(ours.__dataclass_fields__)


@given(U32, st.sampled_from(BundleType), U16, FLOW_MODS, ALL_VERSIONS)
def test_our_bundles_are_those_of_os_ken(
    bundle_id: int, kind: BundleType, flags: int, mod: FlowMod, version: int
) -> None:
    parser, datapath = PARSERS[version], DATAPATHS[version]
    prefix = "ONF" if version == 4 else "OFP"
    control = BundleControl(bundle_id, kind, flags, xid=8)
    theirs = getattr(parser, f"{prefix}BundleCtrlMsg")(datapath, bundle_id, kind, flags, [])
    assert encode(control, version) == serialized(theirs, 8, version)
    assert decode(encode(control, version)) == control
    seen = oracle(encode(control, version))
    assert (seen.bundle_id, seen.type, seen.flags) == (bundle_id, kind, flags)
    add = BundleAdd(bundle_id, flags, mod, xid=8)
    (inner,) = (decode(encode(add, version)),)
    assert isinstance(inner, BundleAdd)
    assert encode(inner, version) == encode(add, version)
    assert isinstance(inner.message, FlowMod)
    assert inner.message.xid == 8
    assert (inner.message.match, inner.message.priority) == (mod.match, mod.priority)


@pytest.mark.parametrize("version", [4, 5, 6])
def test_what_is_added_to_a_bundle_is_what_os_ken_adds(version: int) -> None:
    parser, datapath = PARSERS[version], DATAPATHS[version]
    prefix = "ONF" if version == 4 else "OFP"
    their_mod = parser.OFPFlowMod(datapath, cookie=5, table_id=3, priority=7)
    their_mod.version = version
    theirs = getattr(parser, f"{prefix}BundleAddMsg")(datapath, 2, 3, their_mod, [])
    mod = FlowMod(Command.ADD, priority=7, table_id=3, cookie=5, out_port=0, out_group=0)
    assert encode(BundleAdd(2, 3, mod, xid=4), version) == serialized(theirs, 4, version)


@pytest.mark.parametrize("version", [4, 5, 6])
def test_a_bundle_holds_no_bundle(version: int) -> None:
    inner = encode(BundleControl(1, BundleType.COMMIT_REQUEST), version)
    outer = struct.pack("!I2xH", 1, 0) + inner
    raw = struct.pack("!BBHI", 6, 34, 8 + len(outer), 0) + outer
    with pytest.raises(ProtocolError, match="in a bundle"):
        decode(raw)


def without_fractions(name: str) -> str:
    return name.split("_1.")[0]


def test_what_open_vswitch_sends_is_read_as_os_ken_reads_it(captures: dict[str, bytes]) -> None:
    read = set()
    for name, raw in captures.items():
        message, seen = decode(raw), oracle(raw)
        if isinstance(message, Hello | EchoReply | MultipartReply | BundleControl | RoleStatus):
            continue  # below, and in test_multipart
        if not isinstance(message, Error) or message.type != 0xFFFF:
            assert_same(message, seen)
            read.add(without_fractions(name))
    assert read >= {"features_reply", "packet_in", "flow_removed", "port_status", "role_reply"}

    hello = decode(captures["hello"])
    assert isinstance(hello, Hello)
    assert (hello.version, hello.versions) == (6, {4, 5, 6})
    assert hello.speaks(4)
    echo = int.from_bytes(captures["echo_reply"][4:8], "big")
    assert decode(captures["echo_reply"]) == EchoReply(b"ping", xid=echo)


@pytest.mark.parametrize("suffix", ["", "_1.4", "_1.5"])
def test_bundles_of_open_vswitch_are_read(captures: dict[str, bytes], suffix: str) -> None:
    reply = decode(captures[f"bundle_reply{suffix}"])
    assert isinstance(reply, BundleControl)
    assert (reply.bundle_id, reply.type) == (7, BundleType.OPEN_REPLY)
    if suffix:
        status = decode(captures[f"role_status{suffix}"])
        assert isinstance(status, RoleStatus)
        assert (status.role, status.reason) == (ControllerRole.SLAVE, 0)
        seen = oracle(captures[f"role_status{suffix}"])
        assert (seen.role, seen.generation_id) == (3, status.generation_id)


def test_what_the_codec_does_not_know_is_kept_as_it_came() -> None:
    for action in ("0019001080000a0208060000" + "00" * 4, "0018000840000000"):  # eth_type, dec_ttl
        raw = bytes.fromhex(action)
        apply = struct.pack("!HH4x", 4, 8 + len(raw)) + raw
        assert decode_instructions(Reader(apply)) == (ApplyActions((OtherAction(raw),)),)
        assert encode_instructions(decode_instructions(Reader(apply))) == apply
    clear = bytes.fromhex("0005000800000000")
    assert decode_instructions(Reader(clear)) == (OtherInstruction(clear),)
    assert encode_instructions((OtherInstruction(clear),)) == clear
    pop = bytes.fromhex("00040010000000000012000800000000")
    assert decode_instructions(Reader(pop)) == (ApplyActions((PopVlan(),)),)


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        (99, b"\xab\xcd"),
        (4, struct.pack("!II", 0x2320, 18)),
        (14, encode(FlowMod(Command.ADD))[8:25] + b"\x05" + encode(FlowMod(Command.ADD))[26:]),
        (15, struct.pack("!HBxI", 4, 0, 1)),
        (15, struct.pack("!HBxI", 0, 9, 1)),
        (18, struct.pack("!HH4x", 0xFFFF, 0) + b"exp"),
        (24, struct.pack("!I4xQ", 9, 1)),
        (29, struct.pack("!HHI", 3, 1, 1)),
    ],
)
def test_requests_that_no_record_expresses_come_as_they_are(kind: int, body: bytes) -> None:
    raw = struct.pack("!BBHI", 4, kind, 8 + len(body), 1) + body
    assert decode(raw) == Unknown(kind, body, xid=1)
    assert encode(Unknown(kind, body, xid=1)) == raw


def test_impossible_messages_are_misuse() -> None:
    for make in (
        lambda: Output(0),
        lambda: Group(-1),
        lambda: encode(FlowMod(Command.ADD, priority=65536)),
        lambda: encode(Hello(frozenset({40}))),
        lambda: encode(PacketOut(bytes(65536), ())),
        lambda: encode(BundleAdd(1, 1, PacketOut(bytes(65500), ())), 6),
    ):
        with pytest.raises(MisuseError):
            make()
    assert Output(3, 128) == Output(3)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        ("", "cut short"),
        ("0415000900000000", "says it has 9"),
        ("0115000800000000", "version 1 in the middle"),
        ("0715000800000000", "version 7 in the middle"),
        ("0400000c00000000" + "00010000", "cut short"),  # element shorter than its header
        ("0400000e00000000" + "00010006ffff", "bitmap of 2"),
        ("0406000800000000", "cut short"),
        ("040c005000000000" + "09" + "00" * 71, "reason 9"),
        ("0413001200000000" + "0001000000000000" + "0000", "cut short"),
        ("0419001800000000" + "00000007" + "00" * 12, "7 is no ControllerRole"),
        (
            "060b003000000000" + "00" * 16 + "0001000400000000"
            "0000000d" + "80020805" + "00" * 8,  # OXS packet_count of 5 bytes
            "statistic 4 with 5 bytes",
        ),
    ],
)
def test_broken_messages_say_what_is_wrong(data: str, reason: str) -> None:
    with pytest.raises(ProtocolError, match=reason):
        decode(bytes.fromhex(data))


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


@settings(max_examples=400)
@given(ALL_VERSIONS, st.integers(0, 36), st.binary(max_size=300))
def test_any_body_gives_a_message_or_the_one_error(version: int, kind: int, body: bytes) -> None:
    with suppress(ProtocolError):
        decode(struct.pack("!BBHI", version, kind, 8 + len(body), 0) + body)


def damaged(data: st.DataObject, original: bytes) -> bytes:
    """Return a message with some bytes changed and its end perhaps cut off."""
    raw = bytearray(original)
    for _ in range(data.draw(st.integers(1, 4))):
        raw[data.draw(st.integers(8, max(8, min(len(raw) - 1, 300)))) % len(raw)] = data.draw(U8)
    raw = raw[: data.draw(st.integers(8, len(raw)))]
    raw[2:4] = struct.pack("!H", len(raw))
    return bytes(raw)


@settings(max_examples=400, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_damaged_captures_give_a_message_or_the_one_error(
    captures: dict[str, bytes], data: st.DataObject
) -> None:
    original = captures[data.draw(st.sampled_from(sorted(captures)))]
    with suppress(ProtocolError):
        decode(damaged(data, original))


REQUESTS: tuple[Any, ...] = (
    FlowMod(
        Command.ADD,
        Match(in_port=1, eth_type=0x0800, ipv4_dst="10.0.0.0/8", metadata=(1, 1)),
        (Meter(3), ApplyActions((SetField("eth_dst", "02:00:00:00:00:01"), Output(2)))),
    ),
    GroupMod(GroupCommand.ADD, 5),
    MeterMod(MeterCommand.DELETE, 5),
    PacketOut(b"frame", (Output(1), Group(2)), PORT_CONTROLLER),
    BundleAdd(1, 3, FlowMod(Command.DELETE)),
    RoleRequest(ControllerRole.SLAVE, 1),
)


@settings(max_examples=400)
@given(st.sampled_from(REQUESTS), ALL_VERSIONS, st.data())
def test_damaged_requests_give_a_message_or_the_one_error(
    request_: Any, version: int, data: st.DataObject
) -> None:
    with suppress(ProtocolError):
        decode(damaged(data, encode(request_, version)))


@given(st.lists(ACTIONS, max_size=3), st.binary(min_size=1, max_size=20))
def test_actions_and_nonsense_behind_them(actions: list[Action], nonsense: bytes) -> None:
    apply = encode_instructions((ApplyActions(tuple(actions)),))
    with suppress(ProtocolError):
        instructions = decode_instructions(Reader(apply + nonsense))
        assert encode_instructions(instructions)[: len(apply)] == apply


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
