"""The leaf server of our own with foreign viewers: in a namespace, and without one."""

import asyncio
import os
import secrets
import signal
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from tests.lab.computer import Computer
from tests.lab.leaf_place import leaf_place
from tests.lab.test_site_feed import RED
from tests.lab.viewer import Viewer, viewer
from tests.lab.whip_publisher import publisher
from tests.waiting import until

from anabranch.app.bench.site_process import SiteProcess, running_site
from anabranch.media.encoder import Encoder, EncoderConfig
from anabranch.media.leaf import (
    Feed,
    LeafUnavailableError,
    OfferError,
    Rung,
    Viewing,
)
from anabranch.media.native import NativeLeaf
from anabranch.media.rendition import AUDIO, Format, Rendition

pytestmark = pytest.mark.lab
RENDITIONS = (Rendition("high", 320, 180, 400), Rendition("low", 160, 90, 100))
HIGH, LOW, OTHER = Feed("test1", "high"), Feed("test1", "low"), Feed("test2", "high")
LADDER = [Rung(HIGH, 400), Rung(LOW, 100)]


@dataclass
class World:
    """A leaf in a namespace, with encoders that send what it wants, as a site does."""

    leaf: NativeLeaf
    directory: Path
    netns: str
    encoders: dict[str, Encoder] = field(default_factory=dict)
    states: list[str] = field(default_factory=list)
    key_frames: list[Feed] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.leaf.on_viewing = lambda _id, state: self.states.append(state)
        self.leaf.on_inlets = self.aim
        self.leaf.on_key_frame = self.make_key_frame

    async def put_on_air(self, channel: str) -> None:
        """Have a channel encoded: its slate, and silence. A key frame every 2 s."""
        directory = self.directory / channel
        directory.mkdir()
        config = EncoderConfig(
            channel, directory, RENDITIONS, form=Format(gop_s=2.0), netns=self.netns
        )
        self.encoders[channel] = Encoder(channel, config, self.leaf._place.run_id)
        await self.encoders[channel].start()
        self.aim()

    def aim(self) -> None:
        for channel, encoder in self.encoders.items():
            inlets = [inlet for inlet in self.leaf.inlets() if inlet.feed.channel == channel]
            ports = {inlet.feed.rendition: inlet.video_port for inlet in inlets}
            if inlets:  # they share the sound
                ports[AUDIO] = inlets[0].audio_port
            for stream in encoder.config.streams:
                targets = [("127.0.0.1", ports[stream])] if stream in ports else []
                encoder.set_targets(stream, targets)

    def make_key_frame(self, feed: Feed) -> None:
        self.key_frames.append(feed)
        self.encoders[feed.channel].request_keyframe(feed.rendition)

    async def watch(self, one: Viewer, feed: Feed = HIGH, **wanted: object) -> Viewing:
        made: list[Viewing] = []

        async def ask(offer: str) -> str:
            made.append(await self.leaf.watch(feed, offer, **wanted))
            return made[0].answer

        await one.watch(ask)
        return made[0]


@pytest.fixture
async def world() -> AsyncIterator[World]:
    async with leaf_place("127.0.0.1") as (place, netns):
        leaf = NativeLeaf(place)
        made = World(leaf, place.directory.parent, netns)
        await leaf.start()
        yield made
        await asyncio.gather(*(encoder.stop() for encoder in made.encoders.values()))
        await leaf.stop()


async def test_a_foreign_viewer_sees_and_hears(world: World) -> None:
    await world.put_on_air("test1")
    async with viewer() as first, viewer() as second:
        viewing = await world.watch(first)
        await first.frames(25)
        assert first.size == (320, 180)
        # Pictures catch up, so 25 of them may be here in a tenth of a second.
        await until(lambda: first.audio_frames > 10)
        assert world.states == ["up"]
        statistics = await world.leaf.statistics(viewing.id)
        assert statistics is not None
        # A slate that stands still, and silence: small packets.
        assert 25 < statistics.packets_sent < statistics.bytes_sent / 15

        other = await world.watch(second)  # of the same stream
        await second.frames(5)
        assert len(world.leaf.inlets()) == 1
        await world.leaf.close(other.id)
        await first.frames(5)
    await until(lambda: world.states.count("gone") == 2)  # by its own goodbye
    await until(lambda: not world.leaf.inlets())


async def test_a_later_viewer_waits_for_no_key_frame(world: World) -> None:
    await world.put_on_air("test1")
    async with viewer() as first, viewer() as second:
        await world.watch(first)
        await first.frames(10)
        await until(lambda: "up" in world.states)
        asked = len(world.key_frames)
        await world.watch(second)
        await second.frames(1)
        assert len(world.key_frames) == asked


async def test_a_viewer_changes_rendition_and_channel_over_one_connection(world: World) -> None:
    await world.put_on_air("test1")
    await world.put_on_air("test2")
    async with viewer() as one:
        viewing = await world.watch(one, ladder=LADDER)
        await one.frames(10)
        assert one.size == (320, 180)
        sound = one.audio_frames
        await world.leaf.change(viewing.id, LOW, ladder=LADDER, pinned=True)
        await until(lambda: one.size == (160, 90))
        await until(lambda: one.audio_frames > sound + 25)
        await until(lambda: {inlet.feed for inlet in world.leaf.inlets()} == {LOW})
        await world.leaf.change(viewing.id, OTHER)
        await until(lambda: one.size == (320, 180))
        sound = one.audio_frames
        await one.frames(25)
        await until(lambda: one.audio_frames > sound + 25)
        await until(lambda: {inlet.feed for inlet in world.leaf.inlets()} == {OTHER})
        assert world.states == ["up"]
        with pytest.raises(LeafUnavailableError):
            await world.leaf.change("nobody", LOW)


async def test_a_warm_channel_is_at_hand_before_anybody_comes(world: World) -> None:
    await world.put_on_air("test1")
    world.leaf.keep_warm(LADDER)
    assert {inlet.feed for inlet in world.leaf.inlets()} == {HIGH, LOW}
    await asyncio.sleep(2.5)  # more than a GOP
    world.key_frames.clear()
    async with viewer() as one:
        await world.watch(one)
        await one.frames(1)
        assert world.key_frames == []
    await until(lambda: world.states[-1:] == ["gone"])
    await asyncio.sleep(4)  # longer than an inlet is held
    assert {inlet.feed for inlet in world.leaf.inlets()} == {HIGH, LOW}


async def test_bad_offers_are_refused_and_leave_nothing(world: World) -> None:
    async with viewer() as one:
        await one.connection.setLocalDescription(await one.connection.createOffer())
        good = one.connection.localDescription.sdp
    for bad in (
        "",
        "hello",
        good.replace("H264", "H265"),
        good.replace("a=ice-pwd", "a=ice-pwx"),
        good.replace("a=fingerprint:", "a=fingerprint:sha-256 no"),
        good.replace("m=video ", "m=video"),
        good.replace("a=rtcp-mux", "a=rtcp-mix"),
        "v=0\r\n" + "a=x\r\n" * 30_000,
    ):
        with pytest.raises(OfferError):
            await world.leaf.watch(HIGH, bad)
    assert not world.leaf.inlets()
    assert world.leaf.ready


async def test_a_viewer_that_never_connects_is_given_up(world: World) -> None:
    async with viewer() as one:
        await one.connection.setLocalDescription(await one.connection.createOffer())
        await world.leaf.watch(HIGH, one.connection.localDescription.sdp)
        await until(lambda: world.states == ["gone"], limit_s=20.0)


async def test_a_killed_server_comes_back_and_its_viewers_are_told(world: World) -> None:
    await world.put_on_air("test1")
    async with viewer() as first:
        await world.watch(first)
        await until(lambda: world.states == ["up"])
        assert world.leaf.child is not None
        world.leaf.child.kill()
        await until(lambda: world.states == ["up", "gone"])
        assert world.leaf.inlets() == frozenset()
        await until(lambda: world.leaf.ready)
    async with viewer() as again:
        await world.watch(again)
        await again.frames(5)


async def test_a_server_left_alone_stays(world: World) -> None:
    assert world.leaf.child is not None
    pid = world.leaf.child.pid
    await asyncio.sleep(10)
    assert world.leaf.ready
    assert world.leaf.child.pid == pid


async def test_a_foreign_viewer_plays_from_a_site_without_switches() -> None:
    with running_site(carriage="direct") as site:
        async with viewer() as one:
            await one.watch(lambda offer: ask(site, offer))
            await one.frames(30)
            assert one.size == (640, 360)
            await until(lambda: one.audio_frames > 20)


async def ask(site: SiteProcess, offer: str) -> str:
    headers = {"Content-Type": "application/sdp"}
    answer = await asyncio.to_thread(site.post, "/whep/test1", content=offer, headers=headers)
    assert answer.status_code == 201, answer.text
    return answer.text


async def test_an_address_that_is_gone_keeps_neither_leaf_nor_gate_away() -> None:
    neighbour = Computer("198.51.100.1", "198.51.100.2", 24)
    try:
        with running_site(carriage="direct") as site:
            key = f"stage{secrets.token_hex(8)}"
            stage = {"name": "stage", "source": "whip", "key": key}
            site.api("POST", "/api/channels", json=stage).raise_for_status()
            children = site.api("GET", "/api/site").json()["children"]
            servers = [name for name in children if name.startswith("leaf:")]
            assert len(servers) == 2
            neighbour.remove()
            for name in servers:
                os.kill(children[name]["pid"], signal.SIGKILL)

            def are_back() -> bool:
                now = site.api("GET", "/api/site").json()["children"]
                pids = {name: now[name]["pid"] for name in servers}
                return all(pid not in (None, children[name]["pid"]) for name, pid in pids.items())

            await until(are_back)
            async with viewer() as one:
                await one.watch(lambda offer: ask(site, offer))
                await one.frames(30)
            async with publisher(RED) as camera:
                assert await camera.publish(f"{site.url}/whip/stage", key) == 201
    finally:
        neighbour.remove()
