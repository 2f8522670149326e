"""The site's event log: what happened, in the store."""

import asyncio
from contextlib import suppress

import structlog

from anabranch.core.errors import AnabranchError
from anabranch.core.events import Event
from anabranch.store.database import Database, StoreError

_KEEP_S = 7 * 24 * 3600.0
_BATCH_S = 0.5
"""Seconds in which what happens is written at once."""
_log = structlog.get_logger("anabranch.site")


class EventLog:
    """Writes events to the store, in batches; a full store costs only the log."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._stale = asyncio.Event()
        self.waiting: list[Event] = []
        """What is not written yet."""

    def add(self, event: Event) -> None:
        """Have an event written soon."""
        self.waiting.append(event)
        self._stale.set()

    async def write(self) -> None:
        """Write what is added, for ever."""
        with suppress(StoreError):
            await self._database.forget_events(older_than_s=_KEEP_S)
        while True:
            await self._stale.wait()
            await asyncio.sleep(_BATCH_S)
            self._stale.clear()
            await self.flush()

    async def flush(self) -> None:
        """Write what is waiting now."""
        batch, self.waiting = self.waiting, []
        try:
            await self._database.append_events(batch)
        except AnabranchError as error:
            _log.error("log.lost", events=len(batch), error=str(error))

    async def recent(self, limit: int) -> list[Event]:
        """Return the newest events that are written, newest first."""
        return await self._database.recent_events(limit)
