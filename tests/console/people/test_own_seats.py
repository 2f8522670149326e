"""Plain seats are for who sees the channel, as long as that is so; their secrets need no login."""

import asyncio
from collections.abc import AsyncIterator
from ipaddress import IPv4Network

import httpx
import pytest
from tests.console.conftest import OFFER
from tests.console.people.conftest import Scene
from tests.console.people.test_channels_for_some import link, share
from tests.waiting import until

from anabranch.channels.destinations import Admission
from anabranch.channels.seats import PlainSeat
from anabranch.console.people.doors import Doors
from anabranch.core.tasks import end_task

HERE = "udp://192.0.2.1:6000"
"""The scene's browsers are 192.0.2.1."""


@pytest.fixture(autouse=True)
async def carrying(scene: Scene) -> AsyncIterator[None]:
    task = asyncio.create_task(scene.site.carrying.run())
    yield
    await end_task(task)


async def take(
    client: httpx.AsyncClient,
    channel: str,
    headers: dict[str, str] | None = None,
    to: str = HERE,
) -> httpx.Response:
    body = {"channel": channel, "to": to}
    return await client.post("/api/seats", json=body, headers=headers)


def seats(scene: Scene) -> list[PlainSeat]:
    return scene.site.seats.plain


@pytest.mark.parametrize("who", [None, "vera", "paul"])
async def test_a_private_channel_is_sent_to_no_stranger(scene: Scene, who: str | None) -> None:
    async with scene.client() as client:
        for to in (HERE, "udp://198.51.100.7:6000", "nonsense"):
            hidden = await take(client, "hidden", scene.bearer(who), to)
            absent = await take(client, "absent", scene.bearer(who), to)
            assert hidden.status_code == absent.status_code == 404
            assert hidden.text.replace("hidden", "absent") == absent.text
        # Nor is there a way from what one may see.
        seat = (await take(client, "byname", scene.bearer(who))).json()
        for name in ("hidden", "absent"):
            answer = await client.patch(
                seat["url"], json={"channel": name}, headers=scene.bearer(who)
            )
            assert answer.status_code == 404
            assert answer.json()["detail"] == f"there is no channel named '{name}'"
    assert [each.channel for each in seats(scene)] == ["byname"]


async def test_who_sees_a_channel_has_it_sent(scene: Scene) -> None:
    async with scene.client() as client:
        made = await share(client, scene)
        for headers in (link(made), scene.bearer("ines"), scene.bearer("olga")):
            seat = (await take(client, "hidden", headers)).json()
            assert seat["channel"] == "hidden"
            # What it shows is shown to whoever has its secret; so are its lease and rendition.
            assert (await client.get(seat["url"])).json()["channel"] == "hidden"
            for body in ({}, {"rendition": "low"}, {"channel": "hidden"}):
                assert (await client.patch(seat["url"], json=body)).status_code == 200
            assert len(seats(scene)) == 1
            assert (await client.delete(seat["url"])).status_code == 204


async def test_a_seat_is_held_by_whoever_chose_what_it_shows(scene: Scene) -> None:
    doors = Doors(scene.site, scene.people)
    async with scene.client() as client:
        place = (await take(client, "news")).json()["url"]
        (seat,) = seats(scene)
        headers = scene.bearer("ines")
        for channel, shown, held in (("hidden", headers, True), ("news", {}, False)):
            answer = await client.patch(place, json={"channel": channel}, headers=shown)
            assert answer.status_code == 200
            assert bool(seat.holder) == held
            await doors.look()
            assert len(seats(scene)) == 1
        # The secret is no way back.
        assert (await client.patch(place, json={"channel": "hidden"})).status_code == 404


async def test_a_browsers_seat_is_held_by_whoever_changed_its_channel(scene: Scene) -> None:
    doors = Doors(scene.site, scene.people)
    sdp = {"Content-Type": "application/sdp"}
    async with scene.client() as client:
        for method, below in (("POST", "/change"), ("PATCH", "")):
            offered = await client.post("/whep/news", content=OFFER, headers=sdp)
            whep = offered.headers["location"]
            place = f"{whep}{below}" if below else f"/api/seats/{whep.rpartition('/')[2]}"
            wanted = {"channel": "hidden"}
            assert (await client.request(method, place, json=wanted)).status_code == 404
            answer = await client.request(method, place, json=wanted, headers=scene.bearer("ines"))
            assert answer.status_code == 200
            await doors.look()
            (seat,) = scene.site.seats
            assert seat.channel == "hidden"
            await client.delete(whep)


async def test_plain_seats_end_with_the_reason_for_which_they_were_given(scene: Scene) -> None:
    async with scene.client() as client:
        first, second = await share(client, scene), await share(client, scene)
        for port, made in ((6000, first), (6002, second)):
            answer = await take(client, "hidden", link(made), f"udp://192.0.2.1:{port}")
            assert answer.status_code == 201
        place = f"/api/channels/hidden/shares/{first['id']}"
        await client.delete(place, headers=scene.bearer("ines"))
        assert [seat.port for seat in seats(scene)] == [6002]


async def test_a_channel_that_becomes_private_is_sent_to_strangers_no_longer(scene: Scene) -> None:
    async with scene.client() as client:
        for port, who in ((6000, None), (6002, "vera"), (6004, "ines"), (6006, "operator token")):
            to = f"udp://192.0.2.1:{port}"
            assert (await take(client, "byname", scene.bearer(who), to)).status_code == 201
        answer = await client.patch(
            "/api/channels/byname", json={"visibility": "private"}, headers=scene.bearer("ines")
        )
        assert answer.status_code == 200
        assert [seat.port for seat in seats(scene)] == [6004, 6006]
        assert {bucket.receiver[1] for bucket in scene.site.seating.sorting().buckets} == {
            *(6004, 6006)
        }


async def test_a_look_comes_first_since_seats_may_be_of_an_earlier_run(scene: Scene) -> None:
    seat = PlainSeat("hidden", "high", "leaf1", "192.0.2.1", 6000, holder="share:gone")
    scene.site.seats.add(seat)
    keeping = asyncio.create_task(Doors(scene.site, scene.people).keep())
    await until(lambda: not seats(scene))
    await end_task(keeping)


@pytest.mark.parametrize(
    ("who", "status"), [(None, 403), ("vera", 403), ("ines", 403), ("olga", 201), ("anna", 201)]
)
async def test_operators_name_any_receiver(scene: Scene, who: str | None, status: int) -> None:
    async with scene.client() as client:
        answer = await take(client, "news", scene.bearer(who), "udp://198.51.100.7:6000")
        assert answer.status_code == status, answer.text


async def test_all_of_an_ipv6_network_is_one_client(scene: Scene) -> None:
    seating = scene.site.seating
    seating._admission = Admission([IPv4Network("198.51.100.0/24")])
    most = scene.site.settings.seats.per_client
    for number in range(most + 1):
        async with scene.client(address=f"2001:db8::{number + 1:x}") as client:
            answer = await take(client, "news", to=f"udp://198.51.100.7:{6000 + 2 * number}")
            assert answer.status_code == (201 if number < most else 429)
    async with scene.client(address="2001:db8:0:1::1") as client:
        assert (await take(client, "news", to="udp://198.51.100.7:8000")).status_code == 201
