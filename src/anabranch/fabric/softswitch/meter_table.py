"""Meters: token buckets that drop what exceeds a rate (OpenFlow 1.3.5, section 5.7)."""

from dataclasses import dataclass, field

from anabranch.fabric.openflow.messages import METER_ALL, MeterBand, MeterCommand, MeterMod
from anabranch.fabric.openflow.refusals import Refusal
from anabranch.fabric.softswitch.refusals import RefusedError

_MAX_METER = 0xFFFF0000


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


class MeterTable(dict[int, MeterEntry]):
    """The meters of a switch by number."""

    def modify(self, mod: MeterMod, now: float) -> set[int]:
        """Do what a meter_mod says; return the meters that are gone.

        Raises:
            RefusedError: it cannot be done; nothing has changed.
        """
        if mod.command == MeterCommand.DELETE:
            gone = set(self) if mod.meter_id == METER_ALL else self.keys() & {mod.meter_id}
            for meter_id in gone:
                del self[meter_id]
            return gone
        before = self.get(mod.meter_id)
        if not 0 < mod.meter_id <= _MAX_METER:
            raise RefusedError(Refusal.INVALID_METER)
        if mod.command == MeterCommand.ADD and before is not None:
            raise RefusedError(Refusal.METER_EXISTS)
        if mod.command == MeterCommand.MODIFY and before is None:
            raise RefusedError(Refusal.UNKNOWN_METER)
        made = MeterEntry.of(mod.meter_id, mod.bands, mod.packets, now)
        if before is not None:
            made.created, made.packets, made.bytes = before.created, before.packets, before.bytes
        self[mod.meter_id] = made
        return set()
