"""Questions and answers of multipart messages, against os-ken and Open vSwitch."""

import struct
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.fabric.openflow.oracle import (
    ALL_VERSIONS,
    BANDS,
    DATAPATHS,
    GROUP_TYPES,
    INSTRUCTIONS,
    MATCHES,
    PARSERS,
    U8,
    U16,
    U32,
    U64,
    oracle,
    ours_match,
    serialized,
    their_instructions,
    theirs_match,
)
from tests.fabric.openflow.test_codec import NANOSECONDS, PORTS, assert_same
from tests.fabric.openflow.test_groups import BUCKETS, numbered, their_buckets

from anabranch.fabric.errors import MisuseError, ProtocolError
from anabranch.fabric.openflow.codec import decode, encode
from anabranch.fabric.openflow.messages import (
    UNCOUNTED,
    AggregateStats,
    Desc,
    FlowStats,
    GroupDesc,
    GroupStats,
    MeterConfig,
    MeterStats,
    MultipartReply,
    MultipartRequest,
    MultipartType,
    Port,
    PortStats,
    Unknown,
)
from anabranch.fabric.openflow.multipart import split_reply
from anabranch.fabric.openflow.oxm import Match

COUNTERS = st.lists(st.tuples(U64, U64), max_size=3).map(tuple)
TEXT = st.text("abc 123", max_size=20)
ENTRIES: dict[MultipartType, Any] = {
    MultipartType.DESC: st.builds(Desc, TEXT, TEXT, TEXT, TEXT, TEXT),
    MultipartType.FLOW: st.builds(
        FlowStats, U8, NANOSECONDS, U16, U16, U16, U16, U64, U64, U64, MATCHES, INSTRUCTIONS
    ),
    MultipartType.AGGREGATE: st.builds(AggregateStats, U64, U64, U32),
    MultipartType.PORT_STATS: st.builds(PortStats, U32, *(U64,) * 12, NANOSECONDS),
    MultipartType.GROUP_STATS: st.builds(GroupStats, U32, U32, U64, U64, NANOSECONDS, COUNTERS),
    MultipartType.GROUP_DESC: st.builds(GroupDesc, U32, GROUP_TYPES, BUCKETS),
    MultipartType.METER_STATS: st.builds(MeterStats, U32, U32, U64, U64, NANOSECONDS, COUNTERS),
    MultipartType.METER_CONFIG: st.builds(MeterConfig, U32, BANDS, st.booleans()),
    MultipartType.PORT_DESC: PORTS,
}
SINGLE = (MultipartType.DESC, MultipartType.AGGREGATE)  # os-ken reads one, and no more
REPLIES = st.sampled_from(MultipartType).flatmap(
    lambda kind: st.builds(
        MultipartReply,
        st.just(kind),
        st.lists(ENTRIES[kind], min_size=kind in SINGLE, max_size=3).map(tuple),
        st.booleans(),
        xid=U32,
    )
)


@pytest.mark.parametrize("version", [4, 5, 6])
@pytest.mark.parametrize("kind", MultipartType)
def test_our_requests_are_those_of_os_ken(kind: MultipartType, version: int) -> None:
    match = Match(eth_type=0x0800, ipv4_dst="239.0.0.0/8")
    ours = MultipartRequest(
        kind,
        port_no=3,
        table_id=2,
        match=match,
        cookie=5,
        cookie_mask=7,
        out_port=6,
        group_id=8,
        meter_id=9,
        xid=7,
    )
    parser, datapath = PARSERS[version], DATAPATHS[version]
    their_match = parser.OFPMatch(eth_type=0x0800, ipv4_dst=("239.0.0.0", "255.0.0.0"))
    v15 = version == 6
    name, arguments = {
        MultipartType.DESC: ("OFPDescStatsRequest", ()),
        MultipartType.FLOW: (
            "OFPFlowDescStatsRequest" if v15 else "OFPFlowStatsRequest",
            (2, 6, 0xFFFFFFFF, 5, 7, their_match),
        ),
        MultipartType.AGGREGATE: (
            "OFPAggregateStatsRequest",
            (2, 6, 0xFFFFFFFF, 5, 7, their_match),
        ),
        MultipartType.PORT_STATS: ("OFPPortStatsRequest", (3,)),
        MultipartType.GROUP_STATS: ("OFPGroupStatsRequest", (8,)),
        MultipartType.GROUP_DESC: ("OFPGroupDescStatsRequest", (8,) if v15 else ()),
        MultipartType.METER_STATS: ("OFPMeterStatsRequest", (9,)),
        MultipartType.METER_CONFIG: (
            "OFPMeterDescStatsRequest" if v15 else "OFPMeterConfigStatsRequest",
            (9,),
        ),
        MultipartType.PORT_DESC: ("OFPPortDescStatsRequest", (3,) if v15 else ()),
    }[kind]
    theirs = getattr(parser, name)(datapath, 0, *arguments)
    raw = encode(ours, version)
    assert raw == serialized(theirs, 7, version)
    back = decode(raw)
    assert isinstance(back, MultipartRequest)
    assert encode(back, version) == raw


@given(
    st.builds(
        MultipartRequest,
        st.sampled_from((MultipartType.FLOW, MultipartType.AGGREGATE)),
        table_id=U8,
        match=MATCHES,
        cookie=U64,
        cookie_mask=U64,
        out_port=U32,
        out_group=U32,
        xid=U32,
    ),
    ALL_VERSIONS,
)
def test_a_request_survives_the_wire(request_: MultipartRequest, version: int) -> None:
    assert decode(encode(request_, version)) == request_


def returned(entry: Any, version: int) -> Any:
    """Return an entry as it comes back: with the ids of its buckets."""
    if isinstance(entry, GroupDesc):
        return GroupDesc(entry.group_id, entry.type, numbered(entry.buckets, version))
    return entry


@given(REPLIES, ALL_VERSIONS)
def test_a_reply_survives_the_wire_and_os_ken_reads_it(reply: MultipartReply, version: int) -> None:
    raw = encode(reply, version)
    back = decode(raw)
    assert back == MultipartReply(
        reply.type,
        tuple(returned(entry, version) for entry in reply.entries),
        reply.more,
        xid=reply.xid,
    )
    if not beyond_os_ken(reply, version):
        assert_read_alike(reply, oracle(raw), version)


def beyond_os_ken(reply: MultipartReply, version: int) -> bool:
    """In OpenFlow 1.5 os-ken takes a second bucket or group for properties of the first."""
    return version == 6 and reply.type == MultipartType.GROUP_DESC


def assert_read_alike(reply: MultipartReply, seen: Any, version: int) -> None:
    assert (seen.xid, seen.type, seen.flags) == (reply.xid, reply.type, int(reply.more))
    theirs = seen.body if isinstance(seen.body, list) else [seen.body]
    if reply.type == MultipartType.DESC:
        assert_desc(reply, theirs[0])
        return
    if reply.type == MultipartType.AGGREGATE:
        assert_sum(reply, theirs[0], version)
        return
    for ours, other in zip(reply.entries, theirs, strict=True):
        assert_alike(ours, other, version)


def assert_desc(reply: MultipartReply, theirs: Any) -> None:
    for entry in reply.entries[:1]:
        assert isinstance(entry, Desc)
        names = (entry.manufacturer, entry.hardware, entry.software, entry.serial, entry.datapath)
        assert tuple(text.rstrip(b"\0").decode() for text in theirs) == names


def assert_sum(reply: MultipartReply, theirs: Any, version: int) -> None:
    seen = dict(theirs.stats.fields) if version == 6 else theirs._asdict()
    assert reply.entries[0] == AggregateStats(
        seen["packet_count"], seen["byte_count"], seen["flow_count"]
    )


def assert_alike(ours: Any, theirs: Any, version: int) -> None:
    match ours:
        case FlowStats():
            if version < 6:
                assert_same(ours, theirs)
            counted = dict(theirs.stats.fields) if version == 6 else vars(theirs)
            assert (counted["packet_count"], counted["byte_count"]) == (
                ours.packet_count,
                ours.byte_count,
            )
            for name in ("table_id", "priority", "idle_timeout", "hard_timeout", "flags", "cookie"):
                assert getattr(theirs, name) == getattr(ours, name)
            assert ours_match(ours.match) == theirs_match(theirs.match)
            assert written(theirs.instructions) == written(
                their_instructions(ours.instructions, version)
            )
        case GroupDesc():
            assert (theirs.group_id, theirs.type) == (ours.group_id, ours.type)
            assert written(theirs.buckets) == written(their_buckets(ours.buckets, version))
        case GroupStats():
            assert (theirs.group_id, theirs.ref_count) == (ours.group_id, ours.ref_count)
            assert (theirs.packet_count, theirs.byte_count) == (ours.packet_count, ours.byte_count)
            counters = [(one.packet_count, one.byte_count) for one in theirs.bucket_stats]
            assert tuple(counters) == ours.buckets
        case MeterStats():
            flows = theirs.ref_count if version == 6 else theirs.flow_count
            assert (theirs.meter_id, flows) == (ours.meter_id, ours.flow_count)
            assert (theirs.packet_in_count, theirs.byte_in_count) == (
                ours.packet_count,
                ours.byte_count,
            )
            counters = [(one.packet_band_count, one.byte_band_count) for one in theirs.band_stats]
            assert tuple(counters) == ours.bands
        case MeterConfig():
            assert theirs.meter_id == ours.meter_id
            assert bool(theirs.flags & 2) == ours.packets
            bands = [
                (band.rate, band.burst_size if theirs.flags & 4 else 0) for band in theirs.bands
            ]
            assert bands == [(band.rate, band.burst_size) for band in ours.bands]
        case Port() | PortStats():
            assert_same(ours, theirs)
        case _:
            raise AssertionError(ours)


def written(parts: list[Any]) -> list[bytes]:
    raws = []
    for part in parts:
        raw = bytearray()
        part.serialize(raw, 0)
        raws.append(bytes(raw))
    return raws


def test_answers_of_open_vswitch_are_read_as_os_ken_reads_them(captures: dict[str, bytes]) -> None:
    seen = set()
    for name, raw in captures.items():
        reply = decode(raw)
        if isinstance(reply, MultipartReply):
            assert reply.entries
            if not beyond_os_ken(reply, raw[0]):
                assert_read_alike(reply, oracle(raw), raw[0])
            seen.add((name.split("_1.")[0], raw[0]))
    assert {kind for kind, _ in seen} == {f"multipart_{kind.value}" for kind in MultipartType}
    assert {version for kind, version in seen if kind == "multipart_1"} == {4, 5, 6}

    desc = decode(captures["multipart_0"])
    assert isinstance(desc, MultipartReply)
    assert desc.entries == (Desc("Nicira, Inc.", "Open vSwitch", "3.1.0", "None", "None"),)


def test_a_sum_of_openflow_15_may_leave_out_all_but_the_number() -> None:
    alone = bytes.fromhex("0613002000000001" + "0002000000000000" + "0000000c" + "8002060400000007")
    reply = MultipartReply(2, (AggregateStats(UNCOUNTED, UNCOUNTED, 7),), xid=1)
    assert decode(alone + bytes(4)) == reply
    for wrong in (
        "0613001800000001" + "0002000000000000" + "0000000400000000",
        "0613002000000001" + "0002000000000000" + "0000000c" + "80020602000000000000" + "0000",
    ):
        with pytest.raises(ProtocolError):
            decode(bytes.fromhex(wrong))


def test_unknown_questions_and_answers_are_kept() -> None:
    queue = bytes.fromhex("0413001200000001" + "0005000100000000" + "beef")
    reply = MultipartReply(5, (b"\xbe\xef",), True, xid=1)
    assert decode(queue) == reply
    assert encode(reply) == queue
    question = bytes.fromhex("0412001000000001" + "0005000000000000")
    assert decode(question) == Unknown(18, question[8:], xid=1)
    with pytest.raises(MisuseError, match="Desc in an answer of type 5"):
        encode(MultipartReply(5, (Desc("", "", "", "", ""),)))


def test_a_group_of_an_unknown_type_does_not_hide_the_others() -> None:
    strange = struct.pack("!HBxI", 8, 77, 5)
    known = struct.pack("!HBxI", 8, 0, 6)
    body = struct.pack("!HH4x", 7, 0) + strange + known
    reply = decode(struct.pack("!BBHI", 4, 19, 8 + len(body), 0) + body)
    assert isinstance(reply, MultipartReply)
    first, second = reply.entries
    assert first == strange
    assert isinstance(second, GroupDesc)
    assert second.group_id == 6


@pytest.mark.parametrize("version", [4, 5, 6])
def test_a_long_answer_is_split_and_comes_back_whole(version: int) -> None:
    flows = tuple(
        FlowStats(0, 1.5, number, 0, 0, 0, number, 1, 2, Match(in_port=number), ())
        for number in range(2000)
    )
    parts = split_reply(MultipartType.FLOW, flows, version, 9)
    raws = [encode(part, version) for part in parts]
    assert len(raws) > 1
    assert all(len(raw) > 60000 for raw in raws[:-1])
    back = [decode(raw) for raw in raws]
    assert [part.more for part in back if isinstance(part, MultipartReply)] == [
        *[True] * (len(raws) - 1),
        False,
    ]
    assert sum((part.entries for part in back if isinstance(part, MultipartReply)), ()) == flows
    assert {part.xid for part in back} == {9}


def test_an_empty_answer_is_one_message_and_a_giant_none() -> None:
    assert split_reply(MultipartType.FLOW, (), 4, 9) == [MultipartReply(1, (), xid=9)]
    with pytest.raises(MisuseError, match="fits into no message"):
        split_reply(MultipartType.GROUP_DESC, (bytes(65530),), 4, 9)
