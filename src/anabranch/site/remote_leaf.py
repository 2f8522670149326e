"""A leaf server on another machine, reached through the HTTP API of the agent there."""

import asyncio
import binascii
import json
from base64 import b64decode
from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import suppress
from dataclasses import asdict
from math import isfinite
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import structlog

from anabranch.host.process import Child
from anabranch.media.leaf import (
    Feed,
    Inlet,
    KeyFrame,
    Ladder,
    LeafBusyError,
    LeafError,
    LeafUnavailableError,
    OfferError,
    Rung,
    ViewerStatistics,
    Viewing,
    ViewingState,
)
from anabranch.site.leaf_news import PULSE_S, read_feed, read_inlets
from anabranch.site.splice import OutDoor

_TIMEOUT_S = 10.0
_AGAIN_S = 0.2
_START_S = 30.0
_GIVE_UP_S = 60.0
"""Seconds without a word after which its viewers count as gone; until then they may be playing."""
_ERRORS: dict[int, type[LeafError]] = {422: OfferError, 429: LeafBusyError}
_log = structlog.get_logger("anabranch.leaf")


class RemoteLeaf:
    """A :class:`~anabranch.media.leaf.LeafServer` of a guest.

    Args:
        path: Unix socket, made at the start.
        door: from there to the agent's API.
    """

    def __init__(self, name: str, path: Path, door: OutDoor) -> None:
        self.name = name
        self.on_viewing: Callable[[str, ViewingState], None] = lambda _id, _state: None
        self.on_inlets: Callable[[], None] = lambda: None
        self.on_shown: Callable[[str, Feed], None] = lambda _id, _feed: None
        self.on_key_frame: Callable[[Feed], None] = lambda _feed: None
        self._path = path
        self._door = door
        self._client = httpx.AsyncClient(
            transport=httpx.AsyncHTTPTransport(uds=str(path)),
            base_url="http://leaf",
            timeout=_TIMEOUT_S,
        )
        self._ready = asyncio.Event()
        self._abandoned = asyncio.Event()
        self._inlets: frozenset[Inlet] = frozenset()
        self._viewings: set[str] = set()
        self._warm: tuple[Rung, ...] = ()
        self._warming: asyncio.Task[None] | None = None
        self._following: asyncio.Task[None] | None = None
        self._heard_at = 0.0

    @property
    def child(self) -> Child | None:
        return None

    @property
    def ready(self) -> bool:
        return self._ready.is_set()

    def recall(self, viewings: Mapping[str, Feed]) -> None:
        """See :class:`~anabranch.media.leaf.LeafServer`: its viewings end with their director."""
        for viewing_id in viewings:
            self.on_viewing(viewing_id, "gone")

    async def start(self) -> None:
        """Return when it takes viewers.

        Raises:
            LeafUnavailableError: it does not, within 30 s, or its node has left.
        """
        if self._following is None:
            await self._door.open(self._path)
            self._following = asyncio.create_task(self._follow(), name=f"leaf:{self.name}")
        waits = [asyncio.create_task(each.wait()) for each in (self._ready, self._abandoned)]
        try:
            await asyncio.wait(waits, timeout=_START_S, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()
        if not self.ready:
            raise LeafUnavailableError(f"the leaf server of {self.name} does not come up")

    def abandon(self) -> None:
        """Have nobody wait for it to come up: its node has left."""
        self._abandoned.set()

    async def stop(self) -> None:
        tasks = [task for task in (self._following, self._warming) if task is not None]
        self._following = self._warming = None
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._client.aclose()
        await self._door.close()
        self._give_up()

    def inlets(self) -> frozenset[Inlet]:
        return self._inlets

    async def watch(
        self, feed: Feed, offer: str, *, ladder: Ladder = (), pinned: bool = False
    ) -> Viewing:
        """See :class:`~anabranch.media.leaf.LeafServer`."""
        wanted = {**_shows(feed, ladder, pinned=pinned), "offer": offer}
        said = await self._ask("POST", "/viewings", wanted)
        try:
            viewing = Viewing(str(said["id"]), feed, str(said["answer"]))
        except (KeyError, TypeError) as error:
            raise LeafUnavailableError(f"leaf {self.name} answers nonsense") from error
        self._viewings.add(viewing.id)
        return viewing

    async def change(
        self, viewing_id: str, feed: Feed, *, ladder: Ladder = (), pinned: bool = False
    ) -> bool:
        """See :class:`~anabranch.media.leaf.LeafServer`."""
        wanted = _shows(feed, ladder, pinned=pinned)
        said = await self._ask("PUT", _place(viewing_id), wanted)
        return bool(isinstance(said, dict) and said.get("waits"))

    async def statistics(self, viewing_id: str) -> ViewerStatistics | None:
        """See :class:`~anabranch.media.leaf.LeafServer`."""
        try:
            return ViewerStatistics(**await self._ask("GET", _place(viewing_id)))
        except (LeafError, TypeError):
            return None

    async def key_frame(self, feed: Feed) -> KeyFrame | None:
        """See :class:`~anabranch.media.leaf.LeafServer`."""
        place = f"/key_frames/{quote(feed.channel, safe='')}/{quote(feed.rendition, safe='')}"
        try:
            return _read_key_frame(await self._ask("GET", place))
        except LeafError:
            return None

    async def close(self, viewing_id: str) -> None:
        """See :class:`~anabranch.media.leaf.LeafServer`."""
        with suppress(LeafError):
            await self._ask("DELETE", _place(viewing_id))
        self._viewings.discard(viewing_id)

    def keep_warm(self, ladder: Collection[Rung]) -> None:
        """See :class:`~anabranch.media.leaf.LeafServer`."""
        if tuple(ladder) != self._warm:
            self._warm = tuple(ladder)
            self._send_warm()

    def _send_warm(self) -> None:
        if self._warming is not None:
            self._warming.cancel()
        self._warming = asyncio.create_task(self._put_warm(), name=f"warm:{self.name}")

    async def _put_warm(self) -> None:
        with suppress(LeafError):  # it is sent again when the leaf is back
            await self._ask("PUT", "/warm", {"ladder": _rungs(self._warm)})

    async def _ask(self, method: str, path: str, body: object = None) -> Any:
        try:
            answer = await self._client.request(method, path, json=body)
            said = answer.json() if answer.content else None
        except (httpx.HTTPError, ValueError) as error:
            raise LeafUnavailableError(f"leaf {self.name} does not answer") from error
        if answer.is_success:
            return said
        detail = said.get("detail") if isinstance(said, dict) else None
        kind = _ERRORS.get(answer.status_code, LeafUnavailableError)
        raise kind(str(detail or f"leaf {self.name} answers {answer.status_code}"))

    async def _follow(self) -> None:
        """Hear what the leaf has to say, for ever."""
        loop = asyncio.get_running_loop()
        self._heard_at = loop.time()
        while True:
            try:
                await self._hear()
            except (httpx.HTTPError, ValueError, TypeError, AttributeError) as error:
                _log.debug("leaf.away", leaf=self.name, error=repr(error))
            self._ready.clear()
            if loop.time() - self._heard_at > _GIVE_UP_S:
                self._give_up()
            await asyncio.sleep(_AGAIN_S)

    async def _hear(self) -> None:
        loop = asyncio.get_running_loop()
        timeout = httpx.Timeout(_TIMEOUT_S, read=3 * PULSE_S)
        async with self._client.stream("GET", "/news", timeout=timeout) as answer:
            answer.raise_for_status()
            async for line in answer.aiter_lines():
                self._take(json.loads(line))
                self._heard_at = loop.time()

    def _take(self, news: dict[str, Any]) -> None:
        states = news.get("viewings", {})
        if news.get("whole"):
            for viewing in self._viewings - states.keys():
                self._gone(viewing)
        for viewing, state in states.items():
            if state == "gone":
                self._gone(viewing)
            else:
                self._viewings.add(viewing)
                if state == "up":
                    self.on_viewing(viewing, "up")
        if "inlets" in news:
            inlets = read_inlets(news["inlets"])
            if inlets != self._inlets:
                self._inlets = inlets
                self.on_inlets()
        for viewing, feed in news.get("shown", {}).items():
            self.on_shown(viewing, read_feed(feed))
        for feed in news.get("key_frames", ()):
            self.on_key_frame(read_feed(feed))
        if news.get("whole") and self._warm:
            self._send_warm()
        if (ready := news.get("ready")) is not None:
            (self._ready.set if ready else self._ready.clear)()

    def _gone(self, viewing: str) -> None:
        if viewing in self._viewings:
            self._viewings.discard(viewing)
            self.on_viewing(viewing, "gone")

    def _give_up(self) -> None:
        self._ready.clear()
        for viewing in list(self._viewings):
            self._gone(viewing)
        if self._inlets:
            self._inlets = frozenset()
            self.on_inlets()


def _shows(feed: Feed, ladder: Ladder, *, pinned: bool) -> dict[str, Any]:
    return {**asdict(feed), "ladder": _rungs(ladder), "pinned": pinned}


def _rungs(ladder: Iterable[Rung]) -> list[dict[str, Any]]:
    return [{**asdict(rung.feed), "kbps": rung.kbps} for rung in ladder]


def _read_key_frame(said: Any) -> KeyFrame | None:
    """Understand what a node says of a key frame; what cannot be one is none."""
    try:
        annex_b, age_s = b64decode(said["annex_b"], validate=True), float(said["age_s"])
    except (KeyError, TypeError, ValueError, OverflowError, binascii.Error):
        return None
    return KeyFrame(annex_b, age_s) if annex_b and isfinite(age_s) and age_s >= 0 else None


def _place(viewing_id: str) -> str:
    return f"/viewings/{quote(viewing_id, safe='')}"
