"""The site's main loop: whenever what is wanted changes, it is made true; key frames come after."""

import asyncio
from collections.abc import Awaitable, Callable

import structlog

from anabranch.core.errors import AnabranchError
from anabranch.core.events import Event
from anabranch.media.leaf import Feed

_RETRY_S = 0.5
"""Seconds until a carriage that failed is tried again."""
_log = structlog.get_logger("anabranch.site")


class Carrying:
    """Has everything carried that is wanted.

    Args:
        reconcile: makes what is wanted now true; raises AnabranchError if it cannot.
        make_key_frame: has an encoder make one.
        on_event: takes ``carriage.failed`` events.
    """

    def __init__(
        self,
        reconcile: Callable[[], Awaitable[None]],
        make_key_frame: Callable[[Feed], None],
        on_event: Callable[[Event], None],
    ) -> None:
        self._reconcile = reconcile
        self._make_key_frame = make_key_frame
        self._on_event = on_event
        self._stale = asyncio.Event()
        self._busy = False
        self._key_frames: set[Feed] = set()
        self._waiting: list[asyncio.Future[None]] = []

    def stale(self) -> None:
        """Have what is wanted looked at again."""
        self._stale.set()

    async def carried(self) -> None:
        """Return once what is wanted now is carried.

        Raises:
            AnabranchError: it cannot be; it is tried again and again.
        """
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(done)
        self._stale.set()
        await done

    def request_key_frame(self, feed: Feed) -> None:
        """Have a key frame made as soon as everybody is sent what they want.

        Without one nothing can be shown, and one that is made sooner is lost on the way.
        """
        self._key_frames.add(feed)
        if not self._stale.is_set() and not self._busy:
            self._make_key_frames()

    async def run(self) -> None:
        """Keep what is carried in step with what is wanted, for ever."""
        failure: str | None = None
        self._stale.set()  # an operator's wishes are carried without a viewer, too
        while True:
            await self._stale.wait()
            self._stale.clear()
            self._busy = True
            waiting, self._waiting = self._waiting, []
            try:
                await self._reconcile()
                failure = None
                _settle(waiting, None)
                if not self._stale.is_set():
                    self._make_key_frames()
            except AnabranchError as error:
                _settle(waiting, error)
                if str(error) != failure:  # told once, tried again and again
                    failure = str(error)
                    _log.error("carriage.failed", error=failure)
                    self._on_event(Event("carriage.failed", "site", {"error": failure}))
                await asyncio.sleep(_RETRY_S)
                self._stale.set()
            finally:
                self._busy = False
                for done in waiting:
                    done.cancel()

    def _make_key_frames(self) -> None:
        wanted, self._key_frames = self._key_frames, set()
        for feed in wanted:
            self._make_key_frame(feed)


def _settle(waiting: list[asyncio.Future[None]], error: AnabranchError | None) -> None:
    for done in waiting:
        if done.done():
            continue
        if error is None:
            done.set_result(None)
        else:
            done.set_exception(error)
