"""One switch's connection under asyncio: moves bytes and time between a socket and a Session."""

import asyncio
from collections.abc import Callable
from typing import Any, cast

from anabranch.fabric.errors import DisconnectedError, FabricError, ProtocolError
from anabranch.fabric.openflow.messages import (
    VERSIONS,
    BarrierReply,
    BundleControl,
    BundleType,
    ControllerRole,
    Entry,
    MultipartRequest,
    Request,
    RoleReply,
)
from anabranch.fabric.openflow.session import Answer, Lost, Refused, Session, SessionEvent

_LAST_WORDS = 1.0  # seconds that the final ERROR may take to reach the peer


class Connection(asyncio.Protocol):
    """The adapter of one :class:`Session`.

    Args:
        name: the switch, where the listener knows it; else None until somebody sets it.
        on_event: called for each event that is neither Lost nor the answer to a request; must not
            block.
        on_closed: called once at the end with the reason; a ProtocolError if the peer is to blame.
        timeout: seconds within which a switch answers a request.
        versions: see :class:`Session`.
    """

    def __init__(
        self,
        name: str | None,
        on_event: Callable[["Connection", SessionEvent], None],
        on_closed: Callable[["Connection", FabricError], None],
        timeout: float,
        versions: frozenset[int] = VERSIONS,
    ) -> None:
        self.name = name
        self._on_event = on_event
        self._on_closed = on_closed
        self._timeout = timeout
        self._loop = asyncio.get_running_loop()
        self._session = Session(self._loop.time(), versions=versions)
        self._transport: asyncio.Transport | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._answers: dict[int, asyncio.Future[Any]] = {}
        self._reason: FabricError = DisconnectedError("the switch closed the connection")
        self.closed: asyncio.Future[None] = self._loop.create_future()

    @property
    def version(self) -> int:
        """See :attr:`Session.version`."""
        return self._session.version

    @property
    def hot(self) -> Callable[[bytes], bytes | None] | None:
        """See :attr:`Session.hot`."""
        return self._session.hot

    @hot.setter
    def hot(self, hook: Callable[[bytes], bytes | None] | None) -> None:
        self._session.hot = hook

    def send(self, message: Request, about: str) -> int:
        """Queue ``message`` and return its xid; it leaves with the next request or ``flush``.

        Raises:
            DisconnectedError: the connection is closed.
        """
        if self._transport is None or self._transport.is_closing():
            raise DisconnectedError(f"{self.name} is not connected")
        return self._session.send(message, about)

    def flush(self) -> None:
        """Hand everything queued to the socket and look at the clock anew."""
        if self._transport is not None and (data := self._session.data_to_send()):
            self._transport.write(data)
        if self._timer is not None:
            self._timer.cancel()
        due = self._session.next_timer()
        self._timer = None if due is None else self._loop.call_at(due, self._on_timer)

    async def barrier(self) -> None:
        """Return when the switch has done everything sent so far.

        Raises:
            DisconnectedError: the connection ended first.
            FabricError: the switch did not answer in time; the connection is closed then.
        """
        self._check_open()
        await self._answer(self._session.barrier())

    async def ask(self, request: MultipartRequest) -> tuple[Entry, ...]:
        """Return all entries of the answer. Raises as :meth:`barrier`, or if it is refused."""
        self._check_open()
        entries: tuple[Entry, ...] = await self._answer(self._session.ask(request))
        return entries

    async def set_role(self, role: ControllerRole, generation_id: int) -> RoleReply:
        """Ask for a role and return the one that the switch gives.

        Raises as :meth:`barrier`, or if it is refused: a newer ``generation_id`` is known.
        """
        self._check_open()
        reply: RoleReply = await self._answer(self._session.ask_role(role, generation_id))
        return reply

    async def commit(self, bundle_id: int, flags: int) -> None:
        """Execute an open bundle and return when that is done.

        Raises as :meth:`barrier`, or if it is refused: then nothing of it was executed.
        """
        self._check_open()
        request = BundleControl(bundle_id, BundleType.COMMIT_REQUEST, flags)
        await self._answer(self._session.send(request, f"bundle {bundle_id}"))

    def close(self, reason: FabricError, *, last_words: bool = False) -> None:
        """End the connection; ``on_closed`` gets ``reason``. Safe to call twice."""
        if self._transport is None or self._transport.is_closing():
            return
        self._reason = reason
        self.flush()
        if last_words:
            self._transport.close()
            self._loop.call_later(_LAST_WORDS, self._transport.abort)
        else:
            self._transport.abort()

    async def _answer(self, xid: int) -> Any:
        answer: asyncio.Future[Any] = self._loop.create_future()
        self._answers[xid] = answer
        self.flush()
        try:
            async with asyncio.timeout(self._timeout):
                return await answer
        except TimeoutError:
            late = FabricError(f"{self.name} did not answer within {self._timeout:g} s")
            self.close(late)
            raise late from None
        finally:
            self._answers.pop(xid, None)

    def _check_open(self) -> None:
        if self._transport is None or self._transport.is_closing():
            raise DisconnectedError(f"{self.name} is not connected")

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self.flush()

    def data_received(self, data: bytes) -> None:
        try:
            events = self._session.receive(data, self._loop.time())
        except ProtocolError as error:
            self.close(error, last_words=True)
            return
        for event in events:
            self._handle(event)
        self.flush()

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
        for answer in self._answers.values():
            if not answer.done():
                answer.set_exception(DisconnectedError(f"{self.name}: {self._reason}"))
        try:
            self._on_closed(self, self._reason)
        finally:
            self.closed.set_result(None)

    def _on_timer(self) -> None:
        for event in self._session.handle_timer(self._loop.time()):
            self._handle(event)
        self.flush()

    def _handle(self, event: SessionEvent) -> None:
        match event:
            case Answer(xid=xid, entries=entries):
                self._resolve(xid, entries)
            case BarrierReply(xid=xid) | RoleReply(xid=xid) | BundleControl(xid=xid):
                self._resolve(xid, event)
            case Lost(reason):
                self.close(DisconnectedError(reason))
            case Refused(xid=xid):
                answer = self._answers.get(xid)
                if answer is not None and not answer.done():
                    answer.set_exception(FabricError(f"{self.name} {refusal(event)}"))
                self._on_event(self, event)
            case _:
                self._on_event(self, event)

    def _resolve(self, xid: int, result: Any) -> None:
        answer = self._answers.get(xid)
        if answer is not None and not answer.done():
            answer.set_result(result)


def refusal(event: Refused) -> str:
    """Return a refusal as the rest of a sentence that begins with the switch's name."""
    request = event.request or f"request {event.xid}"
    reason = f": {event.reason}" if event.reason else ""
    return f"refused {request}{reason} (error type {event.type}, code {event.code})"
