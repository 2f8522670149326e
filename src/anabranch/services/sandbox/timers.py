"""Functions called again and again; time is passed in. Pure."""

import heapq
from collections.abc import Callable
from dataclasses import dataclass, field

SHORTEST = 0.001
"""Seconds: more often than this nothing is called."""


@dataclass(order=True, slots=True)
class _Timer:
    due: float
    number: int
    period: float = field(compare=False)
    owner: str = field(compare=False)
    function: Callable[[], None] = field(compare=False)


class Timers:
    """The timers of all modules in a sandbox, each by its owner's name."""

    def __init__(self) -> None:
        self._heap: list[_Timer] = []
        self._made = 0

    def every(self, owner: str, period: float, function: Callable[[], None], now: float) -> None:
        """Call a function each ``period`` seconds from now on.

        Raises:
            ValueError: the period is shorter than :data:`SHORTEST`.
        """
        if not period >= SHORTEST:
            raise ValueError(f"a timer's period is at least {SHORTEST} s")
        self._made += 1
        heapq.heappush(self._heap, _Timer(now + period, self._made, period, owner, function))

    def forget(self, owner: str) -> None:
        """Drop all timers of an owner."""
        self._heap = [timer for timer in self._heap if timer.owner != owner]
        heapq.heapify(self._heap)

    def due(self, now: float) -> list[tuple[str, Callable[[], None]]]:
        """Return what is to be called now; a turn that was missed is not made up for."""
        found = []
        while self._heap and self._heap[0].due <= now:
            timer = heapq.heappop(self._heap)
            found.append((timer.owner, timer.function))
            timer.due = max(timer.due + timer.period, now)
            heapq.heappush(self._heap, timer)
        return found

    def next(self) -> float | None:
        return self._heap[0].due if self._heap else None
