"""Publishers' figures for Prometheus."""

from collections.abc import Callable, Collection

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from anabranch.media.publisher_figures import Reception
from anabranch.site.publisher_reports import PATIENCE_S, PublisherReport
from anabranch.site.site import Site

_COUNTERS: dict[str, tuple[str, Callable[[Reception], int | None]]] = {
    "bytes_received": ("Bytes of media from the present publisher", lambda it: it.octets),
    "packets_received": ("RTP packets from it", lambda it: it.packets),
    "packets_lost": ("Packets that did not come, not even sent again", lambda it: it.lost),
    "packets_repaired": ("Packets that came after they were asked for", lambda it: it.repaired),
    "nacks": ("Packets that were asked for, each time", lambda it: it.nacks),
    "plis": ("Key frames that it was asked for", lambda it: it.plis),
}
_GAUGES: dict[str, tuple[str, Callable[[PublisherReport], float | None]]] = {
    "bits_per_second": (
        "Bitrate of the last seconds, or what the source says",
        lambda it: _scaled(it.bitrate_kbps, 1e3),
    ),
    "loss_ratio": ("Share of the last seconds' packets that did not come", lambda it: it.loss),
    "jitter_seconds": (
        "Interarrival jitter of its worst track",
        lambda it: _scaled(it.received.jitter_ms if it.received is not None else None, 1e-3),
    ),
    "round_trip_seconds": (
        "Round trip, once a packet was asked for",
        lambda it: _scaled(it.received.rtt_ms if it.received is not None else None, 1e-3),
    ),
    "picture_width": ("Its picture's, when reading began", lambda it: it.picture.width),
    "picture_height": ("Its picture's, when reading began", lambda it: it.picture.height),
    "frames_per_second": ("What it says of its picture", lambda it: it.picture.framerate),
}


async def publisher_metrics(site: Site, listed: Collection[str]) -> list[Metric]:
    """Return what is known of publishers; what a way in does not tell is left out.

    Of channels only those that are ``listed``.
    """
    await site.publisher_reports.look(patience=PATIENCE_S)
    reports = [
        (each.name, site.publisher_reports.of(each.name))
        for each in site.channels
        if each.name in listed
    ]
    since = GaugeMetricFamily(
        "anabranch_publisher_since_seconds",
        "When it came, in seconds since the epoch",
        labels=["channel", "way"],
    )
    gauges = {
        name: GaugeMetricFamily(f"anabranch_publisher_{name}", text, labels=["channel"])
        for name, (text, _) in _GAUGES.items()
    }
    counters = {
        name: CounterMetricFamily(f"anabranch_publisher_{name}", text, labels=["channel"])
        for name, (text, _) in _COUNTERS.items()
    }
    for channel, report in reports:
        if report is None:
            continue
        since.add_metric([channel, report.way], report.since)
        for name, (_, gauge) in _GAUGES.items():
            if (value := gauge(report)) is not None:
                gauges[name].add_metric([channel], value)
        if (received := report.received) is None:
            continue
        for name, (_, counter) in _COUNTERS.items():
            if (count := counter(received)) is not None:
                counters[name].add_metric([channel], count)
    return [since, *gauges.values(), *counters.values()]


def _scaled(value: float | None, factor: float) -> float | None:
    return None if value is None else value * factor
