"""``/metrics`` in Prometheus' text form, collected when it is asked for."""

from collections.abc import Collection, Iterator

import psutil
from fastapi import Response
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from anabranch.channels.seats import PlainSeat
from anabranch.console.fabric_metrics import fabric_metrics
from anabranch.console.ingress_api import ingress_metrics
from anabranch.console.publisher_metrics import publisher_metrics
from anabranch.console.services_api import service_metrics
from anabranch.console.statistics_api import tree_metrics
from anabranch.site.reports import repairs
from anabranch.site.site import Site


class _Collected:
    """Hands metrics that were collected beforehand to the client library."""

    def __init__(self, metrics: list[Metric]) -> None:
        self._metrics = metrics

    def collect(self) -> Iterator[Metric]:
        yield from self._metrics


async def render_metrics(site: Site, listed: Collection[str]) -> Response:
    """Return the present figures of a site; of channels only of those that are ``listed``."""
    metrics = [*_channels(site, listed), *_leaves(site, listed), *await _ports(site)]
    metrics += await _seats(site, listed)
    metrics += await _nodes(site)
    metrics += await _repairs(site)
    metrics += await publisher_metrics(site, listed)
    metrics += await ingress_metrics(site, listed)
    metrics += await service_metrics(site)
    metrics += tree_metrics(site, listed)
    metrics += _process(site)
    control = site.underlay.control
    if control is not None and control.fabric is not None:
        metrics += fabric_metrics(control.fabric)
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Collected(metrics))
    return Response(generate_latest(registry), media_type=CONTENT_TYPE_LATEST)


def _channels(site: Site, listed: Collection[str]) -> Iterator[Metric]:
    live = GaugeMetricFamily("anabranch_channel_live", "1 if the source is on", labels=["channel"])
    viewers = GaugeMetricFamily(
        "anabranch_channel_viewers", "Seats on the channel", labels=["channel"]
    )
    counts = site.seats.per_channel()
    for channel in site.channels:
        if channel.name not in listed:
            continue
        live.add_metric([channel.name], float(channel.state == "live"))
        viewers.add_metric([channel.name], counts[channel.name])
    yield live
    yield viewers
    total = CounterMetricFamily("anabranch_seats_taken", "Seats taken since the start")
    total.add_metric([], site.seats.taken_total)
    yield total


def _leaves(site: Site, listed: Collection[str]) -> Iterator[Metric]:
    ready = GaugeMetricFamily("anabranch_leaf_ready", "1 if it takes viewers", labels=["leaf"])
    viewers = GaugeMetricFamily("anabranch_leaf_viewers", "Seats at the leaf", labels=["leaf"])
    inlets = GaugeMetricFamily("anabranch_leaf_inlets", "Feeds delivered to it", labels=["leaf"])
    counts = site.seats.per_leaf()
    for leaf in site.leaves:
        ready.add_metric([leaf.name], float(leaf.ready))
        viewers.add_metric([leaf.name], counts[leaf.name])
        inlets.add_metric([leaf.name], len(leaf.inlets()))
    yield ready
    yield viewers
    yield inlets
    restarts = CounterMetricFamily(
        "anabranch_child_restarts", "Restarts by supervision", labels=["child"]
    )
    hidden = {
        child.name
        for channel in site.channels
        if channel.name not in listed
        for child in (channel.encoder, channel.ingest)
    }
    for name, report in site.children().items():
        if name in hidden:
            continue
        restarts.add_metric([name], report["restarts"])
    yield restarts


async def _nodes(site: Site) -> list[Metric]:
    up = GaugeMetricFamily(
        "anabranch_node_up", "1 if the node is up, 0 if it is dead", labels=["node", "role"]
    )
    draining = GaugeMetricFamily(
        "anabranch_node_draining", "1 if the leaf takes nobody new", labels=["node"]
    )
    idle = GaugeMetricFamily("anabranch_nodes_idle", "Nodes in the pool")
    report = await site.nodes.report()
    for node in report:
        if node["state"] not in {"idle", "starting"}:
            up.add_metric([node["name"], node["role"]], float(node["state"] != "down"))
        if node["role"] == "leaf":
            draining.add_metric([node["name"]], float(node["state"] == "draining"))
    idle.add_metric([], sum(node["state"] == "idle" for node in report))
    return [up, draining, idle]


async def _repairs(site: Site) -> list[Metric]:
    counts = {
        "asked": "Packets lost in the tree that the node asked for",
        "repaired": "Packets that it asked for and got",
        "given_up": "Packets that it waits for no more",
        "answered": "Packets that it sent to nodes that asked",
    }
    families = [
        CounterMetricFamily(f"anabranch_repair_{name}", text, labels=["node"])
        for name, text in counts.items()
    ]
    for node, found in (await repairs(site.underlay)).items():
        for name, family in zip(counts, families, strict=True):
            family.add_metric([node], found[name])
    return list[Metric](families)


async def _ports(site: Site) -> list[Metric]:
    labels = ["node", "device", "direction"]
    packets = CounterMetricFamily("anabranch_port_packets", "Packets by switch port", labels=labels)
    octets = CounterMetricFamily("anabranch_port_bytes", "Bytes by switch port", labels=labels)
    for port in await site.port_counters():
        for direction in ("rx", "tx"):
            where = [str(port["node"]), str(port["device"]), direction]
            packets.add_metric(where, float(port[f"{direction}_packets"]))
            octets.add_metric(where, float(port[f"{direction}_bytes"]))
    return [packets, octets]


async def _seats(site: Site, listed: Collection[str]) -> list[Metric]:
    sent = GaugeMetricFamily(
        "anabranch_seat_bytes_sent", "Bytes sent to the present seats", labels=["channel"]
    )
    lost = GaugeMetricFamily(
        "anabranch_seat_packets_lost", "Loss that present seats report", labels=["channel"]
    )
    sums: dict[str, list[int]] = {}
    for report in await site.seat_reports():
        if report["channel"] not in listed or report["kind"] == PlainSeat.kind:
            continue  # receivers of plain seats tell nothing; of what they are sent ports do
        sum_ = sums.setdefault(str(report["channel"]), [0, 0])
        sum_[0] += int(report["bytes_sent"] or 0)
        sum_[1] += int(report["packets_lost"] or 0)
    for channel, (bytes_sent, packets_lost) in sums.items():
        sent.add_metric([channel], bytes_sent)
        lost.add_metric([channel], packets_lost)
    return [sent, lost]


def _process(site: Site) -> Iterator[Metric]:
    me = psutil.Process()
    cpu = CounterMetricFamily("process_cpu_seconds", "CPU time of the director")
    times = me.cpu_times()
    cpu.add_metric([], times.user + times.system)
    yield cpu
    yield GaugeMetricFamily(
        "process_resident_memory_bytes", "Memory of the director", value=me.memory_info().rss
    )
    discarded = CounterMetricFamily(
        "anabranch_events_discarded", "Events that slow subscribers lost"
    )
    discarded.add_metric([], site.events.discarded)
    yield discarded
