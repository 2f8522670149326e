"""From plain seats to what the sort switches do, and what is kept at hand there. Pure."""

from collections.abc import Callable, Collection, Iterator, Sequence

from anabranch.channels.seats import PlainSeat
from anabranch.media.rendition import AUDIO, transport_of
from anabranch.site.carriage import Brought, Bucket, Sorting, StreamId, Target


def streams_of(seat: PlainSeat, channel: str) -> Iterator[tuple[StreamId, int]]:
    """Yield the streams of a channel that a seat is sent, each with its port."""
    if seat.form == "ts":
        yield StreamId(channel, transport_of(seat.rendition)), seat.port
    else:
        yield StreamId(channel, seat.rendition), seat.port
        yield StreamId(channel, AUDIO), seat.port + 2


def neighbours(dial: Sequence[str], channel: str, count: int) -> set[str]:
    """Return the ``count`` channels on either side of one; the dial has no end."""
    if channel not in dial:
        return set()
    at, size = dial.index(channel), len(dial)
    around = {dial[(at + step) % size] for step in range(-min(count, size), min(count, size) + 1)}
    return around - {channel}


def sorting_of(
    seats: Collection[PlainSeat],
    dial: Sequence[str],
    beside: int,
    reach: Callable[[PlainSeat], str],
) -> Sorting:
    """Return what the sort switches do for these seats.

    Args:
        dial: the channels in order.
        beside: so many channels on either side of one that is watched are brought as well.
        reach: returns the address by which a seat's leaf reaches its receiver.
    """
    buckets, brought = set(), set()
    for seat in seats:
        address = reach(seat)
        by_6 = ":" in address
        for stream, port in streams_of(seat, seat.channel):
            place: Target = (address, port)
            buckets.add(Bucket(stream, seat.leaf, place))
            brought.add(Brought(stream, seat.leaf, by_6))
        for near in neighbours(dial, seat.channel, beside) if beside else ():
            brought |= {Brought(stream, seat.leaf, by_6) for stream, _ in streams_of(seat, near)}
    return Sorting(frozenset(buckets), frozenset(brought))


class Hold:
    """Keeps what was brought a while longer: somebody who zaps may come back.

    Args:
        hold_s: seconds.
    """

    def __init__(self, hold_s: float) -> None:
        self._hold_s = hold_s
        self._wanted: frozenset[Brought] = frozenset()
        self._until: dict[Brought, float] = {}

    def extended(self, sorting: Sorting, now: float) -> Sorting:
        """Return ``sorting`` with what is held; ``now`` is monotonic."""
        for left in self._wanted - sorting.brought:
            self._until[left] = now + self._hold_s
        self._wanted = sorting.brought
        self._until = {
            each: until
            for each, until in self._until.items()
            if until > now and each not in sorting.brought
        }
        return Sorting(sorting.buckets, sorting.brought | self._until.keys())

    def due(self) -> float | None:
        """Return when something is held no longer; None: nothing is."""
        return min(self._until.values(), default=None)
