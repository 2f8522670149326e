"""Small networks, drawn at random, and what becomes of packets in them by soft switches."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from hypothesis import strategies as st

from anabranch.fabric import frames
from anabranch.fabric.intents import Egress, Flow, Intents, Service
from anabranch.fabric.model import Link, LinkInfo, Network, PortRef
from anabranch.fabric.openflow.oxm import Match
from anabranch.fabric.softswitch.network import SoftNetwork
from anabranch.fabric.softswitch.switch import Emission, SoftSwitch
from anabranch.fabric.tables import Tables

EDGE_PORTS = range(1, 4)
SERVICE_PORTS = range(4, 8)
FIRST_LINK_PORT = 11
SENDER = "02:00:00:00:aa:01"
GROUP_MAC = "01:00:5e:01:01:01"
MACS = ("02:00:00:00:00:01", "02:00:00:00:00:02")

Copies = Counter[tuple[PortRef, bytes]]


def both(*links: Link, info: LinkInfo | None = None) -> dict[Link, LinkInfo]:
    """Return both directions of links."""
    return {way: info or LinkInfo() for link in links for way in (link, link.reverse)}


def network_of(count: int, edges: Iterable[tuple[int, int, bool]]) -> Network:
    """Return switches ``s0`` and so on, joined by edges (their ends, redundant)."""
    ports = dict.fromkeys(range(count), FIRST_LINK_PORT)
    links: dict[Link, LinkInfo] = {}
    for left, right, redundant in edges:
        link = Link(PortRef(f"s{left}", ports[left]), PortRef(f"s{right}", ports[right]))
        ports[left] += 1
        ports[right] += 1
        links |= both(link, info=LinkInfo(redundant=redundant))
    return Network(switches={f"s{number}": number + 1 for number in range(count)}, links=links)


def without(network: Network, *lost: Link) -> Network:
    """Return the network with both directions of links down."""
    return _with_state(network, lost, up=False, last_resort=False)


def doubted(network: Network, *doubtful: Link) -> Network:
    """Return the network with both directions of links down, but for a last resort."""
    return _with_state(network, doubtful, up=False, last_resort=True)


def _with_state(network: Network, links: Iterable[Link], **state: bool) -> Network:
    ways = [way for link in links for way in (link, link.reverse)]
    changed = {way: replace(network.links[way], **state) for way in ways}
    return replace(network, links={**network.links, **changed})


def some_of(network: Network) -> st.SearchStrategy[set[Link]]:
    """Draw links of a network, each in one direction or in both."""
    return st.sets(st.sampled_from(sorted(network.links))) if network.links else st.just(set())


@st.composite
def networks(draw: st.DrawFn, max_switches: int = 6, max_edges: int = 10) -> Network:
    count = draw(st.integers(1, max_switches))
    if count == 1:
        return network_of(1, [])
    pairs = st.tuples(st.integers(0, count - 1), st.integers(0, count - 1), st.booleans())
    edges = draw(st.lists(pairs.filter(lambda edge: edge[0] != edge[1]), max_size=max_edges))
    ring = draw(st.booleans())
    if ring:
        edges += [(number, (number + 1) % count, False) for number in range(count)]
    network = network_of(count, edges)
    return doubted(network, *draw(st.just(set()) | some_of(network)))


def match_of(number: int) -> Match:
    return Match(eth_type=0x0800, ip_proto=17, ipv4_dst=f"239.1.1.{number + 1}", udp_dst=5004)


def frame_of(number: int, payload: bytes = b"picture") -> bytes:
    return frames.ipv4_udp(
        GROUP_MAC, SENDER, "10.0.0.1", f"239.1.1.{number + 1}", 4000, 5004, payload
    )


@st.composite
def flow_of(draw: st.DrawFn, network: Network, number: int, *, services: bool = True) -> Flow:
    """Draw a flow that enters by port ``number`` + 1 of some switch."""
    switches = st.sampled_from(sorted(network.switches))
    ingress = PortRef(draw(switches), EDGE_PORTS[number % len(EDGE_PORTS)])
    egresses = st.builds(
        Egress,
        st.builds(PortRef, switches, st.sampled_from(EDGE_PORTS)),
        eth_dst=st.none() | st.sampled_from(MACS),
        ipv4_dst=st.none() | st.sampled_from(("10.0.0.7", "10.0.0.8")),
        udp_dst=st.none() | st.just(6000),
        eth_src=st.none() | st.sampled_from(MACS),
        ipv4_src=st.none() | st.just("10.0.0.254"),
    )
    through = draw(
        st.lists(
            st.builds(
                lambda at, to, back: Service(PortRef(at, to), PortRef(at, back)),
                switches,
                st.sampled_from(SERVICE_PORTS),
                st.sampled_from(SERVICE_PORTS),
            ),
            max_size=2 if services else 0,
            unique_by=(lambda service: service.back, lambda service: service.to),
        )
    )
    return Flow(
        f"flow{number}",
        match_of(number),
        ingress,
        draw(st.frozensets(egresses, max_size=12)),
        tuple(through),
        protected=draw(st.booleans()) or draw(st.booleans()),
        rate_kbps=draw(st.none() | st.just(100_000)),
        priority=draw(st.sampled_from((100, 101))),
        sort=draw(st.frozensets(switches, max_size=2)),
    )


@st.composite
def intents_of(draw: st.DrawFn, network: Network, *, services: bool = True) -> Intents:
    numbers = draw(st.sets(st.integers(0, 5), max_size=3))
    return Intents(
        tuple(draw(flow_of(network, number, services=services)) for number in sorted(numbers))
    )


def wanted_copies(flow: Flow, frame: bytes, missing: Iterable[Egress] = ()) -> Copies:
    """Return what should leave the fabric for one frame."""
    copies: Copies = Counter()
    for egress in flow.egress - frozenset(missing):
        copy = frame
        for name in ("eth_dst", "eth_src", "ipv4_dst", "ipv4_src", "udp_dst"):
            value = getattr(egress, name)
            if value is not None:
                copy = frames.rewrite(copy, name, value)
        copies[egress.at, copy] += 1
    return copies


@dataclass
class World:
    """Soft switches for a network. ``carried`` counts what each link carried, by its bytes."""

    network: Network

    def __post_init__(self) -> None:
        ports = {name: {*EDGE_PORTS, *SERVICE_PORTS} for name in self.network.switches}
        pairs = set()
        for link in self.network.links:
            ports[link.src.switch].add(link.src.port_no)
            pairs.add((min(link.src, link.dst), max(link.src, link.dst)))
        switches = {
            name: SoftSwitch(self.network.switches[name], sorted(numbers))
            for name, numbers in ports.items()
        }
        self.soft = SoftNetwork(switches, sorted(pairs))
        self.carried: Counter[tuple[PortRef, bytes]] = Counter()

    def load(self, tables: Mapping[str, Tables]) -> None:
        self.soft.load(tables, 0.0)

    def send(self, at: PortRef, frame: bytes) -> Copies:
        """Return what leaves by ports without link."""
        return Counter(self.soft.send(at, frame, 0.0, self._process))

    def _process(self, name: str, in_port: int, frame: bytes, now: float) -> list[Emission]:
        out = self.soft.switches[name].process(in_port, frame, now)
        for emission in out:
            if PortRef(name, emission.port_no) in self.soft.peers:
                self.carried[PortRef(name, emission.port_no), emission.frame] += 1
        return out

    def deliver(self, flow: Flow, frame: bytes) -> Copies:
        """Send a frame of a flow; its services send back what they get. Return what leaves."""
        self.carried.clear()
        copies = self.send(flow.ingress, frame)
        for service in flow.through:
            if copies != Counter({(service.to, frame): 1}):
                return copies
            copies = self.send(service.back, frame)
        return copies
