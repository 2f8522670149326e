"""The clock in the picture."""

import shutil
import subprocess
import time
from itertools import pairwise

import pytest

from anabranch.media.clock import (
    BITS,
    COLUMNS,
    PERIOD_MS,
    age_ms,
    clock_filter,
    read_clock,
    strip_size,
)


def paint(ms, width=640, height=360):
    """Draw the strip as the filter does."""
    bits = [True, False, *((ms >> (BITS - 1 - n)) & 1 == 1 for n in range(BITS))]
    wide, high = strip_size(width, height)
    luma = bytearray([128]) * (width * height)
    for y in range(high):
        for x in range(wide):
            on = bits[x * COLUMNS // wide] != (y >= high // 2)
            luma[y * width + x] = 235 if on else 16
    return bytes(luma)


@pytest.mark.parametrize("size", [(640, 360), (320, 180), (1280, 720), (426, 240), (256, 144)])
@pytest.mark.parametrize("ms", [0, 1, PERIOD_MS - 1, 0xA5A5A5, 0x123456])
def test_what_is_painted_is_read(size, ms):
    assert read_clock(paint(ms, *size), *size) == ms


def test_no_clock_is_no_time():
    assert read_clock(bytes(640 * 360), 640, 360) is None
    assert read_clock(bytes([255]) * (640 * 360), 640, 360) is None
    assert read_clock(b"", 640, 360) is None
    assert read_clock(bytes(64), 8, 8) is None
    upside = paint(1234)[::-1]
    assert read_clock(upside, 640, 360) is None


def test_age_wraps_around():
    assert age_ms(PERIOD_MS - 10, PERIOD_MS * 100_000 + 5) == 15
    assert age_ms(5, PERIOD_MS * 7 - 5) == -10


@pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="needs ffmpeg")
def test_ffmpeg_paints_the_present_time():
    size = 640, 360
    graph = f"testsrc2=s=640x360:r=25[b];{clock_filter(*size, 25)}[c];[b][c]overlay,format=gray"
    with subprocess.Popen(
        [
            *("ffmpeg", "-nostdin", "-loglevel", "error", "-f", "lavfi", "-i", graph),
            *("-frames:v", "12", "-c:v", "rawvideo", "-f", "rawvideo", "-flush_packets", "1", "-"),
        ],
        stdout=subprocess.PIPE,
    ) as process:
        readings = []
        assert process.stdout is not None
        while len(frame := process.stdout.read(640 * 360)) == 640 * 360:
            clock = read_clock(frame, *size)
            assert clock is not None
            readings.append((clock, age_ms(clock, time.time() * 1000)))
    assert len(readings) == 12
    steps = [(b[0] - a[0]) % PERIOD_MS for a, b in pairwise(readings)]
    assert 380 < sum(steps) < 520
    assert all(-2 <= age < 1000 for _, age in readings)
