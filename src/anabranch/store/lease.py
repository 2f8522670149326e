"""A lease in PostgreSQL: which of several machines' controllers is at work, counted.

The lease is an advisory lock of one session. The holder says something every half second and
believes in its lease for three seconds after the last word that was answered, counted from when
it was sent. The server ends a session that says nothing for four seconds. So whoever is cut off
has stepped down before another can have the lease, and no two clocks are compared.
"""

import asyncio
import time
from contextlib import suppress
from functools import partial
from typing import Any, LiteralString

import psycopg
import structlog
from psycopg.conninfo import conninfo_to_dict

from anabranch.core.errors import UsageError
from anabranch.store.database import StoreError

POLL_S = 0.1  # between two looks at a lease that somebody else holds
BEAT_S = 0.5
TERM_S = 3.0
"""How long a holder that hears nothing from the database still holds, at most."""
SILENCE_S = 4.0
"""How long the server waits for a word of the holder's before another may have the lease."""
_AGAIN_S = 0.5
_OLDEST = 140000  # idle_session_timeout came with PostgreSQL 14
_TRY: LiteralString = "SELECT pg_try_advisory_lock(hashtextextended('anabranch/' || %s, 0))"
_TABLE: LiteralString = """CREATE TABLE IF NOT EXISTS controller_leases
    (name text PRIMARY KEY, generation bigint NOT NULL)"""
_COUNT: LiteralString = """INSERT INTO controller_leases AS lease VALUES (%s, 1)
    ON CONFLICT (name) DO UPDATE SET generation = lease.generation + 1 RETURNING generation"""
_USABLE: LiteralString = """SELECT CASE WHEN to_regclass('controller_leases') IS NULL
    THEN has_schema_privilege(current_schema(), 'CREATE')
    ELSE has_table_privilege('controller_leases', 'INSERT')
    AND has_table_privilege('controller_leases', 'SELECT')
    AND has_table_privilege('controller_leases', 'UPDATE') END"""
_FAULTS = (psycopg.Error, OSError, TimeoutError)
# Counts also while the machine sleeps, when the database goes on counting.
_now = partial(time.clock_gettime, time.CLOCK_BOOTTIME)
_log = structlog.get_logger("anabranch.lease")


class DatabaseLease:
    """The right to be master; see the module. A :class:`~anabranch.fabric.lease.Lease`.

    A pooler between must give each client a session of its own.

    Args:
        url: of libpq's form, ``postgresql://USER:PASSWORD@HOST/NAME``.
        name: of the network whose controllers share the lease.

    Raises:
        UsageError: the URL is none; it is not repeated, as there may be a password in it.
    """

    def __init__(self, url: str, name: str) -> None:
        try:
            self._password = str(conninfo_to_dict(url).get("password") or "")
        except psycopg.Error:
            raise UsageError(
                "a lease is a file or postgresql://USER:PASSWORD@HOST/NAME,"
                " with %XX for what is special in the password"
            ) from None
        self._url = url
        self._name = name
        self._connection: psycopg.AsyncConnection[Any] | None = None
        self._until = 0.0

    @property
    def held(self) -> bool:
        return self._connection is not None and _now() < self._until

    async def check(self) -> None:
        """See that the lease can be had, by whoever holds it now.

        Raises:
            StoreError: the database cannot be reached or may not be written, or is too old.
        """
        try:
            connection = await self._connect()
            try:
                (usable,) = await self._ask(connection, _USABLE)
            finally:
                connection.pgconn.finish()
        except _FAULTS as error:
            raise StoreError(f"cannot use the lease: {self._reason(error)}") from None
        if not usable:
            raise StoreError("cannot use the lease: the table controller_leases may not be written")

    async def acquire(self) -> int:
        """Wait until nobody else holds the lease; return the new generation, on disk already.

        A database that is away is waited for, too.
        """
        said = None
        while True:
            try:
                connection = await self._connect()
                try:
                    return await self._win(connection)
                finally:
                    if self._connection is not connection:
                        connection.pgconn.finish()
            except _FAULTS as error:
                if said != (reason := self._reason(error)):  # told once, tried again and again
                    said = reason
                    _log.warning("lease.unreachable", reason=reason)
            await asyncio.sleep(_AGAIN_S)

    async def keep(self) -> str:
        """Keep the lease as long as that is possible; return why it was lost."""
        connection = self._connection
        assert connection is not None
        try:
            while True:
                await asyncio.sleep(BEAT_S)
                sent = _now()
                await self._ask(connection, "SELECT 1", until=self._until)
                self._until = sent + TERM_S
        except _FAULTS as error:
            return self._reason(error)
        finally:
            self.release()

    def release(self) -> None:
        """Let the next one have it. Safe to call twice."""
        if self._connection is not None:
            self._connection.pgconn.finish()
            self._connection = None

    async def _connect(self) -> psycopg.AsyncConnection[Any]:
        try:
            async with asyncio.timeout(TERM_S):
                connection = await psycopg.AsyncConnection.connect(
                    self._url, autocommit=True, application_name=f"anabranch lease {self._name}"
                )
        except TimeoutError:
            raise TimeoutError("the database does not answer") from None
        try:
            if connection.info.server_version < _OLDEST:
                raise psycopg.NotSupportedError("PostgreSQL 14 or later is needed")
            await self._ask(
                connection,
                "SELECT set_config('idle_session_timeout', %s, false),"
                " set_config('synchronous_commit', 'on', false)",
                str(round(SILENCE_S * 1000)),
            )
        except BaseException:
            connection.pgconn.finish()
            raise
        return connection

    async def _win(self, connection: psycopg.AsyncConnection[Any]) -> int:
        """Wait for the lock, then count."""
        while True:
            sent = _now()
            if (await self._ask(connection, _TRY, self._name))[0]:
                break
            await asyncio.sleep(POLL_S)
        if (await self._ask(connection, "SELECT to_regclass('controller_leases')"))[0] is None:
            await self._ask(connection, _TABLE)
        (generation,) = await self._ask(connection, _COUNT, self._name, until=sent + TERM_S)
        self._connection, self._until = connection, sent + TERM_S
        return int(generation)

    async def _ask(
        self,
        connection: psycopg.AsyncConnection[Any],
        statement: LiteralString,
        *parameters: str,
        until: float | None = None,
    ) -> tuple[Any, ...]:
        """Return the first row of the answer.

        Raises:
            TimeoutError: there is none in time; the connection is closed.
        """
        left = TERM_S if until is None else max(until - _now(), 0.0)
        task = asyncio.ensure_future(_first_row(connection, statement, parameters))
        try:
            # Not cancelled in time-out: psycopg would ask the silent server to cancel, for seconds.
            done, _ = await asyncio.wait((task,), timeout=left)
            if not done:
                raise TimeoutError("the database does not answer")
        finally:
            if not task.done():
                connection.pgconn.finish()
                task.cancel()
                with suppress(asyncio.CancelledError, *_FAULTS):
                    await task
        return task.result()

    def _reason(self, error: BaseException) -> str:
        """Return the driver's own words; never the password."""
        lines = str(error).strip().splitlines()
        reason = lines[0] if lines else type(error).__name__
        return reason if not self._password else reason.replace(self._password, "***")


async def _first_row(
    connection: psycopg.AsyncConnection[Any], statement: LiteralString, parameters: tuple[str, ...]
) -> tuple[Any, ...]:
    cursor = await connection.execute(statement, parameters or None)
    return (await cursor.fetchone() or ()) if cursor.description else ()
