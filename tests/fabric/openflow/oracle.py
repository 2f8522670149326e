"""os-ken as the oracle of the codec, and strategies for everything that the codec can say."""

import ipaddress
import struct
from types import SimpleNamespace
from typing import Any

from hypothesis import strategies as st
from os_ken.ofproto import (
    ofproto_parser,
    ofproto_v1_3,
    ofproto_v1_3_parser,
    ofproto_v1_4,
    ofproto_v1_4_parser,
    ofproto_v1_5,
    ofproto_v1_5_parser,
)

from anabranch.fabric.openflow.actions import (
    PORT_CONTROLLER,
    SETTABLE,
    ApplyActions,
    GotoTable,
    Group,
    Meter,
    Output,
    PopVlan,
    PushVlan,
    SetField,
    WriteMetadata,
)
from anabranch.fabric.openflow.messages import Bucket, GroupType, MeterBand
from anabranch.fabric.openflow.oxm import FIELDS, Field, Match, field_named
from anabranch.fabric.openflow.wire import IPV4, IPV6, MAC

PARSERS: dict[int, Any] = {4: ofproto_v1_3_parser, 5: ofproto_v1_4_parser, 6: ofproto_v1_5_parser}
CONSTANTS: dict[int, Any] = {4: ofproto_v1_3, 5: ofproto_v1_4, 6: ofproto_v1_5}
DATAPATHS = {
    version: SimpleNamespace(ofproto=CONSTANTS[version], ofproto_parser=PARSERS[version])
    for version in PARSERS
}
ALL_VERSIONS = st.sampled_from(sorted(PARSERS))
U8, U16, U32, U64 = (st.integers(0, 2**bits - 1) for bits in (8, 16, 32, 64))


def _numbers(field: Field) -> Any:
    numbers: Any = st.integers(0, 2**field.bits - 1)
    return numbers | st.tuples(numbers, numbers) if field.maskable else numbers


def _addresses(field: Field) -> Any:
    kind = {
        MAC: st.binary(min_size=6, max_size=6).map(lambda raw: raw.hex(":")),
        IPV4: st.ip_addresses(v=4).map(str),
        IPV6: st.ip_addresses(v=6).map(str),
    }[field.address]
    if not field.maskable:
        return kind
    return kind | st.tuples(kind, st.integers(0, field.bits) | kind).map(
        lambda pair: f"{pair[0]}/{pair[1]}"
    )


VALUES = {field.name: _addresses(field) if field.address else _numbers(field) for field in FIELDS}
MATCHES = (
    st.lists(st.sampled_from([field.name for field in FIELDS]), max_size=6, unique=True)
    .flatmap(lambda names: st.fixed_dictionaries({name: VALUES[name] for name in names}))
    .map(lambda values: Match(**values))
)


def _plain(value: Any) -> Any:
    return value[0] if isinstance(value, tuple) else str(value).split("/")[0]


SET_FIELDS = st.sampled_from(SETTABLE).flatmap(
    lambda name: VALUES[name].map(
        lambda value: SetField(name, value if isinstance(value, int) else _plain(value))
    )
)
ACTIONS = (
    st.builds(Output, st.integers(1, 0xFFFFFF00))
    | st.builds(Output, st.just(PORT_CONTROLLER), U16)
    | st.builds(Group, st.integers(0, 1000))
    | st.builds(PushVlan, st.sampled_from([0x8100, 0x88A8]))
    | st.just(PopVlan())
    | SET_FIELDS
)
ACTION_LISTS = st.lists(ACTIONS, max_size=6).map(tuple)
# In the order in which a switch executes them: so OpenFlow 1.5's way to write meters loses nothing.
INSTRUCTIONS = st.tuples(
    st.lists(st.builds(Meter, U32), max_size=1),
    st.lists(st.builds(ApplyActions, ACTION_LISTS.filter(bool)), max_size=1),
    st.lists(st.builds(WriteMetadata, U64, U64), max_size=1),
    st.lists(st.builds(GotoTable, st.integers(1, 254)), max_size=1),
).map(lambda parts: tuple(one for part in parts for one in part))
BUCKETS = st.lists(st.builds(Bucket, ACTION_LISTS, U32, U32, U16), max_size=4).map(tuple)
GROUP_TYPES = st.sampled_from(GroupType)
BANDS = st.lists(st.builds(MeterBand, U32, U32), max_size=3).map(tuple)


def oracle(data: bytes) -> Any:
    """Return what os-ken reads in one message."""
    version, kind, length, xid = struct.unpack_from("!BBHI", data)
    return ofproto_parser.msg(DATAPATHS[version], version, kind, length, xid, data)


def serialized(message: Any, xid: int, version: int = 4) -> bytes:
    """Return one of os-ken's messages as bytes."""
    message.version, message.xid = version, xid
    message.serialize()
    return bytes(message.buf)


def normal(field: Field, value: Any) -> Any:
    """Return a value of either side as text or number, or a pair of such with its mask."""
    if isinstance(value, str) and "/" in value:
        assert field.address is not None
        raw, mask = field.address.split(value)
        assert mask is not None
        return field.address.to_text(raw), field.address.to_text(mask)
    if isinstance(value, tuple) and field.address is not None:
        return tuple(normal(field, part) for part in value)
    if field.address is IPV6:
        return str(ipaddress.IPv6Address(value))
    return value


def theirs_match(match: Any) -> dict[str, Any]:
    return {name: normal(field_named(name), value) for name, value in match.items()}


def ours_match(match: Match) -> dict[str, Any]:
    return {name: normal(field_named(name), value) for name, value in match.fields}


def their_match(match: Match, version: int) -> Any:
    """Return one of our matches as os-ken's."""
    return PARSERS[version].OFPMatch(**ours_match(match))


def their_action(action: Any, version: int) -> Any:
    """Return one of our actions as os-ken's."""
    parser = PARSERS[version]
    match action:
        case Output(port_no, max_len):
            return parser.OFPActionOutput(port_no, max_len)
        case Group(group_id):
            return parser.OFPActionGroup(group_id)
        case PushVlan(ethertype):
            return parser.OFPActionPushVlan(ethertype)
        case PopVlan():
            return parser.OFPActionPopVlan()
        case _:
            return parser.OFPActionSetField(**{action.field: action.value})


def their_instructions(instructions: tuple[Any, ...], version: int) -> list[Any]:
    """Return our instructions as os-ken's; a meter of OpenFlow 1.5 is an action."""
    parser = PARSERS[version]
    found: list[Any] = []
    metered: list[Any] = []
    for instruction in instructions:
        match instruction:
            case Meter(meter_id) if version == 6:
                metered.append(parser.OFPActionMeter(meter_id))
            case Meter(meter_id):
                found.append(parser.OFPInstructionMeter(meter_id))
            case GotoTable(table_id):
                found.append(parser.OFPInstructionGotoTable(table_id))
            case WriteMetadata(value, mask):
                found.append(parser.OFPInstructionWriteMetadata(value, mask))
            case ApplyActions(actions):
                applied = metered + [their_action(action, version) for action in actions]
                metered = []
                found.append(parser.OFPInstructionActions(4, applied))
    if metered:
        found.insert(0, parser.OFPInstructionActions(4, metered))
    return found
