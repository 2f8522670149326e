"""What channels look like now: small pictures, made only while somebody asks for them.

They are made of key frames that leaf servers hold anyway. Of one channel at most one is made in
:data:`FRESH_S`, whoever asks, and of all channels one at a time.
"""

import asyncio
import hashlib
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import structlog

from anabranch.channels.channel import Channel
from anabranch.core.errors import NotFoundError
from anabranch.media.errors import ThumbnailError
from anabranch.media.leaf import Feed, KeyFrame, LeafServer
from anabranch.media.rendition import Rendition
from anabranch.media.thumbnail import MAX_WIDTH

FRESH_S = 5.0
"""Seconds in which a channel is looked at once."""
KEEP_S = 600.0
"""Seconds for which the last picture is shown of a channel that no leaf has any more."""
MAX_KEPT = 500
"""Channels whose picture is kept; some 15 KB each."""
_PATIENCE_S = 4.0
"""Seconds that all leaves together have to answer."""
_log = structlog.get_logger("anabranch.site")


class Host(Protocol):
    """What is needed of the site."""

    @property
    def leaves(self) -> Sequence[LeafServer]: ...

    @property
    def channels(self) -> Iterator[Channel]: ...

    def channel(self, name: str) -> Channel:
        """Return a channel. Raises NotFoundError: there is none of this name."""


@dataclass(frozen=True, slots=True)
class Thumbnail:
    """A picture of a channel.

    Attributes:
        tag: the same for the same picture (RFC 9110 section 8.8.3).
        at: the loop's time at which the leaf got it.
    """

    jpeg: bytes
    tag: str
    at: float


@dataclass(slots=True)
class _Kept:
    channel: Channel
    shown: Thumbnail | None = None
    looked: float = float("-inf")
    looking: "asyncio.Task[None] | None" = None


class Thumbnails:
    """Makes and keeps them.

    Args:
        host: the site.
        ladder: the renditions of every channel.
        decode: makes a JPEG of a key frame; may raise ThumbnailError.
    """

    def __init__(
        self,
        host: Host,
        ladder: Sequence[Rendition],
        decode: Callable[[bytes], Awaitable[bytes]],
    ) -> None:
        self._host = host
        self._decode = decode
        self._one_at_a_time = asyncio.Semaphore(1)
        self._kept: dict[str, _Kept] = {}
        # The smallest that need not be made larger is decoded in the shortest time.
        best = sorted(
            ladder, key=lambda each: (each.width < MAX_WIDTH, abs(each.width - MAX_WIDTH))
        )
        self._places = {each.name: place for place, each in enumerate(best)}

    async def of(self, name: str) -> Thumbnail:
        """Return a channel's picture: at most :data:`FRESH_S` old if a leaf has the channel.

        Raises:
            NotFoundError: there is no such channel, or no picture of it.
        """
        kept = self._kept_of(self._host.channel(name))
        now = asyncio.get_running_loop().time()
        if kept.looking is None and now - kept.looked >= FRESH_S:
            kept.looked = now
            kept.looking = asyncio.create_task(self._look(kept), name=f"thumbnail:{name}")
        if kept.looking is not None:
            # Others wait for it, too, when this one has gone.
            await asyncio.shield(kept.looking)
        if kept.shown is None or now - kept.shown.at > KEEP_S:
            raise NotFoundError(f"there is no picture of the channel {name} at present")
        return kept.shown

    def _kept_of(self, channel: Channel) -> _Kept:
        kept = self._kept.get(channel.name)
        # Another channel may have taken the name of one that was removed.
        if kept is None or kept.channel is not channel:
            there = set(map(id, self._host.channels))
            self._kept = {n: k for n, k in self._kept.items() if id(k.channel) in there}
            while len(self._kept) >= MAX_KEPT:
                del self._kept[min(self._kept, key=lambda each: self._kept[each].looked)]
            kept = self._kept[channel.name] = _Kept(channel)
        return kept

    async def _look(self, kept: _Kept) -> None:
        try:
            async with self._one_at_a_time:
                await self._renew(kept)
        except ThumbnailError as error:
            _log.warning("thumbnail.failed", channel=kept.channel.name, error=str(error))
        finally:
            kept.looking = None

    async def _renew(self, kept: _Kept) -> None:
        found = await self._newest(kept.channel.name)
        if found is None:
            return
        at = asyncio.get_running_loop().time() - found.age_s
        if kept.shown is not None and at <= kept.shown.at:
            return
        tag = hashlib.sha256(found.annex_b).hexdigest()[:16]
        if kept.shown is not None and tag == kept.shown.tag:
            jpeg = kept.shown.jpeg
        else:
            jpeg = await self._decode(found.annex_b)
        kept.shown = Thumbnail(jpeg, tag, at)

    async def _newest(self, channel: str) -> KeyFrame | None:
        """Return the newest key frame at hand, or the first that is new enough."""
        newest: KeyFrame | None = None
        try:
            async with asyncio.timeout(_PATIENCE_S):
                for leaf, feed in self._sources(channel):
                    found = await leaf.key_frame(feed)
                    if found is not None and (newest is None or found.age_s < newest.age_s):
                        newest = found
                    if newest is not None and newest.age_s < FRESH_S:
                        break
        except TimeoutError:
            pass  # what was found so far
        return newest

    def _sources(self, channel: str) -> list[tuple[LeafServer, Feed]]:
        """Return who may have it, the best first: of this machine, then what decodes fast."""
        found = [
            (leaf, inlet.feed)
            for leaf in self._host.leaves
            if leaf.ready
            for inlet in leaf.inlets()
            if inlet.feed.channel == channel
        ]
        last = len(self._places)

        def rank(source: tuple[LeafServer, Feed]) -> tuple[bool, int, str]:
            leaf, feed = source
            return leaf.child is None, self._places.get(feed.rendition, last), leaf.name

        return sorted(found, key=rank)
