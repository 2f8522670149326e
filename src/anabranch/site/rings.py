"""Ring servers at relays and the root, kept in step with what leaves are delivered.

Between the site and a carriage: what leaves want says which rings are needed, what these want is
carried with it, and everybody is told whom to ask. Without a ring server all goes on, unrepaired.
"""

import asyncio
from collections.abc import Callable, Coroutine, Mapping
from pathlib import Path
from typing import Protocol

import structlog

from anabranch.host.process import Child
from anabranch.media.leaf import Feed, LeafError, LeafServer, Rung
from anabranch.media.native import NativeLeaf
from anabranch.media.native_figures import Repairs
from anabranch.media.native_ring import RingPlace, RingServer
from anabranch.site.carriage import (
    NOTHING_SORTED,
    Carriage,
    Repair,
    Route,
    Sorting,
    StreamId,
    Target,
    Want,
    wants_of,
)
from anabranch.site.plan import NodePlan, SitePlan
from anabranch.site.repair import RepairPlan, plan_repair
from anabranch.site.settings import SiteSettings
from anabranch.tree.model import Role
from anabranch.tree.planning import Plan

_log = structlog.get_logger("anabranch.site")


class Ground(Protocol):
    """What is needed of the underlay."""

    plan: SitePlan
    tree: Plan

    @property
    def up(self) -> frozenset[str]:
        """The nodes that are there."""


class Rings:
    """A carriage that has lost packets repaired.

    Args:
        ground: tells what is there.
        carriage: carries what is wanted.
        retarget: has a channel's encoder send a stream to exactly these addresses.

    Attributes:
        on_stale: called when what is carried must be looked at again; the owner sets it.
    """

    def __init__(
        self,
        settings: SiteSettings,
        ground: Ground,
        carriage: Carriage,
        retarget: Callable[[StreamId, list[Target]], None],
    ) -> None:
        self.on_stale: Callable[[], None] = lambda: None
        self._settings = settings
        self._ground = ground
        self._carriage = carriage
        self._retarget = retarget
        self._kbps = {each.name: each.bitrate_kbps for each in settings.ladder}
        self._leaves: dict[str, NativeLeaf] = {}
        self._rings: dict[str, RingServer] = {}
        self._copies: dict[StreamId, Target] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    def adopt(self, leaf: LeafServer) -> None:
        """Have a leaf server that is about to start ask for what it loses, if it can."""
        if isinstance(leaf, NativeLeaf):
            self._leaves[leaf.name] = leaf

    async def remove(self, node: str) -> None:
        """End what is at a node that goes down."""
        self._leaves.pop(node, None)
        ring = self._rings.pop(node, None)
        if ring is not None:
            await ring.stop()

    async def stop(self) -> None:
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        rings, self._rings = self._rings, {}
        await asyncio.gather(*(ring.stop() for ring in rings.values()), return_exceptions=True)

    def children(self) -> Mapping[str, Child]:
        """Return the ring servers' processes by their names."""
        children = [ring.child for ring in self._rings.values()]
        return {child.spec.name: child for child in children if child is not None}

    async def figures(self) -> dict[str, Repairs]:
        """Return what leaves and ring servers asked for and got, by node, as far as they tell."""
        servers = self._servers()
        told = await asyncio.gather(*(each.repairs() for each in servers), return_exceptions=True)
        found = {}
        for server, figures in zip(servers, told, strict=True):
            if isinstance(figures, Repairs):
                found[server.name] = figures
            elif not isinstance(figures, LeafError):
                raise figures
        return found

    # --- as a carriage ------------------------------------------------------------------------

    def targets(self, stream: StreamId, group: str) -> list[Target]:
        """Return where the encoder must send a stream now: the root's ring gets it from there."""
        copy = self._copies.get(stream)
        return self._carriage.targets(stream, group) + ([] if copy is None else [copy])

    async def carry(
        self,
        wants: frozenset[Want],
        groups: Mapping[StreamId, str],
        routes: frozenset[Route],
        repairs: frozenset[Repair] = frozenset(),
        sorting: Sorting = NOTHING_SORTED,
    ) -> None:
        """See :class:`Carriage`."""
        plan, root = self._plan(wants), self._ground.plan.root
        self._have(plan)
        of_rings = {
            want for ring in self._rings.values() for want in wants_of(ring.name, ring.inlets())
        }
        self._copy({want for want in of_rings if want.leaf == root.name}, groups)
        asked = {Repair(asker, ring, self._port) for asker, ring in plan.parents.items()}
        await self._carriage.carry(
            wants | {want for want in of_rings if want.leaf != root.name},
            groups,
            routes,
            repairs | asked,
            sorting,
        )

    def _plan(self, wants: frozenset[Want]) -> RepairPlan:
        ground = self._ground
        places = {
            node.name
            for node in ground.plan.nodes.values()
            if node.role is not Role.LEAF and node.tunnel is None and node.name in ground.up
        }
        return plan_repair(ground.tree.parents, places, self._leaves.keys(), wants)

    def _have(self, plan: RepairPlan) -> None:
        """Have ring servers run, hold what they must, and everybody know whom to ask."""
        for name in self._rings.keys() - plan.rings:
            self._spawn(self._rings.pop(name).stop())
        for name in plan.rings - self._rings.keys():
            self._start(self._ground.plan.nodes[name])
        for ring in self._rings.values():
            ring.keep([self._rung(feed) for feed in sorted(plan.feeds.get(ring.name, ()))])
        for server in self._servers():
            server.ask(self._address(plan.parents.get(server.name)))

    def _servers(self) -> list[NativeLeaf | RingServer]:
        return [*self._leaves.values(), *self._rings.values()]

    def _rung(self, feed: Feed) -> Rung:
        return Rung(feed, self._kbps.get(feed.rendition, 1))

    def _address(self, ring: str | None) -> str | None:
        if ring is None:
            return None
        return f"{self._ground.plan.nodes[ring].overlay_address}:{self._port}"

    @property
    def _port(self) -> int:
        return self._settings.ports.inlets[1]

    def _copy(self, wants: set[Want], groups: Mapping[StreamId, str]) -> None:
        """Have encoders send these to the root's own ring, beside what they send to the network."""
        address = str(self._ground.plan.root.overlay_address)
        before, self._copies = (
            self._copies,
            {want.stream: (address, want.port) for want in wants if want.stream in groups},
        )
        for stream in before.keys() | self._copies.keys():
            if stream in groups and before.get(stream) != self._copies.get(stream):
                self._retarget(stream, self.targets(stream, groups[stream]))

    # --- ring servers -------------------------------------------------------------------------

    def _start(self, node: NodePlan) -> None:
        ring = RingServer(
            RingPlace(
                name=node.name,
                directory=_directory(self._settings, node),
                run_id=self._settings.run_id,
                netns=node.namespace,
                address=str(node.overlay_address),
                ports=self._settings.ports.inlets,
                askers=self._settings.addresses.overlay,
            )
        )
        ring.on_inlets = lambda: self.on_stale()
        self._rings[node.name] = ring
        self._spawn(self._started(ring))

    async def _started(self, ring: RingServer) -> None:
        try:
            await ring.start()
        except LeafError as error:
            if self._rings.get(ring.name) is ring:
                _log.warning("ring.unavailable", node=ring.name, error=str(error))
                await self.remove(ring.name)

    def _spawn(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _directory(settings: SiteSettings, node: NodePlan) -> Path:
    return settings.run_dir / node.name / "ring"
