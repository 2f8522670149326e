"""What strangers and full disks do to a site: nothing that a viewer would notice."""

import asyncio
import os
import random
import socket
import subprocess
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from ipaddress import IPv4Network
from pathlib import Path

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families
from tests.lab.viewer import Viewer, viewer
from tests.waiting import until

from anabranch.app.bench.site_process import SiteProcess

pytestmark = pytest.mark.lab
SDP = {"Content-Type": "application/sdp"}


def ask_of(site: SiteProcess, channel: str) -> Callable[[str], Awaitable[str]]:
    async def ask(offer: str) -> str:
        async with httpx.AsyncClient(base_url=site.url, timeout=20) as client:
            answer = await client.post(f"/whep/{channel}", content=offer, headers=SDP)
        assert answer.status_code == 201, answer.text
        return answer.text

    return ask


@asynccontextmanager
async def playing(site: SiteProcess, channel: str) -> AsyncIterator[Viewer]:
    """A viewer who must keep playing, at the rate of the source, whatever goes on meanwhile."""
    async with viewer() as one:
        await one.watch(ask_of(site, channel))
        await one.frames(25)
        began, seen = time.monotonic(), one.video_frames
        yield one
        rate = (one.video_frames - seen) / (time.monotonic() - began)
        assert rate > 20, f"{rate:.1f} frames a second"
        await one.frames(10, limit=2.0)


async def an_offer() -> str:
    async with viewer() as one:
        await one.connection.setLocalDescription(await one.connection.createOffer())
        return str(one.connection.localDescription.sdp)


async def figures(site: SiteProcess, name: str) -> dict[str, float]:
    """One family of the metrics, by its first label."""
    async with httpx.AsyncClient(base_url=site.url, timeout=20) as client:
        text = (await client.get("/metrics")).text
    return {
        next(iter(sample.labels.values()), ""): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name == name
    }


async def nobody_but(site: SiteProcess, count: int) -> None:
    async def so() -> bool:
        return sum((await figures(site, "anabranch_leaf_viewers")).values()) == count

    await until(so, limit_s=20.0)


def spoilt(offer: str, rng: random.Random) -> Iterator[bytes]:
    """Offers that are none, or nearly one."""
    raw = offer.encode()
    yield from (b"", b"v=0", b"\0" * 100, b"v=0\r\n" + b"m=video 9 X 96\r\n" * 40, b"\xff" * 60_000)
    yield from (b"x" * 70_000, b"y" * 300_000, raw * 30, raw.replace(b"\r\n", b"\n\n\0"))
    for _ in range(60):
        yield rng.randbytes(rng.randint(1, 3000))
    lines = raw.split(b"\r\n")
    for _ in range(60):
        cut = [line for line in lines if rng.random() > 0.15]
        yield b"\r\n".join(cut)
    for _ in range(60):
        spoilt_ = bytearray(raw)
        for _ in range(rng.randint(1, 8)):
            spoilt_[rng.randrange(len(raw))] = rng.randrange(256)
        yield bytes(spoilt_)
    for old, new in (
        (b"UDP/TLS/RTP/SAVPF", b"RTP/AVP"),
        (b"a=ice-ufrag:", b"a=ice-ufrag:%n%s%x"),
        (b"a=mid:0", b"a=mid:" + b"9" * 5000),
        (b"H264/90000", b"H264/90000/" + b"1" * 300),
        (b"a=setup:actpass", b"a=setup:passive"),
        (b"a=rtpmap:", b"a=rtpmap:-"),
    ):
        yield raw.replace(old, new)


async def test_spoilt_offers_are_refused_and_nobody_notices(site: SiteProcess) -> None:
    good, seen = await an_offer(), set()
    restarts = await figures(site, "anabranch_child_restarts_total")
    async with playing(site, "test1"), httpx.AsyncClient(base_url=site.url, timeout=20) as client:
        for body in spoilt(good, random.Random(1)):
            answer = await client.post("/whep/test2", content=body, headers=SDP)
            seen.add(answer.status_code)
            if answer.status_code == 201:  # what was spoilt did not matter
                await client.delete(answer.headers["location"])
            else:
                assert len(answer.json()["detail"].splitlines()) == 1, answer.text
                assert answer.headers["access-control-allow-origin"] == "*"
            assert answer.status_code in (201, 413, 422), (answer.text, body)
    assert {413, 422} <= seen
    assert set((await figures(site, "anabranch_leaf_ready")).values()) == {1}
    assert await figures(site, "anabranch_child_restarts_total") == restarts
    await nobody_but(site, 0)


async def test_watchers_who_never_connect_are_given_up(site: SiteProcess) -> None:
    offer = await an_offer()
    async with playing(site, "test1") as one:
        ask = ask_of(site, "test2")
        for _ in range(40):
            await ask(offer)
        asked = time.monotonic()
        assert sum((await figures(site, "anabranch_leaf_viewers")).values()) == 41
        seen = one.video_frames
        await nobody_but(site, 1)

        async def one_inlet() -> bool:
            return sum((await figures(site, "anabranch_leaf_inlets")).values()) == 1

        await until(one_inlet)
        assert time.monotonic() - asked < 22
        assert one.video_frames - seen > 20 * 10
    await nobody_but(site, 0)


async def test_garbage_at_the_leaves_ports_disturbs_nobody(site: SiteProcess) -> None:
    first, last = map(int, site.settings["PORTS__MEDIA"].split("-"))
    subnets = IPv4Network(site.settings["ADDRESSES__ACCESS"]).subnets(new_prefix=30)
    leaves = [str(next(subnets)[2]) for _ in range(2)]
    rng = random.Random(2)
    restarts = await figures(site, "anabranch_child_restarts_total")
    # Plain noise, and what looks like STUN, DTLS, RTP and RTCP (RFC 7983's first bytes).
    heads = (b"", b"\x00\x01\x00\x08\x21\x12\xa4\x42", b"\x16\xfe\xff", b"\x80\x60", b"\x80\xc9")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as noise:
        async with playing(site, "test1"):
            end = time.monotonic() + 4
            while time.monotonic() < end:
                for _ in range(40):
                    head = rng.choice(heads)
                    where = rng.choice(leaves), rng.randint(first, last)
                    noise.sendto(head + rng.randbytes(rng.randint(0, 1300)), where)
                await asyncio.sleep(0.01)
    assert set((await figures(site, "anabranch_leaf_ready")).values()) == {1}
    assert await figures(site, "anabranch_child_restarts_total") == restarts
    await nobody_but(site, 0)


async def test_a_channel_that_is_removed_sends_its_viewers_home(site: SiteProcess) -> None:
    command = asyncio.to_thread(site.command, "channel", "add", "brief", "--from", "test")
    assert (await command).returncode == 0
    async with playing(site, "test1"), viewer() as one:
        await one.watch(ask_of(site, "brief"))
        await one.frames(5)
        assert (await figures(site, "anabranch_channel_viewers"))["brief"] == 1
        done = await asyncio.to_thread(site.command, "channel", "remove", "brief")
        assert done.returncode == 0, done.stderr
        await nobody_but(site, 1)
        async with httpx.AsyncClient(base_url=site.url) as client:
            again = await client.post("/whep/brief", content="v=0", headers=SDP)
        assert again.status_code == 404
        assert await figures(site, "anabranch_channel_viewers") == {"test1": 1, "test2": 0}
    children = (await asyncio.to_thread(site.api, "GET", "/api/site")).json()["children"]
    assert not [name for name in children if "brief" in name]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    directory = tmp_path / "state"
    directory.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(directory)], check=True)
    yield directory
    subprocess.run(["umount", str(directory)], check=True)


def fill(path: Path) -> None:
    with path.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(os.urandom(4096))
        except OSError:
            pass


def names(site: SiteProcess) -> list[str]:
    return [c["name"] for c in site.api("GET", "/api/channels").json()["channels"]]


async def test_a_full_disk_costs_only_what_must_be_kept(small_disk: Path) -> None:
    site = SiteProcess(state_dir=str(small_disk), test_channels="1")
    try:
        await asyncio.to_thread(site.start)
        async with playing(site, "test1"):
            await asyncio.to_thread(fill, small_disk / "filler")
            refused, kept = None, ["test1"]
            for number in range(1, 5):
                add = ("channel", "add", f"more{number}", "--from", "test:5")
                done = await asyncio.to_thread(site.command, *add)
                if done.returncode:
                    refused = done
                    break
                kept.append(f"more{number}")
            assert refused is not None
            assert "disk is full" in refused.stderr
            assert len(refused.stderr.strip().splitlines()) == 1
            body = {"name": "other", "source": "test"}
            answer = await asyncio.to_thread(site.api, "POST", "/api/channels", json=body)
            assert answer.status_code == 507
            assert await asyncio.to_thread(names, site) == kept
        for full in (True, False):
            if not full:
                (small_disk / "filler").unlink()
            assert await asyncio.to_thread(site.stop) == 0
            await asyncio.to_thread(site.start)
            assert await asyncio.to_thread(names, site) == kept
        assert (await asyncio.to_thread(site.command, *add)).returncode == 0
        async with playing(site, "test1"):
            await asyncio.sleep(1)
    finally:
        await asyncio.to_thread(site.remove)


async def test_a_film_that_is_gone_keeps_nothing_else_off_the_air(tmp_path: Path) -> None:
    film, away = tmp_path / "film.mp4", tmp_path / "away.mp4"
    make = ("-f", "lavfi", "-i", "color=blue:s=64x36:r=25", "-t", "2", str(film))
    subprocess.run(["ffmpeg", "-nostdin", "-loglevel", "error", *make], check=True)
    site = SiteProcess(carriage="direct", test_channels="1")
    try:
        await asyncio.to_thread(site.start)
        add = ("channel", "add", "film", "--from", str(film))
        assert (await asyncio.to_thread(site.command, *add)).returncode == 0
        film.rename(away)
        assert await asyncio.to_thread(site.stop) == 0
        starting = asyncio.create_task(asyncio.to_thread(site.start))

        async def told() -> bool:
            with suppress(httpx.TransportError):
                async with httpx.AsyncClient(base_url=site.url) as client:
                    found = (await client.get("/api/channels")).json()["channels"]
                states = {c["name"]: (c["state"], c["detail"]) for c in found}
                return states.get("test1") == ("live", None) and states["film"][0] == "failed"
            return False

        await until(told)
        other = ("channel", "add", "other", "--from", "rtp")
        assert (await asyncio.to_thread(site.command, *other)).returncode == 0
        assert (await asyncio.to_thread(site.command, "channel", "remove", "other")).returncode == 0
        away.rename(film)
        await starting  # until every channel is live
    finally:
        await asyncio.to_thread(site.remove)
