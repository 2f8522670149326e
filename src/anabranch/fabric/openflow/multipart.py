"""Multipart requests and replies on the wire (OpenFlow 1.3.5, section 7.3.5)."""

import struct
from collections.abc import Callable, Iterable
from typing import Any

from anabranch.fabric.errors import MisuseError
from anabranch.fabric.openflow.entries import (
    decode_aggregate,
    decode_flow_stats,
    encode_aggregate,
    encode_flow_stats,
)
from anabranch.fabric.openflow.groups import (
    decode_group_desc,
    decode_group_stats,
    decode_meter_config,
    decode_meter_stats,
    encode_group_desc,
    encode_group_stats,
    encode_meter_config,
    encode_meter_stats,
)
from anabranch.fabric.openflow.messages import (
    Desc,
    Entry,
    MultipartReply,
    MultipartRequest,
    MultipartType,
)
from anabranch.fabric.openflow.oxm import decode_match, encode_match
from anabranch.fabric.openflow.ports import (
    decode_port,
    decode_port_stats,
    encode_port,
    encode_port_stats,
)
from anabranch.fabric.openflow.wire import MAX_LENGTH, Reader, text_of

_V15 = 6
_HEAD = struct.Struct("!HH4x")
_FLOW_REQUEST = struct.Struct("!B3xII4xQQ")
_NUMBER = struct.Struct("!I4x")
_DESC = struct.Struct("!256s256s256s32s256s")
_ROOM = MAX_LENGTH - 8 - _HEAD.size

_OF_FLOWS = frozenset({MultipartType.FLOW, MultipartType.AGGREGATE})
# What narrows any other request, and the version since which it does.
_NARROWED_BY = {
    MultipartType.PORT_STATS: ("port_no", 4),
    MultipartType.GROUP_STATS: ("group_id", 4),
    MultipartType.GROUP_DESC: ("group_id", _V15),
    MultipartType.METER_STATS: ("meter_id", 4),
    MultipartType.METER_CONFIG: ("meter_id", 4),
    MultipartType.PORT_DESC: ("port_no", _V15),
}


def encode_request(request: MultipartRequest, version: int) -> bytes:
    """Return the body of a multipart request."""
    head = _HEAD.pack(request.type, 0)
    if request.type in _OF_FLOWS:
        narrow = _FLOW_REQUEST.pack(
            *(request.table_id, request.out_port, request.out_group),
            *(request.cookie, request.cookie_mask),
        )
        return head + narrow + encode_match(request.match, version)
    name, since = _NARROWED_BY.get(request.type, ("", version + 1))
    return head + _NUMBER.pack(getattr(request, name)) if version >= since else head


def decode_request(reader: Reader, version: int, xid: int) -> MultipartRequest | None:
    """Read the body of a multipart request; None if it asks for what no record can express.

    Raises:
        ProtocolError: it is cut short or its match is malformed.
    """
    number, _ = reader.unpack(_HEAD)
    if number not in MultipartType._value2member_map_:
        return None
    kind = MultipartType(number)
    if kind in _OF_FLOWS:
        table_id, out_port, out_group, cookie, cookie_mask = reader.unpack(_FLOW_REQUEST)
        return MultipartRequest(
            kind,
            table_id=table_id,
            match=decode_match(reader),
            cookie=cookie,
            cookie_mask=cookie_mask,
            out_port=out_port,
            out_group=out_group,
            xid=xid,
        )
    name, since = _NARROWED_BY.get(kind, ("", version + 1))
    if version < since:
        return MultipartRequest(kind, xid=xid)
    (value,) = reader.unpack(_NUMBER)
    return MultipartRequest(kind, **{name: value}, xid=xid)


def encode_reply(reply: MultipartReply, version: int) -> bytes:
    """Return the body of a multipart reply."""
    body = b"".join(_encode_entries(reply.type, reply.entries, version))
    return _HEAD.pack(reply.type, int(reply.more)) + body


def decode_reply(reader: Reader, version: int, xid: int) -> MultipartReply:
    """Read the body of a multipart reply.

    Raises:
        ProtocolError: an entry is malformed.
    """
    kind, flags = reader.unpack(_HEAD)
    known = _ENTRIES.get(kind)
    entries: list[Entry] = []
    if known is None:
        entries.append(reader.rest())
    while len(reader) and known is not None:
        entries.append(known[1](reader, version))
    return MultipartReply(kind, tuple(entries), bool(flags & 1), xid=xid)


def split_reply(
    kind: int, entries: Iterable[Entry], version: int, xid: int
) -> list[MultipartReply]:
    """Return the answer to one request as messages that are each short enough; at least one.

    Raises:
        MisuseError: one entry alone is too long.
    """
    parts: list[list[Entry]] = [[]]
    length = 0
    for entry in entries:
        try:
            (raw,) = _encode_entries(kind, (entry,), version)
        except struct.error as error:  # its own length does not fit
            raise MisuseError(f"{type(entry).__name__} cannot be encoded: {error}") from None
        if len(raw) > _ROOM:
            raise MisuseError(f"an entry of {len(raw)} bytes fits into no message")
        if length + len(raw) > _ROOM:
            parts.append([])
            length = 0
        parts[-1].append(raw)
        length += len(raw)
    last = len(parts) - 1
    return [
        MultipartReply(kind, tuple(part), more=place < last, xid=xid)
        for place, part in enumerate(parts)
    ]


def _encode_entries(kind: int, entries: Iterable[Entry], version: int) -> list[bytes]:
    encode_one = _ENTRIES[kind][0] if kind in _ENTRIES else None
    encoded = []
    for entry in entries:
        if isinstance(entry, bytes):
            encoded.append(entry)
        elif encode_one is None:
            raise MisuseError(f"{type(entry).__name__} in an answer of type {kind}")
        else:
            encoded.append(encode_one(entry, version))
    return encoded


def _encode_desc(desc: Desc, version: int) -> bytes:
    texts = (desc.manufacturer, desc.hardware, desc.software, desc.serial, desc.datapath)
    return _DESC.pack(*(text.encode() for text in texts))


def _decode_desc(reader: Reader, version: int) -> Desc:
    return Desc(*map(text_of, reader.unpack(_DESC)))


_ENTRIES: dict[int, tuple[Callable[[Any, int], bytes], Callable[[Reader, int], Entry]]] = {
    MultipartType.DESC: (_encode_desc, _decode_desc),
    MultipartType.FLOW: (encode_flow_stats, decode_flow_stats),
    MultipartType.AGGREGATE: (encode_aggregate, decode_aggregate),
    MultipartType.PORT_STATS: (encode_port_stats, decode_port_stats),
    MultipartType.GROUP_STATS: (encode_group_stats, decode_group_stats),
    MultipartType.GROUP_DESC: (encode_group_desc, decode_group_desc),
    MultipartType.METER_STATS: (encode_meter_stats, decode_meter_stats),
    MultipartType.METER_CONFIG: (encode_meter_config, decode_meter_config),
    MultipartType.PORT_DESC: (encode_port, decode_port),
}
