"""When a feed counts as live: pure decisions from two native counters, polled."""

from collections import deque
from dataclasses import dataclass, field

LOST_AFTER = 0.6
"""Seconds without a frame after which a line (video or audio) is lost."""
SETTLE_LIMIT = 2.0
"""Seconds after which a feed is anchored even though it still comes in bursts."""
RUNAWAY_FACTOR = 3.0
RUNAWAY_WINDOW = 3.0
DRIFT_LIMIT = 0.3
"""Seconds by which a feed may run ahead of or behind the clock before it is anchored anew."""


@dataclass(slots=True)
class Line:
    """The arrivals of one medium of a feed.

    Attributes:
        rate: units (frames or samples) per second of real time.
    """

    rate: float
    count: int = 0
    first: float | None = None
    last: float | None = None
    calm: int = 0
    history: deque[tuple[float, int]] = field(default_factory=deque)

    def observe(self, count: int, now: float) -> None:
        """Take the counter's value at ``now`` (monotonic seconds)."""
        step = count - self.count
        interval = now - self.history[-1][0] if self.history else 0.05
        self.count = count
        if step > 0:
            if self.first is None:
                self.first = now
            self.last = now
            # One late frame, or a packet of audio, may come on top of the regular ones.
            usual = self.rate * interval + max(2.0, self.rate * 0.045)
            self.calm = self.calm + 1 if step <= usual else 0
        self.history.append((now, count))
        while now - self.history[0][0] > RUNAWAY_WINDOW:
            self.history.popleft()

    def arriving(self, now: float) -> bool:
        return self.last is not None and now - self.last <= LOST_AFTER

    def settled(self, now: float) -> bool:
        """Say whether what came in one burst at the beginning is over."""
        return self.first is not None and (self.calm >= 2 or now - self.first > SETTLE_LIMIT)

    def runaway(self, now: float) -> bool:
        """Say whether it has run several times faster than real time for the whole window."""
        if not self.history or self.first is None or now - self.first < RUNAWAY_WINDOW:
            return False
        since, count = self.history[0]
        span = now - since
        return span > RUNAWAY_WINDOW / 2 and (self.count - count) / span > (
            self.rate * RUNAWAY_FACTOR
        )


@dataclass(frozen=True, slots=True)
class Verdict:
    """What to do after one poll.

    Attributes:
        video, audio: whether the line is to be shown.
        anchor: the line whose next buffer sets the feed's time offset, or None.
        runaway: the feed's timestamps ran away and it must be cut off.
    """

    video: bool = False
    audio: bool = False
    anchor: str | None = None
    runaway: bool = False


class Watch:
    """Follows one feed from its connection to its end.

    A feed is *anchored* when its timestamps have an offset that makes them the pipeline's
    running time. Only an anchored feed is shown; when both its lines were lost, it is anchored
    anew, for nobody knows what its timestamps do after a pause.
    """

    def __init__(self, framerate: int, sample_rate: int = 48000) -> None:
        self.lines = {"video": Line(framerate), "audio": Line(sample_rate)}
        self.anchored = False
        self._lateness: deque[float] = deque(maxlen=10)

    def poll(self, now: float, video: int | None, audio: int | None) -> Verdict:
        """Judge the counters (frames, samples; None: the feed has no such line) at ``now``."""
        for name, count in (("video", video), ("audio", audio)):
            if count is not None:
                self.lines[name].observe(count, now)
        live = {name: line.arriving(now) for name, line in self.lines.items()}
        if any(line.runaway(now) for line in self.lines.values()):
            return Verdict(runaway=True)
        if not any(live.values()):
            self.anchored = False
            self._lateness.clear()
            for line in self.lines.values():
                line.first, line.calm = None, 0
            return Verdict()
        if not self.anchored:
            # The picture sets the time; a feed that is late with it is heard all the same.
            waited = max(now - line.first for line in self.lines.values() if line.first is not None)
            name = "video" if live["video"] else "audio"
            if name == "audio" and video is not None and waited < 0.3:
                return Verdict()
            return Verdict(anchor=name if self.lines[name].settled(now) else None)
        return Verdict(video=live["video"], audio=live["audio"])

    def drift(self, lateness: float) -> float:
        """Take how late a buffer came (seconds, negative: early); return the correction due.

        The least late of the last ten tells drift from jitter. Zero means: leave it.
        """
        self._lateness.append(lateness)
        if len(self._lateness) < 10:
            return 0.0
        least = min(self._lateness)
        if abs(least) < DRIFT_LIMIT:
            return 0.0
        self._lateness.clear()
        return least


class KeyframeLimit:
    """At most one forced key frame a second per stream; one that comes too early is put off."""

    def __init__(self, interval: float = 1.0) -> None:
        self._interval = interval
        self._next: dict[str, float] = {}
        self._waiting: set[str] = set()

    def request(self, stream: str, now: float) -> bool:
        """Say whether to make one now; if not, :meth:`due` will name the stream in time."""
        if now >= self._next.get(stream, 0.0):
            self._next[stream] = now + self._interval
            return True
        self._waiting.add(stream)
        return False

    def due(self, now: float) -> list[str]:
        """Return the streams whose postponed key frame is to be made now."""
        ready = sorted(name for name in self._waiting if now >= self._next[name])
        for name in ready:
            self._waiting.discard(name)
            self._next[name] = now + self._interval
        return ready
