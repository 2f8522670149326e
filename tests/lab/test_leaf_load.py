"""The load client and the bench's lab, with each of the leaf servers that it compares."""

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from anabranch.app.bench.viewers_crowd import FEED, Crowd
from anabranch.app.bench.viewers_lab import CLIENT_ADDRESS, LEAF_ADDRESS, lab
from anabranch.app.bench.viewers_load import LoadError, Message, running_load, running_source
from anabranch.app.bench.viewers_sdp import Credentials, Server

pytestmark = pytest.mark.lab
VIEWERS = 5


def remains() -> set[Path]:
    return {*Path("/run/netns").glob("abv*"), *Path("/tmp").glob("abv*")}


async def until(condition: Callable[[Message], bool], ask: Callable[[], object]) -> Message:
    async with asyncio.timeout(15):
        while True:
            statistics: Message = await ask()  # type: ignore[misc]
            if condition(statistics):
                return statistics
            await asyncio.sleep(0.1)


@pytest.mark.parametrize("kind", [pytest.param("janus", marks=pytest.mark.proof), "anabranch"])
async def test_viewers_watch_without_a_fault_and_leave_nothing(kind: str) -> None:
    before = remains()
    async with (
        lab(kind) as made,
        running_load("--bind", CLIENT_ADDRESS, prefix=made.client_prefix) as load,
    ):
        crowd = Crowd(made.leaf, load)
        await crowd.resize(VIEWERS)
        (inlet,) = [inlet for inlet in made.leaf.inlets() if inlet.feed == FEED]
        arguments = (
            *("--to", f"{LEAF_ADDRESS}:{inlet.video_port}", "--gop", "0.4"),
            *("--audio-to", f"{LEAF_ADDRESS}:{inlet.audio_port}"),
        )
        async with running_source(*arguments, prefix=made.client_prefix) as packets_per_s:
            statistics = await until(
                lambda said: said["totals"]["packets"] > 2 * VIEWERS * packets_per_s,
                lambda: load.request("statistics", each=True),
            )
            totals = statistics["totals"]
            assert statistics["up"] == len(statistics["each"]) == len(crowd) == VIEWERS
            faults = ("lost", "duplicates", "unreadable", "overflows", "changes")
            assert {name: totals[name] for name in faults} == dict.fromkeys(faults, 0)
            assert totals["inspected"] == totals["packets"]
            assert all(each["key_frames"] >= 3 for each in statistics["each"].values())
            assert statistics["delay_us"]["samples"] > VIEWERS * packets_per_s
            assert statistics["delay_us"]["p50"] < 1_000_000
            await crowd.resize(2)
            assert (await load.request("statistics"))["viewers"] == 2
        assert crowd.lost == 0
    assert remains() <= before


async def test_what_the_load_client_cannot_do_is_said() -> None:
    async with running_load() as load:
        server = Server("127.0.0.1:9", Credentials.random(), "sha-256 no", rtx=False)
        with pytest.raises(LoadError, match="fingerprint"):
            await load.add("v", Credentials.random(), server)
        with pytest.raises(LoadError):
            await load.request("nothing")
        assert (await load.request("statistics"))["viewers"] == 0
