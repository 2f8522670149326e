"""The hot messages as struct templates: no records, no objects, one pack or unpack each.

PACKET_IN is read, FLOW_MOD (add) and PACKET_OUT are written, in the layouts of OpenFlow 1.3 to 1.5
(wire versions 4 to 6). The bytes are those of the ordinary codec, which is for everything else.
Source: OpenFlow 1.3.5, sections 7.3.4.1, 7.3.7 and 7.4.1; 1.5.1, section 7.3.6.
"""

import struct
from collections.abc import Callable

from anabranch.fabric.errors import MisuseError, ProtocolError
from anabranch.fabric.openflow.actions import GROUP_ANY, NO_BUFFER, PORT_ANY

VERSIONS = frozenset({4, 5, 6})

# xid, buffer_id, total_len, reason, table_id, cookie, in_port, offset of the packet's first byte
Punt = tuple[int, int, int, int, int, int, int, int]

_PACKET_IN, _PACKET_OUT, _FLOW_MOD, _ADD = 10, 13, 14, 0
_IN_PORT, _ETH_DST, _ETH_SRC, _ETH_TYPE = 0x80000004, 0x80000606, 0x80000806, 0x80000A02
_MATCH_AT = 24
# version and type, length, xid ... cookie, match type and length, first OXM header, in_port
_PUNT = struct.Struct("!HHIIHBBQHHII")
_MATCH = struct.Struct("!HH")
_TLV = struct.Struct("!I")
_U32 = struct.Struct("!I")
_KINDS = frozenset(version << 8 | _PACKET_IN for version in VERSIONS)


def parse_packet_in(raw: bytes) -> Punt:
    """Return the fields of the whole PACKET_IN message ``raw``; its packet is not copied.

    Raises:
        ProtocolError: it is no such message, is cut short, or its match has no ``in_port``.
    """
    try:
        # fmt: off
        (kind, length, xid, buffer_id, total_len, reason, table_id, cookie, match, size, tlv,
         in_port) = _PUNT.unpack_from(raw)
        # fmt: on
    except struct.error:
        raise ProtocolError(f"PACKET_IN of {len(raw)} bytes") from None
    data_at = _MATCH_AT + (size + 7 & ~7) + 2
    if kind not in _KINDS or length != len(raw) or match != 1 or data_at > length:
        raise ProtocolError("not a whole PACKET_IN message")
    if tlv != _IN_PORT or size < 12:
        in_port = _find_in_port(raw, _MATCH_AT + size)
    return xid, buffer_id, total_len, reason, table_id, cookie, in_port, data_at


def _find_in_port(raw: bytes, end: int) -> int:
    """Return ``in_port`` of a match that does not begin with it."""
    at = _MATCH_AT + _MATCH.size
    while at + _TLV.size <= end:
        (tlv,) = _TLV.unpack_from(raw, at)
        at += _TLV.size
        if tlv == _IN_PORT and at + 4 <= end:
            return int(_U32.unpack_from(raw, at)[0])
        at += tlv & 0xFF
    raise ProtocolError("PACKET_IN without in_port")


def flow_add(
    version: int,
    *,
    table: int,
    priority: int,
    cookie: int,
    idle_timeout: int,
    eth_type: int | None = None,
    flags: int = 0,
) -> Callable[[int, int, int, bytes, bytes, int], bytes]:
    """Return ``pack(xid, buffer_id, in_port, eth_dst, eth_src, port_no) -> bytes``.

    What it packs is a FLOW_MOD that adds an entry for exactly these header fields (and
    ``eth_type``) with one output. Addresses are 6 bytes each. ``buffer_id`` names a packet that the
    switch holds and shall treat by the new entry, or is NO_BUFFER.

    Raises:
        MisuseError: no such version, or a number does not fit its field.
    """
    _check(version)
    match_length = 4 + 8 + 10 + 10 + (0 if eth_type is None else 6)
    match_padding = -match_length % 8
    length = 48 + match_length + match_padding + 24
    try:
        typed = b"" if eth_type is None else struct.pack("!IH", _ETH_TYPE, eth_type)
        head = struct.pack("!BBH", version, _FLOW_MOD, length)
        entry = struct.pack("!QQBBHHH", cookie, 0, table, _ADD, idle_timeout, 0, priority)
        rest = struct.pack("!IIHHHHI", PORT_ANY, GROUP_ANY, flags, 0, 1, match_length, _IN_PORT)
    except struct.error as error:
        raise MisuseError(f"no such flow_mod: {error}") from None
    dst, src = _TLV.pack(_ETH_DST), _TLV.pack(_ETH_SRC)
    apply = struct.pack("!HH4xHH", 4, 24, 0, 16)
    tail = typed + bytes(match_padding) + apply
    shape = struct.Struct(f"!4sI{len(entry)}sI{len(rest)}sI4s6s4s6s{len(tail)}sI8x")
    pack_all = shape.pack

    def pack(
        xid: int, buffer_id: int, in_port: int, eth_dst: bytes, eth_src: bytes, port_no: int
    ) -> bytes:
        return pack_all(
            head, xid, entry, buffer_id, rest, in_port, dst, eth_dst, src, eth_src, tail, port_no
        )

    return pack


def packet_out(version: int) -> Callable[[int, int, int, bytes], bytes]:
    """Return ``pack(xid, in_port, port_no, data) -> bytes``: a PACKET_OUT with one output.

    ``in_port`` may be PORT_CONTROLLER. The packed message is too long, and nothing notices, if
    ``data`` has more than 65,000 bytes.

    Raises:
        MisuseError: no such version.
    """
    _check(version)
    kind = version << 8 | _PACKET_OUT
    if version == 6:
        newer = struct.Struct("!HHIIH2xHHII4xHHI8x")

        def pack_newer(xid: int, in_port: int, port_no: int, data: bytes) -> bytes:
            head = newer.pack(
                kind, newer.size + len(data), xid, NO_BUFFER, 16, 1, 12, _IN_PORT, in_port,
                0, 16, port_no,
            )  # fmt: skip
            return head + data

        return pack_newer
    older = struct.Struct("!HHIIIH6xHHI8x")

    def pack(xid: int, in_port: int, port_no: int, data: bytes) -> bytes:
        head = older.pack(kind, older.size + len(data), xid, NO_BUFFER, in_port, 16, 0, 16, port_no)
        return head + data

    return pack


def _check(version: int) -> None:
    if version not in VERSIONS:
        raise MisuseError(f"there is no template for OpenFlow version {version}")
