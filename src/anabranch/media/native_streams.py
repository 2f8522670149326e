"""Keeps the streams that the leaf server of our own knows in step with a leaf's inlets."""

import asyncio
from collections.abc import Callable, Coroutine, Iterable, Mapping
from types import MappingProxyType
from typing import Any, TypeVar

import structlog

from anabranch.media.inlets import Inlets, Stream
from anabranch.media.leaf import Feed, LeafError, LeafUnavailableError
from anabranch.media.leaf_client import LeafClient
from anabranch.media.leaf_protocol import Message, RefusedError
from anabranch.media.rendition import AUDIO

_AGAIN_S = 0.5
_NONE: Mapping[int, str | None] = MappingProxyType({})
_CLOCKS = {"video": 90000, "audio": 48000}
_log = structlog.get_logger("anabranch.leaf")

_T = TypeVar("_T")

Adding = asyncio.Task[LeafError | None]
"""Ends when a stream can arrive, or with why it cannot."""


class Streams:
    """Adds and removes.

    Args:
        inlets: what is wanted.
        address: where streams arrive.
        on_moved: called when streams have other ports, as their own could not be had.
        ring_bytes: returns the limit of a stream's ring; None: the server's own.
    """

    def __init__(
        self,
        inlets: Inlets,
        address: str,
        on_moved: Callable[[], None],
        *,
        ring_bytes: Callable[[Stream], int | None] = lambda _stream: None,
    ) -> None:
        self._inlets = inlets
        self._address = address
        self._on_moved = on_moved
        self._ring_bytes = ring_bytes
        self._parent: str | None = None
        self._asks: dict[int, str | None] = {}
        self._client: LeafClient | None = None
        self._there: dict[int, Adding | None] = {}
        self._tasks: set[asyncio.Task[Any]] = set()
        self._again: asyncio.TimerHandle | None = None

    def follow(self, client: LeafClient | None, there: Mapping[int, str | None] = _NONE) -> None:
        """Speak to this server from now on.

        Args:
            client: its connection; None: there is none.
            there: the streams that it knows already, and whom it asks for their lost packets.
        """
        self._client = client
        self._there = dict.fromkeys(there)
        self._asks = dict(there)
        if self._again is not None:
            self._again.cancel()
            self._again = None
        self.apply()

    def ask(self, parent: str | None) -> None:
        """Have lost packets of all streams asked for at ``address:port``, or nowhere."""
        if parent != self._parent:
            self._parent = parent
            self.apply()

    def apply(self) -> None:
        """Tell the server what has changed; without one, the next is told."""
        client = self._client
        if client is None:
            return
        wanted = self._inlets.streams()
        try:
            for number in self._there.keys() - wanted.keys():
                del self._there[number]
                self._asks.pop(number, None)
                self._spawn(_removed(number, client.request("stream.remove", stream=number)))
            for number in sorted(wanted.keys() - self._there.keys()):
                reply = client.request("stream.add", **self._described(wanted[number]))
                self._asks[number] = self._parent
                self._there[number] = self._spawn(self._added(client, wanted[number], reply))
            for number, parent in self._asks.items():
                if parent != self._parent:
                    self._asks[number] = self._parent
                    reply = client.request("stream.parent", stream=number, parent=self._parent)
                    self._spawn(_hung(number, reply))
        except LeafUnavailableError:
            return  # it has gone, which is about to be told

    def adding(self, feed: Feed) -> list[Adding]:
        """Return what is under way for a feed; see :func:`until_added`."""
        numbers = (self._inlets.number(feed), self._inlets.number(Feed(feed.channel, AUDIO)))
        return [task for number in numbers if (task := self._there.get(number)) is not None]

    def _described(self, stream: Stream) -> Message:
        limit = self._ring_bytes(stream)
        return {
            "stream": stream.number,
            "kind": stream.kind,
            "address": self._address,
            "port": stream.port,
            "name": stream.name,
            "group": stream.channel,
            "clock": _CLOCKS[stream.kind],
            "kbps": stream.kbps,
            **({} if limit is None else {"max_bytes": limit}),
            **({} if self._parent is None else {"parent": self._parent}),
        }

    async def _added(
        self, client: LeafClient, stream: Stream, reply: Coroutine[Any, Any, Message]
    ) -> LeafError | None:
        try:
            await reply
        except LeafError as error:
            if client is self._client:
                _log.warning("stream.refused", stream=stream.name, error=str(error))
                self._there.pop(stream.number, None)
                self._asks.pop(stream.number, None)
                self._try_again(stream, elsewhere=isinstance(error, RefusedError))
            return error
        return None

    def _try_again(self, stream: Stream, *, elsewhere: bool) -> None:
        if elsewhere:
            try:
                self._inlets.move(stream.number)
            except LeafUnavailableError as error:
                _log.warning("stream.refused", stream=stream.name, error=str(error))
        if self._again is None:
            self._again = asyncio.get_running_loop().call_later(_AGAIN_S, self._moved)

    def _moved(self) -> None:
        self._again = None
        self._on_moved()

    def _spawn(self, work: Coroutine[Any, Any, _T]) -> "asyncio.Task[_T]":
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task


async def until_added(adding: Iterable[Adding]) -> None:
    """Return when all of these streams can arrive.

    Raises:
        LeafUnavailableError: one cannot, at present.
    """
    for task in adding:
        error = await asyncio.shield(task)
        if error is not None:
            raise LeafUnavailableError(str(error)) from error


async def _hung(number: int, reply: Coroutine[Any, Any, Message]) -> None:
    try:
        await reply
    except RefusedError as error:
        _log.warning("stream.not_repaired", stream=number, error=str(error))
    except LeafError:
        return  # who comes after it is told anew


async def _removed(number: int, reply: Coroutine[Any, Any, Message]) -> None:
    try:
        await reply
    except RefusedError as error:
        _log.warning("stream.stays", stream=number, error=str(error))
    except LeafError:
        return  # it is gone with its server, or found there by the next connection
