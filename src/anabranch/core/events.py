"""Events: what happened, as records; and the bus that hands them on inside one process."""

import asyncio
import time
from collections.abc import AsyncGenerator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field

EventData = Mapping[str, str | int | float | bool | None]


@dataclass(frozen=True, slots=True)
class Event:
    """One change in the site.

    Attributes:
        kind: dotted name, ``channel.live``, ``switch.connected``, ``child.restarted``.
        subject: what it is about: a channel, node or child by name.
        data: details, plain values only.
        time: seconds since the epoch.
    """

    kind: str
    subject: str
    data: EventData = field(default_factory=dict)
    time: float = field(default_factory=time.time)


class EventBus:
    """Hands every published event to every subscriber.

    A subscriber that does not read loses its oldest events, never anybody else's: each has a
    bounded queue of its own, and :attr:`discarded` counts the loss.
    """

    def __init__(self, *, queue_size: int = 256) -> None:
        self._queue_size = queue_size
        self._queues: set[asyncio.Queue[Event]] = set()
        self.discarded = 0

    def publish(self, event: Event) -> None:
        """Hand ``event`` on; never blocks."""
        for queue in self._queues:
            if queue.full():
                with suppress(asyncio.QueueEmpty):
                    queue.get_nowait()
                self.discarded += 1
            queue.put_nowait(event)

    async def subscribe(self) -> AsyncGenerator[Event, None]:
        """Yield every event published from the first ``anext`` on, until the iterator closes."""
        queue: asyncio.Queue[Event] = asyncio.Queue(self._queue_size)
        self._queues.add(queue)
        try:
            while True:
                yield await queue.get()
        finally:
            self._queues.discard(queue)
