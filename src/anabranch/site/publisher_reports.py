"""How the channels are fed: what gate, RTMP server and ingests know of publishers, put together.

Looked at with the tree's rounds, and when somebody asks; never more than once a second.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass

from anabranch.channels.channel import Channel
from anabranch.channels.ways_in import Way, is_published, way_of
from anabranch.core.tasks import end_task
from anabranch.media.publisher_figures import Connection, Meter, Reception, SourcePicture, merged

FRESH_S = 1.0
"""Seconds in which nobody is asked twice."""
PATIENCE_S = 0.2
"""Seconds that somebody waits who asks for more than these reports."""

Receptions = Mapping[str, tuple[Connection, Reception | None]]
"""By channel: who feeds it, and what came so far, if that is told."""


@dataclass(frozen=True, slots=True)
class PublisherReport:
    """What feeds a channel; None: not known of this way in.

    Attributes:
        since: seconds since the epoch.
        address: where the publisher sends from, for the operator alone.
        bitrate_kbps: received in the last seconds; where that is not measured, what the source says
            it has.
        loss: share of the last seconds' packets that did not come, 0 to 1.
        reconnects: how often reading was begun anew, since it broke off or stalled.
        received: all else that was counted.
    """

    way: Way
    since: float
    address: str | None
    bitrate_kbps: float | None
    loss: float | None
    picture: SourcePicture
    reconnects: int
    received: Reception | None


class PublisherReports:
    """Makes the reports.

    Args:
        channels: the channels on the air, by name.
        ask: each tells of the publishers that it has.
    """

    def __init__(
        self,
        channels: Mapping[str, Channel],
        ask: Sequence[Callable[[], Awaitable[Receptions]]],
    ) -> None:
        self._channels = channels
        self._ask = ask
        self._looking: asyncio.Task[None] | None = None
        self._looked = float("-inf")
        self._receptions: dict[str, tuple[Connection, Reception | None]] = {}
        self._meters: dict[tuple[str, Connection], Meter] = {}

    async def look(self, *, patience: float | None = None) -> None:
        """Bring everything up to date.

        Args:
            patience: seconds after which what was known before has to do: a server that hangs
                must not keep those waiting who ask for something else as well. None: any time.
        """
        if time.monotonic() - self._looked < FRESH_S:
            return
        if self._looking is None or self._looking.done():
            self._looking = asyncio.create_task(self._look(), name="publisher-reports")
        looking = asyncio.shield(self._looking)
        done, _ = await asyncio.wait({looking}, timeout=patience)
        if done:
            looking.result()

    async def stop(self) -> None:
        """Ask nobody any longer."""
        if self._looking is not None:
            await end_task(self._looking)

    async def _look(self) -> None:
        found: dict[str, tuple[Connection, Reception | None]] = {}
        for answer in await asyncio.gather(*(ask() for ask in self._ask)):
            found.update(answer)
        now, wall = time.monotonic(), time.time()
        meters = {}
        for name, (connection, reception) in found.items():
            key = (name, connection)
            meter = self._meters.get(key) or Meter(now - max(0.0, wall - connection.since))
            if reception is not None:
                meter.sample(reception, now)
            meters[key] = meter
        self._looked, self._receptions, self._meters = now, found, meters

    def of(self, name: str) -> PublisherReport | None:
        """Return what feeds a channel, as of the last look; None: nothing, or a test picture."""
        channel = self._channels.get(name)
        way = way_of(channel.source) if channel is not None else "test"
        if channel is None or way == "test":
            return None
        ingest = channel.ingest.stats
        if not is_published(channel.source):
            if ingest.since is None:
                return None
            return PublisherReport(
                way,
                since=ingest.since,
                address=None,
                bitrate_kbps=ingest.announced_kbps,
                loss=None,
                picture=merged(ingest.picture),
                reconnects=ingest.restarts,
                received=None,
            )
        if channel.publisher is None or name not in self._receptions:
            return None
        connection, reception = self._receptions[name]
        meter = self._meters[name, connection]
        return PublisherReport(
            way,
            since=connection.since,
            address=connection.address,
            bitrate_kbps=meter.bitrate_kbps if reception is not None else None,
            loss=meter.loss if reception is not None else None,
            picture=merged(ingest.picture, reception.picture if reception is not None else None),
            reconnects=ingest.restarts,
            received=reception,
        )
