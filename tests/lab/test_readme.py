"""The README's lines, run as they stand there: only hosts, ports and keys are filled in."""

import json
import re
import shlex
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from anabranch.app.bench.site_process import SiteProcess
from anabranch.host.process import SYSTEM_PYTHON

pytestmark = pytest.mark.lab
README = (Path(__file__).parents[2] / "README.md").read_text()
ADD = re.findall(r"`anabranch (channel add [^`]*)`", README)
PUBLISH = re.findall(r"`(ffmpeg [^`]*)`", README)

RTSP_SERVER = """
import sys, gi
gi.require_version('Gst', '1.0'); gi.require_version('GstRtspServer', '1.0')
from gi.repository import GLib, Gst, GstRtspServer
Gst.init(None)
server = GstRtspServer.RTSPServer(); server.set_address('127.0.0.1'); server.set_service('0')
factory = GstRtspServer.RTSPMediaFactory(); factory.set_shared(True)
factory.set_launch('( videotestsrc is-live=true ! video/x-raw,width=320,height=240,framerate=25/1'
    ' ! x264enc tune=zerolatency key-int-max=25 ! rtph264pay name=pay0 pt=96 )')
server.get_mount_points().add_factory('/live', factory)
server.attach(None)
print(server.get_bound_port(), flush=True)
GLib.MainLoop().run()
"""


@contextmanager
def rtsp_server() -> Iterator[str]:
    process = subprocess.Popen(
        ["/usr/bin/python3", "-c", RTSP_SERVER], stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        yield f"127.0.0.1:{process.stdout.readline().strip()}"
    finally:
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the README's film.mp4 in it."""
    path = tmp_path_factory.mktemp("films")
    subprocess.run(
        [
            *("ffmpeg", "-loglevel", "error", "-f", "lavfi", "-i", "testsrc2=s=480x270:r=30"),
            *("-f", "lavfi", "-i", "sine", "-t", "8", "-pix_fmt", "yuv420p", "-c:a", "aac"),
            str(path / "film.mp4"),
        ],
        check=True,
    )
    return path


def until_live(site: SiteProcess, name: str, limit_s: float = 30.0) -> None:
    end = time.monotonic() + limit_s
    while site.api("GET", f"/api/channels/{name}").json()["state"] != "live":
        assert time.monotonic() < end, site.api("GET", f"/api/channels/{name}").json()
        time.sleep(0.1)


def test_the_readme_has_a_line_for_every_way_in() -> None:
    sources = [shlex.split(line)[4] for line in ADD]
    assert {"film.mp4", "rtmp", "whip", "srt", "rtp", "test"} <= set(sources)
    assert any(source.startswith("rtsp://") for source in sources)
    assert len(PUBLISH) == 3


@pytest.mark.parametrize("line", ADD)
def test_a_line_of_the_readme(site: SiteProcess, folder: Path, line: str) -> None:
    words = shlex.split(line)
    name, source = words[2], words[4]
    try:
        with rtsp_server() as address:
            words[4] = source.replace("camera.example", address)
            done = site.command(*words, "--json", cwd=folder)
            assert done.returncode == 0, done.stderr
            channel = json.loads(done.stdout)
            if source in {"rtmp", "srt", "rtp"}:
                publish(site, folder, channel, source)
            elif source == "whip":
                publish_by_whip(site, channel)
            else:
                until_live(site, name)
    finally:
        site.command("channel", "remove", name)


def publish(site: SiteProcess, folder: Path, channel: dict[str, object], way: str) -> None:
    """Run the README's line for the producer's side until the channel is live."""
    (line,) = [line for line in PUBLISH if f"{way}://" in line]
    hint = channel["publish"]
    assert isinstance(hint, dict)
    # What the command prints is the README's line, filled in.
    pattern = re.escape(line.replace("film.mp4", "FILE"))
    for blank in ("HOST", "PORT", "KEY"):
        pattern = pattern.replace(blank, "[^ /?&']+")
    assert re.fullmatch(pattern, hint["ffmpeg"]), (pattern, hint["ffmpeg"])
    process = subprocess.Popen(
        [
            *shlex.split(hint["ffmpeg"].replace("FILE", "film.mp4")),
            "-nostdin",
            "-loglevel",
            "error",
        ],
        cwd=folder,
    )
    try:
        until_live(site, str(channel["name"]))
    finally:
        process.kill()
        process.wait()


def publish_by_whip(site: SiteProcess, channel: dict[str, object]) -> None:
    """Publish with what the command says to enter in OBS until the channel is live."""
    hint = channel["publish"]
    assert isinstance(hint, dict)
    program = str(Path(__file__).with_name("gst_publisher.py"))
    where = (hint["OBS server"], hint["OBS bearer token"], "0")
    process = subprocess.Popen([SYSTEM_PYTHON, program, *where])
    try:
        until_live(site, str(channel["name"]))
    finally:
        process.kill()
        process.wait()
