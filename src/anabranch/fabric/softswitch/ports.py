"""The ports of a soft switch: their state and counters (OpenFlow 1.3.5, section 4)."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import NamedTuple

from anabranch.fabric.openflow.messages import Port, PortReason, PortStatus

_LINK_DOWN = 1


class Emission(NamedTuple):
    """A frame that leaves by a port."""

    port_no: int
    frame: bytes


@dataclass(slots=True, eq=False)
class SwitchPort:
    """A port with its counters."""

    port: Port
    created: float
    rx_packets: int = 0
    tx_packets: int = 0
    rx_bytes: int = 0
    tx_bytes: int = 0
    rx_dropped: int = 0
    tx_dropped: int = 0


class Ports(dict[int, SwitchPort]):
    """Ports by number; every change is returned as what the controllers should hear."""

    def add(self, port: Port, now: float) -> PortStatus:
        """Add a port, or replace the one with its number."""
        self[port.port_no] = SwitchPort(port, now)
        return PortStatus(PortReason.ADD, port)

    def remove(self, port_no: int) -> PortStatus:
        """Take a port away."""
        return PortStatus(PortReason.DELETE, self.pop(port_no).port)

    def turn(self, port_no: int, up: bool) -> PortStatus | None:
        """Let the link of a port come up or go down; None if it was so before."""
        at = self[port_no]
        state = at.port.state & ~_LINK_DOWN | (0 if up else _LINK_DOWN)
        if state == at.port.state:
            return None
        at.port = replace(at.port, state=state)
        return PortStatus(PortReason.MODIFY, at.port)

    def live(self, port_no: int) -> bool:
        """Say whether a port is there and its link up."""
        at = self.get(port_no)
        return at is not None and at.port.up

    def receive(self, port_no: int, frame: bytes) -> bool:
        """Count what comes in; a port that is down, or is none, receives nothing: False."""
        at = self.get(port_no)
        if at is None or not at.port.up:
            return False
        at.rx_packets += 1
        at.rx_bytes += len(frame)
        return True

    def send(self, frames: Iterable[tuple[int, bytes]]) -> list[Emission]:
        """Count what goes out, leaving out what no port takes."""
        sent = []
        for port_no, frame in frames:
            at = self.get(port_no)
            if at is None:
                continue
            if not at.port.up:
                at.tx_dropped += 1
                continue
            at.tx_packets += 1
            at.tx_bytes += len(frame)
            sent.append(Emission(port_no, frame))
        return sent
