"""Hosts seen elsewhere than they are known: has one moved, or does another use its address?

The old place decides: the host is asked there, and has moved if it stays silent, as TopoGuard does
it (Hong et al., NDSS 2015, section V). The question is the ARP probe of RFC 5227, section 2.1.1, to
the host alone (RFC 1122, section 2.3.2.1). One whose IPv4 address is unknown cannot be asked: then
it is only listened to for as long.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from anabranch.fabric import frames
from anabranch.fabric.bookkeeping import Alarms
from anabranch.fabric.model import PortRef

PROBE_MAC = "0a:41:4e:41:42:52"
"""Who asks; locally administered. Answers to it are heeded although others flood."""
_PROBES, _PROBE_EVERY = 3, 0.25  # an asker for an address asks again after a second
_ASK_AGAIN = 10.0  # seconds for which a refusal holds
_EPISODE = 60.0  # seconds of silence after which a refusal is told again


def probe_frame(mac: str, ipv4: str) -> bytes:
    """Return the frame that asks the host ``mac`` whether it still has ``ipv4``."""
    return frames.arp_probe(PROBE_MAC, mac, ipv4)


@dataclass(slots=True)
class Claim:
    """A host's address as it was seen elsewhere: where, and what is known of that.

    Attributes:
        last: when it was last seen there.
        asked: how many probes were sent.
        refused: when the host spoke at its old place; None: not yet.
        told: that was told.
        silent: the host has answered no probe.
    """

    at: PortRef
    ipv4: str | None
    vm: bool
    last: float
    asked: int = 0
    refused: float | None = None
    told: bool = False
    silent: bool = False


class Moves:
    """One claim for each host at most; times are monotonic seconds."""

    def __init__(self) -> None:
        self._claims: dict[str, Claim] = {}
        self._asking: Alarms[str] = Alarms()

    def asks(self, mac: str, at: PortRef, now: float) -> bool:
        """Say whether ``mac`` at ``at`` is a new question; note that it was seen there."""
        claim = self._claims.get(mac)
        if claim is None:
            return True
        if claim.at == at:
            if now - claim.last > _EPISODE:
                claim.told = False
            claim.last = now
        return claim.refused is not None and now - claim.refused >= _ASK_AGAIN

    def begin(self, mac: str, at: PortRef, ipv4: str | None, now: float, *, vm: bool) -> None:
        """Begin to ask whether ``mac`` has moved to ``at``; probes are due from now on."""
        older = self._claims.get(mac)
        told = older is not None and older.at == at and older.told
        self._claims[mac] = Claim(at, ipv4, vm, now, told=told)
        self._asking.set(mac, now)

    def spoke(self, mac: str, now: float) -> Claim | None:
        """Note that a host spoke where it is known; return the claim this refuses, to be told."""
        claim = self._claims.get(mac)
        if claim is None or mac not in self._asking:
            return None
        self._asking.cancel(mac)
        claim.refused = now
        told, claim.told = claim.told, True
        return None if told else claim

    def end(self, mac: str) -> Claim | None:
        """Forget what is claimed of a host; return it if it was still being asked for."""
        claim = self._claims.pop(mac, None)
        asking = mac in self._asking
        self._asking.cancel(mac)
        return claim if asking else None

    def withdraw(self, port: PortRef) -> None:
        """Forget the claims of a port that has gone."""
        for mac in [mac for mac, claim in self._claims.items() if claim.at == port]:
            self.end(mac)

    def next_timer(self) -> float | None:
        """Return when :meth:`due` has something; None for never."""
        return self._asking.next()

    def due(self, now: float) -> Iterator[tuple[str, Claim]]:
        """Yield whose next probe is due, or who is silent, and what is claimed of each."""
        for mac in self._asking.due(now):
            claim = self._claims[mac]
            claim.silent = claim.asked == _PROBES
            if not claim.silent:
                claim.asked += 1
                self._asking.set(mac, now + _PROBE_EVERY)
            yield mac, claim
