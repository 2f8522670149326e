"""The fabric as the rest of the site sees it: ask for flows, hear what changes.

Joins the parts of this package and adds nothing of its own but the loop: whatever changes, the
present intents and the present network are compiled anew, and the controller sends the difference.
"""

import asyncio
import secrets
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace

import structlog

from anabranch.core.events import Event
from anabranch.fabric.announcements import Announcements
from anabranch.fabric.compiler import Compiler, Plan
from anabranch.fabric.controller import Controller, SwitchState
from anabranch.fabric.errors import DisconnectedError, FabricError
from anabranch.fabric.flow_rules import cookie_of
from anabranch.fabric.followed import FollowedPaths
from anabranch.fabric.host_services import (
    Act,
    HostSeen,
    HostServices,
    Install,
    Remove,
    SendPacket,
    Settings,
    Unicast,
)
from anabranch.fabric.intents import Intents
from anabranch.fabric.model import Link, LinkInfo, Network, PortRef
from anabranch.fabric.notify import Notifier, SubscriptionStore
from anabranch.fabric.openflow.actions import Output
from anabranch.fabric.openflow.messages import (
    FlowRemoved,
    FlowStats,
    GroupDesc,
    GroupStats,
    MeterConfig,
    MeterStats,
    PacketIn,
    PortStats,
)
from anabranch.fabric.openflow.oxm import Match
from anabranch.fabric.pathlogic import logic as pathlogic
from anabranch.fabric.pathlogic.logic import NamedRule, Path
from anabranch.fabric.reactive import ReactiveForwarder
from anabranch.fabric.tables import Rule, Tables
from anabranch.fabric.topology import Topology

_RETRY_S = 1.0
_LIVE = 4  # OFPPS_LIVE
_log = structlog.get_logger("anabranch.fabric")


@dataclass(frozen=True, slots=True)
class Options:
    """What a fabric knows from the start.

    Attributes:
        names: datapath id to name of the switches that are expected.
        adopt: take any other switch in, too; it is named by its datapath id, 16 hex digits.
        links: known without discovery.
        edge: ports behind which hosts are, never switches.
        discover: find links by LLDP; off where all are known.
        hosts: what is done for hosts (ARP, DHCP, unicast); None: nothing.
        settle_s: seconds for which the first rules wait, at most, until every expected switch is
            there and links are found: a network half seen would move flows that need not move.
        path_logic: name of the plug-in that says how paths past virtual machines are carried.
        counters_s: seconds between two readings of the port counters; 0: never.
    """

    names: Mapping[int, str] = field(default_factory=dict)
    adopt: bool = False
    links: Mapping[Link, LinkInfo] = field(default_factory=dict)
    edge: frozenset[PortRef] = frozenset()
    discover: bool = False
    hosts: Settings | None = None
    settle_s: float = 3.0
    path_logic: str = pathlogic.DEFAULT
    counters_s: float = 5.0


class Fabric:
    """Carries what is asked for, over whatever network there is.

    Use: make :attr:`controller` listen or dial, :meth:`run` in a task of its own, ask by
    :meth:`put`, end by :meth:`close`. Before the first :meth:`put` no switch is changed.

    Args:
        options: what is known from the start.
        on_event: gets every event of the network; must not block.
        on_tapped: gets what a tap without a port catches: its name, where the packet came in, and
            the whole frame; must not block.
        callbacks: where it is kept who wants to be told of events by POST; None: in memory.
    """

    def __init__(
        self,
        options: Options,
        on_event: Callable[[Event], None],
        *,
        on_tapped: Callable[[str, PortRef, bytes], None] | None = None,
        callbacks: SubscriptionStore | None = None,
    ) -> None:
        self._options = options
        self._on_tapped = on_tapped
        self.announcements = Announcements(on_event, lambda: self.network().switches, callbacks)
        self._hosts = HostServices(options.hosts) if options.hosts is not None else None
        hot = None
        self._reactive: ReactiveForwarder | None = None
        if options.hosts is not None and options.hosts.unicast is Unicast.ANY:
            self._reactive = ReactiveForwarder(idle_timeout=options.hosts.idle_timeout)
            hot = self._reactive.hot
        self.controller = Controller(
            self.publish,
            names=options.names,
            adopt=(lambda dpid: f"{dpid:016x}") if options.adopt else None,
            on_packet_in=self._packet_in,
            on_flow_removed=self._flow_removed,
            on_switch=self._switch_changed,
            hot=hot,
        )
        self._topology = Topology(key=secrets.token_bytes(32), edge=options.edge)
        self._topology.declare(options.links)
        self._compiler = Compiler()
        self._wanted: dict[str, Intents] = {}
        self._merged = Intents()
        self._paths = FollowedPaths(pathlogic.find(options.path_logic), self.publish)
        self._taps: dict[int, str] = {}
        self._metered: dict[str, tuple[Tables, Tables]] = {}
        self._plan = Plan()
        self._known: dict[str, SwitchState] = {}
        self._unhealthy: set[PortRef] = set()
        self._seen: Network | None = None
        self._stale = asyncio.Event()
        self._asked = 0
        self._done = 0
        self._turned = asyncio.Condition()
        self._failure: FabricError | None = None
        self._pending: frozenset[str] = frozenset()
        self._ended = False
        self._timer: asyncio.TimerHandle | None = None

    # --- what is asked for --------------------------------------------------------------------

    async def put(self, intents: Intents, owner: str = "site") -> frozenset[str]:
        """Want exactly ``intents`` for ``owner``, and return once the switches have it.

        Waits for :meth:`run` to begin. Returns the switches that are away or silent: they get
        their rules when they come or answer.

        Raises:
            MisuseError: they contradict each other or another owner's; nothing has changed.
            FabricError: a switch refused a rule or did not answer; it is tried again.
            DisconnectedError: :meth:`run` has ended; it is wanted once that begins anew.
        """
        wanted = {**self._wanted, owner: intents}
        merged = _merged(wanted)
        self._compiler.compile(self._complete(merged), self.network(), self._extra())
        self._wanted, self._merged = wanted, merged
        return await self._asked_for()

    async def follow(self, paths: Collection[Path]) -> frozenset[str]:
        """Want exactly these paths past virtual machines, see :class:`FollowedPaths`.

        Returns and raises as :meth:`put`.
        """
        with self._paths.trying(paths, self.network()):
            self._compiler.compile(self._complete(), self.network(), self._extra())
        self._wanted.setdefault("paths", Intents())  # from now on somebody wants something
        return await self._asked_for()

    async def restore(
        self, wanted: Mapping[str, Intents], paths: Collection[Path]
    ) -> frozenset[str]:
        """Want exactly this, of all owners in one step: for one that begins where another ended.

        Returns and raises as :meth:`put`.
        """
        merged = _merged(wanted)
        with self._paths.trying(paths, self.network(), again=True):
            self._compiler.compile(self._complete(merged), self.network(), self._extra())
        self._wanted, self._merged = dict(wanted), merged
        return await self._asked_for()

    def followed(self) -> Mapping[str, Path]:
        """Return the paths that are wanted past virtual machines, by name."""
        return self._paths.wanted

    def named_rules(self, name: str) -> tuple[NamedRule, ...]:
        """Return the rules of such a path under the names that people know them by.

        Raises:
            NoPathError: there is no such path.
        """
        return self._paths.named_rules(name, self._plan.trees.get(name), self.network())

    def _complete(self, merged: Intents | None = None) -> Intents:
        return self._paths.complete(self._merged if merged is None else merged, self.network())

    async def _asked_for(self) -> frozenset[str]:
        """Return once the switches have what is wanted now."""
        self._asked += 1
        mine = self._asked
        self._stale.set()
        async with self._turned:
            await self._turned.wait_for(lambda: self._done >= mine or self._ended)
        if self._done < mine:
            raise DisconnectedError("the fabric does not run")
        if self._failure is not None:
            raise FabricError(str(self._failure))
        return self._pending | {
            name
            for name in self._plan.tables
            if (state := self._known.get(name)) is None or not state.connected
        }

    def intents(self, owner: str | None = None) -> Intents:
        """Return what is wanted by ``owner``, or by everybody."""
        if owner is not None:
            return self._wanted.get(owner, Intents())
        return self._merged

    def owners(self) -> Mapping[str, Intents]:
        """Return what is wanted, by who wants it."""
        return dict(self._wanted)

    # --- what is known ------------------------------------------------------------------------

    def network(self) -> Network:
        """Return what is known of the network now."""
        return self._topology.snapshot()

    def plan(self) -> Plan:
        """Return what the switches hold, or are to hold in a moment."""
        return self._plan

    def switches(self) -> Mapping[str, SwitchState]:
        """Return the state of every switch that was ever there or is expected."""
        absent = SwitchState(connected=False, dpid=None, ports={}, rules=None)
        expected = dict.fromkeys(self._options.names.values(), absent)
        return {**expected, **self.controller.switches()}

    def counters(self) -> Mapping[str, int]:
        """Return what was done for hosts and what was contained, by name."""
        found = Counter(self._topology.counts)
        if self._hosts is not None:
            found.update(self._hosts.counters)
        if self._reactive is not None:
            found["unicast_hot"] += self._reactive.set_up
        return found

    async def port_stats(self, switch: str) -> list[PortStats]:
        """Return the counters of a switch's ports.

        Raises:
            DisconnectedError: it is not connected.
            FabricError: it does not answer.
        """
        return await self.controller.port_stats(switch)

    async def flows(self, switch: str) -> list[FlowStats]:
        """Return every flow entry of a switch. Raises as :meth:`port_stats`."""
        return await self.controller.flow_stats(switch)

    async def groups(self, switch: str) -> list[tuple[GroupDesc, GroupStats | None]]:
        """Return every group of a switch with its counters. Raises as :meth:`port_stats`."""
        described = await self.controller.group_descriptions(switch)
        counted = await self.controller.group_stats(switch)
        counters = {stats.group_id: stats for stats in counted}
        return [(group, counters.get(group.group_id)) for group in described]

    async def meters(self, switch: str) -> list[tuple[MeterConfig, MeterStats | None]]:
        """Return every meter of a switch with its counters. Raises as :meth:`port_stats`."""
        described = await self.controller.meter_configs(switch)
        counted = await self.controller.meter_stats(switch)
        counters = {stats.meter_id: stats for stats in counted}
        return [(meter, counters.get(meter.meter_id)) for meter in described]

    @property
    def notifier(self) -> Notifier:
        """Who is told of events by POST."""
        return self.announcements.notifier

    def subscribe(self) -> AsyncGenerator[Event, None]:
        """Yield every event of the network from now on."""
        return self.announcements.subscribe()

    async def recent_events(self, limit: int) -> list[Event]:
        """Return the newest events, newest first; at most 1,000 are kept."""
        return await self.announcements.recent_events(limit)

    def declare(self, links: Mapping[Link, LinkInfo]) -> None:
        """Take these links as known without discovery, beside those known from the start.

        One of the latter may be repeated with another capacity, or as reserve or not; it stays.

        Raises:
            MisuseError: a port is in two links or an edge port, or a link stays in one switch.
        """
        kept: dict[Link, LinkInfo] = {}
        for link, info in self._options.links.items():
            if said := links.get(link) or links.get(link.reverse):
                capacity = info.capacity_mbit if said.capacity_mbit is None else said.capacity_mbit
                info = replace(info, capacity_mbit=capacity, redundant=said.redundant)
            kept[link] = info
        others = {link: info for link, info in links.items() if link.reverse not in kept}
        self._topology.declare({**others, **kept})
        self._topology_changed()

    # --- the loop -----------------------------------------------------------------------------

    async def run(self) -> None:
        """Keep the switches in step with what is wanted, for ever.

        However it ends, nobody waits for it any more.
        """
        self._ended = False
        try:
            await self.announcements.open()
            async with asyncio.TaskGroup() as group:
                group.create_task(self._keep(), name="fabric-tables")
                if self._options.counters_s:
                    group.create_task(self._count(), name="fabric-counters")
        finally:
            self._ended = True
            async with self._turned:
                self._turned.notify_all()
            await self.announcements.close()

    async def close(self) -> None:
        """Let go of the switches; they keep their rules."""
        if self._timer is not None:
            self._timer.cancel()
        await self.controller.close()

    async def _keep(self) -> None:
        self._topology_changed()
        self._stale.set()
        await self._settle()
        while True:
            await self._stale.wait()
            self._stale.clear()
            if not self._wanted:
                continue
            asked = self._asked
            failure: FabricError | None = None
            try:
                await self._make_true()
            except FabricError as error:
                failure = error
                _log.warning("fabric.failed", error=str(error))
                asyncio.get_running_loop().call_later(_RETRY_S, self._stale.set)
            async with self._turned:
                self._failure = failure
                self._done = asked
                self._turned.notify_all()

    async def _make_true(self) -> None:
        network = self.network()
        plan = self._compiler.compile(self._complete(), network, self._extra())
        for warning in sorted(set(plan.warnings) - set(self._plan.warnings)):
            self.publish(Event("fabric.warning", "fabric", {"warning": warning}))
        for name in plan.unreachable.keys() - self._plan.unreachable.keys():
            self.publish(Event("flow.unreachable", name))
        reached = self._plan.unreachable.keys() - plan.unreachable.keys()
        for name in reached & plan.trees.keys():  # one that is gone is not reachable either
            self.publish(Event("flow.reachable", name))
        plan = replace(plan, tables=self._with_meters(plan.tables, network))
        self._plan = plan
        self._taps = {cookie_of(tap.name): tap.name for tap in self._merged.taps}
        self._pending = frozenset()
        self._pending = await self.controller.apply(plan.tables, plan.order)

    def _with_meters(self, tables: Mapping[str, Tables], network: Network) -> Mapping[str, Tables]:
        """Add the meters that limit hosts' packets to the controller; what stays is the same."""
        meters = self._hosts.meters(network) if self._hosts is not None else {}
        metered: dict[str, tuple[Tables, Tables]] = {}
        for name, bare in tables.items():
            known = self._metered.get(name)
            if known is not None and known[0] is bare:
                metered[name] = known
            else:
                added = bare.meters | frozenset(meters.get(name, ()))
                metered[name] = bare, (replace(bare, meters=added) if added else bare)
        self._metered = metered
        return {name: full for name, (_, full) in metered.items()}

    async def _settle(self) -> None:
        """Wait until the network has been seen whole, or as long as that may take."""
        loop = asyncio.get_running_loop()
        end = loop.time() + self._options.settle_s
        while loop.time() < end:
            expected = set(self._options.names.values())
            here = {name for name, state in self._known.items() if state.connected}
            if expected and expected <= here and not self._options.discover:
                return
            await asyncio.sleep(0.01)

    async def _count(self) -> None:
        """Read the port counters again and again: the load of the links."""
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(self._options.counters_s)
            for name, state in list(self._known.items()):
                if not state.connected:
                    continue
                with suppress(FabricError):
                    stats = await self.controller.port_stats(name)
                    self._topology.counters(name, stats, loop.time())

    def _extra(self) -> Mapping[str, tuple[Rule, ...]]:
        return self._hosts.base_rules(self.network()) if self._hosts is not None else {}

    def _invalidate(self, network: Network) -> None:
        """Remove the reactive rules that lead where nobody is any more."""
        self._seen = network
        stale: list[tuple[str, Match]] = []
        if self._hosts is not None:
            stale += self._hosts.invalidate(network)
        if self._reactive is not None:
            stale += self._reactive.update(network)
        for switch, match in stale:
            with suppress(FabricError):
                self.controller.remove_reactive(switch, match)

    # --- what switches report -----------------------------------------------------------------

    def _switch_changed(self, name: str, state: SwitchState | None) -> None:
        now = asyncio.get_running_loop().time()
        before = self._known.get(name)
        if state is None or not state.connected:
            if before is not None:
                self._topology.switch_lost(name, now)
                del self._known[name]
        elif before is None or before.dpid != state.dpid:
            assert state.dpid is not None
            # Health first: a link whose ends are still to find each other has not gone down.
            self._watch_health(name, state, now)
            self._topology.switch_up(name, state.dpid, state.ports, now)
            self._known[name] = state
        else:
            for port_no in before.ports.keys() | state.ports.keys():
                if before.ports.get(port_no) != state.ports.get(port_no):
                    self._topology.port_changed(name, state.ports.get(port_no), port_no, now)
            self._known[name] = state
            self._watch_health(name, state, now)
        self._topology_changed()

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
        tap = self._taps.get(packet.cookie)
        if tap is not None:
            if self._on_tapped is not None:
                self._on_tapped(tap, PortRef(switch, in_port), packet.data)
        elif self._topology.frame(switch, in_port, packet.data, now):
            self._topology_changed()
        elif self._hosts is not None:
            acts = self._hosts.packet_in(switch, in_port, packet.data, self.network(), now)
            self._do(acts, now)

    def _do(self, acts: list[Act], now: float) -> None:
        for act in acts:
            try:
                match act:
                    case SendPacket(name, port_no, data, in_port):
                        self.controller.packet_out(name, data, (Output(port_no),), in_port)
                    case Install(name, rules):
                        self.controller.install(name, rules)
                    case Remove(name, match):
                        self.controller.remove_reactive(name, match)
                    case HostSeen(mac, at, ipv4):
                        self._topology.host_seen(mac, at, ipv4, now)
            except DisconnectedError as error:
                _log.debug("fabric.too_late", error=str(error))
        self._topology_changed()

    def _flow_removed(self, switch: str, removed: FlowRemoved) -> None:
        if self._hosts is not None:
            self._hosts.flow_removed(switch, removed.match)

    # --- the topology's time ------------------------------------------------------------------

    def _topology_changed(self) -> None:
        """Hand on what the topology has to say, and look at its clock anew."""
        loop = asyncio.get_running_loop()
        for event in self._topology.events():
            self.publish(event)
        for ref, frame in self._topology.frames_to_send():
            if self._options.discover:
                with suppress(FabricError):
                    self.controller.packet_out(ref.switch, frame, (Output(ref.port_no),))
        network = self.network()
        if network is not self._seen:
            self._invalidate(network)
            self._stale.set()
        if self._timer is not None:
            self._timer.cancel()
        due = self._topology.next_timer()
        self._timer = None if due is None else loop.call_at(due, self._on_timer)

    def _on_timer(self) -> None:
        self._timer = None
        self._topology.handle_timer(asyncio.get_running_loop().time())
        self._topology_changed()

    def publish(self, event: Event) -> None:
        """Hand an event to everybody who listens."""
        self.announcements.publish(event)


def _merged(wanted: Mapping[str, Intents]) -> Intents:
    """Return everybody's intents as one.

    Raises:
        MisuseError: a name is used twice.
    """
    if len(wanted) == 1:
        return next(iter(wanted.values()))
    return Intents(
        flows=tuple(flow for intents in wanted.values() for flow in intents.flows),
        taps=tuple(tap for intents in wanted.values() for tap in intents.taps),
    )
