"""Layers that become renditions without being decoded: what viewers see, and what it costs."""

import asyncio
import sys
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import httpx
import psutil
import pytest
from tests.lab.layered_publisher import Layer, layered, two_layers
from tests.lab.page import Page, Watching
from tests.lab.test_site_feed import add, state
from tests.waiting import wait_until

from anabranch.app.bench.site_process import SiteProcess

pytestmark = pytest.mark.lab
NAME, KEY = "layers", "secretkeyofthelayers01"
SIZE = """() => {
  const video = [...document.querySelectorAll('video')].find(v => v.videoWidth &&
    getComputedStyle(v).visibility !== 'hidden');
  return video ? [video.videoWidth, video.videoHeight] : [0, 0];
}"""
FRAMES = """() => [...document.querySelectorAll('video')].reduce(
  (sum, v) => sum + v.getVideoPlaybackQuality().totalVideoFrames, 0)"""


@pytest.fixture(scope="module")
def stage(site: SiteProcess) -> Iterator[str]:
    """A channel by WHIP; its URL."""
    made = add(site, NAME, "--from", "whip", "--key", KEY)
    publish = made["publish"]
    assert isinstance(publish, dict)
    yield str(publish["OBS server"])
    site.command("channel", "remove", NAME)


@pytest.fixture(autouse=True)
def free(site: SiteProcess, stage: str) -> None:
    """Whoever published before has left."""
    wait_until(lambda: detail(site)["detail"] == "waiting for a publisher", limit_s=20)


def detail(site: SiteProcess) -> dict[str, Any]:
    found: dict[str, Any] = site.api("GET", f"/api/channels/{NAME}/detail").json()
    return found


def child(site: SiteProcess, name: str) -> int | None:
    found: int | None = site.api("GET", "/api/site").json()["children"][name]["pid"]
    return found


def events(site: SiteProcess, kind: str) -> list[dict[str, Any]]:
    found = site.api("GET", "/api/log?limit=1000").json()
    return [it["data"] for it in found if it["kind"] == kind and it["subject"] == NAME]


async def waiting(condition: Callable[[], bool], limit_s: float = 30.0) -> None:
    """Wait in a thread, so that the publisher goes on sending."""
    await asyncio.to_thread(partial(wait_until, condition, limit_s=limit_s))


def both(site: SiteProcess, watch: Watching) -> tuple[Page, Page]:
    pages = (
        watch(site.url, NAME, "?rendition=high"),
        watch(site.url, NAME, "?rendition=low"),
    )
    for page in pages:
        page.wait_for_picture()
    return pages


def sizes(*pages: Page) -> list[list[int]]:
    return [page.evaluate(SIZE) for page in pages]


def is_passed(site: SiteProcess) -> bool:
    return detail(site)["mode"] == "passthrough"


async def vacant(site: SiteProcess) -> None:
    """Wait until the channel takes another publisher: one that goes silent has it for a while."""
    await waiting(lambda: detail(site)["publisher"] is None, 60)


LARGE, SMALL = [480, 272], [240, 136]


async def test_layers_are_seen_as_they_are_sent(
    site: SiteProcess, stage: str, watch: Watching
) -> None:
    high, low = await asyncio.to_thread(both, site, watch)
    async with layered(two_layers()) as one:
        await vacant(site)
        assert await one.publish(stage, KEY) == 201
        assert one.accepted() == ["l", "h"]
        await waiting(lambda: sizes(high, low) == [LARGE, SMALL])
        await waiting(lambda: detail(site)["layers"] == {"high": "h", "low": "l"})
        shown = detail(site)
        assert (shown["mode"], shown["state"]) == ("passthrough", "live")
        assert child(site, f"ingest:{NAME}") is None, "nobody decodes"
        # It moves, at its whole rate.
        before = [page.evaluate(FRAMES) for page in (high, low)]
        await asyncio.sleep(2)  # the span over which frames are counted
        after = [page.evaluate(FRAMES) for page in (high, low)]
        assert all(b - a >= 30 for a, b in zip(before, after, strict=True)), (before, after)
        # Who comes now sees a picture soon: a key frame is asked for.
        asked = one.layers[0].asked
        late = await asyncio.to_thread(watch, site.url, NAME, "?rendition=low")
        await asyncio.to_thread(late.wait_for_picture)
        await waiting(lambda: sizes(late) == [SMALL])
        await waiting(lambda: one.layers[0].asked > asked)

        # It falls silent without a word: the slate; it is back at its next key frame.
        await one.silence()
        await waiting(lambda: sizes(high, low) == [[640, 360], [320, 180]])
        one.resume()
        await waiting(lambda: sizes(high, low) == [LARGE, SMALL])
        gone = httpx.delete(site.url + one.location)
        assert gone.status_code == 200
        await waiting(lambda: sizes(high, low) == [[640, 360], [320, 180]])
        assert (state(site, NAME), detail(site)["mode"]) == ("slate", "encoded")
    async with layered(two_layers()) as again:
        await vacant(site)
        assert await again.publish(stage, KEY) == 201
        await waiting(lambda: sizes(high, low) == [LARGE, SMALL])
    await waiting(lambda: sizes(high, low) == [[640, 360], [320, 180]])


async def test_a_lost_layer_is_replaced_and_comes_back(
    site: SiteProcess, stage: str, watch: Watching
) -> None:
    high, low = await asyncio.to_thread(both, site, watch)
    async with layered(two_layers()) as one:
        await vacant(site)
        assert await one.publish(stage, KEY) == 201
        await waiting(lambda: sizes(high, low) == [LARGE, SMALL])
        one.layers[1].sends = False
        await waiting(lambda: sizes(high, low) == [SMALL, SMALL])
        assert is_passed(site), "and no slate between"
        assert {"high": "l", "low": "l"} in events(site, "publisher.layers")
        one.layers[1].sends = True
        await waiting(lambda: sizes(high, low) == [LARGE, SMALL])
        # Layers that swap their SSRCs: what each is called counts.
        first, second = one.layers
        first.ssrc, second.ssrc = second.ssrc, first.ssrc
        first.wants_key = second.wants_key = True
        counts = [page.evaluate(FRAMES) for page in (high, low)]
        await waiting(
            lambda: all(
                page.evaluate(FRAMES) > count + 30
                for page, count in zip((high, low), counts, strict=True)
            )
        )
        assert sizes(high, low) == [LARGE, SMALL]


@pytest.mark.parametrize(
    ("change", "why"),
    [({"kbps": 4000}, "kbit/s"), ({"profile": "main"}, "constrained baseline")],
)
async def test_layers_that_do_not_fit_are_encoded(
    site: SiteProcess, stage: str, watch: Watching, change: dict[str, Any], why: str
) -> None:
    low = await asyncio.to_thread(watch, site.url, NAME, "?rendition=low")
    await asyncio.to_thread(low.wait_for_picture)
    layers = two_layers()
    for name, value in change.items():
        setattr(layers[1], name, value)
    async with layered(layers) as one:
        await vacant(site)
        assert await one.publish(stage, KEY) == 201
        await waiting(lambda: any(why in it["why"] for it in events(site, "publisher.unfit")), 20)
        await waiting(lambda: state(site, NAME) == "live" and not is_passed(site))
        assert child(site, f"ingest:{NAME}") is not None
        await waiting(lambda: sizes(low) == [[320, 180]])
        # Of what is decoded, too, the smaller layer takes the larger one's place.
        layers[1].sends = False
        asked = layers[0].asked
        await waiting(lambda: layers[0].asked > asked)
        await asyncio.sleep(2)  # by then the slate would be shown
        await waiting(lambda: max(low.colour()) > 100)
        assert not is_passed(site)


def test_a_browsers_camera_comes_in_layers(site: SiteProcess, stage: str, watch: Watching) -> None:
    camera = watch.open(f"{site.url}/publish?channel={NAME}#key={KEY}")
    camera.with_page(lambda page: page.click("text=Go live"))
    camera.wait_for_text("On air", 15)
    wait_until(lambda: detail(site)["layers"] == {"high": "r0", "low": "r1"}, limit_s=30)
    assert is_passed(site)
    assert child(site, f"ingest:{NAME}") is None, "nobody decodes"
    high, low = both(site, watch)
    wait_until(lambda: sizes(high, low) == [[640, 360], [320, 180]], limit_s=20)
    counts = [page.evaluate(FRAMES) for page in (high, low)]
    wait_until(lambda: high.evaluate(FRAMES) > counts[0] + 20, limit_s=20)
    wait_until(lambda: low.evaluate(FRAMES) > counts[1] + 20, limit_s=20)
    assert state(site, NAME) == "live"
    camera.with_page(lambda page: page.click("text=Stop"))
    wait_until(lambda: state(site, NAME) == "slate", limit_s=20)


async def test_bad_layers_are_declined_or_ignored(site: SiteProcess, stage: str) -> None:
    many = [Layer(f"r{number}", (64, 64), 50, 8000 + number) for number in range(50)]
    async with layered(many) as one:
        await vacant(site)
        assert await one.publish(stage, KEY) == 201
        assert one.accepted() == ["r0", "r1", "r2", "r3"]
    await waiting(lambda: detail(site)["detail"] == "waiting for a publisher", 20)
    hostile = [Layer(rid, (64, 64), 50, 1) for rid in ("é", "a b", "x" * 200, "%s", "..", "")]
    async with layered(hostile) as one:
        await vacant(site)
        assert await one.publish(stage, KEY) == 201
        assert one.accepted() == []
        # One that never comes has its place for a while; this one gives it back.
        assert httpx.delete(site.url + one.location).status_code == 200
    await waiting(lambda: detail(site)["detail"] == "waiting for a publisher")


@pytest.mark.proof
async def test_what_it_costs(site: SiteProcess, stage: str) -> None:
    """Print the processor time of passing and of encoding the same publisher."""
    costs = {}
    for mode, layers in (("passthrough", two_layers()), ("encoded", two_layers()[1:])):
        async with layered(layers) as one:
            await vacant(site)
            assert await one.publish(stage, KEY) == 201
            wanted = mode
            await waiting(
                lambda wanted=wanted: (
                    detail(site)["mode"] == wanted and state(site, NAME) == "live"
                ),
                20,
            )
            names = (f"encoder:{NAME}", f"ingest:{NAME}", "leaf:whip")
            pids = {name: pid for name in names if (pid := child(site, name)) is not None}
            before = {name: cpu_s(pid) for name, pid in pids.items()}
            span = 8.0
            await asyncio.sleep(span)  # the span of the measurement
            costs[mode] = {
                name: round((cpu_s(pid) - before[name]) / span * 100, 1)
                for name, pid in pids.items()
            }
        await waiting(lambda: state(site, NAME) == "slate")
    sys.stdout.write(f"percent of a processor: {costs}\n")
    encoder = f"encoder:{NAME}"
    assert f"ingest:{NAME}" not in costs["passthrough"]
    assert costs["passthrough"][encoder] < costs["encoded"][encoder] / 2


def cpu_s(pid: int) -> float:
    times = psutil.Process(pid).cpu_times()
    return float(times.user + times.system)
