"""What is done with a packet: actions and instructions (OpenFlow 1.3.5, sections 7.2.4, 7.2.5)."""

import struct
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache

from anabranch.fabric.errors import MisuseError, ProtocolError
from anabranch.fabric.openflow.oxm import canonical, decode_field, encode_field, field_named
from anabranch.fabric.openflow.wire import Reader, padding

PORT_MAX = 0xFFFFFF00
PORT_IN_PORT = 0xFFFFFFF8
PORT_CONTROLLER = 0xFFFFFFFD
PORT_LOCAL = 0xFFFFFFFE
PORT_ANY = 0xFFFFFFFF
GROUP_ANY = 0xFFFFFFFF
NO_BUFFER = 0xFFFFFFFF

SETTABLE = (
    *("eth_dst", "eth_src", "vlan_vid", "vlan_pcp", "ip_dscp"),
    *("ipv4_src", "ipv4_dst", "ipv6_src", "ipv6_dst"),
    *("tcp_src", "tcp_dst", "udp_src", "udp_dst"),
    *("arp_op", "arp_spa", "arp_tpa", "arp_sha", "arp_tha"),
)

_TL = struct.Struct("!HH")
_OUTPUT = struct.Struct("!IH6x")
_U32 = struct.Struct("!I")
_GOTO = struct.Struct("!B3x")
_PUSH = struct.Struct("!H2x")
_METADATA = struct.Struct("!4xQQ")
_OUTPUT_TYPE, _PUSH_VLAN_TYPE, _POP_VLAN_TYPE, _GROUP_TYPE, _SET_FIELD_TYPE = 0, 17, 18, 22, 25
_METER_ACTION_TYPE, _METER_ACTION_SINCE = 29, 6
_GOTO_TYPE, _METADATA_TYPE, _APPLY_TYPE, _METER_TYPE = 1, 2, 4, 6


@dataclass(frozen=True, slots=True)
class Output:
    """Send the packet as it is now to a port.

    ``max_len`` is how many bytes go to the controller (0xffff: all) and 0 for any other port.
    """

    port_no: int
    max_len: int = 0

    def __post_init__(self) -> None:
        if not 0 < self.port_no <= PORT_ANY or not 0 <= self.max_len <= 0xFFFF:
            raise MisuseError(f"no port has the number {self.port_no}")
        if self.port_no != PORT_CONTROLLER:
            object.__setattr__(self, "max_len", 0)


@dataclass(frozen=True, slots=True)
class SetField:
    """Rewrite one of :data:`SETTABLE` for every action that follows."""

    field: str
    value: int | str

    def __post_init__(self) -> None:
        if self.field not in SETTABLE:
            raise MisuseError(f"{self.field!r} cannot be rewritten; these can: {SETTABLE}")
        value = canonical(field_named(self.field), self.value, masks=False)
        object.__setattr__(self, "value", value)


@dataclass(frozen=True, slots=True)
class Group:
    """Hand the packet to a group."""

    group_id: int

    def __post_init__(self) -> None:
        if not 0 <= self.group_id <= 0xFFFFFF00:
            raise MisuseError(f"no group has the number {self.group_id}")


@dataclass(frozen=True, slots=True)
class PushVlan:
    """Put an empty VLAN tag in front of all others; ``SetField("vlan_vid", ...)`` names it."""

    ethertype: int = 0x8100


@dataclass(frozen=True, slots=True)
class PopVlan:
    """Take the outermost VLAN tag off."""


@dataclass(frozen=True, slots=True)
class OtherAction:
    """An action (or an instruction that holds it) that this codec does not know, as it came."""

    raw: bytes


Action = Output | SetField | Group | PushVlan | PopVlan | OtherAction


@dataclass(frozen=True, slots=True)
class ApplyActions:
    """Do these at once, in this order."""

    actions: tuple[Action, ...]


@dataclass(frozen=True, slots=True)
class GotoTable:
    """Go on in a later table."""

    table_id: int


@dataclass(frozen=True, slots=True)
class WriteMetadata:
    """Set the bits of ``mask`` in the packet's 64-bit metadata to those of ``value``."""

    value: int
    mask: int


@dataclass(frozen=True, slots=True)
class Meter:
    """Pass the packet through a meter first, which may drop it."""

    meter_id: int


@dataclass(frozen=True, slots=True)
class OtherInstruction:
    """An instruction that this codec does not know, as it came."""

    raw: bytes


Instruction = ApplyActions | GotoTable | WriteMetadata | Meter | OtherInstruction


def encode_actions(actions: Iterable[Action], version: int = 4) -> bytes:
    """Return the actions one behind the other."""
    return b"".join([_encode_action(action, version) for action in actions])


@lru_cache(maxsize=16384)  # the same few ports, groups and addresses come again and again
def _encode_action(action: Action, version: int) -> bytes:
    match action:
        case Output(port_no, max_len):
            return _TL.pack(_OUTPUT_TYPE, 16) + _OUTPUT.pack(port_no, max_len)
        case Group(group_id):
            return _TL.pack(_GROUP_TYPE, 8) + _U32.pack(group_id)
        case SetField(name, value):
            tlv = encode_field(field_named(name), value, version)
            tlv += padding(_TL.size + len(tlv))
            return _TL.pack(_SET_FIELD_TYPE, _TL.size + len(tlv)) + tlv
        case PushVlan(ethertype):
            return _TL.pack(_PUSH_VLAN_TYPE, 8) + _PUSH.pack(ethertype)
        case PopVlan():
            return _TL.pack(_POP_VLAN_TYPE, 8) + bytes(4)
        case OtherAction(raw):
            return raw


def decode_actions(reader: Reader) -> tuple[Action, ...]:
    """Read actions up to the end.

    Raises:
        ProtocolError: one is cut short or has an impossible length.
    """
    actions = []
    while len(reader):
        actions.append(_decode_action(_take_tl(reader)))
    return tuple(actions)


def _take_tl(reader: Reader) -> bytes:
    """Return the next action or instruction, from its type to its padding."""
    head = reader.take(_TL.size)
    length = head[2] << 8 | head[3]
    if length < 8 or length % 8:
        raise ProtocolError(f"action or instruction of {length} bytes")
    return head + reader.take(length - _TL.size)


@lru_cache(maxsize=16384)
def _decode_action(raw: bytes) -> Action:
    body = Reader(raw)
    kind, length = body.unpack(_TL)
    with suppress(MisuseError):  # what cannot be expressed here is kept as it came
        if kind == _OUTPUT_TYPE and length == 16:
            return Output(*body.unpack(_OUTPUT))
        if kind == _GROUP_TYPE and length == 8:
            return Group(*body.unpack(_U32))
        if kind == _PUSH_VLAN_TYPE and length == 8:
            return PushVlan(*body.unpack(_PUSH))
        if kind == _POP_VLAN_TYPE and length == 8:
            return PopVlan()
        if kind == _SET_FIELD_TYPE:
            decoded = decode_field(body)
            if not isinstance(decoded, bytes) and isinstance(decoded[1], int | str):
                return SetField(decoded[0].name, decoded[1])
    return OtherAction(raw)


def encode_instructions(instructions: Iterable[Instruction], version: int = 4) -> bytes:
    """Return the instructions one behind the other.

    OpenFlow 1.5 has no meter instruction: there it becomes the first action that is applied.
    """
    if version >= _METER_ACTION_SINCE:
        instructions = _meters_as_actions(instructions)
    return b"".join([_encode_instruction(instruction, version) for instruction in instructions])


def _meters_as_actions(instructions: Iterable[Instruction]) -> Iterable[Instruction]:
    metered: list[Action] = []
    applied: tuple[Action, ...] | None = None
    others: list[Instruction] = []
    for instruction in instructions:
        if isinstance(instruction, Meter):
            raw = _TL.pack(_METER_ACTION_TYPE, 8) + _U32.pack(instruction.meter_id)
            metered.append(OtherAction(raw))
        elif isinstance(instruction, ApplyActions):
            applied = (applied or ()) + instruction.actions
        else:
            others.append(instruction)
    if metered or applied is not None:
        others.insert(0, ApplyActions((*metered, *(applied or ()))))
    return others


def _encode_instruction(instruction: Instruction, version: int) -> bytes:
    match instruction:
        case ApplyActions(actions):
            body = encode_actions(actions, version)
            return _TL.pack(_APPLY_TYPE, 8 + len(body)) + bytes(4) + body
        case GotoTable(table_id):
            return _TL.pack(_GOTO_TYPE, 8) + _GOTO.pack(table_id)
        case WriteMetadata(value, mask):
            return _TL.pack(_METADATA_TYPE, 24) + _METADATA.pack(value, mask)
        case Meter(meter_id):
            return _TL.pack(_METER_TYPE, 8) + _U32.pack(meter_id)
        case OtherInstruction(raw):
            return raw


def decode_instructions(reader: Reader, version: int = 4) -> tuple[Instruction, ...]:
    """Read instructions up to the end; a leading meter action of 1.5 becomes a Meter.

    Raises:
        ProtocolError: one is cut short or has an impossible length.
    """
    return _decode_instructions(reader.rest(), version)


@lru_cache(maxsize=4096)  # most flows of a switch do the same as another one
def _decode_instructions(raw: bytes, version: int) -> tuple[Instruction, ...]:
    reader = Reader(raw)
    instructions: list[Instruction] = []
    while len(reader):
        whole = _take_tl(reader)
        body = Reader(whole)
        kind, _ = body.unpack(_TL)
        if kind == _GOTO_TYPE and len(whole) == 8:
            instructions.append(GotoTable(*body.unpack(_GOTO)))
        elif kind == _METADATA_TYPE and len(whole) == 24:
            instructions.append(WriteMetadata(*body.unpack(_METADATA)))
        elif kind == _METER_TYPE and len(whole) == 8:
            instructions.append(Meter(*body.unpack(_U32)))
        elif kind == _APPLY_TYPE:
            body.take(4)
            instructions += _applied(decode_actions(body), version)
        else:
            instructions.append(OtherInstruction(whole))
    return tuple(instructions)


def _applied(actions: tuple[Action, ...], version: int) -> Iterable[Instruction]:
    """Return what an instruction to apply ``actions`` is, its meter taken out."""
    if version >= _METER_ACTION_SINCE and actions and isinstance(actions[0], OtherAction):
        raw = actions[0].raw
        if len(raw) == 8 and raw[:2] == _METER_ACTION_TYPE.to_bytes(2, "big"):
            meter = Meter(*_U32.unpack(raw[4:]))
            return (meter, ApplyActions(actions[1:])) if actions[1:] else (meter,)
    return (ApplyActions(actions),)
