"""A site whose leaf servers are Janus: Debian's, the peer of our own."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest
from tests.lab.page import Watching
from tests.waiting import wait_until

from anabranch.app.bench.site_process import SiteProcess, running_site

pytestmark = pytest.mark.lab


@pytest.fixture(scope="module")
def janus_site() -> Iterator[SiteProcess]:
    with running_site(leaf="janus") as made:
        yield made


def test_chromium_plays_changes_and_outlives_a_kill(
    janus_site: SiteProcess, watch: Watching
) -> None:
    page = watch(janus_site.url, "test1")
    page.wait_for_picture()
    page.with_page(lambda each: each.wait_for_selector("#channels a"))
    page.with_page(lambda each: each.keyboard.press("2"))
    wait_until(lambda: page.stats()["channel"] == "test2")
    wait_until(lambda: page.evaluate("window.anabranch.changes") == 1)
    time.sleep(1.5)
    assert page.has_clock()
    assert page.evaluate("window.anabranch.reconnects") == 0
    (seat,) = janus_site.api("GET", "/api/seats").json()
    name = f"janus:{seat['leaf']}"
    os.kill(janus_site.api("GET", "/api/site").json()["children"][name]["pid"], signal.SIGKILL)
    assert page.outage(8.0) < 5.5


def test_the_seat_of_a_vanished_viewer_is_freed_within_15_s(janus_site: SiteProcess) -> None:
    url = f"{janus_site.url}/whep/test2"
    ghost = subprocess.Popen([sys.executable, "-m", "tests.lab.viewer", url, "100000"])

    def seats() -> list[str]:
        found = janus_site.api("GET", "/api/seats").json()
        return [seat["state"] for seat in found]

    try:
        wait_until(lambda: seats() == ["watching"], limit_s=20.0)
        time.sleep(3)
    finally:
        ghost.kill()
        ghost.wait()
    wait_until(lambda: seats() == [], limit_s=15.0)
