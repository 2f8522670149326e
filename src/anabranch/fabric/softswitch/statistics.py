"""What a soft switch answers to multipart requests (OpenFlow 1.3.5, section 7.3.5)."""

from collections.abc import Callable

from anabranch.fabric.openflow.actions import PORT_ANY, Group
from anabranch.fabric.openflow.messages import (
    GROUP_ALL,
    METER_ALL,
    TABLE_ALL,
    AggregateStats,
    Desc,
    Entry,
    FlowStats,
    GroupDesc,
    GroupStats,
    MeterConfig,
    MeterStats,
    MultipartRequest,
    MultipartType,
    PortStats,
)
from anabranch.fabric.softswitch.flow_table import FlowEntry
from anabranch.fabric.softswitch.switch import SoftSwitch

Answer = Callable[[SoftSwitch, MultipartRequest, float], list[Entry]]


def answer(switch: SoftSwitch, request: MultipartRequest, now: float) -> list[Entry]:
    """Return the entries of the answer; of what does not exist there are none.

    Raises:
        RefusedError: the request's match has a field that the switch does not know.
    """
    return ANSWERS[request.type](switch, request, now)


def _desc(switch: SoftSwitch, request: MultipartRequest, now: float) -> list[Entry]:
    return [Desc("Anabranch", "none", "soft switch", "", f"{switch.dpid:016x}")]


def _flows(switch: SoftSwitch, request: MultipartRequest, now: float) -> list[Entry]:
    return [
        FlowStats(
            entry.table_id,
            now - entry.created,
            entry.priority,
            entry.idle_timeout,
            entry.hard_timeout,
            entry.flags,
            entry.cookie,
            entry.packets,
            entry.bytes,
            entry.match,
            entry.instructions,
        )
        for entry in _chosen(switch, request)
    ]


def _aggregate(switch: SoftSwitch, request: MultipartRequest, now: float) -> list[Entry]:
    chosen = _chosen(switch, request)
    packets, octets = sum(e.packets for e in chosen), sum(e.bytes for e in chosen)
    return [AggregateStats(packets, octets, len(chosen))]


def _chosen(switch: SoftSwitch, request: MultipartRequest) -> list[FlowEntry]:
    """Return the flows that a request is about, table by table."""
    chosen: list[FlowEntry] = []
    for table_id in sorted(switch.tables):
        if request.table_id in (TABLE_ALL, table_id):
            chosen += switch.tables[table_id].chosen(
                request.match,
                cookie=request.cookie,
                cookie_mask=request.cookie_mask,
                out_port=request.out_port,
                out_group=request.out_group,
            )
    return chosen


def _port_stats(switch: SoftSwitch, request: MultipartRequest, now: float) -> list[Entry]:
    return [
        PortStats(
            *(port_no, at.rx_packets, at.tx_packets, at.rx_bytes, at.tx_bytes),
            *(at.rx_dropped, at.tx_dropped, 0, 0, 0, 0, 0, 0),
            now - at.created,
        )
        for port_no, at in switch.ports.items()
        if request.port_no in (PORT_ANY, port_no)
    ]


def _port_desc(switch: SoftSwitch, request: MultipartRequest, now: float) -> list[Entry]:
    return [at.port for number, at in switch.ports.items() if request.port_no in (PORT_ANY, number)]


def _group_stats(switch: SoftSwitch, request: MultipartRequest, now: float) -> list[Entry]:
    return [
        GroupStats(
            group.group_id,
            _references(switch, group.group_id),
            group.packets,
            group.bytes,
            now - group.created,
            tuple((bucket.packets, bucket.bytes) for bucket in group.buckets),
        )
        for group in switch.groups
        if request.group_id in (GROUP_ALL, group.group_id)
    ]


def _references(switch: SoftSwitch, group_id: int) -> int:
    """Count the flows and groups that send to a group."""
    wanted = Group(group_id)
    flows = sum(wanted in entry.actions for table in switch.tables.values() for entry in table)
    return flows + sum(
        any(wanted in bucket.bucket.actions for bucket in group.buckets) for group in switch.groups
    )


def _group_desc(switch: SoftSwitch, request: MultipartRequest, now: float) -> list[Entry]:
    return [
        GroupDesc(group.group_id, group.type, tuple(entry.bucket for entry in group.buckets))
        for group in switch.groups
        if request.group_id in (GROUP_ALL, group.group_id)
    ]


def _meter_stats(switch: SoftSwitch, request: MultipartRequest, now: float) -> list[Entry]:
    return [
        MeterStats(
            meter.meter_id,
            sum(e.meter == meter.meter_id for table in switch.tables.values() for e in table),
            meter.packets,
            meter.bytes,
            now - meter.created,
            tuple((band.packets, band.bytes) for band in meter.bands),
        )
        for meter in switch.meters.values()
        if request.meter_id in (METER_ALL, meter.meter_id)
    ]


def _meter_config(switch: SoftSwitch, request: MultipartRequest, now: float) -> list[Entry]:
    return [
        MeterConfig(meter.meter_id, tuple(state.band for state in meter.bands), meter.in_packets)
        for meter in switch.meters.values()
        if request.meter_id in (METER_ALL, meter.meter_id)
    ]


ANSWERS: dict[MultipartType, Answer] = {
    MultipartType.DESC: _desc,
    MultipartType.FLOW: _flows,
    MultipartType.AGGREGATE: _aggregate,
    MultipartType.PORT_STATS: _port_stats,
    MultipartType.PORT_DESC: _port_desc,
    MultipartType.GROUP_STATS: _group_stats,
    MultipartType.GROUP_DESC: _group_desc,
    MultipartType.METER_STATS: _meter_stats,
    MultipartType.METER_CONFIG: _meter_config,
}
