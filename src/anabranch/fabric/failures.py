"""What switches did not do, as data."""

from collections.abc import Sequence
from dataclasses import dataclass

from anabranch.core.errors import UnavailableError
from anabranch.fabric.errors import FabricError
from anabranch.fabric.reconcile import Change


@dataclass(frozen=True, slots=True)
class Failure:
    """Something that a switch did not do.

    Attributes:
        switch: its name.
        reason: one line for a person, which names the switch.
        change: what it refused; None: the switch failed as a whole.
        hit: names of the flows and taps that are not carried as they should be because of it, as
            far as somebody has found out; see :func:`attribution.attributed`.
    """

    switch: str
    reason: str
    change: Change | None = None
    hit: frozenset[str] = frozenset()


class NotDoneError(FabricError, UnavailableError):
    """Switches refused something or did not answer; all the rest is installed.

    Attributes:
        failures: at least one.
        pending: switches that are away or silent.
    """

    def __init__(self, failures: Sequence[Failure], pending: frozenset[str]) -> None:
        first: dict[str, str] = {}
        for failure in failures:
            first.setdefault(failure.switch, failure.reason)
        super().__init__("; ".join(first.values()))
        self.failures = tuple(failures)
        self.pending = pending
