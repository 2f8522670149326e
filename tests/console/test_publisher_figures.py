"""Publishers' figures: in the API, for Prometheus and on the terminal; addresses for few."""

import time

import httpx
import pytest
from tests.console.conftest import OPERATOR

from anabranch.app.channel_tables import print_channel, print_channels
from anabranch.app.config import Config
from anabranch.media.publisher_figures import Connection, Reception, SourcePicture
from anabranch.site.publisher_reports import PublisherReports, Receptions
from anabranch.site.site import Site

ADDRESS = "192.0.2.77"
SEEN = Reception(
    1_250_000,
    packets=990,
    lost=10,
    repaired=5,
    nacks=20,
    plis=1,
    jitter_ms=2.0,
    rtt_ms=30.0,
    allowed_kbps=3000,
    picture=SourcePicture("h264", 640, 360, 25),
)


@pytest.fixture
def fed(site: Site) -> Site:
    """The site with somebody who feeds its channel for ten seconds now."""
    site.channel("news").publisher = "1"
    connection = Connection(time.time() - 10, ADDRESS)

    async def tell() -> Receptions:
        return {"news": (connection, SEEN)}

    site.publisher_reports = PublisherReports(site.lineup.channels, [tell])
    return site


async def test_nobody_feeds(client: httpx.AsyncClient) -> None:
    assert (await client.get("/api/channels/news")).json()["publisher"] is None
    metrics = (await client.get("/metrics")).text
    assert 'anabranch_publisher_since_seconds{channel="news"' not in metrics


async def test_anybody_sees_the_figures_and_no_address(
    client: httpx.AsyncClient, fed: Site
) -> None:
    answer = await client.get("/api/channels/news")
    publisher = answer.json()["publisher"]
    assert publisher.pop("bitrate_kbps") == pytest.approx(1000, rel=0.05)
    assert publisher.pop("since") == pytest.approx(time.time() - 10, abs=60)
    assert publisher == {
        "way": "rtmp",
        "loss": 0.01,
        "jitter_ms": 2.0,
        "rtt_ms": 30.0,
        "allowed_kbps": 3000.0,
        "bytes_received": 1_250_000,
        "packets_received": 990,
        "packets_lost": 10,
        "packets_repaired": 5,
        "nacks": 20,
        "plis": 1,
        "codec": "h264",
        "width": 640,
        "height": 360,
        "framerate": 25.0,
        "reconnects": 0,
    }
    (listed,) = (await client.get("/api/channels")).json()["channels"]
    assert listed["publisher"]["nacks"] == 20
    for path in ("/api/channels", "/api/channels/news", "/metrics", "/api/site"):
        assert ADDRESS not in (await client.get(path, headers=OPERATOR)).text


async def test_the_operator_sees_the_address(client: httpx.AsyncClient, fed: Site) -> None:
    detail = (await client.get("/api/channels/news/detail", headers=OPERATOR)).json()
    public = (await client.get("/api/channels/news")).json()["publisher"]
    assert detail["publisher"] == {**public, "address": ADDRESS}


async def test_prometheus_finds_them_in_base_units(client: httpx.AsyncClient, fed: Site) -> None:
    lines = (await client.get("/metrics")).text.splitlines()
    for line in (
        'anabranch_publisher_bytes_received_total{channel="news"} 1.25e+06',
        'anabranch_publisher_packets_lost_total{channel="news"} 10.0',
        'anabranch_publisher_loss_ratio{channel="news"} 0.01',
        'anabranch_publisher_jitter_seconds{channel="news"} 0.002',
        'anabranch_publisher_round_trip_seconds{channel="news"} 0.03',
        'anabranch_publisher_picture_height{channel="news"} 360.0',
    ):
        assert line in lines
    (since,) = (line for line in lines if line.startswith("anabranch_publisher_since_seconds{"))
    assert 'way="rtmp"' in since


async def test_the_terminal_shows_them(
    client: httpx.AsyncClient, fed: Site, capsys: pytest.CaptureFixture[str]
) -> None:
    detail = (await client.get("/api/channels/news/detail", headers=OPERATOR)).json()
    detail["publisher"] |= {"bitrate_kbps": 1000.4, "since": time.time() - 125}
    print_channel(Config(), detail, as_json=False)
    shown = [line.strip() for line in capsys.readouterr().out.splitlines()]
    assert f"publisher  rtmp for 2 min 5 s from {ADDRESS}" in shown
    assert (
        "arrival  1000 kbit/s, 1.0% lost, jitter 2 ms, round trip 30 ms, repaired 5,"
        " key frames asked for 1"
    ) in shown
    assert "picture  h264 640x360 25 frames/s" in shown
    print_channels([detail])
    table = capsys.readouterr().out  # whose cells break where the terminal is narrow
    for word in ("rtmp,", "1000", "kbit/s,", "1.0%", "lost"):
        assert word in table
