"""The underlay: what carries the channels, made and removed.

``SwitchedUnderlay`` makes a namespace, an Open vSwitch and a host for every node of the plan.
``DirectUnderlay`` makes nothing: one leaf server beside the director, fed by the encoders.
"""

import asyncio
from collections.abc import Callable, Mapping
from functools import partial
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any, Protocol

from anabranch.core.errors import UnavailableError
from anabranch.core.events import Event
from anabranch.fabric.bridges import Bfd, Bridge, ControllerTarget, Device
from anabranch.fabric.dhcp_server import DhcpServer, DhcpSettings
from anabranch.fabric.errors import FabricError
from anabranch.fabric.openvswitch import OpenVSwitch
from anabranch.host import network
from anabranch.host.journal import Journal
from anabranch.host.process import Child
from anabranch.media.janus import JanusLeaf
from anabranch.media.janus_config import JanusSettings
from anabranch.site.carriage import Carriage, DirectCarriage, StreamId, SwitchCarriage, Target
from anabranch.site.control import (
    Control,
    InsideControl,
    SeparateControl,
    switch_directory,
)
from anabranch.site.plan import BRIDGE, HOST_DEVICE, NodePlan, make_plan
from anabranch.site.settings import SiteSettings
from anabranch.store.database import Database

_FORWARDING_KEEPER = Path("/run/anabranch.ip_forward")
_FORGET_AFTER_S = 8
_PUNCTUAL_MS = 100


class Underlay(Protocol):
    """What a site stands on."""

    carriage: Carriage
    encoder_namespace: str | None
    encoder_interface: str | None

    @property
    def controller(self) -> str | None:
        """The child that programs the switches, None if the director does or there are none."""

    async def start(self, progress: Callable[[str], None]) -> None: ...

    async def stop(self) -> None: ...

    def leaves(self) -> list[JanusLeaf]:
        """Return the leaf servers to be started, one for each leaf node."""

    @property
    def control(self) -> Control | None:
        """Who programs the switches, if there are any."""

    async def run(self) -> None:
        """Do what must go on while the site is up, for ever."""

    async def nodes(self) -> list[dict[str, Any]]: ...

    def children(self) -> Mapping[str, Child]: ...

    async def port_counters(self) -> list[dict[str, Any]]: ...


class SwitchedUnderlay:
    """Namespaces, links, switches, and the controller that programs them."""

    def __init__(
        self,
        settings: SiteSettings,
        journal: Journal,
        on_event: Callable[[Event], None],
        database: Database,
    ) -> None:
        self.plan = make_plan(settings)
        kind = SeparateControl if settings.fabric.controllers else InsideControl
        self._control: Control = kind(settings, self.plan, on_event, database)
        self.carriage: Carriage = SwitchCarriage(self.plan, self._control.put)
        self.encoder_namespace: str | None = self.plan.nodes[self.plan.tree.root.name].namespace
        self.encoder_interface: str | None = HOST_DEVICE
        self._settings = settings
        self._journal = journal
        self._switches = {
            node.name: OpenVSwitch(
                node.name,
                node.namespace,
                switch_directory(settings, node.name),
                settings.run_id,
                on_event,
                # A switch that is late with its assurances looks dead to its neighbours.
                realtime=0 < settings.fabric.bfd_ms < _PUNCTUAL_MS,
            )
            for node in self.plan.nodes.values()
        }
        self._dhcp = self._dhcp_server(on_event) if settings.fabric.dhcp else None

    async def start(self, progress: Callable[[str], None]) -> None:
        progress("namespaces and links")
        await asyncio.to_thread(self._make_network)
        progress("switches")
        if isinstance(self._control, InsideControl):
            await self._control.start()
        await asyncio.gather(*(self._start_switch(node) for node in self.plan.nodes.values()))
        if isinstance(self._control, SeparateControl):
            await self._control.start()  # they dial the switches, which must be there
        await self._until_connected()

    def _dhcp_server(self, on_event: Callable[[Event], None]) -> DhcpServer:
        root = self.plan.nodes[self.plan.tree.root.name]
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
    def control(self) -> Control:
        return self._control

    @property
    def controller(self) -> str | None:
        return self._control.active

    async def run(self) -> None:
        await self._control.run()

    def _make_network(self) -> None:
        for node in self.plan.nodes.values():
            self._journal.record("netns", node.namespace)
            network.make_namespace(node.namespace)
            network.make_link(node.host, node.switch_end)
        for one, other in self.plan.links:
            network.make_link(one, other)
        root = self.plan.nodes[self.plan.tree.root.name]
        network.add_route(root.namespace, str(self._settings.addresses.groups), device=HOST_DEVICE)
        self._open_leaves()

    def _open_leaves(self) -> None:
        """Make the leaves reachable: an access link each, and this machine's media ports."""
        forwards: dict[IPv4Address, tuple[int, int]] = {}
        for leaf in self.plan.leaves:
            assert leaf.access is not None
            assert leaf.gateway is not None
            assert leaf.access.address is not None
            assert leaf.gateway.address is not None
            self._journal.record("link", leaf.gateway.device)
            network.make_link(leaf.gateway, leaf.access)
            network.add_route(
                leaf.namespace,
                "default",
                device=leaf.access.device,
                via=str(leaf.gateway.address.ip),
            )
            forwards[leaf.access.address.ip] = leaf.media_ports
            network.watch_ports(
                leaf.namespace,
                leaf.access.device,
                leaf.media_ports,
                forget_after_s=_FORGET_AFTER_S,
            )
        if not self._settings.public_addresses:
            return
        # Recorded first, and so undone last: once this site's table is gone.
        self._journal.record("forwarding", str(_FORWARDING_KEEPER))
        self._journal.record("nft", self.plan.table)
        network.forward_ports(self.plan.table, forwards)
        network.enable_forwarding(_FORWARDING_KEEPER)

    async def _start_switch(self, node: NodePlan) -> None:
        switch = self._switches[node.name]
        interval = self._settings.fabric.bfd_ms
        watched = self.plan.link_devices[node.name] if interval else ()
        target = self._control.target(node.name)
        await switch.start()
        await switch.apply(
            [
                Bridge(
                    BRIDGE,
                    tuple(
                        Device(
                            name=device,
                            ofport=number,
                            bfd=Bfd(interval, interval) if device in watched else None,
                        )
                        for device, number in node.ports.items()
                    ),
                    node.dpid,
                    controllers=(ControllerTarget(target),) if target is not None else (),
                )
            ]
        )

    async def _until_connected(self, limit: float = 10.0) -> None:
        missing = sorted(self.plan.nodes)
        for _ in range(round(limit / 0.02)):
            missing = sorted(self.plan.nodes.keys() - await self._control.connected())
            if not missing:
                return
            await asyncio.sleep(0.02)
        raise UnavailableError(f"these switches do not connect: {', '.join(missing)}")

    async def stop(self) -> None:
        if self._dhcp is not None:
            await self._dhcp.stop()
        await asyncio.gather(
            *(switch.stop() for switch in self._switches.values()), return_exceptions=True
        )
        await self._control.stop()

    def leaves(self) -> list[JanusLeaf]:
        result = []
        for leaf in self.plan.leaves:
            assert leaf.access is not None
            assert leaf.access.address is not None
            settings = JanusSettings(
                name=leaf.name,
                directory=self._settings.run_dir / leaf.name / "janus",
                run_id=self._settings.run_id,
                netns=leaf.namespace,
                media_addresses=(str(leaf.access.address.ip),),
                public_addresses=self._settings.public_addresses,
                media_ports=leaf.media_ports,
                inlet_interface=str(leaf.overlay_address),
                inlet_ports=self._settings.ports.inlets,
            )
            heard = partial(network.heard_ports, leaf.namespace)
            result.append(JanusLeaf(settings, heard=heard))
        return result

    async def nodes(self) -> list[dict[str, Any]]:
        connected = await self._control.connected()
        return [
            {
                "name": node.name,
                "role": str(node.role),
                "parent": self.plan.tree[node.name].parent,
                "connected": node.name in connected,
                "address": str(node.overlay_address),
            }
            for node in self.plan.nodes.values()
        ]

    def children(self) -> Mapping[str, Child]:
        found = {
            child.spec.name: child
            for switch in self._switches.values()
            for child in (switch.ovsdb, switch.vswitchd)
        }
        if self._dhcp is not None:
            found[self._dhcp.child.spec.name] = self._dhcp.child
        return found | dict(self._control.children())

    async def port_counters(self) -> list[dict[str, Any]]:
        async def read(node: NodePlan) -> list[dict[str, Any]]:
            devices = {number: device for device, number in node.ports.items()}
            try:
                stats = await self._control.port_stats(node.name)
            except FabricError:
                return []
            return [
                {
                    "node": node.name,
                    "port": port.port_no,
                    "device": devices[port.port_no],
                    "rx_packets": port.rx_packets,
                    "tx_packets": port.tx_packets,
                    "rx_bytes": port.rx_bytes,
                    "tx_bytes": port.tx_bytes,
                }
                for port in stats
                if port.port_no in devices
            ]

        parts = await asyncio.gather(*(read(node) for node in self.plan.nodes.values()))
        return [counter for part in parts for counter in part]


class DirectUnderlay:
    """No switches and no privileges: the encoders send straight to one leaf server."""

    encoder_namespace: str | None = None
    encoder_interface: str | None = None
    controller: str | None = None
    control: Control | None = None

    def __init__(
        self, settings: SiteSettings, retarget: Callable[[StreamId, list[Target]], None]
    ) -> None:
        self._settings = settings
        self.carriage: Carriage = DirectCarriage("127.0.0.1", retarget)

    async def start(self, progress: Callable[[str], None]) -> None:
        progress("no switches: channels go straight to the leaf server")

    async def stop(self) -> None:
        pass

    def leaves(self) -> list[JanusLeaf]:
        """Return the one leaf server.

        Raises:
            UnavailableError: this machine has no address but loopback, which Janus cannot use.
        """
        addresses = tuple(str(address) for address in network.local_addresses())
        if not addresses:
            raise UnavailableError(
                "this machine has no network address but loopback, and Janus needs one:"
                " connect it to a network, or run as root"
            )
        public = tuple(a for a in self._settings.public_addresses if a not in addresses)
        settings = JanusSettings(
            name="leaf1",
            directory=self._settings.run_dir / "leaf1",
            run_id=self._settings.run_id,
            netns=None,
            media_addresses=addresses,
            public_addresses=public,
            media_ports=self._settings.ports.media,
            inlet_interface="127.0.0.1",
            inlet_ports=self._settings.ports.inlets,
        )
        return [JanusLeaf(settings)]

    async def run(self) -> None:
        pass

    async def nodes(self) -> list[dict[str, Any]]:
        return [
            {"name": "leaf1", "role": "leaf", "parent": None, "connected": True, "address": None}
        ]

    def children(self) -> Mapping[str, Child]:
        return {}

    async def port_counters(self) -> list[dict[str, Any]]:
        return []
