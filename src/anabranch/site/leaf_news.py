"""What a leaf server has to say, for who hears it from another machine: a state, then changes.

A record is a JSON object. The first one that a listener gets is whole; each later one has only what
has changed, and ``{}`` is said when nothing has for a while.
"""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from dataclasses import astuple
from typing import Any

from anabranch.media.leaf import Feed, Inlet, LeafServer, Rung, Viewing, ViewingState

PULSE_S = 2.0
"""Seconds of silence after which ``{}`` is said."""
_QUEUE = 1000
_LOOK_S = 0.2

News = dict[str, Any]


class LeafNews:
    """Follows one leaf server and tells any number of listeners.

    Attributes:
        viewings: what every viewer watches, by identifier.
    """

    def __init__(self) -> None:
        self._leaf: LeafServer | None = None
        self._ready = False
        self._states: dict[str, str] = {}
        self._warm: tuple[Rung, ...] = ()
        self._listeners: set[asyncio.Queue[News | None]] = set()
        self.viewings: dict[str, Feed] = {}

    @property
    def leaf(self) -> LeafServer | None:
        """The server that is followed, None while there is none."""
        return self._leaf

    def follow(self, leaf: LeafServer | None) -> None:
        """Follow this server from now on; whoever watched at another one is gone."""
        if leaf is self._leaf:
            return
        self._leaf = leaf
        self.viewings.clear()
        self._states.clear()
        if leaf is not None:
            leaf.on_inlets = self._inlets_changed
            leaf.on_viewing = self._viewing_changed
            leaf.on_shown = self._shown
            leaf.on_key_frame = self._key_frame_wanted
            leaf.keep_warm(self._warm)
        for listener in self._listeners:
            _put(listener, self._whole())

    def seated(self, viewing: Viewing) -> None:
        """Note a viewing that has just been made."""
        self.viewings[viewing.id] = viewing.feed
        self._tell({"viewings": {viewing.id: self._states.setdefault(viewing.id, "new")}})

    def changed(self, viewing_id: str, feed: Feed) -> None:
        """Note that a viewer sees something else."""
        if viewing_id in self.viewings:
            self.viewings[viewing_id] = feed

    def keep_warm(self, ladder: Sequence[Rung]) -> None:
        """Have the server keep these feeds at hand, this one and those to come."""
        self._warm = tuple(ladder)
        if self._leaf is not None:
            self._leaf.keep_warm(self._warm)

    async def listen(self) -> AsyncGenerator[News, None]:
        """Yield the whole state, then what changes; ends if the listener is too slow."""
        queue: asyncio.Queue[News | None] = asyncio.Queue(_QUEUE)
        self._listeners.add(queue)
        loop = asyncio.get_running_loop()
        said = loop.time()
        try:
            yield self._whole()
            while True:
                news: News | None = {}
                try:
                    async with asyncio.timeout(_LOOK_S):
                        news = await queue.get()
                except TimeoutError:
                    news = self._readiness()
                if news is None:
                    return
                if news or loop.time() - said >= PULSE_S:
                    said = loop.time()
                    yield news
        finally:
            self._listeners.discard(queue)

    def _whole(self) -> News:
        self._ready = self._leaf is not None and self._leaf.ready
        return {
            "whole": True,
            "ready": self._ready,
            "inlets": self._inlets(),
            "viewings": dict(self._states),
            "shown": {viewing: [*astuple(feed)] for viewing, feed in self.viewings.items()},
        }

    def _readiness(self) -> News:
        """Say so if the server has become ready, or is not any more; nobody else tells."""
        ready = self._leaf is not None and self._leaf.ready
        if ready == self._ready:
            return {}
        self._ready = ready
        self._tell({"ready": ready})
        return {}

    def _inlets(self) -> list[list[str | int]]:
        inlets = self._leaf.inlets() if self._leaf is not None else frozenset[Inlet]()
        return [
            [each.feed.channel, each.feed.rendition, each.video_port, each.audio_port]
            for each in sorted(inlets)
        ]

    def _inlets_changed(self) -> None:
        self._tell({"inlets": self._inlets()})

    def _viewing_changed(self, viewing_id: str, state: ViewingState) -> None:
        if state == "gone":
            self._states.pop(viewing_id, None)
            self.viewings.pop(viewing_id, None)
        else:
            self._states[viewing_id] = state
        self._tell({"viewings": {viewing_id: state}})

    def _shown(self, viewing_id: str, feed: Feed) -> None:
        self.changed(viewing_id, feed)
        self._tell({"shown": {viewing_id: [*astuple(feed)]}})

    def _key_frame_wanted(self, feed: Feed) -> None:
        self._tell({"key_frames": [[*astuple(feed)]]})

    def _tell(self, news: News) -> None:
        for listener in self._listeners:
            _put(listener, news)


def _put(queue: asyncio.Queue[News | None], news: News) -> None:
    if queue.full():  # it comes again, and hears everything
        queue.get_nowait()
        news_or_end: News | None = None
    else:
        news_or_end = news
    queue.put_nowait(news_or_end)


def read_inlets(value: Any) -> frozenset[Inlet]:
    """Read inlets as they are told. Raises TypeError or ValueError if they are none."""
    found = set()
    for channel, rendition, video, audio in value:
        for port in (video, audio):
            if not isinstance(port, int) or not 0 <= port < 65536:
                raise ValueError(f"{port!r} is no port")
        found.add(Inlet(Feed(str(channel), str(rendition)), video, audio))
    return frozenset(found)


def read_feed(value: Any) -> Feed:
    """Read a feed as it is told. Raises TypeError or ValueError if it is none."""
    channel, rendition = value
    return Feed(str(channel), str(rendition))
