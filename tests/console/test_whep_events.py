"""Server-sent events of a seat, over a real connection: in memory a client cannot go away."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
from tests.console.conftest import KEY, OFFER, TOKEN, add_channel
from tests.console.test_api import Served
from tests.console.test_whep import SDP, readable
from tests.console.test_whep_change import links

from anabranch.channels.channel import Channel
from anabranch.channels.definitions import Definition
from anabranch.channels.seats import Seat
from anabranch.console.api import make_app
from anabranch.console.whep import CHANGE
from anabranch.console.whep_events import EVENTS, RELATION, video_section
from anabranch.core.events import Event
from anabranch.site.site import Site

Said = tuple[str, dict[str, Any]]


class Viewer:
    """A viewer of ``news`` and what its answer links to."""

    def __init__(self, client: httpx.AsyncClient, place: str, linked: dict[str, str]) -> None:
        self.client = client
        self.place = place
        self.events = linked[RELATION]
        self.change = linked[CHANGE]

    async def subscribe(self, *names: str) -> str:
        answer = await self.client.post(self.events, json=list(names) or None)
        readable(answer, 201)
        place: str = answer.headers["location"]
        return place

    @asynccontextmanager
    async def reading(self, place: str) -> AsyncIterator["Reader"]:
        async with self.client.stream("GET", place) as answer:
            assert answer.status_code == 200
            assert answer.headers["content-type"].startswith("text/event-stream")
            yield Reader(answer)


class Reader:
    """Reads events as WHATWG's rules say."""

    def __init__(self, answer: httpx.Response) -> None:
        self._lines = answer.aiter_lines()

    async def next(self, limit_s: float = 5.0) -> Said | None:
        """Return the next event, None at the end of the stream."""
        fields: dict[str, str] = {}
        async with asyncio.timeout(limit_s):
            async for line in self._lines:
                name, _, value = line.partition(":")
                if name:
                    fields[name] = value.strip()
                elif fields:
                    if "event" in fields:
                        return fields["event"], json.loads(fields["data"])
                    fields = {}
        return None

    async def until(self, name: str) -> dict[str, Any]:
        while (said := await self.next()) is not None:
            if said[0] == name:
                return said[1]
        raise AssertionError(f"the stream ended without {name}")


@pytest.fixture
async def viewer(site: Site) -> AsyncIterator[Viewer]:
    add_channel(site, Definition("sports", "Sports", "rtmp", False, KEY[::-1], 2))
    served = Served(make_app(site, token=TOKEN))
    try:
        async with httpx.AsyncClient(base_url=served.url) as client:
            answer = await client.post("/whep/news", content=OFFER, headers=SDP)
            place = answer.headers["location"]
            yield Viewer(client, place, links(answer.headers["link"]))
    finally:
        await served.stop()


async def test_all_that_is_so_is_told_first(viewer: Viewer, site: Site) -> None:
    async with viewer.reading(await viewer.subscribe()) as reader:
        said = dict([await reader.next() for _ in range(3)])  # type: ignore[misc]
    assert said["channel"] == {
        "channel": "news",
        "title": "The <b>news</b>",
        "rendition": "high",
    }
    assert said["viewercount"] == {"viewercount": 1}
    assert [(each["rid"], each["sent"]) for each in said["layers"]["0"]] == [
        ("high", True),
        ("low", False),
    ]


async def test_a_change_is_told_and_what_stays_the_same_is_not(viewer: Viewer) -> None:
    async with viewer.reading(await viewer.subscribe("channel", "layers")) as reader:
        assert {(await reader.next())[0] for _ in range(2)} == {"channel", "layers"}  # type: ignore[index]
        await viewer.client.post(viewer.change, json={"channel": "sports"})
        said = await reader.next()
        assert said == ("channel", {"channel": "sports", "title": "Sports", "rendition": "high"})
        await viewer.client.post(viewer.change, json={"channel": "sports", "rendition": "low"})
        layers = await reader.until("layers")
        assert [each["sent"] for each in layers["0"]] == [False, True]


async def test_a_source_that_comes_and_goes(
    viewer: Viewer, site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = await viewer.subscribe("active", "inactive")
    async with viewer.reading(place) as reader:
        with pytest.raises(TimeoutError):  # no inactive before the first active
            await reader.next(0.4)
    async with viewer.reading(place) as reader:
        for state, name in (("live", "active"), ("slate", "inactive"), ("live", "active")):
            monkeypatch.setattr(Channel, "state", state)
            site.events.publish(Event(f"channel.{state}", "news"))
            assert await reader.next() == (name, {})


async def test_viewers_are_counted(viewer: Viewer, site: Site) -> None:
    async with viewer.reading(await viewer.subscribe("viewercount")) as reader:
        assert await reader.next() == ("viewercount", {"viewercount": 1})
        for number in range(5):
            site.seats.add(Seat("news", "high", "leaf1", f"x{number}"))
            site.events.publish(Event("seat.taken", "news"))
        said = await reader.next()
        while said is not None and said[1]["viewercount"] < 6:
            said = await reader.next()
        assert said == ("viewercount", {"viewercount": 6})


async def test_a_seat_that_is_ended_by_the_server_reconnects(viewer: Viewer, site: Site) -> None:
    (seat,) = site.seats
    place = await viewer.subscribe("reconnect")
    async with viewer.reading(place) as reader:
        await site.end(seat)
        assert await reader.next() == ("reconnect", {"url": "/whep/news"})
        assert await reader.next() is None
    readable(await viewer.client.get(place), 404)


async def test_a_channel_that_is_removed_ends_it(viewer: Viewer, site: Site) -> None:
    (seat,) = site.seats
    async with viewer.reading(await viewer.subscribe()) as reader:
        assert await reader.next() is not None
        del site.lineup.channels["news"]
        await site.end(seat)
        assert await reader.until("ended") == {}


async def test_a_stream_that_is_closed_is_gone(viewer: Viewer) -> None:
    place = await viewer.subscribe("channel")
    async with viewer.reading(place) as reader:
        await reader.until("channel")
        readable(await viewer.client.delete(place), 200)
        assert await reader.next() is None
    readable(await viewer.client.delete(place), 404)
    readable(await viewer.client.get(place), 404)


async def test_who_reads_it_again_takes_it_over_and_is_told_all(viewer: Viewer) -> None:
    place = await viewer.subscribe("channel")
    async with viewer.reading(place) as first:
        await first.until("channel")
        async with viewer.reading(place) as second:
            assert (await second.until("channel"))["channel"] == "news"
            assert await first.next() is None


async def test_the_site_is_followed_only_while_somebody_reads(viewer: Viewer, site: Site) -> None:
    place = await viewer.subscribe()
    assert not site.events._queues
    async with viewer.reading(place) as reader:
        await reader.next()
        async with asyncio.timeout(2):
            while len(site.events._queues) != 1:
                await asyncio.sleep(0.01)
    async with asyncio.timeout(2):
        while site.events._queues:
            await asyncio.sleep(0.01)


async def test_what_cannot_be_subscribed_to_is_refused(viewer: Viewer) -> None:
    for body in ('{"a": 1}', "[1]", "x", json.dumps(["x" * 50]), json.dumps(["active"] * 40)):
        kind = {"Content-Type": "application/json"}
        readable(await viewer.client.post(viewer.events, content=body, headers=kind), 422)
    readable(await viewer.client.post("/whep/news/nobody/sse", json=["active"]), 404)
    for _ in range(4):
        await viewer.subscribe("nonsense")
    readable(await viewer.client.post(viewer.events, json=[]), 429)


def test_the_section_with_video_is_found() -> None:
    assert video_section(OFFER) == 0
    assert video_section("v=0\r\nm=audio 9 X\r\nm=video 9 X\r\nm=video 9 X\r\n") == 1
    assert video_section("m=audio 9 X\r\n") == 0
    assert {"active", "inactive", "layers", "viewercount", "reconnect"} <= set(EVENTS)


async def test_the_one_who_manages_sends_and_viewers_are_told(viewer: Viewer, site: Site) -> None:
    operator = {"Authorization": f"Bearer {TOKEN}"}
    place = await viewer.subscribe("caption")
    send = "/api/channels/news/captions"
    markup = "<img src=x onerror=alert(1)>"
    async with viewer.reading(place) as reader:
        with pytest.raises(TimeoutError):
            await reader.next(0.3)
    async with viewer.reading(place) as reader:
        answer = await viewer.client.post(
            send, json={"text": markup, "duration_s": 20}, headers=operator
        )
        assert (answer.status_code, answer.json()) == (200, {"text": markup, "duration_s": 20})
        said = await reader.next()
        assert said is not None
        assert (said[0], said[1]["text"], said[1]["duration_s"]) == ("caption", markup, 20)
        # The other channel has none; back on this one it is told anew, since it still stands.
        await viewer.client.post(viewer.change, json={"channel": "sports"})
        await viewer.client.post(
            "/api/channels/sports/captions", json={"text": "Goal!"}, headers=operator
        )
        assert (await reader.until("caption"))["text"] == "Goal!"
        await viewer.client.post(viewer.change, json={"channel": "news"})
        assert (await reader.until("caption"))["text"] == markup
    async with viewer.reading(place) as late:
        assert (await late.until("caption"))["text"] == markup
    listed = (await viewer.client.get("/api/channels/news")).json()
    assert listed["captions"] is True
