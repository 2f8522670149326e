"""Watching: a real browser and a foreign viewer, over the tree, and only what is watched flows."""

import asyncio
import subprocess
import sys
import time
from collections.abc import Callable
from statistics import median

import httpx
import pytest
from tests.lab.page import Watching
from tests.lab.viewer import viewer
from tests.waiting import until, wait_until

from anabranch.app.bench.site_process import SiteProcess

pytestmark = pytest.mark.lab


@pytest.mark.parametrize("channel", ["test1", "test2"])
def test_chromium_plays_each_test_channel_and_reads_its_clock(
    site: SiteProcess, watch: Watching, channel: str
) -> None:
    page = watch(site.url, channel)
    page.wait_for_picture()
    time.sleep(2)
    delays = page.delays(20)
    assert len(delays) == 20
    assert 0 < median(delays) < 1000, delays  # well under a second; how far, the benchmark says
    stats = page.stats()
    assert (stats["width"], stats["height"]) == (640, 360)
    assert stats["lossPercent"] == 0


def test_a_rendition_can_be_chosen_and_shown_in_a_frame(site: SiteProcess, watch: Watching) -> None:
    page = watch(site.url, "test1", "?rendition=low&embed=1")
    page.wait_for_picture()
    time.sleep(1)
    assert page.has_clock()
    assert page.stats()["width"] == 320


def test_an_unknown_channel_is_said_on_the_page(site: SiteProcess, watch: Watching) -> None:
    page = watch(site.url, "nosuch")
    page.wait_for_text("no channel|no such channel")


async def test_a_foreign_viewer_plays(site: SiteProcess) -> None:
    async with viewer() as one, httpx.AsyncClient(base_url=site.url) as client:

        async def ask(offer: str) -> str:
            answer = await client.post(
                "/whep/test2", content=offer, headers={"Content-Type": "application/sdp"}
            )
            assert answer.status_code == 201
            assert answer.headers["content-type"] == "application/sdp"
            places.append(answer.headers["location"])
            return answer.text

        places: list[str] = []
        await one.watch(ask)
        await one.frames(30)
        assert one.size == (640, 360)
        await until(lambda: one.audio_frames > 20)
        assert (await client.delete(places[0])).status_code == 200
        assert (await client.delete(places[0])).status_code == 404


def link_packets(site: SiteProcess) -> dict[str, int]:
    """Packets sent over each link between switches, by node and device."""
    return {
        f"{port['node']}/{port['device']}": port["tx_packets"]
        for port in site.api("GET", "/api/ports").json()
        if port["device"] != "sw-host"
    }


def until_quiet(read: Callable[[], dict[str, int]], limit_s: float = 10.0) -> dict[str, int]:
    before = read()
    for _ in range(round(limit_s)):
        time.sleep(1)
        after = read()
        if after == before:
            return after
        before = after
    raise AssertionError("packets flow though nobody watches")


def test_the_seat_of_a_vanished_viewer_is_freed_within_15_s(site: SiteProcess) -> None:
    url = f"{site.url}/whep/test1"
    ghost = subprocess.Popen([sys.executable, "-m", "tests.lab.viewer", url, "100000"])
    try:
        wait_until(
            lambda: [s["state"] for s in site.api("GET", "/api/seats").json()] == ["watching"]
        )
        time.sleep(3)
    finally:
        ghost.kill()
        ghost.wait()
    wait_until(lambda: site.api("GET", "/api/seats").json() == [], limit_s=15.0)
    until_quiet(lambda: link_packets(site))


async def test_nothing_flows_where_nobody_watches(site: SiteProcess) -> None:
    before = until_quiet(lambda: link_packets(site))
    assert before
    async with viewer() as one:

        async def ask(offer: str) -> str:
            answer = httpx.post(
                f"{site.url}/whep/test1",
                content=offer,
                headers={"Content-Type": "application/sdp"},
            )
            return answer.text

        await one.watch(ask)
        await one.frames(25)
        (seat,) = site.api("GET", "/api/seats").json()
        during = await asyncio.to_thread(link_packets, site)
    carried = {link for link, packets in during.items() if packets > before[link]}
    # Root to relay, relay to the one leaf; nothing to the other leaf, nothing back.
    down = {"leaf1": "to2", "leaf2": "to3"}[seat["leaf"]]
    assert carried == {"root/to1", f"relay/{down}"}
    # One copy: both links carry the same packets, but for those on the way just now.
    sent = during["root/to1"] - before["root/to1"]
    passed = during[f"relay/{down}"] - before[f"relay/{down}"]
    assert abs(sent - passed) < 50
    assert sent > 50
    until_quiet(lambda: link_packets(site))


async def test_two_viewers_on_a_leaf_cost_one_copy(site: SiteProcess) -> None:
    """Four viewers on two leaves: every link still carries the channel once."""
    until_quiet(lambda: link_packets(site))
    async with viewer() as a, viewer() as b, viewer() as c, viewer() as d:

        async def ask(offer: str) -> str:
            async with httpx.AsyncClient() as client:
                answer = await client.post(
                    f"{site.url}/whep/test1",
                    content=offer,
                    headers={"Content-Type": "application/sdp"},
                )
                return answer.text

        async def drain(leaf: str, what: str) -> None:
            path = f"/api/nodes/{leaf}/{what}"
            (await asyncio.to_thread(site.api, "POST", path)).raise_for_status()

        for leaf, pair in (("leaf2", (a, b)), ("leaf1", (c, d))):
            await drain(leaf, "drain")
            for one in pair:
                await one.watch(ask)
                await one.frames(10)
            await drain(leaf, "undrain")
        before = await asyncio.to_thread(link_packets, site)
        await asyncio.sleep(2)
        after = await asyncio.to_thread(link_packets, site)
        flow = {link: after[link] - before[link] for link in after if after[link] != before[link]}
        assert set(flow) == {"root/to1", "relay/to2", "relay/to3"}
        assert max(flow.values()) - min(flow.values()) < 0.2 * max(flow.values())
        seats = (await asyncio.to_thread(site.api, "GET", "/api/seats")).json()
        assert sorted(seat["leaf"] for seat in seats) == ["leaf1", "leaf1", "leaf2", "leaf2"]
