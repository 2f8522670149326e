"""A site: channels, seats and what carries them, kept in step.

The main loop is :meth:`Site.run`: whenever a leaf's inlets or the set of channels change, it
computes what every leaf wants and has the carriage make that true.
"""

import asyncio
import os
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from random import Random
from typing import Any

import structlog

import anabranch
from anabranch.channels.channel import Channel
from anabranch.channels.definitions import Definition, Definitions
from anabranch.channels.seats import Seat, Seats
from anabranch.channels.ways_in import check_once, publish_hints, settle
from anabranch.core.errors import (
    AnabranchError,
    ConflictError,
    NotFoundError,
    UsageError,
)
from anabranch.core.events import Event, EventBus
from anabranch.host.journal import Journal
from anabranch.host.process import Child
from anabranch.media.encoder import EncoderConfig
from anabranch.media.janus import JanusLeaf
from anabranch.media.leaf import Feed, LeafUnavailableError, ViewingState
from anabranch.media.rendition import AUDIO
from anabranch.media.rtmp import RtmpCall, RtmpConfig, RtmpServer
from anabranch.media.source_text import parse_source
from anabranch.site.carriage import StreamId, Target, group_address, wants_of
from anabranch.site.placement import least_loaded
from anabranch.site.settings import SiteSettings
from anabranch.site.underlay import DirectUnderlay, SwitchedUnderlay, Underlay
from anabranch.store.database import Database, StoreError

_log = structlog.get_logger("anabranch.site")
_RETRY = 0.5
"""Seconds until a carriage that failed is tried again."""
_KEEP_EVENTS = 7 * 24 * 3600.0


class Site:
    """One deployment on this machine. Use: ``start``, ``run`` in a task of its own, ``stop``."""

    def __init__(self, settings: SiteSettings, journal: Journal) -> None:
        self.settings = settings
        self.events = EventBus()
        self.seats = Seats()
        self.notes: list[str] = []
        self._started = time.time()
        self._random = Random()  # noqa: S311  # chooses among equal leaves
        self._database = Database(settings.database_url)
        self._definitions = Definitions(self._database)
        self._channels: dict[str, Channel] = {}
        self._changing = asyncio.Lock()
        self._stale = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self._log_queue: list[Event] = []
        self._log_stale = asyncio.Event()
        self._underlay: Underlay = (
            SwitchedUnderlay(settings, journal, self._happened)
            if settings.switches
            else DirectUnderlay(settings, self._retarget)
        )
        self.leaves: list[JanusLeaf] = []
        self._rtmp: RtmpServer | None = None

    # --- life ---------------------------------------------------------------------------------

    async def start(self, progress: Callable[[str], None]) -> None:
        """Bring everything up.

        Raises:
            AnabranchError: something essential cannot be had; what was made is in the journal.
        """
        progress("store")
        await self._database.open()
        await self._underlay.start(progress)
        progress("leaf servers")
        for settings in self._underlay.leaf_settings():
            leaf = JanusLeaf(settings)
            leaf.on_inlets = self._stale.set
            leaf.on_viewing = self._viewing_handler(leaf.name)
            self.leaves.append(leaf)
        await asyncio.gather(*(leaf.start() for leaf in self.leaves))
        await self._start_rtmp()
        progress("channels")
        definitions = await self._definitions.all()
        if not definitions:
            definitions = await self._define_test_channels()
        await asyncio.gather(*(self._put_on_air(definition) for definition in definitions))

    async def _start_rtmp(self) -> None:
        directory = self.settings.run_dir / "rtmp"
        directory.mkdir(parents=True, exist_ok=True)
        ports = self.settings.ports
        self._rtmp = RtmpServer(
            "rtmp",
            RtmpConfig(directory, ports.rtmp, self.settings.callback_port),
            self.settings.run_id,
        )
        try:
            await self._rtmp.start()
        except AnabranchError as error:
            # Everything else works without it.
            self._rtmp = None
            self.notes.append(f"no RTMP: {error}")
            _log.warning("rtmp.unavailable", error=str(error))

    async def _define_test_channels(self) -> list[Definition]:
        return [
            await self._definitions.add(
                f"test{number}",
                title=f"Test channel {number}",
                once=False,
                key=None,
                settle=lambda _others: "test",
            )
            for number in range(1, self.settings.test_channels + 1)
        ]

    async def run(self) -> None:
        """Keep carriage in step with wishes, for ever."""
        while True:
            await self._stale.wait()
            self._stale.clear()
            try:
                await self._reconcile()
            except AnabranchError as error:
                _log.error("carriage.failed", error=str(error))
                self._happened(Event("carriage.failed", "site", {"error": str(error)}))
                await asyncio.sleep(_RETRY)
                self._stale.set()

    async def _reconcile(self) -> None:
        wants = frozenset().union(*(wants_of(leaf.name, leaf.inlets()) for leaf in self.leaves))
        await self._underlay.carriage.carry(wants, self._groups())

    async def write_log(self) -> None:
        """Write events to the store, in batches, for ever; a full store costs only the log."""
        with suppress(StoreError):
            await self._database.forget_events(older_than_s=_KEEP_EVENTS)
        while True:
            await self._log_stale.wait()
            await asyncio.sleep(0.5)
            self._log_stale.clear()
            batch, self._log_queue = self._log_queue, []
            try:
                await self._database.append_events(batch)
            except AnabranchError as error:
                _log.error("log.lost", events=len(batch), error=str(error))

    async def stop(self) -> None:
        """Take everything down that :meth:`start` brought up, in reverse, as far as it came."""
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._rtmp is not None:
            await self._rtmp.stop()
        await asyncio.gather(
            *(channel.stop() for channel in self._channels.values()),
            *(leaf.stop() for leaf in self.leaves),
            return_exceptions=True,
        )
        await self._underlay.stop()
        await self._database.close()

    # --- channels -----------------------------------------------------------------------------

    @property
    def channels(self) -> Iterator[Channel]:
        return iter(list(self._channels.values()))

    def channel(self, name: str) -> Channel:
        """Return a channel.

        Raises:
            NotFoundError: there is none of this name.
        """
        channel = self._channels.get(name)
        if channel is None:
            raise NotFoundError(f"there is no channel named {name[:60]!r}")
        return channel

    async def add_channel(
        self,
        name: str,
        source: str,
        *,
        title: str | None = None,
        once: bool = False,
        key: str | None = None,
    ) -> Channel:
        """Define a channel and put it on the air.

        Raises:
            UsageError: something about it is not allowed; the message says what.
            ConflictError: its name or port is taken.
            StoreError: it cannot be kept; nothing has changed.
        """
        ports = self.settings.ports
        check_once(parse_source(source, loop=not once), once=once)
        async with self._changing:
            definition = await self._definitions.add(
                name,
                title=title,
                once=once,
                key=key,
                settle=lambda others: settle(
                    source, others, srt=ports.srt, rtp=ports.rtp, is_free=_is_free
                ),
            )
            try:
                return await self._put_on_air(definition)
            except AnabranchError:
                await self._definitions.remove(name)
                raise

    async def remove_channel(self, name: str) -> None:
        """Take a channel off the air and forget it; its seats end.

        Raises:
            NotFoundError: there is none of this name.
        """
        async with self._changing:
            channel = self.channel(name)
            await self._definitions.remove(name)
            del self._channels[name]
            await asyncio.gather(*(self._end(s) for s in self.seats if s.channel == name))
            await channel.stop()
            self._stale.set()
        self._happened(Event("channel.removed", name))

    async def _put_on_air(self, definition: Definition) -> Channel:
        directory = self.settings.run_dir / "channels" / str(definition.slot)
        channel = Channel(
            definition,
            EncoderConfig(
                title=definition.title,
                directory=directory,
                renditions=self.settings.ladder,
                form=self.settings.format,
                interface=self._underlay.encoder_interface,
                netns=self._underlay.encoder_namespace,
            ),
            self.settings.run_id,
            rtmp_port=self.settings.ports.rtmp,
            number=definition.slot,
            on_event=self._happened,
        )
        for stream, group in self._groups_of(channel).items():
            channel.encoder.set_targets(stream.name, self._underlay.carriage.targets(stream, group))
        self._channels[definition.name] = channel
        try:
            await channel.start()
        except AnabranchError:
            del self._channels[definition.name]
            await channel.stop()
            raise
        self._happened(Event("channel.added", definition.name))
        return channel

    def _groups(self) -> dict[StreamId, str]:
        groups: dict[StreamId, str] = {}
        for channel in self._channels.values():
            groups |= self._groups_of(channel)
        return groups

    def _groups_of(self, channel: Channel) -> dict[StreamId, str]:
        names = [AUDIO, *(rendition.name for rendition in self.settings.ladder)]
        return {
            StreamId(channel.name, name): group_address(
                self.settings.addresses.groups, channel.definition.slot, index
            )
            for index, name in enumerate(names)
        }

    def _retarget(self, stream: StreamId, targets: list[Target]) -> None:
        channel = self._channels.get(stream.channel)
        if channel is not None:
            channel.encoder.set_targets(stream.name, targets)

    def publish_hints(self, name: str) -> dict[str, str]:
        """Return what a producer of a channel enters at its side."""
        channel = self.channel(name)
        host = next(iter(self.settings.public_addresses), "127.0.0.1")
        return publish_hints(channel.source, channel.definition.key, host)

    # --- publishers over RTMP -----------------------------------------------------------------

    def rtmp_publish(self, call: RtmpCall) -> str:
        """Decide about a publisher whose stream is named by its key; return its channel's name.

        Raises:
            UsageError: no channel has this key.
            ConflictError: the channel has a publisher already.
        """
        for channel in self._channels.values():
            if channel.source.describe() == "rtmp" and channel.definition.key == call.name:
                if channel.publisher is not None:
                    raise ConflictError(f"the channel {channel.name} has a publisher already")
                channel.publisher = call.client_id
                self._spawn(channel.follow_publisher())
                self._happened(Event("publisher.came", channel.name))
                return channel.name
        self._happened(Event("publisher.refused", "rtmp", {"address": call.addr}))
        raise UsageError("no channel has this key")

    def rtmp_done(self, call: RtmpCall) -> None:
        """Note that a publisher has left."""
        for channel in self._channels.values():
            if channel.publisher is not None and channel.publisher == call.client_id:
                channel.publisher = None
                self._spawn(channel.follow_publisher())
                self._happened(Event("publisher.left", channel.name))

    # --- viewers ------------------------------------------------------------------------------

    async def watch(self, channel_name: str, rendition: str | None, offer: str) -> tuple[Seat, str]:
        """Give a viewer a seat at a leaf; return it and the SDP answer.

        Raises:
            NotFoundError: no such channel or rendition.
            OfferError: the offer cannot be answered.
            UnavailableError: no leaf is ready.
        """
        self.channel(channel_name)
        names = [r.name for r in self.settings.ladder]
        if rendition is not None and rendition not in names:
            raise NotFoundError(
                f"there is no rendition {rendition!r}; there are {', '.join(names)}"
            )
        feed = Feed(channel_name, rendition or names[0])
        counts = self.seats.per_leaf()
        loads = {leaf.name: counts[leaf.name] for leaf in self.leaves if leaf.ready}
        while True:
            leaf = self._leaf(least_loaded(loads, self._random))
            try:
                viewing = await leaf.watch(feed, offer)
                break
            except LeafUnavailableError:
                del loads[leaf.name]
                if not loads:
                    raise
        seat = Seat(feed.channel, feed.rendition, leaf.name, viewing.id)
        self.seats.add(seat)
        self._happened(Event("seat.taken", channel_name, {"leaf": leaf.name}))
        return seat, viewing.answer

    async def leave(self, seat_id: str) -> None:
        """Free a seat at once.

        Raises:
            NotFoundError: there is none, or no longer.
        """
        await self._end(self.seats.get(seat_id))

    async def _end(self, seat: Seat) -> None:
        await self._leaf(seat.leaf).close(seat.viewing)
        self._free(seat)

    def _free(self, seat: Seat) -> None:
        if self.seats.free(seat):
            self._happened(Event("seat.freed", seat.channel, {"leaf": seat.leaf}))

    def _leaf(self, name: str) -> JanusLeaf:
        return next(leaf for leaf in self.leaves if leaf.name == name)

    def _viewing_handler(self, leaf: str) -> Callable[[str, ViewingState], None]:
        def changed(viewing: str, state: ViewingState) -> None:
            seat = self.seats.at(leaf, viewing)
            if seat is None:
                return
            if state == "gone":
                self._free(seat)
                return
            seat.state = "watching"
            channel = self._channels.get(seat.channel)
            if channel is not None and self.settings.keyframe_on_join:
                # Whoever joins waits for a key frame, so one is made now.
                channel.encoder.request_keyframe(seat.rendition)

        return changed

    # --- what it looks like -------------------------------------------------------------------

    def overview(self) -> dict[str, Any]:
        """Return the site's state as plain data."""
        viewers = self.seats.per_leaf()
        ready = {leaf.name: leaf.ready for leaf in self.leaves}
        nodes = [
            {
                **node,
                "connected": node["connected"] and ready.get(node["name"], True),
                "viewers": viewers[node["name"]] if node["role"] == "leaf" else None,
            }
            for node in self._underlay.nodes()
        ]
        return {
            "name": self.settings.name,
            "version": anabranch.__version__,
            "carriage": "switches" if self.settings.switches else "direct",
            "uptime_s": time.time() - self._started,
            "pid": os.getpid(),
            "nodes": nodes,
            "seats": len(self.seats),
            "children": self.children(),
            "notes": self.notes,
        }

    def children(self) -> dict[str, dict[str, Any]]:
        """Return process number and restarts of every supervised child, by name."""
        children: list[Child] = list(self._underlay.children().values())
        children += [leaf.child for leaf in self.leaves if leaf.child is not None]
        report: dict[str, dict[str, Any]] = {
            child.spec.name: {"pid": child.pid, "restarts": child.restarts} for child in children
        }
        for channel in self._channels.values():
            encoder, ingest = channel.encoder, channel.ingest
            report[encoder.name] = {
                "pid": encoder.pid,
                "restarts": max(0, encoder.state.generation - 1),
            }
            report[ingest.name] = {"pid": ingest.pid, "restarts": ingest.stats.restarts}
        if self._rtmp is not None:
            report["rtmp"] = {"pid": self._rtmp.pid, "restarts": 0}
        return report

    async def seat_reports(self) -> list[dict[str, Any]]:
        """Return every seat with its viewer's figures, without its identifier."""

        async def report(seat: Seat) -> dict[str, Any]:
            figures = await self._leaf(seat.leaf).statistics(seat.viewing)
            return {
                "channel": seat.channel,
                "rendition": seat.rendition,
                "leaf": seat.leaf,
                "state": seat.state,
                "seconds": time.time() - seat.since,
                "bytes_sent": figures.bytes_sent if figures else None,
                "packets_lost": figures.packets_lost if figures else None,
                "nacks": figures.nacks if figures else None,
                "jitter_ms": figures.jitter_ms if figures else None,
                "rtt_ms": figures.rtt_ms if figures else None,
            }

        return list(await asyncio.gather(*(report(seat) for seat in self.seats)))

    async def port_counters(self) -> list[dict[str, Any]]:
        """Return the counters of every switch port."""
        return await self._underlay.port_counters()

    async def recent_events(self, limit: int) -> list[Event]:
        """Return the newest events of the log, newest first."""
        return await self._database.recent_events(limit)

    # --- inside -------------------------------------------------------------------------------

    def _happened(self, event: Event) -> None:
        self.events.publish(event)
        self._log_queue.append(event)
        self._log_stale.set()
        _log.info(event.kind, subject=event.subject, **event.data)

    def _spawn(self, work: Any) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _is_free(port: int) -> bool:
    """Return whether a UDP port of this machine is free."""
    with closing(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as probe:
        try:
            probe.bind(("", port))
        except OSError:
            return False
    return True
