"""Ports at which a channel's streams arrive ready made, and how the encoder's worker gets them.

The gate sends in the machine's own namespace, the worker may live in another one: so the sockets
are bound here and handed over (SCM_RIGHTS) by a Unix socket. As long as that connection is open the
worker sends on what comes; it has let go of the ports when it closes its end. A connection that
breaks off without a word is that of a director that died: the next one says that it goes on.
"""

import asyncio
import json
import socket
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from anabranch.media.errors import EncoderError
from anabranch.media.source import LOOPBACK

_BUFFER = 2_000_000
"""Bytes of a socket's buffer: key frames of several layers come at once."""
_RELEASE_S = 2.0


def bind(port: int) -> socket.socket:
    """Return a UDP socket at a port of the loopback address.

    Raises:
        OSError: it is taken.
    """
    made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    try:
        made.bind((LOOPBACK, port))
        made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER)
    except BaseException:
        made.close()
        raise
    return made


class Relay:
    """The sockets of a channel's streams, and the worker that reads them, if one does.

    Attributes:
        ports: by stream, of sockets that only the worker has: its next life gets others there.
    """

    def __init__(self, sockets: Mapping[str, socket.socket], *, keeps: bool = False) -> None:
        self._sockets = dict(sockets)
        self._keeps = keeps
        self._link: socket.socket | None = None
        self.ports: dict[str, int] = {}

    @classmethod
    def kept(cls) -> "Relay":
        """Return that of sockets which an earlier director has handed over, if it has."""
        return cls({}, keeps=True)

    def connect(self, path: Path) -> None:
        """Hand the sockets to the worker that listens at ``path``; one before it has ended.

        Raises:
            EncoderError: it does not take them.
        """
        self._cut()
        keeps, self._keeps = self._keeps, False
        link = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            if not keeps:
                self._bind_anew()
            link.setblocking(False)
            link.connect(str(path))
            said = {"keep": True} if keeps else {"streams": list(self._sockets)}
            socket.send_fds(
                link,
                [json.dumps(said).encode()],
                [each.fileno() for each in self._sockets.values()],
            )
        except OSError as error:
            link.close()
            raise EncoderError(f"the encoder does not take the layers: {error}") from error
        self._link = link

    async def close(self) -> None:
        """Have the worker let go of the ports, and let go of them. Safe to call twice."""
        link, self._link = self._link, None
        if link is not None:
            with suppress(OSError, TimeoutError):
                link.send(b'{"end": true}')
                loop = asyncio.get_running_loop()
                await asyncio.wait_for(loop.sock_recv(link, 1), _RELEASE_S)
            link.close()
        for each in self._sockets.values():
            each.close()
        self._sockets.clear()

    def _bind_anew(self) -> None:
        """Raises OSError: one of the ports is taken."""
        for name, port in self.ports.items():
            self._sockets[name] = bind(port)
        self.ports.clear()

    def _cut(self) -> None:
        if self._link is not None:
            self._link.close()
            self._link = None
