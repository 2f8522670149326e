"""What is known of a publisher's stream: counters of who receives it, rates made of them. Pure."""

from collections import deque
from dataclasses import dataclass, fields

from anabranch.media.leaf_protocol import Message

SPAN_S = 5.0
"""Seconds of the past that rates are about."""
_LEAST_S = 0.2
"""A rate of a shorter time would be chance."""


@dataclass(frozen=True, slots=True)
class SourcePicture:
    """A picture as its sender or ffmpeg describes it; None: it is not said.

    Attributes:
        framerate: frames a second.
    """

    codec: str | None = None
    width: int | None = None
    height: int | None = None
    framerate: float | None = None


@dataclass(frozen=True, slots=True)
class Reception:
    """What came from a publisher since it connected; None: this way in does not tell.

    Attributes:
        octets: of media.
        packets: RTP packets.
        lost: those that did not come, not even by retransmission.
        repaired: those that came after they were asked for.
        nacks: those that were asked for, each time.
        plis: key frames that were asked for.
        jitter_ms: interarrival jitter (RFC 3550 section 6.4.1), of the worst track.
        rtt_ms: round trip.
        allowed_kbps: what the publisher is told to send at most.
        picture: as the publisher describes it.
    """

    octets: int
    packets: int | None = None
    lost: int | None = None
    repaired: int | None = None
    nacks: int | None = None
    plis: int | None = None
    jitter_ms: float | None = None
    rtt_ms: float | None = None
    allowed_kbps: float | None = None
    picture: SourcePicture | None = None


@dataclass(frozen=True, slots=True)
class Connection:
    """A publisher that is connected.

    Attributes:
        since: seconds since the epoch.
        address: where it sends from; the operator's to know alone.
    """

    since: float
    address: str


class Meter:
    """Rates of one publisher, from samples of what came.

    Args:
        began: when nothing had come yet, in the seconds of :meth:`sample`.
    """

    def __init__(self, began: float) -> None:
        self._samples = deque([(began, Reception(0, packets=0, lost=0))])

    def sample(self, reception: Reception, now: float) -> None:
        """Take what has come so far; ``now`` is in monotonic seconds."""
        samples = self._samples
        if reception.octets < samples[-1][1].octets:  # it is counted anew
            samples.clear()
        samples.append((now, reception))
        while len(samples) > 2 and samples[1][0] <= now - SPAN_S:
            samples.popleft()

    @property
    def latest(self) -> Reception:
        """The last sample."""
        return self._samples[-1][1]

    @property
    def bitrate_kbps(self) -> float | None:
        """What came in the last seconds, in kbit/s; None: it is too early to say."""
        (began, first), (ended, last) = self._samples[0], self._samples[-1]
        if ended - began < _LEAST_S:
            return None
        return (last.octets - first.octets) * 8 / 1000 / (ended - began)

    @property
    def loss(self) -> float | None:
        """The share of packets of the last seconds that did not come, 0 to 1; None: unknown."""
        first, last = self._samples[0][1], self._samples[-1][1]
        if last.packets is None or last.lost is None:
            return None
        lost = max(0, last.lost - (first.lost or 0))
        sent = lost + max(0, last.packets - (first.packets or 0))
        return lost / sent if sent else None


def read_reception(said: Message) -> Reception:
    """Read what the gate says of a publisher; what is absent or cannot be counts as nothing."""
    listed = said.get("tracks")
    tracks = listed.values() if isinstance(listed, dict) else ()
    found = [track for track in tracks if isinstance(track, dict)]

    def total(name: str) -> int:
        return int(sum(_figure(track, name) or 0 for track in found))

    jitters = [jitter for track in found if (jitter := _figure(track, "jitter_ms")) is not None]
    return Reception(
        octets=total("bytes"),
        packets=total("packets"),
        lost=total("lost"),
        repaired=total("repaired"),
        nacks=total("nacks"),
        plis=total("plis"),
        jitter_ms=max(jitters, default=None),
        rtt_ms=_figure(said, "rtt_ms"),
        allowed_kbps=_figure(said, "kbps"),
    )


def merged(*known: SourcePicture | None) -> SourcePicture:
    """Return what is known of a picture by several accounts, the better ones first."""
    return SourcePicture(
        *(
            next(
                (
                    value
                    for account in known
                    if account is not None and (value := getattr(account, each.name)) is not None
                ),
                None,
            )
            for each in fields(SourcePicture)
        )
    )


def _figure(said: Message, name: str) -> float | None:
    value = said.get(name)
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        return None
    # Above 2^53 no count is meant; and sums must stay finite.
    return value if 0 <= value < 2**53 else None
