"""A node at work: carries out what a Member decides, over sockets and in real time."""

import asyncio
import datetime
import itertools
import ssl
from collections.abc import Callable, Iterable
from contextlib import suppress

import structlog

from anabranch.core.errors import UnavailableError
from anabranch.tree.admission import Admission
from anabranch.tree.branch import BranchMember
from anabranch.tree.certificates import (
    CertificateError,
    Credentials,
    client_context,
    server_context,
)
from anabranch.tree.complaints import Complaints
from anabranch.tree.events import (
    Blame,
    Certified,
    Close,
    Connect,
    Establish,
    NodeEvent,
    Output,
    Send,
    Target,
)
from anabranch.tree.member import Member
from anabranch.tree.peering import Identity
from anabranch.tree.root import RootMember
from anabranch.tree.soleil.codec import CodecError, encode
from anabranch.tree.soleil.messages import Body, Endpoint, Message
from anabranch.tree.transport.channel import Channel
from anabranch.tree.transport.dialler import Nearby, Way, dial
from anabranch.tree.transport.listener import Listener

_log = structlog.get_logger("anabranch.tree")
_KEEP_S = 1.0
_QUIET_S = 1.0
_RENEWAL_RETRY_S = 600.0


class TreeNode:
    """One node of the tree; the director runs the root's, ``anabranch node`` any other.

    Args:
        member: its decisions.
        on_event: called with what concerns the node; must not block.
        credentials: for TLS; None: only nodes nearby can be reached.
        nearby: nodes of the same machine.
        ways: how others are reached but by TCP; their owner starts and ends them.
        admission: the root's book, saved when it has changed.
        timing: ``greeting``, ``silence`` and ``lost_after``, see :class:`Peering`.
        limits: ``most`` and ``per_address``, see :class:`Listener`.
    """

    def __init__(
        self,
        member: Member,
        on_event: Callable[[NodeEvent], None],
        *,
        credentials: Credentials | None = None,
        nearby: Nearby | None = None,
        ways: Iterable[Way] = (),
        admission: Admission | None = None,
        timing: dict[str, float] | None = None,
        limits: dict[str, int] | None = None,
    ) -> None:
        self.member = member
        self._on_event = on_event
        self._credentials = credentials
        self._nearby = nearby
        self._ways = tuple(ways)
        self._admission = admission
        self._timing = timing or {}
        self._limits = limits or {}
        self._loop = asyncio.get_running_loop()
        self._listeners: list[Listener] = []
        self._server: ssl.SSLContext | None = None
        self._client: ssl.SSLContext | None = None
        self._links = itertools.count(1)
        self._channels: dict[int, Channel] = {}
        self._numbers: dict[Channel, int] = {}
        self._complaints = Complaints(_log, _QUIET_S)
        self._timer: asyncio.TimerHandle | None = None
        self._dialling: asyncio.Task[None] | None = None
        self._keeping: asyncio.Task[None] | None = None
        self._renewal: datetime.datetime | None = None
        self._encoded: tuple[Message | None, bytes] = None, b""

    def listen(self, host: str, port: int) -> int:
        """Take nodes in over TLS; ``port`` 0 takes a free one. Returns the port.

        Raises:
            CertificateError: there are no credentials, or they cannot be used.
            OSError: the address is not of this machine, or taken.
        """
        assert self._credentials is not None
        strangers = self._admission is not None
        self._server = server_context(self._credentials, strangers=strangers)
        return self._listener(self._server).listen(host, port)

    def listen_nearby(self) -> None:
        """Take nodes of this machine in. Raises OSError."""
        assert self._nearby is not None
        self._listener(None).listen_unix(self._nearby.path(self.member.name))

    def arriving(self, identity: Identity) -> Channel:
        """Return the protocol of somebody whom another transport than ours has authenticated."""
        channel = self._channel(self._accepted, local=False)
        channel.identity = identity
        return channel

    def start(self) -> None:
        """Begin: a node that is not the root looks for its parent.

        Raises:
            CertificateError: the credentials cannot be used.
        """
        if self._credentials is not None:
            self._client = client_context(self._credentials)
            self._renewal = self._credentials.renewal_due()
        self._keeping = asyncio.create_task(self._keep(), name="keep certificates")
        if isinstance(self.member, BranchMember):
            self._do(self.member.start())

    async def stop(self, reason: str = "stopped") -> None:
        """Say goodbye and end every connection."""
        if isinstance(self.member, BranchMember):
            self._do(self.member.leave(reason))
        tasks = [task for task in (self._dialling, self._keeping) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for listener in self._listeners:
            await listener.close()
        closing = list(self._numbers)
        for channel in closing:
            channel.close(reason)
        for channel in closing:
            await channel.closed
        if self._timer is not None:
            self._timer.cancel()
        self._save()

    def send(
        self,
        body: Body,
        to: str | None = None,
        *,
        time_ms: int | None = None,
        in_seconds: bool = False,
    ) -> None:
        """Send a message: to a node, ``^``, ``*``, or the parent if None; see :meth:`Member.send`.

        Raises:
            UnavailableError: there is no way to it, for now.
            CodecError: it cannot be sent at all.
        """
        encode(Message(body, 0))
        self._do(
            self.member.send(body, to, self._loop.time(), time_ms=time_ms, in_seconds=in_seconds)
        )

    def redirect(self, name: str, parent: str, reason: str) -> None:
        """See :meth:`RootMember.redirect`."""
        assert isinstance(self.member, RootMember)
        self._do(self.member.redirect(name, parent, reason, self._loop.time()))

    def kill(self, name: str, reason: str) -> None:
        """End a node and bar it. Raises as :meth:`RootMember.kill`."""
        assert isinstance(self.member, RootMember)
        if self._admission is not None and self._admission.is_known(name):
            self._admission.remove(name)
        self._do(self.member.kill(name, reason, self._loop.time()))

    # What happens on connections.

    def _listener(self, context: ssl.SSLContext | None) -> Listener:
        listener = Listener(
            lambda: self._channel(self._accepted, local=context is None),
            context,
            on_refused=lambda fault: self._complain(0, "node turned away", reason=fault),
            **self._limits,
        )
        self._listeners.append(listener)
        return listener

    def _channel(self, on_open: Callable[[Channel], None], *, local: bool) -> Channel:
        return Channel(on_open, self._received, self._closed, local=local, **self._timing)

    def _accepted(self, channel: Channel) -> None:
        self.member.accepted(self._number(channel), channel.identity)

    def _dialled(self, channel: Channel, target: Target) -> None:
        assert isinstance(self.member, BranchMember)
        number = self._number(channel)
        self.member.client = None if channel.address is None else Endpoint(*channel.address)
        self._do(self.member.dialled(number, target, channel.identity, self._loop.time()))

    def _number(self, channel: Channel) -> int:
        number = next(self._links)
        self._channels[number] = channel
        self._numbers[channel] = number
        return number

    def _received(self, channel: Channel, message: Message) -> None:
        number = self._numbers.get(channel)
        if number is not None:
            self._do(self.member.receive(number, message, self._loop.time()))

    def _closed(self, channel: Channel, reason: str) -> None:
        number = self._numbers.pop(channel, None)
        if number is not None:
            del self._channels[number]
            self._do(self.member.lost(number, reason, self._loop.time()))

    # Carrying out.

    def _do(self, outputs: list[Output]) -> None:
        touched: dict[int, Channel] = {}
        events: list[NodeEvent] = []
        for output in outputs:
            match output:
                case Send(link, message):
                    if (channel := self._channels.get(link)) is not None:
                        self._send(channel, message)
                        touched[link] = channel
                case Establish(link):
                    if (channel := self._channels.get(link)) is not None:
                        channel.establish()
                case Close(link, reason):
                    if (channel := self._channels.get(link)) is not None:
                        channel.close(reason)
                case Blame(link, reason, counted):
                    if (channel := self._channels.get(link)) is not None:
                        who = "?" if channel.identity is None else channel.identity.name
                        self._complain(link, "node broke a rule", node=who, reason=reason)
                        if counted:
                            channel.blame(reason)
                case Connect():
                    self._connect(output)
                case _:
                    events.append(output)
        for channel in touched.values():
            channel.flush()
        self._plan()
        for event in events:
            if isinstance(event, Certified):
                self._certified(event.chain)
            self._on_event(event)

    def _send(self, channel: Channel, message: Message) -> None:
        if self._encoded[0] is not message:  # one message often goes to many
            try:
                self._encoded = message, encode(message)
            except CodecError as error:
                _log.error("message cannot be sent", reason=str(error))
                return
        channel.send(self._encoded[1])

    def _complain(self, link: int, line: str, **words: str) -> None:
        """Log an offence at a link; 0: at none yet."""
        self._complaints.make(link, self._loop.time(), line, **words)

    def _plan(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        due = self.member.next_timer()
        self._timer = None if due is None else self._loop.call_at(due, self._on_timer)

    def _on_timer(self) -> None:
        self._do(self.member.handle_timer(self._loop.time()))

    def _connect(self, connect: Connect) -> None:
        if self._dialling is not None:
            self._dialling.cancel()
        self._dialling = asyncio.create_task(self._dial(connect), name="dial")

    async def _dial(self, connect: Connect) -> None:
        member = self.member
        assert isinstance(member, BranchMember)
        await asyncio.sleep(connect.after)

        def channel(target: Target, identity: Identity | None) -> Channel:
            made = self._channel(lambda opened: self._dialled(opened, target), local=False)
            made.identity = identity
            return made

        try:
            await dial(connect.targets, channel, self._client, self._nearby, self._ways)
        except UnavailableError as error:
            _log.info("no parent reached", reason=str(error))
            self._dialling = None  # what follows may begin another, which must not end this one
            self._do(member.failed(self._loop.time()))

    # Certificates.

    async def _keep(self) -> None:
        """Renew this node's certificate in time; save the book when it has changed."""
        retry = 0.0
        while True:
            await asyncio.sleep(_KEEP_S)
            self._save()
            now = datetime.datetime.now(datetime.UTC)
            if self._renewal is None or now < self._renewal or self._loop.time() < retry:
                continue
            retry = self._loop.time() + _RENEWAL_RETRY_S
            self._renew()

    def _renew(self) -> None:
        """Ask the root for a new certificate, or have one if this is the root."""
        assert self._credentials is not None
        if isinstance(self.member, BranchMember):
            request = self._credentials.request(self.member.name)
            with suppress(UnavailableError):
                self._do(self.member.request_certificate(request, self._loop.time()))
        elif self._admission is not None:
            self._admission.certify_root(self._credentials, self.member.name)
            self._use_credentials()

    def _certified(self, chain: str) -> None:
        assert self._credentials is not None
        try:
            self._credentials.store(chain)
        except CertificateError as error:
            _log.error("certificate refused", reason=str(error))
            return
        self._use_credentials()

    def _use_credentials(self) -> None:
        """Use the certificate for every connection to come."""
        assert self._credentials is not None
        self._renewal = self._credentials.renewal_due()
        for context in (self._server, self._client):
            if context is not None:
                context.load_cert_chain(self._credentials.chain, self._credentials.key)

    def _save(self) -> None:
        if self._admission is None:
            return
        try:
            self._admission.save()
        except OSError as error:
            _log.error("list of nodes cannot be saved", reason=str(error))
