"""The server of :mod:`.http`: requests in, a TCP connection to the root's listener out."""

import asyncio
import re
from contextlib import suppress
from functools import partial

from anabranch.core.errors import NotFoundError, TooManyError, UnavailableError
from anabranch.tree.soleil.messages import Endpoint
from anabranch.tree.transport.segments import (
    MAX_SEGMENT,
    MAX_UNACKNOWLEDGED,
    MAX_WAIT_S,
    Segment,
    SegmentError,
    Stream,
)

_NAME = re.compile(r"[0-9a-f]{32}")
_FORGET_S = 30.0


class Tunnels:
    """All tunnels of a site.

    The listener ends whoever is silent or no node, so a tunnel lasts as long as its connection, and
    a little longer for the client to learn of the end.

    Args:
        at: where they lead: the root's listener.
        most: tunnels at once.
    """

    def __init__(self, at: Endpoint, *, most: int = 1000) -> None:
        self._at = at
        self._most = most
        self._sessions: dict[str, asyncio.Task[_Session]] = {}

    async def exchange(self, name: str, segment: Segment, wait: float) -> Segment:
        """Take a segment of the stream ``name`` and return one; ``wait`` in seconds.

        Raises:
            SegmentError: it does not fit.
            NotFoundError: there is no such stream, and this is not its beginning.
            TooManyError: there are as many as there may be.
            UnavailableError: the listener is away.
        """
        if not _NAME.fullmatch(name):
            raise SegmentError("a stream is named by 32 hexadecimal digits")
        opening = self._sessions.get(name)
        if opening is None:
            if segment.sequence or not segment.data:
                raise NotFoundError("there is no such stream")
            if len(self._sessions) >= self._most:
                raise TooManyError(f"{self._most} tunnels are open")
            opening = asyncio.create_task(self._open(name), name="open an HTTP tunnel")
            self._sessions[name] = opening
        session = await asyncio.shield(opening)
        answer = await session.exchange(segment, wait)
        if session.ended:
            self._sessions.pop(name, None)
            await session.close()
        return answer

    async def close(self) -> None:
        """End all of them."""
        openings, self._sessions = list(self._sessions.values()), {}
        for opening in openings:
            with suppress(UnavailableError):
                await (await opening).close()

    async def _open(self, name: str) -> "_Session":
        try:
            session = _Session(*await asyncio.open_connection(self._at.host, self._at.port))
        except OSError as error:
            del self._sessions[name]
            raise UnavailableError(f"the root takes nobody in: {error}") from error
        forget = partial(self._sessions.pop, name, None)
        loop = asyncio.get_running_loop()
        session.reading.add_done_callback(lambda _: loop.call_later(_FORGET_S, forget))
        return session


class _Session:
    """One tunnel at the server: the connection to the listener that it leads to."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._stream = Stream()
        self._loop = asyncio.get_running_loop()
        self._waiting: asyncio.Future[None] | None = None
        self._acknowledged = asyncio.Event()
        self.reading = asyncio.create_task(self._read(), name="read for an HTTP tunnel")

    async def exchange(self, segment: Segment, wait: float) -> Segment:
        """Take a segment; return what there is, or after ``wait`` seconds that there is nothing.

        Raises:
            SegmentError: it does not fit.
        """
        new = self._stream.receive(segment)
        self._acknowledged.set()
        if new:
            self._writer.write(new)
            with suppress(ConnectionError):
                await self._writer.drain()
        if self._stream.peer_ended:
            self._writer.close()
            self._wake()
        if wait <= 0 or segment.data or segment.end:
            return self._stream.acknowledgment()
        self._wake()  # whoever polls anew has given up the last poll
        if not self._stream.has_news:
            await self._news(wait)
        return self._stream.segment()

    @property
    def ended(self) -> bool:
        """Whether the client has said that it is done."""
        return self._stream.peer_ended

    async def close(self) -> None:
        """End it."""
        self._wake()
        self.reading.cancel()
        await asyncio.gather(self.reading, return_exceptions=True)
        self._writer.close()
        with suppress(ConnectionError):
            await self._writer.wait_closed()

    async def _news(self, wait: float) -> None:
        waiting = self._waiting = self._loop.create_future()
        with suppress(TimeoutError):
            async with asyncio.timeout(min(wait, MAX_WAIT_S)):
                await waiting

    def _wake(self) -> None:
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_result(None)

    async def _read(self) -> None:
        with suppress(ConnectionError, TimeoutError):
            while data := await self._reader.read(MAX_SEGMENT):
                self._stream.write(data)
                self._wake()
                async with asyncio.timeout(_FORGET_S):
                    while self._stream.unacknowledged > MAX_UNACKNOWLEDGED:
                        self._acknowledged.clear()
                        await self._acknowledged.wait()
        self._writer.close()
        self._stream.end()
        self._wake()
