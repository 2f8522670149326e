"""What receivers report, turned into figures of an interval: viewers at a leaf, nodes on a link.

Loss is a sum of differences of running counts (RFC 3550, section 6.4.1: signed, 24 bits). A
receiver's count falls when packets come late or twice, and starts anew with each SSRC.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from anabranch.tree.metrics import (
    CPU,
    EXPECTED,
    JITTER,
    LOSS,
    LOST,
    NACKS,
    RTT,
    SENT_BYTES,
    THRESHOLDS,
    Threshold,
    Weighting,
    summary,
)
from anabranch.tree.soleil.messages import StreamStats

_MODULUS = 1 << 24
_MAX_MISORDER = 100  # RFC 3550, appendix A.1
_SMALLEST_PACKET = 40  # bytes; bounds the packets where only bytes are counted
_LARGEST_MS = 10_000.0  # whoever claims more is believed that much
_REMEMBERED = 12  # intervals without a report after which a viewer is forgotten


@dataclass(frozen=True, slots=True)
class ReceiverReport:
    """What a leaf knows of one viewer just now.

    Attributes:
        stream: what the viewer receives.
        bytes_sent, nacks: running counts.
        packets_lost: running count as the viewer reports it, signed or modulo 2^24.
        packets_sent: running count; None: not known, and with it the share that is lost.
        jitter_ms, rtt_ms: None before the viewer's first report.
    """

    stream: str
    bytes_sent: int
    packets_lost: int
    nacks: int = 0
    packets_sent: int | None = None
    jitter_ms: float | None = None
    rtt_ms: float | None = None


class _Credit:
    """Packets that were counted as lost and came after all: set off against later losses."""

    __slots__ = ("_packets",)

    def __init__(self) -> None:
        self._packets = 0

    def settle(self, lost: int, at_most: int) -> int:
        """Return what ``lost``, perhaps negative, adds to the losses; keep ``at_most`` credit."""
        lost -= self._packets
        self._packets = min(max(0, -lost), at_most)
        return max(0, lost)


class _Viewer:
    """The running counts of one viewer as last seen."""

    __slots__ = ("_before", "_credit", "last", "missed")

    def __init__(self, last: ReceiverReport) -> None:
        self.last = last
        self.missed = 0
        self._before = 0
        self._credit = _Credit()

    def advance(self, new: ReceiverReport) -> "_Delta":
        """Return what has happened since the last report."""
        old, self.last = self.last, new
        self.missed = 0
        if new.bytes_sent < old.bytes_sent:
            old, self._credit, self._before = _nothing(new), _Credit(), 0
        expected = None
        if new.packets_sent is not None and old.packets_sent is not None:
            expected = max(0, new.packets_sent - old.packets_sent)
        sent_bytes = new.bytes_sent - old.bytes_sent
        sent = sent_bytes // _SMALLEST_PACKET if expected is None else expected
        # A report may speak of what was sent an interval ago.
        possible = sent + self._before + _MAX_MISORDER
        self._before = sent
        lost = _signed(new.packets_lost - old.packets_lost)
        if not -_MAX_MISORDER <= lost <= possible:  # another SSRC: counted from zero
            self._credit = _Credit()
            lost = _signed(new.packets_lost)
            if not 0 <= lost <= possible:
                lost = 0
        return _Delta(
            self._credit.settle(lost, _MAX_MISORDER),
            expected,
            max(0, new.nacks - old.nacks),
            sent_bytes,
        )


@dataclass(frozen=True, slots=True)
class _Delta:
    """What happened to one viewer in an interval."""

    lost: int
    expected: int | None
    nacks: int
    sent_bytes: int


@dataclass(slots=True)
class _Stream:
    """What is collected of one stream's viewers in an interval."""

    viewers: int = 0
    levels: dict[str, list[float]] = field(default_factory=dict)
    counts: dict[str, float] = field(default_factory=lambda: {LOST: 0.0})

    def add(self, report: ReceiverReport, delta: _Delta) -> None:
        self.viewers += 1
        self._count(LOST, delta.lost)
        self._count(NACKS, delta.nacks)
        self._count(SENT_BYTES, delta.sent_bytes)
        if delta.expected is not None:
            self._count(EXPECTED, delta.expected)
            if delta.expected:
                self._level(LOSS, min(100.0, 100.0 * delta.lost / delta.expected))
        for name, value in ((JITTER, report.jitter_ms), (RTT, report.rtt_ms)):
            if value is not None:
                self._level(name, min(max(0.0, value), _LARGEST_MS))

    def _count(self, name: str, value: int) -> None:
        self.counts[name] = self.counts.get(name, 0.0) + value

    def _level(self, name: str, value: float) -> None:
        self.levels.setdefault(name, []).append(value)


class ViewerMeter:
    """Turns the reports of a leaf's viewers into figures of each stream.

    Args:
        now: seconds since the epoch, when the first interval begins.
        weighting: by nodes, each stream of the leaf weighs 1.
        thresholds: for counting the viewers in trouble.
    """

    def __init__(
        self,
        now: float,
        *,
        weighting: Weighting = Weighting.VIEWERS,
        thresholds: Mapping[str, Threshold] = THRESHOLDS,
    ) -> None:
        self._end = now
        self._weight = 1.0 if weighting is Weighting.NODES else None
        self._thresholds = thresholds
        self._viewers: dict[str, _Viewer] = {}
        self._begun = False

    def measure(
        self, reports: Mapping[str, ReceiverReport], now: float, *, cpu: float | None = None
    ) -> tuple[StreamStats, ...]:
        """End an interval.

        Who is new since the last one counts from zero; at the first nobody knows since when the
        viewers have been there, so that their counts only begin.

        Args:
            reports: of all viewers that the leaf has, by an identifier that is never used again.
            now: seconds since the epoch.
            cpu: per cent of a core, of the leaf.
        """
        interval, self._end = (self._end, now), now
        streams: dict[str, _Stream] = {}
        for name, report in reports.items():
            viewer = self._viewers.get(name)
            if viewer is None:
                start = _nothing(report) if self._begun else report
                viewer = self._viewers[name] = _Viewer(start)
            streams.setdefault(report.stream, _Stream()).add(report, viewer.advance(report))
        self._begun = True
        self._forget(reports)
        return tuple(
            summary(
                stream,
                interval,
                found.levels | ({} if cpu is None else {CPU: [cpu] * found.viewers}),
                found.counts,
                members=found.viewers,
                weight=self._weight,
                thresholds=self._thresholds,
            )
            for stream, found in sorted(streams.items())
        )

    def _forget(self, reports: Mapping[str, ReceiverReport]) -> None:
        """Keep a viewer's counts for a while: the leaf may just not have answered for it."""
        for name in [name for name in self._viewers if name not in reports]:
            self._viewers[name].missed += 1
            if self._viewers[name].missed > _REMEMBERED:
                del self._viewers[name]


@dataclass(frozen=True, slots=True)
class LinkLoss:
    """Packets that a parent sent to a child in an interval, and how many did not arrive."""

    sent: int
    lost: int

    @property
    def per_cent(self) -> float:
        """Return the share that was lost, 0 to 100."""
        return min(100.0, 100.0 * self.lost / self.sent) if self.sent else 0.0


@dataclass(slots=True)
class _Link:
    """Both counts as last seen, and the most packets that were sent in an interval."""

    sent: int
    received: int
    most: int = 0
    credit: _Credit = field(default_factory=_Credit)


class LinkMeter:
    """Loss between nodes, from running counts at both ends.

    The counts are those of a switch's ports or flow rules, or of RTP: extended highest sequence
    number against packets received (RFC 3550, appendix A.3). They need not be read at one moment:
    what was under way counts as lost once at most, and is set off when it has arrived.
    """

    def __init__(self) -> None:
        self._links: dict[str, _Link] = {}

    def forget(self, link: str) -> None:
        """Drop what is known of a link that has gone."""
        self._links.pop(link, None)

    def sample(self, link: str, sent: int, received: int) -> LinkLoss | None:
        """Take both counts; return the loss since the last; None: there is nothing to compare.

        Counts that step back have started anew: that interval has no figure.
        """
        old = self._links.get(link)
        if old is None or sent < old.sent or received < old.received:
            self._links[link] = _Link(sent, received)
            return None
        new_sent, new_received = sent - old.sent, received - old.received
        old.sent, old.received = sent, received
        old.most = max(old.most, new_sent)
        return LinkLoss(new_sent, old.credit.settle(new_sent - new_received, old.most))


def _nothing(report: ReceiverReport) -> ReceiverReport:
    """Return what a viewer's counts were before anything was sent."""
    none_sent = None if report.packets_sent is None else 0
    return ReceiverReport(report.stream, 0, 0, 0, none_sent)


def _signed(count: int) -> int:
    """Return ``count`` as a signed number of 24 bits."""
    half = _MODULUS // 2
    return (count + half) % _MODULUS - half
