"""Soft switches joined by links, without I/O: where does a packet leave the whole network?"""

from collections import deque
from collections.abc import Callable, Iterable, Mapping

from anabranch.fabric.errors import MisuseError
from anabranch.fabric.model import PortRef
from anabranch.fabric.softswitch.switch import Emission, SoftSwitch
from anabranch.fabric.tables import Tables

MAX_HOPS = 64

Process = Callable[[str, int, bytes, float], list[Emission]]


class SoftNetwork:
    """Switches by name, and which port leads to which.

    Args:
        switches: by name.
        links: pairs of ports; each is one link, both directions.

    ``looped`` counts the frames that were dropped after ``MAX_HOPS`` switches.

    Raises:
        MisuseError: a port of a link does not exist or has two links.
    """

    def __init__(
        self, switches: Mapping[str, SoftSwitch], links: Iterable[tuple[PortRef, PortRef]] = ()
    ) -> None:
        self.switches = dict(switches)
        self.looped = 0
        self.peers: dict[PortRef, PortRef] = {}
        for left, right in links:
            for end in (left, right):
                switch = self.switches.get(end.switch)
                if switch is None or end.port_no not in switch.ports or end in self.peers:
                    raise MisuseError(f"no link can end at {end}")
            if left == right:
                raise MisuseError(f"{left} cannot be linked with itself")
            self.peers[left] = right
            self.peers[right] = left

    def load(self, tables: Mapping[str, Tables], now: float) -> None:
        """Replace everything installed at the switches named."""
        for name, wanted in tables.items():
            self.switches[name].load(wanted, now)

    def set_link(self, end: PortRef, up: bool) -> None:
        """Let the link at ``end`` go down or come up, at both of its ends."""
        for ref in (end, self.peers[end]):
            self.switches[ref.switch].set_port(ref.port_no, up)

    def send(
        self, at: PortRef, frame: bytes, now: float, process: Process | None = None
    ) -> list[tuple[PortRef, bytes]]:
        """Let a frame enter by a port; return what leaves by ports without a link, in order.

        ``process`` takes the place of the switches' own: name, in_port, frame and time.
        """
        process = process or self._process
        emitted = process(at.switch, at.port_no, frame, now)
        return self.carry(at.switch, emitted, now, process)

    def carry(
        self, name: str, emitted: list[Emission], now: float, process: Process | None = None
    ) -> list[tuple[PortRef, bytes]]:
        """Carry on what the switch ``name`` emitted, see :meth:`send`."""
        process = process or self._process
        left: list[tuple[PortRef, bytes]] = []
        queue = deque((PortRef(name, out.port_no), out.frame, 1) for out in emitted)
        while queue:
            ref, frame, hops = queue.popleft()
            peer = self.peers.get(ref)
            if peer is None:
                left.append((ref, frame))
            elif hops >= MAX_HOPS:
                self.looped += 1
            else:
                out = process(peer.switch, peer.port_no, frame, now)
                queue.extend((PortRef(peer.switch, e.port_no), e.frame, hops + 1) for e in out)
        return left

    def _process(self, name: str, in_port: int, frame: bytes, now: float) -> list[Emission]:
        return self.switches[name].process(in_port, frame, now)


def graph(edges: Iterable[tuple[int, int]], *, nodes: int = 0, host_ports: int = 1) -> SoftNetwork:
    """Return switches ``s1``, ``s2``, ... with these datapath ids, joined by ``edges``.

    Ports 1 to ``host_ports`` of each have no link; the links' ports follow in the order of edges.
    ``nodes``: how many switches there are at least.
    """
    edges = list(edges)
    numbers = range(1, max([nodes, *(max(edge) for edge in edges)]) + 1)
    ports = {number: list(range(1, host_ports + 1)) for number in numbers}
    links = []
    for edge in edges:
        ends = []
        for number in edge:
            ports[number].append(len(ports[number]) + 1)
            ends.append(PortRef(f"s{number}", ports[number][-1]))
        links.append((ends[0], ends[1]))
    switches = {f"s{number}": SoftSwitch(number, ports[number]) for number in numbers}
    return SoftNetwork(switches, links)


def line(count: int, *, host_ports: int = 1) -> SoftNetwork:
    """Return ``count`` switches in a row."""
    edges = [(number, number + 1) for number in range(1, count)]
    return graph(edges, nodes=count, host_ports=host_ports)


def tree(count: int, fanout: int = 2, *, host_ports: int = 1) -> SoftNetwork:
    """Return ``count`` switches, each but the first below one that has up to ``fanout``."""
    edges = [((number - 2) // fanout + 1, number) for number in range(2, count + 1)]
    return graph(edges, nodes=count, host_ports=host_ports)
