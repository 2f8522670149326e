"""Aggregation on the way to the root (seed 000, sections 1.2.3 and 3.1.2).

Every node replaces what each child said last, and tells its parent one container a stream: means
of levels, sums of counts. So what reaches the root depends on its children and streams alone.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

from anabranch.core.errors import UsageError
from anabranch.tree.metrics import (
    COUNTS,
    LARGEST,
    MACHINES,
    Kind,
    Severity,
    Weighting,
    is_figure,
    kind_of,
    share,
    weight_of,
)
from anabranch.tree.soleil.messages import Stats, StreamStats

MAX_STREAMS = 1000
MAX_VALUES = 64
MAX_CONTAINERS = 100
"""In one message, so that it stays within its size."""


class StatisticsError(UsageError):
    """A report has figures that cannot be; the message says which."""


@dataclass(slots=True)
class _Child:
    """A child's last report; ``used`` counts the rounds it has been part of."""

    round: int | None
    end: float
    streams: dict[str, StreamStats]
    used: int = 0

    def is_continued_by(self, round_: int | None, streams: Mapping[str, StreamStats]) -> bool:
        """Say whether ``streams`` are another part of the same report."""
        return (
            round_ is not None
            and round_ == self.round
            and len(streams) > 0
            and streams.keys().isdisjoint(self.streams)
            and len(streams) + len(self.streams) <= MAX_STREAMS
        )

    def precedes(self, round_: int | None, end: float) -> bool:
        if round_ is not None and self.round is not None:
            return round_ > self.round
        return end > self.end


@dataclass(frozen=True, slots=True)
class _Names:
    """Names of figures by what is done with them; levels with those of their weights."""

    levels: tuple[tuple[str, str], ...]
    sums: tuple[str, ...]
    maxima: tuple[str, ...]
    have_weights: bool


@lru_cache(maxsize=1024)
def _sorted_out(names: tuple[str, ...]) -> _Names:
    """Sort the names of a container's figures; most containers have the same ones."""
    kinds = {name: kind_of(name) for name in names}
    levels = [(name, weight) for name, (kind, weight) in kinds.items() if kind is Kind.LEVEL]
    sums, maxima, weights = (
        tuple(name for name, (kind, _) in kinds.items() if kind is wanted)
        for wanted in (Kind.SUM, Kind.MAXIMUM, Kind.WEIGHT)
    )
    return _Names(tuple(levels), sums, maxima, bool(weights))


class _Total:
    """Containers of one stream being put together."""

    __slots__ = ("_by_nodes", "_having", "_levels", "_others", "_weights", "weight")

    def __init__(self, by_nodes: bool) -> None:
        self._by_nodes = by_nodes
        self._levels: dict[str, float] = {}
        self._weights: dict[str, float] = {}
        self._having: dict[str, float] = {} if by_nodes else self._weights
        self._others: dict[str, float] = {}
        self.weight = 0.0

    def add(self, stats: StreamStats) -> None:
        """Add all figures but the counts. No part of a container weighs more than all of it."""
        weight = stats.children + 1.0 if stats.weight is None else stats.weight
        self.weight += weight
        values, others = stats.values, self._others
        names = _sorted_out(tuple(values))
        for name, weight_name in names.levels:
            having = min(values.get(weight_name, weight), weight) if names.have_weights else weight
            counts = weight if self._by_nodes else having
            if name in self._levels:
                self._levels[name] += counts * values[name]
                self._weights[name] += counts
            elif self._has_room():
                self._levels[name] = counts * values[name]
                self._weights[name] = counts
            if self._by_nodes and name in self._levels:
                self._having[name] = self._having.get(name, 0.0) + having
        for name in names.sums:
            part = min(values[name], weight)
            if name in others:
                others[name] += part
            elif self._has_room():
                others[name] = part
        for name in names.maxima:
            value = values[name]
            if value > others.get(name, -1.0) and (name in others or self._has_room()):
                others[name] = value

    def _has_room(self) -> bool:
        """Say whether another name is taken: so that a liar's do not grow on the way up."""
        return 2 * len(self._levels) + len(self._others) + len(COUNTS) < MAX_VALUES - 1

    def values(self) -> dict[str, float]:
        """Return everything but the counts, as a container has it."""
        found = {}
        for name, level in self._levels.items():
            if self._weights[name] <= 0:
                continue
            found[name] = level / self._weights[name]
            if self._having[name] != self.weight:
                found[f"{name}.weight"] = self._having[name]
        return found | self._others


class Collector:
    """What a node knows of what is below it: each child's last report.

    A report that is late or comes twice is passed over. One that does not come leaves the last
    in its place for ``keep`` rounds. Each count is told to the parent once.

    Args:
        now: seconds since the epoch, when the first interval begins.
        weighting: the same in the whole tree.
        keep: rounds that a report counts in.
    """

    def __init__(
        self, now: float, *, weighting: Weighting = Weighting.VIEWERS, keep: int = 3
    ) -> None:
        self._weighting = weighting
        self._keep = keep
        self._children: dict[str, _Child] = {}
        self._counts: dict[str, dict[str, float]] = {}
        self._end = now
        # So that a node that has started anew is not taken for late, even by who has not noticed.
        self._round = int(now)

    def take(self, child: str, stats: Stats, *, heaviest: float = LARGEST) -> bool:
        """Replace what ``child`` said last, or add to it; say whether there was anything new.

        Args:
            child: who sent it; authenticated, and a direct child.
            stats: its report. Without a round, as the seed has it, the ends of the intervals tell
                which is newer, and counts of intervals that begin together are running ones.
            heaviest: the weight that the child can have at most, its viewers' capacity perhaps.

        Raises:
            StatisticsError: it has a figure that cannot be; nothing of it is taken.
        """
        streams = _checked(stats, heaviest)
        end = max((each.end for each in stats.containers), default=0.0)
        last = self._children.get(child)
        if last is not None and last.is_continued_by(stats.round, streams):
            last.streams |= streams
            for container in streams.values():
                self._count(container, None)
            return True
        if last is not None and not last.precedes(stats.round, end):
            return False
        for stream, container in streams.items():
            before = last.streams.get(stream) if last is not None and stats.round is None else None
            self._count(container, before)
        self._children[child] = _Child(stats.round, end, streams)
        return True

    def last(self) -> dict[str, tuple[StreamStats, ...]]:
        """Return what each child said last: what the root watches."""
        return {name: tuple(child.streams.values()) for name, child in self._children.items()}

    def forget(self, child: str) -> None:
        """Drop what ``child`` said: it has left, hangs elsewhere, or has started anew.

        What it has counted stays counted.
        """
        self._children.pop(child, None)

    def retain(self, children: Collection[str]) -> None:
        """Forget everybody but ``children``: those are who hangs here now."""
        for child in self._children.keys() - children:
            self.forget(child)

    def aggregate(self, now: float, own: Sequence[StreamStats] = ()) -> Stats:
        """End a round and return what the parent is told.

        Args:
            now: seconds since the epoch.
            own: the node's own figures: of its viewers, and of itself as a machine.
        """
        self._round += 1
        start, self._end = self._end, now
        totals: dict[str, _Total] = {}
        for container in own:
            self._total(totals, container.stream).add(container)
            self._count(container, None)
        mine = set(totals)
        for child in self._current():
            for stream, container in child.streams.items():
                total = totals.get(stream)
                if total is None:
                    if len(totals) >= MAX_STREAMS:
                        continue
                    total = self._total(totals, stream)
                total.add(container)
        if self._weighting is Weighting.NODES:
            for stream in totals.keys() - mine:
                totals[stream].weight += 1.0  # the node itself, which has no figures of it
        counts, self._counts = self._counts, {}
        for stream in counts:  # also where who has counted is gone
            if len(totals) < MAX_STREAMS:
                self._total(totals, stream)
        containers = tuple(
            StreamStats(
                stream,
                start,
                now,
                len(self._children),
                _bounded(total.values() | counts.get(stream, {})),
                min(total.weight, LARGEST),
            )
            for stream, total in sorted(totals.items())
        )
        return Stats(containers, self._round)

    def details(
        self,
        name: str,
        whole: Stats,
        own: Sequence[StreamStats] = (),
        stream: str | None = None,
    ) -> tuple[StreamStats, ...]:
        """Return what a FULLSTATS of this node shows: the whole, then the parts, worst first.

        Args:
            name: the node's.
            whole: its last aggregate.
            own: its own figures.
            stream: all, if None.
        """
        parts = [replace(container, node=name) for container in own]
        for child, containers in self.last().items():
            parts += [replace(container, node=child) for container in containers]
        parts.sort(key=_badness, reverse=True)
        found = [each for each in (*whole.containers, *parts) if stream in (None, each.stream)]
        return tuple(found[:MAX_CONTAINERS])

    def _current(self) -> list[_Child]:
        """Return the reports that count in this round; what is too old is dropped."""
        for name in [name for name, child in self._children.items() if child.used >= self._keep]:
            del self._children[name]
        for child in self._children.values():
            child.used += 1
        return list(self._children.values())

    def _total(self, totals: dict[str, _Total], stream: str) -> _Total:
        by_nodes = self._weighting is Weighting.NODES and stream != MACHINES
        return totals.setdefault(stream, _Total(by_nodes))

    def _count(self, container: StreamStats, before: StreamStats | None) -> None:
        values = container.values
        for name in COUNTS:
            value = values.get(name)
            if not value:
                continue
            if before is not None and before.start == container.start:
                value = max(0.0, value - before.values.get(name, 0.0))
            if container.stream not in self._counts:
                if len(self._counts) >= MAX_STREAMS:
                    return
                self._counts[container.stream] = {}
            counts = self._counts[container.stream]
            counts[name] = counts.get(name, 0.0) + value


def messages_of(stats: Stats) -> list[Stats]:
    """Return a report in as many parts as it needs messages, at least one."""
    every = stats.containers
    return [
        replace(stats, containers=every[start : start + MAX_CONTAINERS])
        for start in range(0, max(1, len(every)), MAX_CONTAINERS)
    ]


def _checked(stats: Stats, heaviest: float) -> dict[str, StreamStats]:
    """Return the containers by stream. Raises as :meth:`Collector.take`."""
    if len(stats.containers) > MAX_STREAMS:
        raise StatisticsError(f"{len(stats.containers)} streams, more than {MAX_STREAMS}")
    streams: dict[str, StreamStats] = {}
    for container in stats.containers:
        if container.stream in streams:
            raise StatisticsError(f"stream {container.stream[:60]!r} comes twice")
        if not is_figure(container.children) or not 0 <= weight_of(container) <= heaviest:
            raise StatisticsError(
                f"stream {container.stream[:60]!r}: {container.children} children, weight"
                f" {container.weight}"
            )
        if len(container.values) > MAX_VALUES:
            raise StatisticsError(
                f"stream {container.stream[:60]!r}: more than {MAX_VALUES} values"
            )
        for name, value in container.values.items():
            if not (0.0 < value <= LARGEST or is_figure(value)):  # most are above zero
                raise StatisticsError(f"stream {container.stream[:60]!r}: {name[:60]} is {value}")
        streams[container.stream] = container
    return streams


def _bounded(values: dict[str, float]) -> dict[str, float]:
    """Return ``values`` as the parent takes them: sums of what children claim may be too large."""
    return {name: min(value, LARGEST) for name, value in values.items()}


def _badness(stats: StreamStats) -> tuple[float, float, str]:
    """Return how far up in a FULLSTATS a container belongs: by the worst of its levels."""
    shares = {
        severity: max(
            (
                share(stats, name, severity) or 0.0
                for name in stats.values
                if kind_of(name)[0] is Kind.LEVEL
            ),
            default=0.0,
        )
        for severity in (Severity.DANGER, Severity.WARNING)
    }
    return shares[Severity.DANGER], shares[Severity.WARNING], stats.node or ""
