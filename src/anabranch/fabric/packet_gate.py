"""How many packets a switch may hand to the controller: token buckets."""

import struct
from collections.abc import Collection

from anabranch.fabric.errors import ProtocolError
from anabranch.fabric.host_services.rules import ANSWER_COOKIE
from anabranch.fabric.openflow.templates import parse_packet_in
from anabranch.fabric.pipeline import CLASSIFY, EDGE
from anabranch.fabric.tables import INTENT_COOKIE

DISCOVERY_RATE = 50.0
"""Answers/s to the controller's questions, LLDP and ARP, that are heeded of one port."""
_PACKET_IN = struct.Struct("!15xBQ")  # table_id and cookie, in the same place since OpenFlow 1.3
# The rule for LLDP, as no other of CLASSIFY sends any, and that for hosts that are asked.
_DISCOVERY = frozenset({(CLASSIFY, INTENT_COOKIE), (EDGE, ANSWER_COOKIE)})


def discovery_port(packet_in: bytes) -> int | None:
    """Return where the frame came in if this PACKET_IN answers the controller, else None."""
    if len(packet_in) < _PACKET_IN.size or _PACKET_IN.unpack_from(packet_in) not in _DISCOVERY:
        return None
    try:
        return parse_packet_in(packet_in)[6]
    except ProtocolError:
        return None


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


class SwitchGates:
    """The gates of a switch: one for each port's discovery, so that no flood hides other links.

    All else shares one, as does the discovery of ports that the switch has not told of: they cost
    no memory, and one that has just come is told of in the same breath.

    Args:
        rate: packets/s, and how many at once after a pause, of what shares a gate.
    """

    def __init__(self, now: float, rate: float) -> None:
        self._common = PacketGate(now, rate, rate)
        self._discovery: dict[int, PacketGate] = {}

    def __len__(self) -> int:
        """Return how many gates there are."""
        return 1 + len(self._discovery)

    def gate(self, port_no: int | None, ports: Collection[int], now: float) -> PacketGate:
        """Return the gate of a packet.

        Args:
            port_no: what :func:`discovery_port` says of it.
            ports: those that the switch has.
        """
        if port_no is None or port_no not in ports:
            return self._common
        gate = self._discovery.get(port_no)
        if gate is None:
            if len(self._discovery) >= len(ports):  # of ports that are gone
                self._discovery = {n: old for n, old in self._discovery.items() if n in ports}
            gate = self._discovery[port_no] = PacketGate(now, DISCOVERY_RATE, DISCOVERY_RATE)
        return gate
