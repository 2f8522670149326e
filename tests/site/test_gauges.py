"""What gauges read: processor time of real processes, counters once for all, viewers' figures."""

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

from anabranch.channels.seats import Seat
from anabranch.media.leaf import ViewerStatistics
from anabranch.site.gauges import Counters, CpuMeter, parts_of, report_of, stream_of


@pytest.fixture
def busy() -> Iterator[subprocess.Popen[bytes]]:
    """A process that uses a whole core, as far as it gets one."""
    process = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    yield process
    process.kill()
    process.wait()


def test_a_busy_process_is_seen_and_one_that_has_ended_is_not(
    busy: subprocess.Popen[bytes],
) -> None:
    meter = CpuMeter()
    cores = len(os.sched_getaffinity(0))
    assert meter.sample([busy.pid], time.monotonic()) is None
    while (load := meter.sample([busy.pid], time.monotonic())) == 0.0:
        time.sleep(0.1)
    assert load is not None
    assert 0 < load <= 100 / cores * 1.5
    busy.kill()
    busy.wait()
    assert meter.sample([busy.pid], time.monotonic()) == 0.0


def test_a_process_that_is_new_counts_from_now_on(busy: subprocess.Popen[bytes]) -> None:
    meter = CpuMeter()
    time.sleep(0.2)
    meter.sample([], 0.0)
    assert meter.sample([busy.pid], 1.0) == 0.0


async def test_counters_are_read_once_for_all() -> None:
    reads = 0

    async def read() -> list[dict[str, object]]:
        nonlocal reads
        reads += 1
        await asyncio.sleep(0)
        return [{"node": "relay", "port": 100, "rx_packets": reads}]

    counters = Counters(read, 60.0)
    found = await asyncio.gather(*(counters.latest() for _ in range(10)))
    assert reads == 1
    assert all(each["relay", 100]["rx_packets"] == 1 for each in found)
    counters = Counters(read, 0.0)
    await counters.latest()
    await counters.latest()
    assert reads == 3


def test_a_viewers_figures_keep_their_meaning() -> None:
    seat = Seat("news", "high", "leaf1", "7")
    report = report_of(seat, ViewerStatistics(1000, 8, 2, 3, 4.5, None))
    assert (report.stream, report.bytes_sent, report.packets_sent) == ("news/high", 1000, 8)
    assert (report.packets_lost, report.nacks) == (2, 3)
    assert (report.jitter_ms, report.rtt_ms) == (4.5, None)
    assert parts_of(stream_of("news", "high")) == ("news", "high")
