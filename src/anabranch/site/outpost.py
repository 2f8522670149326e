"""A node of a site on this machine, which is not the root's: made as the root's terms have it.

One namespace has everything: the end of the tunnel, the switch with the ends of its links, the host
behind it, and a leaf's server. This machine's own network gets a leaf's link and forwarded ports.
"""

import asyncio
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from ipaddress import IPv4Interface, IPv4Network
from pathlib import Path

import structlog

from anabranch.core.events import Event
from anabranch.fabric.bridges import Bfd, Bridge, ControllerTarget, Device, Tls
from anabranch.fabric.openvswitch import OpenVSwitch
from anabranch.host import network, packet_rules
from anabranch.host.journal import TABLE_PREFIX, Journal
from anabranch.host.network import Port
from anabranch.host.process import Child
from anabranch.host.wireguard import KEEPALIVE_S, Interface, Peer
from anabranch.media.leaf import LeafPlace, LeafServer, LeafUnavailableError
from anabranch.site.guests import MTU, Terms, Way
from anabranch.site.layout import HOST_PORT, MAX_NODES
from anabranch.site.leaf_news import LeafNews
from anabranch.site.leaf_servers import make_leaf
from anabranch.site.machine import forward_to, make_node, open_machine, remove_node
from anabranch.site.plan import (
    ACCESS_DEVICE,
    BRIDGE,
    HOST_DEVICE,
    SWITCH_DEVICE,
    NodePlan,
    access_ends_6,
    namespace_of,
)
from anabranch.site.settings import ACCESS_6, LeafSettings, families_of
from anabranch.site.splice import InDoor
from anabranch.tree.certificates import Credentials, server_context
from anabranch.tree.model import Role
from anabranch.tree.peering import Identity
from anabranch.tree.pipelines.overlay import Overlay

_ACCESS = IPv4Network("10.97.255.0/30")
_log = structlog.get_logger("anabranch.node")


@dataclass(frozen=True, slots=True)
class OutpostSettings:
    """What this machine's owner decides.

    Attributes:
        name, role: as the node's certificate has them.
        root: this site's root, by which the hub is reached, too: its IPv4 address.
        run_dir: for sockets; short, see :class:`OpenVSwitch`.
        private: the WireGuard key, base64.
        api: the Unix socket of the leaf's API.
        media_ports: first and last UDP port for viewers.
        public_addresses: by which viewers reach this machine.
        access: four addresses for the link between the leaf and this machine.
    """

    name: str
    role: Role
    root: str
    run_dir: Path
    run_id: str
    credentials: Credentials
    private: str
    api: Path
    media_ports: tuple[int, int] = (20000, 20999)
    public_addresses: tuple[str, ...] = ()
    access: IPv4Network = _ACCESS


class Outpost:
    """Makes the node, changes it, and removes it.

    Args:
        news: of the leaf's server, for the API.
        on_event: gets ``child.restarted``.
    """

    def __init__(
        self,
        settings: OutpostSettings,
        journal: Journal,
        news: LeafNews,
        on_event: Callable[[Event], None],
    ) -> None:
        self._settings = settings
        self._journal = journal
        self._news = news
        self._on_event = on_event
        self._terms: Terms | None = None
        self._made: _Made | None = None

    @property
    def overlay(self) -> Overlay | None:
        """Where pipelines may be; None: the node is not made."""
        return None if self._made is None else self._made.overlay

    def keeps(self, terms: Terms) -> bool:
        """Say whether what is made stays as it is under these terms, but for links."""
        before = self._terms
        return self._made is not None and before is not None and terms.same_but_ways(before)

    async def take(self, terms: Terms) -> None:
        """Be what the terms say; what is so already is not touched.

        Raises:
            AnabranchError: something cannot be had. To call it again does no harm.
        """
        before = self._terms
        if before is None or self._made is None or not self.keeps(terms):
            await self.stop()
            made = _Made(self._settings, terms, self._journal, self._on_event)
            try:
                await made.start(self._news)
            except BaseException:
                await made.stop(self._news)
                raise
            self._terms, self._made = terms, made
            return
        self._terms = terms
        if terms.hub_life != before.hub_life:
            await self._made.tunnel.renew()
        if terms.ways != before.ways:
            await self._made.set_ways(terms.ways)

    async def stop(self) -> None:
        """Remove the node."""
        made, self._made, self._terms = self._made, None, None
        if made is not None:
            await made.stop(self._news)

    def children(self) -> Iterator[Child]:
        """Yield the processes of the node."""
        if self._made is not None:
            yield from self._made.children()


class _Made:
    """A node as it is made for certain terms."""

    def __init__(
        self,
        settings: OutpostSettings,
        terms: Terms,
        journal: Journal,
        on_event: Callable[[Event], None],
    ) -> None:
        self._settings = settings
        self._terms = terms
        self._journal = journal
        self._tag = zlib.crc32(f"{terms.site}/{settings.name}".encode())
        self._plan = _plan(settings, terms, self._tag)
        self._ways: frozenset[Way] = frozenset()
        self.overlay = self._plan.overlay(terms.pipelines)
        self._switch = OpenVSwitch(
            settings.name,
            self._plan.namespace,
            settings.run_dir / "ovs",
            settings.run_id,
            on_event,
        )
        self._leaf = self._leaf_server() if settings.role is Role.LEAF else None
        self._leaf_coming: asyncio.Task[None] | None = None
        self._door = InDoor(self._api_for)
        self.tunnel = Interface(
            f"abv{self._tag:08x}",
            self._plan.namespace,
            terms.address,
            settings.private,
            settings.run_id,
        )

    async def start(self, news: LeafNews) -> None:
        settings, terms, namespace = self._settings, self._terms, self._plan.namespace
        await asyncio.to_thread(make_node, self._plan, self._journal)
        await self.tunnel.start()
        network_of_tunnels = terms.address.network
        endpoint = (settings.root, terms.hub_port)
        await self.tunnel.set_peers(
            [Peer(terms.hub_key, (network_of_tunnels,), endpoint, KEEPALIVE_S)]
        )
        await asyncio.to_thread(
            packet_rules.guard_tunnel,
            namespace,
            self.tunnel.device,
            tcp_port=terms.api_port,
            from_address=terms.hub,
        )
        await self._switch.start()
        await self.set_ways(terms.ways)
        if self._leaf is None:
            return
        await asyncio.to_thread(self._open_machine)
        listening = network.socket_inside(namespace)
        listening.bind((str(terms.address.ip), terms.api_port))
        await self._door.open(listening, server_context(settings.credentials))
        news.follow(self._leaf)
        self._leaf_coming = asyncio.create_task(self._start_leaf(self._leaf), name="leaf comes")

    async def _start_leaf(self, leaf: LeafServer) -> None:
        try:
            await leaf.start()
        except LeafUnavailableError as error:
            _log.error("leaf.failed", error=str(error))

    async def set_ways(self, ways: tuple[Way, ...]) -> None:
        """Have exactly these links: new ones first."""
        wanted = frozenset(ways)
        old, new = self._ways - wanted, wanted - self._ways
        devices = {way.device for way in new}
        for way in old:
            if way.device in devices:  # it leads elsewhere now
                await self._unplug(way)
        for way in new:
            await asyncio.to_thread(self._plug, way)
            self._ways |= {way}
        interfaces = [
            Device(
                name=way.device,
                ofport=way.port_no,
                bfd=Bfd(way.bfd_ms, way.bfd_ms) if way.bfd_ms else None,
            )
            for way in sorted(wanted, key=lambda way: way.port_no)
        ]
        credentials = self._settings.credentials
        await self._switch.apply(
            [
                Bridge(
                    BRIDGE,
                    (Device(name=SWITCH_DEVICE, ofport=HOST_PORT), *interfaces),
                    self._terms.dpid,
                    controllers=(ControllerTarget(self._terms.controller),),
                )
            ],
            tls=Tls(str(credentials.key), str(credentials.chain), str(credentials.authority)),
        )
        for way in old & self._ways:
            await self._unplug(way)

    def _plug(self, way: Way) -> None:
        network.make_vxlan(
            Port(way.device, self._plan.namespace, rate_mbit=way.rate_mbit),
            underlay=self._plan.namespace,
            local=self._terms.address.ip,
            remote=way.remote,
            key=way.key,
            mtu=MTU,
        )

    async def _unplug(self, way: Way) -> None:
        await asyncio.to_thread(network.remove_link, way.device, self._plan.namespace)
        self._ways -= {way}

    async def stop(self, news: LeafNews) -> None:
        """Remove everything, as far as it came."""
        if self._leaf_coming is not None:
            self._leaf_coming.cancel()
            await asyncio.gather(self._leaf_coming, return_exceptions=True)
        news.follow(None)
        await self._door.close()
        if self._leaf is not None:
            await self._leaf.stop()
        await self._switch.stop()
        await self.tunnel.stop()
        await asyncio.to_thread(remove_node, self._plan, self._journal)

    def children(self) -> Iterator[Child]:
        yield self.tunnel.child
        yield from self._switch.children
        if self._leaf is not None and self._leaf.child is not None:
            yield self._leaf.child

    def _api_for(self, identity: Identity) -> Path | None:
        return self._settings.api if identity.role is Role.ROOT else None

    def _open_machine(self) -> None:
        table = f"{TABLE_PREFIX}node_{self._tag:08x}"
        families = families_of(self._settings.public_addresses, self._terms.leaf)
        open_machine(table, families, self._journal)
        forward_to(table, families, [self._plan])

    def _leaf_server(self) -> LeafServer:
        access = self._plan.access
        assert access is not None
        assert access.address is not None
        return make_leaf(
            LeafSettings(self._terms.leaf),
            LeafPlace(
                name=self._settings.name,
                directory=self._settings.run_dir / "leaf",
                run_id=self._settings.run_id,
                netns=self._plan.namespace,
                media_addresses=(str(access.address.ip),),
                public_addresses=self._settings.public_addresses,
                media_ports=self._plan.media_ports,
                inlet_interface=str(self._plan.overlay_address),
                inlet_ports=self._terms.inlets,
                inner_addresses=self._plan.inner_addresses,
            ),
        )


def _plan(settings: OutpostSettings, terms: Terms, tag: int) -> NodePlan:
    namespace = namespace_of(terms.site, settings.name)
    inner = outer = None
    if settings.role is Role.LEAF:
        outer = Port(f"aba{tag:08x}", None, address=_interface(settings.access, 1))
        inner = Port(ACCESS_DEVICE, namespace, address=_interface(settings.access, 2))
        if "ip6" in families_of(settings.public_addresses, terms.leaf):
            # Above the numbers of nodes: a site on this machine may have the same subnet.
            ends = access_ends_6(ACCESS_6, tag & 0xFFFF, MAX_NODES + (tag >> 16))
            inner, outer = replace(inner, address_6=ends[0]), replace(outer, address_6=ends[1])
    return NodePlan(
        name=settings.name,
        role=settings.role,
        index=0,
        namespace=namespace,
        dpid=terms.dpid,
        host=Port(HOST_DEVICE, namespace, mac=terms.host_mac, address=terms.host),
        switch_end=Port(SWITCH_DEVICE, namespace),
        access=inner,
        gateway=outer,
        media_ports=settings.media_ports,
    )


def _interface(addresses: IPv4Network, number: int) -> IPv4Interface:
    return IPv4Interface((addresses[number], addresses.prefixlen))
