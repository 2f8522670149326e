"""Captions: what is said on a channel, sent by its producer a line at a time.

They are soft: shown now, kept nowhere. Viewers get them by their seat's event stream
(:mod:`anabranch.console.whep_events`), so they follow a viewer from channel to channel.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from weakref import WeakKeyDictionary

from anabranch.channels.channel import Channel
from anabranch.core.errors import TooManyError, UsageError
from anabranch.core.events import Event

MAX_TEXT = 300
MAX_LINES = 4
LONGEST_S = 30.0
_SHORTEST_S = 1.5
_READ_S = 0.06
"""A character takes as long to read (17 a second, as subtitlers reckon)."""
_LATELY_S = 600.0
"""A channel counts as captioned so long after a caption."""
_RATE = 10.0
"""Captions a second that a channel may have in the long run, and at once."""


@dataclass(frozen=True, slots=True)
class Caption:
    """One caption. ``id`` tells it from another one with the same words; no text: none is shown."""

    id: int
    text: str
    duration_s: float


@dataclass(slots=True)
class _Said:
    caption: Caption
    at: float
    tokens: float = _RATE
    checked: float = field(default=0.0)


class Captions:
    """The present captions of a site's channels.

    Args:
        on_event: gets ``caption.shown``; not for the log.
        clock: seconds that only grow.
    """

    def __init__(
        self, on_event: Callable[[Event], None], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._on_event = on_event
        self._clock = clock
        # A channel that is removed takes what was said on it along.
        self._said: WeakKeyDictionary[Channel, _Said] = WeakKeyDictionary()
        self._count = 0

    def show(self, channel: Channel, text: str, duration_s: float | None = None) -> Caption:
        """Show a caption in the place of the one before; an empty one takes that away.

        ``duration_s`` None: as long as it takes to read it.

        Raises:
            UsageError: it is too long, or has control characters.
            TooManyError: the channel had more than ten in the last second.
        """
        text = check_text(text)
        now = self._clock()
        before = self._said.get(channel)
        tokens = _RATE
        if before is not None:
            tokens = min(_RATE, before.tokens + (now - before.checked) * _RATE)
        if tokens < 1:
            raise TooManyError("too many captions; wait a moment")
        if duration_s is None:
            duration_s = min(LONGEST_S, max(_SHORTEST_S, len(text) * _READ_S))
        self._count += 1
        caption = Caption(self._count, text, duration_s if text else 0.0)
        self._said[channel] = _Said(caption, now, tokens - 1, now)
        self._on_event(Event("caption.shown", channel.name))
        return caption

    def of(self, channel: Channel) -> Caption | None:
        """Return what is said now; None: nothing."""
        said = self._said.get(channel)
        if said is None:
            return None
        # One that was taken away counts for a moment, so that those who show it hear of that.
        lasts = said.caption.duration_s or _SHORTEST_S
        return said.caption if self._clock() - said.at < lasts else None

    def are_made(self, channel: Channel) -> bool:
        """Say whether a channel has had a caption lately, so that a viewer may expect more."""
        said = self._said.get(channel)
        return said is not None and self._clock() - said.at < _LATELY_S


def check_text(text: str) -> str:
    """Return a caption's text without the space around its lines; "" is none.

    Raises:
        UsageError: it is too long, has too many lines, or has control characters.
    """
    lines = [line.strip() for line in text.strip().split("\n")]
    if not all(line.isprintable() for line in lines):
        raise UsageError("a caption is printable characters and line feeds")
    if len(lines) > MAX_LINES:
        raise UsageError(f"a caption has at most {MAX_LINES} lines")
    text = "\n".join(lines)
    if len(text) > MAX_TEXT:
        raise UsageError(f"a caption has at most {MAX_TEXT} characters")
    return text
