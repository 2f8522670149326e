"""How the controller says what happens: events, callbacks, and complaints that are made once."""

from collections.abc import Callable
from typing import TypeVar

import structlog

from anabranch.core.events import Event

_MAX_COMPLAINTS = 10_000
_T = TypeVar("_T")
_log = structlog.get_logger("anabranch.fabric")


class Reports:
    """Hands on events and calls callbacks; neither can hurt who reports.

    Attributes:
        callbacks_failed: exceptions in callbacks.
    """

    def __init__(self, on_event: Callable[[Event], None]) -> None:
        self._on_event = on_event
        self._complained: set[tuple[str, ...]] = set()
        self.callbacks_failed = 0

    def emit(self, kind: str, subject: str, **data: str | int) -> None:
        """Publish an event."""
        self._on_event(Event(kind, subject, data))

    def call(self, callback: Callable[..., _T] | None, *args: object) -> _T | None:
        """Call somebody else's function, if there is one; None also if it fails."""
        if callback is not None:
            try:
                return callback(*args)
            except Exception:
                self.failed(getattr(callback, "__qualname__", "callback"))
        return None

    def failed(self, which: str) -> None:
        """Count the exception that is being handled, and log the first of all."""
        self.callbacks_failed += 1
        if self.callbacks_failed == 1:
            _log.exception("controller.callback_failed", callback=which)

    def complain(self, kind: str, name: str, words: str, *key: str) -> bool:
        """Log something once until ``forgive``; say whether this was the time.

        ``key``: what makes it another complaint than one of the same kind about the same switch.
        """
        complaint = (name, kind, *key)
        if complaint in self._complained or len(self._complained) >= _MAX_COMPLAINTS:
            return False
        self._complained.add(complaint)
        _log.warning(kind, switch=name, error=words)
        return True

    def forgive(self, name: str) -> None:
        """Forget all complaints about a switch: it begins anew."""
        self._complained = {made for made in self._complained if made[0] != name}
