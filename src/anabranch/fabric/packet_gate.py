"""How many packets a switch may hand to the controller: a token bucket."""

import struct

from anabranch.fabric.pipeline import CLASSIFY
from anabranch.fabric.tables import INTENT_COOKIE

DISCOVERY_RATE = 200.0
"""Frames/s of the discovery that a switch may hand over, each link sending one a few times/s."""
_PACKET_IN = struct.Struct("!15xBQ")  # table_id and cookie, in the same place since OpenFlow 1.3
_BY_DISCOVERY = CLASSIFY, INTENT_COOKIE


def is_discovery(packet_in: bytes) -> bool:
    """Say whether the rule for LLDP has sent this PACKET_IN: no other of CLASSIFY sends any."""
    return len(packet_in) >= _PACKET_IN.size and _PACKET_IN.unpack_from(packet_in) == _BY_DISCOVERY


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
