"""How many packets a switch may hand to the controller: a token bucket."""


class PacketGate:
    """Lets ``rate`` packets/s through, and ``burst`` at once after a pause.

    Attributes:
        dropped: how many were held back so far.
    """

    def __init__(self, now: float, rate: float, burst: float) -> None:
        self._rate = rate
        self._burst = burst
        self._tokens = burst
        self._at = now
        self._closed = False
        self.dropped = 0

    def admits(self, now: float) -> bool:
        """Say whether one more packet may pass at ``now`` (monotonic seconds)."""
        self._tokens = min(self._burst, self._tokens + max(0.0, now - self._at) * self._rate)
        self._at = now
        if self._tokens >= self._burst / 2:
            self._closed = False
        if self._tokens < 1:
            self.dropped += 1
            return False
        self._tokens -= 1
        return True

    def outbreak(self) -> bool:
        """Say, once, that packets are held back; again only after the flood has ebbed."""
        began, self._closed = not self._closed, True
        return began
