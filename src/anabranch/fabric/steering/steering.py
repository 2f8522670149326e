"""The service nodes at the switches, and the flows that pass them now. No I/O.

Nodes say again and again what their modules claim, and go when they do not, or when their port is
down. Flow entries are made on the first packet of a flow; when nodes, claims or hosts change, those
of flows that now go another way are replaced, without a packet to the controller.
"""

from collections import Counter, OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass

from anabranch.fabric import frames
from anabranch.fabric.host_services.acts import Act, Install, Remove, SendPacket
from anabranch.fabric.host_services.paths import Route
from anabranch.fabric.host_services.services import shortest_route
from anabranch.fabric.host_services.view import View
from anabranch.fabric.model import Network, PortRef
from anabranch.fabric.openflow.actions import Output
from anabranch.fabric.openflow.oxm import Match
from anabranch.fabric.steering import rules
from anabranch.fabric.steering.model import FlowKey, ServiceNode
from anabranch.fabric.steering.planning import chain
from anabranch.fabric.steering.registry import Nodes, Registry
from anabranch.fabric.tables import MeterSpec, Rule

MAX_FLOWS = 8192


@dataclass(frozen=True, slots=True)
class Cleared:
    """Remove every reactive rule for what comes in by a port or goes out of it."""

    at: PortRef


SteeringAct = Act | Cleared


@dataclass(frozen=True, slots=True)
class _Flow:
    """Where a flow comes in and what it is, by which port it leaves, and the entries for that.

    ``by``: the name of the node that it comes back from; None: it comes from a host.
    """

    at: PortRef
    key: FlowKey
    by: str | None
    out_port: int
    rules: tuple[Rule, ...]

    @property
    def place(self) -> tuple[PortRef, Match]:
        return self.at, self.rules[0].match


class Steering:
    """Leads claimed packets through service nodes.

    Beyond 8,192 flows the entries of those made first are removed.

    Attributes:
        registry: who is there; call :meth:`revise` after changing it.
        counters: gets ``steering_asked`` (packets that had no entry), ``steered`` (flows led
            through nodes), ``steering_returned`` (entries for what came back otherwise),
            ``steering_moved`` (flows whose entries were replaced), ``steering_unknown`` (no host
            has the destination), ``steering_plain`` (nobody claims it any more: carried without)
            and ``steering_ignored``.
    """

    def __init__(self, route: Route = shortest_route) -> None:
        self.registry = Registry()
        self.counters: Counter[str] = Counter()
        self._route = route
        self._flows: OrderedDict[tuple[PortRef, Match], _Flow] = OrderedDict()
        self._view = View(Network())
        self._revised: Mapping[str, Nodes] = {}

    def flows_of(self, node: ServiceNode) -> int:
        """Return how many flows are led to a node."""
        return sum(
            any(rule.match.in_port == node.at.port_no for rule in flow.rules[1:])
            for flow in self._flows.values()
            if flow.at.switch == node.at.switch
        )

    # What switches hold ahead of any packet

    def base_rules(self, network: Network) -> Mapping[str, tuple[Rule, ...]]:
        """Return by switch what it holds ahead of any packet."""
        return {
            switch: tuple(rules.base_rules(nodes))
            for switch, nodes in self.registry.reached(network).items()
        }

    def meters(self, network: Network) -> Mapping[str, tuple[MeterSpec, ...]]:
        """Return by switch the meters that these rules refer to."""
        return dict.fromkeys(self.registry.reached(network), (rules.meter(),))

    # Packets

    def packet_in(
        self, switch: str, in_port: int, frame: bytes, network: Network
    ) -> list[Act] | None:
        """Return what to do about a packet that one of the base rules brought here, in this order.

        None: nobody is known to be there who may have sent it.
        """
        key = FlowKey.of(frames.parse(frame))
        if key is None:
            self.counters["steering_ignored"] += 1
            return []
        self._look_at(network)
        at = PortRef(switch, in_port)
        nodes = self.registry.reached(network).get(switch, ())
        by = next((node for node in nodes if node.at == at), None)
        if by is None and not self._may_send(key.eth_src, at):
            return None
        self.counters["steering_asked"] += 1
        out_port = self._way(switch, key.eth_dst)
        if out_port is None:
            self.counters["steering_unknown"] += 1
            return []
        entries = _entries(in_port, key, by, nodes, out_port)
        if not entries:
            self.counters["steering_plain"] += 1
            return [SendPacket(switch, out_port, frame, in_port)]
        flow = _Flow(at, key, by.name if by is not None else None, out_port, entries)
        if self._flows.get(flow.place) != flow:  # else it comes from before the entries did
            self.counters["steering_returned" if by is not None else "steered"] += 1
        acts: list[Act] = [*self._remember(flow), Install(switch, entries)]
        (first,) = entries[0].actions
        assert isinstance(first, Output)
        return [*acts, SendPacket(switch, first.port_no, frame, in_port)]

    def flow_removed(self, switch: str, match: Match) -> None:
        """Take note that a reactive rule has ended: where it was a flow's first, the flow has."""
        if match.in_port is not None:
            self._flows.pop((PortRef(switch, match.in_port), match), None)

    def revise(self, network: Network) -> list[SteeringAct]:
        """Return what leads every flow as it is to go now, nodes and network being what they are.

        An entry is replaced in one step; a flow that nobody claims any more goes its plain way.
        """
        reached = self.registry.reached(network)
        used = {node.at for nodes in reached.values() for node in nodes}
        touched = self.registry.touched
        known = [at for at in touched if at.switch in network.switches]
        for at in known:
            del touched[at]
        # What is there from before goes first; what is led elsewhere, before its entries go.
        acts: list[SteeringAct] = [Cleared(at) for at in known if at in used]
        if self._flows:
            self._look_at(network)
        for place, flow in list(self._flows.items()):
            switch = flow.at.switch
            out_port = self._way(switch, flow.key.eth_dst)
            nodes = reached.get(switch, ())
            if out_port == flow.out_port and nodes == self._revised.get(switch, ()):
                continue
            del self._flows[place]
            acts += self._replaced(flow, nodes, out_port)
        self._revised = reached
        return acts + [Cleared(at) for at in known if at not in used]

    def _replaced(self, flow: _Flow, nodes: Nodes, out_port: int | None) -> list[Act]:
        by = next((node for node in nodes if node.name == flow.by), None)
        entries: tuple[Rule, ...] = ()
        lost = flow.by is not None and (by is None or by.at != flow.at)
        if out_port is not None and not lost:
            entries = _entries(flow.at.port_no, flow.key, by, nodes, out_port)
        if entries and out_port is not None and entries[0].match == flow.rules[0].match:
            self._flows[flow.place] = _Flow(flow.at, flow.key, flow.by, out_port, entries)
        else:
            entries = ()
        if entries == flow.rules:
            return []
        self.counters["steering_moved"] += 1
        switch, kept = flow.at.switch, {rule.key for rule in entries}
        installed: list[Act] = [Install(switch, entries)] if entries else []
        gone = [rule for rule in flow.rules if rule.key not in kept]
        return installed + [Remove(switch, rule.match) for rule in gone]

    def _remember(self, flow: _Flow) -> list[Act]:
        """Return what removes the entries of the flow that is forgotten for it."""
        self._flows.pop(flow.place, None)
        self._flows[flow.place] = flow
        if len(self._flows) <= MAX_FLOWS:
            return []
        _, oldest = self._flows.popitem(last=False)
        return [Remove(oldest.at.switch, rule.match) for rule in oldest.rules]

    def _look_at(self, network: Network) -> None:
        if self._view.network is not network:
            self._view = View(network)

    def _may_send(self, eth_src: str, at: PortRef) -> bool:
        if not self._view.is_edge(at):
            return True  # the switch where it came in has looked
        host = self._view.host(eth_src)
        return host is not None and host.at == at

    def _way(self, switch: str, eth_dst: str) -> int | None:
        """Return the port by which a switch reaches a host; None: it does not."""
        host = self._view.host(eth_dst)
        if host is None:
            return None
        if host.at.switch == switch:
            return host.at.port_no
        links = self._route(self._view.network, switch, host.at.switch)
        return links[0].src.port_no if links else None


def _entries(
    in_port: int, key: FlowKey, by: ServiceNode | None, nodes: Nodes, out_port: int
) -> tuple[Rule, ...]:
    """Return the entries of a flow; none: it comes from a host, and no node is to have it."""
    if key.signalling:
        return rules.signalled(in_port, key, out_port) if by is not None else ()
    passed = chain(nodes, key, by)
    claimed = any(each.covers(key) for node in nodes for each in node.filters)
    if passed or (by is not None and claimed):
        return rules.steered(in_port, key, passed, out_port)
    return rules.returned(in_port, key, out_port) if by is not None else ()
