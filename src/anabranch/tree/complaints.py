"""Complaints about others in the log: who errs all the time does not fill it."""

from collections.abc import Hashable
from typing import Any


class Complaints:
    """Logs at most one line about each subject in ``every_s`` seconds.

    Args:
        log: a structlog logger.
    """

    def __init__(self, log: Any, every_s: float) -> None:
        self._log = log
        self._every_s = every_s
        self._quiet_until: dict[Hashable, float] = {}  # the first ends first

    def make(self, about: Hashable, now: float, line: str, **words: str) -> None:
        """Log a line about a subject at ``now``, monotonic seconds, unless there was one lately."""
        while self._quiet_until:
            subject, end = next(iter(self._quiet_until.items()))
            if now < end:
                break
            del self._quiet_until[subject]
        if about not in self._quiet_until:
            self._quiet_until[about] = now + self._every_s
            self._log.warning(line, **words)
