"""The one shape in which every benchmark of the project prints."""

import datetime
import platform
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import quantiles
from typing import Any

import psutil


@dataclass(frozen=True, slots=True)
class Peer:
    """What the same metric is elsewhere, measured in the same run."""

    name: str
    value: float


@dataclass(frozen=True, slots=True)
class Result:
    """One metric: a single ``value``, or the percentiles of ``n`` samples.

    ``target`` is in words, such as ``p50 <= 800``.
    """

    metric: str
    unit: str
    n: int
    value: float | None = None
    p50: float | None = None
    p95: float | None = None
    max: float | None = None
    target: str | None = None
    peer: Peer | None = None
    p99: float | None = None

    def as_dict(self) -> dict[str, Any]:
        """Return it as plain data, without what it does not have."""
        return {name: value for name, value in asdict(self).items() if value is not None}


def percentiles(samples: Sequence[float]) -> tuple[float, float, float]:
    """Return median, 95th percentile and maximum of at least one sample."""
    if len(samples) == 1:
        return samples[0], samples[0], samples[0]
    cuts = quantiles(samples, n=20, method="inclusive")
    return cuts[9], cuts[18], max(samples)


def sampled(
    metric: str,
    unit: str,
    samples: Sequence[float],
    *,
    target: str | None = None,
    peer: Peer | None = None,
    digits: int = 1,
    p99: bool = False,
) -> Result:
    """Return a result from samples, rounded to ``digits``; ``p99``: with that percentile too."""
    p50, p95, most = (round(value, digits) for value in percentiles(samples))
    high = round(quantiles(samples, n=100, method="inclusive")[98], digits) if p99 else None
    return Result(metric, unit, len(samples), None, p50, p95, most, target, peer, high)


def report(bench: str, results: Sequence[Result]) -> dict[str, Any]:
    """Return a benchmark's whole output."""
    return {
        "bench": bench,
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "machine": machine(),
        "results": [result.as_dict() for result in results],
    }


def machine() -> dict[str, Any]:
    """Describe this machine."""
    model = "unknown"
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            model = line.partition(":")[2].strip()
            break
    return {
        "cpu": model,
        "cores": psutil.cpu_count(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30),
        "kernel": platform.release(),
        "python": platform.python_version(),
    }
