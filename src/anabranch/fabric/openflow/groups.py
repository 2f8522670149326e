"""Groups and meters on the wire (OpenFlow 1.3.5, sections 7.3.4.3, 7.3.4.4; 1.5.1, 7.3.4.3)."""

import struct
from collections.abc import Iterable

from anabranch.fabric.errors import MisuseError
from anabranch.fabric.openflow.actions import (
    GROUP_ANY,
    PORT_ANY,
    decode_actions,
    encode_actions,
)
from anabranch.fabric.openflow.messages import (
    BUCKET_ALL,
    Bucket,
    GroupCommand,
    GroupDesc,
    GroupMod,
    GroupStats,
    GroupType,
    MeterBand,
    MeterCommand,
    MeterConfig,
    MeterMod,
    MeterStats,
)
from anabranch.fabric.openflow.wire import Reader, duration_parts

_V15 = 6
_LENGTH = struct.Struct("!H")
_GROUP_MOD = struct.Struct("!HBxI")
_GROUP_MOD_15 = struct.Struct("!HBxIH2xI")
_BUCKET = struct.Struct("!HHII4x")
_BUCKET_15 = struct.Struct("!HHI")
_WEIGHT = struct.Struct("!HHH2x")
_WATCH = struct.Struct("!HHI")
_GROUP_DESC = struct.Struct("!BxI")
_GROUP_DESC_15 = struct.Struct("!BxIH6x")
_GROUP_STATS = struct.Struct("!2xII4xQQII")
_COUNTER = struct.Struct("!QQ")
_METER_MOD = struct.Struct("!HHI")
_BAND = struct.Struct("!HHII")
_METER_CONFIG = struct.Struct("!HI")
_METER_STATS = struct.Struct("!IH6xIQQII")
_WEIGHT_TYPE, _WATCH_PORT_TYPE, _WATCH_GROUP_TYPE = 0, 1, 2
_DROP = 1
_KBPS, _PKTPS, _BURST, _STATS = 1, 2, 4, 8


def encode_group_mod(mod: GroupMod, version: int) -> bytes:
    """Return the body of a group_mod.

    Raises:
        MisuseError: a bucket command before OpenFlow 1.5, or an INSERT_BUCKET of unnamed buckets.
    """
    if version < _V15:
        if mod.command in (GroupCommand.INSERT_BUCKET, GroupCommand.REMOVE_BUCKET):
            raise MisuseError(f"{mod.command.name} needs OpenFlow 1.5")
        return _GROUP_MOD.pack(mod.command, mod.type, mod.group_id) + _buckets(mod.buckets, version)
    if mod.command is GroupCommand.INSERT_BUCKET and any(
        bucket.bucket_id is None for bucket in mod.buckets
    ):
        raise MisuseError("a bucket inserted into a group needs a bucket_id")
    buckets = _buckets(mod.buckets, version)
    head = (mod.command, mod.type, mod.group_id, len(buckets), mod.command_bucket_id)
    return _GROUP_MOD_15.pack(*head) + buckets


def decode_group_mod(reader: Reader, version: int, xid: int) -> GroupMod | None:
    """Read the body of a group_mod; None if its command or type is no known one.

    Raises:
        ProtocolError: it is cut short or a bucket has an impossible length.
    """
    bucket_id = BUCKET_ALL
    if version < _V15:
        command, kind, group_id = reader.unpack(_GROUP_MOD)
        buckets = reader
    else:
        command, kind, group_id, length, bucket_id = reader.unpack(_GROUP_MOD_15)
        buckets = reader.part(length)
    if kind not in GroupType._value2member_map_ or command not in GroupCommand._value2member_map_:
        return None
    return GroupMod(
        GroupCommand(command),
        group_id,
        GroupType(kind),
        _decode_buckets(buckets, version),
        bucket_id,
        xid=xid,
    )


def _buckets(buckets: Iterable[Bucket], version: int) -> bytes:
    if version < _V15:
        return b"".join([_encode_bucket(bucket) for bucket in buckets])
    return b"".join([_encode_bucket_15(place, bucket) for place, bucket in enumerate(buckets)])


def _encode_bucket(bucket: Bucket) -> bytes:
    actions = encode_actions(bucket.actions)
    head = (_BUCKET.size + len(actions), bucket.weight, bucket.watch_port, bucket.watch_group)
    return _BUCKET.pack(*head) + actions


def _encode_bucket_15(place: int, bucket: Bucket) -> bytes:
    actions = encode_actions(bucket.actions, _V15)
    properties = b""
    if bucket.weight:
        properties += _WEIGHT.pack(_WEIGHT_TYPE, 8, bucket.weight)
    if bucket.watch_port != PORT_ANY:
        properties += _WATCH.pack(_WATCH_PORT_TYPE, 8, bucket.watch_port)
    if bucket.watch_group != GROUP_ANY:
        properties += _WATCH.pack(_WATCH_GROUP_TYPE, 8, bucket.watch_group)
    length = _BUCKET_15.size + len(actions) + len(properties)
    bucket_id = place if bucket.bucket_id is None else bucket.bucket_id
    return _BUCKET_15.pack(length, len(actions), bucket_id) + actions + properties


def _decode_buckets(reader: Reader, version: int) -> tuple[Bucket, ...]:
    decode_one = _decode_bucket if version < _V15 else _decode_bucket_15
    buckets = []
    while len(reader):
        buckets.append(decode_one(reader))
    return tuple(buckets)


def _decode_bucket(reader: Reader) -> Bucket:
    length, weight, watch_port, watch_group = reader.unpack(_BUCKET)
    actions = decode_actions(reader.part(length - _BUCKET.size))
    return Bucket(actions, watch_port, watch_group, weight)


def _decode_bucket_15(reader: Reader) -> Bucket:
    length, actions_length, bucket_id = reader.unpack(_BUCKET_15)
    body = reader.part(length - _BUCKET_15.size)
    actions = decode_actions(body.part(actions_length))
    weight, watch_port, watch_group = 0, PORT_ANY, GROUP_ANY
    for kind, value in body.properties():
        if kind == _WEIGHT_TYPE and len(value) == 4:
            weight = int.from_bytes(value[:2], "big")
        elif kind == _WATCH_PORT_TYPE and len(value) == 4:
            watch_port = int.from_bytes(value, "big")
        elif kind == _WATCH_GROUP_TYPE and len(value) == 4:
            watch_group = int.from_bytes(value, "big")
    return Bucket(actions, watch_port, watch_group, weight, bucket_id)


def encode_group_desc(desc: GroupDesc, version: int) -> bytes:
    """Return one entry of a GROUP_DESC reply."""
    buckets = _buckets(desc.buckets, version)
    if version < _V15:
        body = _GROUP_DESC.pack(desc.type, desc.group_id) + buckets
    else:
        body = _GROUP_DESC_15.pack(desc.type, desc.group_id, len(buckets)) + buckets
    return _LENGTH.pack(_LENGTH.size + len(body)) + body


def decode_group_desc(reader: Reader, version: int) -> GroupDesc | bytes:
    """Read one entry of a GROUP_DESC reply; as it came if its type is no known one."""
    (length,) = reader.unpack(_LENGTH)
    raw = reader.take(length - _LENGTH.size)
    entry = Reader(raw)
    if version < _V15:
        kind, group_id = entry.unpack(_GROUP_DESC)
        buckets = entry
    else:
        kind, group_id, buckets_length = entry.unpack(_GROUP_DESC_15)
        buckets = entry.part(buckets_length)
    if kind not in GroupType._value2member_map_:
        return _LENGTH.pack(length) + raw
    return GroupDesc(group_id, GroupType(kind), _decode_buckets(buckets, version))


def encode_group_stats(stats: GroupStats, version: int) -> bytes:
    """Return one entry of a GROUP_STATS reply, the same in all versions."""
    body = _GROUP_STATS.pack(
        stats.group_id,
        stats.ref_count,
        stats.packet_count,
        stats.byte_count,
        *duration_parts(stats.duration),
    )
    body += b"".join([_COUNTER.pack(*counters) for counters in stats.buckets])
    return _LENGTH.pack(_LENGTH.size + len(body)) + body


def decode_group_stats(reader: Reader, version: int) -> GroupStats:
    """Read one entry of a GROUP_STATS reply."""
    (length,) = reader.unpack(_LENGTH)
    entry = reader.part(length - _LENGTH.size)
    group_id, ref_count, packets, octets, seconds, nanoseconds = entry.unpack(_GROUP_STATS)
    duration = seconds + nanoseconds / 1e9
    return GroupStats(group_id, ref_count, packets, octets, duration, _decode_counters(entry))


def _decode_counters(reader: Reader) -> tuple[tuple[int, int], ...]:
    counters: list[tuple[int, int]] = []
    while len(reader):
        packets, octets = reader.unpack(_COUNTER)
        counters.append((packets, octets))
    return tuple(counters)


def encode_meter_mod(mod: MeterMod, version: int) -> bytes:
    """Return the body of a meter_mod, the same in all versions."""
    flags = _meter_flags(mod.bands, mod.packets)
    return _METER_MOD.pack(mod.command, flags, mod.meter_id) + _bands(mod.bands)


def decode_meter_mod(reader: Reader, version: int, xid: int) -> MeterMod | None:
    """Read the body of a meter_mod; None if its command is no known one."""
    command, flags, meter_id = reader.unpack(_METER_MOD)
    if command not in MeterCommand._value2member_map_:
        return None
    bands = _decode_bands(reader, flags)
    return MeterMod(MeterCommand(command), meter_id, bands, bool(flags & _PKTPS), xid=xid)


def _meter_flags(bands: Iterable[MeterBand], packets: bool) -> int:
    burst = _BURST if any(band.burst_size for band in bands) else 0
    return (_PKTPS if packets else _KBPS) | burst | _STATS


def _bands(bands: Iterable[MeterBand]) -> bytes:
    return b"".join(
        [
            band.other or _BAND.pack(_DROP, 16, band.rate, band.burst_size) + bytes(4)
            for band in bands
        ]
    )


def _decode_bands(reader: Reader, flags: int) -> tuple[MeterBand, ...]:
    """Read bands up to the end; without the flag BURST, whatever stands for a burst means none."""
    bands = []
    while len(reader):
        kind, length, rate, burst_size = reader.unpack(_BAND)
        rest = reader.take(length - _BAND.size)
        if kind == _DROP and length == 16:
            bands.append(MeterBand(rate, burst_size if flags & _BURST else 0))
        else:
            raw = _BAND.pack(kind, length, rate, burst_size) + rest
            bands.append(MeterBand(rate, burst_size, raw))
    return tuple(bands)


def encode_meter_config(config: MeterConfig, version: int) -> bytes:
    """Return one entry of a METER_CONFIG reply."""
    flags = _meter_flags(config.bands, config.packets)
    body = _METER_CONFIG.pack(flags, config.meter_id) + _bands(config.bands)
    return _LENGTH.pack(_LENGTH.size + len(body)) + body


def decode_meter_config(reader: Reader, version: int) -> MeterConfig:
    """Read one entry of a METER_CONFIG reply."""
    (length,) = reader.unpack(_LENGTH)
    entry = reader.part(length - _LENGTH.size)
    flags, meter_id = entry.unpack(_METER_CONFIG)
    return MeterConfig(meter_id, _decode_bands(entry, flags), bool(flags & _PKTPS))


def encode_meter_stats(stats: MeterStats, version: int) -> bytes:
    """Return one entry of a METER_STATS reply."""
    bands = b"".join([_COUNTER.pack(*counters) for counters in stats.bands])
    head = _METER_STATS.pack(
        stats.meter_id,
        _METER_STATS.size + len(bands),
        stats.flow_count,
        stats.packet_count,
        stats.byte_count,
        *duration_parts(stats.duration),
    )
    return head + bands


def decode_meter_stats(reader: Reader, version: int) -> MeterStats:
    """Read one entry of a METER_STATS reply."""
    meter_id, length, flows, packets, octets, seconds, nanoseconds = reader.unpack(_METER_STATS)
    bands = _decode_counters(reader.part(length - _METER_STATS.size))
    return MeterStats(meter_id, flows, packets, octets, seconds + nanoseconds / 1e9, bands)
