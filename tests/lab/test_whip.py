"""WHIP: a browser's camera, aiortc and GStreamer publish, and others watch what they send."""

import asyncio
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.lab.page import Page, Watching
from tests.lab.test_site_feed import BLUE, GREEN, RED, add, detail, state
from tests.lab.whip_publisher import publisher
from tests.waiting import wait_until

from anabranch.app.bench.site_process import SiteProcess
from anabranch.host.process import SYSTEM_PYTHON

pytestmark = pytest.mark.lab
NAME, KEY = "stage", "secretkeyofthestage0001"
SDP = {"Content-Type": "application/sdp"}


@pytest.fixture(scope="module")
def stage(site: SiteProcess) -> Iterator[str]:
    """A channel by WHIP; its URL."""
    made = add(site, NAME, "--from", "whip", "--key", KEY)
    publish = made["publish"]
    assert isinstance(publish, dict)
    assert publish["OBS bearer token"] == made["key"] == KEY
    yield str(publish["OBS server"])
    site.command("channel", "remove", NAME)
    assert KEY not in site.log.read_text()


def shows_slate(page: Page) -> bool:
    return max(page.colour()) < 100


def figures(site: SiteProcess) -> dict[str, Any]:
    """Return how the publisher arrives; nothing: there is none."""
    found: dict[str, Any] | None = site.api("GET", f"/api/channels/{NAME}").json()["publisher"]
    return found or {}


def is_slate(site: SiteProcess) -> bool:
    return state(site, NAME) == "slate"


def test_a_browsers_camera_is_seen_and_survives_a_killed_gate(
    site: SiteProcess, stage: str, watch: Watching
) -> None:
    camera = watch.open(f"{site.url}/publish?channel={NAME}#key={KEY}")
    seen = watch(site.url, NAME)
    seen.wait_for_picture()
    assert shows_slate(seen)
    camera.with_page(lambda page: page.click("text=Go live"))
    camera.wait_for_text("On air")
    wait_until(lambda: not shows_slate(seen))
    assert state(site, NAME) == "live"

    children = site.api("GET", "/api/site").json()["children"]
    os.kill(children["leaf:whip"]["pid"], signal.SIGKILL)
    wait_until(lambda: is_slate(site))
    wait_until(lambda: state(site, NAME) == "live")  # nobody clicked anything
    wait_until(lambda: not shows_slate(seen))

    camera.with_page(lambda page: page.click("text=Stop"))
    camera.wait_for_text("Off air")
    wait_until(lambda: shows_slate(seen))
    camera.with_page(lambda page: page.click("text=Go live"))
    wait_until(lambda: not shows_slate(seen))
    camera.with_page(lambda page: page.close())  # which ends it, too
    wait_until(lambda: is_slate(site))
    assert seen.stats()["phase"] == "playing"


def test_the_page_says_what_is_wrong(site: SiteProcess, stage: str, watch: Watching) -> None:
    camera = watch.open(f"{site.url}/publish?channel={NAME}")
    camera.with_page(lambda page: page.click("text=Go live"))
    camera.wait_for_text("key is missing")
    camera.with_page(lambda page: page.fill("#key", "wrong"))
    camera.with_page(lambda page: page.click("text=Go live"))
    camera.wait_for_text("The key is not this channel's")
    camera.wait_for_text("Off air")
    assert is_slate(site)


async def test_aiortc_publishes_and_changes_its_size_in_mid_stream(
    site: SiteProcess, stage: str, watch: Watching
) -> None:
    seen = watch(site.url, NAME)
    seen.wait_for_picture()
    await waiting(wait_until, lambda: not figures(site))
    async with publisher(RED) as one, publisher(BLUE) as second:
        assert await one.publish(stage, KEY) == 201
        await waiting(seen.wait_for_colour, RED)
        assert await second.publish(stage, KEY) == 409
        one.picture.size, one.picture.colour = (320, 180), GREEN
        await waiting(seen.wait_for_colour, GREEN)
        one.picture.size, one.picture.colour = (854, 480), BLUE
        await waiting(seen.wait_for_colour, BLUE)
        assert one.answer is not None
        gone = httpx.delete(site.url + one.answer.headers["location"])
        assert gone.status_code == 200
        await waiting(wait_until, lambda: shows_slate(seen))
        assert await second.publish(f"{site.url}/whip", KEY) == 201  # the key names the channel
        await waiting(seen.wait_for_colour, BLUE)
    # aiortc says goodbye over DTLS: the channel takes another one.
    await waiting(wait_until, lambda: is_slate(site) and not figures(site))


async def waiting(work, *arguments):  # type: ignore[no-untyped-def]
    """Wait in a thread, so that aiortc goes on sending."""
    return await asyncio.to_thread(work, *arguments)


def test_gstreamer_publishes_until_it_is_killed(
    site: SiteProcess, stage: str, watch: Watching
) -> None:
    seen = watch(site.url, NAME)
    seen.wait_for_picture()
    wait_until(lambda: not figures(site))  # whoever was cut off has its place for a while
    program = str(Path(__file__).with_name("gst_publisher.py"))
    one = subprocess.Popen([SYSTEM_PYTHON, program, stage, KEY, str(0xFFFE0000)])
    try:
        seen.wait_for_colour(RED)
        wait_until(lambda: (figures(site).get("bitrate_kbps") or 0) > 10)
        found = figures(site)
        assert (found["way"], found["codec"]) == ("whip", "h264")
        assert (found["width"], found["height"], found["loss"]) == (640, 360, 0)
        assert found["packets_received"] > 50
        assert found["jitter_ms"] is not None
        assert "address" not in found
        url = f"/api/channels/{NAME}/detail"
        address = site.api("GET", url).json()["publisher"]["address"]
        assert address.rpartition(":")[2].isdigit()
        shown = site.command("channel", "show", NAME).stdout
        assert f"from {address}" in shown
        assert "h264 640x360" in shown
        assert "whip," in site.command("status").stdout
        metrics = site.api("GET", "/metrics").text
        assert f'anabranch_publisher_packets_received_total{{channel="{NAME}"}}' in metrics
        assert address not in metrics
    finally:
        one.kill()
        one.wait()
    wait_until(lambda: shows_slate(seen))  # it is silent, and nobody says so
    wait_until(lambda: detail(site, NAME) == "waiting for a publisher")
    # Until then it might have come back.
    wait_until(lambda: site.api("GET", f"/api/channels/{NAME}").json()["publisher"] is None)


def test_bad_input_is_refused_and_leaves_nothing(site: SiteProcess, stage: str) -> None:
    wait_until(lambda: not figures(site))
    bearer = {"Authorization": f"Bearer {KEY}"}
    for path, headers, body, status in (
        (f"/whip/{NAME}", {}, "v=0\r\n", 401),
        (f"/whip/{NAME}", {"Authorization": "Bearer wrong"}, "v=0\r\n", 401),
        (f"/whip/{NAME}", {"Authorization": f"Basic {KEY}"}, "v=0\r\n", 401),
        ("/whip", {"Authorization": "Bearer wrong"}, "v=0\r\n", 401),
        (f"/whip/{NAME}", bearer, "garbage", 422),
        (f"/whip/{NAME}", bearer, b"v=0\r\n" + b"a=x\r\n" * 14_000, 413),
        (f"/whip/{NAME}", bearer, b"x" * 200_000, 413),
        ("/whip/test1", bearer, "v=0\r\n", 404),
        ("/whip/nothing", bearer, "v=0\r\n", 404),
    ):
        answer = site.post(path, headers={**SDP, **headers}, content=body)
        assert answer.status_code == status, (path, answer.text)
        assert len(answer.json()["detail"].splitlines()) == 1
    assert (state(site, NAME), detail(site, NAME)) == ("slate", "waiting for a publisher")
    done = site.command("channel", "show", NAME)
    assert f"/publish?channel={NAME}#key={KEY}" in done.stdout
