"""A long run: viewers come and go, and nothing grows. Minutes by ANABRANCH_SOAK_MINUTES (10)."""

import asyncio
import json
import os
import random
import time
from pathlib import Path

import httpx
import psutil
import pytest
from tests.lab.viewer import viewer

from anabranch.app.bench.site_process import SiteProcess, running_site

pytestmark = [pytest.mark.proof, pytest.mark.lab, pytest.mark.timeout(7200)]
MINUTES = float(os.environ.get("ANABRANCH_SOAK_MINUTES", "10"))


async def come_and_go(url: str, until: float, rng: random.Random, counts: dict[str, int]) -> None:
    async with httpx.AsyncClient(base_url=url, timeout=10.0) as client:
        while time.monotonic() < until:
            async with viewer() as one:
                places: list[str] = []

                async def ask(offer: str, places: list[str] = places) -> str:
                    channel = rng.choice(["test1", "test2"])
                    rendition = rng.choice(["high", "low"])
                    answer = await client.post(
                        f"/whep/{channel}?rendition={rendition}",
                        content=offer,
                        headers={"Content-Type": "application/sdp"},
                    )
                    answer.raise_for_status()
                    places.append(answer.headers["location"])
                    return answer.text

                await one.watch(ask)
                await one.frames(rng.randint(10, 200), limit=60.0)
                counts["viewings"] += 1
                counts["frames"] += one.video_frames
                if rng.random() < 0.7:  # the others just vanish
                    await client.delete(places[0])
                    counts["left"] += 1
            await asyncio.sleep(rng.random())


def measure(pid: int) -> dict[str, dict[str, float]]:
    """Memory (MB), descriptors and threads of the director and each child."""
    found = {}
    director = psutil.Process(pid)
    for process in [director, *director.children(recursive=True)]:
        try:
            name = "director" if process.pid == pid else f"{process.name()}:{process.pid}"
            found[name] = {
                "rss_mb": round(process.memory_info().rss / 1e6, 1),
                "fds": process.num_fds(),
                "threads": process.num_threads(),
            }
        except psutil.Error:
            continue
    return found


async def restarts_of(site: SiteProcess) -> dict[str, int]:
    children = (await asyncio.to_thread(site.api, "GET", "/api/site")).json()["children"]
    return {name: child["restarts"] for name, child in children.items()}


async def test_nothing_grows_while_viewers_come_and_go(tmp_path: Path) -> None:
    counts = {"viewings": 0, "frames": 0, "left": 0}
    with running_site() as site:
        assert site.process is not None
        pid = site.process.pid

        async def crowd(seconds: float) -> None:
            until = time.monotonic() + seconds
            async with asyncio.TaskGroup() as group:
                for number in range(4):
                    rng = random.Random(number)
                    group.create_task(come_and_go(site.url, until, rng, counts))
            await asyncio.sleep(25)  # the vanished are noticed, mountpoints expire

        await crowd(min(60.0, MINUTES * 20))  # warm: pools and caches are filled once
        before = measure(pid)
        restarts = await restarts_of(site)  # Janus may need more than one start: docs/traps.md
        await crowd(MINUTES * 60)
        after = measure(pid)
        overview = (await asyncio.to_thread(site.api, "GET", "/api/site")).json()
        assert overview["seats"] == 0
        assert all(channel["state"] == "live" for channel in overview["channels"])
        assert await restarts_of(site) == restarts
    record = {"minutes": MINUTES, **counts, "before": before, "after": after}
    path = os.environ.get("ANABRANCH_SOAK_RECORD")
    if path:
        Path(path).write_text(json.dumps(record, indent=1))
    assert counts["viewings"] > 4 * MINUTES
    for name, figures in before.items():
        assert name in after, f"{name} has ended"
        assert after[name]["rss_mb"] < figures["rss_mb"] * 1.25 + 10, (name, record)
        assert after[name]["fds"] <= figures["fds"] + 8, (name, record)
        assert after[name]["threads"] <= figures["threads"] + 4, (name, record)
