"""A module's figures for Prometheus and for PROBE, from one registry of prometheus_client.

self._registry = CollectorRegistry()
self._hits = Counter("hits", "Answered from the cache", registry=self._registry)

def status(self) -> Status:
    return figures(self._registry)
"""

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

MOST = 20
"""Figures of a status; see :meth:`~anabranch.services.module.Module.status`."""
_PARTS = ("_created", "_bucket")


def figures(registry: CollectorRegistry, most: int = MOST) -> dict[str, int | float]:
    """Return the values of a registry by short names: ``hits``, or ``hits.video`` with a label.

    What histograms have beside count and sum is left out.
    """
    found: dict[str, int | float] = {}
    for metric in registry.collect():
        for sample in metric.samples:
            if sample.name.endswith(_PARTS):
                continue
            name = sample.name.removesuffix("_total")
            labels = [value for _, value in sorted(sample.labels.items())]
            value = sample.value
            found[".".join([name, *labels])] = int(value) if value.is_integer() else round(value, 3)
    return dict(list(found.items())[:most])


def page(registry: CollectorRegistry) -> tuple[str, bytes]:
    """Return content type and body of a ``/metrics`` page."""
    return CONTENT_TYPE_LATEST, generate_latest(registry)
