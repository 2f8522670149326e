"""The sender in the event loop: requests towards a destination, and proofs of owning an address."""

import asyncio
import os
import secrets
import socket
import ssl
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from hashlib import sha256
from ipaddress import ip_address
from urllib.parse import parse_qsl

from anabranch.core.errors import UsageError
from anabranch.services.controller import routability
from anabranch.services.errors import ServicesError
from anabranch.services.node.endpoint import Endpoint
from anabranch.services.signalling.gist.associations import HOLD_TIME
from anabranch.services.signalling.gist.objects import Address, Stack, Transport
from anabranch.services.signalling.gist.options import GistOptions
from anabranch.services.signalling.request import Request
from anabranch.services.signalling.sender import Result, Sender


class UnreachableError(ServicesError, UsageError):
    """There is no way to a destination, or it has no address."""


class Signaller:
    """Sends requests; needs no root."""

    def __init__(self, *, client_tls: ssl.SSLContext | None = None) -> None:
        profiles: list[tuple[Transport, ...]] = [(Transport.TCP,)]
        if client_tls is not None:
            profiles = [(Transport.TCP, Transport.TLS)]
        stack = Stack(tuple(profiles), hold_time=int(HOLD_TIME * 1000))
        self._endpoint = Endpoint(
            secrets.token_hex(8).encode(),
            GistOptions(stack=stack),
            responder=False,
            client_tls=client_tls,
        )
        self._sender = Sender(self._endpoint.gist, os.urandom)
        self._waiting: dict[str, asyncio.Future[Result]] = {}
        self._endpoint.on_event = self._on_event
        self._endpoint.on_timer = self._sender.handle_timer
        self._endpoint.next_timer = self._sender.next_timer

    def source_towards(self, destination: Address) -> Address:
        """Return our address on the way to ``destination``.

        Raises:
            UnreachableError: there is no way.
        """
        found = self._endpoint.addresses.towards(destination)
        if found.is_unspecified:
            raise UnreachableError(f"there is no route to {destination}")
        return found

    def session(self, destination: Address, *, source: Address | None = None) -> bytes:
        """Return a new session; ``source``: whom filters protect that name nobody."""
        return self._sender.open(source or self.source_towards(destination), destination)

    async def ask(self, session: bytes, data: bytes) -> Result:
        """Send a signed request and return how it ended, after at most 50 s."""
        now = time.monotonic()
        reference = self._sender.send(session, data, now)
        future: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
        self._waiting[reference] = future
        self._endpoint.pump()
        try:
            return await future
        finally:
            self._waiting.pop(reference, None)

    def keep(self, session: bytes, seconds: float) -> None:
        """Keep a session up for a later renewal in it."""
        self._sender.hold(session, seconds, time.monotonic())
        self._endpoint.pump()

    def _on_event(self, now: float) -> None:
        self._sender.process(now)
        while self._sender.results:
            reference, result = self._sender.results.popitem()
            future = self._waiting.get(reference)
            if future is not None and not future.done():
                future.set_result(result)

    def open(self) -> None:
        self._endpoint.open()

    async def close(self) -> None:
        await self._endpoint.close()


@asynccontextmanager
async def signalling(*, client_tls: ssl.SSLContext | None = None) -> AsyncIterator[Signaller]:
    """Run a sender while the block runs."""
    signaller = Signaller(client_tls=client_tls)
    signaller.open()
    try:
        yield signaller
    finally:
        await signaller.close()


async def resolve(host: str) -> Address:
    """Return the first address of a host, or the address that ``host`` is.

    Raises:
        UnreachableError: it has none.
    """
    try:
        found = await asyncio.get_running_loop().getaddrinfo(host, None, type=socket.SOCK_DGRAM)
    except OSError as error:
        raise UnreachableError(f"{host}: {error.strerror}") from error
    return ip_address(str(found[0][4][0]).partition("%")[0])


@asynccontextmanager
async def proving(requests: list[Request], host: str, port: int) -> AsyncIterator[None]:
    """Answer nodes' routability checks for ``requests`` while the block runs.

    Raises:
        OSError: the port cannot be listened on.
    """
    passwords = {
        sha256(request.signature).digest(): request.password
        for request in requests
        if request.password is not None
    }

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(5.0):
                head = await reader.readuntil(b"\r\n\r\n")
                writer.write(_http_answer(head, passwords))
                await writer.drain()
        except (OSError, TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(answer, host, port, limit=8192)
    try:
        yield
    finally:
        server.close()


def _http_answer(head: bytes, passwords: dict[bytes, str]) -> bytes:
    words = head.split(b"\r\n", 1)[0].decode(errors="replace").split(" ")
    found = None
    path, _, query = words[1].partition("?") if len(words) == 3 else ("", "", "")
    if words[0] == "GET" and path == routability.PATH:
        found = routability.answer(dict(parse_qsl(query)), passwords)
    status = "200 OK" if found else "404 Not Found"
    body = (found or "no message of that signature is under way").encode()
    fields = f"Content-Type: text/plain\r\nContent-Length: {len(body)}\r\nConnection: close"
    return f"HTTP/1.1 {status}\r\n{fields}\r\n\r\n".encode() + body
