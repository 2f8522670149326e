"""Reaching the root by HTTP alone: the TLS connection that TCP would carry, in the bodies of POSTs.

The proxies on the way see octets of TLS 1.3, so who is who does not depend on them, nor on the
certificate of the site's pages.
"""

import asyncio
import secrets
import socket
import ssl
from collections.abc import Callable
from contextlib import suppress
from functools import partial

import httpx
import structlog

from anabranch.core.errors import UnavailableError
from anabranch.tree.events import Target
from anabranch.tree.peering import Identity
from anabranch.tree.transport.channel import Channel
from anabranch.tree.transport.dialler import reason_of
from anabranch.tree.transport.segments import (
    MAX_SEGMENT,
    MAX_WAIT_S,
    SESSION,
    WAIT,
    Segment,
    SegmentError,
    Stream,
    segment_of,
)

_ANSWER_S = 10.0
_HANDSHAKE_S = 10.0
_RETRY_S = 0.1
_PATIENCE_S = 8.0

_log = structlog.get_logger("anabranch.tree")


class _BrokenError(Exception):
    """The tunnel cannot be used any more."""


class Portal:
    """A way to the root, at an address like ``https://root.example/soleil``.

    Args:
        verify: for the outer TLS of ``https``; False is safe, for the inner one is verified.
        proxy: a proxy's URL; None: as the environment says (``HTTPS_PROXY`` and the like).
    """

    def __init__(
        self, url: str, *, verify: ssl.SSLContext | bool = True, proxy: str | None = None
    ) -> None:
        self._url = url
        self._client = partial(
            httpx.AsyncClient,
            verify=verify,
            proxy=proxy,
            timeout=httpx.Timeout(MAX_WAIT_S + _ANSWER_S, connect=_ANSWER_S),
        )
        self._tunnels: set[asyncio.Task[None]] = set()

    async def connect(
        self,
        target: Target,
        channel: Callable[[Identity | None], Channel],
        context: ssl.SSLContext | None,
    ) -> None:
        """See :class:`~anabranch.tree.transport.dialler.Way`."""
        if target.name is not None or context is None:
            raise UnavailableError(f"{self._url}: it leads to the root only")
        near, far = socket.socketpair()
        near.setblocking(False)
        far.setblocking(False)
        reader, writer = await asyncio.open_connection(sock=far)
        tunnel = asyncio.create_task(self._carry(reader, writer), name="HTTP tunnel")
        self._tunnels.add(tunnel)
        tunnel.add_done_callback(self._tunnels.discard)
        try:
            await asyncio.get_running_loop().create_connection(
                partial(channel, None),
                sock=near,
                ssl=context,
                server_hostname="",
                ssl_handshake_timeout=_HANDSHAKE_S,
                ssl_shutdown_timeout=1.0,
            )
        except BaseException as error:
            near.close()
            tunnel.cancel()
            await asyncio.wait([tunnel])
            writer.close()  # a task that has not begun has not done so
            if isinstance(error, OSError):
                raise UnavailableError(f"{self._url}: {reason_of(error)}") from error
            raise

    async def close(self) -> None:
        """End what is left; the nodes' connections are ended by their owner, before."""
        tunnels = list(self._tunnels)
        for tunnel in tunnels:
            tunnel.cancel()
        await asyncio.gather(*tunnels, return_exceptions=True)

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Carry octets between a socket and the server, until one of them ends."""
        try:
            async with self._client() as client:
                await _Tunnel(client, self._url, reader, writer).run()
        except _BrokenError as error:
            _log.info("HTTP tunnel broken", reason=str(error))
        finally:
            writer.close()


class _Tunnel:
    """One connection: an upload of what is written, and a poll for what comes."""

    def __init__(
        self,
        client: httpx.AsyncClient,
        url: str,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> None:
        self._client = client
        self._url = url
        self._reader = reader
        self._writer = writer
        self._stream = Stream()
        self._session = secrets.token_hex(16)
        self._open = asyncio.Event()

    async def run(self) -> None:
        """Carry octets until either side ends. Raises _BrokenError."""
        sides = {asyncio.create_task(self._upload()), asyncio.create_task(self._poll())}
        try:
            done, _ = await asyncio.wait(sides, return_when=asyncio.FIRST_COMPLETED)
            for side in done:
                side.result()
        finally:
            for side in sides:
                side.cancel()
            await asyncio.gather(*sides, return_exceptions=True)

    async def _upload(self) -> None:
        while data := await self._read():
            self._stream.write(data)
            while self._stream.unacknowledged:
                await self._exchange(self._stream.segment(), 0.0)
            self._open.set()
        if self._open.is_set():
            await self._end()

    async def _read(self) -> bytes:
        with suppress(ConnectionError):
            return await self._reader.read(MAX_SEGMENT)
        return b""

    async def _poll(self) -> None:
        await self._open.wait()
        while not self._stream.peer_ended:
            await self._exchange(self._stream.acknowledgment(), MAX_WAIT_S)
            with suppress(ConnectionError):  # the upload meets the end, too
                await self._writer.drain()
        await self._end()

    async def _end(self) -> None:
        self._stream.end()
        await self._exchange(self._stream.segment(), 0.0)

    async def _exchange(self, segment: Segment, wait: float) -> None:
        """Send a segment until it is answered, and take the answer."""
        headers = {**segment.headers(), SESSION: self._session, WAIT: f"{wait:g}"}
        loop = asyncio.get_running_loop()
        give_up: float | None = None
        while True:
            try:
                answer = await self._client.post(self._url, content=segment.data, headers=headers)
            except httpx.HTTPError as error:
                fault = f"{type(error).__name__}: {error}"
            else:
                if answer.status_code == httpx.codes.OK:
                    self._take(answer)
                    return
                fault = f"HTTP status {answer.status_code}"
                if answer.is_client_error:  # the server does not know the session, or not any more
                    raise _BrokenError(fault)
            give_up = give_up or loop.time() + _PATIENCE_S
            if not self._open.is_set() or loop.time() >= give_up:
                raise _BrokenError(fault)
            await asyncio.sleep(_RETRY_S)

    def _take(self, answer: httpx.Response) -> None:
        try:
            new = self._stream.receive(segment_of(answer.headers, answer.content))
        except SegmentError as error:
            raise _BrokenError(str(error)) from error
        if new:
            self._writer.write(new)
