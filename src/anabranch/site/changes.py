"""Changes: another channel or rendition over the connection that a viewer has."""

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Protocol

from anabranch.channels.channel import Channel
from anabranch.channels.seats import Seat, Seats
from anabranch.core.errors import ConflictError, NotFoundError, TooManyError
from anabranch.core.events import Event
from anabranch.media.leaf import Feed, LeafUnavailableError, Rung
from anabranch.media.rendition import Rendition
from anabranch.site.gauges import stream_of
from anabranch.site.nodes import Nodes

RATE = 10.0
"""Changes a second that one viewer may ask for in the long run; a leaf carries out no more."""
BURST = 10.0
"""Changes that it may ask for at once."""


class Fitting(Protocol):
    """What decides which renditions a viewer may see."""

    def shown(self, leaf: str, channel: str, rendition: str) -> str:
        """Return what viewers at ``leaf`` see who are to see ``rendition``."""

    def ladder(self, leaf: str, channel: str, best: str) -> list[Rung]:
        """Return what viewers at ``leaf`` may see who are to see ``best`` or less."""


class Host(Protocol):
    """What is needed of the site."""

    seats: Seats
    nodes: Nodes

    @property
    def steward(self) -> Fitting: ...

    def channel(self, name: str) -> Channel:
        """Return a channel. Raises NotFoundError: there is none of this name."""

    async def end(self, seat: Seat) -> None:
        """End a seat."""


@dataclass(frozen=True, slots=True)
class Change:
    """What a viewer is shown from now on.

    ``waits`` is true if its picture waits for the next key frame of that.
    """

    channel: str
    rendition: str
    waits: bool


class Pace:
    """A token bucket: :data:`RATE` tokens a second, :data:`BURST` at most. Times in seconds."""

    def __init__(self, now: float) -> None:
        self._tokens = BURST
        self._at = now

    def take(self, now: float) -> None:
        """Take a token.

        Raises:
            TooManyError: there is none.
        """
        self._tokens = min(BURST, self._tokens + (now - self._at) * RATE)
        self._at = now
        if self._tokens < 1:
            raise TooManyError("too many changes; wait a moment")
        self._tokens -= 1


@dataclass(slots=True)
class _Turns:
    """The changes of one seat: one at a time, and what is overtaken is left out."""

    pace: Pace
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    newest: int = 0


class Changes:
    """Carries changes out.

    Args:
        host: the site.
        ladder: the renditions of every channel.
        on_event: takes ``seat.changed`` events.
    """

    def __init__(
        self, host: Host, ladder: Iterable[Rendition], on_event: Callable[[Event], None]
    ) -> None:
        self._host = host
        self._renditions = [rendition.name for rendition in ladder]
        self._on_event = on_event
        self._turns: dict[str, _Turns] = {}

    def check_rendition(self, name: str) -> None:
        """See that there is a rendition.

        Raises:
            NotFoundError: there is none of this name.
        """
        if name not in self._renditions:
            known = ", ".join(self._renditions)
            raise NotFoundError(f"there is no rendition {name[:40]!r}; there are {known}")

    async def change(self, seat: Seat, channel: str, rendition: str | None) -> Change:
        """Show a viewer another channel, or another rendition of its own.

        Of changes of one seat that wait for each other only the newest is carried out.

        Args:
            seat: whose.
            channel: by name.
            rendition: to stay at; None: the best that the viewer was to see, or less.

        Raises:
            NotFoundError: no such channel or rendition, or the channel has just been removed.
            TooManyError: more than :data:`RATE` changes a second.
            ConflictError: a newer change has taken this one's place.
            LeafUnavailableError: the seat has ended, or it cannot be done.
        """
        self._host.channel(channel)
        if rendition is not None:
            self.check_rendition(rendition)
        now = asyncio.get_running_loop().time()
        turns = self._turns_of(seat)
        turns.pace.take(now)
        turns.newest += 1
        mine = turns.newest
        async with turns.lock:
            if mine != turns.newest:
                raise ConflictError("a newer change has taken its place")
            best = rendition or seat.best
            shown = self._host.steward.shown(seat.leaf, channel, best)
            waits = await self._show(
                seat, Feed(channel, shown), best=best, pinned=rendition is not None
            )
            try:
                self._host.channel(channel)
            except NotFoundError:  # removed meanwhile, after its seats were ended
                await self._host.end(seat)
                raise
        return Change(channel, shown, waits)

    async def change_rendition(self, seat: Seat, rendition: str) -> None:
        """Show a viewer at most this rendition of what it watches.

        Raises:
            NotFoundError: there is no such rendition.
            LeafUnavailableError: the seat has ended, or it cannot be done.
        """
        self.check_rendition(rendition)
        async with self._turns_of(seat).lock:
            feed = Feed(seat.channel, rendition)
            await self._show(seat, feed, best=seat.best, pinned=seat.pinned)

    def shown(self, leaf: str, viewing: str, feed: Feed) -> None:
        """Note that a leaf itself shows a viewer another rendition."""
        seat = self._host.seats.at(leaf, viewing)
        if seat is not None and feed.channel == seat.channel:
            self._note(seat, feed)

    def forget(self, seat: Seat) -> None:
        """Forget a seat that has ended."""
        self._turns.pop(seat.id, None)

    def _turns_of(self, seat: Seat) -> _Turns:
        if self._host.seats.at(seat.leaf, seat.viewing) is not seat:
            raise LeafUnavailableError("the seat has ended")
        turns = self._turns.get(seat.id)
        if turns is None:
            turns = self._turns[seat.id] = _Turns(Pace(asyncio.get_running_loop().time()))
        return turns

    async def _show(self, seat: Seat, feed: Feed, *, best: str, pinned: bool) -> bool:
        leaf = self._host.nodes.leaf(seat.leaf)
        if leaf is None:
            raise LeafUnavailableError(f"the leaf {seat.leaf} is not up")
        ladder = self._host.steward.ladder(seat.leaf, feed.channel, best)
        waits = await leaf.change(seat.viewing, feed, ladder=ladder, pinned=pinned)
        seat.best, seat.allowed, seat.pinned = best, feed.rendition, pinned
        self._host.seats.changed(seat)
        self._note(seat, feed)
        return waits

    def _note(self, seat: Seat, feed: Feed) -> None:
        before = Feed(seat.channel, seat.rendition)
        if feed == before:
            return
        seat.channel, seat.rendition = feed.channel, feed.rendition
        self._host.seats.changed(seat)
        data = {
            "leaf": seat.leaf,
            "from": stream_of(before.channel, before.rendition),
            "to": stream_of(feed.channel, feed.rendition),
        }
        self._on_event(Event("seat.changed", feed.channel, data))
