"""Seats: the delivery slot of one viewer. Soft state: gone when its viewer is."""

import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from ipaddress import IPv6Network
from typing import Literal

from anabranch.core.errors import NotFoundError
from anabranch.core.names import new_id


@dataclass(slots=True)
class Seat:
    """One viewer.

    ``id`` is unguessable: whoever knows it may close the seat (it is the WHEP resource).
    ``viewing`` is the connection's identifier at the leaf, ``client`` the address that asked.
    ``rendition`` is what is sent now. ``best`` is the best that the viewer is to see, ``allowed``
    the best that its leaf may send now: lower while the leaf is in trouble. What is ``pinned`` was
    asked for by name, and the leaf does not lower it as the viewer's way in allows.
    """

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


@lru_cache(1024)
def _network_of(client: str) -> str:
    if ":" not in client:
        return client
    try:
        return str(IPv6Network((client.partition("%")[0], 64), strict=False))
    except ValueError:  # a proxy may say anything
        return client


class Seats:
    """All seats of a site, by identifier and by the leaf's viewing."""

    def __init__(self) -> None:
        self._by_id: dict[str, Seat] = {}
        self._by_viewing: dict[tuple[str, str], Seat] = {}
        self.taken_total = 0

    def __iter__(self) -> Iterator[Seat]:
        return iter(list(self._by_id.values()))

    def __len__(self) -> int:
        return len(self._by_id)

    def add(self, seat: Seat) -> None:
        self._by_id[seat.id] = seat
        self._by_viewing[seat.leaf, seat.viewing] = seat
        self.taken_total += 1

    def get(self, seat_id: str) -> Seat:
        """Return a seat.

        Raises:
            NotFoundError: there is none, or no longer.
        """
        seat = self._by_id.get(seat_id)
        if seat is None:
            raise NotFoundError("there is no such seat, or no longer")
        return seat

    def at(self, leaf: str, viewing: str) -> Seat | None:
        """Return the seat of a viewing at a leaf, if it has one."""
        return self._by_viewing.get((leaf, viewing))

    def free(self, seat: Seat) -> bool:
        """Free a seat; False if it was free already."""
        self._by_viewing.pop((seat.leaf, seat.viewing), None)
        return self._by_id.pop(seat.id, None) is not None

    def connecting(self, client: str) -> int:
        """Return how many seats of a client have not connected yet.

        All of an IPv6 network of 64 bits counts as one client: a host has as many addresses there
        as it likes (RFC 8981).
        """
        whose = _network_of(client)
        return sum(
            seat.state == "connecting" and _network_of(seat.client) == whose
            for seat in self._by_id.values()
        )

    def per_leaf(self) -> Counter[str]:
        return Counter(seat.leaf for seat in self._by_id.values())

    def per_channel(self) -> Counter[str]:
        return Counter(seat.channel for seat in self._by_id.values())
