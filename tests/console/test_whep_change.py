"""Another channel over the connection that there is: the extension of ours."""

import asyncio
import re

import httpx
import pytest
from tests.console.conftest import KEY, MemoryLeaf, add_channel
from tests.console.test_whep import offer, readable

from anabranch.channels.definitions import Definition
from anabranch.console.whep import CHANGE
from anabranch.media.leaf import Feed, LeafUnavailableError
from anabranch.site.changes import BURST
from anabranch.site.site import Site


def links(header: str) -> dict[str, str]:
    """Return the targets of a Link header by relation."""
    return {rel: to for to, rel in re.findall(r'<([^>]*)>; rel="([^"]*)"', header)}


@pytest.fixture
async def place(client: httpx.AsyncClient, site: Site) -> str:
    """Where a viewer of ``news`` changes the channel; there are ``sports``, too."""
    add_channel(site, Definition("sports", "Sports", "rtmp", False, KEY[::-1], 2))
    return links((await offer(client)).headers["link"])[CHANGE]


async def test_a_viewer_sees_another_channel(
    client: httpx.AsyncClient, site: Site, leaf: MemoryLeaf, place: str
) -> None:
    (seat,) = site.seats
    assert place == f"/whep/news/{seat.id}/change"
    answer = await client.post(place, json={"channel": "sports"})
    readable(answer, 200)
    assert answer.json() == {"channel": "sports", "rendition": "high", "waits": True}
    assert leaf.viewings == {seat.viewing: Feed("sports", "high")}
    assert site.seats.per_channel() == {"sports": 1}
    ladder, pinned = leaf.told[seat.viewing]
    assert [rung.feed for rung in ladder] == [Feed("sports", "high"), Feed("sports", "low")]
    assert not pinned
    seats = await client.get("/api/channels")
    assert {c["name"]: c["viewers"] for c in seats.json()["channels"]} == {"news": 0, "sports": 1}
    # Its address stays what it was.
    readable(await client.delete(f"/whep/news/{seat.id}"), 200)
    assert leaf.viewings == {}


async def test_a_rendition_that_is_asked_for_stays(
    client: httpx.AsyncClient, site: Site, leaf: MemoryLeaf, place: str
) -> None:
    (seat,) = site.seats
    answer = await client.post(place, json={"channel": "sports", "rendition": "low"})
    assert answer.json()["rendition"] == "low"
    assert leaf.told[seat.viewing][1]
    # Without a name it is the best that the viewer was to see.
    answer = await client.post(place, json={"channel": "news", "rendition": None})
    assert answer.json()["rendition"] == "low"
    assert not leaf.told[seat.viewing][1]


async def test_it_is_told_once_and_only_if_something_changes(
    client: httpx.AsyncClient, site: Site, place: str
) -> None:
    for _ in range(2):
        readable(await client.post(place, json={"channel": "sports"}), 200)
    told = [event for event in site.log.waiting if event.kind == "seat.changed"]
    assert [(event.subject, dict(event.data)) for event in told] == [
        ("sports", {"leaf": "leaf1", "from": "news/high", "to": "sports/high"})
    ]


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ('{"channel": "other"}', 404),
        ('{"channel": "sports", "rendition": "huge"}', 404),
        ('{"channel": 7}', 422),
        ('{"rendition": "low"}', 422),
        ('["sports"]', 422),
        ('{"channel": "' + "x" * 300 + '"}', 422),
        ("", 422),
        ("{", 422),
        ("x" * 200_000, 413),
    ],
)
async def test_what_cannot_be_is_refused_and_changes_nothing(
    client: httpx.AsyncClient, site: Site, leaf: MemoryLeaf, place: str, body: str, status: int
) -> None:
    kind = {"Content-Type": "application/json"}
    readable(await client.post(place, content=body, headers=kind), status)
    (seat,) = site.seats
    assert (
        leaf.viewings
        == {seat.viewing: Feed("news", "high")}
        == {seat.viewing: Feed(seat.channel, seat.rendition)}
    )


async def test_a_seat_that_has_ended_cannot_change(
    client: httpx.AsyncClient, site: Site, place: str
) -> None:
    readable(await client.post("/whep/news/nobody/change", json={"channel": "sports"}), 404)
    readable(await client.delete(place.removesuffix("/change")), 200)
    readable(await client.post(place, json={"channel": "sports"}), 404)
    assert not site.changes._turns


async def test_a_leaf_that_is_gone_is_503(
    client: httpx.AsyncClient, site: Site, leaf: MemoryLeaf, place: str
) -> None:
    leaf.fails = LeafUnavailableError("it restarts")
    answer = await client.post(place, json={"channel": "sports"})
    readable(answer, 503)
    assert answer.headers["retry-after"] == "1"
    leaf.fails = None
    site.leaves.clear()
    readable(await client.post(place, json={"channel": "sports"}), 503)
    assert [seat.channel for seat in site.seats] == ["news"]


async def test_a_storm_is_429_and_when_to_come_back(
    client: httpx.AsyncClient, leaf: MemoryLeaf, place: str
) -> None:
    answers = [await client.post(place, json={"channel": "sports"}) for _ in range(int(BURST))]
    assert {answer.status_code for answer in answers} == {200}
    for _ in range(200):  # a slow machine is not stormy
        answer = await client.post(place, json={"channel": "sports"})
        if answer.status_code != 200:
            break
    readable(answer, 429)
    assert answer.headers["retry-after"] == "1"
    await asyncio.sleep(0.25)
    readable(await client.post(place, json={"channel": "news"}), 200)


async def test_of_changes_that_wait_only_the_newest_is_carried_out(
    client: httpx.AsyncClient, site: Site, leaf: MemoryLeaf, place: str
) -> None:
    leaf.changing.clear()

    async def ask(channel: str) -> httpx.Response:
        return await client.post(place, json={"channel": channel})

    first = asyncio.create_task(ask("sports"))
    while not leaf.changes:
        await asyncio.sleep(0)
    others = [asyncio.create_task(ask(channel)) for channel in ("sports", "sports", "news")]
    await asyncio.sleep(0.1)
    leaf.changing.set()
    readable(await first, 200)
    answers = await asyncio.gather(*others)
    assert [answer.status_code for answer in answers] == [409, 409, 200]
    assert leaf.changes == 2
    assert [seat.channel for seat in site.seats] == ["news"]


async def test_a_channel_that_is_removed_meanwhile_ends_the_seat(
    client: httpx.AsyncClient, site: Site, leaf: MemoryLeaf, place: str
) -> None:
    leaf.changing.clear()
    asked = asyncio.create_task(client.post(place, json={"channel": "sports"}))
    while not leaf.changes:
        await asyncio.sleep(0)
    del site.lineup.channels["sports"]
    leaf.changing.set()
    readable(await asked, 404)
    assert (len(site.seats), leaf.viewings) == (0, {})


async def test_a_browser_on_another_site_may_ask_first(
    client: httpx.AsyncClient, place: str
) -> None:
    asked = {"Origin": "https://player.example", "Access-Control-Request-Method": "POST"}
    answer = await client.options(place, headers=asked)
    readable(answer, 204)
    assert "Link" in answer.headers["access-control-expose-headers"].split(", ")


async def test_a_leaf_may_send_less_by_itself(
    client: httpx.AsyncClient, site: Site, leaf: MemoryLeaf, place: str
) -> None:
    (seat,) = site.seats
    site.changes.shown("leaf1", seat.viewing, Feed("sports", "low"))  # of what it saw before
    site.changes.shown("leaf1", "nobody", Feed("news", "low"))
    assert seat.rendition == "high"
    site.changes.shown("leaf1", seat.viewing, Feed("news", "low"))
    assert (seat.rendition, seat.best) == ("low", "high")
    answer = await client.post(place, json={"channel": "sports"})
    assert answer.json()["rendition"] == "high"


async def test_a_key_frame_is_made_once_the_way_is_there(
    site: Site, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[tuple[str, str | None]] = []
    for channel in site.channels:
        monkeypatch.setattr(
            channel.encoder,
            "request_keyframe",
            lambda rendition, name=channel.name: made.append((name, rendition)),
        )
    site.carrying._stale.clear()  # set by the leaf's joining the tree, if that was before this
    site.request_key_frame(Feed("news", "high"))
    assert made == [("news", "high")]
    site.carrying.stale()  # a leaf wants something that it is not sent yet
    site.request_key_frame(Feed("sports", "low"))
    site.request_key_frame(Feed("gone", "low"))
    assert made == [("news", "high")]
    monkeypatch.setattr(site.carrying, "_reconcile", lambda: asyncio.sleep(0))
    carrying = asyncio.create_task(site.carrying.run())
    await asyncio.sleep(0.05)
    carrying.cancel()
    assert made == [("news", "high"), ("sports", "low")]
