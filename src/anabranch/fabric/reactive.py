"""The hot path: a rule for two hosts that start to talk, straight from the packet_in's bytes.

Only where any unicast is carried (``Unicast.ANY``), and only for packets that nothing but the two
addresses decides about; all else takes the ordinary way through the host services. One answer makes
one hop: the packet goes on to the next switch, which asks in its turn. Nothing waits for anything
that way, and the rules need no order.
"""

from anabranch.fabric.errors import ProtocolError
from anabranch.fabric.host_services.paths import Route
from anabranch.fabric.host_services.rules import UNICAST_MISS_COOKIE, UNICAST_PRIORITY
from anabranch.fabric.host_services.services import shortest_route
from anabranch.fabric.model import Network, PortRef
from anabranch.fabric.openflow.actions import NO_BUFFER
from anabranch.fabric.openflow.oxm import ETH_IPV4, Match
from anabranch.fabric.openflow.templates import VERSIONS, flow_add, packet_out, parse_packet_in
from anabranch.fabric.openflow.wire import mac_bytes, mac_text
from anabranch.fabric.pipeline import HOSTS
from anabranch.fabric.tables import REACTIVE_COOKIE

_XID = 0  # sessions count from 1: a refusal of this is nobody's request
_DATA_NEEDED = 14  # bytes of the Ethernet header


class ReactiveForwarder:
    """Knows where each host is and which way leads there.

    Args:
        idle_timeout: seconds without a packet after which a rule ends.
        route: how packets find their way to another switch.

    Attributes:
        set_up: how many rules were made.
    """

    def __init__(self, *, idle_timeout: int = 10, route: Route = shortest_route) -> None:
        self.set_up = 0
        self._route = route
        self._network = Network()
        self._hosts: dict[bytes, PortRef] = {}
        self._inner: frozenset[tuple[str, int]] = frozenset()
        self._ways: dict[tuple[str, str], int | None] = {}
        self._made: dict[tuple[str, bytes], int] = {}
        self._templates = {
            version: (
                flow_add(
                    version,
                    table=HOSTS,
                    priority=UNICAST_PRIORITY,
                    cookie=REACTIVE_COOKIE,
                    idle_timeout=idle_timeout,
                    eth_type=ETH_IPV4,
                ),
                packet_out(version),
            )
            for version in VERSIONS
        }

    def update(self, network: Network) -> list[tuple[str, Match]]:
        """Go by ``network`` from now on; return the rules that must go because of it, by switch.

        These lead the wrong way now, or are for packets of a host that has left its port, or of a
        link that has: whoever is there now could send in others' names. A match stands for every
        reactive rule that is as narrow or narrower.
        """
        left: list[tuple[str, Match]] = []
        if network.links != self._network.links or network.switches != self._network.switches:
            self._ways.clear()
            before, self._inner = (
                self._inner,
                frozenset(
                    (end.switch, end.port_no)
                    for link in network.links
                    for end in (link.src, link.dst)
                ),
            )
            left += [(switch, Match(in_port=port_no)) for switch, port_no in before - self._inner]
        self._network = network
        known = self._hosts
        self._hosts = {mac_bytes(mac): host.at for mac, host in network.hosts.items()}
        left += [
            (at.switch, Match(in_port=at.port_no, eth_src=mac_text(source)))
            for source, at in known.items()
            if self._hosts.get(source) != at
        ]
        stale = [key for key, port_no in self._made.items() if self._way(*key) != port_no]
        for key in stale:
            del self._made[key]
        return left + [(switch, Match(eth_dst=mac_text(target))) for switch, target in stale]

    def hot(self, switch: str, raw: bytes) -> bytes | None:
        """Return what answers the whole PACKET_IN message ``raw``; None: it is not for here.

        The answer is a FLOW_MOD, and a PACKET_OUT unless the switch holds the packet itself. It is
        None for a packet of an unknown host, to an unknown host, from another port than its host's,
        cut short, or caught by any other rule than the one for unicast.
        """
        try:
            _, buffer_id, total_len, _, table, cookie, in_port, at = parse_packet_in(raw)
        except ProtocolError:
            return None
        if cookie != UNICAST_MISS_COOKIE or table != HOSTS:
            return None
        held = buffer_id != NO_BUFFER
        if len(raw) - at < (_DATA_NEEDED if held else max(total_len, _DATA_NEEDED)):
            return None
        target, source = raw[at : at + 6], raw[at + 6 : at + 12]
        home = self._hosts.get(source)
        if home is None:
            return None
        if home.switch == switch:
            if home.port_no != in_port:
                return None
        elif (switch, in_port) not in self._inner:
            return None
        port_no = self._made.get((switch, target))
        if port_no is None:
            port_no = self._way(switch, target)
            if port_no is None:
                return None
            self._made[switch, target] = port_no
        if port_no == in_port:
            return None
        self.set_up += 1
        add, send = self._templates[raw[0]]
        rule = add(_XID, buffer_id, in_port, target, source, port_no)
        return rule if held else rule + send(_XID, in_port, port_no, raw[at:])

    def _way(self, switch: str, target: bytes) -> int | None:
        """Return the port by which ``switch`` reaches a host, None if it does not."""
        at = self._hosts.get(target)
        if at is None:
            return None
        if at.switch == switch:
            return at.port_no
        key = switch, at.switch
        if key not in self._ways:
            known = switch in self._network.switches
            links = self._route(self._network, switch, at.switch) if known else None
            self._ways[key] = links[0].src.port_no if links else None
        return self._ways[key]
