"""Seats: the delivery slot of one viewer. Soft state: gone when its viewer is.

A browser's is a cursor at a leaf server (:class:`Seat`), that of a set-top box or a player a bucket
in a leaf's sort switch (:class:`PlainSeat`).

They are written to the store behind what happens, in batches, so that another run finds whom this
one served. A store that cannot be written costs nothing but that.
"""

import asyncio
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from ipaddress import IPv6Network
from typing import Any, ClassVar, Literal

import structlog

from anabranch.core.errors import NotFoundError
from anabranch.core.names import new_id
from anabranch.store.database import Database, StoreError
from anabranch.store.rows import SeatRow
from anabranch.store.seats import read_seats, write_seats

_GATHER_S = 0.5
"""Seconds that changes are gathered before they are written."""
_AGAIN_S = 5.0
_COLUMNS = ("id", "channel", "leaf", "since")
"""Fields of a seat that have columns of their own."""
_log = structlog.get_logger("anabranch.seats")


@dataclass(slots=True)
class Seat:
    """One viewer.

    ``id`` is unguessable: whoever knows it may close the seat (it is the WHEP resource).
    ``viewing`` is the connection's identifier at the leaf, ``client`` the address that asked.
    ``rendition`` is what is sent now. ``best`` is the best that the viewer is to see, ``allowed``
    the best that its leaf may send now: lower while the leaf is in trouble. What is ``pinned`` was
    asked for by name, and the leaf does not lower it as the viewer's way in allows.
    """

    kind: ClassVar = "webrtc"

    channel: str
    rendition: str
    leaf: str
    viewing: str
    client: str = ""
    best: str = ""
    allowed: str = ""
    pinned: bool = False
    holder: str = ""
    """By what its viewer may watch; see :mod:`anabranch.console.people.caller`."""
    barred: bool = False
    """Its viewer may watch no longer: there is no use in coming again."""
    id: str = field(default_factory=new_id)
    state: Literal["connecting", "watching"] = "connecting"
    since: float = field(default_factory=time.time)

    def __post_init__(self) -> None:
        self.best = self.best or self.rendition
        self.allowed = self.allowed or self.rendition


@dataclass(slots=True)
class PlainSeat:
    """One receiver that has no connection: it is sent UDP, whatever becomes of it.

    Attributes:
        id: unguessable: whoever knows it may change or close the seat.
        leaf: whose sort switch sends to it.
        address, port: where to; of IPv6 in its shortest form.
        form: ``ts``, an MPEG transport stream; ``rtp``: the picture, and the sound two ports above.
        client: the address that asked; empty: the operator did.
        ttl_s: seconds after which the seat is free unless it is renewed; None: as long as
            the receiver takes what it is sent.
        renewed: when it was last heard of, time of day.
        holder: by what its receiver may have the channel, as with :class:`Seat`.
    """

    kind: ClassVar = "plain"

    channel: str
    rendition: str
    leaf: str
    address: str
    port: int
    form: Literal["ts", "rtp"] = "ts"
    client: str = ""
    ttl_s: float | None = None
    holder: str = ""
    id: str = field(default_factory=new_id)
    since: float = field(default_factory=time.time)
    renewed: float = field(default_factory=time.time)

    @property
    def place(self) -> tuple[str, int]:
        return self.address, self.port

    @property
    def ports(self) -> tuple[int, ...]:
        """Its UDP ports: the stream's, or those of picture and sound."""
        return (self.port,) if self.form == "ts" else (self.port, self.port + 2)


AnySeat = Seat | PlainSeat
_KINDS: dict[str, type[AnySeat]] = {Seat.kind: Seat, PlainSeat.kind: PlainSeat}


@lru_cache(1024)
def network_of(client: str) -> str:
    """Return what counts as one client: an IPv4 address, an IPv6 network of 64 bits.

    A host has as many addresses in such a network as it likes (RFC 8981).
    """
    if ":" not in client:
        return client
    try:
        return str(IPv6Network((client.partition("%")[0], 64), strict=False))
    except ValueError:  # a proxy may say anything
        return client


def row_of(seat: AnySeat) -> SeatRow:
    """Return a seat as it is stored."""
    data = {name: value for name, value in asdict(seat).items() if name not in _COLUMNS}
    return SeatRow(
        id=seat.id,
        channel=seat.channel,
        kind=seat.kind,
        leaf=seat.leaf,
        data=data,
        taken=seat.since,
    )


def seat_of(row: SeatRow) -> AnySeat:
    """Return a seat that was stored.

    Raises:
        ValueError: another version of this program wrote it.
    """
    kind = _KINDS.get(row.kind)
    if kind is None:
        raise ValueError(f"a seat of kind {row.kind!r}")
    fields: dict[str, Any] = row.data
    try:
        return kind(id=row.id, channel=row.channel, leaf=row.leaf, since=row.taken, **fields)
    except TypeError as error:
        raise ValueError(str(error)) from error


class Seats:
    """All seats of a site. Those of browsers are what it is iterated for.

    ``database`` is where they are kept; None: nowhere.
    """

    def __init__(self, database: Database | None = None) -> None:
        self._database = database
        self._by_id: dict[str, Seat] = {}
        self._plain: dict[str, PlainSeat] = {}
        self._by_viewing: dict[tuple[str, str], Seat] = {}
        self._unwritten: set[str] = set()
        self._dirty = asyncio.Event()
        self.taken_total = 0
        self._counted: Counter[str] = Counter()
        self._counted_at = 0
        self.version = 0
        """Another one whenever something is not as it was."""

    def __iter__(self) -> Iterator[Seat]:
        return iter(list(self._by_id.values()))

    def __len__(self) -> int:
        return len(self._by_id) + len(self._plain)

    @property
    def plain(self) -> list[PlainSeat]:
        """The seats that are sent UDP."""
        return list(self._plain.values())

    def add(self, seat: AnySeat) -> None:
        if isinstance(seat, PlainSeat):
            self._plain[seat.id] = seat
        else:
            self._by_id[seat.id] = seat
            self._by_viewing[seat.leaf, seat.viewing] = seat
        self.taken_total += 1
        self.changed(seat)

    def changed(self, seat: AnySeat) -> None:
        """Note that something about a seat is not as it was."""
        self.version += 1
        self._unwritten.add(seat.id)
        self._dirty.set()

    def hold(self, seat: AnySeat, holder: str) -> None:
        """Note by what a seat's viewer may watch what it watches now."""
        if seat.holder != holder:
            seat.holder = holder
            self.changed(seat)

    def get(self, seat_id: str) -> Seat:
        """Return a browser's seat.

        Raises:
            NotFoundError: there is none, or no longer.
        """
        seat = self.any(seat_id)
        if not isinstance(seat, Seat):
            raise NotFoundError("there is no such seat")
        return seat

    def any(self, seat_id: str) -> AnySeat:
        """Return a seat of either kind. Raises as :meth:`get`."""
        seat = self._by_id.get(seat_id) or self._plain.get(seat_id)
        if seat is None:
            raise NotFoundError("there is no such seat, or no longer")
        return seat

    def at(self, leaf: str, viewing: str) -> Seat | None:
        """Return the seat of a viewing at a leaf, if it has one."""
        return self._by_viewing.get((leaf, viewing))

    def free(self, seat: AnySeat) -> bool:
        """Free a seat; False if it was free already."""
        if isinstance(seat, Seat):
            self._by_viewing.pop((seat.leaf, seat.viewing), None)
            found = self._by_id.pop(seat.id, None) is not None
        else:
            found = self._plain.pop(seat.id, None) is not None
        if not found:
            return False
        self.changed(seat)
        return True

    def connecting(self, client: str) -> int:
        """Return how many seats of a client, see :func:`network_of`, have not connected yet."""
        whose = network_of(client)
        return sum(
            seat.state == "connecting" and network_of(seat.client) == whose
            for seat in self._by_id.values()
        )

    def per_leaf(self) -> Counter[str]:
        return Counter(seat.leaf for seat in self._all())

    def plain_per_leaf(self) -> Counter[str]:
        return Counter(seat.leaf for seat in self._plain.values())

    def per_channel(self) -> Counter[str]:
        if self._counted_at != self.version:  # asked for each channel of a list
            self._counted_at = self.version
            self._counted = Counter(seat.channel for seat in self._all())
        return self._counted

    def _all(self) -> Iterator[AnySeat]:
        yield from self._by_id.values()
        yield from self._plain.values()

    # --- in the store -------------------------------------------------------------------------

    async def recall(self) -> list[AnySeat]:
        """Return the seats of an earlier run, the oldest first.

        Those that are not added again before the next :meth:`flush` are then forgotten.

        Raises:
            StoreError: the store cannot be read.
        """
        if self._database is None:
            return []
        found = []
        for row in await read_seats(self._database):
            self._unwritten.add(row.id)
            self._dirty.set()
            try:
                found.append(seat_of(row))
            except ValueError as error:
                _log.warning("seat.not_understood", reason=str(error))
        return found

    async def write_behind(self) -> None:
        """Write what changes to the store, for ever."""
        failed = False
        while True:
            await self._dirty.wait()
            await asyncio.sleep(_AGAIN_S if failed else _GATHER_S)
            try:
                await self.flush()
                failed = False
            except StoreError as error:
                if not failed:  # told once, tried again and again
                    _log.error("seats.not_written", error=str(error))
                failed = True

    async def flush(self) -> None:
        """Write what has changed to the store.

        Raises:
            StoreError: it cannot be written; it will be with the next flush.
        """
        self._dirty.clear()
        stale, self._unwritten = self._unwritten, set()
        if self._database is None or not stale:
            return
        there = [seat for seat in self._all() if seat.id in stale]
        gone = stale - {seat.id for seat in there}
        try:
            await write_seats(self._database, [row_of(seat) for seat in there], gone)
        except BaseException:
            self._unwritten |= stale
            self._dirty.set()
            raise
