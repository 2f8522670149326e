"""Seats over HTTP: who may have what sent where, and what becomes of it."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from ipaddress import IPv4Network

import httpx
import pytest
from tests.console.conftest import KEY, OPERATOR, MemoryLeaf, add_channel
from tests.console.test_whep import offer

from anabranch.channels.definitions import Definition
from anabranch.channels.destinations import Admission
from anabranch.core.errors import UnavailableError
from anabranch.core.tasks import end_task
from anabranch.site.carriage import Bucket, StreamId
from anabranch.site.changes import BURST
from anabranch.site.site import Site
from anabranch.store.database import ChannelRow

HERE = "udp://127.0.0.1:6000"
"""The test's client is 127.0.0.1."""


@pytest.fixture(autouse=True)
async def carrying(site: Site) -> AsyncIterator[None]:
    """Two channels, and the main loop."""
    add_channel(site, Definition("sports", "Sports", "rtmp", False, KEY[::-1], 2))
    task = asyncio.create_task(site.carrying.run())
    yield
    await end_task(task)


async def take(client: httpx.AsyncClient, to: str = HERE, **more: object) -> httpx.Response:
    headers = OPERATOR if more.pop("operator", False) else {}
    body = {"channel": "news", "to": to, **more}
    return await client.post("/api/seats", json=body, headers=headers)


def problem(answer: httpx.Response, status: int) -> str:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    detail: str = answer.json()["detail"]
    return detail


def buckets(site: Site) -> set[Bucket]:
    return set(site.seating.sorting().buckets)


async def test_a_seat_is_taken_changed_looked_at_and_left(
    client: httpx.AsyncClient, site: Site
) -> None:
    answer = await take(client)
    assert answer.status_code == 201, answer.text
    seat = answer.json()
    assert seat["url"] == answer.headers["location"] == f"/api/seats/{seat['id']}"
    assert (seat["to"], seat["format"], seat["rendition"]) == (HERE, "ts", "high")
    place = ("127.0.0.1", 6000)
    assert buckets(site) == {Bucket(StreamId("news", "high.ts"), "leaf1", place)}
    assert (await client.get("/api/channels/news")).json()["viewers"] == 1

    changed = await client.patch(seat["url"], json={"channel": "sports", "rendition": "low"})
    assert (changed.json()["channel"], changed.json()["rendition"]) == ("sports", "low")
    assert buckets(site) == {Bucket(StreamId("sports", "low.ts"), "leaf1", place)}
    assert (await client.patch(seat["url"], json={})).json()["channel"] == "sports"
    assert (await client.get(seat["url"])).json()["channel"] == "sports"
    problem(await client.patch(seat["url"], json={"channel": "nosuch"}), 404)
    problem(await client.patch(seat["url"], json={"rendition": "huge"}), 404)
    problem(await client.patch(seat["url"], json={"to": "udp://127.0.0.1:7000"}), 422)
    problem(await client.get(f"{seat['url']}.sdp"), 422)

    assert (await client.delete(seat["url"])).status_code == 204
    assert (buckets(site), len(site.seats)) == (set(), 0)
    for method in ("GET", "DELETE"):
        problem(await client.request(method, seat["url"]), 404)
    problem(await client.patch(seat["url"], json={}), 404)


async def test_an_rtp_seat_has_a_description(client: httpx.AsyncClient, site: Site) -> None:
    seat = (await take(client, "rtp://127.0.0.1:6000", format="rtp")).json()
    answer = await client.get(f"{seat['url']}.sdp")
    assert answer.headers["content-type"] == "application/sdp"
    assert "m=video 6000 RTP/AVP 96\r\n" in answer.text
    assert "m=audio 6002 RTP/AVP 111\r\n" in answer.text
    assert {each.receiver for each in buckets(site)} == {("127.0.0.1", 6000), ("127.0.0.1", 6002)}
    problem(await client.get("/api/seats/nosuch.sdp"), 404)


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"channel": "nosuch"}, 404),
        ({"rendition": "huge"}, 404),
        ({"leaf": "leaf9"}, 404),
        ({"to": "udp://198.51.100.7:6000"}, 403),
        ({"to": "udp://239.1.1.1:6000"}, 422),
        ({"to": "udp://127.0.0.1:53"}, 422),
        ({"to": HERE, "format": "rtp"}, 422),
        ({"ttl_s": 1}, 422),
        ({"colour": "red"}, 422),
    ],
)
async def test_what_cannot_be_is_refused_and_leaves_no_seat(
    client: httpx.AsyncClient, site: Site, body: dict[str, object], status: int
) -> None:
    wanted = {"to": HERE, **body}
    problem(await take(client, str(wanted.pop("to")), **wanted), status)
    assert len(site.seats) == 0


async def test_a_stream_is_sent_to_others_only_by_the_operator_or_where_it_is_allowed(
    client: httpx.AsyncClient, site: Site
) -> None:
    stranger = "udp://198.51.100.7:6000"
    assert "not your address (127.0.0.1)" in problem(await take(client, stranger), 403)
    assert (await take(client, stranger, operator=True)).status_code == 201
    site.seating._admission = Admission([IPv4Network("198.51.100.0/28")])
    assert (await take(client, "udp://198.51.100.8:6000")).status_code == 201
    # But not in somebody's place.
    assert "has a seat already" in problem(await take(client, stranger, channel="sports"), 409)


async def test_a_receiver_has_one_seat(client: httpx.AsyncClient, site: Site) -> None:
    first = (await take(client)).json()
    second = (await take(client, channel="sports")).json()
    assert [seat.id for seat in site.seats.plain] == [second["id"]]
    problem(await client.get(first["url"]), 404)
    # The picture, or the sound two ports above, would meet the stream there.
    third = (await take(client, "rtp://127.0.0.1:5998")).json()
    assert [seat.id for seat in site.seats.plain] == [third["id"]]


async def test_a_client_has_so_many_seats_and_a_leaf_too(
    client: httpx.AsyncClient, site: Site
) -> None:
    limits = site.seating._settings = replace(site.settings.seats, per_leaf=20)
    for number in range(limits.per_client):
        assert (await take(client, f"udp://127.0.0.1:{7000 + number}")).status_code == 201
    problem(await take(client, "udp://127.0.0.1:7999"), 429)
    for number in range(limits.per_client, limits.per_leaf):
        to = f"udp://127.0.0.1:{7000 + number}"
        assert (await take(client, to, operator=True)).status_code == 201
    assert len(buckets(site)) == 20
    assert "20 plain seats" in problem(await take(client, HERE, operator=True), 503)
    # In another's place there is room.
    assert (await take(client, "udp://127.0.0.1:7000", operator=True)).status_code == 201


async def test_seats_of_both_kinds_are_listed_changed_and_left_alike(
    client: httpx.AsyncClient, site: Site, leaf: MemoryLeaf
) -> None:
    await offer(client)
    plain = (await take(client)).json()
    problem(await client.get("/api/seats"), 401)
    listed = (await client.get("/api/seats", headers=OPERATOR)).json()
    assert [seat["kind"] for seat in listed] == ["webrtc", "plain"]
    assert [seat["id"] for seat in listed] == [None, plain["id"]]
    (browser,) = site.seats
    place = f"/api/seats/{browser.id}"
    assert (await client.patch(place, json={"channel": "sports"})).json()["channel"] == "sports"
    assert leaf.viewings[browser.viewing].channel == "sports"
    problem(await client.get(place), 404)  # its figures are the operator's
    assert (await client.delete(place)).status_code == 204
    assert leaf.viewings == {}
    # WHEP is for browsers.
    problem(await client.delete(f"/whep/news/{plain['id']}/sse/1"), 404)
    problem(await client.post(f"/whep/news/{plain['id']}/change", json={"channel": "news"}), 404)


async def test_metrics_count_both_kinds(client: httpx.AsyncClient) -> None:
    await offer(client)
    await take(client)
    answer = await client.get("/metrics")
    assert answer.status_code == 200
    assert 'anabranch_channel_viewers{channel="news"} 2.0' in answer.text
    assert 'anabranch_leaf_viewers{leaf="leaf1"} 2.0' in answer.text


async def test_too_many_changes_are_429(client: httpx.AsyncClient) -> None:
    seat = (await take(client)).json()
    for _ in range(round(BURST)):
        assert (await client.patch(seat["url"], json={"channel": "sports"})).status_code == 200
    problem(await client.patch(seat["url"], json={"channel": "news"}), 429)


async def test_a_seat_that_cannot_be_carried_is_none(
    client: httpx.AsyncClient, site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def refuse(*_args: object, **_more: object) -> None:
        raise UnavailableError("the switch refuses it")

    monkeypatch.setattr(site.underlay.carriage, "carry", refuse)
    assert "the switch refuses it" in problem(await take(client), 503)
    assert len(site.seats) == 0


async def test_a_removed_channel_ends_its_seats(client: httpx.AsyncClient, site: Site) -> None:
    seat = (await take(client, channel="sports")).json()
    async with site.database.transaction() as session:
        session.add(
            ChannelRow(
                name="sports", title="", source="rtmp", once=False, key="k", slot=2, created=0.0
            )
        )
    assert (await client.delete("/api/channels/sports", headers=OPERATOR)).status_code == 204
    problem(await client.get(seat["url"]), 404)
