"""The root's steward: the SOLEIL tree of a site, what its reports mean, and where viewers go."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Collection, Iterable, Iterator, Mapping
from contextlib import aclosing, contextmanager, suppress
from ipaddress import IPv4Address, IPv6Address, ip_address
from random import Random
from typing import Any, Protocol

from anabranch.channels.seats import Seat
from anabranch.core.errors import AnabranchError, UnavailableError
from anabranch.core.events import Event
from anabranch.media.leaf import Feed, Rung
from anabranch.site.acting import Actor
from anabranch.site.agents import Agents
from anabranch.site.gauges import Counters, LocalGauge, parts_of, stream_of
from anabranch.site.picture import Picture
from anabranch.site.pipelines import Pipelines
from anabranch.site.reaction import Hands, Reaction
from anabranch.site.remote import Remote
from anabranch.site.settings import SiteSettings
from anabranch.site.switched import SwitchedUnderlay
from anabranch.site.views import Host, Views
from anabranch.tree.actions import Action
from anabranch.tree.events import Deliver, Joined, Left, Moved, NodeEvent
from anabranch.tree.metrics import CPU, MACHINES
from anabranch.tree.model import Role
from anabranch.tree.pipelines.overlay import Overlay
from anabranch.tree.placement import Request
from anabranch.tree.placement import Rung as Step
from anabranch.tree.soleil.messages import ROOT as TO_ROOT
from anabranch.tree.soleil.messages import FullStats, Message, ReqFullStats, StreamStats
from anabranch.tree.state import SiteState


class StewardHost(Host, Protocol):
    """What the steward needs of its site."""

    async def change_rendition(self, seat: Seat, rendition: str) -> None:
        """Show a viewer another rendition."""

    def happenings(self) -> AsyncGenerator[Event, None]:
        """Yield every event of the site from now on."""

    async def port_counters(self) -> list[dict[str, Any]]:
        """Return the counters of every switch port."""


class Steward:
    """Looks after the tree.

    Args:
        underlay: None: there are no switches, and one leaf.
        on_event: takes what happens.
        remote: lets nodes of other machines in; None: there are none.

    Attributes:
        on_round: called once a round.
    """

    def __init__(
        self,
        settings: SiteSettings,
        host: StewardHost,
        underlay: SwitchedUnderlay | None,
        on_event: Callable[[Event], None],
        remote: Remote | None = None,
    ) -> None:
        rules = settings.tree
        self._settings = settings
        self._host = host
        self._on_event = on_event
        self._remote = remote
        self._underlay = underlay
        self.on_round: Callable[[], None] = lambda: None
        self._random = Random()  # noqa: S311  # chooses among equal leaves
        self._placement = settings.placement.make_placement()
        self._picture = Picture()
        self._actor = Actor(host.nodes, underlay, self._fit) if underlay is not None else None
        self.views = Views(settings, host, underlay)
        self.reaction = Reaction(
            rules,
            self._picture,
            Hands(self._state, self._ask, self._act, self._is_lowest, on_event),
        )
        # Half of an interval: agents need not look at one moment.
        counters = Counters(host.port_counters, rules.reporting.interval_s / 2)
        self.agents = Agents(
            self.views.root,
            settings.run_dir / "tree",
            rules.reporting,
            lambda name: LocalGauge(name, self.views, counters),
            on_event=self._happened,
            heaviest=self.views.heaviest,
            run_id=settings.run_id,
            overlay=self._overlay,
            **(remote.connection if remote is not None else {}),
        )

        self.pipelines = Pipelines(
            self.views.root,
            lambda: self.views.roles,
            lambda body, node, time_ms: self.agents.root.node.send(body, node, time_ms=time_ms),
            on_event,
        )

    def _overlay(self, node: str) -> Overlay | None:
        if self._underlay is None:
            return None
        return self._underlay.plan.nodes[node].overlay(self._settings.ports.pipelines)

    # --- life ---------------------------------------------------------------------------------

    async def start(self) -> None:
        """Have the nodes hang together.

        Raises:
            UnavailableError: the run directory cannot be used.
        """
        try:
            await self.agents.start()
            await self._follow()
        except OSError as error:
            raise UnavailableError(f"the run directory: {error.strerror}") from error

    async def run(self) -> None:
        """Judge every round, and follow the nodes, for ever."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._judge(), name="rounds")
            group.create_task(self._listen(), name="steward-listens")

    async def _judge(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(self._settings.tree.reporting.interval_s)
            self.on_round()
            await self._follow()
            reporter = self.agents.root.reporter
            reports = reporter.last()
            reports[self.views.root] = reporter.own
            self.reaction.round(reports, loop.time())
            await self._fit()

    async def _listen(self) -> None:
        async with aclosing(self._host.happenings()) as happening:
            async for event in happening:
                if event.kind.startswith("node."):
                    await self._follow()

    async def stop(self) -> None:
        await self.reaction.stop()
        await self.agents.stop()

    async def restart(self) -> None:
        """Have the root forget the tree and find it again; what flows is not touched.

        Raises:
            ConflictError: nodes of other machines cannot come any more.
        """
        await self.agents.restart_root()
        if self._remote is not None:
            self._remote.listen()

    async def _follow(self) -> None:
        await self.agents.follow(self.views.sessions, self.views.up)

    # --- where viewers go ---------------------------------------------------------------------

    def request(
        self,
        channel: str,
        rendition: str | None,
        client: str,
        device: str | None,
        bandwidth_kbps: float | None,
    ) -> Request:
        """Return what is known of a viewer who comes.

        Args:
            channel: what is asked for.
            rendition: the one that is asked for; None: the best that fits.
            client: the viewer's address.
            device: its kind, such as ``phone``; None: not known.
            bandwidth_kbps: of its way in; None: not known.
        """
        ladder = tuple(
            Step(stream_of(channel, each.name), each.height, each.bitrate_kbps)
            for each in self._settings.ladder
            if rendition in (None, each.name)
        )
        return Request(ladder, _address(client), device, bandwidth_kbps)

    def place(self, request: Request, *, but: Collection[str] = ()) -> tuple[str, str]:
        """Return the leaf for a viewer, and the rendition that it is to see.

        ``but`` names leaves that have just failed.

        Raises:
            UnavailableError: no leaf takes this viewer at the moment.
        """
        leaves = [
            node
            for node in self._state(asyncio.get_running_loop().time()).nodes.values()
            if node.role is Role.LEAF and node.name not in but
        ]
        try:
            place = self._placement.choose(request, leaves, self._random)
        except UnavailableError:
            self._picture.waiting += 1
            raise
        return place.leaf, parts_of(place.stream)[1]

    @contextmanager
    def coming(self, leaf: str) -> Iterator[None]:
        """Count a viewer whose offer a leaf is answering."""
        self.views.coming[leaf] += 1
        try:
            yield
        finally:
            self.views.coming[leaf] -= 1

    def shown(self, leaf: str, channel: str, rendition: str) -> str:
        """Return what viewers at ``leaf`` see who are to see ``rendition``."""
        while self._picture.lowered(leaf, stream_of(channel, rendition)):
            lower = self._next_lower(rendition)
            if lower is None:
                break
            rendition = lower
        return rendition

    def ladder(self, leaf: str, channel: str, best: str) -> list[Rung]:
        """Return what viewers at ``leaf`` may see who are to see ``best`` or less."""
        names = [each.name for each in self._settings.ladder]
        return [
            Rung(Feed(channel, each.name), each.bitrate_kbps)
            for each in self._settings.ladder[names.index(best) :]
            if not self._picture.lowered(leaf, stream_of(channel, each.name))
        ]

    async def _fit(self) -> None:
        """Show every viewer what is right for it now."""
        await asyncio.gather(*(self._refit(seat) for seat in self._host.seats))

    async def _refit(self, seat: Seat) -> None:
        wanted = self.shown(seat.leaf, seat.channel, seat.best)
        if wanted != seat.allowed:
            with suppress(AnabranchError):  # it has gone, or the next round tries again
                await self._host.change_rendition(seat, wanted)

    def _next_lower(self, rendition: str) -> str | None:
        names = [each.name for each in self._settings.ladder]
        at = names.index(rendition) + 1 if rendition in names else len(names)
        return names[at] if at < len(names) else None

    def _is_lowest(self, stream: str) -> bool:
        return self._next_lower(parts_of(stream)[1]) is None

    # --- the root's hands ---------------------------------------------------------------------

    def _state(self, now: float) -> SiteState:
        drained = self._actor.drained if self._actor is not None else ()
        return self._picture.state(self.views.nodes(drained, self.cpu), now)

    def cpu(self, name: str) -> float | None:
        """Return the load of a node of this machine, per cent of a core; None: not known."""
        agent = self.agents.agent(name)
        machine = _machine(agent.reporter.own) if agent is not None else {}
        return machine.get(CPU)

    def _ask(self, node: str, stream: str) -> None:
        self._on_event(Event("tree.asked", node, {"stream": stream}))
        with suppress(UnavailableError):  # it is asked again
            self.agents.root.node.send(ReqFullStats(stream), node)

    async def _act(self, action: Action) -> None:
        if self._actor is None:
            await self._fit()  # without switches there is nothing else that could be done
            return
        await self._actor.act(action)

    def _happened(self, event: NodeEvent) -> None:
        if self._remote is not None:
            self._remote.happened(event)
        self.pipelines.happened(event)
        match event:
            case Deliver(Message(FullStats(containers), sender=sender)):
                node = self.views.root if sender in (None, TO_ROOT) else sender
                assert node is not None
                self.reaction.answered(node, containers, self._below(node))
            case Joined(name, role, parent):
                self._on_event(Event("tree.joined", name, {"role": str(role), "parent": parent}))
            case Moved(name, parent, before):
                self._on_event(Event("tree.moved", name, {"parent": parent, "before": before}))
            case Left(name, reason):
                self._on_event(Event("tree.left", name, {"reason": reason}))
            case _:
                pass

    def _below(self, node: str) -> frozenset[str]:
        registry = self.agents.registry
        return frozenset(
            name for name in registry.nodes if registry.may_hang_below(name, node) and name != node
        )


def _machine(containers: Iterable[StreamStats]) -> Mapping[str, float]:
    return next((each.values for each in containers if each.stream == MACHINES), {})


def _address(text: str) -> IPv4Address | IPv6Address | None:
    try:
        return ip_address(text)
    except ValueError:
        return None
