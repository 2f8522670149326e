"""Two things that every sans-IO record of the network needs: read-only copies, and alarms."""

import heapq
from collections.abc import Hashable, Iterator, Mapping
from types import MappingProxyType
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class Register(Generic[K, V]):
    """A mapping that changes, and read-only copies of it that do not."""

    def __init__(self) -> None:
        self.now: dict[K, V] = {}
        self._copy: Mapping[K, V] | None = None

    def put(self, key: K, value: V) -> bool:
        """Set an entry; say whether that changed anything."""
        if key in self.now and self.now[key] == value:
            return False
        self.now[key] = value
        self._copy = None
        return True

    def drop(self, key: K) -> bool:
        """Remove an entry; say whether there was one."""
        if key not in self.now:
            return False
        del self.now[key]
        self._copy = None
        return True

    def copy(self) -> Mapping[K, V]:
        """Return all entries; the same object until something changes."""
        if self._copy is None:
            self._copy = MappingProxyType(dict(self.now))
        return self._copy


class Alarms(Generic[K]):
    """What is due when, one time for each key; times are monotonic seconds."""

    def __init__(self) -> None:
        self._due: dict[K, float] = {}
        self._heap: list[tuple[float, int, K]] = []
        self._serial = 0

    def __contains__(self, key: K) -> bool:
        return key in self._due

    def set(self, key: K, when: float) -> None:
        """Ask for ``key`` at ``when`` and at no other time."""
        if self._due.get(key) == when:
            return
        self._due[key] = when
        self._serial += 1  # keys need not be comparable
        heapq.heappush(self._heap, (when, self._serial, key))

    def cancel(self, key: K) -> None:
        """Do not ask for ``key`` any more."""
        self._due.pop(key, None)

    def next(self) -> float | None:
        """Return when the next one is due; None for never."""
        while self._heap and self._due.get(self._heap[0][2]) != self._heap[0][0]:
            heapq.heappop(self._heap)
        return self._heap[0][0] if self._heap else None

    def due(self, now: float) -> Iterator[K]:
        """Yield, in the order of their times, the keys due at ``now``; each is cancelled."""
        while (when := self.next()) is not None and when <= now:
            key = heapq.heappop(self._heap)[2]
            del self._due[key]
            yield key
