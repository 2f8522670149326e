"""Doors between machines: TLS with the site's certificates outside, a Unix socket inside.

Programs that speak over Unix sockets (the fabric's controller, HTTP servers and clients) so meet
others by the name in their certificate, and need not know of TLS or network namespaces.
"""

import asyncio
import os
import socket
import ssl
from collections.abc import Callable
from contextlib import suppress
from ipaddress import IPv4Address
from pathlib import Path

import structlog

from anabranch.core.errors import AnabranchError
from anabranch.tree.certificates import CertificateError, identity_of
from anabranch.tree.peering import Identity

_HANDSHAKE_S = 5.0
_CONNECT_S = 5.0
_CHUNK = 64 * 1024
_MOST = 1000
_log = structlog.get_logger("anabranch.site")


class _Door:
    """Connections that are passed on, each by a task."""

    def __init__(self) -> None:
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def close(self) -> None:
        """Listen no more, and end what is open."""
        if self._server is not None:
            self._server.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            if len(self._tasks) <= _MOST:
                await self._pass(reader, writer)
        except (OSError, TimeoutError, AnabranchError) as error:
            self._complain(str(error) or "no answer")
        finally:
            try:
                await _end(writer)
            finally:
                self._tasks.discard(task)

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        raise NotImplementedError

    def _complain(self, reason: str) -> None:
        _log.debug("door.closed", reason=reason)


class InDoor(_Door):
    """Lets nodes in to Unix sockets of this machine.

    Args:
        where: the socket that a node may reach; None: none.
    """

    def __init__(self, where: Callable[[Identity], Path | None]) -> None:
        super().__init__()
        self._where = where

    async def open(self, listening: socket.socket, context: ssl.SSLContext) -> None:
        """Take connections in; ``context`` must require certificates."""
        assert context.verify_mode is ssl.CERT_REQUIRED
        self._server = await asyncio.start_server(
            self._accept, sock=listening, ssl=context, ssl_handshake_timeout=_HANDSHAKE_S
        )

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        identity = _identity(writer)
        path = self._where(identity)
        if path is None:
            _log.warning("door.refused", node=identity.name)
            return
        inner = await asyncio.open_unix_connection(str(path), limit=_CHUNK)
        try:
            await splice((reader, writer), inner)
        finally:
            await _end(inner[1])


class OutDoor(_Door):
    """Leads from a Unix socket of this machine to one node.

    Args:
        name: the node's; who is reached instead of it is hung up on.
        address: where it takes connections in.
        make: gives a socket of the right namespace.
    """

    def __init__(
        self,
        name: str,
        address: tuple[IPv4Address, int],
        make: Callable[[], socket.socket],
        context: ssl.SSLContext,
    ) -> None:
        super().__init__()
        self._name = name
        self._address = address
        self._make = make
        self._context = context

    async def open(self, path: Path) -> None:
        """Listen at ``path``, for this user alone; a stale socket is replaced."""
        listening = socket.socket(socket.AF_UNIX)
        with suppress(FileNotFoundError):
            os.unlink(path)
        listening.bind(str(path))
        os.chmod(path, 0o600)
        self._server = await asyncio.start_unix_server(self._accept, sock=listening, limit=_CHUNK)

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        made = self._make()
        try:
            async with asyncio.timeout(_CONNECT_S):
                host, port = self._address
                await asyncio.get_running_loop().sock_connect(made, (str(host), port))
                outer = await asyncio.open_connection(
                    sock=made, ssl=self._context, server_hostname="", limit=_CHUNK
                )
        except BaseException:
            made.close()
            raise
        try:
            found = _identity(outer[1])
            if found.name != self._name:
                raise CertificateError(f"{found.name} answers, not {self._name}")
            await splice((reader, writer), outer)
        finally:
            await _end(outer[1])


Stream = tuple[asyncio.StreamReader, asyncio.StreamWriter]


async def splice(one: Stream, other: Stream) -> None:
    """Pass bytes between two connections until one of them ends."""
    ways = [
        asyncio.create_task(_pour(one[0], other[1])),
        asyncio.create_task(_pour(other[0], one[1])),
    ]
    try:
        await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for way in ways:
            way.cancel()
        await asyncio.gather(*ways, return_exceptions=True)


async def _pour(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(_CHUNK):
        writer.write(data)
        await writer.drain()


def _identity(writer: asyncio.StreamWriter) -> Identity:
    tls = writer.get_extra_info("ssl_object")
    return identity_of(tls.getpeercert(binary_form=True) or b"")


async def _end(writer: asyncio.StreamWriter) -> None:
    writer.close()
    with suppress(OSError, TimeoutError):
        async with asyncio.timeout(1.0):
            await writer.wait_closed()
