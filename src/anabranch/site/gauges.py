"""What the nodes of this machine know of themselves: viewers, processes, switch ports."""

import asyncio
import os
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Any, Protocol

import psutil

from anabranch.channels.seats import Seat
from anabranch.media.leaf import LeafServer, ViewerStatistics
from anabranch.tree.receivers import ReceiverReport
from anabranch.tree.reporter import LinkCounts, Readings

PortCounters = Mapping[tuple[str, int], Mapping[str, Any]]
"""By node and port number."""


class CpuMeter:
    """How busy a set of processes keeps this machine: per cent of a core, mean over its cores."""

    def __init__(self) -> None:
        self._times: dict[tuple[int, float], float] = {}
        self._at: float | None = None
        self._cores = len(os.sched_getaffinity(0))

    def sample(self, pids: Iterable[int], now: float) -> float | None:
        """Return the load since the last sample; None: this is the first.

        A process that is new counts from now on. ``now`` is in monotonic seconds.
        """
        times = {}
        for pid in pids:
            try:
                process = psutil.Process(pid)
                # The number may be another process's since the last sample.
                times[pid, process.create_time()] = sum(process.cpu_times()[:2])
            except psutil.Error:
                continue
        spent = sum(
            spent - self._times[process]
            for process, spent in times.items()
            if process in self._times
        )
        before, self._at, self._times = self._at, now, times
        if before is None or now <= before:
            return None
        return 100.0 * spent / (now - before) / self._cores


class Counters:
    """The counters of all switch ports, read once in an interval for all nodes together."""

    def __init__(
        self, read: Callable[[], Awaitable[Sequence[Mapping[str, Any]]]], max_age_s: float
    ) -> None:
        self._read = read
        self._max_age = max_age_s
        self._taken = float("-inf")
        self._last: PortCounters = {}
        self._lock = asyncio.Lock()

    async def latest(self) -> PortCounters:
        """Return counters that are not older than the interval."""
        async with self._lock:
            now = asyncio.get_running_loop().time()
            if now - self._taken >= self._max_age:
                ports = await self._read()
                self._last = {(port["node"], port["port"]): port for port in ports}
                self._taken = now
        return self._last


class World(Protocol):
    """What a gauge asks the site about a node."""

    def pids_of(self, node: str) -> Iterable[int]:
        """Return the processes that work for a node."""

    def leaf_of(self, node: str) -> LeafServer | None:
        """Return a leaf's server."""

    def seats_at(self, node: str) -> Iterable[Seat]:
        """Return the seats at a leaf."""

    def links_above(self, node: str) -> Iterable[tuple[tuple[str, int], tuple[str, int]]]:
        """Return the links from a node's parent: the parent's port and its own, with nodes."""


class LocalGauge:
    """Reads one node of this machine; see :class:`~anabranch.site.agent.Gauge`."""

    def __init__(self, node: str, world: World, counters: Counters) -> None:
        self._node = node
        self._world = world
        self._counters = counters
        self._cpu = CpuMeter()

    async def read(self) -> Readings:
        counters = await self._counters.latest()
        links = tuple(
            LinkCounts(
                f"{above[0]}:{above[1]}",
                counters[above]["tx_packets"],
                counters[below]["rx_packets"],
            )
            for above, below in self._world.links_above(self._node)
            if above in counters and below in counters
        )
        cpu = self._cpu.sample(self._world.pids_of(self._node), time.monotonic())
        return Readings(await self._viewers(), cpu, links)

    async def _viewers(self) -> dict[str, ReceiverReport]:
        leaf = self._world.leaf_of(self._node)
        if leaf is None:
            return {}
        seats = [seat for seat in self._world.seats_at(self._node) if seat.state == "watching"]
        figures = await asyncio.gather(*(leaf.statistics(seat.viewing) for seat in seats))
        return {
            seat.id: report_of(seat, found)
            for seat, found in zip(seats, figures, strict=True)
            if found is not None
        }


def stream_of(channel: str, rendition: str) -> str:
    """Return the identifier of a stream in the tree's messages."""
    return f"{channel}/{rendition}"


def parts_of(stream: str) -> tuple[str, str]:
    """Return channel and rendition of a stream."""
    channel, _, rendition = stream.partition("/")
    return channel, rendition


def report_of(seat: Seat, figures: ViewerStatistics) -> ReceiverReport:
    """Return what a leaf knows of a viewer, as the tree's statistics want it."""
    return ReceiverReport(
        stream_of(seat.channel, seat.rendition),
        figures.bytes_sent,
        figures.packets_lost,
        figures.nacks,
        figures.packets_sent,
        figures.jitter_ms,
        figures.rtt_ms,
    )
