"""TCP and TLS connections of GIST's connection mode, in the event loop."""

import asyncio
import ssl
from collections.abc import Callable
from contextlib import suppress
from ipaddress import ip_address

import structlog

from anabranch.services.signalling.gist.events import Close, Connect, Segment
from anabranch.services.signalling.gist.node import Gist
from anabranch.services.signalling.gist.objects import GistError

_CONNECT_TIMEOUT = 5.0  # seconds; then the message goes as a datagram
_MAX_UNSENT = 1024 * 1024  # bytes that a peer may leave unread
_log = structlog.get_logger("anabranch.services")


class Streams:
    """All connections of one node or sender."""

    def __init__(
        self,
        gist: Gist,
        clock: Callable[[], float],
        changed: Callable[[], None],
        *,
        server_tls: ssl.SSLContext | None = None,
        client_tls: ssl.SSLContext | None = None,
    ) -> None:
        """Serve ``gist``; ``changed`` is called whenever it was given something."""
        self._gist = gist
        self._clock = clock
        self._changed = changed
        self._server_tls = server_tls
        self._client_tls = client_tls
        self._servers: list[asyncio.Server] = []
        self._open: dict[int, _Connection] = {}
        self._dialling: set[asyncio.Task[None]] = set()

    async def listen(self, port: int, host: str | None = None) -> int:
        """Take connections, on every address unless at ``host``, and return the port.

        Raises:
            OSError: the port is taken.
        """
        loop = asyncio.get_running_loop()
        server = await loop.create_server(
            lambda: _Connection(self), host, port, ssl=self._server_tls, reuse_address=True
        )
        self._servers.append(server)
        return int(server.sockets[0].getsockname()[1])

    def perform(self, output: Connect | Segment | Close) -> None:
        """Do what GIST asks for."""
        match output:
            case Connect():
                task = asyncio.create_task(self._dial(output), name=f"gist to {output.address}")
                self._dialling.add(task)
                task.add_done_callback(self._dialling.discard)
            case Segment(number, data):
                if number in self._open:
                    self._open[number].write(data)
            case Close(number):
                if number in self._open:
                    self._open.pop(number).close()

    async def _dial(self, wanted: Connect) -> None:
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(_CONNECT_TIMEOUT):
                _, connection = await loop.create_connection(
                    lambda: _Connection(self, wanted.association),
                    str(wanted.address),
                    wanted.port,
                    ssl=self._client_tls if wanted.tls else None,
                )
        except (OSError, TimeoutError) as error:
            _log.info("no connection to a node", address=str(wanted.address), error=str(error))
            self._gist.associations.closed(wanted.association)
        else:
            self._open[wanted.association] = connection
            self._gist.associations.opened(wanted.association, self._clock())
        self._changed()

    def accepted(self, connection: "_Connection") -> int | None:
        """Take in a connection; None: there are too many."""
        number = self._gist.associations.accept(self._clock())
        if number is not None:
            self._open[number] = connection
        return number

    def received(self, connection: "_Connection", data: bytes) -> None:
        """Hand bytes to GIST."""
        assert connection.number is not None
        with suppress(GistError):  # it asks to close the connection itself
            self._gist.receive_segment(connection.number, connection.address, data, self._clock())
        self._changed()

    def lost(self, number: int) -> None:
        """A connection has ended."""
        if self._open.pop(number, None) is not None:
            self._gist.associations.closed(number)
            self._changed()

    async def close(self) -> None:
        """End all of it."""
        for server in self._servers:
            server.close()
        for task in self._dialling:
            task.cancel()
        await asyncio.gather(*self._dialling, return_exceptions=True)
        for connection in list(self._open.values()):
            connection.close()
        self._open.clear()


class _Connection(asyncio.Protocol):
    def __init__(self, streams: Streams, number: int | None = None) -> None:
        self._streams = streams
        self._transport: asyncio.WriteTransport | None = None
        self.number = number
        self.address = ip_address("0.0.0.0")

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.WriteTransport)
        self._transport = transport
        self.address = ip_address(transport.get_extra_info("peername")[0].partition("%")[0])
        if self.number is None:
            self.number = self._streams.accepted(self)
            if self.number is None:
                transport.abort()

    def data_received(self, data: bytes) -> None:
        self._streams.received(self, data)

    def connection_lost(self, _error: Exception | None) -> None:
        if self.number is not None:
            self._streams.lost(self.number)

    def write(self, data: bytes) -> None:
        assert self._transport is not None
        if self._transport.get_write_buffer_size() > _MAX_UNSENT:
            self._transport.abort()
        else:
            self._transport.write(data)

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()
