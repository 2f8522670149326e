"""The fabric as the rest of the site sees it: ask for flows, hear what changes.

Joins the parts of this package and adds nothing of its own but the loop: whatever changes, the
present intents and the present network are compiled anew, and the controller sends the difference.
"""

import asyncio
from collections.abc import AsyncGenerator, Callable, Collection, Mapping
from dataclasses import replace

import structlog

from anabranch.core.events import Event
from anabranch.fabric.announcements import Announcements
from anabranch.fabric.attribution import attributed
from anabranch.fabric.compiler import Compiler, Plan
from anabranch.fabric.controller import Controller
from anabranch.fabric.errors import DisconnectedError, FabricError, MisuseError
from anabranch.fabric.failures import Failure, NotDoneError
from anabranch.fabric.flow_rules import cookie_of
from anabranch.fabric.followed import Completed, FollowedPaths
from anabranch.fabric.intents import Intents
from anabranch.fabric.model import Link, LinkInfo, Network, PortRef
from anabranch.fabric.notify import Notifier, SubscriptionStore
from anabranch.fabric.observer import Observer
from anabranch.fabric.openflow.messages import (
    FlowStats,
    GroupDesc,
    GroupStats,
    MeterConfig,
    MeterStats,
    PortStats,
)
from anabranch.fabric.options import Options
from anabranch.fabric.pathlogic import logic as pathlogic
from anabranch.fabric.pathlogic.logic import NamedRule, Path
from anabranch.fabric.steering import ServiceNode
from anabranch.fabric.switches import SwitchState
from anabranch.fabric.tables import Tables

_RETRY_S = 1.0
_log = structlog.get_logger("anabranch.fabric")


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
        self._expected = set(options.names.values())
        self.announcements = Announcements(on_event, lambda: self.network().switches, callbacks)
        self._stale = asyncio.Event()
        self._observer = Observer(options, self.publish, self._stale.set, on_tapped)
        self._compiler = Compiler()
        self._wanted: dict[str, Intents] = {}
        self._merged = Intents()
        self._paths = FollowedPaths(pathlogic.find(options.path_logic), self.publish)
        self._carried = Intents()
        self._metered: dict[str, tuple[Tables, Tables]] = {}
        self._plan = Plan()
        self._asked = 0
        self._done = 0
        self._turned = asyncio.Condition()
        self._failure: FabricError | None = None
        self._pending: frozenset[str] = frozenset()
        self._ended = False

    @property
    def controller(self) -> Controller:
        """The switches themselves."""
        return self._observer.controller

    # --- what is asked for --------------------------------------------------------------------

    async def put(self, intents: Intents, owner: str = "site") -> frozenset[str]:
        """Want exactly ``intents`` for ``owner``, and return once the switches have it.

        Waits for :meth:`run` to begin. Returns the switches that are away or silent: they get
        their rules when they come or answer.

        Raises:
            MisuseError: they contradict each other or another owner's; nothing has changed.
            NotDoneError: a switch refused what ``owner``'s flows need, or did not answer. They are
                wanted all the same; it is told again and again.
            DisconnectedError: :meth:`run` has ended; it is wanted once that begins anew.
        """
        wanted = {**self._wanted, owner: intents}
        merged = _merged(wanted)
        completed, _ = self._compile(merged)
        if completed.intruders:
            known, _ = self._compile(self._merged)
            completed.blame(completed.intruders - known.intruders)
        self._wanted, self._merged = wanted, merged
        return await self._asked_for(intents.names)

    async def follow(self, paths: Collection[Path]) -> frozenset[str]:
        """Want exactly these paths past virtual machines, see :class:`FollowedPaths`.

        Returns and raises as :meth:`put`.
        """
        known = self._paths.wanted
        with self._paths.trying(paths, self.network()):
            completed, _ = self._compile(self._merged)
            completed.blame([path.name for path in paths if known.get(path.name) != path])
        self._wanted.setdefault("paths", Intents())  # from now on somebody wants something
        return await self._asked_for(self._paths.wanted.keys())

    async def restore(
        self, wanted: Mapping[str, Intents], paths: Collection[Path]
    ) -> frozenset[str]:
        """Want exactly this, of all owners in one step: for one that begins where another ended.

        Returns and raises as :meth:`put`.
        """
        merged = _merged(wanted)
        with self._paths.trying(paths, self.network(), again=True):
            completed, _ = self._compile(merged)
            if completed.rivals:  # by where machines are now, or wherever they may be?
                anywhere = self._paths.complete_apart(merged, Network())
                anywhere.blame(anywhere.rivals)
        self._wanted, self._merged = dict(wanted), merged
        return await self._asked_for(merged.names | self._paths.wanted.keys())

    def followed(self) -> Mapping[str, Path]:
        """Return the paths that are wanted past virtual machines, by name."""
        return self._paths.wanted

    def named_rules(self, name: str) -> tuple[NamedRule, ...]:
        """Return the rules of such a path under the names that people know them by.

        Raises:
            NoPathError: there is no such path.
        """
        return self._paths.named_rules(name, self._plan.trees.get(name), self.network())

    def _compile(self, merged: Intents) -> tuple[Completed, Plan]:
        """Return what carries ``merged`` and the paths in the present network.

        A path that cannot be beside the others is left out.

        Raises:
            MisuseError: ``merged`` contradict themselves.
        """
        network, rules = self.network(), self._observer.host_rules()
        completed = self._paths.complete(merged, network)
        try:
            return completed, self._compiler.compile(completed.intents, network, rules)
        except MisuseError:
            if not self._paths.wanted:
                raise
            completed = self._paths.complete_apart(merged, network)
            return completed, self._compiler.compile(completed.intents, network, rules)

    async def _asked_for(self, names: Collection[str]) -> frozenset[str]:
        """Return once the switches have what is wanted now.

        Raises:
            NotDoneError: they have not what the flows and taps ``names`` need.
        """
        self._asked += 1
        mine = self._asked
        self._stale.set()
        async with self._turned:
            await self._turned.wait_for(lambda: self._done >= mine or self._ended)
        if self._done < mine:
            raise DisconnectedError("the fabric does not run")
        if self._failure is not None:
            raise FabricError(str(self._failure))
        pending = self._pending | (self._plan.tables.keys() - self._observer.present())
        if failures := [it for it in self._refusals() if not it.hit.isdisjoint(names)]:
            raise NotDoneError(failures, pending)
        return pending

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
        return self._observer.network()

    def plan(self) -> Plan:
        """Return what the switches hold, or are to hold in a moment."""
        return self._plan

    def failures(self) -> tuple[Failure, ...]:
        """Return what cannot be had now, and whom that hits.

        That is what switches that are there refuse or fail to do, and paths past virtual machines
        that contradict something where the machines are now.
        """
        return (*self._refusals(), *self._paths.failures())

    def _refusals(self) -> tuple[Failure, ...]:
        return attributed(self.controller.failures(), self._carried, self._plan)

    def switches(self) -> Mapping[str, SwitchState]:
        """Return the state of every switch that was ever there or is expected."""
        absent = SwitchState(connected=False, dpid=None, ports={}, rules=None)
        expected = dict.fromkeys(sorted(self._expected), absent)
        return {**expected, **self.controller.switches()}

    def counters(self) -> Mapping[str, int]:
        """Return what was done for hosts and what was contained, by name."""
        return self._observer.counters()

    async def port_stats(self, switch: str) -> list[PortStats]:
        """Return the counters of a switch's ports.

        Raises:
            DisconnectedError: it is not connected.
            FabricError: it does not answer.
        """
        return await self.controller.readings.ports(switch)

    async def flows(self, switch: str) -> list[FlowStats]:
        """Return every flow entry of a switch. Raises as :meth:`port_stats`."""
        return await self.controller.readings.flows(switch)

    async def groups(self, switch: str) -> list[tuple[GroupDesc, GroupStats | None]]:
        """Return every group of a switch with its counters. Raises as :meth:`port_stats`."""
        described = await self.controller.readings.group_descriptions(switch)
        counted = await self.controller.readings.group_stats(switch)
        counters = {stats.group_id: stats for stats in counted}
        return [(group, counters.get(group.group_id)) for group in described]

    async def meters(self, switch: str) -> list[tuple[MeterConfig, MeterStats | None]]:
        """Return every meter of a switch with its counters. Raises as :meth:`port_stats`."""
        described = await self.controller.readings.meter_configs(switch)
        counted = await self.controller.readings.meter_stats(switch)
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
        """Take these links as known without discovery, beside those that are wired.

        One of the latter may be repeated with another capacity, or as reserve or not; it stays.

        Raises:
            MisuseError: a port is in two links or an edge port, or a link stays in one switch.
        """
        self._observer.declare(links)

    def declared(self) -> Mapping[Link, LinkInfo]:
        """Return the links that were declared beside those that are wired."""
        return self._observer.declared

    def wire(self, links: Mapping[Link, LinkInfo]) -> None:
        """Take these links for those of the options, which they replace.

        Raises:
            MisuseError: as :meth:`declare`; nothing has changed.
        """
        self._observer.wire(links)

    async def register(self, node: ServiceNode, seconds: float) -> bool:
        """Have a service node there for so long, unless it registers again before.

        Returns once the switches lead packets to it as it claims now: whether they can.

        Raises:
            ConflictError: its port or one of its addresses is another's.
            FabricError: the switches do not have what it takes.
        """
        pending: frozenset[str] = frozenset()
        if self._observer.register(node, seconds):
            self._wanted.setdefault("services", Intents())  # from now on somebody wants something
            pending = await self._asked_for(())
        return node.at.switch not in pending and self._observer.is_reached(node)

    async def withdraw(self, name: str) -> bool:
        """Forget a service node; its flows go to others, or their plain way. Raises FabricError.

        Returns: whether there was one.
        """
        found = self._observer.withdraw(name)
        if found:
            await self._asked_for(())
        return found

    def service_nodes(self) -> list[tuple[ServiceNode, bool, int]]:
        """Return the service nodes, whether each can be reached, and how many flows it has."""
        return [
            (node, self._observer.is_reached(node), self._observer.flows_of(node))
            for node in self._observer.service_nodes.values()
        ]

    def expect(self, name: str, dpid: int) -> None:
        """Know of a switch that is to come, beside those known from the start."""
        self._expected.add(name)
        self.controller.expect(dpid, name)

    async def dismiss(self, name: str) -> None:
        """Neither expect a switch nor listen to it any longer; it keeps its rules."""
        self._expected.discard(name)
        await self.controller.dismiss(name)

    async def settled(self) -> frozenset[str]:
        """Return once the switches have what is wanted, by ways of the present network.

        Returns as :meth:`put`; at once, if nobody has wanted anything yet.

        Raises:
            FabricError: it could not be done, and is tried again.
        """
        return await self._asked_for(()) if self._wanted else frozenset()

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
                    group.create_task(self._observer.count(), name="fabric-counters")
        finally:
            self._ended = True
            async with self._turned:
                self._turned.notify_all()
            await self.announcements.close()

    async def close(self) -> None:
        """Let go of the switches; they keep their rules."""
        await self._observer.close()

    async def _keep(self) -> None:
        self._observer.look()
        self._stale.set()
        await self._observer.settle()
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
        completed, plan = self._compile(self._merged)
        self._paths.settle(completed)
        for warning in sorted(set(plan.warnings) - set(self._plan.warnings)):
            self.publish(Event("fabric.warning", "fabric", {"warning": warning}))
        for name in plan.unreachable.keys() - self._plan.unreachable.keys():
            self.publish(Event("flow.unreachable", name))
        reached = self._plan.unreachable.keys() - plan.unreachable.keys()
        for name in reached & plan.trees.keys():  # one that is gone is not reachable either
            self.publish(Event("flow.reachable", name))
        plan = replace(plan, tables=self._with_meters(plan.tables, network))
        self._plan, self._carried = plan, completed.intents
        self._observer.taps = {cookie_of(tap.name): tap.name for tap in self._merged.taps}
        self._pending = frozenset()
        try:
            self._pending = await self.controller.apply(plan.tables, plan.order)
        except NotDoneError as error:  # who is hit by it hears of it; the controller tries again
            self._pending = error.pending

    def _with_meters(self, tables: Mapping[str, Tables], network: Network) -> Mapping[str, Tables]:
        """Add the meters that limit hosts' packets to the controller; what stays is the same."""
        meters = self._observer.host_meters(network)
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
