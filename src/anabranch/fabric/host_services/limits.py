"""Token buckets, so that nobody's questions cost everybody's time."""

from collections import OrderedDict
from collections.abc import Hashable

_MAX_KEYS = 4096


class RateLimit:
    """Lets ``rate`` events/s pass for each key, after ``burst`` at once.

    Keys not seen for longest are forgotten beyond 4,096: they start with a full bucket again.
    """

    def __init__(self, rate: float, burst: float) -> None:
        self._rate = rate
        self._burst = burst
        self._buckets: OrderedDict[Hashable, tuple[float, float]] = OrderedDict()

    def allow(self, key: Hashable, now: float) -> bool:
        """Say whether an event may pass at ``now`` (monotonic seconds), and count it if so."""
        tokens, since = self._buckets.get(key, (self._burst, now))
        tokens = min(self._burst, tokens + max(0.0, now - since) * self._rate)
        allowed = tokens >= 1
        self._buckets[key] = (tokens - allowed, now)
        self._buckets.move_to_end(key)
        if len(self._buckets) > _MAX_KEYS:
            self._buckets.popitem(last=False)
        return allowed
