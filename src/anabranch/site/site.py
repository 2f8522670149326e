"""A site: channels, seats and what carries them, kept in step.

The main loop is :mod:`.carrying`: whenever a leaf's inlets, the plain seats or the set of channels
change, it computes what every leaf wants and has the carriage make that true.
"""

import asyncio
import socket
import time
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import suppress
from functools import partial
from typing import Any

import structlog

from anabranch.channels.audience import Audience
from anabranch.channels.channel import Channel
from anabranch.channels.definitions import Change
from anabranch.channels.seats import AnySeat, PlainSeat, Seat, Seats
from anabranch.core.errors import TooManyError
from anabranch.core.events import Event, EventBus
from anabranch.host.journal import Journal
from anabranch.media.leaf import Feed, LeafServer, LeafUnavailableError, ViewingState
from anabranch.site import reports
from anabranch.site.captions import Captions
from anabranch.site.carriage import StreamId, Target, wants_of
from anabranch.site.carrying import Carrying
from anabranch.site.changes import Changes
from anabranch.site.event_log import EventLog
from anabranch.site.ingress import unguarded
from anabranch.site.leaf_servers import keep_warm
from anabranch.site.lineup import Lineup
from anabranch.site.nodes import Nodes
from anabranch.site.publisher_reports import PublisherReports
from anabranch.site.publishers import Publishers
from anabranch.site.remote import Remote
from anabranch.site.seating import Seating, transport_streams
from anabranch.site.service_users import ServiceUsers
from anabranch.site.services import SiteServices
from anabranch.site.settings import SiteSettings
from anabranch.site.steward import Steward
from anabranch.site.switched import SwitchedUnderlay
from anabranch.site.underlay import DirectUnderlay
from anabranch.site.whip import WhipPublishers
from anabranch.store.database import Database, StoreError

_log = structlog.get_logger("anabranch.site")
_MAX_CONNECTING = 50
"""Seats of one client address that may be connecting at once: a lecture hall behind one NAT."""


class Site:
    """One deployment on this machine. Use: ``start``, ``run`` in a task of its own, ``stop``."""

    def __init__(self, settings: SiteSettings, journal: Journal) -> None:
        self.settings = settings
        self.events = EventBus()
        self.captions = Captions(self.events.publish)
        self.notes: list[str] = []
        self.started = time.time()
        self.database = Database(settings.database_url)
        self.audience = Audience(self.database)
        self.seats = Seats(self.database)
        self.carrying = Carrying(self._reconcile, self._make_key_frame, self._happened)
        self._tasks: set[asyncio.Task[None]] = set()
        self.log = EventLog(self.database)
        self.underlay: SwitchedUnderlay | DirectUnderlay = (
            SwitchedUnderlay(settings, journal, self._happened, self.database, self._retarget)
            if settings.switches
            else DirectUnderlay(settings, self._retarget)
        )
        self.lineup = Lineup(
            settings,
            self.database,
            self.underlay,
            lambda source: self.whip.prepare_for(source),
            self._happened,
            self.carrying.stale,
        )
        self.nodes = Nodes(self.underlay, self, self._happened)
        switched = self.underlay if isinstance(self.underlay, SwitchedUnderlay) else None
        self.remote: Remote | None = None
        if settings.remote is not None and switched is not None:
            self.remote = Remote(settings, settings.remote, switched, journal, self._happened)
        self.steward = Steward(settings, self, switched, self._happened, self.remote)
        self.steward.pipelines.on_routes = self.carrying.stale
        if switched is not None and switched.rings is not None:
            switched.rings.on_stale = self.carrying.stale
        if self.remote is not None:
            self.remote.attach(self.nodes, lambda: self.steward.agents.root.node)
        self.changes = Changes(self, settings.ladder, self._happened)
        self.services = SiteServices(
            settings,
            switched,
            ServiceUsers(self.database, settings.services.users if settings.services else None),
            journal,
            self._happened,
        )
        self.seating = Seating(settings, self, switched, self._happened)
        self.ingress = self.underlay.ingress
        if self.ingress is not None:
            self.ingress.restart = self._read_anew
        common = settings, self.lineup.channels, self._spawn, self._happened, self.ingress
        self.publishers, self.whip = Publishers(*common), WhipPublishers(*common)
        self.publisher_reports = PublisherReports(
            self.lineup.channels, (self.whip.statistics, self.publishers.statistics)
        )
        self.steward.on_round = lambda: self._spawn(self.publisher_reports.look())

    # --- life ---------------------------------------------------------------------------------

    async def start(self, progress: Callable[[str], None]) -> None:
        """Bring everything up.

        Raises:
            AnabranchError: something essential cannot be had; what was made is in the journal.
        """
        progress("store")
        await self.database.open()
        await self.audience.load()
        seated = await self.seats.recall()
        for seat in seated:
            if isinstance(seat, Seat):
                self.seats.add(seat)
        await self.underlay.start(progress)
        progress("leaf servers")
        await self.nodes.start()
        self._free_lost()
        await self.steward.start()
        if self.remote is not None:
            progress("nodes on other machines")
            await self.remote.start()
        self.notes += unguarded(self.settings) + await self.publishers.start()
        if self.settings.services is not None:
            progress("service nodes")
        await self.services.start()
        progress("channels")
        definitions = await self.lineup.defined()
        self.notes += await self.whip.start(each.source for each in definitions)
        self.notes += await self.lineup.put_back(definitions)
        await asyncio.gather(self.publishers.restore(), self.whip.restore())
        await self.seating.restore([seat for seat in seated if isinstance(seat, PlainSeat)])

    def _free_lost(self) -> None:
        """Free the seats that are at no leaf: the others know by now who is still there."""
        there = {leaf.name for leaf in self.leaves}
        for seat in self.seats:
            if seat.leaf not in there:
                self._free(seat)

    async def run(self) -> None:
        """Keep everything in step with what is wanted, for ever."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self.underlay.run(), name="underlay")
            group.create_task(self.nodes.run(), name="nodes")
            group.create_task(self.steward.run(), name="steward")
            if self.remote is not None:
                group.create_task(self.remote.run(), name="remote")
            group.create_task(self.carrying.run(), name="carriage")
            group.create_task(self.seats.write_behind(), name="seats")
            group.create_task(self.seating.run(), name="plain-seats")

    async def _reconcile(self) -> None:
        keep_warm(self.leaves, self.settings, self.lineup.channels, self.seats)
        wants = frozenset().union(*(wants_of(leaf.name, leaf.inlets()) for leaf in self.leaves))
        routes, sorting = self.steward.pipelines.routes(), self.seating.sorting()
        await self.underlay.carriage.carry(wants, self.lineup.groups(), routes, sorting=sorting)
        self.lineup.make_transport(transport_streams(sorting))

    async def stop(self) -> None:
        """Take everything down that :meth:`start` brought up, in reverse, as far as it came."""
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.steward.stop()
        await self.publisher_reports.stop()
        self.seating.stop()
        await asyncio.gather(self.publishers.stop(), self.whip.stop())
        ends = self.lineup.stop(), self.nodes.stop(), self.services.stop()
        await asyncio.gather(*ends, return_exceptions=True)
        if self.remote is not None:
            await self.remote.stop()
        await self.underlay.stop()
        await self.log.flush()
        await self._flush_seats()
        await self.database.close()

    async def _flush_seats(self) -> None:
        """Leave the store as the viewers are left: who had a connection has none now."""
        for seat in self.seats:
            self.seats.free(seat)
        with suppress(StoreError):
            await self.seats.flush()

    # --- channels -----------------------------------------------------------------------------

    @property
    def channels(self) -> Iterator[Channel]:
        return iter(list(self.lineup.channels.values()))

    def channel(self, name: str) -> Channel:
        """Return a channel.

        Raises:
            NotFoundError: there is none of this name.
        """
        return self.lineup.get(name)

    async def change_channel(self, name: str, change: Change) -> Channel:
        """Change a channel, whole or not at all; its seats stay.

        Raises:
            UsageError: something about it is not allowed, or there is none of this name.
            UnavailableError: the server that its new source needs does not start.
            StoreError: it cannot be kept; nothing has changed.
        """

        async def end_publisher(channel: Channel) -> None:
            await self.whip.end_at(channel)
            await self.publishers.end_at(channel)

        return await self.lineup.change(name, change, end_publisher)

    async def remove_channel(self, name: str) -> None:
        """Take a channel off the air and forget it; its seats end.

        Raises:
            NotFoundError: there is none of this name.
        """

        async def end(channel: Channel | None) -> None:
            self.audience.forget_channel(name)
            there = [*self.seats, *self.seats.plain]
            await asyncio.gather(*(self.end(s) for s in there if s.channel == name))
            if channel is not None:
                await self.whip.end_at(channel)
                await self.lineup.take_off_air(channel)

        await self.lineup.remove(name, end)

    async def carried(self) -> None:
        """See :meth:`Carrying.carried`."""
        await self.carrying.carried()

    def stale(self) -> None:
        """See :meth:`Carrying.stale`."""
        self.carrying.stale()

    @property
    def rtmp_callbacks(self) -> socket.socket | None:
        """Where the RTMP server asks; None: at ``callback_port`` of this machine."""
        return None if self.ingress is None else self.ingress.callbacks

    # --- viewers ------------------------------------------------------------------------------

    async def watch(
        self,
        channel_name: str,
        rendition: str | None,
        offer: str,
        *,
        client: str = "",
        device: str | None = None,
        bandwidth_kbps: float | None = None,
        holder: str = "",
    ) -> tuple[Seat, str]:
        """Give a viewer a seat at a leaf; return it and the SDP answer.

        ``client`` is the address that asks: offers that never connect hold ports for a while, so
        one client has a limited number of them. ``device`` and ``bandwidth_kbps`` tell what it can
        show and receive, if that is known. ``holder`` says by what it may watch.

        Raises:
            TooManyError: that many of the client's seats are still connecting.
            NotFoundError: no such channel or rendition.
            OfferError: the offer cannot be answered.
            UnavailableError: no leaf is ready.
        """
        self.channel(channel_name)
        if rendition is not None:
            self.changes.check_rendition(rendition)
        if self.seats.connecting(client) >= _MAX_CONNECTING:
            raise TooManyError("too many connections of yours are being made; wait a moment")
        request = self.steward.request(channel_name, rendition, client, device, bandwidth_kbps)
        failed: list[str] = []
        pinned = rendition is not None
        while True:
            leaf_name, best = self.steward.place(request, but=failed)
            feed = Feed(channel_name, self.steward.shown(leaf_name, channel_name, best))
            ladder = self.steward.ladder(leaf_name, channel_name, best)
            try:
                with self.steward.coming(leaf_name):
                    leaf, viewing = await self.nodes.watch(leaf_name, feed, offer, ladder, pinned)
                break
            except LeafUnavailableError:
                failed.append(leaf_name)
        if channel_name not in self.lineup.channels:  # removed meanwhile
            await leaf.close(viewing.id)
            self.channel(channel_name)
        seat = Seat(
            *(feed.channel, feed.rendition, leaf.name, viewing.id, client),
            best=best,
            pinned=pinned,
            holder=holder,
        )
        self.seats.add(seat)
        self._happened(Event("seat.taken", channel_name, {"leaf": leaf.name}))
        return seat, viewing.answer

    async def change_rendition(self, seat: Seat, rendition: str) -> None:
        """See :meth:`~anabranch.site.changes.Changes.change_rendition`."""
        await self.changes.change_rendition(seat, rendition)

    def request_key_frame(self, feed: Feed) -> None:
        """See :meth:`Carrying.request_key_frame`."""
        if self.settings.keyframe_on_join:
            self.carrying.request_key_frame(feed)

    def _make_key_frame(self, feed: Feed) -> None:
        channel = self.lineup.channels.get(feed.channel)
        if channel is not None:
            channel.request_key_frame(feed.rendition)

    async def leave(self, seat_id: str) -> None:
        """Free a seat at once.

        Raises:
            NotFoundError: there is none, or no longer.
        """
        await self.end(self.seats.any(seat_id))

    async def end(self, seat: AnySeat) -> None:
        """End a seat: its viewer's connection closes, or nothing is sent to its receiver."""
        if isinstance(seat, PlainSeat):
            await self.seating.end(seat)
            return
        leaf = self.nodes.leaf(seat.leaf)
        if leaf is not None:
            await leaf.close(seat.viewing)
        self._free(seat)

    def _free(self, seat: Seat) -> None:
        self.changes.forget(seat)
        if self.seats.free(seat):
            self._happened(Event("seat.freed", seat.channel, {"leaf": seat.leaf}))

    @property
    def leaves(self) -> list[LeafServer]:
        """The leaf servers that are up."""
        return self.nodes.leaves

    def adopt(self, leaf: LeafServer) -> None:
        """Hear what a leaf server has to say from now on."""
        leaf.on_inlets = self.carrying.stale
        leaf.on_viewing = self._viewing_handler(leaf.name)
        leaf.on_shown = partial(self.changes.shown, leaf.name)
        leaf.on_key_frame = self.request_key_frame
        self.carrying.stale()

    def happenings(self) -> AsyncGenerator[Event, None]:
        """Yield every event of the site from now on."""
        return self.events.subscribe()

    def _viewing_handler(self, leaf: str) -> Callable[[str, ViewingState], None]:
        def changed(viewing: str, state: ViewingState) -> None:
            seat = self.seats.at(leaf, viewing)
            if seat is None:
                return
            if state == "gone":
                self._free(seat)
                return
            seat.state = "watching"
            self.seats.changed(seat)

        return changed

    # --- what it looks like -------------------------------------------------------------------

    async def overview(self) -> dict[str, Any]:
        """Return the site's state as plain data."""
        return await reports.overview(self)

    def children(self) -> dict[str, dict[str, Any]]:
        """Return process number and restarts of every supervised child, by name."""
        return reports.children(self)

    async def seat_reports(self) -> list[dict[str, Any]]:
        """Return every seat with its viewer's figures."""
        leaves = {leaf.name: leaf for leaf in self.leaves}
        return await reports.seat_reports(self.seats, leaves) + reports.plain_seats(self.seats)

    async def port_counters(self) -> list[dict[str, Any]]:
        """Return the counters of every switch port."""
        return await self.underlay.port_counters()

    # --- inside -------------------------------------------------------------------------------

    def _retarget(self, stream: StreamId, targets: list[Target]) -> None:
        self.lineup.retarget(stream, targets)

    def _happened(self, event: Event) -> None:
        self.events.publish(event)
        self.log.add(event)
        if event.kind in {"node.up", "node.down"} and self.settings.services is not None:
            self._spawn(self.services.follow())
        if event.kind.startswith("seat.") and self.settings.seats.neighbours:
            self.carrying.stale()
        data = {name: value for name, value in event.data.items() if value is not None}
        _log.info(event.kind, subject=event.subject, **data)

    def _read_anew(self, name: str) -> None:
        channel = self.lineup.channels.get(name)
        if channel is not None:  # one that is being removed loses its producer, too
            self._spawn(channel.read_anew())

    def _spawn(self, work: Any) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
