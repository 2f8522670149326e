"""One connection under asyncio: moves bytes and time between a socket and a Peering."""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import cast

from anabranch.tree.certificates import CertificateError, identity_of
from anabranch.tree.peering import Identity, Lost, Peering, PeeringEvent
from anabranch.tree.soleil.messages import Hello, Message

MAX_UNSENT = 1024 * 1024
"""Bytes that may wait for a peer that does not read; then it is given up."""
_LAST_WORDS_S = 1.0


class Channel(asyncio.Protocol):
    """The adapter of one :class:`Peering`.

    Args:
        on_open: called once the peer is authenticated, as far as it can be.
        on_message: called for each message; must not block.
        on_closed: called once at the end with the reason.
        local: a process of the same user dials in: it is who it says in its HELLO.
        greeting: see :class:`Peering`; likewise ``silence`` and ``lost_after``.

    Attributes:
        identity: whom the peer's certificate names; None: it has none.
        certificate: that certificate, DER; not verified if the TLS context does not.
    """

    def __init__(
        self,
        on_open: Callable[["Channel"], None],
        on_message: Callable[["Channel", Message], None],
        on_closed: Callable[["Channel", str], None],
        *,
        local: bool = False,
        greeting: float = 10.0,
        silence: float = 3.0,
        lost_after: float = 9.0,
    ) -> None:
        self._on_open = on_open
        self._on_message = on_message
        self._on_closed = on_closed
        self._loop = asyncio.get_running_loop()
        self._peering = Peering(
            self._loop.time(), greeting=greeting, silence=silence, lost_after=lost_after
        )
        self._transport: asyncio.Transport | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._reason = "the peer closed the connection"
        self._local = local
        self.identity: Identity | None = None
        self.certificate: bytes | None = None
        self.closed: asyncio.Future[None] = self._loop.create_future()

    @property
    def address(self) -> tuple[str, int] | None:
        """The address and port that this side of the connection has; None: not on TCP."""
        assert self._transport is not None
        name = self._transport.get_extra_info("sockname")
        return (name[0], name[1]) if isinstance(name, tuple) else None

    @property
    def opened(self) -> bool:
        """Whether there was a connection at all."""
        return self._transport is not None

    def establish(self) -> None:
        """See :meth:`Peering.establish`."""
        self._peering.establish(self._loop.time())
        self._plan()

    def send(self, document: bytes) -> None:
        """Queue an encoded message; ``flush`` sends it."""
        self._peering.send(document)

    def flush(self) -> None:
        """Hand everything queued to the socket."""
        if self._transport is None or self._transport.is_closing():
            return
        if data := self._peering.data_to_send():
            self._transport.write(data)
            if self._transport.get_write_buffer_size() > MAX_UNSENT:
                self.close("the peer does not read", at_once=True)

    def blame(self, reason: str) -> None:
        """See :meth:`Peering.blame`."""
        self._take(self._peering.blame(reason, self._loop.time()))

    def close(self, reason: str, *, at_once: bool = False) -> None:
        """End the connection once what was sent has left, but soon. Safe to call twice."""
        if self._transport is None or self._transport.is_closing():
            return
        self._reason = reason
        if at_once:
            self._transport.abort()
            return
        self.flush()
        self._transport.close()
        self._loop.call_later(_LAST_WORDS_S, self._transport.abort)

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        tls = transport.get_extra_info("ssl_object")
        if tls is not None and (der := tls.getpeercert(binary_form=True)):
            self.certificate = der
            with suppress(CertificateError):  # of the authority's, but no node's
                self.identity = identity_of(der)
        if not self._local:
            self._on_open(self)
        self.flush()
        self._plan()

    def data_received(self, data: bytes) -> None:
        self._take(self._peering.receive(data, self._loop.time()))

    def pause_writing(self) -> None:
        """The peer does not read: do not read from it either, so that nothing piles up."""
        assert self._transport is not None
        self._transport.pause_reading()

    def resume_writing(self) -> None:
        assert self._transport is not None
        self._transport.resume_reading()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
        try:
            self._on_closed(self, self._reason if exc is None else f"{self._reason}: {exc}")
        finally:
            self.closed.set_result(None)

    def _plan(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        due = self._peering.next_timer()
        self._timer = None if due is None else self._loop.call_at(due, self._on_timer)

    def _on_timer(self) -> None:
        self._take(self._peering.handle_timer(self._loop.time()))
        self._plan()

    def _take(self, events: list[PeeringEvent]) -> None:
        for event in events:
            if isinstance(event, Lost):
                self.close(event.reason)
                return
            if self._local and self.identity is None and isinstance(event.body, Hello):
                self.identity = Identity(event.body.name, event.body.role)
                self._on_open(self)
            self._on_message(self, event)
        self.flush()
