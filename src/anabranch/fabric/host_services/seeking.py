"""Hosts that are sent something and have said nothing yet: they are asked where they are.

After a controller has begun anew, hosts that know each other's MAC addresses go on without any ARP.
The question is the ARP probe of RFC 5227, section 2.1.1, to that MAC address alone: whoever has it
answers, nobody else listens.
"""

from collections import Counter, OrderedDict

from anabranch.fabric import frames
from anabranch.fabric.host_services.acts import Act, SendPacket
from anabranch.fabric.host_services.claims import is_assignable, is_station
from anabranch.fabric.host_services.limits import RateLimit
from anabranch.fabric.host_services.settings import Settings
from anabranch.fabric.host_services.view import View
from anabranch.fabric.model import PortRef
from anabranch.fabric.moves import PROBE_MAC

ASK_AGAIN = 1.0  # seconds between two questions for the same host
_MAX_ASKED = 1024
_ASKS_PER_PORT, _ASKS_BURST = 10.0, 20.0


class Seeker:
    """Asks for hosts; ``counters`` gets ``host_sought``."""

    def __init__(self, settings: Settings, counters: Counter[str]) -> None:
        self._settings = settings
        self._counters = counters
        self._asked: OrderedDict[str, float] = OrderedDict()
        self._limit = RateLimit(_ASKS_PER_PORT, _ASKS_BURST)

    def ask(self, mac: str, ipv4: str, at: PortRef, view: View, now: float) -> list[Act]:
        """Return the question for a host, at every edge port but the one that it is sent from.

        Nothing: it is known, was asked for just now, can be none, or too many are asked for.
        """
        if view.host(mac) is not None or not is_station(mac) or not is_assignable(ipv4):
            return []
        if not self._settings.ask_unknown or now - self._asked.get(mac, -ASK_AGAIN) < ASK_AGAIN:
            return []
        if not self._limit.allow(at, now):
            return []
        self._asked[mac] = now
        self._asked.move_to_end(mac)
        if len(self._asked) > _MAX_ASKED:
            self._asked.popitem(last=False)
        self._counters["host_sought"] += 1
        question = frames.arp_probe(PROBE_MAC, mac, ipv4)
        ports = set(self._settings.edge or view.edge()) - self._settings.outside - {at}
        return [SendPacket(to.switch, to.port_no, question) for to in sorted(ports)]
