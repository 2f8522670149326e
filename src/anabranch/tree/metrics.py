"""What is measured, how figures of many are put together, and from where on they mean trouble.

A container of figures (``StreamStats``) has *levels*, whose mean is asked for, and *counts* of
what happened in its interval. Beside a level ``injitter`` may stand ``injitter.max``, the highest
of anybody; ``injitter.warning`` and ``injitter.danger``, how many are at that threshold or above
it; and ``injitter.weight``, how many have the figure at all, where not everybody has.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum, StrEnum
from functools import lru_cache
from math import copysign, fsum

from anabranch.core.errors import UsageError
from anabranch.tree.soleil.messages import StreamStats

CPU = "cpu"
"""Per cent of a core; a node with several reports their mean."""
JITTER = "injitter"
"""Inter-arrival jitter, ms."""
RTT = "rtt"
"""Round trip, ms."""
LOSS = "loss"
"""Per cent of the packets sent in the interval that were lost."""
LINK_LOSS = "linkloss"
"""Per cent of what the parent sent that did not reach the node."""
LOST = "cumpktlost"
"""Packets lost in the interval."""
EXPECTED = "pktexpected"
"""Packets sent in the interval to those whose losses are counted."""
NACKS = "nacks"
"""Requests for retransmission in the interval."""
SENT_BYTES = "bytes"
"""Bytes sent in the interval."""

COUNTS = (LOST, EXPECTED, NACKS, SENT_BYTES)
MACHINES = "*"
"""Identifier of the container about the nodes themselves, whatever they carry; each weighs 1."""

LARGEST = float(2**53)
"""The largest value of a figure: up to here floats count exactly."""


class Severity(IntEnum):
    """How bad a figure is."""

    NONE = 0
    WARNING = 1
    DANGER = 2


class Kind(StrEnum):
    """How figures of one name are put together."""

    LEVEL = "level"
    COUNT = "count"
    SUM = "sum"
    MAXIMUM = "maximum"
    WEIGHT = "weight"


class Weighting(StrEnum):
    """What a mean is over.

    By viewers the root's figure is the mean over all viewers, whatever the tree. By nodes is the
    seed's figure 3.3 to the letter: a child with three descendants weighs four.
    """

    VIEWERS = "viewers"
    NODES = "nodes"


@dataclass(frozen=True, slots=True)
class Threshold:
    """From where on a level is bad.

    Attributes:
        warning, danger: in the level's unit.
        ease: share of a threshold below which the level has to fall for the trouble to be over.

    Raises:
        UsageError: these do not fit together.
    """

    warning: float
    danger: float
    ease: float = 0.8

    def __post_init__(self) -> None:
        if not 0 < self.warning <= self.danger <= LARGEST or not 0 < self.ease <= 1:
            raise UsageError(
                f"thresholds need 0 < warning <= danger and 0 < ease <= 1, not"
                f" {self.warning:g}, {self.danger:g} and {self.ease:g}"
            )

    def severity(self, level: float, ease: float = 1.0) -> Severity:
        """Return how bad ``level`` is, with both thresholds multiplied by ``ease``."""
        if level >= ease * self.danger:
            return Severity.DANGER
        return Severity.WARNING if level >= ease * self.warning else Severity.NONE


THRESHOLDS: Mapping[str, Threshold] = {
    CPU: Threshold(75.0, 90.0),
    JITTER: Threshold(30.0, 100.0),
    RTT: Threshold(300.0, 800.0),  # twice the one-way delays of ITU-T G.114
    LOSS: Threshold(2.0, 10.0),  # where congestion control stops growing and starts to give way
    LINK_LOSS: Threshold(0.5, 5.0),
}


@lru_cache(maxsize=1024)
def kind_of(name: str) -> tuple[Kind, str]:
    """Return the kind of the figure ``name``, and the name of the weight that it has as a level.

    A name that nobody has defined is a level, as all are in the seed's formula.
    """
    if name in COUNTS:
        return Kind.COUNT, ""
    suffix = name.rpartition(".")[2] if "." in name else ""
    if suffix == "weight":
        return Kind.WEIGHT, ""
    if suffix in ("warning", "danger"):
        return Kind.SUM, ""
    if suffix == "max":
        return Kind.MAXIMUM, ""
    return Kind.LEVEL, f"{name}.weight"


def is_figure(value: float) -> bool:
    """Say whether ``value`` may be one: finite, at most ``LARGEST``, not below zero, no -0.0."""
    return 0.0 <= value <= LARGEST and (value != 0.0 or copysign(1.0, value) > 0)


def weight_of(stats: StreamStats) -> float:
    """Return how much a container counts; the seed's, which say nothing, by nodes."""
    return stats.children + 1.0 if stats.weight is None else stats.weight


def share(stats: StreamStats, metric: str, severity: Severity) -> float | None:
    """Return the share, 0 to 1, of those whose ``metric`` is that bad.

    None: nobody has the figure, or nobody counted, as in the seed's format.
    """
    if f"{metric}.max" not in stats.values:
        return None
    having = stats.values.get(f"{metric}.weight", weight_of(stats))
    if having <= 0:
        return None
    return min(1.0, stats.values.get(f"{metric}.{severity.name.lower()}", 0.0) / having)


def summary(
    stream: str,
    interval: tuple[float, float],
    levels: Mapping[str, Sequence[float]],
    counts: Mapping[str, float] | None = None,
    *,
    members: int = 1,
    weight: float | None = None,
    thresholds: Mapping[str, Threshold] = THRESHOLDS,
) -> StreamStats:
    """Return the figures of a node's own: each level of everybody who has it, put together.

    Args:
        stream: identifier of the stream, or ``MACHINES``.
        interval: its start and end, seconds since the epoch.
        levels: what each member has, by name; a name that nobody has is left out.
        counts: totals, by name.
        members: viewers, or machines, that all this is about.
        weight: of the container, if not ``members``; what it counts is scaled to that.
        thresholds: for counting who is in trouble.
    """
    weight = float(members) if weight is None else weight
    scale = weight / members if members else 0.0
    values: dict[str, float] = {}
    for name, each in levels.items():
        if each:
            values.update(_level(name, each, members, scale, thresholds.get(name)))
    values.update(counts or {})
    return StreamStats(stream, *interval, 0, values, weight)


def _level(
    name: str, each: Sequence[float], members: int, scale: float, threshold: Threshold | None
) -> Iterator[tuple[str, float]]:
    yield name, fsum(each) / len(each)
    yield f"{name}.max", max(each)
    if len(each) != members:
        yield f"{name}.weight", scale * len(each)
    if threshold is None:
        return
    for severity, limit in (("warning", threshold.warning), ("danger", threshold.danger)):
        over = sum(value >= limit for value in each)
        if over:
            yield f"{name}.{severity}", scale * over
