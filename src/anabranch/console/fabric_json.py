"""The fabric's records as the JSON of ``/api/fabric``, and back."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from anabranch.console.fabric_models import (
    BandOut,
    BucketOut,
    CallbackOut,
    CountersOut,
    EgressIO,
    FlowOut,
    GroupOut,
    HostOut,
    IntentsOut,
    LinkIn,
    LinkOut,
    MeterOut,
    NamedRuleOut,
    PathChange,
    PortCountersOut,
    PortOut,
    RefusalOut,
    TapOut,
    VmPathIn,
    WholeRefusalOut,
)
from anabranch.fabric.errors import MisuseError
from anabranch.fabric.failures import Failure
from anabranch.fabric.intents import Egress, Flow, Intents, Service, Tap
from anabranch.fabric.model import Host, Link, LinkInfo, Network, PortRef
from anabranch.fabric.notify import SubscriptionState
from anabranch.fabric.openflow.actions import (
    GROUP_ANY,
    PORT_ANY,
    PORT_CONTROLLER,
    PORT_IN_PORT,
    PORT_LOCAL,
    Action,
    ApplyActions,
    GotoTable,
    Group,
    Meter,
    OtherAction,
    Output,
    PopVlan,
    PushVlan,
    SetField,
    WriteMetadata,
)
from anabranch.fabric.openflow.messages import (
    FlowStats,
    GroupDesc,
    GroupStats,
    MeterConfig,
    MeterStats,
    PortStats,
)
from anabranch.fabric.openflow.oxm import FIELDS, Match
from anabranch.fabric.pathlogic import extend_match
from anabranch.fabric.pathlogic.logic import NamedRule, Path
from anabranch.fabric.tables import INTENT_COOKIE, REACTIVE_COOKIE

_PORT_NAMES = {PORT_CONTROLLER: "controller", PORT_IN_PORT: "in_port", PORT_LOCAL: "local"}
_OWNERS = {INTENT_COOKIE >> 56: "intent", REACTIVE_COOKIE >> 56: "reactive"}
_MAX_REFUSED = 1000
_FIELDS = frozenset(known.name for known in FIELDS)


def port_of(text: str) -> PortRef:
    """Return the port that a checked text names."""
    switch, _, number = text.rpartition(":")
    return PortRef(switch, int(number))


def match_of(fields: dict[str, int | str]) -> Match:
    """Return the match that JSON describes.

    Raises:
        MisuseError: a field is unknown or a value does not fit it.
    """
    values: dict[str, Any] = {name: _masked(value) for name, value in fields.items()}
    unknown = sorted(values.keys() - _FIELDS)
    if unknown:
        raise MisuseError(f"there is no match field {unknown[0]!r}")
    return Match(**values)


def _masked(value: int | str) -> Any:
    """``0x10/0xf0`` and ``16/240`` are masked numbers; addresses stay texts."""
    if isinstance(value, str) and "/" in value:
        first, _, second = value.partition("/")
        try:
            return int(first, 0), int(second, 0)
        except ValueError:
            return value
    return value


def match_out(match: Match) -> dict[str, Any]:
    """Return the fields that a match has."""
    fields: dict[str, Any] = {}
    for name, value in match.fields:
        fields[name] = f"{value[0]:#x}/{value[1]:#x}" if isinstance(value, tuple) else value
    if match.other:
        fields["other"] = match.other.hex()
    return fields


def action_out(action: Action) -> dict[str, Any]:
    """Return an action as an object of one member, by its name in the specification."""
    match action:
        case Output(port_no):
            return {"output": _PORT_NAMES.get(port_no, port_no)}
        case SetField(name, value):
            return {"set_field": {name: value}}
        case Group(group_id):
            return {"group": group_id}
        case PushVlan(ethertype):
            return {"push_vlan": ethertype}
        case PopVlan():
            return {"pop_vlan": {}}
        case OtherAction(raw):
            return {"other": raw.hex()}


def flow_out(stats: FlowStats) -> FlowOut:
    """Return a flow entry."""
    actions: list[dict[str, Any]] = []
    meter = metadata = goto_table = None
    for instruction in stats.instructions:
        match instruction:
            case ApplyActions(applied):
                actions += map(action_out, applied)
            case GotoTable(table_id):
                goto_table = table_id
            case WriteMetadata(value, mask):
                metadata = f"{value:#x}/{mask:#x}"
            case Meter(meter_id):
                meter = meter_id
            case _:
                actions.append({"other": instruction.raw.hex()})
    return FlowOut.model_validate(
        {
            "table": stats.table_id,
            "priority": stats.priority,
            "match": match_out(stats.match),
            "actions": actions,
            "meter": meter,
            "metadata": metadata,
            "goto_table": goto_table,
            "cookie": f"{stats.cookie:#018x}",
            "owner": _OWNERS.get(stats.cookie >> 56, "other"),
            "packets": stats.packet_count,
            "bytes": stats.byte_count,
            "duration_s": stats.duration,
            "idle_timeout_s": stats.idle_timeout,
            "hard_timeout_s": stats.hard_timeout,
        }
    )


def group_out(group: GroupDesc, stats: GroupStats | None) -> GroupOut:
    """Return a group with its counters."""
    counts = stats.buckets if stats is not None else ()
    buckets = []
    for number, bucket in enumerate(group.buckets):
        packets, size = counts[number] if number < len(counts) else (None, None)
        buckets.append(
            BucketOut(
                actions=[action_out(action) for action in bucket.actions],
                weight=bucket.weight,
                watch_port=None if bucket.watch_port == PORT_ANY else bucket.watch_port,
                watch_group=None if bucket.watch_group == GROUP_ANY else bucket.watch_group,
                packets=packets,
                bytes=size,
            )
        )
    return GroupOut.model_validate(
        {
            "group": group.group_id,
            "type": group.type.name.lower(),
            "buckets": buckets,
            "flows": stats.ref_count if stats else None,
            "packets": stats.packet_count if stats else None,
            "bytes": stats.byte_count if stats else None,
            "duration_s": stats.duration if stats else None,
        }
    )


def meter_out(meter: MeterConfig, stats: MeterStats | None) -> MeterOut:
    """Return a meter with its counters."""
    counts = stats.bands if stats is not None else ()
    bands = []
    for number, band in enumerate(meter.bands):
        packets, size = counts[number] if number < len(counts) else (None, None)
        bands.append(
            BandOut(rate=band.rate, burst_size=band.burst_size, packets=packets, bytes=size)
        )
    return MeterOut(
        meter=meter.meter_id,
        unit="packets/s" if meter.packets else "kbit/s",
        bands=bands,
        flows=stats.flow_count if stats else None,
        packets=stats.packet_count if stats else None,
        bytes=stats.byte_count if stats else None,
        duration_s=stats.duration if stats else None,
    )


def ports_out(network: Network, switch: str | None) -> list[PortOut]:
    """Return the ports of one switch, or of all."""
    peers = {link.src: str(link.dst) for link in network.links}
    hosts: dict[PortRef, list[str]] = {}
    for host in network.hosts.values():
        hosts.setdefault(host.at, []).append(host.mac)
    return [
        PortOut(
            port=str(ref),
            name=port.name,
            hw_addr=port.hw_addr,
            up=port.up,
            link=peers.get(ref),
            hosts=sorted(hosts.get(ref, ())),
        )
        for ref, port in sorted(network.ports.items())
        if switch is None or ref.switch == switch
    ]


def port_counters_out(switch: str, stats: PortStats) -> PortCountersOut:
    """Return the counters of a port."""
    counters = {name: getattr(stats, name) for name in CountersOut.model_fields}
    return PortCountersOut(
        port=str(PortRef(switch, stats.port_no)), counters=CountersOut(**counters)
    )


def link_out(link: Link, info: LinkInfo) -> LinkOut:
    """Return one direction of a link."""
    return LinkOut(
        src=str(link.src),
        dst=str(link.dst),
        up=info.up,
        capacity_mbit=info.capacity_mbit,
        load_mbit=info.load_mbit,
        redundant=info.redundant,
        last_resort=info.last_resort,
    )


def links_of(wanted: Iterable[LinkIn]) -> dict[Link, LinkInfo]:
    """Return the links that an administrator declares."""
    links: dict[Link, LinkInfo] = {}
    for given in wanted:
        link = Link(port_of(given.src), port_of(given.dst))
        info = LinkInfo(capacity_mbit=given.capacity_mbit, redundant=given.redundant)
        links[link] = info
        if given.both:
            links[link.reverse] = info
    return links


def host_out(host: Host) -> HostOut:
    """Return a host."""
    return HostOut(mac=host.mac, at=str(host.at), ipv4=host.ipv4, vm=host.vm)


def flow_of(name: str, wanted: PathChange) -> Flow:
    """Return what is asked of the fabric.

    Raises:
        MisuseError: a field of the match is unknown or does not fit.
    """
    return Flow(
        name=name,
        match=match_of(wanted.match),
        ingress=port_of(wanted.ingress),
        egress=frozenset(
            Egress(port_of(egress.at), **egress.model_dump(exclude={"at"}))
            for egress in wanted.egresses
        ),
        through=tuple(Service(port_of(s.to), port_of(s.back)) for s in wanted.through),
        policy=wanted.policy,
        protected=wanted.protected,
        rate_kbps=wanted.rate_kbps,
        priority=wanted.priority,
    )


def vm_path_of(name: str, wanted: VmPathIn) -> Path:
    """Return the path past virtual machines that is asked for.

    Raises:
        MisuseError: an address is none, or the match does not fit or is not said once.
    """
    if wanted.extend_match is not None and wanted.match is None:
        match = extend_match.to_match(wanted.extend_match)
    elif wanted.match is not None and wanted.extend_match is None:
        match = match_of(wanted.match)
    else:
        raise MisuseError("either match or extend_match must be given")
    return Path(
        name,
        port_of(wanted.ingress),
        port_of(wanted.exit),
        wanted.external,
        match,
        wanted.external_mac,
        wanted.roles,
    )


def named_rule_out(rule: NamedRule) -> NamedRuleOut:
    """Return a rule under its name."""
    return NamedRuleOut(
        name=rule.name, switch=rule.switch, in_port=rule.in_port, out_port=rule.out_port
    )


def egress_out(egress: Egress) -> EgressIO:
    """Return where copies leave the fabric."""
    return EgressIO(
        at=str(egress.at),
        eth_dst=egress.eth_dst,
        ipv4_dst=egress.ipv4_dst,
        udp_dst=egress.udp_dst,
        eth_src=egress.eth_src,
        ipv4_src=egress.ipv4_src,
        ipv6_dst=egress.ipv6_dst,
    )


def tap_out(tap: Tap) -> TapOut:
    """Return a tap."""
    return TapOut(
        name=tap.name,
        match=match_out(tap.match),
        switches=sorted(tap.switches),
        to=tap.to,
        divert=tap.divert,
        priority=tap.priority,
    )


def refusals_out(failures: Iterable[Failure]) -> dict[str, list[RefusalOut]]:
    """Return what switches refuse by the name of the flow or tap that it hits."""
    found: dict[str, list[RefusalOut]] = {}
    for failure in failures:
        refusal = RefusalOut(switch=failure.switch, reason=failure.reason)
        for name in failure.hit:
            found.setdefault(name, []).append(refusal)
    return found


def intents_out(
    intents: Intents, unreachable: Mapping[str, list[str]], failures: Sequence[Failure]
) -> IntentsOut:
    """Return what is wanted; the flows are listed as paths."""
    return IntentsOut(
        flows=len(intents.flows),
        taps=[tap_out(tap) for tap in intents.taps],
        unreachable=dict(unreachable),
        refused=[
            WholeRefusalOut(switch=it.switch, reason=it.reason, hit=sorted(it.hit))
            for it in failures[:_MAX_REFUSED]
        ],
    )


def callback_out(state: SubscriptionState) -> CallbackOut:
    """Return a callback without its secret."""
    subscription = state.subscription
    return CallbackOut(
        id=subscription.id,
        url=subscription.url,
        encoding=subscription.encoding,
        kinds=sorted(subscription.kinds),
        created=subscription.created,
        failing=state.failing,
        delivered=state.delivered,
        dropped=state.dropped,
        waiting=state.waiting,
        last_error=state.last_error,
    )
