"""Meters: token buckets that drop what exceeds a rate (OpenFlow 1.3.5, section 5.7)."""

from dataclasses import dataclass, field

from anabranch.fabric.openflow.messages import MeterBand


@dataclass(slots=True)
class BandState:
    """A band with its bucket: ``tokens`` in packets or in kilobits, as the meter counts.

    A band without burst size has one of a second at its rate, as Open vSwitch has.
    """

    band: MeterBand
    tokens: float
    packets: int = 0
    bytes: int = 0

    @property
    def capacity(self) -> int:
        return self.band.burst_size or self.band.rate


@dataclass(slots=True)
class MeterEntry:
    """A meter; ``in_packets``: rates are packets/s, else kbit/s. Times are monotonic seconds."""

    meter_id: int
    in_packets: bool
    bands: tuple[BandState, ...]
    created: float
    packets: int = 0
    bytes: int = 0
    _filled: float = field(default=0.0)

    @classmethod
    def of(
        cls, meter_id: int, bands: tuple[MeterBand, ...], in_packets: bool, now: float
    ) -> "MeterEntry":
        """Return a meter with full buckets."""
        states = tuple(BandState(band, band.burst_size or band.rate) for band in bands)
        return cls(meter_id, in_packets, states, now, _filled=now)

    def passes(self, length: int, now: float) -> bool:
        """Count a packet of ``length`` bytes and say whether it goes on.

        Of the bands that it exceeds the one with the highest rate counts it as dropped.
        """
        self.packets += 1
        self.bytes += length
        elapsed = max(0.0, now - self._filled)
        self._filled = max(now, self._filled)
        cost = 1.0 if self.in_packets else length * 8 / 1000
        exceeded: BandState | None = None
        for state in self.bands:
            state.tokens = min(state.capacity, state.tokens + elapsed * state.band.rate)
            if state.tokens >= cost:
                state.tokens -= cost
            elif exceeded is None or state.band.rate > exceeded.band.rate:
                exceeded = state
        if exceeded is None:
            return True
        exceeded.packets += 1
        exceeded.bytes += length
        return False
