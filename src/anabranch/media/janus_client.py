"""A client of Janus' JSON API over its Unix socket (one SOCK_SEQPACKET message per JSON text).

See https://janus.conf.meetecho.com/docs/rest.html: requests carry a ``transaction``; an ``ack``
promises a later event with the same one.
"""

import asyncio
import itertools
import json
import socket
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from anabranch.media.leaf import LeafError, LeafUnavailableError

_MAX_MESSAGE = 256 * 1024
_TIMEOUT = 3.0
_KEEPALIVE = 5.0
"""Seconds; Janus drops a session after 60 s of silence, and one that hangs shall be noticed."""

Message = dict[str, Any]


class JanusError(LeafError):
    """Janus refused a request: its number and words."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(f"Janus: {reason} ({code})")
        self.code = code


def within(message: object, *keys: str) -> Message:
    """Return the object at ``keys`` of a message; an empty one if there is none."""
    for key in keys:
        message = message.get(key) if isinstance(message, dict) else None
    return message if isinstance(message, dict) else {}


def number_of(answer: Message) -> int:
    """Return the number of the session or handle that an answer says was made.

    Raises:
        LeafUnavailableError: it says none.
    """
    number = within(answer, "data").get("id")
    if not isinstance(number, int):
        raise LeafUnavailableError("Janus' answer has no number")
    return number


class JanusClient:
    """One connection and, on the client API, one session on it.

    ``on_event(message)`` gets what Janus says unasked: ``webrtcup``, ``hangup``, ``detached``.
    ``on_lost()`` is called once when Janus has gone.
    """

    def __init__(
        self, path: Path, *, on_event: Callable[[Message], None], on_lost: Callable[[], None]
    ) -> None:
        self._path = path
        self._on_event = on_event
        self._on_lost = on_lost
        self._numbers = itertools.count(1)
        self._waiting: dict[str, asyncio.Future[Message]] = {}
        self._socket: socket.socket | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._session: int | None = None
        self._keepalive = ""

    @property
    def session(self) -> int | None:
        """Number of the session on this connection."""
        return self._session

    async def connect(self, *, session: bool) -> None:
        """Connect, and open a session unless this is the admin socket.

        Raises:
            LeafUnavailableError: Janus does not listen (yet).
        """
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        sock.setblocking(False)
        try:
            await asyncio.get_running_loop().sock_connect(sock, str(self._path))
        except OSError as error:
            sock.close()
            raise LeafUnavailableError(f"Janus does not answer: {error.strerror}") from error
        self._socket = sock
        self._tasks = [asyncio.create_task(self._read(sock), name="janus-read")]
        if session:
            self._session = number_of(await self.request(janus="create"))
            self._tasks.append(asyncio.create_task(self._keep_alive(), name="janus-keepalive"))

    async def close(self) -> None:
        """Close the connection; Janus then ends the session and everything in it."""
        tasks, self._tasks = self._tasks, []
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._drop()

    async def request(self, **message: Any) -> Message:
        """Send one request and return its answer (not its ``ack``).

        Raises:
            JanusError: Janus refused it.
            LeafUnavailableError: Janus is gone or did not answer in time.
        """
        if self._socket is None:
            raise LeafUnavailableError("Janus is not connected")
        number = str(next(self._numbers))
        message["transaction"] = number
        if message["janus"] == "keepalive":
            self._keepalive = number
        if self._session is not None:
            message.setdefault("session_id", self._session)
        future: asyncio.Future[Message] = asyncio.get_running_loop().create_future()
        self._waiting[number] = future
        try:
            async with asyncio.timeout(_TIMEOUT):
                # One send is one message; Janus rejects a trailing newline.
                await asyncio.get_running_loop().sock_sendall(
                    self._socket, json.dumps(message).encode()
                )
                answer = await future
        except TimeoutError:
            raise LeafUnavailableError("Janus did not answer in time") from None
        except OSError as error:
            raise LeafUnavailableError(f"Janus is gone: {error.strerror}") from error
        finally:
            self._waiting.pop(number, None)
        if answer.get("janus") == "error":
            details = within(answer, "error")
            raise JanusError(details.get("code", 0), details.get("reason", "unknown error"))
        return answer

    async def plugin(self, handle: int, body: Message, jsep: Message | None = None) -> Message:
        """Send a request to the plugin behind ``handle``; plugin errors raise :class:`JanusError`.

        Returns the whole answer: ``["plugindata"]["data"]`` and perhaps ``["jsep"]``.
        """
        extra = {"jsep": jsep} if jsep is not None else {}
        answer = await self.request(janus="message", handle_id=handle, body=body, **extra)
        data = within(answer, "plugindata", "data")
        if "error_code" in data:
            raise JanusError(data["error_code"], data.get("error", "unknown error"))
        return answer

    async def _read(self, sock: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                raw = await loop.sock_recv(sock, _MAX_MESSAGE)
            except OSError:
                raw = b""
            if not raw:
                break
            with suppress(ValueError, RecursionError):
                message = json.loads(raw)
                if isinstance(message, dict):
                    self._receive(message)
        self._drop()
        self._on_lost()

    def _receive(self, message: Message) -> None:
        number = str(message.get("transaction", ""))
        future = self._waiting.get(number)
        # An ack only promises an answer; of a keepalive it is the answer.
        if message.get("janus") == "ack" and number != self._keepalive:
            return
        if future is not None:
            if not future.done():
                future.set_result(message)
        else:
            self._on_event(message)

    async def _keep_alive(self) -> None:
        while True:
            await asyncio.sleep(_KEEPALIVE)
            try:
                await self.request(janus="keepalive")
            except LeafError:
                break
        self._drop()
        self._on_lost()

    def _drop(self) -> None:
        sock, self._socket = self._socket, None
        if sock is not None:
            sock.close()
        for task in self._tasks:
            if task is not asyncio.current_task():
                task.cancel()
        for future in self._waiting.values():
            if not future.done():
                future.set_exception(LeafUnavailableError("Janus is gone"))
        self._session = None
