"""The line of ``line.py`` made of soft switches under the services: frames in, frames out."""

from collections.abc import Collection, Mapping
from dataclasses import replace

from tests.fabric.host_services.line import SETTINGS, SWITCHES, network

from anabranch.fabric.host_services import HostSeen, HostServices, Install, Remove, SendPacket
from anabranch.fabric.host_services.settings import Settings
from anabranch.fabric.model import Host, Link, LinkInfo, Network, PortRef
from anabranch.fabric.openflow.actions import PORT_CONTROLLER, Output
from anabranch.fabric.openflow.messages import FlowRemoved, PacketIn, PacketOut
from anabranch.fabric.openflow.oxm import Match
from anabranch.fabric.pipeline import (
    CLASSIFY,
    EDGE,
    FLOWS,
    FROM_LINK,
    HOSTS,
    LINK_PRIORITY,
    LLDP_PRIORITY,
    SERVICES,
)
from anabranch.fabric.softswitch.switch import Emission, SoftSwitch
from anabranch.fabric.tables import COOKIE_MASK, REACTIVE_COOKIE, Rule, Tables


def skeleton(switch: str, links: Collection[Link]) -> list[Rule]:
    """Return what every switch holds without any intent, see ``pipeline.py``."""
    to_controller = (Output(PORT_CONTROLLER, 0xFFFF),)
    rules = [Rule(CLASSIFY, LLDP_PRIORITY, Match(eth_type=0x88CC), to_controller)]
    rules += [
        Rule(table, 0, Match(), (), goto_table=then)
        for table, then in ((CLASSIFY, EDGE), (EDGE, SERVICES), (SERVICES, FLOWS), (FLOWS, HOSTS))
    ]
    from_link = {"metadata": (FROM_LINK, FROM_LINK), "goto_table": SERVICES}
    rules += [
        Rule(CLASSIFY, LINK_PRIORITY, Match(in_port=link.src.port_no), (), **from_link)
        for link in links
        if link.src.switch == switch
    ]
    return rules


class SoftLine:
    """Carries frames until nothing moves any more, and notes what leaves by which edge port.

    Attributes:
        asked: packets that came to the controller, and where.
        lldp: frames of the discovery among them.
    """

    def __init__(self, *hosts: Host, settings: Settings = SETTINGS, known: Network | None = None):
        self.services = HostServices(settings)
        self.network = known or network(*hosts)
        self.now = 1000.0
        self.asked: list[PortRef] = []
        self.lldp: list[PortRef] = []
        self._delivered: dict[PortRef, list[bytes]] = {}
        self.switches = {}
        base, meters = (
            self.services.base_rules(self.network),
            self.services.meters(self.network),
        )
        for name, dpid in SWITCHES.items():
            ports = [at.port_no for at in self.network.ports if at.switch == name]
            self.switches[name] = SoftSwitch(dpid, ports, now=self.now)
            rules = [*skeleton(name, self.network.links), *base[name]]
            tables = Tables(frozenset(rules), meters=frozenset(meters.get(name, ())))
            self.switches[name].load(tables, self.now)

    def send(self, at: PortRef, frame: bytes) -> dict[PortRef, list[bytes]]:
        """Let a host send a frame; return what every host receives because of it."""
        self._delivered = {}
        self._carry(at.switch, self.switches[at.switch].process(at.port_no, frame, self.now))
        return self._delivered

    def wait(self, seconds: float) -> None:
        """Let time pass; the switches' reports on rules that end reach the services."""
        self.now += seconds
        for name, switch in self.switches.items():
            switch.handle_timer(self.now)
            self._hear(name)

    def reactive(self) -> dict[str, set[tuple[Match, int]]]:
        """Return by switch the reactive rules there are: match and port."""
        return {
            name: {
                (entry.match, output.port_no)
                for table in switch.tables.values()
                for entry in table
                if entry.cookie & COOKIE_MASK == REACTIVE_COOKIE
                for instruction in entry.instructions
                for output in instruction.actions
            }
            for name, switch in self.switches.items()
        }

    def change(self, links: Mapping[Link, LinkInfo]) -> None:
        """Let links change, and do what the services want because of it."""
        self.network = replace(self.network, links={**self.network.links, **links})
        self.settle()

    def settle(self) -> None:
        for switch, match in self.services.invalidate(self.network):
            self._remove(switch, match)

    def _carry(self, name: str, emissions: list[Emission]) -> None:
        links = {link.src: link.dst for link in self.network.links}
        for port_no, frame in emissions:
            at = PortRef(name, port_no)
            peer = links.get(at)
            if peer is None:
                self._delivered.setdefault(at, []).append(frame)
            else:
                onward = self.switches[peer.switch].process(peer.port_no, frame, self.now)
                self._carry(peer.switch, onward)
        self._hear(name)

    def _hear(self, name: str) -> None:
        for news in self.switches[name].news():
            if isinstance(news, FlowRemoved):
                self.services.flow_removed(name, news.match)
            elif isinstance(news, PacketIn):
                self._packet_in(PortRef(name, news.match.in_port), news)

    def _packet_in(self, at: PortRef, news: PacketIn) -> None:
        if news.table_id == CLASSIFY:
            self.lldp.append(at)
            return
        self.asked.append(at)
        acts = self.services.packet_in(at.switch, at.port_no, news.data, self.network, self.now)
        for act in acts:
            match act:
                case HostSeen():
                    self._learn(act)
                case Install():
                    for rule in act.rules:
                        self.switches[act.switch].flow_mod(rule.add(), self.now)
                case Remove():
                    self._remove(act.switch, act.match)
                case SendPacket():
                    message = PacketOut(act.data, (Output(act.port_no),), act.in_port)
                    out = self.switches[act.switch].packet_out(message, self.now)
                    self._carry(act.switch, out)

    def _learn(self, seen: HostSeen) -> None:
        known = self.network.hosts.get(seen.mac)
        host = Host(seen.mac, seen.at, seen.ipv4 or (known.ipv4 if known else None))
        if host != known:
            hosts = {**self.network.hosts, seen.mac: host}
            self.network = replace(self.network, hosts=hosts)
            self.settle()

    def _remove(self, switch: str, match: Match) -> None:
        everywhere = Rule(HOSTS, 0, match, (), REACTIVE_COOKIE).delete()
        mod = replace(everywhere, command=3, cookie=REACTIVE_COOKIE, cookie_mask=COOKIE_MASK)
        self.switches[switch].flow_mod(mod, self.now)
