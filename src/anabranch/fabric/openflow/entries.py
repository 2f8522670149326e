"""Flow entries on the wire: flow_mod, flow_removed and flow statistics.

Source: OpenFlow 1.3.5, sections 7.3.4.2, 7.3.5.2 and 7.4.2. OpenFlow 1.5 (1.5.1, section 7.2.4)
writes counters and times as a list of OXS fields.
"""

import struct
from collections.abc import Mapping

from anabranch.fabric.errors import ProtocolError
from anabranch.fabric.openflow.actions import decode_instructions, encode_instructions
from anabranch.fabric.openflow.messages import (
    UNCOUNTED,
    AggregateStats,
    Command,
    FlowMod,
    FlowRemoved,
    FlowStats,
)
from anabranch.fabric.openflow.oxm import decode_match, encode_match
from anabranch.fabric.openflow.wire import Reader, duration_parts, padding

_V15 = 6
_LENGTH = struct.Struct("!H")
_FLOW_MOD = struct.Struct("!QQBBHHHIIIH2x")
_FLOW_REMOVED = struct.Struct("!QHBBIIHHQQ")
_FLOW_REMOVED_15 = struct.Struct("!BBHHHQ")
_FLOW_STATS = struct.Struct("!BxIIHHHH4xQQQ")
_FLOW_DESC = struct.Struct("!2xBxHHHH2xQ")
_STATS = struct.Struct("!HH")
_OXS = struct.Struct("!HBB")
_TIME = struct.Struct("!II")
_COUNT = struct.Struct("!Q")
_OXS_BASIC = 0x8002
_AGGREGATE = struct.Struct("!QQI4x")
_FLOW_COUNT = struct.Struct("!I")
_DURATION, _FLOWS, _PACKETS, _BYTES = 0, 3, 4, 5
_SIZES = {_DURATION: 8, _FLOWS: 4, _PACKETS: 8, _BYTES: 8}


def encode_flow_mod(mod: FlowMod, version: int) -> bytes:
    """Return the body of a flow_mod."""
    head = _FLOW_MOD.pack(
        mod.cookie,
        mod.cookie_mask,
        mod.table_id,
        mod.command,
        mod.idle_timeout,
        mod.hard_timeout,
        mod.priority,
        mod.buffer_id,
        mod.out_port,
        mod.out_group,
        mod.flags,
    )
    return head + encode_match(mod.match, version) + encode_instructions(mod.instructions, version)


def decode_flow_mod(reader: Reader, version: int, xid: int) -> FlowMod | None:
    """Read the body of a flow_mod; None if its command is no known one.

    Raises:
        ProtocolError: it is cut short, or its match or instructions are malformed.
    """
    cookie, mask, table_id, command, idle, hard, priority, buffer_id, port, group, flags = (
        reader.unpack(_FLOW_MOD)
    )
    if command not in Command._value2member_map_:
        return None
    return FlowMod(
        Command(command),
        decode_match(reader),
        decode_instructions(reader, version),
        priority=priority,
        table_id=table_id,
        cookie=cookie,
        cookie_mask=mask,
        idle_timeout=idle,
        hard_timeout=hard,
        out_port=port,
        out_group=group,
        flags=flags,
        buffer_id=buffer_id,
        xid=xid,
    )


def encode_flow_removed(removed: FlowRemoved, version: int) -> bytes:
    """Return the body of a flow_removed."""
    match = encode_match(removed.match, version)
    if version < _V15:
        head = _FLOW_REMOVED.pack(
            *(removed.cookie, removed.priority, removed.reason, removed.table_id),
            *duration_parts(removed.duration),
            *(removed.idle_timeout, removed.hard_timeout),
            *(removed.packet_count, removed.byte_count),
        )
        return head + match
    head = _FLOW_REMOVED_15.pack(
        *(removed.table_id, removed.reason, removed.priority),
        *(removed.idle_timeout, removed.hard_timeout, removed.cookie),
    )
    return head + match + _encode_stats(removed)


def decode_flow_removed(reader: Reader, version: int, xid: int) -> FlowRemoved:
    """Read the body of a flow_removed.

    Raises:
        ProtocolError: it is cut short or its match is malformed.
    """
    if version < _V15:
        cookie, priority, reason, table_id, seconds, nanoseconds, *rest = reader.unpack(
            _FLOW_REMOVED
        )
        values = (cookie, priority, reason, table_id, seconds + nanoseconds / 1e9, *rest)
        return FlowRemoved(*(*values, decode_match(reader)), xid=xid)
    table_id, reason, priority, idle, hard, cookie = reader.unpack(_FLOW_REMOVED_15)
    match = decode_match(reader)
    duration, packets, octets = _decode_stats(reader)
    return FlowRemoved(
        *(cookie, priority, reason, table_id, duration, idle, hard, packets, octets, match),
        xid=xid,
    )


def encode_flow_stats(stats: FlowStats, version: int) -> bytes:
    """Return one entry of a FLOW reply."""
    match = encode_match(stats.match, version)
    instructions = encode_instructions(stats.instructions, version)
    if version < _V15:
        body = _FLOW_STATS.pack(
            stats.table_id,
            *duration_parts(stats.duration),
            *(stats.priority, stats.idle_timeout, stats.hard_timeout, stats.flags),
            *(stats.cookie, stats.packet_count, stats.byte_count),
        )
        body += match
    else:
        body = _FLOW_DESC.pack(
            *(stats.table_id, stats.priority, stats.idle_timeout, stats.hard_timeout),
            *(stats.flags, stats.cookie),
        )
        body += match + _encode_stats(stats)
    body += instructions
    return _LENGTH.pack(_LENGTH.size + len(body)) + body


def decode_flow_stats(reader: Reader, version: int) -> FlowStats:
    """Read one entry of a FLOW reply.

    Raises:
        ProtocolError: it is cut short, or its match or instructions are malformed.
    """
    (length,) = reader.unpack(_LENGTH)
    entry = reader.part(length - _LENGTH.size)
    if version < _V15:
        table_id, seconds, nanoseconds, *rest = entry.unpack(_FLOW_STATS)
        values = (table_id, seconds + nanoseconds / 1e9, *rest, decode_match(entry))
        return FlowStats(*(*values, decode_instructions(entry, version)))
    table_id, priority, idle, hard, flags, cookie = entry.unpack(_FLOW_DESC)
    match = decode_match(entry)
    duration, packets, octets = _decode_stats(entry)
    return FlowStats(
        *(table_id, duration, priority, idle, hard, flags, cookie, packets, octets, match),
        decode_instructions(entry, version),
    )


def encode_aggregate(stats: AggregateStats, version: int) -> bytes:
    """Return the body of an AGGREGATE reply."""
    if version < _V15:
        return _AGGREGATE.pack(stats.packet_count, stats.byte_count, stats.flow_count)
    return _encode_fields(
        (_PACKETS, _COUNT.pack(stats.packet_count)),
        (_BYTES, _COUNT.pack(stats.byte_count)),
        (_FLOWS, _FLOW_COUNT.pack(stats.flow_count)),
    )


def decode_aggregate(reader: Reader, version: int) -> AggregateStats:
    """Read the body of an AGGREGATE reply.

    Raises:
        ProtocolError: it is cut short, or does not say how many flows there are.
    """
    if version < _V15:
        return AggregateStats(*reader.unpack(_AGGREGATE))
    found = _decode_fields(reader)
    if _FLOWS not in found:
        raise ProtocolError("a sum of flows without their number")
    packets, octets = (_counter(found, number) for number in (_PACKETS, _BYTES))
    return AggregateStats(packets, octets, *_FLOW_COUNT.unpack(found[_FLOWS]))


def _encode_stats(stats: FlowRemoved | FlowStats) -> bytes:
    return _encode_fields(
        (_DURATION, _TIME.pack(*duration_parts(stats.duration))),
        (_PACKETS, _COUNT.pack(stats.packet_count)),
        (_BYTES, _COUNT.pack(stats.byte_count)),
    )


def _decode_stats(reader: Reader) -> tuple[float, int, int]:
    """Read ``ofp_stats``; return duration, packets and bytes, UNCOUNTED where they are missing."""
    found = _decode_fields(reader)
    seconds, nanoseconds = _TIME.unpack(found.get(_DURATION, bytes(_TIME.size)))
    return seconds + nanoseconds / 1e9, _counter(found, _PACKETS), _counter(found, _BYTES)


def _counter(found: Mapping[int, bytes], number: int) -> int:
    return int.from_bytes(found[number], "big") if number in found else UNCOUNTED


def _encode_fields(*fields: tuple[int, bytes]) -> bytes:
    """Return ``ofp_stats`` of OXS fields, with its padding."""
    raw = b"".join(
        _OXS.pack(_OXS_BASIC, number << 1, len(value)) + value for number, value in fields
    )
    length = _STATS.size + len(raw)
    return _STATS.pack(0, length) + raw + padding(length)


def _decode_fields(reader: Reader) -> dict[int, bytes]:
    """Read ``ofp_stats``; return those OXS fields that are known here."""
    _, length = reader.unpack(_STATS)
    fields = reader.part(length - _STATS.size)
    reader.take(-length % 8)
    found = {}
    while len(fields):
        oxs_class, number, size = fields.unpack(_OXS)
        value = fields.take(size)
        expected = _SIZES.get(number >> 1)
        if oxs_class != _OXS_BASIC or expected is None:
            continue
        if size != expected:
            raise ProtocolError(f"statistic {number >> 1} with {size} bytes")
        found[number >> 1] = value
    return found
