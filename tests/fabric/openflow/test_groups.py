"""Groups and meters against os-ken, in both directions and every version."""

import struct
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.fabric.openflow.oracle import (
    ALL_VERSIONS,
    BANDS,
    BUCKETS,
    DATAPATHS,
    GROUP_TYPES,
    PARSERS,
    U32,
    serialized,
    their_action,
)

from anabranch.fabric.errors import MisuseError, ProtocolError
from anabranch.fabric.openflow.actions import GROUP_ANY, PORT_ANY, Output
from anabranch.fabric.openflow.codec import decode, encode
from anabranch.fabric.openflow.messages import (
    BUCKET_ALL,
    BUCKET_LAST,
    Bucket,
    GroupCommand,
    GroupDesc,
    GroupMod,
    GroupType,
    MeterBand,
    MeterCommand,
    MeterConfig,
    MeterMod,
    MultipartReply,
)

COMMANDS_13 = (GroupCommand.ADD, GroupCommand.MODIFY, GroupCommand.DELETE)
GROUP_MODS = st.builds(GroupMod, st.sampled_from(COMMANDS_13), U32, GROUP_TYPES, BUCKETS, xid=U32)
METER_MODS = st.builds(MeterMod, st.sampled_from(MeterCommand), U32, BANDS, st.booleans(), xid=U32)


def their_bucket(place: int, bucket: Bucket, version: int) -> Any:
    parser = PARSERS[version]
    actions = [their_action(action, version) for action in bucket.actions]
    if version < 6:
        return parser.OFPBucket(bucket.weight, bucket.watch_port, bucket.watch_group, actions)
    properties = []
    if bucket.weight:
        properties.append(parser.OFPGroupBucketPropWeight(type_=0, weight=bucket.weight))
    if bucket.watch_port != PORT_ANY:
        properties.append(parser.OFPGroupBucketPropWatch(type_=1, watch=bucket.watch_port))
    if bucket.watch_group != GROUP_ANY:
        properties.append(parser.OFPGroupBucketPropWatch(type_=2, watch=bucket.watch_group))
    bucket_id = place if bucket.bucket_id is None else bucket.bucket_id
    return parser.OFPBucket(bucket_id, actions, properties)


def their_buckets(buckets: tuple[Bucket, ...], version: int) -> list[Any]:
    return [their_bucket(place, bucket, version) for place, bucket in enumerate(buckets)]


def numbered(buckets: tuple[Bucket, ...], version: int) -> tuple[Bucket, ...]:
    """Return buckets as they come back: in OpenFlow 1.5 each has an id."""
    if version < 6:
        return buckets
    return tuple(
        Bucket(one.actions, one.watch_port, one.watch_group, one.weight, place)
        for place, one in enumerate(buckets)
    )


@given(GROUP_MODS, ALL_VERSIONS)
def test_our_group_mod_is_that_of_os_ken(mod: GroupMod, version: int) -> None:
    theirs = PARSERS[version].OFPGroupMod(
        DATAPATHS[version],
        command=mod.command,
        type_=mod.type,
        group_id=mod.group_id,
        buckets=their_buckets(mod.buckets, version),
    )
    raw = encode(mod, version)
    assert raw == serialized(theirs, mod.xid, version)
    buckets = numbered(mod.buckets, version)
    assert decode(raw) == GroupMod(mod.command, mod.group_id, mod.type, buckets, xid=mod.xid)


def test_single_buckets_are_openflow_15() -> None:
    bucket = Bucket((Output(3),), weight=2, bucket_id=9)
    for mod in (
        GroupMod(
            GroupCommand.INSERT_BUCKET,
            5,
            GroupType.SELECT,
            (bucket,),
            command_bucket_id=BUCKET_LAST,
        ),
        GroupMod(GroupCommand.REMOVE_BUCKET, 5, command_bucket_id=9),
        GroupMod(GroupCommand.REMOVE_BUCKET, 5, command_bucket_id=BUCKET_ALL),
    ):
        theirs = PARSERS[6].OFPGroupMod(
            DATAPATHS[6],
            mod.command,
            mod.type,
            5,
            mod.command_bucket_id,
            their_buckets(mod.buckets, 6),
        )
        assert encode(mod, 6) == serialized(theirs, 0, 6)
        assert decode(encode(mod, 6)) == mod
        for version in (4, 5):
            with pytest.raises(MisuseError, match=f"{mod.command.name} needs OpenFlow 1.5"):
                encode(mod, version)
    unnamed = GroupMod(GroupCommand.INSERT_BUCKET, 5, buckets=(Bucket((Output(3),)),))
    with pytest.raises(MisuseError, match="needs a bucket_id"):
        encode(unnamed, 6)


def test_a_group_too_large_for_a_message_is_misuse() -> None:
    bucket = Bucket((Output(1),) * 100)
    with pytest.raises(MisuseError, match="too long"):
        encode(GroupMod(GroupCommand.ADD, 1, buckets=(bucket,) * 50))
    with pytest.raises(MisuseError, match="cannot be encoded"):
        encode(GroupMod(GroupCommand.ADD, 1, buckets=(Bucket((), weight=65536),)))


@given(METER_MODS, ALL_VERSIONS)
def test_our_meter_mod_is_that_of_os_ken(mod: MeterMod, version: int) -> None:
    parser = PARSERS[version]
    burst = 4 if any(band.burst_size for band in mod.bands) else 0
    theirs = parser.OFPMeterMod(
        DATAPATHS[version],
        mod.command,
        (2 if mod.packets else 1) | burst | 8,
        mod.meter_id,
        [parser.OFPMeterBandDrop(band.rate, band.burst_size) for band in mod.bands],
    )
    raw = encode(mod, version)
    assert raw == serialized(theirs, mod.xid, version)
    assert decode(raw) == mod


def test_bands_of_other_kinds_are_kept_as_they_came() -> None:
    remark = struct.pack("!HHIIB3x", 2, 16, 100, 10, 1)
    body = struct.pack("!HHI", 8 + 16, 5, 7) + remark
    reply = struct.pack("!HH4x", 10, 0) + body
    raw = struct.pack("!BBHI", 4, 19, 8 + len(reply), 0) + reply
    message = decode(raw)
    assert isinstance(message, MultipartReply)
    (config,) = message.entries
    assert config == MeterConfig(7, (MeterBand(100, 10, remark),))
    mod = MeterMod(MeterCommand.ADD, 7, (MeterBand(100, 10, remark),))
    assert remark in encode(mod)
    assert decode(encode(mod)) == mod


@pytest.mark.parametrize("suffix", ["", "_1.5"])
def test_groups_and_meters_of_open_vswitch_are_what_was_asked_for(
    captures: dict[str, bytes], suffix: str
) -> None:
    groups = decode(captures[f"multipart_7{suffix}"])
    assert isinstance(groups, MultipartReply)
    by_id = {group.group_id: group for group in groups.entries if isinstance(group, GroupDesc)}
    assert {group_id: group.type for group_id, group in by_id.items()} == {
        1: GroupType.FAST_FAILOVER,
        2: GroupType.ALL,
        3: GroupType.SELECT,
        4: GroupType.INDIRECT,
    }
    assert [bucket.watch_port for bucket in by_id[1].buckets] == [2, 3]
    assert [bucket.weight for bucket in by_id[3].buckets] == [5, 1]
    ids = [0, 1] if suffix else [None, None]
    assert [bucket.bucket_id for bucket in by_id[3].buckets] == ids

    meters = decode(captures[f"multipart_10{suffix}"])
    assert isinstance(meters, MultipartReply)
    assert set(meters.entries) == {  # it reports a burst where none was asked for, without the flag
        MeterConfig(1, (MeterBand(1000, 100),)),
        MeterConfig(2, (MeterBand(500),), packets=True),
    }


@pytest.mark.parametrize(
    ("version", "body"),
    [
        (4, struct.pack("!HBxI", 0, 0, 1) + struct.pack("!HHII4x", 8, 0, 0, 0)),
        (4, struct.pack("!HBxI", 0, 0, 1) + b"\0"),
        (6, struct.pack("!HBxIH2xI", 0, 0, 1, 8, 0)),
        (6, struct.pack("!HBxIH2xI", 0, 0, 1, 8, 0) + struct.pack("!HHI", 8, 8, 0)),
        (6, struct.pack("!HBxIH2xI", 0, 0, 1, 12, 0) + struct.pack("!HHI", 12, 0, 0) + bytes(4)),
    ],
)
def test_malformed_buckets_are_the_peers_fault(version: int, body: bytes) -> None:
    with pytest.raises(ProtocolError):
        decode(struct.pack("!BBHI", version, 15, 8 + len(body), 0) + body)
