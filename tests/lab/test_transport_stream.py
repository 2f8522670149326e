"""The encoder's transport streams, with the real GStreamer."""

import asyncio
import shutil
import tempfile
from contextlib import asynccontextmanager
from itertools import pairwise
from pathlib import Path

import pytest
from tests.media.rtp_receiver import RtpReceiver
from tests.media.ts_receiver import TsReceiver
from tests.waiting import until

from anabranch.host.process import end_marked
from anabranch.media.clock import read_clock
from anabranch.media.encoder import Encoder, EncoderConfig
from anabranch.media.ingest import Ingest
from anabranch.media.rendition import AUDIO, DEFAULT_LADDER
from anabranch.media.source_text import parse_source

pytestmark = pytest.mark.lab

PICTURE, SOUND, PMT, PAT = 256, 257, 32, 0


@pytest.fixture
def directory():
    """A short directory of its own; whatever runs under its mark is ended afterwards."""
    path = Path(tempfile.mkdtemp(prefix="ab-"))
    yield path
    left = end_marked(path.name)
    shutil.rmtree(path)
    assert left == 0, f"{left} processes were left running"


@asynccontextmanager
async def channel(directory, source=None, **targets):
    """An encoder, and its ingest if a source is given."""
    directory.mkdir(exist_ok=True)
    run = directory.parent.name if directory.parent != Path("/tmp") else directory.name
    encoder = Encoder(
        "encoder", EncoderConfig("One", directory, DEFAULT_LADDER), run, targets=targets
    )
    ingest = Ingest(
        "ingest",
        parse_source(source or "test:1"),
        encoder.config.picture,
        encoder.feed_path,
        directory,
        run,
    )
    try:
        await encoder.start()
        if source is not None:
            await ingest.start()
            await until(lambda: encoder.state.video == "live", "live picture")
        yield encoder
    finally:
        await ingest.stop()
        await encoder.stop()


def times(frames):
    return [frame.time for frame in frames if frame.time is not None]


async def test_a_transport_stream_has_the_picture_as_coded_and_the_sound(directory):
    async with TsReceiver() as receiver, channel(directory, "test:3") as encoder:
        encoder.set_targets("high.ts", [receiver.target])
        await until(lambda: len(receiver.datagrams) > 200)
        stats = await encoder.stats()
    assert set(receiver.pids) <= {PAT, PMT, PICTURE, SOUND}
    assert set(receiver.pids) >= {PAT, PMT, PICTURE, SOUND}
    assert {len(data) for _, data in receiver.datagrams} == {7 * 188}
    pictures, sounds = receiver.decode()
    assert {(frame.width, frame.height) for frame in pictures} == {(640, 360)}
    assert {frame.sample_rate for frame in sounds} == {48000}
    plane = pictures[-1].planes[0]
    assert read_clock(bytes(plane), 640, 360, plane.line_size) is not None
    assert stats["transport"]["high.ts"] > 50_000
    # Lips and voice: both tell one clock.
    assert abs(times(pictures)[0] - times(sounds)[0]) < 1.5


async def test_it_is_made_only_while_somebody_wants_it_and_disturbs_nobody(directory):
    async with (
        RtpReceiver() as high,
        RtpReceiver() as sound,
        TsReceiver() as receiver,
        channel(directory, high=[high.target], **{AUDIO: [sound.target]}) as encoder,
    ):
        for _ in range(5):
            assert (await encoder.stats())["transport"] == {}
            before = len(receiver.datagrams)
            encoder.set_targets("high.ts", [receiver.target])
            await until(lambda before=before: len(receiver.datagrams) > before + 30)
            encoder.set_targets("high.ts", [])
        await until(lambda: _gone(encoder))
        await asyncio.sleep(0.2)  # what was on its way has come
        count = len(receiver.datagrams)
        packets = len(high.packets)
        await until(lambda: len(high.packets) > packets + 50)
        assert len(receiver.datagrams) == count
        assert encoder.state.generation == 1
        assert not high.gaps()
        assert not sound.gaps()


async def _gone(encoder):
    return (await encoder.stats())["transport"] == {}


async def test_it_is_there_in_the_encoders_next_life(directory):
    async with TsReceiver() as receiver, channel(directory) as encoder:
        encoder.set_targets("low.ts", [receiver.target])
        await until(lambda: len(receiver.datagrams) > 20)
        encoder._child.kill()
        await until(lambda: encoder.state.generation == 2 and encoder.state.running)
        begin = len(receiver.datagrams)
        await until(lambda: len(receiver.datagrams) > begin + 60)
    pictures, _ = receiver.decode(begin)
    assert {(frame.width, frame.height) for frame in pictures} == {(320, 180)}


async def test_all_channels_tell_one_clock_and_look_like_one_stream(directory):
    """Whoever changes the channel sees the time run on."""
    async with (
        TsReceiver() as one,
        channel(directory / "a") as first,
        channel(directory / "b") as second,
    ):
        first.set_targets("high.ts", [one.target])
        await until(lambda: len(one.datagrams) > 100)
        first.set_targets("high.ts", [])
        second.set_targets("high.ts", [one.target])
        changed = len(one.datagrams)
        await until(lambda: len(one.datagrams) > changed + 100)
    pictures, sounds = one.decode()
    assert set(one.pids) == {PAT, PMT, PICTURE, SOUND}
    for frames in (pictures, sounds):
        steps = [b - a for a, b in pairwise(times(frames))]
        assert min(steps) > 0
        assert max(steps) < 1.5  # until the second's key frame
