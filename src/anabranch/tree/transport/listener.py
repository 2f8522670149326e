"""Taking connections in: over TCP with TLS, or over a Unix socket on the same machine."""

import asyncio
import os
import socket
import ssl
import struct
import traceback
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from anabranch.tree.transport.channel import Channel

_BACKLOG = 4096
_HANDSHAKE_S = 10.0
_HANDSHAKES = 250
"""TLS handshakes of one address at a time: each takes about 300 KiB, the others wait their turn."""
_RETRY_S = 0.1
_UCRED = struct.Struct("3i")


class Listener:
    """One listening socket.

    A connection counts from its first packet, so that half a TLS handshake holds a place of its
    address for ten seconds and no longer.

    Args:
        channel: makes the protocol of a connection; a new one each time.
        context: for TLS; None: a Unix socket.
        most: connections at once, and ``per_address`` of one address.
        on_refused: called with one line when somebody is turned away.
    """

    def __init__(
        self,
        channel: Callable[[], Channel],
        context: ssl.SSLContext | None,
        *,
        most: int = 5000,
        per_address: int = 2000,
        on_refused: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._channel = channel
        self._context = context
        self._most = most
        self._per_address = per_address
        self._on_refused = on_refused
        self._open = 0
        self._open_from: Counter[str] = Counter()
        self._turns: dict[str, asyncio.Semaphore] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._accepting: asyncio.Task[None] | None = None
        self._socket: socket.socket | None = None

    def listen(self, host: str, port: int) -> int:
        """Listen on TCP; ``port`` 0 takes a free one. Returns the port.

        Raises:
            OSError: the address is not of this machine, or taken.
        """
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        listening = socket.create_server((host, port), family=family, backlog=_BACKLOG)
        self._start(listening)
        bound: int = listening.getsockname()[1]
        return bound

    def listen_unix(self, path: Path) -> None:
        """Listen on a Unix socket that only this user can reach. Raises as :meth:`listen`."""
        listening = socket.socket(socket.AF_UNIX)
        try:
            path.unlink(missing_ok=True)
            listening.bind(str(path))
            path.chmod(0o600)
            listening.listen(_BACKLOG)
        except OSError:
            listening.close()
            raise
        self._start(listening)

    async def close(self) -> None:
        """Stop listening; end handshakes under way. Channels are their owner's to close."""
        tasks = [*self._tasks, *([] if self._accepting is None else [self._accepting])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._socket is not None:
            self._socket.close()

    def _start(self, listening: socket.socket) -> None:
        listening.setblocking(False)
        self._socket = listening
        self._accepting = asyncio.create_task(self._accept(listening), name="accept nodes")

    async def _accept(self, listening: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                connection, peer = await loop.sock_accept(listening)
            except OSError:  # out of descriptors, or the peer has gone again
                await asyncio.sleep(_RETRY_S)
                continue
            address = peer[0] if isinstance(peer, tuple) else ""
            if (fault := self._fault(connection, address)) is not None:
                self._on_refused(fault)
                connection.close()
                continue
            self._open += 1
            self._open_from[address] += 1
            task = asyncio.create_task(self._serve(connection, address), name="node's connection")
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    def _fault(self, connection: socket.socket, address: str) -> str | None:
        if self._open >= self._most:
            return f"{self._most} connections are open"
        if self._open_from[address] >= self._per_address:
            return f"{self._per_address} connections are open from {address}"
        if self._context is None and _user_of(connection) not in (0, os.geteuid()):
            return "a process of another user"
        return None

    async def _serve(self, connection: socket.socket, address: str) -> None:
        """See a connection from its handshake to its end."""
        loop = asyncio.get_running_loop()
        channel = self._channel()
        try:
            if self._context is None:
                await loop.connect_accepted_socket(lambda: channel, connection)
            else:
                async with self._turns.setdefault(address, asyncio.Semaphore(_HANDSHAKES)):
                    await loop.connect_accepted_socket(
                        lambda: channel,
                        connection,
                        ssl=self._context,
                        ssl_handshake_timeout=_HANDSHAKE_S,
                        ssl_shutdown_timeout=1.0,
                    )
            await asyncio.shield(channel.closed)
        except (OSError, ssl.SSLError, TimeoutError) as error:
            # The error and asyncio's frames hold each other, and the 256 KiB that TLS reads into.
            traceback.clear_frames(error.__traceback__)
        finally:
            self._open -= 1
            self._open_from[address] -= 1
            if not self._open_from[address]:
                del self._open_from[address]
                self._turns.pop(address, None)


def _user_of(connection: socket.socket) -> int:
    raw = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size)
    uid: int = _UCRED.unpack(raw)[1]
    return uid
