"""Sockets that are handed over by the director: see :mod:`anabranch.media.relay`."""

import json
import os
import socket
from collections.abc import Collection
from contextlib import suppress

MAX_STREAMS = 16


def take_sockets(connection: socket.socket, known: Collection[str]) -> dict[str, int] | None:
    """Return the descriptors that came over a connection, by stream; what waits in them is dropped.

    None: those that came before stay.

    Args:
        known: the streams that there are.

    Raises:
        ValueError: it is no such message; nothing is left open.
    """
    data, found, _flags, _address = socket.recv_fds(connection, 65536, MAX_STREAMS)
    try:
        message = json.loads(data)
        if not found and message.get("keep") is True:
            return None
        names = message["streams"]
        if len(names) != len(found) or len(set(names) & set(known)) != len(found):
            raise ValueError(f"{len(found)} sockets for {names!r}")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        for fd in found:
            os.close(fd)
        raise ValueError(f"sockets not understood: {error}") from error
    for fd in found:
        _drain(fd)
    return dict(zip(names, found, strict=True))


def _drain(fd: int) -> None:
    """Drop what came while nobody read: it is old."""
    waiting = socket.socket(fileno=fd)
    waiting.setblocking(False)
    with suppress(BlockingIOError):
        while True:
            waiting.recv(65536)
    waiting.detach()
