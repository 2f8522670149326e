"""Viewers' figures from the leaf server of our own: those asked for at once go in one question."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field

from anabranch.media.leaf import LeafError, ViewerStatistics
from anabranch.media.leaf_protocol import Message

_ONE_BY_ONE = 3
"""Up to so many viewers are asked for by name."""

Ask = Callable[[str | None], Awaitable[Message]]
"""Ask for the figures of one viewer, or of all; the answer has them by identifier."""


@dataclass(frozen=True, slots=True)
class Repairs:
    """What became of packets that were lost on their way to a server, of all its streams so far.

    Attributes:
        asked: its parent was asked for so many.
        repaired: so many of them came.
        given_up: so many are not waited for any more.
        answered: so many it sent to servers that asked.
    """

    asked: int = 0
    repaired: int = 0
    given_up: int = 0
    answered: int = 0


@dataclass(slots=True)
class _Round:
    wanted: set[str] = field(default_factory=set)
    task: "asyncio.Task[Message] | None" = None


class Figures:
    """Collects questions. ``ask`` may raise :class:`~anabranch.media.leaf.LeafError`."""

    def __init__(self, ask: Ask) -> None:
        self._ask = ask
        self._round: _Round | None = None

    async def of(self, viewer: str) -> ViewerStatistics | None:
        """Return a viewer's figures, or None if they cannot be had."""
        if self._round is None:
            self._round = _Round()
            self._round.task = asyncio.create_task(self._fetch(self._round))
        current = self._round
        current.wanted.add(viewer)
        assert current.task is not None
        figures = (await asyncio.shield(current.task)).get(viewer)
        return read_figures(figures) if isinstance(figures, dict) else None

    async def _fetch(self, current: _Round) -> Message:
        await asyncio.sleep(0)  # whoever asks in this turn of the loop has asked by then
        self._round = None
        many = len(current.wanted) > _ONE_BY_ONE
        found: Message = {}
        for viewer in [None] if many else current.wanted:
            with suppress(LeafError):  # it has gone, or the server has
                found |= await self._ask(viewer)
        return found


def read_repairs(said: Message) -> Repairs:
    """Read a server's statistics; anything absent counts as none."""
    totals = said.get("totals")
    found = totals if isinstance(totals, dict) else {}
    names = ("packets_asked", "packets_repaired", "packets_given_up", "repairs_sent")
    return Repairs(*(int(_figure(found, name) or 0) for name in names))


def read_figures(said: Message) -> ViewerStatistics:
    """Read what the server says of a viewer; anything absent counts as none."""

    def count(name: str) -> int:
        return int(_figure(said, name) or 0)

    return ViewerStatistics(
        bytes_sent=count("bytes"),
        packets_sent=count("packets"),
        packets_lost=count("lost"),
        nacks=count("nacks"),
        jitter_ms=_figure(said, "jitter_ms"),
        rtt_ms=_figure(said, "rtt_ms"),
    )


def _figure(said: Message, name: str) -> float | None:
    value = said.get(name)
    # Above 2^53 no count is meant: and sums must stay finite.
    return value if isinstance(value, (int, float)) and abs(value) < 2**53 else None
