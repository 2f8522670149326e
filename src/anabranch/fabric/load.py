"""The load of links, from the counters that switches keep for their ports."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import exp

from anabranch.fabric.errors import MisuseError
from anabranch.fabric.model import LinkInfo, PortRef
from anabranch.fabric.openflow.messages import PortStats

_NOT_COUNTED = 0xFFFFFFFFFFFFFFFF
_SHORTEST_INTERVAL = 0.1
# No port of this decade is faster: what seems to be was a counter that started anew.
_IMPOSSIBLE_MBIT = 10_000_000.0


@dataclass(frozen=True, slots=True)
class PortLoad:
    """What a port received and sent, Mbit/s; None: its switch does not count that."""

    rx_mbit: float | None
    tx_mbit: float | None


_UNKNOWN = PortLoad(None, None)


@dataclass(frozen=True, slots=True)
class _Sample:
    at: float
    duration: float
    rx_bytes: int
    tx_bytes: int


class LoadMeter:
    """Turns successive counters of ports into rates.

    Args:
        time_constant: seconds over which older figures fade (an exponentially weighted moving
            average); 0: each figure is that of the last interval alone.
    """

    def __init__(self, *, time_constant: float = 0.0) -> None:
        if time_constant < 0:
            raise MisuseError(f"a time constant of {time_constant} s")
        self._time_constant = time_constant
        self._samples: dict[PortRef, _Sample] = {}
        self._loads: dict[PortRef, PortLoad] = {}

    def of(self, port: PortRef) -> PortLoad | None:
        """Return the load of a port; None before its second sample."""
        return self._loads.get(port)

    def forget(self, port: PortRef) -> None:
        """Drop what is known of a port that has gone."""
        self._samples.pop(port, None)
        self._loads.pop(port, None)

    def sample(self, switch: str, counters: Sequence[PortStats], now: float) -> set[PortRef]:
        """Take one reading of a switch's counters; return the ports whose load it changed.

        A counter that steps back has wrapped (at 32 or 64 bits) if the port is as old as it
        should be; else it started anew, and that interval gives no figure.
        """
        changed = set()
        for stats in counters:
            port = PortRef(switch, stats.port_no)
            new = _Sample(now, stats.duration, stats.rx_bytes, stats.tx_bytes)
            old = self._samples.get(port)
            if old is not None and now - old.at < _SHORTEST_INTERVAL:
                continue
            self._samples[port] = new
            if old is None:
                continue
            before = self._loads.get(port, _UNKNOWN)
            weight = self._weight(new.at - old.at)
            after = PortLoad(
                _blend(before.rx_mbit, _rate(old, new, "rx_bytes"), weight),
                _blend(before.tx_mbit, _rate(old, new, "tx_bytes"), weight),
            )
            if after != before or port not in self._loads:
                self._loads[port] = after
                changed.add(port)
        return changed

    def _weight(self, interval: float) -> float:
        return 1 - exp(-interval / self._time_constant) if self._time_constant else 1.0


def _blend(before: float | None, rate: float | None, weight: float) -> float | None:
    if rate is None or before is None or weight == 1.0:
        return rate
    return before + weight * (rate - before)


def _rate(old: _Sample, new: _Sample, counter: str) -> float | None:
    """Return Mbit/s between two samples; None: not counted, or counted anew."""
    first, second = getattr(old, counter), getattr(new, counter)
    if _NOT_COUNTED in (first, second) or new.duration < old.duration:
        return None
    if second < first:
        if new.duration == old.duration:  # a switch that does not say how old the port is
            return None
        second += 1 << (32 if first < 1 << 32 else 64)
    rate = (second - first) * 8 / (new.at - old.at) / 1e6
    return float(rate) if rate < _IMPOSSIBLE_MBIT else None


def utilisation(link: LinkInfo) -> float | None:
    """Return the share of a link's capacity that is in use, 0 to 1 and above; None: unknown."""
    if not link.capacity_mbit:
        return None
    return link.load_mbit / link.capacity_mbit
