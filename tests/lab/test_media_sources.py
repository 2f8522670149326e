"""Every kind of source against the real ffmpeg and nginx, on loopback."""

import asyncio
import os
import random
import re
import shutil
import socket
import subprocess
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from structlog.testing import capture_logs
from tests.waiting import until

from anabranch.media.ingest import Ingest, IngestState
from anabranch.media.publisher_figures import SourcePicture
from anabranch.media.rendition import Picture
from anabranch.media.rtmp import (
    PUBLISH_PATH,
    RTMP_MODULE,
    RtmpConfig,
    RtmpServer,
    parse_call,
)
from anabranch.media.source import RtmpSource, SrtSource
from anabranch.media.source_text import parse_source

pytestmark = [
    pytest.mark.lab,
    pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="needs ffmpeg"),
]
PICTURE = Picture(320, 180, 25)
TEST_CARD = ("-re", "-f", "lavfi", "-i", "testsrc2=s=320x180:r=25")
H264 = ("-c:v", "libx264", "-preset", "ultrafast", "-tune", "zerolatency", "-g", "12", "-bf", "0")


def free_port(kind=socket.SOCK_DGRAM):
    with socket.socket(socket.AF_INET, kind) as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


class Sink:
    """Takes the feed and counts its bytes."""

    def __init__(self):
        self.total = 0

    async def __call__(self, reader, writer):
        try:
            while data := await reader.read(1 << 20):
                self.total += len(data)
        finally:
            writer.close()


@asynccontextmanager
async def ingest_of(source, directory, **options):
    """A started ingest whose feed is thrown away; ``ingest.seen`` has its states."""
    feed = directory / "feed.sock"
    sink = Sink()
    server = await asyncio.start_unix_server(sink, feed, limit=1 << 22)
    seen = []
    ingest = Ingest(
        "ingest",
        source if not isinstance(source, str) else parse_source(source, **options.pop("parse", {})),
        PICTURE,
        feed,
        directory,
        directory.name,
        on_state=lambda state, detail: seen.append((state, detail)),
        **options,
    )
    ingest.seen, ingest.sink = seen, sink
    try:
        await ingest.start()
        yield ingest
    finally:
        await ingest.stop()
        server.close()
        await asyncio.sleep(0.05)


@asynccontextmanager
async def publisher(*args):
    process = await asyncio.create_subprocess_exec(
        "ffmpeg", "-nostdin", "-loglevel", "error", *args, stderr=asyncio.subprocess.PIPE
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


def running(ingest):
    return ingest.state is IngestState.RUNNING and ingest.stats.frames > 10


async def test_a_file_played_once_ends(directory):
    film = directory / "film.mp4"
    command = ["ffmpeg", "-loglevel", "error", *TEST_CARD[1:], "-t", "1", *H264, str(film)]
    subprocess.run(command, check=True)
    async with ingest_of(str(film), directory, parse={"loop": False}) as ingest:
        await until(lambda: ingest.state is IngestState.ENDED, str(ingest.seen))
        assert ingest.seen[-1] == (IngestState.ENDED, "the source ended")
        assert (IngestState.RUNNING, "h264 320x180") in ingest.seen


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (lambda path: path.write_bytes(random.Random(1).randbytes(20_000)), "not readable media"),
        (lambda path: path.write_text("1\n00:00:01,000 --> 00:00:02,000\nHello\n"), "neither"),
    ],
)
async def test_a_file_that_is_no_media_says_so(directory, make, expected):
    path = directory / "thing.srt"
    make(path)
    async with ingest_of(str(path), directory) as ingest:
        await until(lambda: ingest.stats.restarts >= 1, "a second attempt")
        details = [d for s, d in ingest.seen if s is IngestState.RETRYING]
        assert details, ingest.seen
        assert expected in details[0]


async def test_a_file_that_vanished_and_a_server_that_is_not_there(directory):
    port = free_port(socket.SOCK_STREAM)
    cases = {
        f"rtsp://user:hunter22@127.0.0.1:{port}/x": "the connection was refused",
        f"http://127.0.0.1:{port}/x.m3u8": "the connection was refused",
    }
    for source, expected in cases.items():
        async with ingest_of(source, directory) as ingest:
            await until(lambda: len(ingest.seen) >= 2, "an outcome")
            assert ingest.seen[1] == (IngestState.RETRYING, expected)
            assert "hunter22" not in str(ingest.seen)


async def test_rtp_survives_garbage_before_and_during_the_stream(directory):
    port = free_port()
    noise = random.Random(7)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:

        def flood(count):
            for _ in range(count):
                data = bytearray(noise.randbytes(noise.randint(1, 1400)))
                if noise.random() < 0.3 and len(data) > 1:  # looks like RTP of our payload type
                    data[0], data[1] = 0x80, 96
                sock.sendto(data, ("127.0.0.1", port))

        async with ingest_of(f"rtp://127.0.0.1:{port}", directory) as ingest:
            assert ingest.state is IngestState.WAITING
            for _ in range(10):
                flood(50)
                await asyncio.sleep(0.05)
            target = f"rtp://127.0.0.1:{port}?pkt_size=1200"
            rtp = ("-payload_type", "96", "-f", "rtp", target)
            async with publisher(*TEST_CARD, *H264, "-bsf:v", "dump_extra", *rtp):
                await until(lambda: running(ingest), str(ingest.seen), limit_s=25)
                flood(300)
                await asyncio.sleep(0.5)
                before, lives = ingest.stats.frames, ingest.stats.restarts
                await until(
                    lambda: (
                        running(ingest)
                        and (ingest.stats.frames > before + 15 or ingest.stats.restarts > lives)
                    ),
                    str(ingest.seen),
                    limit_s=20,
                )


async def test_a_port_that_is_taken_is_named_so(directory):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("0.0.0.0", 0))
        port = sock.getsockname()[1]
        for source in (f"rtp:{port}", f"srt:{port}"):
            async with ingest_of(source, directory) as ingest:
                await until(lambda: len(ingest.seen) >= 2, "an outcome")
                assert ingest.seen[1][1] == "the port is taken by another program", ingest.seen


async def test_srt_takes_the_right_passphrase_only(directory):
    port = free_port()
    source = SrtSource(port, "127.0.0.1", "correct-horse-1")
    target = f"srt://127.0.0.1:{port}?pbkeylen=16&passphrase="
    async with ingest_of(source, directory) as ingest:
        assert ingest.state is IngestState.WAITING
        await asyncio.sleep(0.5)
        async with publisher(*TEST_CARD, *H264, "-f", "mpegts", target + "battery-staple") as wrong:
            await asyncio.wait_for(wrong.wait(), 8)
            assert wrong.returncode != 0
        assert ingest.state is IngestState.WAITING
        async with publisher(*TEST_CARD, *H264, "-f", "mpegts", target + "correct-horse-1"):
            await until(lambda: running(ingest), str(ingest.seen))
        await until(lambda: ingest.state is IngestState.WAITING, "listening again")
        assert "correct-horse-1" not in str(ingest.seen)


class Director:
    """Answers the RTMP server's calls."""

    def __init__(self):
        self.calls = []

    async def __call__(self, reader, writer):
        head = await reader.readuntil(b"\r\n\r\n")
        size = int(re.search(rb"(?i)content-length: (\d+)", head)[1])
        call = parse_call(await reader.readexactly(size))
        self.calls.append(call)
        answer = "200 OK"
        if head.startswith(b"POST " + PUBLISH_PATH.encode() + b" "):
            good = call.name == "sesame"
            answer = "302 Found\r\nLocation: channel-one" if good else "403 Forbidden"
        writer.write(f"HTTP/1.1 {answer}\r\nContent-Length: 0\r\n\r\n".encode())
        await writer.drain()
        writer.close()


@pytest.mark.skipif(not Path(RTMP_MODULE).exists(), reason="needs nginx with its RTMP module")
async def test_rtmp_publisher_by_key_is_found_by_channel(directory):
    director = Director()
    api = await asyncio.start_server(director, "127.0.0.1", 0)
    port = free_port(socket.SOCK_STREAM)
    home = directory / "rtmp"
    home.mkdir()
    config = RtmpConfig(home, port, api.sockets[0].getsockname()[1])
    server = RtmpServer("rtmp", config, directory.name)
    url = f"rtmp://127.0.0.1:{port}/live/"
    try:
        await server.start()
        async with publisher(*TEST_CARD, *H264, "-f", "flv", url + "wrong") as wrong:
            assert await asyncio.wait_for(wrong.wait(), 5) != 0
        async with publisher(*TEST_CARD, *H264, "-f", "flv", url + "sesame") as first:
            await until(lambda: len(director.calls) >= 2, "the call")
            async with ingest_of(RtmpSource("channel-one", port), directory) as ingest:
                await until(lambda: running(ingest), str(ingest.seen))
                async with publisher(*TEST_CARD, *H264, "-f", "flv", url + "sesame") as second:
                    assert await asyncio.wait_for(second.wait(), 5) != 0
                assert first.returncode is None
                assert running(ingest)
                (number, found), *others = (await server.statistics()).items()
                assert (number, others) == (director.calls[1].client_id, [])
                assert found.octets > 10_000
                assert found.picture == SourcePicture("h264", 320, 180, 25)
        accepted = director.calls[1]
        await until(
            lambda: any(
                (c.call, c.client_id) == ("publish_done", accepted.client_id)
                for c in director.calls
            ),
            "publish_done",
            limit_s=60,
        )
    finally:
        await server.stop()
        api.close()
    assert os.listdir(home) == []


@pytest.mark.skipif(not Path(RTMP_MODULE).exists(), reason="needs nginx with its RTMP module")
async def test_an_rtmp_server_that_is_killed_tells_its_figures_again(directory):
    home = directory / "rtmp"
    home.mkdir()
    server = RtmpServer("rtmp", RtmpConfig(home, free_port(socket.SOCK_STREAM), 9), directory.name)
    try:
        await server.start()
        before = server.child.pid
        server.child.kill()
        await until(lambda: server.child.pid not in (None, before), "another life")

        async def tells() -> bool:
            with capture_logs() as complaints:
                return await server.statistics() == {} and complaints == []

        await until(tells, "its figures")
    finally:
        await server.stop()
    assert os.listdir(home) == []
