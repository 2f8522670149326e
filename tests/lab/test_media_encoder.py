"""Ingest, encoder and RTP on loopback, with the real programs."""

import asyncio
import os
import shutil
import statistics
import subprocess
from contextlib import asynccontextmanager
from itertools import pairwise
from pathlib import Path

import psutil
import pytest
from tests.media.rtp_receiver import RtpReceiver
from tests.waiting import until

from anabranch.media.clock import age_ms, read_clock
from anabranch.media.encoder import Encoder, EncoderConfig
from anabranch.media.ingest import Ingest
from anabranch.media.rendition import AUDIO, DEFAULT_LADDER
from anabranch.media.source_text import parse_source

pytestmark = [
    pytest.mark.lab,
    pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="needs ffmpeg"),
    pytest.mark.skipif(
        not Path("/usr/bin/python3").exists()
        or subprocess.run(["/usr/bin/python3", "-c", "import gi"], capture_output=True).returncode
        != 0,
        reason="needs GStreamer's Python bindings",
    ),
]


@asynccontextmanager
async def channel(directory, source=None, **config):
    """An encoder with a receiver per stream, and an ingest if a source is given."""
    async with RtpReceiver() as high, RtpReceiver() as low, RtpReceiver() as sound:
        encoder = Encoder(
            "encoder",
            EncoderConfig("Channel One", directory, DEFAULT_LADDER, **config),
            directory.name,
            targets={"high": [high.target], "low": [low.target], AUDIO: [sound.target]},
        )
        encoder.high, encoder.low, encoder.sound = high, low, sound
        ingest = None
        try:
            await encoder.start()
            if source is not None:
                ingest = new_ingest(encoder, source, directory)
                await ingest.start()
                await until(lambda: encoder.state.video == "live", "live picture")
            yield encoder, ingest
        finally:
            if ingest is not None:
                await ingest.stop()
            await encoder.stop()


def new_ingest(encoder, source, directory, **options):
    source = parse_source(source) if isinstance(source, str) else source
    return Ingest(
        "ingest",
        source,
        encoder.config.picture,
        encoder.feed_path,
        directory,
        directory.name,
        **options,
    )


async def test_test_source_is_sent_in_two_sizes_with_a_readable_clock(directory):
    async with channel(directory, "test:3") as (encoder, _ingest):
        await asyncio.sleep(2.5)
        stats = await encoder.stats()
        state = encoder.state
    assert (state.video, state.audio) == ("live", "live")
    for receiver, name, size in (
        (encoder.high, "high", (640, 360)),
        (encoder.low, "low", (320, 180)),
    ):
        assert not receiver.gaps()
        assert {p.ssrc for p in receiver.packets} == {state.ssrcs[name]}
        assert {p.payload_type for p in receiver.packets} == {96}
        assert max(len(p.payload) for p in receiver.packets) <= 1188
        frames = receiver.decode()
        assert (frames[-1].width, frames[-1].height) == size
        ages = [
            age_ms(clock, frame.arrived * 1000)
            for frame in frames
            if (clock := read_clock(frame.luma, *size, frame.stride)) is not None
        ]
        assert len(ages) > 40
        assert -5 < statistics.median(ages) < 250
        # RTP time zero is the same moment for every stream, and known in time of day.
        skew = [f.arrived * 1000 - state.epoch_ms - f.timestamp / 90 for f in frames[-20:]]
        assert -100 < statistics.median(skew) < 300
        assert stats["streams"][name]["bytes"] > 10_000
    assert {p.ssrc for p in encoder.sound.packets} == {state.ssrcs[AUDIO]}
    assert not encoder.sound.gaps()
    steps = [b.timestamp - a.timestamp for a, b in pairwise(encoder.sound.packets[-50:])]
    assert set(steps) <= {960}


async def test_the_slate_replaces_a_dead_source_and_the_stream_runs_on(directory):
    async with channel(directory, "test") as (encoder, ingest):
        await asyncio.sleep(1.2)
        os.kill(ingest.pid, 19)  # SIGSTOP: the connection stays, nothing arrives
        lost = await until(lambda: encoder.state.video == "slate", "slate")
        await asyncio.sleep(0.7)
        os.kill(ingest.pid, 18)
        back = await until(lambda: encoder.state.video == "live", "live again")
        await asyncio.sleep(0.5)
        os.kill(ingest.pid, 9)
        await until(lambda: encoder.state.video == "slate", "slate at once", limit_s=1)
        await until(lambda: encoder.state.video == "live", "restarted")
        await asyncio.sleep(1)
        assert encoder.state.generation == 1
    assert lost < 1.2
    assert back < 0.6
    for receiver in (encoder.high, encoder.low, encoder.sound):
        assert not receiver.gaps()
        assert len({p.ssrc for p in receiver.packets}) == 1
        times = [p.timestamp for p in receiver.packets]
        steps = [b - a for a, b in pairwise(times)]
        assert min(steps) >= 0, [(n, s) for n, s in enumerate(steps) if s < 0]
    frames = encoder.high.decode()
    shown = [read_clock(f.luma, 640, 360, f.stride) is not None for f in frames]
    changes = sum(a != b for a, b in pairwise(shown))
    assert shown[-1]
    assert changes in (4, 5)  # slate, live, slate, live, slate, live


async def test_a_key_frame_on_demand_but_no_flood_of_them(directory):
    async with channel(directory, "test", form=_slow_form()) as (encoder, _):
        await asyncio.sleep(2.2)
        before = len([p for p in encoder.high.pictures() if p.idr])
        encoder.request_keyframe("high")
        took = await until(
            lambda: len([p for p in encoder.high.pictures() if p.idr]) > before,
            "key frame",
            limit_s=2,
        )
        assert took < 0.4
        other = len([p for p in encoder.low.pictures() if p.idr])
        for _ in range(50):
            encoder.request_keyframe("high")
        await asyncio.sleep(1.5)
        pictures = [p.timestamp / 90000 for p in encoder.high.pictures() if p.idr]
        assert len(pictures) - before <= 3
        assert other <= len([p for p in encoder.low.pictures() if p.idr]) <= other + 1


def _slow_form():
    from anabranch.media.rendition import Format

    return Format(gop_s=2)


async def test_a_killed_encoder_returns_with_new_ssrcs_and_the_targets(directory):
    async with channel(directory, "test") as (encoder, _):
        first = dict(encoder.state.ssrcs)
        async with RtpReceiver() as other:
            encoder.set_targets("high", [other.target])
            await until(lambda: len(other.packets) > 20, "new target")
            count = len(encoder.high.packets)
            os.kill(encoder.pid, 9)
            await until(
                lambda: encoder.state.generation == 2 and encoder.state.running, "again", limit_s=6
            )
            await until(lambda: encoder.state.video == "live", "live again")
            second = dict(encoder.state.ssrcs)
            assert not set(first.values()) & set(second.values())
            await until(
                lambda: other.packets[-1].ssrc == second["high"], "targets again", limit_s=3
            )
            assert len(encoder.high.packets) - count < 30


async def test_picture_and_sound_stay_together(directory):
    """A flash and a beep at once every second arrive with RTP times at most 40 ms apart."""
    film = directory / "flash.mkv"
    subprocess.run(
        [
            *("ffmpeg", "-loglevel", "error", "-f", "lavfi", "-i"),
            "color=black:s=320x180:r=25,geq=lum='if(lt(mod(T,1),0.2),235,16)':cb=128:cr=128",
            *("-f", "lavfi", "-i"),
            "aevalsrc='if(lt(mod(t,1),0.2),0.5*sin(2*PI*1000*t),0)':s=48000",
            *("-t", "4", "-c:v", "libx264", "-preset", "ultrafast", "-c:a", "flac", str(film)),
        ],
        check=True,
    )
    async with channel(directory, str(film)) as (encoder, _):
        await asyncio.sleep(5)
    frames = encoder.low.decode()
    flashes = [b.timestamp / 90000 for a, b in pairwise(frames) if a.mean() < 100 < b.mean()]
    packets = encoder.sound.packets
    beeps = [
        b.timestamp / 48000 for a, b in pairwise(packets) if len(a.payload) < 40 < len(b.payload)
    ]
    assert len(flashes) >= 3
    offsets = [min((beep - flash for beep in beeps), key=abs) for flash in flashes[1:]]
    assert max(abs(offset) for offset in offsets) <= 0.041


async def test_sound_only_and_picture_only(directory):
    tone, film = directory / "tone.wav", directory / "silent.mp4"
    lavfi = ("ffmpeg", "-loglevel", "error", "-f", "lavfi", "-i")
    subprocess.run([*lavfi, "sine=d=20", str(tone)], check=True)
    subprocess.run([*lavfi, "testsrc=d=20:s=322x242:r=30", str(film)], check=True)
    async with channel(directory) as (encoder, _):
        for path, expected in ((tone, ("slate", "live")), (film, ("live", "silence"))):
            ingest = new_ingest(encoder, str(path), directory)
            await ingest.start()
            try:
                await until(
                    lambda: (encoder.state.video, encoder.state.audio) == expected,  # noqa: B023
                    str(expected),
                    limit_s=60,
                )
                await asyncio.sleep(0.5)
                assert (encoder.state.video, encoder.state.audio) == expected
            finally:
                await ingest.stop()


async def test_reconnecting_feeds_leave_nothing_behind(directory):
    """Thirty feeds one after another, some broken: memory, threads and descriptors stay."""
    rounds = int(os.environ.get("ANABRANCH_SOAK_FEED_ROUNDS", "30"))
    raw = directory / "raw.mkv"
    subprocess.run(
        [
            *("ffmpeg", "-loglevel", "error", "-f", "lavfi", "-i", "testsrc2=s=640x360:r=25"),
            *("-f", "lavfi", "-i", "sine=r=48000", "-t", "0.6", "-pix_fmt", "yuv420p"),
            *("-c:v", "rawvideo", "-c:a", "pcm_s16le", "-ac", "2", "-live", "1", str(raw)),
        ],
        check=True,
    )
    data = raw.read_bytes()
    async with channel(directory) as (encoder, _):
        process = psutil.Process(encoder.pid)
        usage = []
        for number in range(rounds):
            _, writer = await asyncio.open_unix_connection(encoder.feed_path)
            writer.write(os.urandom(5000) if number % 5 == 4 else data)
            try:
                await asyncio.wait_for(writer.drain(), 2)
                await asyncio.sleep(0.1 if number % 3 else 0.25)
                writer.close()
                await writer.wait_closed()
            except (ConnectionError, TimeoutError):
                writer.close()
            if number in (9, rounds - 1):
                await asyncio.sleep(0.5)
                usage.append(
                    (process.memory_info().rss >> 20, process.num_threads(), process.num_fds())
                )
        assert encoder.state.generation == 1
    (rss, threads, fds), (rss2, threads2, fds2) = usage[0], usage[-1]
    assert threads2 <= threads + 2
    assert fds2 <= fds + 1
    assert rss2 < rss + 15
    assert not encoder.high.gaps()
