"""The OpenFlow codec: records to bytes, bytes to records, stream to messages.

Source: OpenFlow Switch Specification 1.3.5, 1.4.1 and 1.5.1, section 7. One codec serves both
sides: what a controller sends and what a switch sends have different types.
"""

import struct
from collections.abc import Callable
from enum import IntEnum
from typing import Any, TypeVar

from anabranch.fabric.errors import MisuseError, ProtocolError
from anabranch.fabric.openflow.actions import decode_actions, encode_actions
from anabranch.fabric.openflow.entries import (
    decode_flow_mod,
    decode_flow_removed,
    encode_flow_mod,
    encode_flow_removed,
)
from anabranch.fabric.openflow.groups import (
    decode_group_mod,
    decode_meter_mod,
    encode_group_mod,
    encode_meter_mod,
)
from anabranch.fabric.openflow.messages import (
    VERSION,
    VERSIONS,
    BarrierReply,
    BarrierRequest,
    BundleAdd,
    BundleControl,
    BundleType,
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
    GroupMod,
    Hello,
    Message,
    MeterMod,
    MultipartReply,
    MultipartRequest,
    PacketIn,
    PacketOut,
    PortStatus,
    RoleReply,
    RoleRequest,
    RoleStatus,
    SetConfig,
    Unknown,
)
from anabranch.fabric.openflow.multipart import (
    decode_reply,
    decode_request,
    encode_reply,
    encode_request,
)
from anabranch.fabric.openflow.oxm import Match, decode_match, encode_match
from anabranch.fabric.openflow.ports import decode_port_status, encode_port_status
from anabranch.fabric.openflow.wire import MAX_LENGTH, Reader, padding

_HIGHEST_VERSION = 0x0F  # far above any that exists; a first byte beyond it is no OpenFlow
_V14, _V15 = 5, 6

_HEADER = struct.Struct("!BBHI")
_TL = struct.Struct("!HH")
_FEATURES = struct.Struct("!QIBB2xI4x")
_PACKET_IN = struct.Struct("!IHBBQ")
_PACKET_OUT = struct.Struct("!IIH6x")
_PACKET_OUT_15 = struct.Struct("!IH2x")
_ROLE = struct.Struct("!I4xQ")
_ROLE_STATUS = struct.Struct("!IB3xQ")
_EXPERIMENTER = struct.Struct("!II")
_BUNDLE_CONTROL = struct.Struct("!IHH")
_BUNDLE_ADD = struct.Struct("!I2xH")

PACKET_IN = 10  # message type, as the second byte of the header says
_HELLO, _ERROR, _EXPERIMENTER_TYPE, _CONTROL_TYPE, _ADD_TYPE = 0, 1, 4, 33, 34
_HELLO_BITMAP = 1
_ONF = 0x4F4E4600
_ONF_CONTROL, _ONF_ADD = 2300, 2301  # bundles before OpenFlow 1.4: ONF extension 230


class Framer:
    """Cuts a byte stream into whole messages; holds at most one incomplete message.

    ``max_length`` bounds one message in bytes, header included.
    """

    def __init__(self, max_length: int = MAX_LENGTH) -> None:
        self._max_length = max_length
        self._buffer = bytearray()

    def feed(self, data: bytes) -> list[bytes]:
        """Return the messages that ``data`` completes.

        Raises:
            ProtocolError: a header is none: version out of range, length below 8 or too great.
        """
        self._buffer += data
        messages = []
        at = 0
        while len(self._buffer) - at >= _HEADER.size:
            version, _, length, _ = _HEADER.unpack_from(self._buffer, at)
            if not 1 <= version <= _HIGHEST_VERSION:
                raise ProtocolError(f"not OpenFlow: {bytes(self._buffer[at : at + 8])!r}")
            if not _HEADER.size <= length <= self._max_length:
                raise ProtocolError(f"message of {length} bytes")
            if len(self._buffer) - at < length:
                break
            messages.append(bytes(self._buffer[at : at + length]))
            at += length
        del self._buffer[:at]
        return messages


def encode(message: Message, version: int = VERSION) -> bytes:
    """Return ``message`` as it goes over the wire; a Hello has its own version.

    Raises:
        MisuseError: it is longer than 65,535 bytes, a number does not fit its field, or this
            version cannot say it.
    """
    if isinstance(message, Hello):
        version = message.version
    try:
        kind, body = _encode_body(message, version)
        length = _HEADER.size + len(body)
        if length > MAX_LENGTH:
            raise MisuseError(f"{type(message).__name__} of {length} bytes is too long")
        return _HEADER.pack(version, kind, length, message.xid) + body
    except struct.error as error:
        raise MisuseError(f"{type(message).__name__} cannot be encoded: {error}") from None


def _encode_body(message: Message, version: int) -> tuple[int, bytes]:
    known = _ENCODERS.get(type(message))
    if known is not None:
        return known[0], known[1](message, version)
    if isinstance(message, Unknown):
        return message.type, message.body
    assert isinstance(message, BundleControl | BundleAdd)
    control = isinstance(message, BundleControl)
    body = _encode_bundle(message, version)
    if version >= _V14:
        return _CONTROL_TYPE if control else _ADD_TYPE, body
    return _EXPERIMENTER_TYPE, _EXPERIMENTER.pack(
        _ONF, _ONF_CONTROL if control else _ONF_ADD
    ) + body


def _encode_bundle(message: BundleControl | BundleAdd, version: int) -> bytes:
    if isinstance(message, BundleControl):
        return _BUNDLE_CONTROL.pack(message.bundle_id, message.type, message.flags)
    kind, body = _encode_body(message.message, version)
    head = _HEADER.pack(version, kind, _HEADER.size + len(body), message.xid)
    return _BUNDLE_ADD.pack(message.bundle_id, message.flags) + head + body


def _encode_versions(hello: Hello, version: int) -> bytes:
    versions = hello.versions
    if versions is None:
        return b""
    if not all(0 <= version < 32 for version in versions):
        raise MisuseError(f"no OpenFlow version is among {sorted(versions)}")
    bitmap = sum(1 << version for version in versions)
    return _TL.pack(_HELLO_BITMAP, 8) + bitmap.to_bytes(4, "big")


def _encode_features(features: FeaturesReply, version: int) -> bytes:
    return _FEATURES.pack(
        *(features.dpid, features.n_buffers, features.n_tables),
        *(features.auxiliary_id, features.capabilities),
    )


def _encode_packet_in(packet: PacketIn, version: int) -> bytes:
    head = _PACKET_IN.pack(
        *(packet.buffer_id, packet.total_len, packet.reason, packet.table_id, packet.cookie)
    )
    return head + encode_match(packet.match, version) + bytes(2) + packet.data


def _encode_packet_out(packet: PacketOut, version: int) -> bytes:
    actions = encode_actions(packet.actions, version)
    if version < _V15:
        head = _PACKET_OUT.pack(packet.buffer_id, packet.in_port, len(actions))
    else:
        head = _PACKET_OUT_15.pack(packet.buffer_id, len(actions))
        head += encode_match(Match(in_port=packet.in_port), version)
    return head + actions + packet.data


def _encode_role(message: RoleRequest | RoleReply, version: int) -> bytes:
    return _ROLE.pack(message.role, message.generation_id)


_ENCODERS: dict[type, tuple[int, Callable[[Any, int], bytes]]] = {
    Hello: (_HELLO, _encode_versions),
    Error: (_ERROR, lambda error, _: _TL.pack(error.type, error.code) + error.data),
    EchoRequest: (2, lambda echo, _: echo.data),
    EchoReply: (3, lambda echo, _: echo.data),
    FeaturesRequest: (5, lambda *_: b""),
    FeaturesReply: (6, _encode_features),
    GetConfigRequest: (7, lambda *_: b""),
    GetConfigReply: (8, lambda config, _: _TL.pack(config.flags, config.miss_send_len)),
    SetConfig: (9, lambda config, _: _TL.pack(config.flags, config.miss_send_len)),
    PacketIn: (PACKET_IN, _encode_packet_in),
    FlowRemoved: (11, encode_flow_removed),
    PortStatus: (12, encode_port_status),
    PacketOut: (13, _encode_packet_out),
    FlowMod: (14, encode_flow_mod),
    GroupMod: (15, encode_group_mod),
    MultipartRequest: (18, encode_request),
    MultipartReply: (19, encode_reply),
    BarrierRequest: (20, lambda *_: b""),
    BarrierReply: (21, lambda *_: b""),
    RoleRequest: (24, _encode_role),
    RoleReply: (25, _encode_role),
    MeterMod: (29, encode_meter_mod),
    RoleStatus: (
        30,
        lambda status, _: _ROLE_STATUS.pack(status.role, status.reason, status.generation_id),
    ),
}


def decode(data: bytes) -> Message:
    """Return the one message that ``data`` is, from its header to its last byte.

    What no record can express (a type, command or kind that is not known) is an
    :class:`Unknown`.

    Raises:
        ProtocolError: anything about it is wrong. HELLO and ERROR are read in any version, all
            else must be of OpenFlow 1.3 to 1.5.
    """
    reader = Reader(data)
    version, kind, length, xid = reader.unpack(_HEADER)
    if length != len(data):
        raise ProtocolError(f"message of {len(data)} bytes says it has {length}")
    if kind == _HELLO:
        return Hello(_decode_versions(reader), version, xid=xid)
    if kind == _ERROR:
        return _decode_error(reader, version, xid)
    if version not in VERSIONS:
        raise ProtocolError(f"OpenFlow version {version} in the middle of a connection")
    decoder = _DECODERS.get(kind)
    message = decoder(reader, version, xid) if decoder is not None else None
    return Unknown(kind, data[_HEADER.size :], xid=xid) if message is None else message


def _decode_versions(reader: Reader) -> frozenset[int] | None:
    versions: set[int] | None = None
    while len(reader):
        kind, length = reader.unpack(_TL)
        element = reader.take(length - _TL.size)
        reader.take(min(len(padding(length)), len(reader)))
        if kind == _HELLO_BITMAP:
            if len(element) % 4:
                raise ProtocolError(f"version bitmap of {len(element)} bytes")
            words = struct.unpack(f"!{len(element) // 4}I", element)
            versions = {
                32 * place + bit
                for place, word in enumerate(words)
                for bit in range(32)
                if word >> bit & 1
            }
    return None if versions is None else frozenset(versions)


def _decode_error(reader: Reader, version: int, xid: int) -> Error:
    kind, code = reader.unpack(_TL)
    return Error(kind, code, reader.rest(), xid=xid)


def _decode_features(reader: Reader, version: int, xid: int) -> FeaturesReply:
    return FeaturesReply(*reader.unpack(_FEATURES), xid=xid)


def _decode_packet_in(reader: Reader, version: int, xid: int) -> PacketIn:
    head = reader.unpack(_PACKET_IN)
    match = decode_match(reader)
    reader.take(2)
    return PacketIn(*(*head, match, reader.rest()), xid=xid)


def _decode_packet_out(reader: Reader, version: int, xid: int) -> PacketOut | None:
    if version < _V15:
        buffer_id, in_port, length = reader.unpack(_PACKET_OUT)
    else:
        buffer_id, length = reader.unpack(_PACKET_OUT_15)
        in_port = decode_match(reader).in_port
        if in_port is None:
            return None
    actions = decode_actions(reader.part(length))
    return PacketOut(reader.rest(), actions, in_port, buffer_id, xid=xid)


_Known = TypeVar("_Known", bound=IntEnum)


def _known(kind: type[_Known], value: int) -> _Known:
    try:
        return kind(value)
    except ValueError:
        raise ProtocolError(f"{value} is no {kind.__name__}") from None


def _decode_role_request(reader: Reader, version: int, xid: int) -> RoleRequest | None:
    role, generation_id = reader.unpack(_ROLE)
    if role not in ControllerRole._value2member_map_:
        return None
    return RoleRequest(ControllerRole(role), generation_id, xid=xid)


def _decode_role_reply(reader: Reader, version: int, xid: int) -> RoleReply:
    role, generation_id = reader.unpack(_ROLE)
    return RoleReply(_known(ControllerRole, role), generation_id, xid=xid)


def _decode_role_status(reader: Reader, version: int, xid: int) -> RoleStatus:
    role, reason, generation_id = reader.unpack(_ROLE_STATUS)
    return RoleStatus(_known(ControllerRole, role), reason, generation_id, xid=xid)


def _decode_experimenter(reader: Reader, version: int, xid: int) -> Message | None:
    if version >= _V14:
        return None
    kind = reader.unpack(_EXPERIMENTER)
    if kind == (_ONF, _ONF_CONTROL):
        return _decode_control(reader, version, xid)
    return _decode_add(reader, version, xid) if kind == (_ONF, _ONF_ADD) else None


def _decode_control(reader: Reader, version: int, xid: int) -> BundleControl | None:
    bundle_id, kind, flags = reader.unpack(_BUNDLE_CONTROL)
    if kind not in BundleType._value2member_map_:
        return None
    return BundleControl(bundle_id, BundleType(kind), flags, xid=xid)


def _decode_add(reader: Reader, version: int, xid: int) -> BundleAdd:
    bundle_id, flags = reader.unpack(_BUNDLE_ADD)
    rest = reader.rest()
    (_, kind, length, _) = Reader(rest).unpack(_HEADER)
    message = decode(Reader(rest).take(length)) if kind not in _NEVER_BUNDLED else None
    if not isinstance(message, FlowMod | GroupMod | PacketOut | MeterMod | Unknown):
        raise ProtocolError(f"message of type {kind} in a bundle")
    return BundleAdd(bundle_id, flags, message, xid=xid)


_NEVER_BUNDLED = (_HELLO, _ERROR, _EXPERIMENTER_TYPE, _CONTROL_TYPE, _ADD_TYPE)
_DECODERS: dict[int, Callable[[Reader, int, int], Message | None]] = {
    2: lambda reader, _, xid: EchoRequest(reader.rest(), xid=xid),
    3: lambda reader, _, xid: EchoReply(reader.rest(), xid=xid),
    _EXPERIMENTER_TYPE: _decode_experimenter,
    5: lambda _reader, _, xid: FeaturesRequest(xid=xid),
    6: _decode_features,
    7: lambda _reader, _, xid: GetConfigRequest(xid=xid),
    8: lambda reader, _, xid: GetConfigReply(*reader.unpack(_TL), xid=xid),
    9: lambda reader, _, xid: SetConfig(*reader.unpack(_TL), xid=xid),
    PACKET_IN: _decode_packet_in,
    11: decode_flow_removed,
    12: decode_port_status,
    13: _decode_packet_out,
    14: decode_flow_mod,
    15: decode_group_mod,
    18: decode_request,
    19: decode_reply,
    20: lambda _reader, _, xid: BarrierRequest(xid=xid),
    21: lambda _reader, _, xid: BarrierReply(xid=xid),
    24: _decode_role_request,
    25: _decode_role_reply,
    29: decode_meter_mod,
    30: _decode_role_status,
    _CONTROL_TYPE: _decode_control,
    _ADD_TYPE: _decode_add,
}
