"""As many scripted viewers at a leaf server as are wanted at the moment."""

import asyncio
import itertools
import time
from contextlib import suppress
from dataclasses import dataclass

from anabranch.app.bench.viewers_load import Load, LoadError, Message
from anabranch.app.bench.viewers_sdp import Credentials, offer, read_answer
from anabranch.core.errors import UnavailableError
from anabranch.media.leaf import Feed, LeafServer

FEED = Feed("bench", "600k")
_AT_ONCE = 16
"""Viewers that connect at the same time."""
_PATIENCE_S = 30.0
"""Seconds until all that were added must be connected."""


@dataclass(slots=True)
class _Viewer:
    viewing_id: str
    up: bool = False


class Crowd:
    """The viewers of one leaf server, all of one feed.

    Attributes:
        lost: how many were cut off since the beginning.
    """

    def __init__(self, leaf: LeafServer, load: Load) -> None:
        self._leaf = leaf
        self._load = load
        self._numbers = itertools.count(1)
        self._viewers: dict[str, _Viewer] = {}
        self._changed = asyncio.Event()
        self.lost = 0
        load.on_event = self._event

    def __len__(self) -> int:
        return len(self._viewers)

    async def resize(self, viewers: int) -> None:
        """Have so many of them, all connected.

        Raises:
            UnavailableError: they cannot be added, or do not get connected.
            LeafError: the leaf server takes no more.
        """
        up = [name for name, viewer in self._viewers.items() if viewer.up]
        for name in self._viewers.keys() - set(up[:viewers]):
            await self._remove(name)
        limit = asyncio.Semaphore(_AT_ONCE)
        deadline = time.monotonic() + _PATIENCE_S + viewers / 50

        async def add() -> None:
            async with limit:
                await self._add()

        async with asyncio.TaskGroup() as group:
            for _ in range(viewers - len(self)):
                group.create_task(add())
        while not all(viewer.up for viewer in self._viewers.values()) or len(self) < viewers:
            self._changed.clear()
            try:
                async with asyncio.timeout(deadline - time.monotonic()):
                    await self._changed.wait()
            except TimeoutError:
                count = sum(viewer.up for viewer in self._viewers.values())
                raise UnavailableError(f"only {count} of {viewers} viewers are connected") from None

    async def _add(self) -> None:
        name = str(next(self._numbers))
        own = Credentials.random()
        viewing = await self._leaf.watch(FEED, offer(own, self._load.fingerprint))
        self._viewers[name] = _Viewer(viewing.id)
        await self._load.add(name, own, read_answer(viewing.answer))

    async def _remove(self, name: str) -> None:
        viewer = self._viewers.pop(name)
        with suppress(LoadError):  # it was never added
            await self._load.request("remove", viewer=name)
        await self._leaf.close(viewer.viewing_id)

    def _event(self, event: Message) -> None:
        name = event.get("viewer", "")
        if name not in self._viewers:
            return
        if event["event"] == "viewer.up":
            self._viewers[name].up = True
        elif event["event"] == "viewer.gone":
            self.lost += 1
            self._viewers[name].up = False
        self._changed.set()
