"""The way of each flow: one tree for each of its segments, from which its rules follow.

A flow without services has one segment. Each service ends one and begins the next: the first goes
from the ingress to where the first service is, the last from the last service to the egresses. In a
segment each switch is reached by one link, so that each link carries one copy.

Segments of one flow look alike. Where two of them come to the same switch by links, the later one
wears a VLAN tag of its own on links.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from math import inf

import networkx as nx

from anabranch.fabric.graph import Graph, link_order, usable, widest_arrivals
from anabranch.fabric.intents import Egress, Flow, Policy
from anabranch.fabric.model import Link, Network, PortRef
from anabranch.fabric.openflow.actions import PORT_LOCAL


@dataclass(frozen=True, slots=True)
class Segment:
    """One part of a flow's way.

    Attributes:
        root: the switch where it begins.
        entry: the port of that switch by which packets come: the ingress or a service's return.
        arrivals: switch to the link by which the flow reaches it.
        children: switch to the links by which the flow leaves it for others, in order.
        tagged: it wears a VLAN tag on links.
    """

    root: str
    entry: int
    arrivals: Mapping[str, Link]
    children: Mapping[str, tuple[Link, ...]] = field(compare=False)
    tagged: bool = False

    @property
    def switches(self) -> Iterable[str]:
        yield self.root
        yield from self.arrivals


@dataclass(frozen=True)
class FlowTree:
    """The way of a flow now.

    Attributes:
        segments: in the order of the way; none if nothing can be carried.
        unreachable: egresses that no way leads to, or whose port is none; see
            :meth:`Routes.admits`.
    """

    segments: tuple[Segment, ...] = ()
    unreachable: frozenset[Egress] = frozenset()

    @cached_property
    def links(self) -> tuple[Link, ...]:
        """Every link that carries the flow, once, in order."""
        found = {link for segment in self.segments for link in segment.arrivals.values()}
        return tuple(sorted(found, key=link_order))

    @cached_property
    def switches(self) -> frozenset[str]:
        """Every switch that has a rule for the flow."""
        return frozenset(switch for segment in self.segments for switch in segment.switches)


class Routes:
    """Finds the trees of flows, and knows which flows a change of the network concerns."""

    def __init__(self) -> None:
        self.graph = Graph({})
        self._network = Network()
        self._distances: dict[str, Mapping[str, int]] = {}
        self._arrivals: dict[str, dict[str, Link]] = {}
        self._widest: dict[str, dict[str, Link]] = {}
        self._capacities: dict[Link, float | None] = {}
        self._forgotten: set[str] = set()  # sources whose distances were known, and are no longer
        self.switches: frozenset[str] = frozenset()
        self._inner: frozenset[PortRef] = frozenset()  # the ends of every known link
        self._told: frozenset[str] = frozenset()  # switches whose ports are known

    def admits(self, port: PortRef) -> bool:
        """Say whether packets may be let in, or out of the fabric, by a port.

        Not by the end of a link, be it up or not: a copy that leaves there comes back into the
        fabric, for ever. Not by one that its switch does not have, as far as its ports are known.
        """
        if port in self._inner:
            return False
        if port.port_no == PORT_LOCAL or port.switch not in self._told:
            return True
        return port in self._network.ports

    def _take_ports(self, network: Network) -> bool:
        """Note which ports there are; say whether other ones may be admitted than before."""
        before = self._network
        new = False
        if network.links is not before.links and network.links.keys() != before.links.keys():
            self._inner = frozenset(end for link in network.links for end in (link.src, link.dst))
            new = True
        if network.ports is not before.ports and network.ports.keys() != before.ports.keys():
            self._told = frozenset(port.switch for port in network.ports)
            new = True
        return new

    def change(self, network: Network) -> "Change":
        """Take a new network; return what is different in it."""
        if network.links is not self._network.links or (
            network.switches is not self._network.switches
        ):
            ends = {end.switch for link in network.links for end in (link.src, link.dst)}
            self.switches = frozenset(ends | network.switches.keys())
        ports = self._take_ports(network)
        self._widest.clear()  # loads count when a tree is made, and move none that exists
        if network.links is self._network.links:
            self._network = network
            return Change(ports=ports)
        self._network = network
        costs, before = usable(network), self.graph.costs
        different = costs.items() ^ before.items()
        removed = {link for link, _ in different if link in before}
        added = {link: costs[link] for link, _ in different if link in costs}
        capacities = {link: network.links[link].capacity_mbit for link in costs}
        rewiden = capacities != self._capacities
        self._capacities = capacities
        if not different:
            return Change(widths=rewiden, ports=ports)
        self.graph.change(removed, added)
        better = self._forget(removed, added)
        return Change(frozenset(removed), added, better, widths=True, ports=ports)

    def _forget(self, removed: set[Link], added: Mapping[Link, int]) -> frozenset[str]:
        """Drop what is no longer so; return sources whose trees may be better than before."""
        better = set(self._forgotten) if added else set()
        for source, distances in list(self._distances.items()):
            near = any(
                distances.get(link.src.switch, inf) + cost <= distances.get(link.dst.switch, inf)
                and link.src.switch in distances
                for link, cost in added.items()
            )
            if near:
                better.add(source)
            if near or not self._still_true(distances, removed):
                del self._distances[source]
                self._arrivals.pop(source, None)
                self._forgotten.add(source)
            elif source in self._arrivals:
                arrivals = self._arrivals[source]
                for link in removed:
                    if arrivals.get(link.dst.switch) == link:
                        del arrivals[link.dst.switch]
        return frozenset(better)

    def _still_true(self, distances: Mapping[str, int], removed: set[Link]) -> bool:
        # If each switch still has a link from one that is nearer by just that link, then all
        # distances are what they were.
        for link in removed:
            here = distances.get(link.dst.switch)
            if not here:  # not reached, or the source
                continue
            if not any(
                distances.get(other.src.switch, inf) + self.graph.costs[other] == here
                for other in self.graph.into(link.dst.switch)
            ):
                return False
        return True

    def tree(self, flow: Flow) -> FlowTree:
        """Return the tree of a flow: by shortest paths a pure function of flow and network."""
        if not flow.egress and not flow.sort:
            return FlowTree()
        stops = [(service.to.switch, service.back) for service in flow.through]
        segments: list[Segment] = []
        entry = flow.ingress
        passed = [end for service in flow.through for end in (service.to, service.back)]
        if entry.switch not in self.switches or not all(map(self.admits, (entry, *passed))):
            return FlowTree((), flow.egress)
        seen: set[str] = set()
        for target, back in stops:
            segment, missing = self._segment(flow, entry.switch, entry.port_no, {target}, seen)
            if missing:
                return FlowTree((), flow.egress)
            segments.append(segment)
            entry = back
        shut = frozenset(egress for egress in flow.egress if not self.admits(egress.at))
        targets = {egress.at.switch for egress in flow.egress - shut} | flow.sort
        segment, missing = self._segment(flow, entry.switch, entry.port_no, targets, seen)
        unreachable = shut | {egress for egress in flow.egress if egress.at.switch in missing}
        if len(missing) == len(targets):
            return FlowTree((), flow.egress)
        segments.append(segment)
        # A tag cannot stand beside the flow's own: it would hide what the flow is known by.
        if flow.match.vlan_vid and any(segment.tagged for segment in segments):
            return FlowTree((), flow.egress)
        return FlowTree(tuple(segments), unreachable)

    def _segment(
        self, flow: Flow, root: str, entry: int, targets: set[str], seen: set[str]
    ) -> tuple[Segment, set[str]]:
        arrivals: dict[str, Link] = {}
        missing = set()
        for target in targets:
            if not self._climb(flow.policy, root, target, arrivals):
                missing.add(target)
        tagged = not seen.isdisjoint(arrivals)
        if not tagged:
            seen.update(arrivals)
        children: dict[str, tuple[Link, ...]] = {}
        for link in arrivals.values():
            others = children.get(link.src.switch)
            children[link.src.switch] = (
                (link,) if others is None else tuple(sorted((*others, link), key=link_order))
            )
        return Segment(root, entry, arrivals, children, tagged), missing

    def _climb(self, policy: Policy, root: str, target: str, found: dict[str, Link]) -> bool:
        """Add the way from ``target`` up to what is found already, or say that there is none."""
        if policy is Policy.WIDEST:
            known, distances = self._widest_from(root), None
            if target != root and target not in known:
                return False
        else:
            known, distances = self._arrivals.setdefault(root, {}), self._distances_from(root)
            if target not in distances:
                return False
        node = target
        while node != root and node not in found:
            link = known.get(node)
            if link is None:
                assert distances is not None
                link = known[node] = self.graph.last_link(distances, node)
            found[node] = link
            node = link.src.switch
        return True

    def _widest_from(self, root: str) -> dict[str, Link]:
        known = self._widest.get(root)
        if known is None:
            known = widest_arrivals(self.graph, self._network.links, root)
            self._widest[root] = known
        return known

    def _distances_from(self, root: str) -> Mapping[str, int]:
        distances = self._distances.get(root)
        if distances is None:
            distances = self._distances[root] = self.graph.distances(root)
            self._forgotten.discard(root)
        return distances

    def keep(self, sources: Iterable[str]) -> None:
        """Forget what is known of all other sources."""
        used = set(sources)
        self._forgotten &= used
        for source in self._distances.keys() - used:
            del self._distances[source]
            self._arrivals.pop(source, None)


@dataclass(frozen=True, slots=True)
class Change:
    """What a new network brings.

    Attributes:
        removed: links that can no longer be used, or not as before.
        added: links that can be used now, with their costs.
        better: sources from which the shortest paths may be others because of ``added``.
        widths: widest paths may be others.
        ports: :meth:`Routes.admits` may have another answer for some port.
    """

    removed: frozenset[Link] = frozenset()
    added: Mapping[Link, int] = field(default_factory=dict)
    better: frozenset[str] = frozenset()
    widths: bool = False
    ports: bool = False

    def __bool__(self) -> bool:
        return bool(self.removed or self.added)


def downstream(trees: Iterable[FlowTree]) -> tuple[str, ...]:
    """Order the switches of trees so that links lead onward, where all trees agree on it."""
    graph: nx.DiGraph[str] = nx.DiGraph()
    switches: set[str] = set()
    for tree in trees:
        switches |= tree.switches
        graph.add_edges_from((link.src.switch, link.dst.switch) for link in tree.links)
    graph.add_nodes_from(sorted(switches))
    knots = nx.condensation(graph)
    return tuple(
        switch
        for knot in nx.topological_sort(knots)
        for switch in sorted(knots.nodes[knot]["members"])
    )
