"""A client of the leaf server's control socket: one connection, requests by number."""

import asyncio
import itertools
from collections.abc import Callable, Coroutine
from contextlib import suppress
from pathlib import Path
from typing import Any

import structlog

from anabranch.media.leaf import LeafError, LeafUnavailableError
from anabranch.media.leaf_protocol import (
    MAX_LINE,
    Hello,
    LeafEvent,
    LeafProtocolError,
    Message,
    Reply,
    read_hello,
    read_line,
    write_request,
)

_TIMEOUT_S = 3.0
_LOOK_S = 5.0
"""Seconds between two questions whose answer shows that the server's threads are alive."""
_log = structlog.get_logger("anabranch.leaf")


class LeafClient:
    """One connection.

    Args:
        path: the server's socket.
        on_event: gets what the server says unasked. Must not block.
        on_lost: called once when the connection has ended by itself; its argument says whether the
            server hangs.
    """

    def __init__(
        self,
        path: Path,
        *,
        on_event: Callable[[LeafEvent], None],
        on_lost: Callable[[bool], None],
    ) -> None:
        self._path = path
        self._on_event = on_event
        self._on_lost = on_lost
        self._numbers = itertools.count(1)
        self._waiting: dict[int, asyncio.Future[Message]] = {}
        self._writer: asyncio.StreamWriter | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._complained = False
        self._closed = False

    async def connect(self) -> Hello:
        """Connect; return who is there.

        Raises:
            LeafUnavailableError: nobody listens (yet), or says hello.
            LeafProtocolError: it is no leaf server, or of another protocol.
        """
        try:
            async with asyncio.timeout(_TIMEOUT_S):
                reader, writer = await asyncio.open_unix_connection(self._path, limit=MAX_LINE)
        except (OSError, TimeoutError) as error:
            raise LeafUnavailableError(f"the leaf server does not answer: {error}") from error
        try:
            async with asyncio.timeout(_TIMEOUT_S):
                first = read_line(await reader.readline())
            if not isinstance(first, LeafEvent):
                raise LeafProtocolError("a reply in place of a greeting")
            hello = read_hello(first)
        except (OSError, TimeoutError, ValueError) as error:
            writer.close()
            raise LeafUnavailableError("the leaf server does not say hello") from error
        except BaseException:
            writer.close()
            raise
        self._writer = writer
        self._tasks = [
            asyncio.create_task(self._read(reader), name="leaf-read"),
            asyncio.create_task(self._look(), name="leaf-look"),
        ]
        return hello

    async def close(self) -> None:
        """Close the connection, as :meth:`cut` does, and wait until that is done."""
        self.cut()
        tasks, self._tasks = self._tasks, []
        await asyncio.gather(*tasks, return_exceptions=True)

    def cut(self) -> None:
        """Close the connection; nobody is told anything any more."""
        self._closed = True
        self._drop()

    def request(self, do: str, **members: Any) -> Coroutine[Any, Any, Message]:
        """Send one request; what is returned waits for its reply and returns what came of it.

        The request is on its way at once: so requests arrive in the order of these calls.

        Raises:
            RefusedError: the server refused it.
            LeafUnavailableError: the server is gone or did not answer in time.
        """
        if self._writer is None:
            raise LeafUnavailableError("the leaf server is not connected")
        number = next(self._numbers)
        self._writer.write(write_request(number, do, members))
        reply: asyncio.Future[Message] = asyncio.get_running_loop().create_future()
        self._waiting[number] = reply
        return self._reply(number, reply)

    async def _reply(self, number: int, reply: asyncio.Future[Message]) -> Message:
        try:
            async with asyncio.timeout(_TIMEOUT_S):
                return await reply
        except TimeoutError:
            raise LeafUnavailableError("the leaf server did not answer in time") from None
        finally:
            self._waiting.pop(number, None)

    async def _read(self, reader: asyncio.StreamReader) -> None:
        while True:
            try:
                line = await reader.readline()
            except (OSError, ValueError):  # gone, or a line without end
                line = b""
            if not line.endswith(b"\n"):
                break
            try:
                self._take(read_line(line))
            except LeafProtocolError as error:
                if not self._complained:
                    self._complained = True
                    # Not the line itself: an exported viewer's keys could be in it.
                    _log.error("leaf.nonsense", error=str(error), bytes=len(line))
        self._lost(hangs=False)

    def _take(self, message: Reply | LeafEvent) -> None:
        if isinstance(message, LeafEvent):
            # Not before who waits for an earlier reply has had its turn.
            asyncio.get_running_loop().call_soon(self._say, message)
            return
        future = self._waiting.get(message.id)
        if future is None or future.done():
            return  # too late
        if message.refusal is not None:
            future.set_exception(message.refusal)
        else:
            future.set_result(message.ok)

    def _say(self, event: LeafEvent) -> None:
        if not self._closed:
            self._on_event(event)

    async def _look(self) -> None:
        """Ask now and then for something that all threads have a part in."""
        while True:
            await asyncio.sleep(_LOOK_S)
            try:
                await self.request("statistics")
            except LeafUnavailableError:
                break
            except LeafError:
                continue  # a refusal is an answer
        self._lost(hangs=True)

    def _lost(self, *, hangs: bool) -> None:
        if self._writer is not None:
            self._drop()
            asyncio.get_running_loop().call_soon(self._on_lost, hangs)

    def _drop(self) -> None:
        writer, self._writer = self._writer, None
        if writer is not None:
            with suppress(OSError):
                writer.close()
        for task in self._tasks:
            if task is not asyncio.current_task():
                task.cancel()
        for future in self._waiting.values():
            if not future.done():
                future.set_exception(LeafUnavailableError("the leaf server is gone"))
