"""Everything that happens in the network, told to whoever wants to know."""

import itertools
from collections import deque
from collections.abc import AsyncGenerator, Callable, Mapping

import structlog

from anabranch.core.events import Event, EventBus
from anabranch.fabric.notify import Notifier, SubscriptionStore
from anabranch.store.database import StoreError

_KEPT = 1000
_log = structlog.get_logger("anabranch.fabric")


class Announcements:
    """Hands events to the process itself, to subscribers, and to callbacks.

    Args:
        on_event: gets every event; must not block.
        dpids: returns the datapath ids of the switches by name.
        callbacks: where it is kept who wants to be told by POST; None: in memory.
    """

    def __init__(
        self,
        on_event: Callable[[Event], None],
        dpids: Callable[[], Mapping[str, int]],
        callbacks: SubscriptionStore | None = None,
    ) -> None:
        self._on_event = on_event
        self._bus = EventBus()
        self._recent: deque[Event] = deque(maxlen=_KEPT)
        self.notifier = Notifier(self.publish, dpids=dpids, store=callbacks)

    async def open(self) -> None:
        """Begin to tell those who want to be told by POST.

        If it cannot be read who that is, nobody is told but those who ask from now on.
        """
        try:
            await self.notifier.open()
        except StoreError as error:
            _log.warning("callback.unavailable", error=str(error))
            self.publish(Event("callback.unavailable", "callbacks", {"reason": str(error)}))

    async def close(self) -> None:
        """End that."""
        await self.notifier.close()

    def publish(self, event: Event) -> None:
        """Hand an event to everybody who listens."""
        self._bus.publish(event)
        self._recent.append(event)
        self.notifier.publish(event)
        self._on_event(event)

    def subscribe(self) -> AsyncGenerator[Event, None]:
        """Yield every event from now on."""
        return self._bus.subscribe()

    async def recent_events(self, limit: int) -> list[Event]:
        """Return the newest events, newest first; at most 1,000 are kept."""
        return list(itertools.islice(reversed(self._recent), limit))
