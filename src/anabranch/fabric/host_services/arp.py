"""ARP without broadcasts: questions are answered where they are asked (RFC 826, 5227)."""

from collections import Counter, OrderedDict
from dataclasses import dataclass, field

from anabranch.fabric import frames
from anabranch.fabric.frames import ARP_REPLY, ARP_REQUEST, Headers
from anabranch.fabric.host_services.acts import Act, SendPacket
from anabranch.fabric.host_services.claims import Claims, is_assignable
from anabranch.fabric.host_services.limits import RateLimit
from anabranch.fabric.host_services.settings import Settings
from anabranch.fabric.host_services.view import View
from anabranch.fabric.model import PortRef
from anabranch.fabric.moves import PROBE_MAC

ASK_AGAIN = 1.0  # seconds between two searches for the same address
PENDING = 3.0  # seconds for which an asker waits for the answer
_MAX_PENDING = 1024
_MAX_ASKERS = 64
_ASKS_PER_PORT, _ASKS_BURST = 10.0, 20.0
_NOBODY = "0.0.0.0"


@dataclass(slots=True)
class _Search:
    """A search for an address: when it was last asked for, and who waits (by MAC address)."""

    asked: float
    askers: dict[str, tuple[str, PortRef]] = field(default_factory=dict)


class ArpResponder:
    """Answers for hosts that are known and searches for others at the edge.

    ``counters`` gets ``arp_answered``, ``arp_asked``, ``arp_refused`` (a claim to another's
    address), ``arp_moving`` (it may have moved), ``arp_unknown`` (not searched for),
    ``arp_limited`` and ``arp_malformed``.
    """

    def __init__(self, settings: Settings, claims: Claims, counters: Counter[str]) -> None:
        self._settings = settings
        self._claims = claims
        self._counters = counters
        self._searches: OrderedDict[str, _Search] = OrderedDict()
        self._limit = RateLimit(_ASKS_PER_PORT, _ASKS_BURST)

    def packet(self, at: PortRef, headers: Headers, view: View, now: float) -> list[Act]:
        """Take an ARP packet that came in at the edge port ``at``."""
        sha, spa, tpa = headers.mac("arp_sha"), headers.ipv4("arp_spa"), headers.ipv4("arp_tpa")
        op = headers.get("arp_op")
        if sha is None or spa is None or tpa is None or op not in (ARP_REQUEST, ARP_REPLY):
            self._counters["arp_malformed"] += 1
            return []
        if self._is_own(sha, tpa, at, now):
            return []
        ipv4 = None if spa == _NOBODY else spa
        honest = sha == headers.mac("eth_src")
        if honest and self._claims.is_elsewhere(sha, at, view):
            self._counters["arp_moving"] += 1
            return [self._claims.seen(sha, at, ipv4)]
        if not honest or not self._claims.accept(sha, at, ipv4, view, now):
            self._counters["arp_refused"] += 1
            return []
        acts: list[Act] = [self._claims.seen(sha, at, ipv4)]
        if ipv4 is not None:
            acts += self._found(sha, ipv4, now)
        if op == ARP_REQUEST and tpa != spa:
            acts += self._answer(sha, spa, tpa, at, view, now)
        return acts

    def _is_own(self, sha: str, tpa: str, at: PortRef, now: float) -> bool:
        """Say whether a question of ours has come back by a link that is not known yet."""
        if sha == PROBE_MAC:
            return True
        search = self._searches.get(tpa)
        if search is None or now - search.asked >= ASK_AGAIN:
            return False
        return sha in search.askers and search.askers[sha][1] != at

    def _answer(
        self, sha: str, spa: str, tpa: str, at: PortRef, view: View, now: float
    ) -> list[Act]:
        target = self._claims.holder(tpa, view)
        if target is None:
            return self._ask(sha, spa, tpa, at, view, now)
        if target.mac == sha:
            return []
        self._counters["arp_answered"] += 1
        reply = frames.arp_reply(target.mac, tpa, sha, spa)
        return [SendPacket(at.switch, at.port_no, reply)]

    def _ask(self, sha: str, spa: str, tpa: str, at: PortRef, view: View, now: float) -> list[Act]:
        """Send the question out of every other edge port, unless that was done just now."""
        if not self._settings.ask_unknown or not is_assignable(tpa):
            self._counters["arp_unknown"] += 1
            return []
        search = self._searches.get(tpa)
        fresh = search is not None and now - search.asked < ASK_AGAIN
        if not fresh and not self._limit.allow(at, now):
            self._counters["arp_limited"] += 1
            return []
        if search is None:
            search = self._searches[tpa] = _Search(now)
            if len(self._searches) > _MAX_PENDING:
                self._searches.popitem(last=False)
        if sha in search.askers or len(search.askers) < _MAX_ASKERS:
            search.askers[sha] = (spa, at)
        if fresh:
            return []
        search.asked = now
        self._searches.move_to_end(tpa)
        self._counters["arp_asked"] += 1
        request = frames.arp_request(sha, spa, tpa)
        ports = set(self._settings.edge or view.edge()) - self._settings.outside - {at}
        return [SendPacket(to.switch, to.port_no, request) for to in sorted(ports)]

    def _found(self, mac: str, ipv4: str, now: float) -> list[Act]:
        """Answer those who wait for ``ipv4``."""
        search = self._searches.pop(ipv4, None)
        if search is None or now - search.asked > PENDING:
            return []
        self._counters["arp_answered"] += len(search.askers)
        return [
            SendPacket(at.switch, at.port_no, frames.arp_reply(mac, ipv4, asker, address))
            for asker, (address, at) in search.askers.items()
            if asker != mac
        ]
