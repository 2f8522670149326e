"""The network as its switches report it, and what is done at once about what they report.

Joins controller, topology and host services: each event of a switch goes to whom it concerns, and
what these say in answer goes back.
"""

import asyncio
import secrets
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import TypeVar

import structlog

from anabranch.core.events import Event
from anabranch.fabric.controller import Controller
from anabranch.fabric.errors import DisconnectedError, FabricError
from anabranch.fabric.host_services import (
    HostSeen,
    HostServices,
    Install,
    Remove,
    SendPacket,
    Unicast,
)
from anabranch.fabric.model import Link, LinkInfo, Network, PortRef
from anabranch.fabric.openflow.actions import Output
from anabranch.fabric.openflow.messages import FlowRemoved, PacketIn
from anabranch.fabric.openflow.oxm import Match
from anabranch.fabric.options import Options
from anabranch.fabric.reactive import ReactiveForwarder
from anabranch.fabric.steering import Cleared, ServiceNode, Steering
from anabranch.fabric.steering.rules import STEERING_COOKIE
from anabranch.fabric.steering.steering import SteeringAct
from anabranch.fabric.switches import SwitchState
from anabranch.fabric.tables import MeterSpec, Rule
from anabranch.fabric.topology import Topology

_T = TypeVar("_T")
_LIVE = 4  # OFPPS_LIVE
_LATE_S = 0.5
_log = structlog.get_logger("anabranch.fabric")


class Observer:
    """Keeps the snapshot of the network, and answers hosts.

    Args:
        publish: gets every event of the network; must not block.
        on_network: called when the network is another than before; must not block.
        on_tapped: gets what a tap without a port catches; see :class:`Fabric`.

    Attributes:
        controller: the switches.
        taps: cookie to name of the taps that there are.
    """

    def __init__(
        self,
        options: Options,
        publish: Callable[[Event], None],
        on_network: Callable[[], None],
        on_tapped: Callable[[str, PortRef, bytes], None] | None,
    ) -> None:
        self._options = options
        self._publish = publish
        self._on_network = on_network
        self._on_tapped = on_tapped
        self._hosts = HostServices(options.hosts) if options.hosts is not None else None
        self._steering = Steering()
        self._steering_timer: asyncio.TimerHandle | None = None
        hot = None
        self._reactive: ReactiveForwarder | None = None
        if options.hosts is not None and options.hosts.unicast is Unicast.ANY:
            self._reactive = ReactiveForwarder(idle_timeout=options.hosts.idle_timeout)
            hot = self._reactive.hot
        self.controller = Controller(
            publish,
            names=options.names,
            adopt=(lambda dpid: f"{dpid:016x}") if options.adopt else None,
            on_packet_in=self._packet_in,
            on_flow_removed=self._flow_removed,
            on_switch=self._switch_changed,
            hot=hot,
        )
        self.taps: Mapping[int, str] = {}
        self._topology = Topology(key=secrets.token_bytes(32), edge=options.edge)
        self._topology.declare(options.links)
        self._wired: Mapping[Link, LinkInfo] = options.links
        self._declared: Mapping[Link, LinkInfo] = {}
        self._present: dict[str, SwitchState] = {}
        self._unhealthy: set[PortRef] = set()
        self._seen: Network | None = None
        self._timer: asyncio.TimerHandle | None = None

    async def close(self) -> None:
        """Let go of the switches; they keep their rules."""
        for timer in (self._timer, self._steering_timer):
            if timer is not None:
                timer.cancel()
        await self.controller.close()

    # --- what is known ------------------------------------------------------------------------

    def network(self) -> Network:
        """Return what is known of the network now."""
        return self._topology.snapshot()

    def present(self) -> frozenset[str]:
        """Return the switches that are connected."""
        return frozenset(name for name, state in self._present.items() if state.connected)

    def counters(self) -> Mapping[str, int]:
        """Return what was done for hosts and what was contained, by name."""
        found = Counter(self._topology.counts)
        found.update(self._steering.counters)
        if self._hosts is not None:
            found.update(self._hosts.counters)
        if self._reactive is not None:
            found["unicast_hot"] += self._reactive.set_up
        return found

    def host_rules(self) -> Mapping[str, tuple[Rule, ...]]:
        """Return by switch what the services for hosts and the service nodes need there."""
        network = self.network()
        known = self._hosts.base_rules(network) if self._hosts is not None else {}
        return _joined(known, self._steering.base_rules(network))

    def host_meters(self, network: Network) -> Mapping[str, tuple[MeterSpec, ...]]:
        """Return by switch the meters that limit hosts' packets to the controller."""
        known = self._hosts.meters(network) if self._hosts is not None else {}
        return _joined(known, self._steering.meters(network))

    @property
    def declared(self) -> Mapping[Link, LinkInfo]:
        """The links that were declared beside the wired ones."""
        return self._declared

    def declare(self, links: Mapping[Link, LinkInfo]) -> None:
        """Take these links as known, beside the wired ones. See :meth:`Fabric.declare`."""
        self._declare(self._wired, links)

    def wire(self, links: Mapping[Link, LinkInfo]) -> None:
        """Take these links as those that are wired. See :meth:`Fabric.wire`."""
        self._declare(links, self._declared)

    def _declare(self, wired: Mapping[Link, LinkInfo], declared: Mapping[Link, LinkInfo]) -> None:
        kept: dict[Link, LinkInfo] = {}
        for link, info in wired.items():
            if said := declared.get(link) or declared.get(link.reverse):
                capacity = info.capacity_mbit if said.capacity_mbit is None else said.capacity_mbit
                info = replace(info, capacity_mbit=capacity, redundant=said.redundant)
            kept[link] = info
        others = {link: info for link, info in declared.items() if link.reverse not in kept}
        self._topology.declare({**others, **kept})
        self._wired, self._declared = wired, declared
        self.look()

    async def settle(self) -> None:
        """Wait until the network has been seen whole, or as long as that may take."""
        loop = asyncio.get_running_loop()
        end = loop.time() + self._options.settle_s
        expected = frozenset(self._options.names.values())
        while loop.time() < end:
            if expected and expected <= self.present() and not self._options.discover:
                return
            await asyncio.sleep(0.01)

    async def count(self) -> None:
        """Read the port counters again and again: the load of the links."""
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(self._options.counters_s)
            for name in self.present():
                with suppress(FabricError):
                    stats = await self.controller.readings.ports(name)
                    self._topology.counters(name, stats, loop.time())

    # --- what switches report -----------------------------------------------------------------

    def _switch_changed(self, name: str, state: SwitchState | None) -> None:
        now = asyncio.get_running_loop().time()
        before = self._present.get(name)
        if state is None or not state.connected:
            if before is not None:
                self._topology.switch_lost(name, now)
                del self._present[name]
        elif before is None or before.dpid != state.dpid:
            assert state.dpid is not None
            # Health first: a link whose ends are still to find each other has not gone down.
            self._watch_health(name, state, now)
            self._topology.switch_up(name, state.dpid, state.ports, now)
            self._present[name] = state
        else:
            for port_no in before.ports.keys() | state.ports.keys():
                if before.ports.get(port_no) != state.ports.get(port_no):
                    self._topology.port_changed(name, state.ports.get(port_no), port_no, now)
            self._present[name] = state
            self._watch_health(name, state, now)
        self.look()

    def _watch_health(self, name: str, state: SwitchState, now: float) -> None:
        """Take a port that is up but not live (BFD, section 7.2.1) for a link that is down."""
        if not any(port.state & _LIVE for port in state.ports.values()):
            return  # a switch that does not tell
        for port_no, port in state.ports.items():
            ref = PortRef(name, port_no)
            healthy = not port.up or bool(port.state & _LIVE)
            if healthy == (ref in self._unhealthy):
                (self._unhealthy.discard if healthy else self._unhealthy.add)(ref)
                self._topology.port_health(ref, healthy, now)

    def _packet_in(self, switch: str, packet: PacketIn) -> None:
        in_port = packet.match.in_port
        if in_port is None:
            return
        now = asyncio.get_running_loop().time()
        tap = self.taps.get(packet.cookie)
        if packet.cookie == STEERING_COOKIE:
            self._steer(PortRef(switch, in_port), packet.data, now)
        elif tap is not None:
            if self._on_tapped is not None:
                self._on_tapped(tap, PortRef(switch, in_port), packet.data)
        elif self._topology.frame(switch, in_port, packet.data, now):
            self.look()
        elif self._hosts is not None:
            acts = self._hosts.packet_in(switch, in_port, packet.data, self.network(), now)
            self._do(acts, now)

    def _steer(self, at: PortRef, frame: bytes, now: float) -> None:
        acts = self._steering.packet_in(at.switch, at.port_no, frame, self.network())
        if acts is None and self._hosts is not None:
            self._do(self._hosts.sender(at, frame, self.network(), now), now)
            acts = self._steering.packet_in(at.switch, at.port_no, frame, self.network())
        if not acts and self._hosts is not None:
            acts = self._hosts.seek(at, frame, self.network(), now)
        self._do(acts or [], now)

    def _do(self, acts: Sequence[SteeringAct], now: float) -> None:
        for act in acts:
            try:
                match act:
                    case Cleared(at):
                        self.controller.remove_reactive(at.switch, Match(in_port=at.port_no))
                        self.controller.remove_reactive(at.switch, out_port=at.port_no)
                    case SendPacket(name, port_no, data, in_port):
                        self.controller.packet_out(name, data, (Output(port_no),), in_port)
                    case Install(name, rules):
                        self.controller.install(name, rules)
                    case Remove(name, match):
                        self.controller.remove_reactive(name, match)
                    case HostSeen(mac, at, ipv4, certain):
                        self._topology.host_seen(mac, at, ipv4, now, certain=certain)
            except DisconnectedError as error:
                _log.debug("fabric.too_late", error=str(error))
                if isinstance(act, Cleared):
                    self._steering.registry.touched[act.at] = None
        self.look()

    def _flow_removed(self, switch: str, removed: FlowRemoved) -> None:
        self._steering.flow_removed(switch, removed.match)
        if self._hosts is not None:
            self._hosts.flow_removed(switch, removed.match)

    # --- service nodes ------------------------------------------------------------------------

    @property
    def service_nodes(self) -> Mapping[str, ServiceNode]:
        """The service nodes that have registered, by name."""
        return self._steering.registry.nodes

    def flows_of(self, node: ServiceNode) -> int:
        """Return how many flows are led to a service node."""
        return self._steering.flows_of(node)

    def is_reached(self, node: ServiceNode) -> bool:
        """Say whether packets can be led to a service node now."""
        return node in self._steering.registry.reached(self.network()).get(node.at.switch, ())

    def register(self, node: ServiceNode, seconds: float) -> bool:
        """Have a service node there for so long; see :meth:`Fabric.register`."""
        now = asyncio.get_running_loop().time()
        fresh = node.name not in self._steering.registry.nodes
        changed = self._steering.registry.put(node, now + seconds)
        if fresh:
            self._publish(Event("service_node.added", node.name, {"at": str(node.at)}))
        self._wait_for_silence()
        self._topology.host_seen(node.mac, node.at, str(node.address), now, certain=True)
        self.look()
        if changed:
            self._steered_anew()
        else:  # what could not be done while another controller was at work
            self._do(self._steering.revise(self.network()), now)
        return changed

    def withdraw(self, name: str) -> bool:
        """Forget a service node; see :meth:`Fabric.withdraw`."""
        found = self._steering.registry.withdraw(name)
        if found:
            self._publish(Event("service_node.removed", name, {"reason": "withdrawn"}))
            self._steered_anew()
        return found

    def _silence(self) -> None:
        loop = asyncio.get_running_loop()
        due = self._steering.registry.next_timer()
        if due is not None and loop.time() - due > _LATE_S:
            # It was we who were busy: what they said may not have been read yet.
            self._steering_timer = loop.call_later(_LATE_S, self._forget_silent)
        else:
            self._forget_silent()

    def _forget_silent(self) -> None:
        gone = self._steering.registry.expire(asyncio.get_running_loop().time())
        for name in gone:
            self._publish(Event("service_node.removed", name, {"reason": "silent"}))
        if gone:
            self._steered_anew()
        self._wait_for_silence()

    def _wait_for_silence(self) -> None:
        due = self._steering.registry.next_timer()
        if self._steering_timer is not None:
            self._steering_timer.cancel()
        loop = asyncio.get_running_loop()
        self._steering_timer = None if due is None else loop.call_at(due, self._silence)

    def _steered_anew(self) -> None:
        """Lead flows as nodes and claims are now: entries at once, all else by the tables."""
        self._do(self._steering.revise(self.network()), asyncio.get_running_loop().time())
        self._on_network()

    # --- the topology's time ------------------------------------------------------------------

    def look(self) -> None:
        """Hand on what the topology has to say, and look at its clock anew."""
        loop = asyncio.get_running_loop()
        for event in self._topology.events():
            self._publish(event)
        discovery = self._topology.frames_to_send() if self._options.discover else []
        for ref, frame in (*discovery, *self._topology.questions()):
            with suppress(FabricError):
                self.controller.packet_out(ref.switch, frame, (Output(ref.port_no),))
        network = self.network()
        if network is not self._seen:
            self._seen = network
            self._invalidate(network)
            self._on_network()
        if self._timer is not None:
            self._timer.cancel()
        due = self._topology.next_timer()
        self._timer = None if due is None else loop.call_at(due, self._on_timer)

    def _on_timer(self) -> None:
        self._timer = None
        self._topology.handle_timer(asyncio.get_running_loop().time())
        self.look()

    def _invalidate(self, network: Network) -> None:
        """Remove the reactive rules that lead where nobody is any more."""
        stale: list[tuple[str, Match]] = []
        if self._hosts is not None:
            stale += self._hosts.invalidate(network)
        if self._reactive is not None:
            stale += self._reactive.update(network)
        for switch, match in stale:
            with suppress(FabricError):
                self.controller.remove_reactive(switch, match)
        self._do(self._steering.revise(network), asyncio.get_running_loop().time())


def _joined(
    known: Mapping[str, tuple[_T, ...]], more: Mapping[str, tuple[_T, ...]]
) -> Mapping[str, tuple[_T, ...]]:
    return {**known, **{name: known.get(name, ()) + each for name, each in more.items()}}
