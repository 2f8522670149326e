"""Two soft switches, hosts and service nodes at their ports, under the steering: frames in and out.

a ---1  s1  9----8  s2  1--- b          c ---2  s1
      11 12 13: service nodes           nobody is known at s1:3
"""

from collections.abc import Callable, Iterable
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network

from tests.fabric.host_services.soft_line import skeleton

from anabranch.fabric import frames
from anabranch.fabric.host_services import HostSeen, HostServices, Install, Remove, SendPacket
from anabranch.fabric.host_services.settings import Settings, Unicast
from anabranch.fabric.model import Host, Link, LinkInfo, Network, PortInfo, PortRef
from anabranch.fabric.openflow.actions import PORT_ANY, Output
from anabranch.fabric.openflow.codec import Framer, decode, encode
from anabranch.fabric.openflow.messages import FlowMod, FlowRemoved, PacketIn, PacketOut
from anabranch.fabric.openflow.oxm import Match
from anabranch.fabric.pipeline import HOSTS
from anabranch.fabric.reactive import ReactiveForwarder
from anabranch.fabric.softswitch.switch import Emission, SoftSwitch
from anabranch.fabric.steering import Cleared, Filter, ServiceNode, Steering
from anabranch.fabric.steering.rules import STEERING_COOKIE
from anabranch.fabric.steering.steering import SteeringAct
from anabranch.fabric.tables import COOKIE_MASK, REACTIVE_COOKIE, Rule, Tables

A, B, C = (f"02:00:00:00:00:0{n}" for n in (1, 2, 3))
A_IP, B_IP, C_IP = "10.0.0.1", "10.0.0.2", "10.0.0.3"
A_AT, B_AT, C_AT, NOBODY_AT = PortRef("s1", 1), PortRef("s2", 1), PortRef("s1", 2), PortRef("s1", 3)
S12 = Link(PortRef("s1", 9), PortRef("s2", 8))
SERVICE_PORTS = (11, 12, 13)
MAX_VISITS = 64
SIP = Filter("jane", IPv4Network("10.0.0.2/32"), 17, (5060,))


def node(number: int, *filters: Filter, stage: str = "") -> ServiceNode:
    """Return the node at s1's port 11, 12 or 13."""
    return ServiceNode(
        f"n{number}",
        PortRef("s1", 10 + number),
        f"02:00:00:00:01:0{number}",
        IPv4Address(f"10.0.0.10{number}"),
        stage,
        filters,
    )


def network() -> Network:
    hosts = [Host(A, A_AT, A_IP), Host(B, B_AT, B_IP), Host(C, C_AT, C_IP)]
    hosts += [Host(n.mac, n.at, str(n.address)) for n in map(node, (1, 2, 3))]
    ports = [A_AT, C_AT, NOBODY_AT, B_AT, S12.src, S12.dst]
    ports += [PortRef("s1", number) for number in SERVICE_PORTS]
    return Network(
        {"s1": 1, "s2": 2},
        {at: PortInfo(str(at)) for at in ports},
        {S12: LinkInfo(), S12.reverse: LinkInfo()},
        {host.mac: host for host in hosts},
    )


def udp(source: str = A, target: str = B, source_ip: str = A_IP, target_ip: str = B_IP,
        port: int = 5060, payload: bytes = b"x") -> bytes:  # fmt: skip
    return frames.ipv4_udp(target, source, source_ip, target_ip, 4000, port, payload)


Module = Callable[[bytes], Iterable[bytes]]


class SoftNodes:
    """Carries frames until nothing moves any more.

    Attributes:
        modules: what each node makes of a frame, by service port; otherwise it comes back as it is.
        visits: service ports that frames came to, in order, since :meth:`send`.
        asked: packets that came to the controller since :meth:`send`.
        unicast: packets that the host services were asked about.
    """

    def __init__(self, *nodes: ServiceNode, unicast: Unicast = Unicast.ANY) -> None:
        self.steering = Steering()
        self.services = HostServices(Settings(unicast=unicast))
        self.forwarder = ReactiveForwarder()
        self.network = network()
        self.now = 1000.0
        self.modules: dict[int, Module] = {}
        self.visits: list[int] = []
        self.asked: list[PortRef] = []
        self.unicast: list[PortRef] = []
        self._delivered: list[tuple[PortRef, bytes]] = []
        self.switches = {
            name: SoftSwitch(
                dpid, [at.port_no for at in self.network.ports if at.switch == name], now=self.now
            )
            for name, dpid in self.network.switches.items()
        }
        for each in nodes:
            self.steering.registry.put(each, self.now + 3)
        self.settle()

    def put(self, given: ServiceNode) -> None:
        self.steering.registry.put(given, self.now + 3)
        self.settle()

    def withdraw(self, name: str) -> None:
        self.steering.registry.withdraw(name)
        self.settle()

    def settle(self) -> None:
        """Do what nodes and network ask for, tables and entries."""
        self.do(self.steering.revise(self.network))
        known, own = self.services.base_rules(self.network), self.steering.base_rules(self.network)
        meters = self.steering.meters(self.network)
        for name, switch in self.switches.items():
            rules = [*skeleton(name, self.network.links), *known[name], *own.get(name, ())]
            kept = self._reactive(name)
            tables = Tables(frozenset(rules), meters=frozenset(meters.get(name, ())))
            switch.load(tables, self.now)
            for mod in kept:
                switch.flow_mod(mod, self.now)

    def _reactive(self, name: str) -> list:
        rules = [
            Rule(
                table_id, entry.priority, entry.match, entry.instructions[0].actions,
                entry.cookie, idle_timeout=entry.idle_timeout, notify=bool(entry.flags & 1),
            )
            for table_id, table in self.switches[name].tables.items()
            for entry in table
            if entry.cookie & COOKIE_MASK == REACTIVE_COOKIE
        ]  # fmt: skip
        return [rule.add() for rule in rules]

    def entries(self) -> int:
        """Return how many flow entries the switches have that were made on packets."""
        return sum(len(self._reactive(name)) for name in self.switches)

    def send(self, at: PortRef, frame: bytes) -> list[tuple[PortRef, bytes]]:
        """Let a host send a frame; return what leaves to hosts because of it."""
        self._delivered, self.visits, self.asked = [], [], []
        self._carry(at.switch, self.switches[at.switch].process(at.port_no, frame, self.now))
        return self._delivered

    def wait(self, seconds: float) -> None:
        self.now += seconds
        for name, switch in self.switches.items():
            switch.handle_timer(self.now)
            self._hear(name)

    def _carry(self, name: str, emissions: list[Emission]) -> None:
        links = {link.src: link.dst for link in self.network.links}
        for port_no, frame in emissions:
            at = PortRef(name, port_no)
            peer = links.get(at)
            if peer is not None:
                onward = self.switches[peer.switch].process(peer.port_no, frame, self.now)
                self._carry(peer.switch, onward)
            elif port_no in SERVICE_PORTS:
                self.visits.append(port_no)
                assert len(self.visits) <= MAX_VISITS, "it goes round"
                for back in self.modules.get(port_no, lambda one: [one])(frame):
                    self._carry(name, self.switches[name].process(port_no, back, self.now))
            else:
                self._delivered.append((at, frame))
        self._hear(name)

    def _hear(self, name: str) -> None:
        for news in self.switches[name].news():
            if isinstance(news, FlowRemoved):
                self.steering.flow_removed(name, news.match)
            elif isinstance(news, PacketIn):
                at = PortRef(name, news.match.in_port)
                if news.cookie == STEERING_COOKIE:
                    self.asked.append(at)
                    self._steer(at, news.data)
                else:
                    self.unicast.append(at)
                    self._unicast(at, news)

    def _unicast(self, at: PortRef, news: PacketIn) -> None:
        self.forwarder.update(self.network)
        reply = self.forwarder.hot(at.switch, encode(news))
        if reply is None:
            acts = self.services.packet_in(*(at.switch, at.port_no), news.data, self.network, 0.0)
            self.do(acts)
            return
        for message in map(decode, Framer().feed(reply)):
            if isinstance(message, FlowMod):
                self.switches[at.switch].flow_mod(message, self.now)
            elif isinstance(message, PacketOut):
                out = self.switches[at.switch].packet_out(message, self.now)
                self._carry(at.switch, out)

    def _steer(self, at: PortRef, frame: bytes) -> None:
        acts = self.steering.packet_in(at.switch, at.port_no, frame, self.network)
        if acts is None:
            self.do(self.services.sender(at, frame, self.network, self.now))
            acts = self.steering.packet_in(at.switch, at.port_no, frame, self.network)
        self.do(acts or [])

    def do(self, acts: Iterable[SteeringAct]) -> None:
        for act in acts:
            match act:
                case HostSeen(mac, at, ipv4):
                    known = self.network.hosts.get(mac)
                    if known is not None and known.at != at:
                        continue  # the topology asks at its old port first
                    hosts = {**self.network.hosts, mac: Host(mac, at, ipv4)}
                    self.network = replace(self.network, hosts=hosts)
                    self.settle()
                case Install(name, rules):
                    for rule in rules:
                        self.switches[name].flow_mod(rule.add(), self.now)
                case Remove(name, removed):
                    self._remove(name, removed)
                case Cleared(at):
                    self._remove(at.switch, Match(in_port=at.port_no))
                    self._remove(at.switch, Match(), at.port_no)
                case SendPacket(name, port_no, data, in_port):
                    message = PacketOut(data, (Output(port_no),), in_port)
                    self._carry(name, self.switches[name].packet_out(message, self.now))

    def _remove(self, switch: str, match: Match, out_port: int = PORT_ANY) -> None:
        everywhere = Rule(HOSTS, 0, match, (), REACTIVE_COOKIE).delete()
        mod = replace(
            everywhere, command=3, cookie=REACTIVE_COOKIE, cookie_mask=COOKIE_MASK,
            out_port=out_port,
        )  # fmt: skip
        self.switches[switch].flow_mod(mod, self.now)
