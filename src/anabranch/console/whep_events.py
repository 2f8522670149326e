"""Server-sent events of a seat: the extension of the WHEP draft's "Core Extensions".

A client POSTs which events it wants and GETs the stream that is made. What is sent is a state, not
a history: all of it when a stream is opened (again), then what has changed.
"""

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterable, Iterator
from contextlib import aclosing, contextmanager
from dataclasses import dataclass, field
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Response
from fastapi.sse import EventSourceResponse, ServerSentEvent
from pydantic import Field

from anabranch.channels.seats import Seat
from anabranch.core.errors import NotFoundError, TooManyError
from anabranch.core.names import new_id
from anabranch.site.site import Site

RELATION = "urn:ietf:params:whep:ext:core:server-sent-events"
EVENTS = (
    *("active", "inactive", "layers", "viewercount", "reconnect"),  # the draft's
    *("channel", "caption", "ended"),  # ours
)
_STREAMS = 4
"""Streams that one seat may have."""
_PULSE_S = 0.1
"""Seconds between two looks at what has changed."""
_COUNT_S = 1.0
"""Seconds between two counts of the viewers."""

Told = dict[str, tuple[str, dict[str, Any]]]
"""Events by what they are about: of ``active`` and ``inactive`` only one is true."""


def video_section(sdp: str) -> int:
    """Return which of an offer's media sections is the first with video, from 0."""
    kinds = [line[2:].partition(" ")[0] for line in sdp.splitlines() if line.startswith("m=")]
    return kinds.index("video") if "video" in kinds else 0


@dataclass(slots=True, eq=False)
class Stream:
    """An event stream; ``reading`` numbers the requests that read it: the newest one gets it."""

    seat: Seat
    section: int
    wanted: frozenset[str]
    told: Told = field(default_factory=dict)
    stale: asyncio.Event = field(default_factory=asyncio.Event)
    reading: int = 0


class EventStreams:
    """The event streams of all seats of a site."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self._streams: dict[str, Stream] = {}
        self._viewers: Counter[str] = Counter()
        self._stale = asyncio.Event()
        self._readers = 0
        self._tasks: list[asyncio.Task[None]] = []

    def open(self, seat_id: str, section: int, wanted: frozenset[str]) -> str:
        """Make a stream for a seat and return its name; who knows it may read and close it.

        Raises:
            NotFoundError: there is no such seat, or no longer.
            TooManyError: the seat has as many streams as it may.
        """
        seat = self._site.seats.get(seat_id)
        for name, stream in list(self._streams.items()):
            if not self._is_open(stream):
                del self._streams[name]
        if sum(stream.seat is seat for stream in self._streams.values()) >= _STREAMS:
            raise TooManyError(f"a seat has at most {_STREAMS} event streams")
        name = new_id()
        self._streams[name] = Stream(seat, section, wanted)
        return name

    def get(self, seat_id: str, name: str) -> Stream:
        """Return a stream.

        Raises:
            NotFoundError: there is none, it was closed, or its seat has ended.
        """
        stream = self._streams.get(name)
        if stream is None or stream.seat.id != seat_id or not self._is_open(stream):
            raise NotFoundError("there is no such event stream, or no longer")
        return stream

    def close(self, seat_id: str, name: str) -> None:
        """End a stream. Raises NotFoundError as :meth:`get`."""
        stream = self.get(seat_id, name)
        del self._streams[name]
        stream.reading += 1
        stream.stale.set()

    async def read(self, stream: Stream) -> AsyncGenerator[tuple[str, dict[str, Any]], None]:
        """Yield what is so now, then what changes, until the seat or the stream ends."""
        stream.reading += 1
        stream.told = {}
        mine = stream.reading
        stream.stale.set()
        with self._following():
            while True:
                await stream.stale.wait()
                stream.stale.clear()
                if mine != stream.reading:
                    return
                if not self._is_open(stream):
                    end = self._end_of(stream)
                    if end[0] in stream.wanted:
                        yield end
                    return
                now, before = self._state(stream), stream.told
                stream.told = now
                for about, event in now.items():
                    if event != before.get(about) and event[0] in stream.wanted:
                        yield event

    def _is_open(self, stream: Stream) -> bool:
        seat = stream.seat
        return self._site.seats.at(seat.leaf, seat.viewing) is seat

    def _state(self, stream: Stream) -> Told:
        seat = stream.seat
        try:
            channel = self._site.channel(seat.channel)
        except NotFoundError:
            return stream.told  # its seats are about to end
        told: Told = {
            "channel": (
                "channel",
                {"channel": channel.name, "title": channel.title, "rendition": seat.rendition},
            ),
            "layers": ("layers", {str(stream.section): self._layers(seat.rendition)}),
            "viewers": ("viewercount", {"viewercount": self._viewers[seat.channel]}),
        }
        said = self._site.captions.of(channel)
        if said is not None:
            about = {"id": said.id, "text": said.text, "duration_s": said.duration_s}
            told["caption"] = ("caption", about)
        # Nobody is told that nothing is there who was never told that something is.
        if channel.state == "live":
            told["source"] = ("active", {})
        elif "source" in stream.told:
            told["source"] = ("inactive", {})
        return told

    def _layers(self, sent: str) -> list[dict[str, Any]]:
        return [
            {
                "rid": each.name,
                "width": each.width,
                "height": each.height,
                "bitrate": each.bitrate_kbps * 1000,
                "sent": each.name == sent,
            }
            for each in self._site.settings.ladder
        ]

    def _end_of(self, stream: Stream) -> tuple[str, dict[str, Any]]:
        if stream.seat.barred:
            return "ended", {}
        try:
            name = self._site.channel(stream.seat.channel).name
        except NotFoundError:
            return "ended", {}
        return "reconnect", {"url": f"/whep/{name}"}

    # --- what has changed -----------------------------------------------------------------------

    @contextmanager
    def _following(self) -> Iterator[None]:
        """Follow the site as long as anybody reads."""
        self._readers += 1
        if self._readers == 1:
            self._viewers = self._site.seats.per_channel()
            self._tasks = [asyncio.ensure_future(each) for each in (self._listen(), self._look())]
        try:
            yield
        finally:
            self._readers -= 1
            if not self._readers:
                for task in self._tasks:
                    task.cancel()

    async def _listen(self) -> None:
        async with aclosing(self._site.happenings()) as happening:
            async for event in happening:
                if event.kind.startswith(("channel.", "seat.", "caption.")):
                    self._stale.set()

    async def _look(self) -> None:
        """Wake the readers of streams that have something to say, and nobody else."""
        loop = asyncio.get_running_loop()
        counted = loop.time()
        while True:
            await self._stale.wait()
            self._stale.clear()
            if loop.time() - counted >= _COUNT_S:
                self._viewers = self._site.seats.per_channel()
                counted = loop.time()
            else:
                loop.call_at(counted + _COUNT_S, self._stale.set)
            for name, stream in list(self._streams.items()):
                if not self._is_open(stream):
                    del self._streams[name]
                    stream.stale.set()
                elif self._state(stream) != stream.told:
                    stream.stale.set()
            await asyncio.sleep(_PULSE_S)


Names = Annotated[list[Annotated[str, Field(max_length=40)]], Field(max_length=32)]


def make_router(site: Site) -> APIRouter:
    """Return the routes under a seat's ``/sse``."""
    streams = EventStreams(site)
    router = APIRouter(prefix="/whep/{channel}/{seat}/sse", tags=["WHEP"])

    @router.post(
        "",
        status_code=201,
        response_class=Response,
        responses={
            404: {"description": "No such seat."},
            429: {"description": "The seat has as many event streams as it may."},
        },
    )
    async def subscribe(
        channel: str,
        seat: str,
        names: Names | None = None,
        section: Annotated[int, Query(ge=0, le=63)] = 0,
    ) -> Response:
        """Make an event stream; the body names the events that are wanted, none: all of them."""
        name = streams.open(seat, section, frozenset(EVENTS if names is None else names))
        place = f"/whep/{channel}/{seat}/sse/{name}"
        return Response(status_code=201, headers={"Location": place, "Cache-Control": "no-store"})

    def stream_of(seat: str, stream: str) -> Stream:
        return streams.get(seat, stream)

    @router.get(
        "/{stream}",
        response_class=EventSourceResponse,
        responses={404: {"description": "No such event stream, or no longer."}},
    )
    async def read(
        channel: str, found: Annotated[Stream, Depends(stream_of)]
    ) -> AsyncIterable[ServerSentEvent]:
        """Read an event stream."""
        async with aclosing(streams.read(found)) as events:
            async for name, data in events:
                yield ServerSentEvent(event=name, data=data)

    @router.delete("/{stream}", responses={404: {"description": "No such event stream."}})
    async def close(channel: str, seat: str, stream: str) -> Response:
        """End an event stream."""
        streams.close(seat, stream)
        return Response(status_code=200)

    return router
