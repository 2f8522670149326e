"""WHEP players that others wrote, beside aiortc and Chromium: GStreamer's webrtcbin."""

import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from anabranch.app.bench.site_process import SiteProcess, running_site
from anabranch.host.process import SYSTEM_PYTHON

pytestmark = pytest.mark.lab
PLAYER = Path(__file__).with_name("gst_whep.py")


@pytest.fixture(scope="module", autouse=True)
def player() -> None:
    """Say what is missing before any site is started."""
    checked = subprocess.run(
        [SYSTEM_PYTHON, str(PLAYER), "--check"], capture_output=True, text=True, timeout=60
    )
    if checked.returncode != 0:
        pytest.fail(f"{checked.stderr.strip()} (scripts/test installs it)")


@pytest.fixture(scope="module")
def own_site() -> Iterator[SiteProcess]:
    with running_site(leaf="anabranch") as made:
        yield made


@pytest.fixture(scope="module")
def janus_site() -> Iterator[SiteProcess]:
    with running_site(leaf="janus") as made:
        yield made


def play(site: SiteProcess, path: str, *options: str) -> dict[str, Any]:
    """Have GStreamer play from a site, and return what it saw."""
    command = [SYSTEM_PYTHON, str(PLAYER), f"{site.url}/whep/{path}", *options]
    done = subprocess.run(command, capture_output=True, text=True, timeout=90)
    assert done.returncode == 0, done.stderr
    seen: dict[str, Any] = json.loads(done.stdout)
    return seen


def check(seen: dict[str, Any], frames: int, size: list[int]) -> None:
    assert seen["errors"] == []
    assert seen["answer"] == 201
    assert seen["connection-state"] == "connected", seen
    assert seen["video_frames"] >= frames, seen
    assert seen["size"] == size
    assert seen["patches"]
    assert set(seen["patches"]) == {204}
    assert seen["left"] == 200


@contextmanager
def loss(site: SiteProcess, percent: int) -> Iterator[None]:
    """Lose so many of the packets that leaves send to their viewers."""
    netns = [
        ["nsenter", f"--net=/run/netns/ab-{site.name}-{leaf}", "--"] for leaf in ("leaf1", "leaf2")
    ]
    rules = f"""
    table netdev lossy {{
      chain out {{
        type filter hook egress device access0 priority 0;
        meta protocol ip ip protocol udp numgen random mod 100 < {percent} drop
      }}
    }}
    """
    for each in netns:
        subprocess.run([*each, "nft", "-f", "-"], input=rules, text=True, check=True)
    try:
        yield
    finally:
        for each in netns:
            subprocess.run([*each, "nft", "delete", "table", "netdev", "lossy"], check=True)


@pytest.mark.parametrize("sound", ["opus", "opus-short"])
def test_gstreamer_plays_from_our_leaf_server(own_site: SiteProcess, sound: str) -> None:
    seen = play(own_site, "test1", "--frames", "150", "--sound", sound)
    check(seen, 150, [640, 360])
    assert seen["audio_buffers"] > 150, seen  # 50 a second, and 25 frames


def test_gstreamer_sees_where_its_sound_is_refused(own_site: SiteProcess) -> None:
    seen = play(own_site, "test1", "--frames", "50", "--sound", "pcmu")
    check(seen, 50, [640, 360])
    assert seen["audio_buffers"] == 0


def test_gstreamer_is_sent_the_rendition_that_it_asks_for(own_site: SiteProcess) -> None:
    check(play(own_site, "test2?rendition=low", "--frames", "50"), 50, [320, 180])


def test_what_gstreamer_loses_is_sent_again(own_site: SiteProcess) -> None:
    with loss(own_site, 5):
        seen = play(own_site, "test1", "--frames", "250", "--seconds", "30")
    check(seen, 250, [640, 360])
    assert seen["repair"]["rtx-success-count"] > 0, seen


@pytest.mark.parametrize(("sound", "least"), [("opus", 100), ("pcmu", 0)])
def test_gstreamer_plays_from_janus(janus_site: SiteProcess, sound: str, least: int) -> None:
    seen = play(janus_site, "test1", "--frames", "100", "--sound", sound)
    check(seen, 100, [640, 360])
    assert seen["audio_buffers"] >= least, seen
