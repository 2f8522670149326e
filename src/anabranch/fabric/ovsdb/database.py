"""A client of one database server under asyncio: transactions, and monitors that survive it."""

import asyncio
import itertools
import ssl
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, cast

import structlog

from anabranch.core.tasks import end_task
from anabranch.fabric.errors import DisconnectedError, FabricError, MisuseError, ProtocolError
from anabranch.fabric.ovsdb.session import (
    Lost,
    Reply,
    RowUpdate,
    Session,
    SessionEvent,
    Update,
    results,
    row_updates,
)
from anabranch.fabric.ovsdb.values import Row

_FIRST_DELAY, _MAX_DELAY = 0.02, 2.0
_log = structlog.get_logger("anabranch.fabric")

OnChange = Callable[[str, str, Row | None, Row | None], None]


class Database:
    """A connection to one database that is made again whenever it breaks.

    Args:
        address: path of a Unix socket, or host and port.
        tls: for a TCP address.
        name: the database on that server.
        timeout: seconds within which the server answers a request.
    """

    def __init__(
        self,
        address: Path | tuple[str, int],
        *,
        tls: ssl.SSLContext | None = None,
        name: str = "Open_vSwitch",
        timeout: float = 5.0,
    ) -> None:
        self.name = name
        self._address = address
        self._tls = tls
        self._timeout = timeout
        self._monitors: dict[str, _Monitor] = {}
        self._numbers = itertools.count(1)
        self._link: _Link | None = None
        self._task: asyncio.Task[None] | None = None
        self._connected = asyncio.Event()

    @property
    def connected(self) -> bool:
        return self._link is not None

    async def open(self) -> None:
        """Connect; from now on the connection is kept until ``close``.

        Raises:
            DisconnectedError: the server did not answer in time.
        """
        if self._task is None:
            self._task = asyncio.create_task(self._keep(), name=f"ovsdb:{self._address}")
        try:
            await self._present_link()
        except DisconnectedError:
            await self.close()
            raise

    async def close(self) -> None:
        """End the connection. Monitors report nothing more. Safe to call twice."""
        task, self._task = self._task, None
        if task is not None:
            await end_task(task)

    async def transact(self, *operations: Mapping[str, Any]) -> list[dict[str, Any]]:
        """Execute all operations (RFC 7047, section 5.2) or none; return the result of each.

        Raises:
            MisuseError: the database refused them.
            DisconnectedError: no connection within the time-out, or it ended before the answer.
            ProtocolError: the answer makes no sense.
        """
        raw = await self._call("transact", [self.name, *operations])
        return results(raw, len(operations))

    async def monitor(
        self, table: str, columns: Sequence[str], on_change: OnChange
    ) -> Callable[[], None]:
        """Have ``on_change(table, uuid, old, new)`` called for each row and each later change.

        ``old`` and ``new`` are whole rows of these columns, None before a row exists and after it.
        After a reconnection only what changed meanwhile is reported. The callback must not block.

        Returns a function that ends the monitoring.

        Raises:
            MisuseError: the database has no such table or column.
            DisconnectedError: no connection within the time-out.
        """
        monitor = _Monitor(str(next(self._numbers)), table, tuple(columns), on_change)
        self._monitors[monitor.name] = monitor

        def end() -> None:
            if self._monitors.pop(monitor.name, None) is not None and self._link is not None:
                self._link.call("monitor_cancel", [monitor.name])

        try:
            await self._call("monitor", monitor.request(self.name), monitor.begin)
        except FabricError:
            self._monitors.pop(monitor.name, None)
            raise
        return end

    # inside

    @property
    def _where(self) -> str:
        if isinstance(self._address, Path):
            return str(self._address)
        return f"{self._address[0]}:{self._address[1]}"

    async def _call(
        self, method: str, params: list[Any], at_once: Callable[[Any], None] | None = None
    ) -> Any:
        link = await self._present_link()
        answer = link.call(method, params, at_once)
        try:
            async with asyncio.timeout(self._timeout):
                return await answer
        except TimeoutError:
            reason = DisconnectedError(f"the database at {self._where} did not answer {method}")
            link.end(reason)
            raise reason from None

    async def _present_link(self) -> "_Link":
        """Return the connection; one that broke may come back within the time-out."""
        if self._task is None:
            raise DisconnectedError(f"the connection to {self._where} is closed")
        with suppress(TimeoutError):
            async with asyncio.timeout(self._timeout):
                while self._link is None:
                    await self._connected.wait()
                return self._link
        raise DisconnectedError(f"no database answers at {self._where}")

    async def _keep(self) -> None:
        delay = _FIRST_DELAY
        while True:
            link = await self._connect()
            if link is None:
                await asyncio.sleep(delay)
                delay = min(2 * delay, _MAX_DELAY)
                continue
            try:
                # Before anybody else's requests, so that nobody sees a monitor of yesterday.
                for monitor in list(self._monitors.values()):
                    link.call("monitor", monitor.request(self.name), monitor.begin)
                if not link.ended.done():
                    self._link = link
                    self._connected.set()
                reason = await asyncio.shield(link.ended)
                _log.info("ovsdb.lost", at=self._where, reason=str(reason))
                if link.heard:
                    delay = _FIRST_DELAY
            finally:
                link.end(DisconnectedError("closed"))
            await asyncio.sleep(delay)
            delay = min(2 * delay, _MAX_DELAY)

    async def _connect(self) -> "_Link | None":
        loop = asyncio.get_running_loop()
        link = _Link(self._update, self._ended)
        with suppress(OSError, TimeoutError):
            async with asyncio.timeout(self._timeout):
                if isinstance(self._address, Path):
                    await loop.create_unix_connection(lambda: link, str(self._address))
                else:
                    host, port = self._address
                    await loop.create_connection(lambda: link, host, port, ssl=self._tls)
            return link
        return None

    def _ended(self) -> None:
        self._link = None
        self._connected.clear()

    def _update(self, update: Update) -> None:
        monitor = self._monitors.get(update.monitor)
        if monitor is not None:  # else it was ended while this was under way
            monitor.update(update.rows)


class _Monitor:
    """One table's rows as they are known here."""

    def __init__(
        self, name: str, table: str, columns: tuple[str, ...], on_change: OnChange
    ) -> None:
        self.name = name
        self._table = table
        self._columns = columns
        self._on_change = on_change
        self._rows: dict[str, Row] = {}

    def request(self, database: str) -> list[Any]:
        return [database, self.name, {self._table: {"columns": list(self._columns)}}]

    def begin(self, raw: Any) -> None:
        """Take the whole table as it is now; report what differs from what was known."""
        updates = row_updates(raw)
        there = {update.uuid for update in updates}
        gone = [RowUpdate(self._table, uuid, {}, None) for uuid in self._rows if uuid not in there]
        self.update((*gone, *updates))

    def update(self, updates: Sequence[RowUpdate]) -> None:
        for change in updates:
            old = self._rows.get(change.uuid)
            if change.new is None:
                self._rows.pop(change.uuid, None)
            else:
                self._rows[change.uuid] = change.new
            if old != change.new:
                self._on_change(change.table, change.uuid, old, change.new)


class _Link(asyncio.Protocol):
    """The adapter of one :class:`Session`."""

    def __init__(self, on_update: Callable[[Update], None], on_end: Callable[[], None]) -> None:
        self._loop = asyncio.get_running_loop()
        self._session = Session(self._loop.time())
        self._on_update = on_update
        self._on_end = on_end
        self._transport: asyncio.Transport | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._asked: dict[int, tuple[asyncio.Future[Any], Callable[[Any], None] | None]] = {}
        self.heard = False
        self.ended: asyncio.Future[FabricError] = self._loop.create_future()

    def call(
        self, method: str, params: list[Any], at_once: Callable[[Any], None] | None = None
    ) -> asyncio.Future[Any]:
        """Send a request; ``at_once`` gets the result before any later message is looked at."""
        answer: asyncio.Future[Any] = self._loop.create_future()
        if self.ended.done():
            raise DisconnectedError(str(self.ended.result()))
        self._asked[self._session.request(method, params)] = answer, at_once
        # Nobody may be waiting: that is no reason for a complaint about a result unread.
        answer.add_done_callback(lambda done: done.cancelled() or done.exception())
        self._flush()
        return answer

    def end(self, reason: FabricError) -> None:
        """Close; every request under way fails with ``reason``. Safe to call twice."""
        if self.ended.done():
            return
        self.ended.set_result(reason)
        self._on_end()
        if self._timer is not None:
            self._timer.cancel()
        if self._transport is not None:
            self._transport.abort()
        for answer, _ in self._asked.values():
            if not answer.done():
                answer.set_exception(DisconnectedError(str(reason)))
        self._asked.clear()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._flush()

    def connection_lost(self, exc: Exception | None) -> None:
        self.end(DisconnectedError(f"the database closed the connection {exc or ''}".strip()))

    def data_received(self, data: bytes) -> None:
        try:
            events = self._session.receive(data, self._loop.time())
            self.heard = True
            for event in events:
                self._handle(event)
        except ProtocolError as error:
            _log.warning("ovsdb.protocol_error", reason=str(error))
            self.end(error)
            return
        self._flush()

    def _handle(self, event: SessionEvent) -> None:
        match event:
            case Update():
                self._on_update(event)
            case Lost(reason=reason):
                self.end(DisconnectedError(reason))
            case Reply(id=id_, result=result, error=error):
                answer, at_once = self._asked.pop(id_, (None, None))
                if answer is None or answer.done():
                    return
                if error is not None:
                    answer.set_exception(MisuseError(f"the database refused: {str(error)[:300]}"))
                    return
                if at_once is not None:
                    at_once(result)
                answer.set_result(result)

    def _flush(self) -> None:
        if self._transport is None or self.ended.done():
            return
        if data := self._session.data_to_send():
            self._transport.write(data)
        if self._timer is not None:
            self._timer.cancel()
        due = self._session.next_timer()
        self._timer = None if due is None else self._loop.call_at(due, self._on_timer)

    def _on_timer(self) -> None:
        for event in self._session.handle_timer(self._loop.time()):
            self._handle(event)
        self._flush()
