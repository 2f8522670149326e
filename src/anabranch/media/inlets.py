"""Which feeds a leaf server must be given, where, and for how long yet. Pure: time is passed in.

All times are seconds of one monotonic clock.
"""

import itertools
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from typing import Literal

from anabranch.media.leaf import Feed, Inlet, LeafUnavailableError, Rung
from anabranch.media.rendition import AUDIO

HOLD_S = 3.0
"""Seconds that an inlet outlives its last viewer: somebody who zaps may come back."""
TRIAL_S = 10.0
"""Seconds that a feed has to bring a key frame, for a viewer who is to go there."""
RESTORED_S = 30.0
"""Seconds for which what a server had stays: until then it has turned out what is wanted of it."""
UNKNOWN_KBPS = 1
"""The least that can be said: it never keeps a rendition from anybody."""


@dataclass(frozen=True, slots=True)
class Stream:
    """One RTP stream that arrives: a rendition's picture, or a channel's sound.

    Attributes:
        number: by which the server and its controller know it.
        port: UDP.
        kbps: its bitrate, :data:`UNKNOWN_KBPS` if that is not known.
    """

    number: int
    kind: Literal["video", "audio"]
    port: int
    name: str
    channel: str
    kbps: int = UNKNOWN_KBPS


@dataclass(slots=True)
class _Open:
    port: int
    users: set[str] = field(default_factory=set)
    until: float = 0.0
    """Open until then though nobody uses it."""


class Inlets:
    """The inlets of one leaf.

    Args:
        ports: UDP ports for them.
    """

    def __init__(self, ports: range) -> None:
        self._ports = ports
        self._next = 0
        self._open: dict[Feed, _Open] = {}
        self._sounds: dict[str, int] = {}
        self._warm: frozenset[Feed] = frozenset()
        self._rates: dict[Feed, int] = {}
        self._numbers: dict[Feed, int] = {}
        self._feeds: dict[int, Feed] = {}
        self._drawn = itertools.count(1)

    # --- what is there ------------------------------------------------------------------------

    def inlets(self) -> frozenset[Inlet]:
        """Return the inlets that are open; those of one channel share the sound's port."""
        return frozenset(
            Inlet(feed, it.port, self._sounds[feed.channel]) for feed, it in self._open.items()
        )

    def streams(self) -> dict[int, Stream]:
        """Return the streams that arrive at them, by number."""
        found = {}
        for feed, it in self._open.items():
            number, name = self.number(feed), f"{feed.rendition}@{feed.channel}"
            rate = self._rates.get(feed, UNKNOWN_KBPS)
            found[number] = Stream(number, "video", it.port, name, feed.channel, rate)
        for channel, port in self._sounds.items():
            number = self.number(Feed(channel, AUDIO))
            found[number] = Stream(number, "audio", port, f"{AUDIO}@{channel}", channel)
        return found

    def number(self, feed: Feed) -> int:
        """Return the number of a feed's picture, open or not, or of a channel's ``AUDIO``."""
        if feed not in self._numbers:
            number = self._numbers[feed] = next(self._drawn)
            self._feeds[number] = feed
        return self._numbers[feed]

    def feed(self, number: int) -> Feed | None:
        """Return the feed whose picture has this number."""
        feed = self._feeds.get(number)
        return feed if feed is not None and feed.rendition != AUDIO else None

    def restore(self, streams: Iterable[Stream], now: float) -> None:
        """Begin with what a server has already, open for a while yet, whoever uses it.

        Call it before anything else.
        """
        found = list(streams)
        for stream in found:
            sounds = stream.kind == "audio"
            rendition = AUDIO if sounds else stream.name.removesuffix(f"@{stream.channel}")
            feed = Feed(stream.channel, rendition)
            self._numbers[feed], self._feeds[stream.number] = stream.number, feed
            if sounds:
                self._sounds[stream.channel] = stream.port
            else:
                self._open[feed] = _Open(stream.port, until=now + RESTORED_S)
                self._rates[feed] = stream.kbps
        self._drawn = itertools.count(max(self._feeds, default=0) + 1)
        for channel in {feed.channel for feed in self._open} - self._sounds.keys():
            self._sounds[channel] = self._free_port()

    # --- who wants what -----------------------------------------------------------------------

    def learn(self, ladder: Iterable[Rung]) -> None:
        """Note the bitrates of feeds, for those that are opened from now on."""
        self._rates.update({rung.feed: rung.kbps for rung in ladder})

    def use(self, feed: Feed, user: str) -> None:
        """Have a feed delivered for a user.

        Raises:
            LeafUnavailableError: no port is left.
        """
        self._opened(feed).users.add(user)

    def leave(self, feed: Feed, user: str, now: float) -> None:
        """Note that a user does not need a feed any more; one that it did not use is ignored."""
        it = self._open.get(feed)
        if it is not None and user in it.users:
            it.users.discard(user)
            if not it.users:
                it.until = max(it.until, now + HOLD_S)

    def leave_all(self) -> None:
        """Have no user any more; only warm feeds stay."""
        for it in self._open.values():
            it.users.clear()
            it.until = 0.0
        self.expire(0.0)

    def try_out(self, feed: Feed, now: float) -> None:
        """Have a feed delivered for a while: a viewer is about to use it.

        Raises:
            LeafUnavailableError: no port is left.
        """
        self._opened(feed).until = now + TRIAL_S

    def keep_warm(self, ladder: Collection[Rung]) -> None:
        """Have these feeds delivered whether they are used or not, as far as there are ports.

        Those that were so far expire; see :meth:`expire`.
        """
        self.learn(ladder)
        self._warm = frozenset(rung.feed for rung in ladder)
        for rung in ladder:
            try:
                self._opened(rung.feed)
            except LeafUnavailableError:
                break

    def move(self, number: int) -> None:
        """Give a stream another port: its own cannot be had.

        Raises:
            LeafUnavailableError: no port is left.
        """
        feed = self._feeds[number]
        if feed.rendition == AUDIO and feed.channel in self._sounds:
            self._sounds[feed.channel] = self._free_port()
        elif feed in self._open:
            self._open[feed].port = self._free_port()

    def expire(self, now: float) -> None:
        """Close what nobody needs any more."""
        for feed, it in list(self._open.items()):
            if not self._is_needed(feed, it) and it.until <= now:
                del self._open[feed]
        heard = {feed.channel for feed in self._open}
        self._sounds = {name: port for name, port in self._sounds.items() if name in heard}

    def due(self) -> float | None:
        """Return when something expires; None: not before somebody leaves."""
        times = (it.until for feed, it in self._open.items() if not self._is_needed(feed, it))
        return min(times, default=None)

    def _is_needed(self, feed: Feed, it: _Open) -> bool:
        return bool(it.users) or feed in self._warm

    def _opened(self, feed: Feed) -> _Open:
        if feed not in self._open:
            sound = self._sounds.get(feed.channel) or self._free_port()
            self._open[feed] = _Open(self._free_port(sound))
            self._sounds[feed.channel] = sound
        return self._open[feed]

    def _free_port(self, *but: int) -> int:
        """Return the port after the one that was given out last: what was sent to a port that has
        just become free may still be on its way."""
        used = {*but, *self._sounds.values(), *(it.port for it in self._open.values())}
        for step in range(len(self._ports)):
            place = (self._next + step) % len(self._ports)
            if self._ports[place] not in used:
                self._next = place + 1
                return self._ports[place]
        raise LeafUnavailableError(f"no inlet port is left ({self._ports[0]} to {self._ports[-1]})")
