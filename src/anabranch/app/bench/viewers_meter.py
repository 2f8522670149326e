"""One number of viewers after another at a leaf server, measured for some seconds each."""

import asyncio
import time
from dataclasses import dataclass

import psutil

from anabranch.app.bench.viewers_crowd import Crowd
from anabranch.app.bench.viewers_lab import Lab, dropped
from anabranch.app.bench.viewers_load import Load, Message
from anabranch.core.errors import UnavailableError

MAX_DELAY_MS = 20.0
MAX_LOSS = 0.001
MAX_BUSY = 97.0
"""Percent of a core from which on it is full."""
_MAX_SKIPPED = 0.02
"""Share of the packets that may be missing without a gap in the numbers; how a window of seconds
falls on key frames changes that much."""
_KB = 1024


@dataclass(frozen=True, slots=True)
class Step:
    """What was measured at one number of viewers; processor times in percent of a core.

    Attributes:
        loss: share of the packets that are missing by their numbers.
        skipped: share of the source's packets that were not even numbered.
        core: of the leaf server with the kernel's handling of packets on its core; what others
            used of the core is not in it.
        overflows: packets that the viewers' side did not take in time: its core, or its sockets.
        rss_kb: resident memory of the leaf server.
    """

    viewers: int
    p50_ms: float
    p99_ms: float
    samples: int
    loss: float
    skipped: float
    leaf_cpu: float
    core: float
    client_cpu: float
    overflows: int
    lost_viewers: int
    rss_kb: float

    def trouble(self) -> str | None:
        """Return why the leaf server does not hold so many; None: it does."""
        if self.lost_viewers:
            return f"{self.lost_viewers} viewers were cut off"
        if self.overflows:
            return f"the viewers' side has not taken {self.overflows} packets in time"
        if self.loss > MAX_LOSS:
            return f"{100 * self.loss:.2f} % lost"
        if self.skipped > _MAX_SKIPPED:
            return f"{100 * self.skipped:.0f} % not sent"
        if self.p99_ms > MAX_DELAY_MS:
            return f"p99 {self.p99_ms:.1f} ms"
        if self.core > MAX_BUSY:
            return f"the core is full ({self.core:.0f} %)"
        return None


class Meter:
    """Measures at one leaf server."""

    def __init__(self, made: Lab, load: Load, crowd: Crowd, packets_per_s: float) -> None:
        self._load = load
        self._crowd = crowd
        self._packets_per_s = packets_per_s
        self._core = made.leaf_core
        child = made.leaf.child
        if child is None or child.pid is None:
            raise UnavailableError("the leaf server has ended")
        self._leaf = psutil.Process(child.pid)
        self._client = psutil.Process(load.pid)

    def rss_kb(self) -> float:
        """Return the resident memory of the leaf server."""
        return float(self._leaf.memory_info().rss) / _KB

    async def step(self, viewers: int, seconds: int, settle_s: float) -> Step:
        """Have so many viewers and measure for some seconds.

        Raises:
            UnavailableError, LeafError: so many do not get connected.
        """
        await self._crowd.resize(viewers)
        await asyncio.sleep(settle_s)
        lost_before, dropped_before = self._crowd.lost, dropped()
        before = await self._load.request("statistics", reset=True)
        used_before, began = self._used(), time.monotonic()
        await asyncio.sleep(seconds)
        used, took = self._used(), time.monotonic() - began
        after = await self._load.request("statistics", reset=True)
        leaf, client, core = (100 * (b - a) / took for a, b in zip(used_before, used, strict=True))
        after["totals"]["overflows"] += dropped() - dropped_before
        lost_viewers = self._crowd.lost - lost_before
        return self._step(viewers, before, after, (leaf, client, core), lost_viewers)

    def _step(
        self,
        viewers: int,
        before: Message,
        after: Message,
        used: tuple[float, float, float],
        lost_viewers: int,
    ) -> Step:
        grown = {
            name: after["totals"][name] - before["totals"][name]
            for name in ("packets", "lost", "overflows")
        }
        lost, received = max(grown["lost"], 0), grown["packets"]
        window_s = (after["at_us"] - before["at_us"]) / 1e6
        expected = viewers * self._packets_per_s * window_s
        delay = after["delay_us"]
        return Step(
            viewers=viewers,
            p50_ms=delay["p50"] / 1000,
            p99_ms=delay["p99"] / 1000,
            samples=delay["samples"],
            loss=lost / max(lost + received, 1),
            skipped=max(1 - (received + lost) / expected, 0.0),
            leaf_cpu=used[0],
            client_cpu=used[1],
            core=used[2],
            overflows=grown["overflows"],
            lost_viewers=lost_viewers,
            rss_kb=self.rss_kb(),
        )

    def _used(self) -> tuple[float, float, float]:
        """Return seconds of leaf server, load client, and the former with the kernel's part."""
        leaf, client = self._leaf.cpu_times(), self._client.cpu_times()
        core = psutil.cpu_times(percpu=True)[self._core]
        own = leaf.user + leaf.system
        return own, client.user + client.system, own + core.irq + core.softirq
