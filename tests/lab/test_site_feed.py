"""Feeding: every way in, as the README has it, watched in a real browser."""

import http.server
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest
from tests.lab.page import Watching
from tests.waiting import wait_until

from anabranch.app.bench.site_process import SiteProcess

pytestmark = pytest.mark.lab
RED, GREEN, BLUE = (254, 0, 0), (0, 128, 0), (0, 0, 254)
QUIET = ["ffmpeg", "-nostdin", "-hide_banner", "-loglevel", "error"]


def picture(colour: str) -> list[str]:
    """ffmpeg's arguments for a live picture of one colour with a tone."""
    return [
        *("-re", "-f", "lavfi", "-i", f"color={colour}:s=640x360:r=25"),
        *("-re", "-f", "lavfi", "-i", "sine=r=48000"),
        *("-c:v", "libx264", "-preset", "ultrafast", "-tune", "zerolatency", "-g", "25"),
        *("-pix_fmt", "yuv420p"),
    ]


@contextmanager
def publishing(*arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen([*QUIET, *arguments], stderr=subprocess.PIPE)
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        assert process.stderr is not None
        process.stderr.close()


@pytest.fixture
def channel(site: SiteProcess, request: pytest.FixtureRequest) -> Iterator[str]:
    """A channel name; the channel is removed afterwards."""
    name = f"feed-{abs(hash(request.node.name)) % 100_000}"
    yield name
    site.command("channel", "remove", name)


def add(site: SiteProcess, *arguments: str) -> dict[str, object]:
    done = site.command("channel", "add", *arguments, "--json")
    assert done.returncode == 0, done.stderr
    found: dict[str, object] = json.loads(done.stdout)
    return found


def state(site: SiteProcess, name: str) -> str:
    return str(site.api("GET", f"/api/channels/{name}").json()["state"])


def detail(site: SiteProcess, name: str) -> str:
    return str(site.api("GET", f"/api/channels/{name}").json()["detail"])


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two seconds of blue."""
    path = tmp_path_factory.mktemp("clip") / "clip.mp4"
    subprocess.run(
        [*QUIET, "-t", "2", *picture("blue")[1:], "-c:a", "aac", "-t", "2", str(path)], check=True
    )
    return path


def test_a_file_in_a_loop(site: SiteProcess, watch: Watching, channel: str, clip: Path) -> None:
    add(site, channel, "--from", str(clip))
    page = watch(site.url, channel)
    page.wait_for_picture()
    page.wait_for_colour(BLUE)
    time.sleep(3)  # longer than the clip
    page.wait_for_colour(BLUE, limit_s=1.0)


def test_a_file_once_then_the_slate(
    site: SiteProcess, watch: Watching, channel: str, clip: Path
) -> None:
    add(site, channel, "--from", str(clip), "--once")
    page = watch(site.url, channel)
    page.wait_for_picture()
    wait_until(lambda: state(site, channel) == "slate")
    assert "over" in site.api("GET", f"/api/channels/{channel}").json()["detail"]
    time.sleep(0.5)
    assert max(page.colour()) < 100  # the slate is dark


def test_rtmp_with_its_key(site: SiteProcess, watch: Watching, channel: str) -> None:
    made = add(site, channel, "--from", "rtmp")
    publish = made["publish"]
    assert isinstance(publish, dict)
    server, key = publish["OBS server"], publish["OBS stream key"]
    page = watch(site.url, channel)
    page.wait_for_picture()
    assert state(site, channel) == "slate"

    flv = ["-c:a", "aac", "-f", "flv"]
    with publishing(*picture("red"), *flv, f"{server}/wrong-key-0000") as wrong:
        assert wrong.wait(10) != 0  # refused
    with publishing(*picture("red"), *flv, f"{server}/{key}"):
        page.wait_for_colour(RED)
        assert state(site, channel) == "live"
        with publishing(*picture("green"), *flv, f"{server}/{key}") as second:
            assert second.wait(10) != 0  # the channel is busy
        page.wait_for_colour(RED, limit_s=1.0)
        found = site.api("GET", f"/api/channels/{channel}/detail").json()["publisher"]
        assert (found["way"], found["address"]) == ("rtmp", "127.0.0.1")
        assert (found["width"], found["height"], found["framerate"]) == (640, 360, 25)
        assert found["bitrate_kbps"] > 10
    wait_until(lambda: state(site, channel) == "slate")
    assert site.api("GET", f"/api/channels/{channel}").json()["publisher"] is None
    with publishing(*picture("green"), *flv, f"{server}/{key}"):
        page.wait_for_colour(GREEN)  # back by itself, on the same page
    assert page.stats()["phase"] == "playing"
    log = site.log.read_text()
    assert str(key) not in log


def test_rtmp_joined_long_before_the_next_key_frame(
    site: SiteProcess, watch: Watching, channel: str
) -> None:
    """OBS at its defaults sends a key frame every ten seconds; here every five."""
    made = add(site, channel, "--from", "rtmp")
    publish = made["publish"]
    assert isinstance(publish, dict)
    page = watch(site.url, channel)
    page.wait_for_picture()
    slow = [word if word != "25" else "125" for word in picture("red")]
    url = f"{publish['OBS server']}/{publish['OBS stream key']}"
    with publishing(*slow, "-c:a", "aac", "-f", "flv", url):
        page.wait_for_colour(RED, limit_s=20.0)
        assert state(site, channel) == "live"


def test_a_killed_rtmp_server_lets_its_publisher_back_in(
    site: SiteProcess, watch: Watching, channel: str
) -> None:
    made = add(site, channel, "--from", "rtmp")
    publish = made["publish"]
    assert isinstance(publish, dict)
    send = [*picture("red"), "-c:a", "aac", "-f", "flv"]
    url = f"{publish['OBS server']}/{publish['OBS stream key']}"
    page = watch(site.url, channel)
    page.wait_for_picture()
    with publishing(*send, url):
        page.wait_for_colour(RED)
        children = site.api("GET", "/api/site").json()["children"]
        os.kill(children["rtmp"]["pid"], signal.SIGKILL)
        wait_until(lambda: state(site, channel) == "slate")
    wait_until(lambda: detail(site, channel) == "waiting for a publisher")
    wait_until(lambda: site.api("GET", "/api/site").json()["children"]["rtmp"]["restarts"] == 1)
    time.sleep(0.5)
    with publishing(*send, url):
        page.wait_for_colour(RED)


def test_srt_with_its_passphrase(site: SiteProcess, watch: Watching, channel: str) -> None:
    made = add(site, channel, "--from", "srt")
    publish = made["publish"]
    assert isinstance(publish, dict)
    url = str(publish["OBS server"])
    page = watch(site.url, channel)
    page.wait_for_picture()
    ts = ["-c:a", "aac", "-f", "mpegts"]
    with publishing(*picture("green"), *ts, url.replace("passphrase=", "passphrase=x")) as wrong:
        assert wrong.wait(15) != 0
    with publishing(*picture("red"), *ts, url):
        page.wait_for_colour(RED)
    # SRT itself takes 5 s to give a vanished peer up; then the listener is free again.
    wait_until(lambda: detail(site, channel) == "waiting for a publisher")
    with publishing(*picture("green"), *ts, url):
        page.wait_for_colour(GREEN)
    assert str(made["key"]) not in site.log.read_text()


def test_rtp_with_garbage_on_its_port(site: SiteProcess, watch: Watching, channel: str) -> None:
    made = add(site, channel, "--from", "rtp")
    port = int(str(made["source"]).partition(":")[2].partition(" ")[0])
    page = watch(site.url, channel)
    page.wait_for_picture()
    garbage = (
        "import os, socket, sys, time; s = socket.socket(2, 2)\n"
        "for _ in range(3000): s.sendto(os.urandom(300), ('127.0.0.1', int(sys.argv[1])));"
        " time.sleep(0.001)"
    )
    send = ["-an", "-f", "rtp", f"rtp://127.0.0.1:{port}?pkt_size=1200"]
    with publishing(*picture("red"), *send):
        noise = subprocess.Popen([sys.executable, "-c", garbage, str(port)])
        page.wait_for_colour(RED, limit_s=25.0)
        noise.wait()
        page.wait_for_colour(RED)


def test_hls_from_a_web_server(
    site: SiteProcess, watch: Watching, channel: str, clip: Path, tmp_path: Path
) -> None:
    playlist = tmp_path / "live.m3u8"
    subprocess.run(
        [
            *QUIET,
            *("-stream_loop", "14", "-i", str(clip), "-c", "copy"),
            *("-f", "hls", "-hls_time", "2", "-hls_list_size", "0", str(playlist)),
        ],
        check=True,
    )

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(
        ("127.0.0.1", 0), partial(Quiet, directory=str(tmp_path))
    )
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        url = f"http://127.0.0.1:{server.server_port}/live.m3u8"
        add(site, channel, "--from", url)
        page = watch(site.url, channel)
        page.wait_for_picture()
        page.wait_for_colour(BLUE)
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def test_what_cannot_be_fed_is_said_in_a_line(
    site: SiteProcess, clip: Path, tmp_path: Path
) -> None:
    text = tmp_path / "notes.txt"
    text.write_text("no film")
    for name, source, word in (
        ("a b", "test", "not allowed"),
        ("../x", "test", "not allowed"),
        ("x" * 50, "test", "not allowed"),
        ("test1", "test", "already"),
        ("gone", "/no/such/file.mp4", "no file"),
        ("folder", str(tmp_path), "file"),
        ("evil", "concat:/etc/passwd", "not"),
        ("odd", "gopher://x", "not"),
        ("live-once", "rtmp", "only a file"),
    ):
        extra = ["--once"] if name == "live-once" else []
        done = site.command("channel", "add", name, "--from", source, *extra)
        assert done.returncode == 1, (name, done.stdout)
        assert word in done.stderr.lower(), done.stderr
        assert len(done.stderr.strip().splitlines()) == 1
    done = site.command("channel", "add", "notafilm", "--from", str(text), "--json")
    try:
        if done.returncode == 0:  # only ffmpeg can tell: then the channel says it
            wait_until(lambda: state(site, "notafilm") == "failed")
            assert site.api("GET", "/api/channels/notafilm").json()["detail"]
    finally:
        site.command("channel", "remove", "notafilm")
    listed = site.api("GET", "/api/channels").json()["channels"]
    assert [channel["name"] for channel in listed] == ["test1", "test2"]


def test_a_port_belongs_to_one_channel(site: SiteProcess, channel: str) -> None:
    made = add(site, channel, "--from", "srt")
    port = str(made["source"]).partition(":")[2].partition(" ")[0]
    done = site.command("channel", "add", "second", "--from", f"srt:{port}")
    assert done.returncode == 1
    assert f"belongs to the channel {channel}" in done.stderr
