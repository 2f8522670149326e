"""Damping of what flaps: down counts at once, up only when it has been quiet for long enough.

What is suppressed is no more than second choice: see ``LinkInfo.last_resort``.

Source: RFC 2439, section 4.2 (figure of merit, cut-off and reuse thresholds, half-life, ceiling).
"""

from dataclasses import dataclass
from math import log2

from anabranch.fabric.errors import MisuseError


@dataclass(frozen=True, slots=True)
class DampingRules:
    """When a thing that flaps is suppressed, and for how long.

    Attributes:
        penalty: what one flap adds to the figure of merit.
        suppress: above this figure it is suppressed; by default the third flap in a row is.
        reuse: below this figure it is used again.
        half_life: seconds in which the figure halves.
        max_suppress: seconds after the last flap by which it is used again, however often it
            flapped before.

    Raises:
        MisuseError: these do not fit together.
    """

    penalty: float = 1000.0
    suppress: float = 2500.0
    reuse: float = 750.0
    half_life: float = 15.0
    max_suppress: float = 60.0

    def __post_init__(self) -> None:
        if not 0 < self.reuse < self.suppress or min(self.penalty, self.half_life) <= 0:
            raise MisuseError(f"damping needs 0 < reuse < suppress and positive rates: {self}")
        if self.ceiling <= self.suppress:
            raise MisuseError(f"with at most {self.max_suppress} s nothing is ever suppressed")

    @property
    def ceiling(self) -> float:
        """The highest figure: it decays to ``reuse`` in ``max_suppress`` seconds."""
        return float(self.reuse * 2 ** (self.max_suppress / self.half_life))


class Damper:
    """The figure of merit of one thing that may flap; times are monotonic seconds."""

    def __init__(self, rules: DampingRules, now: float) -> None:
        self._rules = rules
        self._figure = 0.0
        self._updated = now
        self.suppressed = False

    def figure(self, now: float) -> float:
        """Return the figure of merit at ``now``."""
        quiet = max(0.0, now - self._updated)
        return float(self._figure * 2 ** (-quiet / self._rules.half_life))

    def flap(self, now: float) -> bool:
        """Count one change to down; say whether this has suppressed it now."""
        rules = self._rules
        self._figure = min(self.figure(now) + rules.penalty, rules.ceiling)
        self._updated = max(now, self._updated)
        if self.suppressed or self._figure <= rules.suppress:
            return False
        self.suppressed = True
        return True

    def release(self, now: float) -> bool:
        """Say whether the suppression has ended now."""
        if not self.suppressed or now < self.next_timer():
            return False
        self.suppressed = False
        return True

    def forgettable(self, now: float) -> bool:
        """Say whether so little is left that nothing is lost by dropping this record."""
        return not self.suppressed and now >= self.next_timer()

    def next_timer(self) -> float:
        """Return when ``release``, or without suppression ``forgettable``, turns true."""
        threshold = self._rules.reuse if self.suppressed else self._rules.reuse / 2
        if self._figure <= threshold:
            return self._updated
        return self._updated + self._rules.half_life * log2(self._figure / threshold)
