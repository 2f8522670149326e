"""The OpenFlow 1.3 codec of a controller: records to bytes, bytes to records, stream to messages.

Source: OpenFlow Switch Specification 1.3.5, section 7. Encoded is what a controller sends, decoded
what a switch sends; both where both may.
"""

import struct
from collections.abc import Callable

from anabranch.fabric.actions import decode_instructions, encode_actions, encode_instructions
from anabranch.fabric.errors import MisuseError, ProtocolError
from anabranch.fabric.messages import (
    VERSION,
    BarrierReply,
    BarrierRequest,
    Desc,
    EchoReply,
    EchoRequest,
    Entry,
    Error,
    FeaturesReply,
    FeaturesRequest,
    FlowMod,
    FlowRemoved,
    FlowStats,
    Hello,
    Message,
    MultipartReply,
    MultipartRequest,
    MultipartType,
    PacketIn,
    PacketOut,
    Port,
    PortReason,
    PortStats,
    PortStatus,
    Request,
    SetConfig,
    Unknown,
)
from anabranch.fabric.oxm import decode_match, encode_match
from anabranch.fabric.wire import Reader, mac_text, padding

MAX_LENGTH = 0xFFFF
_HIGHEST_VERSION = 0x0F  # far above any that exists; a first byte beyond it is no OpenFlow

_HEADER = struct.Struct("!BBHI")
_TL = struct.Struct("!HH")
_CONFIG = struct.Struct("!HH")
_FEATURES = struct.Struct("!QIBB2xI4x")
_PORT = struct.Struct("!I4x6s2x16sIIIIIIII")
_PORT_STATUS = struct.Struct("!B7x")
_PACKET_IN = struct.Struct("!IHBBQ")
_PACKET_OUT = struct.Struct("!IIH6x")
_FLOW_MOD = struct.Struct("!QQBBHHHIIIH2x")
_FLOW_REMOVED = struct.Struct("!QHBBIIHHQQ")
_MULTIPART = struct.Struct("!HH4x")
_FLOW_REQUEST = struct.Struct("!B3xII4xQQ")
_PORT_REQUEST = struct.Struct("!I4x")
_DESC = struct.Struct("!256s256s256s32s256s")
_PORT_STATS = struct.Struct("!I4x12QII")
_LENGTH = struct.Struct("!H")
_FLOW_STATS = struct.Struct("!BxIIHHHH4xQQQ")

_HELLO_BITMAP = 1


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


def encode(message: Request) -> bytes:
    """Return ``message`` as it goes over the wire.

    Raises:
        MisuseError: it is longer than 65,535 bytes or a number does not fit its field.
    """
    version = message.version if isinstance(message, Hello) else VERSION
    try:
        kind, body = _encode_body(message)
        length = _HEADER.size + len(body)
        if length > MAX_LENGTH:
            raise MisuseError(f"{type(message).__name__} of {length} bytes is too long")
        return _HEADER.pack(version, kind, length, message.xid) + body
    except struct.error as error:
        raise MisuseError(f"{type(message).__name__} cannot be encoded: {error}") from None


def _encode_body(message: Request) -> tuple[int, bytes]:
    match message:
        case Hello(versions=versions):
            return 0, _encode_versions(versions)
        case Error():
            return 1, _TL.pack(message.type, message.code) + message.data
        case EchoRequest(data=data):
            return 2, data
        case EchoReply(data=data):
            return 3, data
        case FeaturesRequest():
            return 5, b""
        case SetConfig(flags=flags, miss_send_len=miss_send_len):
            return 9, _CONFIG.pack(flags, miss_send_len)
        case PacketOut():
            actions = encode_actions(message.actions)
            head = _PACKET_OUT.pack(message.buffer_id, message.in_port, len(actions))
            return 13, head + actions + message.data
        case FlowMod():
            return 14, _encode_flow_mod(message)
        case MultipartRequest():
            return 18, _encode_multipart(message)
        case BarrierRequest():
            return 20, b""


def _encode_versions(versions: frozenset[int] | None) -> bytes:
    if versions is None:
        return b""
    if not all(0 <= version < 32 for version in versions):
        raise MisuseError(f"no OpenFlow version is among {sorted(versions)}")
    bitmap = sum(1 << version for version in versions)
    return _TL.pack(_HELLO_BITMAP, 8) + bitmap.to_bytes(4, "big")


def _encode_flow_mod(mod: FlowMod) -> bytes:
    head = _FLOW_MOD.pack(
        mod.cookie,
        mod.cookie_mask,
        mod.table_id,
        mod.command,
        mod.idle_timeout,
        mod.hard_timeout,
        mod.priority,
        0xFFFFFFFF,
        mod.out_port,
        mod.out_group,
        mod.flags,
    )
    return head + encode_match(mod.match) + encode_instructions(mod.instructions)


def _encode_multipart(request: MultipartRequest) -> bytes:
    head = _MULTIPART.pack(request.type, 0)
    if request.type is MultipartType.PORT_STATS:
        return head + _PORT_REQUEST.pack(request.port_no)
    if request.type is MultipartType.FLOW:
        narrow = _FLOW_REQUEST.pack(
            request.table_id, 0xFFFFFFFF, 0xFFFFFFFF, request.cookie, request.cookie_mask
        )
        return head + narrow + encode_match(request.match)
    return head


def decode(data: bytes) -> Message:
    """Return the one message that ``data`` is, from its header to its last byte.

    Raises:
        ProtocolError: anything about it is wrong. HELLO and ERROR are read in any version, all
            else must be version 4.
    """
    reader = Reader(data)
    version, kind, length, xid = reader.unpack(_HEADER)
    if length != len(data):
        raise ProtocolError(f"message of {len(data)} bytes says it has {length}")
    if version != VERSION and kind not in (0, 1):
        raise ProtocolError(f"OpenFlow version {version} in the middle of a 1.3 connection")
    if kind == 0:
        return Hello(_decode_versions(reader), version, xid=xid)
    decoder = _DECODERS.get(kind)
    return decoder(reader, xid) if decoder else Unknown(kind, reader.rest(), xid=xid)


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


def _decode_error(reader: Reader, xid: int) -> Error:
    kind, code = reader.unpack(_TL)
    return Error(kind, code, reader.rest(), xid=xid)


def _decode_features(reader: Reader, xid: int) -> FeaturesReply:
    return FeaturesReply(*reader.unpack(_FEATURES), xid=xid)


def _decode_packet_in(reader: Reader, xid: int) -> PacketIn:
    head = reader.unpack(_PACKET_IN)
    match = decode_match(reader)
    reader.take(2)
    return PacketIn(*(*head, match, reader.rest()), xid=xid)


def _decode_flow_removed(reader: Reader, xid: int) -> FlowRemoved:
    cookie, priority, reason, table_id, seconds, nanoseconds, *rest = reader.unpack(_FLOW_REMOVED)
    values = (cookie, priority, reason, table_id, seconds + nanoseconds / 1e9, *rest)
    return FlowRemoved(*(*values, decode_match(reader)), xid=xid)


def _decode_port_status(reader: Reader, xid: int) -> PortStatus:
    (reason,) = reader.unpack(_PORT_STATUS)
    if reason not in PortReason._value2member_map_:
        raise ProtocolError(f"port status with reason {reason}")
    return PortStatus(PortReason(reason), _decode_port(reader), xid=xid)


def _decode_multipart(reader: Reader, xid: int) -> MultipartReply:
    kind, flags = reader.unpack(_MULTIPART)
    decoder = _ENTRIES.get(kind)
    entries: list[Entry] = []
    if decoder is None:
        entries.append(reader.rest())
    while len(reader) and decoder is not None:
        entries.append(decoder(reader))
    return MultipartReply(kind, tuple(entries), bool(flags & 1), xid=xid)


def _text(raw: bytes) -> str:
    return raw.split(b"\0", 1)[0].decode(errors="replace")


def _decode_port(reader: Reader) -> Port:
    port_no, hw_addr, name, *rest = reader.unpack(_PORT)
    return Port(port_no, mac_text(hw_addr), _text(name), *rest)


def _decode_desc(reader: Reader) -> Desc:
    return Desc(*map(_text, reader.unpack(_DESC)))


def _decode_port_stats(reader: Reader) -> PortStats:
    *counters, seconds, nanoseconds = reader.unpack(_PORT_STATS)
    return PortStats(*(*counters, seconds + nanoseconds / 1e9))


def _decode_flow_stats(reader: Reader) -> FlowStats:
    (length,) = reader.unpack(_LENGTH)
    entry = reader.part(length - _LENGTH.size)
    table_id, seconds, nanoseconds, *rest = entry.unpack(_FLOW_STATS)
    values = (table_id, seconds + nanoseconds / 1e9, *rest, decode_match(entry))
    return FlowStats(*(*values, decode_instructions(entry)))


_DECODERS: dict[int, Callable[[Reader, int], Message]] = {
    1: _decode_error,
    2: lambda reader, xid: EchoRequest(reader.rest(), xid=xid),
    3: lambda reader, xid: EchoReply(reader.rest(), xid=xid),
    6: _decode_features,
    10: _decode_packet_in,
    11: _decode_flow_removed,
    12: _decode_port_status,
    19: _decode_multipart,
    21: lambda _, xid: BarrierReply(xid=xid),
}
_ENTRIES: dict[int, Callable[[Reader], Entry]] = {
    MultipartType.DESC: _decode_desc,
    MultipartType.FLOW: _decode_flow_stats,
    MultipartType.PORT_STATS: _decode_port_stats,
    MultipartType.PORT_DESC: _decode_port,
}
