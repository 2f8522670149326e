"""NetMonitor: counts packets by source, destination and TTL, and forwards them all (seed 003, 6.3).

Properties: ``top``: how many of the largest counts ``status`` shows (default 10).
"""

import json
from ipaddress import IPv4Address

import numpy as np
from numpy.typing import NDArray

from anabranch.services.batch import Batch
from anabranch.services.module import Context, Module, Status

Key = tuple[int, int, int]
_BITS = 12
_FACTORS = (np.uint64(0x9E3779B97F4A7C15), np.uint64(0xC2B2AE3D27D4EB4F))
_TTL_FACTOR = np.uint64(0x165667B19E3779F9)


class NetMonitor(Module):
    """A direct-mapped table of flows, looked up for a whole batch at once.

    A flow has one place in the table, by its hash. Where another flow has that place, its packets
    are counted one by one in a dictionary: right, only slower.
    """

    def __init__(self) -> None:
        size = 1 << _BITS
        self._keys: list[Key | None] = [None] * size
        self._pairs = np.zeros(size, np.uint64)
        self._ttls = np.full(size, -1, np.int16)
        self._counts = np.zeros(size, np.int64)
        self._others: dict[Key, int] = {}
        self._top = 10

    def configure(self, context: Context) -> None:
        self._top = int(context.properties.get("top", "10"))

    def process(self, batch: Batch) -> None:
        pairs = (batch.source.astype(np.uint64) << np.uint64(32)) | batch.destination
        ttls = batch.ttl
        places = pairs * _FACTORS[0] + ttls * _TTL_FACTOR
        places = (places ^ (places >> np.uint64(29))) * _FACTORS[1] >> np.uint64(64 - _BITS)
        places = places.astype(np.intp)
        known = (self._pairs[places] == pairs) & (self._ttls[places] == ttls)
        if not known.all():
            self._count_new(pairs, ttls, places, np.flatnonzero(~known))
            places = places[known]
        self._counts += np.bincount(places, minlength=len(self._counts))

    def _count_new(
        self,
        pairs: NDArray[np.uint64],
        ttls: NDArray[np.uint8],
        places: NDArray[np.intp],
        unknown: NDArray[np.intp],
    ) -> None:
        for index in unknown.tolist():
            place, ttl = int(places[index]), int(ttls[index])
            key = (int(pairs[index]) >> 32, int(pairs[index]) & 0xFFFFFFFF, ttl)
            if self._keys[place] is None:
                self._keys[place] = key
                self._pairs[place], self._ttls[place] = pairs[index], ttl
            if self._keys[place] == key:
                self._counts[place] += 1
            else:
                self._others[key] = self._others.get(key, 0) + 1

    def counts(self) -> dict[Key, int]:
        """Return the packets of every source, destination and TTL."""
        found = dict(self._others)  # what was counted before a flow got its place, too
        for key, count in zip(self._keys, self._counts.tolist(), strict=True):
            if key is not None:
                found[key] = found.get(key, 0) + count
        return found

    def status(self) -> Status:
        counts = self.counts()
        largest = sorted(counts.items(), key=lambda each: -each[1])[: self._top]
        return {
            "flows": len(counts),
            "counted": sum(counts.values()),
            **{
                f"{IPv4Address(source)}_{IPv4Address(destination)}_{ttl}": count
                for (source, destination, ttl), count in largest
            },
        }

    def take_state(self) -> bytes:
        return json.dumps([[*key, count] for key, count in self.counts().items()]).encode()

    def restore_state(self, state: bytes) -> None:
        self._others = {(s, d, ttl): count for s, d, ttl, count in json.loads(state)}
