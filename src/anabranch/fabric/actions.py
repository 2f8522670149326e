"""What is done with a packet: actions and instructions (OpenFlow 1.3.5, sections 7.2.4, 7.2.5)."""

import struct
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass

from anabranch.fabric.errors import MisuseError, ProtocolError
from anabranch.fabric.oxm import canonical, decode_field, encode_field, field_named
from anabranch.fabric.wire import Reader, padding

PORT_MAX = 0xFFFFFF00
PORT_IN_PORT = 0xFFFFFFF8
PORT_CONTROLLER = 0xFFFFFFFD
PORT_LOCAL = 0xFFFFFFFE
PORT_ANY = 0xFFFFFFFF
GROUP_ANY = 0xFFFFFFFF
NO_BUFFER = 0xFFFFFFFF

SETTABLE = ("eth_dst", "eth_src", "ipv4_dst", "ipv4_src", "udp_dst", "udp_src")

_TL = struct.Struct("!HH")
_OUTPUT = struct.Struct("!IH6x")
_U32 = struct.Struct("!I")
_GOTO = struct.Struct("!B3x")
_OUTPUT_TYPE, _GROUP_TYPE, _SET_FIELD_TYPE = 0, 22, 25
_GOTO_TYPE, _APPLY_TYPE = 1, 4


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
class OtherAction:
    """An action (or an instruction that holds it) that this codec does not know, as it came."""

    raw: bytes


Action = Output | SetField | Group | OtherAction


@dataclass(frozen=True, slots=True)
class ApplyActions:
    """Do these at once, in this order."""

    actions: tuple[Action, ...]


@dataclass(frozen=True, slots=True)
class GotoTable:
    """Go on in a later table."""

    table_id: int


@dataclass(frozen=True, slots=True)
class OtherInstruction:
    """An instruction that this codec does not know, as it came."""

    raw: bytes


Instruction = ApplyActions | GotoTable | OtherInstruction


def encode_actions(actions: Iterable[Action]) -> bytes:
    """Return the actions one behind the other."""
    return b"".join(map(_encode_action, actions))


def _encode_action(action: Action) -> bytes:
    match action:
        case Output(port_no, max_len):
            return _TL.pack(_OUTPUT_TYPE, 16) + _OUTPUT.pack(port_no, max_len)
        case Group(group_id):
            return _TL.pack(_GROUP_TYPE, 8) + _U32.pack(group_id)
        case SetField(name, value):
            tlv = encode_field(field_named(name), value)
            tlv += padding(_TL.size + len(tlv))
            return _TL.pack(_SET_FIELD_TYPE, _TL.size + len(tlv)) + tlv
        case OtherAction(raw):
            return raw


def decode_actions(reader: Reader) -> tuple[Action, ...]:
    """Read actions up to the end.

    Raises:
        ProtocolError: one is cut short or has an impossible length.
    """
    actions = []
    while len(reader):
        kind, raw, body = _decode_tl(reader)
        actions.append(_decode_action(kind, raw, body))
    return tuple(actions)


def _decode_tl(reader: Reader) -> tuple[int, bytes, Reader]:
    kind, length = reader.unpack(_TL)
    if length < 8 or length % 8:
        raise ProtocolError(f"action or instruction of {length} bytes")
    body = reader.take(length - _TL.size)
    return kind, _TL.pack(kind, length) + body, Reader(body)


def _decode_action(kind: int, raw: bytes, body: Reader) -> Action:
    with suppress(MisuseError):  # what cannot be expressed here is kept as it came
        if kind == _OUTPUT_TYPE and len(raw) == 16:
            return Output(*body.unpack(_OUTPUT))
        if kind == _GROUP_TYPE and len(raw) == 8:
            return Group(*body.unpack(_U32))
        if kind == _SET_FIELD_TYPE:
            decoded = decode_field(body)
            if not isinstance(decoded, bytes) and decoded[1] is not None:
                return SetField(decoded[0].name, decoded[1])
    return OtherAction(raw)


def encode_instructions(instructions: Iterable[Instruction]) -> bytes:
    """Return the instructions one behind the other."""
    return b"".join(map(_encode_instruction, instructions))


def _encode_instruction(instruction: Instruction) -> bytes:
    match instruction:
        case ApplyActions(actions):
            body = encode_actions(actions)
            return _TL.pack(_APPLY_TYPE, 8 + len(body)) + bytes(4) + body
        case GotoTable(table_id):
            return _TL.pack(_GOTO_TYPE, 8) + _GOTO.pack(table_id)
        case OtherInstruction(raw):
            return raw


def decode_instructions(reader: Reader) -> tuple[Instruction, ...]:
    """Read instructions up to the end.

    Raises:
        ProtocolError: one is cut short or has an impossible length.
    """
    instructions: list[Instruction] = []
    while len(reader):
        kind, raw, body = _decode_tl(reader)
        if kind == _GOTO_TYPE:
            instructions.append(GotoTable(*body.unpack(_GOTO)))
        elif kind == _APPLY_TYPE:
            body.take(4)
            instructions.append(ApplyActions(decode_actions(body)))
        else:
            instructions.append(OtherInstruction(raw))
    return tuple(instructions)
