"""A site's switches on this machine: nodes and cables come and go while streams flow."""

import asyncio
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Any

import structlog

from anabranch.core.errors import ConflictError, NotFoundError, UnavailableError
from anabranch.core.events import Event
from anabranch.fabric.dhcp_server import DhcpServer, DhcpSettings
from anabranch.fabric.errors import FabricError
from anabranch.host.journal import Journal
from anabranch.host.process import Child
from anabranch.media.leaf import LeafPlace, LeafServer
from anabranch.site.carriage import Carriage, StreamId, SwitchCarriage, Target
from anabranch.site.control import Control, InsideControl
from anabranch.site.ingress import Ingress, make_ingress
from anabranch.site.layout import Cable, Layout
from anabranch.site.leaf_servers import make_leaf
from anabranch.site.machine import Machine
from anabranch.site.memory import note_nodes, noted_plan
from anabranch.site.plan import HOST_DEVICE, NodePlan, make_plan
from anabranch.site.rings import Rings
from anabranch.site.separate import SeparateControl
from anabranch.site.settings import SiteSettings
from anabranch.site.switches import Abroad, Switches
from anabranch.store.database import Database
from anabranch.tree.description import CandidateLink, ends
from anabranch.tree.planning import Plan, moves

_UP_S = 2.0
_LINGER_S = 0.1
"""Seconds that an old way stays after the new one is taken: what is queued on it arrives."""
_log = structlog.get_logger("anabranch.site")


class SwitchedUnderlay:
    """Namespaces, cables, switches, and the controller that programs them.

    All that changes is idempotent, and done one after the other.

    Attributes:
        plan: what every node is given, whether it is up or not.
        tree: how the nodes are meant to hang; a node that is up need not be in it.
        rings: the ring servers, if lost packets are to be repaired.
    """

    def __init__(
        self,
        settings: SiteSettings,
        journal: Journal,
        on_event: Callable[[Event], None],
        database: Database,
        retarget: Callable[[StreamId, list[Target]], None],
    ) -> None:
        self.plan = noted_plan(settings.run_id, make_plan(settings))
        self.tree = self.plan.tree
        kind = SeparateControl if settings.fabric.controllers else InsideControl
        self._control: Control = kind(settings, self.plan, on_event, database)
        carriage = SwitchCarriage(
            self.plan,
            self._control.put,
            lambda stream, group: retarget(stream, self.carriage.targets(stream, group)),
        )
        repairs = settings.leaf.repair
        self.rings = Rings(settings, self, carriage, retarget) if repairs else None
        self.carriage: Carriage = self.rings or carriage
        self.encoder_namespace: str | None = self.plan.root.namespace
        self.encoder_interface: str | None = HOST_DEVICE
        self._settings = settings
        self._on_event = on_event
        self._machine = Machine(settings, self.plan, journal)
        self._layout = Layout(frozenset(), {})
        self._switches = Switches(
            settings, self.plan.nodes, self._control, lambda: self._layout, on_event
        )
        self.ingress: Ingress | None = None
        if settings.ingress.enabled:
            self.ingress = make_ingress(settings, self.plan, journal, on_event)
            self._switches.beside[self.plan.root.name] = self.ingress.bridge()
        self._changing = asyncio.Lock()
        self._dhcp = self._dhcp_server(on_event) if settings.fabric.dhcp else None

    # --- life ---------------------------------------------------------------------------------

    async def start(self, progress: Callable[[str], None]) -> None:
        layout = self.plan.layout
        nodes = [node for node in self.plan.nodes.values() if node.name in layout.up]
        progress("namespaces and links")
        await asyncio.to_thread(self._make_network, nodes, layout)
        self._layout = layout
        progress("switches")
        if isinstance(self._control, InsideControl):
            await self._control.start()
        if self.ingress is not None:
            await self.ingress.listen()
        await asyncio.gather(*(self._switches.start(node) for node in nodes))
        if isinstance(self._control, SeparateControl):
            await self._control.start()  # they dial the switches, which must be there
        await self._until_connected(layout.up)
        if self.ingress is not None:
            await self.ingress.start()
        if self._dhcp is not None:
            await self._dhcp.start()
        self._note()

    async def _until_connected(self, names: Collection[str]) -> None:
        try:
            await self._switches.until_connected(names)
        except UnavailableError as error:
            if not any(child.adopted for child in self._switches.children().values()):
                raise
            # They forward as before; what the others carry must not end for them.
            _log.warning("switches.late", error=str(error))

    def _note(self) -> None:
        note_nodes(self._settings.run_id, self.tree, self.up)

    def _make_network(self, nodes: Collection[NodePlan], layout: Layout) -> None:
        self._machine.tidy(layout)
        for node in nodes:
            self._machine.make_node(node)
        self._machine.make_cables(layout.cables)
        self._machine.open()
        self._machine.forward(layout.up)
        if self.ingress is not None:
            self.ingress.make()

    def _dhcp_server(self, on_event: Callable[[Event], None]) -> DhcpServer:
        root = self.plan.root
        overlay = self._settings.addresses.overlay
        assert root.host.address is not None
        return DhcpServer(
            DhcpSettings(
                HOST_DEVICE,
                root.host.address,
                first=overlay[overlay.num_addresses // 2],
                last=overlay[-2],
            ),
            root.namespace,
            self._settings.run_dir / root.name / "dhcp",
            self._settings.run_id,
            on_event,
        )

    @property
    def abroad(self) -> Abroad | None:
        """Who reaches nodes on other machines, if there are any."""
        return self._switches.abroad

    @abroad.setter
    def abroad(self, abroad: Abroad) -> None:
        self._switches.abroad = abroad

    @property
    def control(self) -> Control:
        return self._control

    @property
    def controller(self) -> str | None:
        return self._control.active

    async def run(self) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(self._control.run(), name="control")
            if self.ingress is not None:
                group.create_task(self.ingress.run(), name="ingress")

    async def stop(self) -> None:
        if self._dhcp is not None:
            await self._dhcp.stop()
        if self.rings is not None:
            await self.rings.stop()
        await self._switches.stop_all()
        await self._control.stop()
        if self.ingress is not None:
            await self.ingress.stop()

    # --- nodes --------------------------------------------------------------------------------

    @property
    def up(self) -> frozenset[str]:
        """The nodes that are there, in the tree or not."""
        return self._layout.up

    @property
    def layout(self) -> Layout:
        """The nodes and cables that are there."""
        return self._layout

    def running(self, name: str) -> bool:
        """Say whether a node forwards packets, as far as its processes tell."""
        return self._switches.running(name)

    async def start_node(self, name: str) -> None:
        """Bring a node of the pool up, joined to its neighbours by reserve links.

        Raises:
            NotFoundError: the site has no such node.
            AnabranchError: it cannot be; nothing is left of it.
        """
        node = self._node(name)
        async with self._changing:
            if name in self.up:
                return
            alone = replace(self._layout, up=self.up | {name})
            try:
                await asyncio.to_thread(self._machine.make_node, node)
                self._layout = alone
                await self._control.expect(alone)
                await self._switches.start(node)
                await self._switches.until_connected({name})
                await asyncio.to_thread(self._machine.forward, self.up)
                await self._lay(self.plan.lay_out(self.tree, self.up))
            except BaseException:
                await self._remove(node)
                raise
            self._note()
        self._on_event(Event("node.up", name, {"role": str(node.role)}))

    async def stop_node(self, name: str) -> None:
        """Take a node down that is in no tree any more; it is in the pool again.

        Raises:
            NotFoundError: the site has no such node.
            ConflictError: something hangs from it, or it from something.
        """
        node = self._node(name)
        async with self._changing:
            if name not in self.up:
                return
            if node is self.plan.root or name in self.tree.parents:
                raise ConflictError(f"{name} is part of the tree")
            await self._remove(node)
            self._note()
        self._on_event(Event("node.down", name, {"role": str(node.role)}))

    async def _remove(self, node: NodePlan) -> None:
        wanted = self.plan.lay_out(self.tree, self.up - {node.name})
        with suppress(FabricError):  # the rest is removed all the same
            await self._lay(wanted)
        await self._control.expect(wanted)
        self._layout = wanted
        await self._switches.stop({node.name})
        if self.rings is not None:
            await self.rings.remove(node.name)
        await asyncio.to_thread(self._machine.forward, self.up)
        await asyncio.to_thread(self._machine.remove_node, node)

    def _node(self, name: str) -> NodePlan:
        node = self.plan.nodes.get(name)
        if node is None:
            raise NotFoundError(f"there is no node named {name[:60]!r}")
        return node

    # --- links --------------------------------------------------------------------------------

    async def retree(self, tree: Plan) -> None:
        """Have the nodes hang as ``tree`` says. See :meth:`regrow`."""
        await self.regrow(lambda _: tree)

    async def regrow(self, change: Callable[[Plan], Plan]) -> Plan:
        """Have the nodes hang as ``change`` says of the present tree, and return the new one.

        New ways are made before old ones go.

        Raises:
            ConflictError: a node of the tree is not up.
            AnabranchError: it cannot be made, or what ``change`` raises.
        """
        async with self._changing:
            tree = change(self.tree)
            if missing := ({tree.description.root} | tree.parents.keys()) - self.up:
                raise ConflictError(f"{min(missing)} is not up")
            await self._lay(self.plan.lay_out(tree, self.up))
            before, self.tree = self.tree, tree
            self._note()
        if self.rings is not None:
            self.rings.on_stale()
        for move in moves(before, tree):
            if move.new is None:
                self._on_event(Event("node.unlinked", move.name, {"from": move.old}))
            else:
                self._on_event(Event("node.linked", move.name, {"to": move.new, "from": move.old}))
        return tree

    async def link(self, one: str, other: str, rate_mbit: float = 100.0) -> None:
        """Join two nodes by a reserve link; if one is not up, as soon as it is.

        Raises:
            TreeError: that can be no link.
        """
        link = CandidateLink(one, other, rate_mbit)
        await self.regrow(lambda tree: _redrawn(tree, link.ends, link))

    async def unlink(self, one: str, other: str) -> None:
        """Remove the link between two nodes, but for the administrator's redundancy links.

        Raises:
            TreeError: it is part of the tree.
        """
        await self.regrow(lambda tree: _redrawn(tree, ends(one, other), None))

    async def refresh(self, name: str) -> None:
        """Tell a switch that has been away what it has missed."""
        async with self._changing:
            await self._switches.refresh(name)

    async def _lay(self, wanted: Layout) -> None:
        """Make the network what is wanted. Call it with the lock held.

        New cables are there and carry before old ones go; until then these are reserves.
        """
        before = self._layout
        new = wanted.cables.keys() - before.cables.keys()
        old = before.cables.keys() - wanted.cables.keys()
        both = Layout(before.up, {**dict.fromkeys(old, True), **wanted.cables})
        if new:
            await asyncio.to_thread(self._machine.make_cables, new)
            self._layout = both
            try:
                await self._switches.apply({name for cable in new for name in cable.nodes})
            except BaseException:
                self._layout = before
                await asyncio.to_thread(self._machine.remove_cables, new)
                raise
        self._layout = both
        await self._control.expect(both)
        await self._until_carrying(new)
        if old:
            await self._control.expect(wanted)
            await self._settled()
            await asyncio.sleep(_LINGER_S)
            self._layout = wanted
            await self._switches.stop(before.up - wanted.up)
            try:
                await self._switches.apply(
                    {name for cable in old for name in cable.nodes} & wanted.up
                )
            finally:
                await asyncio.to_thread(self._machine.remove_cables, old)
        self._layout = wanted

    async def _until_carrying(self, new: Collection[Cable]) -> None:
        """Wait until new links are up, and what is wanted goes by them."""
        coming = {
            cable.link for cable in new if all(self.running(name) for name in cable.nodes)
        }  # fmt: skip
        for _ in range(round(_UP_S / 0.01) if coming else 0):
            with suppress(FabricError):
                links = await self._control.links()
                if all(links.get(link) for link in coming):
                    break
            await asyncio.sleep(0.01)
        await self._settled()

    async def _settled(self) -> None:
        try:
            await self._control.settled()
        except FabricError as error:  # it is tried again, whatever we do
            _log.warning("carriage.late", error=str(error))

    # --- what is there ------------------------------------------------------------------------

    def leaves(self) -> list[LeafServer]:
        there = [leaf for leaf in self.plan.leaves if leaf.name in self.up]
        return [self.leaf(leaf.name) for leaf in there if not leaf.sorts_only]

    def leaf(self, name: str) -> LeafServer:
        """Return the leaf server of a node, to be started."""
        leaf = self.plan.nodes[name]
        if leaf.tunnel is not None:
            assert self.abroad is not None
            return self.abroad.leaf(leaf)
        assert leaf.access is not None
        assert leaf.access.address is not None
        place = LeafPlace(
            name=leaf.name,
            directory=self._settings.run_dir / leaf.name / "leaf",
            run_id=self._settings.run_id,
            netns=leaf.namespace,
            media_addresses=(str(leaf.access.address.ip),),
            public_addresses=self._settings.public_addresses,
            media_ports=leaf.media_ports,
            inlet_interface=str(leaf.overlay_address),
            inlet_ports=self._settings.ports.inlets,
            inner_addresses=leaf.inner_addresses,
        )
        made = make_leaf(self._settings.leaf, place)
        if self.rings is not None:
            self.rings.adopt(made)
        return made

    async def nodes(self) -> list[dict[str, Any]]:
        connected = await self._control.connected()
        return [
            {
                "name": node.name,
                "role": str(node.role),
                "parent": self.tree.parents.get(node.name),
                "connected": node.name in connected,
                "address": str(node.overlay_address),
            }
            for node in self.plan.nodes.values()
        ]

    def children(self) -> Mapping[str, Child]:
        found = self._switches.children()
        if self._dhcp is not None:
            found[self._dhcp.child.spec.name] = self._dhcp.child
        if self.rings is not None:
            found |= self.rings.children()
        return found | dict(self._control.children())

    async def port_counters(self) -> list[dict[str, Any]]:
        return await self._switches.port_counters(
            [name for name in self.plan.nodes if name in self.up]
        )


def _redrawn(tree: Plan, pair: tuple[str, str], link: CandidateLink | None) -> Plan:
    """Return a tree with this link between two nodes; redundancy links stay."""
    present = tree.description.links
    if link is not None and any(each.ends == pair for each in present):
        return tree
    rest = tuple(each for each in present if each.ends != pair or each.redundant)
    drawn = rest if link is None else (*rest, link)
    return Plan(replace(tree.description, links=drawn), tree.parents, tree.pruned)
