"""The Janus leaf with a foreign viewer, in a namespace of its own."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from tests.lab.leaf_place import leaf_place
from tests.lab.viewer import viewer
from tests.waiting import until

from anabranch.core.names import new_id
from anabranch.host.process import Child, ChildSpec
from anabranch.media.janus import JanusLeaf
from anabranch.media.leaf import Feed, LeafUnavailableError, OfferError, Viewing

pytestmark = pytest.mark.lab
FEED = Feed("test1", "high")


@asynccontextmanager
async def source(
    leaf: JanusLeaf, netns: str, feed: Feed = FEED, size: str = "320x180"
) -> AsyncIterator[None]:
    """Send H.264 and Opus to the leaf's only inlet of a feed."""
    (inlet,) = [inlet for inlet in leaf.inlets() if inlet.feed == feed]
    video = "-c:v libx264 -preset ultrafast -tune zerolatency -g 25 -profile:v baseline -an"
    lavfi = ["-re", "-f", "lavfi", "-i", f"testsrc2=s={size}:r=25", "-f", "lavfi", "-i", "sine"]
    child = Child(
        ChildSpec(
            "source",
            ("ffmpeg", "-loglevel", "error", *lavfi, "-map", "0:v", *video.split(), "-pix_fmt",
             "yuv420p", "-f", "rtp", f"rtp://127.0.0.1:{inlet.video_port}?pkt_size=1200",
             "-map", "1:a", "-c:a", "libopus", "-ar", "48000", "-ac", "2", "-vn",
             "-f", "rtp", f"rtp://127.0.0.1:{inlet.audio_port}"),
            netns=netns,
        ),
        new_id(),
    )  # fmt: skip
    await child.start()
    try:
        yield
    finally:
        await child.stop()


@pytest.fixture
async def leaf() -> AsyncIterator[JanusLeaf]:
    async with leaf_place("lo") as (place, _netns):
        made = JanusLeaf(place)
        await made.start()
        yield made
        await made.stop()


async def test_a_foreign_viewer_sees_and_hears(leaf: JanusLeaf) -> None:
    states: list[str] = []
    changes: list[int] = []
    leaf.on_viewing = lambda _id, state: states.append(state)
    leaf.on_inlets = lambda: changes.append(len(leaf.inlets()))
    async with viewer() as first:
        viewings = []

        async def ask(offer: str) -> str:
            viewings.append(await leaf.watch(FEED, offer))
            return viewings[-1].answer

        await first.watch(ask)
        async with source(leaf, leaf._place.netns or ""):
            await first.frames(25)
            assert first.size == (320, 180)
            await until(lambda: first.audio_frames > 10)
            assert states == ["up"]

            statistics = await leaf.statistics(viewings[0].id)
            assert statistics is not None
            assert statistics.bytes_sent > 10_000
            assert 10 < statistics.packets_sent < statistics.bytes_sent / 40

            async with viewer() as second:  # shares the mountpoint
                await second.watch(ask)
                await second.frames(5)
                assert len(leaf.inlets()) == 1
            await leaf.close(viewings[1].id)
            await first.frames(5)
        await leaf.close(viewings[0].id)
    await until(lambda: not leaf.inlets())
    assert changes == [1, 0]
    assert states.count("gone") == 2


async def test_a_viewer_is_shown_another_feed_over_the_same_connection(leaf: JanusLeaf) -> None:
    low = Feed("test1", "low")
    netns = leaf._place.netns or ""
    async with viewer() as one:

        async def ask(offer: str) -> str:
            nonlocal viewing
            viewing = await leaf.watch(FEED, offer)
            return viewing.answer

        viewing: Viewing | None = None
        await one.watch(ask)
        assert viewing is not None
        async with source(leaf, netns):
            await one.frames(10)
            sound = one.audio_frames
            await leaf.change(viewing.id, low)
            async with source(leaf, netns, low, "160x90"):
                await one.frames(10)
                await until(lambda: one.size == (160, 90))
                await until(lambda: one.audio_frames > sound + 25)
                await until(lambda: {inlet.feed for inlet in leaf.inlets()} == {low})
        await leaf.change(viewing.id, low)  # nothing to do
        with pytest.raises(LeafUnavailableError):
            await leaf.change("1", low)
        await leaf.close(viewing.id)
    await until(lambda: not leaf.inlets())


async def test_bad_offers_are_refused_and_leave_nothing(leaf: JanusLeaf) -> None:
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
        "v=0\r\n" + "a=x\r\n" * 30_000,
    ):
        with pytest.raises(OfferError):
            await leaf.watch(FEED, bad)
    await until(lambda: not leaf.inlets())
    assert leaf.ready


async def test_a_killed_janus_comes_back_and_its_viewers_are_told(leaf: JanusLeaf) -> None:
    states: list[str] = []
    leaf.on_viewing = lambda _id, state: states.append(state)
    async with viewer() as first:

        async def ask(offer: str) -> str:
            return (await leaf.watch(FEED, offer)).answer

        await first.watch(ask)
        await until(lambda: states == ["up"])
        assert leaf._child is not None
        leaf._child.kill()
        await until(lambda: states == ["up", "gone"])
        assert leaf.inlets() == frozenset()
        await until(lambda: leaf.ready)
    async with viewer() as again:
        await again.watch(ask)
        await until(lambda: states[-1] == "up")


async def test_a_leaf_left_alone_stays(leaf: JanusLeaf) -> None:
    """Keep-alives are answered by an ack alone: that is no sign of a Janus that hangs."""
    assert leaf.child is not None
    pid = leaf.child.pid
    await asyncio.sleep(10)
    assert leaf.ready
    assert leaf.child.pid == pid


async def test_one_that_hangs_at_its_start_is_replaced(leaf: JanusLeaf) -> None:
    assert leaf.child is not None
    first = leaf.child.pid
    leaf.child.kill()
    await until(lambda: leaf.child is not None and leaf.child.pid not in (first, None))
    hanging = leaf.child.pid
    assert hanging is not None
    os.kill(hanging, signal.SIGSTOP)
    await until(
        lambda: leaf.ready and leaf.child is not None and leaf.child.pid != hanging, limit_s=30.0
    )
