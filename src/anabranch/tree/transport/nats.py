"""SOLEIL over NATS: each node has one connection, to the bus, and its neighbours' sessions on it.

Members, peerings and channels are those of TCP. A message that the bus has lost shows in the
numbers of those after it; the session ends then, and the node comes anew.
"""

import asyncio
import contextlib
import secrets
import ssl
from collections import Counter
from collections.abc import Callable
from random import SystemRandom
from urllib.parse import urlsplit

import structlog
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.errors import Error as NatsError

from anabranch.core.errors import UnavailableError, UsageError
from anabranch.core.names import check_name
from anabranch.tree.certificates import (
    CertificateError,
    Credentials,
    client_context,
    identity_of,
)
from anabranch.tree.events import Target
from anabranch.tree.model import Role
from anabranch.tree.peering import Framer, Identity
from anabranch.tree.soleil.codec import MAX_BYTES
from anabranch.tree.soleil.messages import ROOT
from anabranch.tree.transport.channel import Channel
from anabranch.tree.transport.dialler import reason_of
from anabranch.tree.transport.subjects import END, Subject, inboxes, parse

_CONNECT_S = 5.0
_ANSWER_S = 2.0
_WAIT_FOR_BUS_S = 10.0
_BACK_OFF_S = 0.2
_LONGEST_S = 10.0
_PING_S = 3
_FLUSH_S = 9
_BATCH = 256 * 1024
_MAX_SESSIONS = 8

_log = structlog.get_logger("anabranch.tree")
_draw = SystemRandom()

_Failures = (NatsError, OSError, TimeoutError, CertificateError)


class Bus:
    """A node's connection to the bus: kept up, with a random back-off, until it is closed.

    Args:
        url: ``tls://HOST[:PORT]``, or ``nats://USER:PASSWORD@HOST[:PORT]`` on a trusted network.
        site: its name; several may share a bus.
        identity: this node's name and role, as the server has them.
        credentials: this node's; needed for ``tls``.

    Raises:
        UsageError: the URL is not of these forms, or the credentials are missing.
    """

    def __init__(
        self, url: str, site: str, identity: Identity, credentials: Credentials | None = None
    ) -> None:
        self._url = url
        self._shown = _without_secrets(url)
        self._secure = urlsplit(url).scheme == "tls"
        if self._secure and credentials is None:
            raise UsageError(f"{self._shown} needs a certificate")
        self._credentials = credentials
        self._site = check_name(site)
        self._identity = Identity(identity.name, identity.role)
        self._accept: Callable[[Identity], Channel] | None = None
        self._up = asyncio.Event()
        self._outgoing: asyncio.Queue[tuple[Session | None, str, bytes]] = asyncio.Queue()
        self._sessions: dict[tuple[str, str], Session] = {}
        self._of_peer: Counter[str] = Counter()
        self._asking: dict[str, tuple[Target, asyncio.Future[Identity]]] = {}
        self._running: asyncio.Task[None] | None = None

    def listen(self, accept: Callable[[Identity], Channel]) -> None:
        """Take nodes in; ``accept`` is :meth:`TreeNode.arriving`."""
        self._accept = accept

    def start(self) -> None:
        """Begin to connect; sessions can be had once that has succeeded."""
        self._running = asyncio.create_task(self._run(), name="bus")

    async def close(self) -> None:
        """Send what is queued, and hang up. Nodes that use the bus are stopped before."""
        if self._running is None:
            return
        if self._up.is_set():
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_ANSWER_S):
                    await self._outgoing.join()
        self._running.cancel()
        await asyncio.gather(self._running, return_exceptions=True)

    async def connect(
        self,
        target: Target,
        channel: Callable[[Identity | None], Channel],
        context: ssl.SSLContext | None,
    ) -> None:
        """See :class:`~anabranch.tree.transport.dialler.Way`."""
        session = secrets.token_hex(16)
        to = target.name or ROOT
        answer = asyncio.get_running_loop().create_future()
        self._asking[session] = target, answer
        try:
            async with asyncio.timeout(_WAIT_FOR_BUS_S):
                await self._up.wait()
            self._post(to, session, 0)
            async with asyncio.timeout(_ANSWER_S):
                peer = await answer
        except TimeoutError:
            who = target.name or "the root"
            raise UnavailableError(f"{self._shown}: {who} does not answer") from None
        finally:
            del self._asking[session]
        self._begin(peer, to, session, channel(peer))

    # What arrives.

    async def _arrived(self, message: Msg) -> None:
        self.take(message.subject, message.data)

    def take(self, subject: str, payload: bytes) -> None:
        """Take a message from the bus."""
        head = parse(subject)
        if head is None or head.site != self._site:
            return
        key = head.sender.name, head.session
        if head.session in self._asking:
            self._answered(head)
        elif (session := self._sessions.get(key)) is not None:
            if session.peer.role is head.sender.role:
                session.take(head.number, payload)
        elif head.number == 0:
            self._asked(head)
        elif head.number != END:
            self._post(head.sender.name, head.session, END, b"there is no such session")

    def _answered(self, head: Subject) -> None:
        target, answer = self._asking[head.session]
        genuine = (
            head.sender.role is Role.ROOT
            if target.name is None
            else head.sender.name == target.name
        )
        if not genuine or answer.done():
            return
        if head.number == 0:
            answer.set_result(head.sender)
        else:
            answer.set_exception(UnavailableError(f"{head.sender.name} takes nobody in"))

    def _asked(self, head: Subject) -> None:
        peer = head.sender
        if self._accept is None or self._of_peer[peer.name] >= _MAX_SESSIONS:
            self._post(peer.name, head.session, END, b"too many sessions, or none at all")
            return
        self._post(peer.name, head.session, 0)
        self._begin(peer, peer.name, head.session, self._accept(peer))

    # Sessions.

    def _begin(self, peer: Identity, to: str, name: str, channel: Channel) -> None:
        session = Session(self, peer, to, name, channel)
        self._sessions[peer.name, name] = session
        self._of_peer[peer.name] += 1
        channel.connection_made(session)

    def forget(self, session: "Session") -> None:
        """Let go of a session that has ended."""
        del self._sessions[session.peer.name, session.name]
        self._of_peer[session.peer.name] -= 1
        if not self._of_peer[session.peer.name]:
            del self._of_peer[session.peer.name]

    def post(self, session: "Session", number: int, payload: bytes) -> None:
        """Queue a message of a session."""
        self._post(session.to, session.name, number, payload, session)

    def _post(
        self,
        to: str,
        session: str,
        number: int,
        payload: bytes = b"",
        owner: "Session | None" = None,
    ) -> None:
        if self._up.is_set():
            subject = str(Subject(self._site, self._identity, to, session, number))
            self._outgoing.put_nowait((owner, subject, payload))

    # The connection.

    async def _run(self) -> None:
        attempts = 0
        while True:
            lost = asyncio.get_running_loop().create_future()
            client = Client()
            try:
                async with asyncio.timeout(_CONNECT_S):
                    await self._connect(client, lost)
                _log.info("bus connected", bus=self._shown)
                attempts = 0
                await self._serve(client, lost)
            except _Failures as error:
                _log.warning("bus away", bus=self._shown, reason=reason_of(error))
            finally:
                self._dropped()
                with contextlib.suppress(*_Failures):
                    await client.close()
            await asyncio.sleep(_draw.uniform(0, min(_LONGEST_S, _BACK_OFF_S * 2**attempts)))
            attempts = min(attempts + 1, 10)

    async def _connect(self, client: Client, lost: asyncio.Future[None]) -> None:
        async def on_closed() -> None:
            if not lost.done():
                lost.set_result(None)

        async def on_error(error: Exception) -> None:
            _log.info("bus complains", bus=self._shown, reason=reason_of(error))

        met: list[ssl.SSLObject] = []
        await client.connect(
            self._url,
            name=self._identity.name,
            tls=self._context(met) if self._secure else None,
            allow_reconnect=False,
            max_reconnect_attempts=1,
            reconnect_time_wait=0,
            ping_interval=_PING_S,
            max_outstanding_pings=2,
            closed_cb=on_closed,
            error_cb=on_error,
        )
        if self._secure:
            _check_server(met)
        for inbox in inboxes(self._site, self._identity):
            await client.subscribe(inbox, cb=self._arrived)
        await client.flush(_FLUSH_S)

    def _context(self, met: list[ssl.SSLObject]) -> ssl.SSLContext:
        """Return the context of one connection, which notes with whom it shook hands.

        It is made anew each time, so that a renewed certificate is used.
        """
        assert self._credentials is not None

        class Noted(ssl.SSLObject):
            def do_handshake(self) -> None:
                super().do_handshake()
                met.append(self)

        context = client_context(self._credentials)
        context.sslobject_class = Noted
        return context

    async def _serve(self, client: Client, lost: asyncio.Future[None]) -> None:
        """Send what is queued until the connection ends."""
        self._outgoing = asyncio.Queue()
        self._up.set()
        sending = asyncio.create_task(self._send(client), name="send to the bus")
        try:
            await asyncio.wait({sending, lost}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            sending.cancel()
            await asyncio.gather(sending, return_exceptions=True)
        if not sending.cancelled():
            sending.result()
        raise ConnectionError("the server hung up")

    async def _send(self, client: Client) -> None:
        queue = self._outgoing
        while True:
            batch = [await queue.get()]
            size = len(batch[0][2])
            while size < _BATCH and not queue.empty():
                batch.append(queue.get_nowait())
                size += len(batch[-1][2])
            for _, subject, payload in batch:
                await client.publish(subject, payload)
            await client.flush(_FLUSH_S)  # so that what piles up does so here, and is counted
            for owner, _, payload in batch:
                if owner is not None:
                    owner.sent(len(payload))
                queue.task_done()

    def _dropped(self) -> None:
        self._up.clear()
        for session in list(self._sessions.values()):
            session.end("the bus is away")


class Session(asyncio.Transport):
    """A connection to one neighbour, as asyncio's protocols know them.

    Attributes:
        peer: who is there, by the server's word.
        to: how it is addressed.
    """

    def __init__(self, bus: Bus, peer: Identity, to: str, name: str, channel: Channel) -> None:
        super().__init__()
        self.peer = peer
        self.to = to
        self.name = name
        self._bus = bus
        self._channel = channel
        self._framer = Framer(MAX_BYTES)
        self._written = 0
        self._taken = 0
        self._unsent = 0
        self._closing = False

    def take(self, number: int, payload: bytes) -> None:
        """Take a message of the peer's."""
        if number == END:
            self.end(payload[:100].decode(errors="replace"))
        elif number == self._taken + 1:
            self._taken = number
            self._channel.data_received(len(payload).to_bytes(4, "big") + payload)
        elif number > self._taken:
            self._bus.post(self, END, b"messages were lost")
            self.end("messages were lost on the bus")

    def sent(self, size: int) -> None:
        """Note that so many octets have left."""
        self._unsent -= size

    def end(self, reason: str) -> None:
        """End it on this side."""
        if not self._closing:
            self._closing = True
            self._bus.forget(self)
            fault = ConnectionError(reason) if reason else None
            asyncio.get_running_loop().call_soon(self._channel.connection_lost, fault)

    # asyncio.Transport

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self._framer.feed(bytes(data))
        while not self._closing and (document := self._framer.next()) is not None:
            self._written += 1
            self._unsent += len(document)
            self._bus.post(self, self._written, document)

    def get_write_buffer_size(self) -> int:
        return self._unsent

    def is_closing(self) -> bool:
        return self._closing

    def close(self) -> None:
        if not self._closing:
            self._bus.post(self, END, b"")
            self.end("")

    def abort(self) -> None:
        self.close()


def _check_server(met: list[ssl.SSLObject]) -> None:
    """Check that the server is the root's: nats-py speaks plainly to one that offers no TLS.

    Raises:
        CertificateError: it is somebody else's.
    """
    if not met:
        raise CertificateError("the bus offers no TLS")
    if identity_of(met[-1].getpeercert(binary_form=True) or b"").role is not Role.ROOT:
        raise CertificateError("the bus has not the root's certificate")


def _without_secrets(url: str) -> str:
    """Return a bus's URL as it may be logged.

    Raises:
        UsageError: it is none.
    """
    try:
        parts = urlsplit(url)
        at = parts.hostname, parts.port or 4222
    except ValueError:
        at = None, 0
    if at[0] is None or parts.scheme not in ("nats", "tls"):
        raise UsageError("a bus is tls://HOST[:PORT] or nats://USER:PASSWORD@HOST[:PORT]")
    return f"{parts.scheme}://{at[0]}:{at[1]}"
