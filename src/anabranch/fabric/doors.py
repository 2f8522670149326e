"""How switches come in: sockets that are listened at, and sockets that are dialled."""

import asyncio
import os
import ssl
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import structlog

from anabranch.fabric.errors import DisconnectedError, FabricError, MisuseError
from anabranch.fabric.openflow.connection import Connection
from anabranch.fabric.openflow.session import SessionEvent

MAX_CONNECTIONS = 4096
TLS_HANDSHAKE = 5.0  # seconds
_REDIAL = 0.1  # seconds between two calls of a switch that is away: a Unix socket costs nothing
_log = structlog.get_logger("anabranch.fabric")


def server_context(certificate: Path, key: Path, authority: Path) -> ssl.SSLContext:
    """Return TLS for :meth:`Doors.listen_tcp`: only what ``authority`` signed may come in.

    Args:
        certificate, key: the controller's own, PEM.
        authority: certificates of those who may sign a switch's, PEM.

    Raises:
        FabricError: a file cannot be used.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.verify_mode = ssl.CERT_REQUIRED
    try:
        context.load_cert_chain(certificate, key)
        context.load_verify_locations(authority)
    except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
        raise FabricError(f"cannot use the certificates for switches: {error}") from error
    return context


class _Incoming(Connection):
    """A connection that counts only once it is there: behind TLS that may never be."""

    made: Callable[["_Incoming"], None]

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.made(self)
        super().connection_made(transport)


@dataclass(frozen=True, slots=True)
class _Socket:
    """A Unix socket that is listened at."""

    server: asyncio.Server
    path: str
    inode: int

    def close(self) -> None:
        self.server.close()
        with suppress(OSError):
            if os.stat(self.path).st_ino == self.inode:
                os.unlink(self.path)


class Doors:
    """Makes the connections of a controller and ends them.

    Args:
        on_event, on_closed, timeout: as of :class:`Connection`.

    Attributes:
        connections: all that are open.
        tls_refused: how many did not get through the TLS handshake.
    """

    def __init__(
        self,
        on_event: Callable[[Connection, SessionEvent], None],
        on_closed: Callable[[Connection, FabricError], None],
        timeout: float,
    ) -> None:
        self._on_event = on_event
        self._on_closed = on_closed
        self._timeout = timeout
        self._servers: list[asyncio.Server] = []
        self._sockets: dict[str, _Socket] = {}
        self._dialling: dict[str, asyncio.Task[None]] = {}
        self._checks: set[asyncio.TimerHandle] = set()
        self.connections: set[Connection] = set()
        self.tls_refused = 0

    async def listen_unix(self, path: Path | str, name: str) -> None:
        """Wait for the switch ``name`` at a Unix socket; a stale socket file is replaced.

        Raises:
            FabricError: the path cannot be listened at.
        """
        loop = asyncio.get_running_loop()
        try:
            server = await loop.create_unix_server(lambda: self._accept(name), str(path))
            os.chmod(path, 0o600)
            self._sockets[name] = _Socket(server, str(path), os.stat(path).st_ino)
        except OSError as error:
            raise FabricError(f"cannot listen at {path}: {error.strerror or error}") from error

    async def listen_tcp(self, host: str, port: int, tls: ssl.SSLContext | None) -> int:
        """Wait for switches at a TCP port (0: any) and return its number.

        Raises:
            MisuseError: ``tls`` asks for no certificate: anybody could be any switch.
            FabricError: the address cannot be listened at.
        """
        if tls is not None and tls.verify_mode is not ssl.CERT_REQUIRED:
            raise MisuseError("TLS for switches must require their certificates")
        loop = asyncio.get_running_loop()
        try:
            server = await loop.create_server(
                lambda: self._accept(None, tls=tls is not None),
                host,
                port,
                ssl=tls,
                ssl_handshake_timeout=TLS_HANDSHAKE if tls is not None else None,
                backlog=1024,
            )
        except OSError as error:
            raise FabricError(f"cannot listen at {host}:{port}: {error}") from error
        self._servers.append(server)
        return int(server.sockets[0].getsockname()[1])

    def connect_unix(self, path: Path | str, name: str) -> None:
        """Call the switch ``name`` at its own socket, again and again, until closed."""
        task = asyncio.create_task(self._dial(str(path), name), name=f"dial:{name}")
        self._dialling[name] = task

    async def forget(self, name: str) -> None:
        """Neither wait for the switch ``name`` at a Unix socket nor call it; end its connections.

        One that comes in over TCP may come again.
        """
        if name in self._sockets:
            self._sockets.pop(name).close()
        calls = [self._dialling.pop(name)] if name in self._dialling else []
        mine = [connection for connection in self.connections if connection.name == name]
        await self._end(calls, mine, DisconnectedError("it is not expected any more"))

    async def close(self) -> None:
        """Stop listening and calling, and end all connections."""
        for server in self._servers:
            server.close()
        self._servers.clear()
        for listening in self._sockets.values():
            listening.close()
        self._sockets.clear()
        for check in self._checks:
            check.cancel()
        calls = list(self._dialling.values())
        self._dialling.clear()
        await self._end(calls, list(self.connections), DisconnectedError("the controller closes"))

    async def _end(
        self,
        calls: list[asyncio.Task[None]],
        connections: list[Connection],
        reason: FabricError,
    ) -> None:
        for call in calls:
            call.cancel()
        await asyncio.gather(*calls, return_exceptions=True)
        for connection in connections:
            connection.close(reason)
        await asyncio.gather(*(connection.closed for connection in connections))

    def _accept(self, name: str | None, *, tls: bool = False) -> asyncio.Protocol:
        if len(self.connections) + len(self._checks) >= MAX_CONNECTIONS:
            return _Refusal()
        connection = self._connection(name)
        if tls:
            self._watch_handshake(connection)
        return connection

    def _connection(self, name: str | None) -> _Incoming:
        connection = _Incoming(name, self._on_event, self._ended, self._timeout)
        connection.made = self.connections.add
        return connection

    def _ended(self, connection: Connection, reason: FabricError) -> None:
        self.connections.discard(connection)
        self._on_closed(connection, reason)

    def _watch_handshake(self, connection: _Incoming) -> None:
        """Count a connection that asyncio drops without a word, since TLS failed."""

        def made(it: _Incoming) -> None:
            self.connections.add(it)
            self._checks.discard(check)
            check.cancel()

        def never_made() -> None:
            self._checks.discard(check)
            self.tls_refused += 1
            if self.tls_refused == 1:
                _log.warning("switch.tls_refused")

        connection.made = made
        loop = asyncio.get_running_loop()
        check = loop.call_later(1.2 * TLS_HANDSHAKE, never_made)
        self._checks.add(check)

    async def _dial(self, path: str, name: str) -> None:
        loop = asyncio.get_running_loop()
        while True:
            with suppress(OSError):
                _, connection = await loop.create_unix_connection(
                    lambda: self._connection(name), path
                )
                await asyncio.shield(connection.closed)
            await asyncio.sleep(_REDIAL)


class _Refusal(asyncio.Protocol):
    """Ends a connection that is one too many."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        transport.close()
