"""What feeds the channels: put together of what the gate, the RTMP server and the ingests know."""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from anabranch.channels.channel import Channel
from anabranch.channels.definitions import Definition
from anabranch.media.encoder import EncoderConfig
from anabranch.media.ingest import IngestState
from anabranch.media.publisher_figures import Connection, Reception, SourcePicture
from anabranch.media.rendition import DEFAULT_LADDER
from anabranch.site import publisher_reports
from anabranch.site.publisher_reports import PublisherReports, Receptions

LOG = (
    "[info]   Stream #0:0: Video: h264 (High), yuv420p, 640x360, 900 kb/s, 25 fps, 25 tbr",
    "[info]   Stream #0:1: Audio: aac (LC), 48000 Hz, stereo, fltp, 128 kb/s",
    "[info] Stream mapping:",
    "[info] Output #0, matroska, to 'unix:/run/f.sock':",
)


@dataclass
class Server:
    """Tells of one publisher, and counts how often it is asked."""

    told: dict[str, tuple[Connection, Reception | None]] = field(default_factory=dict)
    asked: int = 0

    async def statistics(self) -> Receptions:
        self.asked += 1
        return dict(self.told)


@pytest.fixture
def make(tmp_path: Path) -> Callable[[str], Channel]:
    """Makes a channel that nobody starts."""

    def made(source: str) -> Channel:
        definition = Definition("news", "News", source, False, "k" * 24, 1)
        config = EncoderConfig("News", tmp_path, DEFAULT_LADDER)
        return Channel(
            definition, config, "run", rtmp_port=1935, number=1, on_event=lambda _event: None
        )

    return made


@pytest.fixture
def whenever(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have every look be one."""
    monkeypatch.setattr(publisher_reports, "FRESH_S", 0.0)


@pytest.mark.usefixtures("whenever")
async def test_a_publisher_is_measured_while_it_is_there(make: Callable[[str], Channel]) -> None:
    channel, server = make("whip"), Server()
    reports = PublisherReports({"news": channel}, [server.statistics])
    await reports.look()
    assert reports.of("news") is None
    assert reports.of("nothing") is None
    channel.publisher = "one"
    connection = Connection(time.time() - 10, "192.0.2.1:5")
    seen = Reception(1_250_000, packets=990, lost=10, picture=SourcePicture(framerate=30))
    server.told = {"news": (connection, seen)}
    await reports.look()
    report = reports.of("news")
    assert report is not None
    assert (report.way, report.since) == ("whip", connection.since)
    assert report.address == "192.0.2.1:5"
    assert report.bitrate_kbps == pytest.approx(1000, rel=0.05)
    assert report.loss == pytest.approx(0.01)
    assert (report.received, report.picture.framerate) == (seen, 30)

    server.told = {"news": (connection, None)}  # it does not answer just now
    await reports.look()
    report = reports.of("news")
    assert report is not None
    assert (report.bitrate_kbps, report.loss, report.received) == (None, None, None)

    server.told = {"news": (Connection(time.time(), "192.0.2.2:5"), Reception(0))}  # another one
    await reports.look()
    report = reports.of("news")
    assert report is not None
    assert (report.bitrate_kbps, report.loss) == (None, None)

    channel.publisher = None
    assert reports.of("news") is None


async def test_nobody_is_asked_twice_in_a_second(make: Callable[[str], Channel]) -> None:
    server = Server()
    reports = PublisherReports({"news": make("rtmp")}, [server.statistics])
    for _ in range(20):
        await reports.look()
    assert server.asked == 1


async def test_a_server_that_hangs_keeps_nobody_waiting(make: Callable[[str], Channel]) -> None:
    server = Server()
    answered = asyncio.Event()

    async def hanging() -> Receptions:
        await answered.wait()
        return await server.statistics()

    reports = PublisherReports({"news": make("whip")}, [hanging])
    for _ in range(3):
        await reports.look(patience=0.01)
    assert server.asked == 0
    answered.set()
    await reports.look()
    assert server.asked == 1, "all of them were one question"
    await reports.stop()


def test_of_other_ways_in_the_ingest_knows(make: Callable[[str], Channel]) -> None:
    channel = make("srt:9999")
    reports = PublisherReports({"news": channel}, [])
    assert reports.of("news") is None
    for line in LOG:
        channel.ingest._on_line("stderr", line)
    assert channel.ingest.state is IngestState.RUNNING
    report = reports.of("news")
    assert report is not None
    assert (report.way, report.bitrate_kbps, report.reconnects) == ("srt", 1028, 0)
    assert report.picture == SourcePicture("h264", 640, 360, 25)
    assert report.since == pytest.approx(time.time(), abs=60)
    assert (report.address, report.loss, report.received) == (None, None, None)
    channel.ingest._tell(IngestState.RETRYING, "it broke off")
    assert reports.of("news") is None


def test_a_test_picture_has_no_publisher(make: Callable[[str], Channel]) -> None:
    channel = make("test")
    for line in LOG:
        channel.ingest._on_line("stderr", line)
    assert PublisherReports({"news": channel}, []).of("news") is None
