"""Sees that whoever may no longer watch a channel does not: ends seats whose reason is gone."""

import asyncio
import time

import structlog

from anabranch.channels.seats import AnySeat, Seat
from anabranch.console.people.people import People
from anabranch.core.errors import AnabranchError, NotFoundError
from anabranch.site.site import Site

_LOOK_S = 60.0
"""Seconds between two looks if nothing is known to end before: sessions and tokens do, too."""
_log = structlog.get_logger("anabranch.people")


class Doors:
    """The doors of a site's channels."""

    def __init__(self, site: Site, people: People) -> None:
        self._site = site
        self._people = people

    async def look(self) -> None:
        """End the seats of those who may not see what they watch, browsers' and plain ones."""
        there = [*self._site.seats, *self._site.seats.plain]
        gone = [seat for seat in there if not self._may_stay(seat)]
        for seat in gone:
            if isinstance(seat, Seat):
                seat.barred = True
        for done in await asyncio.gather(
            *(self._site.end(seat) for seat in gone), return_exceptions=True
        ):
            if isinstance(done, AnabranchError):
                _log.warning("people.seat-not-ended", error=str(done))
            elif isinstance(done, BaseException):
                raise done

    async def keep(self) -> None:
        """Look now, whenever a share link expires, and now and then, for ever.

        Plain seats may be of an earlier run, and what they were held by may have ended since.
        """
        while True:
            await self.look()
            end = self._site.audience.next_end()
            wait = _LOOK_S if end is None else min(_LOOK_S, end - time.time() + 0.01)
            # New links end no sooner than this: sixty seconds is the shortest that they live.
            await asyncio.sleep(max(wait, 0.01))

    def _may_stay(self, seat: AnySeat) -> bool:
        try:
            channel = self._site.channel(seat.channel).definition
        except NotFoundError:
            return True  # its end is under way
        if channel.visibility != "private":
            return True
        caller = self._people.holding(seat.holder)
        return caller.may_see(channel, self._site.audience)
