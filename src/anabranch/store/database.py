"""Tables and sessions. Every change is one transaction: it is in the store whole or not at all."""

import asyncio
import os
import threading
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

from sqlalchemy import delete, event, select
from sqlalchemy.exc import IntegrityError, SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, create_async_engine

from anabranch.core.errors import ConflictError, UnavailableError
from anabranch.core.events import Event
from anabranch.store import migrations
from anabranch.store.base import Base
from anabranch.store.rows import CallbackRow, ChannelRow, EventRow, WishRow

__all__ = ["Base", "CallbackRow", "ChannelRow", "Database", "EventRow", "StoreError", "WishRow"]


class StoreError(UnavailableError):
    """The store cannot be read or written: no space, no permission, no database server."""


class Database:
    """The store of one site. A file of SQLite's is its owner's alone: it has keys and secrets.

    ``url`` is an SQLAlchemy URL with an asyncio driver: ``sqlite+aiosqlite:///path`` or
    ``postgresql+psycopg://...``.

    Raises:
        StoreError: the driver is not installed.
    """

    def __init__(self, url: str) -> None:
        try:
            self._engine: AsyncEngine = create_async_engine(url)
        except ImportError as error:
            raise StoreError(
                f"the store's driver is missing ({error.name}): pip install 'anabranch[postgresql]'"
            ) from error
        self._file: Path | None = None
        if self._engine.dialect.name == "sqlite":
            event.listen(self._engine.sync_engine, "connect", _prepare_sqlite)
            name = self._engine.url.database
            if name and name != ":memory:" and not name.startswith("file:"):
                self._file = Path(name)

    async def open(self) -> None:
        """Bring the tables to what this version needs: made new, or migrated.

        Raises:
            StoreError: the store cannot be reached or written, or a newer version wrote it.
        """
        if self._file is not None:
            _keep_private(self._file)
        try:
            async with self._engine.connect() as connection:
                await connection.run_sync(migrations.bring_forward)
                await connection.commit()
        except migrations.NewerStoreError as error:
            raise StoreError(str(error)) from error
        except (SQLAlchemyError, OSError) as error:
            raise StoreError(f"the store cannot be opened: {_reason(error)}") from error

    async def close(self) -> None:
        await self._engine.dispose()
        # aiosqlite's threads report to this loop once more after a connection has gone; if the
        # loop were closed by then, each would die with a traceback.
        for thread in threading.enumerate():
            if "_connection_worker_thread" in thread.name:
                await asyncio.to_thread(thread.join, 1.0)

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[AsyncSession]:
        """Give a session whose changes are committed together at the end, or not at all.

        Raises:
            ConflictError: a change breaks a uniqueness rule.
            StoreError: the store cannot be read or written.
        """
        try:
            async with (
                AsyncSession(self._engine, expire_on_commit=False) as session,
                session.begin(),
            ):
                yield session
        except IntegrityError as error:
            raise ConflictError("it exists already") from error
        except (SQLAlchemyError, OSError) as error:
            raise StoreError(f"the store cannot be used: {_reason(error)}") from error

    async def append_events(self, events: Sequence[Event]) -> None:
        """Write events to the log."""
        rows = [
            EventRow(time=e.time, kind=e.kind, subject=e.subject, data=dict(e.data)) for e in events
        ]
        async with self.transaction() as session:
            session.add_all(rows)

    async def recent_events(self, limit: int = 100) -> list[Event]:
        """Return the newest ``limit`` events, newest first."""
        async with self.transaction() as session:
            rows = await session.scalars(select(EventRow).order_by(EventRow.id.desc()).limit(limit))
            return [Event(row.kind, row.subject, row.data, row.time) for row in rows]

    async def forget_events(self, *, older_than_s: float) -> None:
        """Drop events older than ``older_than_s`` seconds, so that the log has an end."""
        async with self.transaction() as session:
            await session.execute(
                delete(EventRow).where(EventRow.time < time.time() - older_than_s)
            )


def _keep_private(file: Path) -> None:
    """Make the file, or make it its owner's alone; SQLite gives its companions the same mode."""
    with suppress(OSError):  # SQLite says it better
        os.close(os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
    for path in (file, *(file.with_name(file.name + more) for more in ("-wal", "-shm"))):
        with suppress(OSError):
            path.chmod(0o600)


def _prepare_sqlite(connection: Any, _record: object) -> None:
    cursor = connection.cursor()
    # WAL: readers never wait for the writer, and a crash leaves whole transactions only.
    cursor.execute("PRAGMA journal_mode=WAL")
    cursor.execute("PRAGMA synchronous=NORMAL")
    cursor.execute("PRAGMA busy_timeout=3000")
    cursor.close()


def _reason(error: BaseException) -> str:
    """Return the driver's own words, without the statement and its parameters (secrets)."""
    origin = getattr(error, "orig", None) or error
    lines = str(origin).strip().splitlines()
    return lines[0] if lines else type(origin).__name__
