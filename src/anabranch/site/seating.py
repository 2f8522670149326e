"""Plain seats: taken, changed and left; free again when nobody is there any more.

A seat is a bucket in the sort switch of its leaf. Everything here only changes what seats there
are; the site's loop makes that true (:mod:`anabranch.site.sorting`).
"""

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Protocol

import structlog

from anabranch.channels.channel import Channel
from anabranch.channels.destinations import Admission, Destination, Form, parse_destination
from anabranch.channels.presence import Refusal, Refusals, has_expired
from anabranch.channels.seats import PlainSeat, Seats, network_of
from anabranch.core.errors import (
    AnabranchError,
    ConflictError,
    NotFoundError,
    TooManyError,
    UnavailableError,
    UsageError,
)
from anabranch.core.events import Event
from anabranch.host.forwarding import family_of
from anabranch.media.leaf import Feed
from anabranch.media.rendition import is_transport
from anabranch.site.carriage import STREAMS, Sorting, StreamId, Target
from anabranch.site.changes import Pace
from anabranch.site.nodes import Nodes
from anabranch.site.plan import NodePlan
from anabranch.site.settings import SiteSettings
from anabranch.site.sorting import Hold, sorting_of
from anabranch.site.switched import SwitchedUnderlay
from anabranch.site.ways_out import WaysOut, families_of, gateway_ends

MAX_TRANSPORT = (STREAMS - 1) // 2
"""Renditions that there are addresses for as transport streams, too."""
_LOOK_S = 0.5
_DIRECT_LEAF = "leaf1"
_log = structlog.get_logger("anabranch.seats")


class Host(Protocol):
    """What is needed of the site."""

    seats: Seats
    nodes: Nodes

    @property
    def channels(self) -> Iterator[Channel]: ...

    def channel(self, name: str) -> Channel:
        """Return a channel. Raises NotFoundError: there is none of this name."""

    def stale(self) -> None:
        """Have what is carried looked at again."""

    async def carried(self) -> None:
        """Return once what is wanted now is carried. Raises AnabranchError: it cannot be."""

    def request_key_frame(self, feed: Feed) -> None:
        """Have a key frame made as soon as what is wanted is carried."""


@dataclass(frozen=True, slots=True)
class Wish:
    """What somebody asks for who wants a plain seat; see :meth:`Seating.take`."""

    channel: str
    to: str
    form: Form | None = None
    rendition: str | None = None
    leaf: str | None = None
    ttl_s: float | None = None
    client: str = ""
    operator: bool = False
    holder: str = ""


class Seating:
    """The plain seats of a site.

    Args:
        underlay: None: there are no switches, and the encoders send to the receivers themselves.
        on_event: takes ``seat.*`` events.
    """

    def __init__(
        self,
        settings: SiteSettings,
        host: Host,
        underlay: SwitchedUnderlay | None,
        on_event: Callable[[Event], None],
    ) -> None:
        addresses = settings.addresses
        own = (
            *(addresses.overlay, addresses.access, addresses.groups, addresses.tunnels),
            addresses.access_6,
        )
        self._settings = settings.seats
        self._admission = Admission(settings.seats.allow, own if underlay is not None else ())
        self._renditions = [each.name for each in settings.ladder]
        self._host = host
        self._underlay = underlay
        self._on_event = on_event
        self._hold = Hold(settings.seats.hold_s)
        self._refusals = Refusals()
        self._paces: dict[str, Pace] = {}
        self._ways = WaysOut(self._leaves, self._refused)

    # --- what is asked for --------------------------------------------------------------------

    async def take(self, wish: Wish) -> PlainSeat:
        """Give a receiver a seat, in place of one that it has.

        Raises:
            UsageError: what is asked for cannot be.
            NotFoundError: no such channel, rendition or leaf.
            ForbiddenError: the receiver is somebody else's.
            ConflictError: somebody else has had a seat taken there.
            TooManyError: the client has as many as one may have.
            UnavailableError: every sort switch is full, or it cannot be carried now.
        """
        destination = parse_destination(wish.to, wish.form)
        rendition = self._check(wish.channel, wish.rendition)
        if destination.form == "ts" and self._renditions.index(rendition) >= MAX_TRANSPORT:
            raise UsageError(f"only the first {MAX_TRANSPORT} renditions are sent as MPEG-TS")
        self._admission.check(destination.address, wish.client, operator=wish.operator)
        if not self._reaches(str(destination.address)):
            raise UsageError(
                f"{destination.address}: this site sends by IPv4 alone, since its public_address"
                " names no IPv6 address"
            )
        rivals = self._rivals(destination, wish)
        if not wish.operator:
            whose = network_of(wish.client)
            others = [seat for seat in self._host.seats.plain if seat not in rivals]
            taken = sum(network_of(seat.client) == whose for seat in others)
            if taken >= self._settings.per_client:
                raise TooManyError("you have as many seats as one may have; leave one first")
        leaf = self._place(destination.address, wish.leaf, {seat.id for seat in rivals})
        for rival in rivals:
            self._free(rival)
        seat = PlainSeat(
            *(wish.channel, rendition, leaf, str(destination.address), destination.port),
            form=destination.form,
            client="" if wish.operator else wish.client,
            ttl_s=wish.ttl_s,
            holder=wish.holder,
        )
        self._host.seats.add(seat)
        try:
            await self._let_out(leaf)
            self._host.request_key_frame(Feed(seat.channel, seat.rendition))
            await self._host.carried()
            self._host.channel(seat.channel)  # removed meanwhile?
        except BaseException:
            self._free(seat)
            raise
        self._happened("seat.taken", seat)
        return seat

    async def change(
        self,
        seat: PlainSeat,
        channel: str | None = None,
        rendition: str | None = None,
        *,
        holder: str | None = None,
    ) -> None:
        """Show a receiver something else from now on, and renew its lease.

        Args:
            seat: whose.
            channel, rendition: by name; None: as it is.
            holder: by what it may have the channel from now on; None: as before.

        Raises:
            NotFoundError: no such channel or rendition, or the seat has been freed.
            TooManyError: too many changes a second.
            AnabranchError: it cannot be carried now; it will be as soon as it can.
        """
        wanted = channel or seat.channel
        shown = self._check(wanted, rendition or seat.rendition)
        now = asyncio.get_running_loop().time()
        self._paces.setdefault(seat.id, Pace(now)).take(now)
        self.renew(seat)
        if (wanted, shown) == (seat.channel, seat.rendition):
            return
        before = f"{seat.rendition}@{seat.channel}"
        seat.channel, seat.rendition = wanted, shown
        seat.holder = seat.holder if holder is None else holder
        self._host.seats.changed(seat)
        self._host.request_key_frame(Feed(wanted, shown))
        self._happened("seat.changed", seat, **{"from": before, "to": f"{shown}@{wanted}"})
        await self._host.carried()
        self._host.seats.any(seat.id)

    def renew(self, seat: PlainSeat) -> None:
        """Note that somebody is still there."""
        seat.renewed = time.time()
        self._refusals.forget(seat.id)
        if seat.ttl_s is not None:
            self._host.seats.changed(seat)

    async def end(self, seat: PlainSeat) -> None:
        """Send to a receiver no longer."""
        self._free(seat)
        await self._host.carried()
        await self._let_out(seat.leaf)

    # --- what is to be done -------------------------------------------------------------------

    def sorting(self) -> Sorting:
        """Return what the sort switches are to do now."""
        dial = [channel.name for channel in self._host.channels]
        known = set(dial)
        seats = [seat for seat in self._host.seats.plain if seat.channel in known]
        leaves = self._leaves()
        wanted = sorting_of(
            seats, dial, self._settings.neighbours, lambda seat: _reach(seat, leaves)
        )
        return self._hold.extended(wanted, asyncio.get_running_loop().time())

    async def restore(self, seats: list[PlainSeat]) -> None:
        """Take up seats of an earlier run, as far as there is room and what they watch."""
        known = {channel.name for channel in self._host.channels}
        for seat in seats:
            if seat.channel not in known or seat.rendition not in self._renditions:
                continue
            if not self._reaches(seat.address):
                _log.warning("seat.lost", reason="the site has no IPv6 any more")
                continue
            try:
                seat.leaf = self._place(seat.address, None, set(), rather=seat.leaf)
            except AnabranchError as error:
                _log.warning("seat.lost", reason=str(error))
                continue
            seat.renewed = time.time()  # nobody could renew it meanwhile
            self._host.seats.add(seat)
        for leaf in {seat.leaf for seat in self._host.seats.plain}:
            await self._let_out(leaf)
        self._host.stale()

    async def run(self) -> None:
        """Free the seats of those who have gone, and move those of dead leaves, for ever."""
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(_LOOK_S)
            due = self._hold.due()
            if due is not None and due <= loop.time():
                self._host.stale()
            now, usable = time.time(), self._usable()
            for seat in self._host.seats.plain:
                try:
                    if has_expired(seat, now):
                        self._happened("seat.expired", seat)
                        await self.end(seat)
                    elif seat.leaf not in usable:
                        await self._rehome(seat)
                except AnabranchError as error:  # the next look tries again
                    _log.warning("seat.trouble", leaf=seat.leaf, reason=str(error))
            await self._let_everybody_out()

    def stop(self) -> None:
        self._ways.forget()

    # --- inside -------------------------------------------------------------------------------

    def _check(self, channel: str, rendition: str | None) -> str:
        self._host.channel(channel)
        if rendition is not None and rendition not in self._renditions:
            known = ", ".join(self._renditions)
            raise NotFoundError(f"there is no rendition {rendition[:40]!r}; there are {known}")
        return rendition or self._renditions[0]

    def _rivals(self, destination: Destination, wish: Wish) -> list[PlainSeat]:
        """Return the seats in whose place a new one comes.

        Raises:
            ConflictError: they are somebody else's.
        """
        wanted = PlainSeat("", "", "", str(destination.address), destination.port, destination.form)
        rivals = [
            seat
            for seat in self._host.seats.plain
            if seat.address == wanted.address and not set(seat.ports).isdisjoint(wanted.ports)
        ]
        mine = wish.operator or str(destination.address) == wish.client
        if not mine and any(seat.client != wish.client for seat in rivals):
            raise ConflictError("that receiver has a seat already")
        return rivals

    def _usable(self) -> list[str]:
        """Return the leaves that may have plain seats."""
        if self._underlay is None:
            return [_DIRECT_LEAF]
        return [name for name in self._leaves() if self._host.nodes.state(name) == "up"]

    def _leaves(self) -> dict[str, NodePlan]:
        """Return the leaves of this machine that are there."""
        if self._underlay is None:
            return {}
        up = self._underlay.up
        leaves = self._underlay.plan.leaves
        return {node.name: node for node in leaves if node.name in up and node.access is not None}

    def _reaches(self, address: str) -> bool:
        """Say whether leaves send to addresses of this family: all do, or none."""
        family = family_of(address)
        return self._underlay is None or all(
            family in families_of(node) for node in self._leaves().values()
        )

    def _place(
        self,
        receiver: object,
        wanted: str | None,
        leaving: set[str],
        rather: str | None = None,
    ) -> str:
        """Return the leaf for a seat: the one with the fewest.

        Args:
            receiver: the address; only leaves behind whose outlet it is, if there are any.
            wanted: this one and no other.
            leaving: seats that will be free then.
            rather: this one, if it may be.

        Raises:
            NotFoundError: ``wanted`` is no leaf that plain seats can be at.
            UnavailableError: there is no room.
        """
        usable, leaves = self._usable(), self._leaves()
        outlets = {name: node.outlet for name, node in leaves.items() if node.outlet is not None}
        near = [
            name for name in usable if name in outlets and outlets[name].leads_to(str(receiver))
        ]
        usable = near or usable
        if wanted is not None and wanted not in usable:
            which = f" that {receiver} is behind" if near else ""
            raise NotFoundError(
                f"{wanted[:40]!r} is no leaf of this machine that takes viewers{which}"
            )
        taken = Counter(seat.leaf for seat in self._host.seats.plain if seat.id not in leaving)
        limit = self._settings.per_leaf
        free = [name for name in usable if taken[name] < limit and wanted in (None, name)]
        if not free:
            where = wanted or f"each of the {len(usable)} leaves"
            raise UnavailableError(
                f"there are {limit} plain seats at {where}: that is all it takes"
            )
        return rather if rather in free else min(free, key=lambda name: (taken[name], name))

    def _targets(self, leaf: str) -> list[Target]:
        leaves = self._leaves()
        return [
            (_reach(seat, leaves), port)
            for seat in self._host.seats.plain
            if seat.leaf == leaf
            for port in seat.ports
        ]

    async def _let_out(self, leaf: str) -> None:
        await self._ways.allow(leaf, lambda: self._targets(leaf))

    async def _let_everybody_out(self) -> None:
        """Have every way out be right, whatever went wrong or ended by itself."""
        for leaf in self._leaves():
            try:
                await self._let_out(leaf)
            except AnabranchError as error:
                _log.warning("seat.trouble", leaf=leaf, reason=str(error))

    async def _rehome(self, seat: PlainSeat) -> None:
        before, seat.leaf = seat.leaf, self._place(seat.address, None, {seat.id})
        self._host.seats.changed(seat)
        await self._let_out(seat.leaf)
        self._host.request_key_frame(Feed(seat.channel, seat.rendition))
        self._happened("seat.moved", seat, **{"from": before})
        await self._host.carried()

    def _refused(self, leaf: str, refusal: Refusal) -> None:
        now, leaves = asyncio.get_running_loop().time(), self._leaves()
        for seat in self._host.seats.plain:
            if seat.leaf != leaf or refusal.port not in seat.ports:
                continue
            hit = _reach(seat, leaves) == refusal.address
            if hit and self._refusals.refused(seat.id, now):
                self._happened("seat.refused", seat)
                self._free(seat)

    def _free(self, seat: PlainSeat) -> None:
        self._refusals.forget(seat.id)
        self._paces.pop(seat.id, None)
        if self._host.seats.free(seat):
            self._happened("seat.freed", seat)
            self._host.stale()

    def _happened(self, kind: str, seat: PlainSeat, **more: str) -> None:
        self._on_event(Event(kind, seat.channel, {"leaf": seat.leaf, "kind": seat.kind, **more}))


def _reach(seat: PlainSeat, leaves: Mapping[str, NodePlan]) -> str:
    """Return the address by which a seat's leaf reaches its receiver."""
    node = leaves.get(seat.leaf)
    if node is None or not ip_address(seat.address).is_loopback:
        return seat.address
    # This machine, which the leaf knows as the other end of its access link.
    family = family_of(seat.address)
    return next(str(e.ip) for e in gateway_ends(node) if family_of(str(e.ip)) == family)


def transport_streams(sorting: Sorting) -> frozenset[StreamId]:
    """Return the transport streams that are wanted anywhere."""
    return frozenset(each.stream for each in sorting.brought if is_transport(each.stream.name))
