"""The list of channels is always what is, and costs nothing to whoever has it."""

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
