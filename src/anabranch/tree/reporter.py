"""What one node measures and hears from its children, turned into what it tells. Sans-IO."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from anabranch.tree.metrics import (
    CPU,
    LARGEST,
    LINK_LOSS,
    MACHINES,
    THRESHOLDS,
    Threshold,
    Weighting,
    summary,
)
from anabranch.tree.receivers import LinkMeter, ReceiverReport, ViewerMeter
from anabranch.tree.soleil.messages import Stats, StreamStats
from anabranch.tree.statistics import Collector


@dataclass(frozen=True, slots=True)
class LinkCounts:
    """Running counts of packets: what the parent has sent by ``link``, and what has arrived."""

    link: str
    sent: int
    received: int


@dataclass(frozen=True, slots=True)
class Readings:
    """What a node has counted, and how busy it is.

    Attributes:
        viewers: their reports, by an identifier that is never used again; of a leaf.
        cpu: per cent of a core, mean over the node's cores; None: not known.
        links: from the parent.
    """

    viewers: Mapping[str, ReceiverReport] = field(default_factory=dict)
    cpu: float | None = None
    links: tuple[LinkCounts, ...] = ()


class Reporter:
    """The figures of one node and of what is below it.

    Args:
        name: the node's.
        now: seconds since the epoch, when the first interval begins.
        weighting: the same in the whole tree.
        thresholds: for counting who is in trouble.

    Attributes:
        own: the node's own figures of the last interval.
        whole: what its parent was told last.
    """

    def __init__(
        self,
        name: str,
        now: float,
        *,
        weighting: Weighting = Weighting.VIEWERS,
        thresholds: Mapping[str, Threshold] = THRESHOLDS,
    ) -> None:
        self._name = name
        self._end = now
        self._thresholds = thresholds
        self._collector = Collector(now, weighting=weighting)
        self._viewers = ViewerMeter(now, weighting=weighting, thresholds=thresholds)
        self._links = LinkMeter()
        self.own: tuple[StreamStats, ...] = ()
        self.whole = Stats()

    def measure(self, readings: Readings, children: Collection[str], now: float) -> Stats:
        """End an interval; return what the parent is told.

        Args:
            readings: taken just now.
            children: who hangs here; all others are forgotten.
            now: seconds since the epoch.
        """
        start, self._end = self._end, now
        self._collector.retain(children)
        levels = {CPU: [] if readings.cpu is None else [readings.cpu]}
        levels[LINK_LOSS] = self._link_loss(readings.links)
        machine = summary(MACHINES, (start, now), levels, thresholds=self._thresholds)
        viewers = self._viewers.measure(readings.viewers, now, cpu=readings.cpu)
        self.own = (machine, *viewers)
        self.whole = self._collector.aggregate(now, self.own)
        return self.whole

    def take(self, child: str, stats: Stats, *, heaviest: float = LARGEST) -> bool:
        """Take a child's report. As :meth:`Collector.take`."""
        return self._collector.take(child, stats, heaviest=heaviest)

    def last(self) -> dict[str, tuple[StreamStats, ...]]:
        """Return what each child said last."""
        return self._collector.last()

    def details(self, stream: str | None) -> tuple[StreamStats, ...]:
        """Return the containers of a FULLSTATS; of all streams, if None."""
        return self._collector.details(self._name, self.whole, self.own, stream)

    def _link_loss(self, links: Collection[LinkCounts]) -> list[float]:
        """Return the loss on all links from the parent together, per cent; nothing if unknown."""
        losses = [
            loss
            for each in links
            if (loss := self._links.sample(each.link, each.sent, each.received)) is not None
        ]
        sent, lost = sum(loss.sent for loss in losses), sum(loss.lost for loss in losses)
        return [100.0 * lost / sent] if sent else []
