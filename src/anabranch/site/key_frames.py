"""Key frames on demand: at most one a second of each rendition, whoever and however many ask."""

import asyncio
from collections.abc import Callable

from anabranch.media.leaf import Feed

GAP_S = 1.0
"""Least time between two key frames that are asked for: each costs everybody who watches."""


class KeyFrameLimit:
    """When a key frame of a feed may be asked for. Pure; times in seconds."""

    def __init__(self) -> None:
        self._asked: dict[Feed, float] = {}

    def wait(self, feed: Feed, now: float) -> float:
        """Return how long to wait; 0: ask now, which is counted."""
        self._asked = {each: at for each, at in self._asked.items() if now - at < GAP_S}
        if feed in self._asked:
            return self._asked[feed] + GAP_S - now
        self._asked[feed] = now
        return 0.0


class KeyFrames:
    """Collects requests and has the encoders carry them out.

    Args:
        make: has a key frame of a feed made.
    """

    def __init__(self, make: Callable[[Feed], None]) -> None:
        self._make = make
        self._limit = KeyFrameLimit()
        self._wanted: set[Feed] = set()
        self._timer: asyncio.TimerHandle | None = None

    def want(self, feed: Feed) -> None:
        """Note that somebody waits for one."""
        self._wanted.add(feed)

    def make(self) -> None:
        """Have those made that are wanted, each as soon as it may be."""
        loop = asyncio.get_running_loop()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        waits = {feed: self._limit.wait(feed, loop.time()) for feed in self._wanted}
        self._wanted = {feed for feed, wait in waits.items() if wait > 0}
        for feed in waits.keys() - self._wanted:
            self._make(feed)
        if self._wanted:
            self._timer = loop.call_later(min(filter(None, waits.values())), self.make)
