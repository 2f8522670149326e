"""A channel is changed while it is on the air: what goes on, what ends, what comes back."""

import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from tests.lab.page import Watching
from tests.waiting import wait_until

from anabranch.app.bench.site_process import SiteProcess

pytestmark = pytest.mark.lab
BLUE, RED = (0, 0, 254), (254, 0, 0)


@pytest.fixture
def channel(site: SiteProcess, request: pytest.FixtureRequest) -> Iterator[str]:
    name = f"change-{abs(hash(request.node.name)) % 100_000}"
    yield name
    site.command("channel", "remove", name)


def patch(site: SiteProcess, name: str, **body: object) -> dict[str, Any]:
    answer = site.api("PATCH", f"/api/channels/{name}", json=body)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def add(site: SiteProcess, *arguments: str) -> dict[str, Any]:
    done = site.command("channel", "add", *arguments, "--json")
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def state(site: SiteProcess, name: str) -> str:
    return str(site.api("GET", f"/api/channels/{name}").json()["state"])


def children(site: SiteProcess, name: str) -> dict[str, Any]:
    found = site.api("GET", "/api/site").json()["children"]
    return {kind: found[f"{kind}:{name}"] for kind in ("encoder", "ingest")}


@contextmanager
def publishing(url: str, colour: str) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(
        [
            *("ffmpeg", "-nostdin", "-hide_banner", "-loglevel", "quiet"),
            *("-re", "-f", "lavfi", "-i", f"color={colour}:s=640x360:r=25"),
            *("-c:v", "libx264", "-preset", "ultrafast", "-tune", "zerolatency", "-g", "25"),
            *("-pix_fmt", "yuv420p", "-f", "flv", url),
        ]
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def test_title_and_visibility_do_not_touch_the_picture(
    site: SiteProcess, watch: Watching, channel: str
) -> None:
    add(site, channel, "--from", "test")
    wait_until(lambda: state(site, channel) == "live")
    page = watch(site.url, channel)
    page.wait_for_picture()
    before = children(site, channel)
    changed = patch(site, channel, title="<b>Another</b>", visibility="unlisted")
    assert (changed["title"], changed["state"]) == ("<b>Another</b>", "live")
    assert children(site, channel) == before  # the same processes, started as often
    page.wait_for_picture()


def test_another_source_comes_after_the_slate_and_viewers_stay(
    site: SiteProcess, watch: Watching, channel: str
) -> None:
    made = add(site, channel, "--from", "test")
    page = watch(site.url, channel)
    page.wait_for_picture()
    encoder = children(site, channel)["encoder"]
    changed = patch(site, channel, source="rtmp")
    url = f"{changed['publish']['OBS server']}/{changed['publish']['OBS stream key']}"
    assert changed["key"] is not None
    assert made["key"] is None
    wait_until(lambda: state(site, channel) == "slate")
    with publishing(url, "blue"):
        wait_until(lambda: state(site, channel) == "live")
        page.wait_for_colour(BLUE)
    assert children(site, channel)["encoder"] == encoder
    # What is refused leaves it as it is.
    refused = site.api("PATCH", f"/api/channels/{channel}", json={"source": "/no/such/file"})
    assert refused.status_code == 422
    found = site.api("GET", f"/api/channels/{channel}/detail").json()
    assert (found["source"], found["key"]) == ("rtmp", changed["key"])


def test_a_new_key_ends_who_publishes_with_the_old_one(
    site: SiteProcess, watch: Watching, channel: str
) -> None:
    made = add(site, channel, "--from", "rtmp")
    server = made["publish"]["OBS server"]
    page = watch(site.url, channel)
    with publishing(f"{server}/{made['key']}", "blue") as old:
        page.wait_for_picture()
        page.wait_for_colour(BLUE)
        changed = patch(site, channel, new_key=True)
        assert changed["key"] != made["key"]
        old.wait(10)  # its connection was ended
    wait_until(lambda: state(site, channel) == "slate")
    with publishing(f"{server}/{made['key']}", "red") as refused:
        refused.wait(10)
    with publishing(f"{server}/{changed['key']}", "red"):
        wait_until(lambda: state(site, channel) == "live")
        page.wait_for_colour(RED)
