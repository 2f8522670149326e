"""The root's side of nodes on other machines: who is invited, who has come, what they are told.

A guest that comes gets a tunnel (:mod:`.hub`), is told its terms (:mod:`.guests`), and is then a
node like any other: its switch is in the fabric, and a leaf's server takes viewers.
"""

import asyncio
from collections.abc import Callable, Coroutine, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

import structlog

from anabranch.core.errors import AnabranchError, ConflictError, NotFoundError
from anabranch.core.events import Event
from anabranch.fabric.bridges import Bridge
from anabranch.fabric.errors import FabricError
from anabranch.host.journal import Journal
from anabranch.host.process import Child
from anabranch.host.wireguard import check_key
from anabranch.site.bus import CONFIGURATION, make_bus, write_configuration
from anabranch.site.control import switch_directory
from anabranch.site.guests import (
    FAREWELL,
    HOLDING,
    WIREGUARD,
    Guest,
    GuestBook,
    Terms,
    digest_of,
    guest_address,
    room_for_guests,
    to_features,
    ways_of,
    with_guest,
    without_guest,
)
from anabranch.site.hub import Hub
from anabranch.site.nodes import Nodes
from anabranch.site.plan import BRIDGE, NodePlan, guest_plan
from anabranch.site.presence import Presence
from anabranch.site.remote_leaf import RemoteLeaf
from anabranch.site.settings import RemoteSettings, SiteSettings
from anabranch.site.switched import SwitchedUnderlay
from anabranch.tree.admission import TOKEN_LIFETIME_S, Admission
from anabranch.tree.certificates import Authority, Credentials
from anabranch.tree.complaints import Complaints
from anabranch.tree.events import Introduced, Left, NodeEvent
from anabranch.tree.model import Role
from anabranch.tree.peering import Identity
from anabranch.tree.root import RootMember
from anabranch.tree.runtime import TreeNode
from anabranch.tree.soleil.messages import Hello

_LOOK_S = 1.0
_AGAIN_S = 10.0
_QUIET_S = 60.0
"""Seconds between two complaints about one guest, which may greet us all the time."""
_log = structlog.get_logger("anabranch.site")


class RemoteSwitch:
    """A guest's switch, as the underlay knows switches: it is told through the guest's agent."""

    def __init__(self, name: str, remote: "Remote") -> None:
        self.name = name
        self._remote = remote

    @property
    def running(self) -> bool:
        """Whether the guest's agent is there; its switch carries on without."""
        return self._remote.is_present(self.name)

    @property
    def children(self) -> tuple[Child, ...]:
        return ()

    async def start(self) -> None:
        pass

    async def apply(self, bridges: Sequence[Bridge]) -> None:
        """Have the guest's switch be so, and return when it is.

        Raises:
            FabricError: its agent does not say so, see :meth:`Presence.until_holding`; it is told
                again and again.
        """
        (bridge,) = bridges
        await self._remote.tell(self.name, bridge)

    async def stop(self) -> None:
        pass


class Remote:
    """The site's guests.

    Use: make it before the steward, which takes :attr:`connection`; :meth:`attach` what it works
    on; :meth:`start` once the site is up.

    Raises:
        UsageError: a file in the state directory is damaged, or there is no room.
        OSError: one cannot be read or written.
    """

    def __init__(
        self,
        settings: SiteSettings,
        remote: RemoteSettings,
        underlay: SwitchedUnderlay,
        journal: Journal,
        on_event: Callable[[Event], None],
    ) -> None:
        plan, tunnels = underlay.plan, settings.addresses.tunnels
        state = remote.state
        state.mkdir(parents=True, exist_ok=True, mode=0o700)
        authority = Authority.open(state / "authority.pem")
        self._credentials = Credentials(state / "root")
        authority.provide(self._credentials, plan.root.name, Role.ROOT)
        self.admission = Admission(authority, state / "admission.json")
        for node in plan.nodes.values():
            self.admission.adopt(node.name, node.role)
        room = room_for_guests(len(plan.nodes), settings.addresses.overlay, tunnels)
        self._book = GuestBook(state / "guests.json", room)
        self._settings = settings
        self._listen = remote.listen
        self._bus_url = remote.bus
        self._bus_file = state / CONFIGURATION
        root = Identity(plan.root.name, Role.ROOT)
        self._bus = (
            make_bus(remote.bus, settings.name, root, self._credentials) if remote.bus else None
        )
        self._underlay = underlay
        self._on_event = on_event
        self._nodes: Nodes | None = None
        self._root: Callable[[], TreeNode] | None = None
        self._present: dict[str, Presence] = {}
        self._complaints = Complaints(_log, _QUIET_S)
        self._busy: dict[str, asyncio.Lock] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._hub = Hub(
            settings.name,
            plan.hub,
            tunnels,
            remote.listen[1],
            state / "wireguard.key",
            self._credentials,
            settings.run_id,
            journal,
            self._controller_for,
        )
        for guest in self._book:
            plan.admit(guest_plan(settings, guest))
        underlay.abroad = self
        self._tell_bus()

    @property
    def connection(self) -> dict[str, Any]:
        """What the root's :class:`TreeNode` needs for guests to come."""
        return {"credentials": self._credentials, "admission": self.admission}

    def attach(self, nodes: Nodes, root: Callable[[], TreeNode]) -> None:
        """Work on these nodes; ``root`` returns the root of the SOLEIL tree."""
        self._nodes = nodes
        self._root = root

    async def start(self) -> None:
        """Let guests come from now on.

        Raises:
            ConflictError: the address cannot be listened at, or its UDP port is taken.
            ProcessError, NetworkError: as :meth:`Hub.start`.
        """
        await self._hub.start()
        if self._bus is not None:
            self._bus.start()
        self.listen()

    def listen(self) -> None:
        """Listen for guests, also at a root of the SOLEIL tree that has begun anew.

        Raises:
            ConflictError: the address cannot be listened at.
        """
        host, port = self._listen
        try:
            self._tree_node.listen(host, port)
        except OSError as error:
            reason = error.strerror or error
            raise ConflictError(
                f"TCP port {port} of {host}, for remote.listen, cannot be had: {reason}; end what"
                " uses it, or give remote.listen another address or port"
            ) from error
        if self._bus is not None:
            self._bus.listen(self._tree_node.arriving)

    async def run(self) -> None:
        """Make guests part of the site that have come, and tell them what they missed, for ever."""
        loop = asyncio.get_running_loop()
        while True:
            for name, present in self._present.items():
                due = present.again_at is not None and loop.time() >= present.again_at
                if due and self.is_present(name):
                    present.again_at = None
                    self._spawn(self._take_in(name))
                elif present.bridge is not None and present.holding != self._digest(name):
                    self._say(name)
            await asyncio.sleep(_LOOK_S)

    async def stop(self) -> None:
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._bus is not None:
            await self._bus.close()
        await self._hub.stop()

    @property
    def children(self) -> tuple[Child, ...]:
        return (self._hub.child,)

    @property
    def port(self) -> int:
        """Where guests come, TCP and UDP."""
        return self._listen[1]

    # --- what an operator asks for ------------------------------------------------------------

    def invite(
        self,
        name: str,
        role: Role,
        *,
        parents: tuple[str, ...] = (),
        rate_mbit: float = 100.0,
        capacity: int | None = None,
        lifetime_s: float = TOKEN_LIFETIME_S,
    ) -> str:
        """Enter a node in the book and return the token with which it may join, once.

        Raises:
            UsageError: no node can be called that, or a parent is no node of the site.
            ConflictError: a node of this machine is, or it is invited in another role.
            OSError: it cannot be kept.
        """
        plan = self._underlay.plan
        if name in plan.nodes and name not in self._book:
            raise ConflictError(f"{name} is a node of this machine")
        for parent in parents:
            if parent not in plan.nodes or plan.nodes[parent].role is Role.LEAF:
                raise NotFoundError(f"there is no node {parent[:60]!r} to hang from")
        guest = self._book.invite(
            name, role, parents=parents, rate_mbit=rate_mbit, capacity=capacity
        )
        self._tell_bus()
        plan.admit(guest_plan(self._settings, guest))
        token = self.admission.issue(name, role, lifetime_s)
        self._on_event(Event("node.invited", name, {"role": str(role)}))
        return token.reveal()

    async def remove(self, name: str) -> None:
        """End a guest and bar it; its viewers are sent elsewhere.

        Raises:
            NotFoundError: there is no such guest.
            ConflictError: something would hang from nothing without it.
        """
        if name not in self._book:
            raise NotFoundError(f"there is no guest named {name[:60]!r}")
        self._abandon(name)
        async with self._lock(name):
            await self._take_out(name)
            with suppress(AnabranchError):  # it is away; it will be refused when it comes
                self._tree_node.kill(name, "removed by the operator")
            if self.admission.is_known(name):
                self.admission.remove(name)
            if (present := self._present.pop(name, None)) is not None:
                present.end()
            self._book.remove(name)
            self._tell_bus()
            self._underlay.plan.dismiss(name)
            await self._set_tunnels()
        self._on_event(Event("node.removed", name))

    def report(self) -> list[dict[str, Any]]:
        """Return every guest: where it is, and how."""
        return [self._report(guest) for guest in self._book]

    def _report(self, guest: Guest) -> dict[str, Any]:
        present = self._present.get(guest.name)
        status = self._hub.status.get(present.key) if present is not None else None
        up = guest.name in self._underlay.up
        return {
            "name": guest.name,
            "role": str(guest.role),
            "state": "up" if up and self.is_present(guest.name) else "away" if up else "invited",
            "parent": self._underlay.tree.parents.get(guest.name),
            "address": str(self._address(guest)),
            "endpoint": f"{status.endpoint[0]}:{status.endpoint[1]}"
            if status is not None and status.endpoint is not None
            else None,
            "heard_at": status.heard_at if status is not None else None,
        }

    # --- what happens in the tree -------------------------------------------------------------

    def happened(self, event: NodeEvent) -> None:
        """Take what the root of the SOLEIL tree tells."""
        match event:
            case Introduced(name, hello) if name in self._book:
                self._introduced(name, hello)
            case Left(name, reason) if name in self._present and reason == FAREWELL:
                self._present[name].end()
                self._abandon(name)
                self._spawn(self._said_goodbye(name, self._present[name]))

    def is_present(self, name: str) -> bool:
        """Say whether a guest's agent is in the tree."""
        member = self._tree_node.member
        assert isinstance(member, RootMember)
        return name in self._present and member.registry.is_present(name)

    def _introduced(self, name: str, hello: Hello) -> None:
        try:
            key = check_key(hello.features.get(WIREGUARD, ""))
        except AnabranchError as error:
            now = asyncio.get_running_loop().time()
            self._complaints.make(name, now, "guest.without_key", node=name, error=str(error))
            return
        before = self._present.get(name)
        if before is None:
            self._present[name] = Presence(key)
        elif before.over or before.key != key:
            before.end()
            self._present[name] = Presence(key, before.bridge)
        self._present[name].hold(hello.features.get(HOLDING))

    def _abandon(self, name: str) -> None:
        """Have nobody wait for the leaf server of a guest that leaves."""
        leaf = self._nodes.leaf(name) if self._nodes is not None else None
        if isinstance(leaf, RemoteLeaf):
            leaf.abandon()

    async def _said_goodbye(self, name: str, present: Presence) -> None:
        async with self._lock(name):
            try:
                await self._take_out(name)
            except AnabranchError as error:  # it stays a node that is away
                _log.warning("guest.missed", node=name, error=str(error))
                return
            if self._present.get(name) is present:  # else it is back already, and waits its turn
                del self._present[name]
            await self._set_tunnels()

    async def _take_in(self, name: str) -> None:
        """Make a guest that has come part of the site."""
        present = self._present[name]
        async with self._lock(name):
            if self._present.get(name) is not present or present.over:
                return
            try:
                await self._set_tunnels()
                guest = self._book[name]
                await self._underlay.regrow(lambda tree: with_guest(tree, guest))
                assert self._nodes is not None
                await self._nodes.start_node(name)
            except AnabranchError as error:
                self._on_event(Event("node.failed", name, {"error": str(error)}))
                present.again_at = asyncio.get_running_loop().time() + _AGAIN_S

    async def _take_out(self, name: str) -> None:
        assert self._nodes is not None
        await self._nodes.switch_off(name, patience_s=0.0)
        await self._underlay.regrow(lambda tree: without_guest(tree, name))

    # --- what guests are told -----------------------------------------------------------------

    def switch(self, node: NodePlan) -> RemoteSwitch:
        """Return the switch of a guest."""
        return RemoteSwitch(node.name, self)

    def leaf(self, node: NodePlan) -> RemoteLeaf:
        """Return the leaf server of a guest, to be started."""
        assert node.tunnel is not None
        path = self._settings.run_dir / node.name / "leaf.sock"
        return RemoteLeaf(node.name, path, self._hub.way_to(node.name, node.tunnel))

    async def tell(self, name: str, bridge: Bridge) -> None:
        """See :meth:`RemoteSwitch.apply`."""
        present = self._present.get(name)
        if present is None:
            raise FabricError(f"{name} is not there")
        present.bridge = bridge
        self._say(name)
        try:
            await present.until_holding(lambda: self._digest(name), lambda: self.is_present(name))
        except FabricError as error:
            raise FabricError(f"{name} cannot be told: {error}") from None

    def _say(self, name: str) -> None:
        hello = replace(self._tree_node.member.hello(), features=to_features(self._terms(name)))
        with suppress(AnabranchError):  # it is away; the next look tells it
            self._tree_node.send(hello, name)

    def _digest(self, name: str) -> str:
        return digest_of(self._terms(name))

    def _terms(self, name: str) -> Terms:
        guest, node = self._book[name], self._underlay.plan.nodes[name]
        bridge, ports = self._present[name].bridge, self._settings.ports
        assert bridge is not None
        assert node.host.address is not None
        assert node.host.mac is not None
        return Terms(
            site=self._settings.name,
            address=guest_address(self._settings.addresses.tunnels, guest.index),
            hub_key=self._hub.public_key,
            hub_port=self._hub.port,
            hub_life=self._hub.life,
            controller=self._hub.controller,
            dpid=node.dpid,
            host=node.host.address,
            host_mac=node.host.mac,
            ways=ways_of(guest, bridge, self._addresses(), bfd_ms=self._settings.fabric.bfd_ms),
            inlets=ports.inlets,
            pipelines=ports.pipelines,
            leaf=self._settings.leaf.kind,
        )

    def _addresses(self) -> Mapping[int, IPv4Address]:
        hub = self._hub.address.ip
        return {node.index: node.tunnel or hub for node in self._underlay.plan.nodes.values()}

    def _address(self, guest: Guest) -> IPv4Address:
        return guest_address(self._settings.addresses.tunnels, guest.index).ip

    def _tell_bus(self) -> None:
        """Write for the bus's server who may use it. Raises OSError."""
        if self._bus_url is not None:
            nodes = {
                self._underlay.plan.root.name: Role.ROOT,
                **{g.name: g.role for g in self._book},
            }
            write_configuration(
                self._bus_file, self._bus_url, self._settings.name, nodes, self._credentials
            )

    async def _set_tunnels(self) -> None:
        await self._hub.set_guests(
            {self._address(self._book[name]): p.key for name, p in self._present.items()}
        )

    def _controller_for(self, identity: Identity) -> Path | None:
        """Return where the controller waits for a guest's switch."""
        if identity.name not in self._present or not self.admission.is_known(identity.name):
            return None
        return switch_directory(self._settings, identity.name) / f"{BRIDGE}.controller"

    # --- inside -------------------------------------------------------------------------------

    @property
    def _tree_node(self) -> TreeNode:
        assert self._root is not None
        return self._root()

    def _lock(self, name: str) -> asyncio.Lock:
        return self._busy.setdefault(name, asyncio.Lock())

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
