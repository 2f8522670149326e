"""What a node on this machine, which is not the root's, knows of itself: viewers and processes."""

import asyncio
import os
import time
from collections.abc import Callable, Iterable

from anabranch.host.process import Child
from anabranch.site.gauges import CpuMeter, stream_of
from anabranch.site.leaf_news import LeafNews
from anabranch.tree.receivers import ReceiverReport
from anabranch.tree.reporter import Readings


class OutpostGauge:
    """Reads the node; see :class:`~anabranch.site.agent.Gauge`.

    Args:
        children: returns the node's processes; its agent's is this one.
    """

    def __init__(self, news: LeafNews, children: Callable[[], Iterable[Child]]) -> None:
        self._news = news
        self._children = children
        self._cpu = CpuMeter()

    async def read(self) -> Readings:
        pids = [child.pid for child in self._children() if child.pid is not None]
        cpu = self._cpu.sample([os.getpid(), *pids], time.monotonic())
        return Readings(await self._viewers(), cpu)

    async def _viewers(self) -> dict[str, ReceiverReport]:
        leaf = self._news.leaf
        if leaf is None:
            return {}
        viewings = dict(self._news.viewings)
        figures = await asyncio.gather(*map(leaf.statistics, viewings))
        return {
            viewing: ReceiverReport(
                stream_of(feed.channel, feed.rendition),
                found.bytes_sent,
                found.packets_lost,
                found.nacks,
                found.packets_sent,
                found.jitter_ms,
                found.rtt_ms,
            )
            for (viewing, feed), found in zip(viewings.items(), figures, strict=True)
            if found is not None
        }
