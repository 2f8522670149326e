"""The list of channels is always what is, and costs nothing to whoever has it."""

import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from functools import partial
from typing import Any

import httpx
import pytest
from tests.console.conftest import KEY, add_channel

from anabranch.channels.definitions import Definition
from anabranch.channels.seats import Seat
from anabranch.console import channel_list
from anabranch.console.models import ChannelOut
from anabranch.console.people.caller import Caller
from anabranch.console.people.people import People
from anabranch.media.encoder import EncoderState
from anabranch.media.publisher_figures import Connection, Meter
from anabranch.media.source_text import parse_source
from anabranch.site.site import Site


async def test_whoever_has_the_list_is_told_so(client: httpx.AsyncClient, site: Site) -> None:
    first = await client.get("/api/channels")
    tag = {"If-None-Match": first.headers["etag"]}
    again = await client.get("/api/channels", headers=tag)
    assert (again.status_code, again.content, again.headers["etag"]) == (
        304,
        b"",
        first.headers["etag"],
    )
    site.seats.add(Seat("news", "high", "leaf1", "1"))
    fresh = await client.get("/api/channels", headers=tag)
    assert fresh.status_code == 200
    assert fresh.json()["channels"][0]["viewers"] == 1


async def test_each_change_is_in_it_at_once_and_nothing_else_has_it_made_anew(
    client: httpx.AsyncClient, site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = 0
    make = channel_list.listing

    def counted(site: Site, people: People, caller: Caller) -> list[ChannelOut]:
        nonlocal made
        made += 1
        return make(site, people, caller)

    monkeypatch.setattr(channel_list, "listing", counted)

    async def names() -> list[tuple[str, int]]:
        listed = (await client.get("/api/channels")).json()["channels"]
        return [(channel["name"], channel["viewers"]) for channel in listed]

    seat = Seat("news", "high", "leaf1", "1")
    for _ in range(3):
        assert await names() == [("news", 0)]
    assert made == 1
    site.seats.add(seat)
    assert await names() == [("news", 1)]
    add_channel(site, Definition("sports", "Sports", "rtmp", False, KEY[::-1], 2))
    assert await names() == [("news", 1), ("sports", 0)]
    seat.channel = "sports"
    site.seats.changed(seat)
    assert await names() == [("news", 0), ("sports", 1)]
    del site.lineup.channels["news"]
    site.seats.free(seat)
    assert await names() == [("sports", 0)]
    (channel,) = site.channels
    channel.encoder.state = EncoderState(running=True)
    (listed,) = (await client.get("/api/channels")).json()["channels"]
    assert (listed["state"], listed["detail"]) == ("slate", "waiting for a publisher")


async def change_definition(site: Site, **fields: Any) -> None:
    (channel,) = site.channels
    channel.definition = replace(channel.definition, **fields)


async def change_source(site: Site) -> None:
    (channel,) = site.channels
    await change_definition(site, source="whip")
    channel.source = parse_source("whip")


async def change_state(site: Site) -> None:
    (channel,) = site.channels
    channel.encoder.state = EncoderState(running=True)


async def change_detail(site: Site) -> None:
    (channel,) = site.channels
    channel.encoder.state = EncoderState(detail="no room")


async def add_viewer(site: Site) -> None:
    site.seats.add(Seat("news", "high", "leaf1", "1"))


async def caption(site: Site) -> None:
    site.captions.show(site.channel("news"), "Hello")


async def publish(site: Site) -> None:
    (channel,) = site.channels
    channel.publisher = "somebody"
    reports, connection = site.publisher_reports, Connection(time.time(), "192.0.2.9")
    reports._receptions["news"] = connection, None
    reports._meters["news", connection] = Meter(time.monotonic())
    reports._looked = time.monotonic()


CHANGES: dict[str, Callable[[Site], Awaitable[None]]] = {
    "title": partial(change_definition, title="Another"),
    "now": partial(change_definition, now="An hour of it"),
    "visibility": partial(change_definition, visibility="unlisted"),
    "whip": change_source,
    "state": change_state,
    "detail": change_detail,
    "viewers": add_viewer,
    "captions": caption,
    "publisher": publish,
}
"""How each member of a channel in the list becomes another."""
STAYS = {"name", "renditions", "owner", "may_manage"}
"""What is never another, for who is not signed in."""


def test_the_change_of_every_member_is_tried() -> None:
    assert CHANGES.keys() == ChannelOut.model_fields.keys() - STAYS


@pytest.mark.parametrize("member", CHANGES)
async def test_a_change_of_any_member_is_in_it(
    client: httpx.AsyncClient, site: Site, member: str
) -> None:
    before = await client.get("/api/channels")
    await CHANGES[member](site)
    after = await client.get("/api/channels", headers={"If-None-Match": before.headers["etag"]})
    assert after.status_code == 200
    (was,), now = before.json()["channels"], after.json()["channels"]
    if member == "visibility":
        assert now == []
    else:
        assert now[0][member] != was[member]
