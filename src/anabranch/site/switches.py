"""The switches of a site's nodes: each runs, and has the ports that the layout says."""

import asyncio
from collections.abc import Callable, Collection, Mapping, Sequence, Set
from typing import Any, Protocol

from anabranch.core.errors import UnavailableError
from anabranch.core.events import Event
from anabranch.fabric.bridges import Bfd, Bridge, ControllerTarget, Device
from anabranch.fabric.errors import FabricError
from anabranch.fabric.openvswitch import OpenVSwitch
from anabranch.host.process import Child
from anabranch.media.leaf import LeafServer
from anabranch.site.control import Control, switch_directory
from anabranch.site.layout import HOST_PORT, OUTLET_PORT, Layout
from anabranch.site.plan import BRIDGE, SWITCH_DEVICE, NodePlan
from anabranch.site.settings import SiteSettings

_PUNCTUAL_MS = 100
_CONNECT_S = 10.0


class NodeSwitch(Protocol):
    """A node's switch, on this machine or another; see :class:`OpenVSwitch`."""

    @property
    def running(self) -> bool: ...

    @property
    def children(self) -> tuple[Child, ...]: ...

    async def start(self) -> None: ...

    async def apply(self, bridges: Sequence[Bridge]) -> None: ...

    async def stop(self) -> None: ...


class Abroad(Protocol):
    """Reaches nodes on other machines."""

    def switch(self, node: NodePlan) -> NodeSwitch:
        """Return a node's switch."""

    def leaf(self, node: NodePlan) -> LeafServer:
        """Return a node's leaf server, to be started."""


class Switches:
    """The switches of all nodes that are up.

    Args:
        nodes: every node of the plan, by name.
        control: who programs them.
        layout: returns the cables that are there.

    Attributes:
        abroad: who reaches nodes on other machines, if there are any.
        beside: by node, a bridge in its switch that is not of the overlay.
    """

    def __init__(
        self,
        settings: SiteSettings,
        nodes: Mapping[str, NodePlan],
        control: Control,
        layout: Callable[[], Layout],
        on_event: Callable[[Event], None],
    ) -> None:
        self.abroad: Abroad | None = None
        self.beside: dict[str, Bridge] = {}
        self._settings = settings
        self._nodes = nodes
        self._control = control
        self._layout = layout
        self._on_event = on_event
        self._switches: dict[str, NodeSwitch] = {}
        self._stale: set[str] = set()

    def running(self, name: str) -> bool:
        """Say whether a switch forwards packets, as far as its processes tell."""
        return name in self._switches and self._switches[name].running

    async def start(self, node: NodePlan) -> None:
        """Start a node's switch, with the cables of the present layout."""
        switch = self._switches[node.name] = self._switch(node)
        await switch.start()
        await switch.apply(self._bridges(node))

    async def stop(self, names: Set[str]) -> None:
        """Stop the switches of these nodes."""
        for name in names & self._switches.keys():
            await self._switches.pop(name).stop()
        self._stale -= names

    async def stop_all(self) -> None:
        """Stop them all at once, whatever becomes of some."""
        await asyncio.gather(
            *(switch.stop() for switch in self._switches.values()), return_exceptions=True
        )

    async def apply(self, names: Collection[str]) -> None:
        """Give switches the cables of the present layout; one that is away gets them later."""
        self._stale |= {name for name in names if not self.running(name)}
        there = [name for name in names if self.running(name)]
        await asyncio.gather(
            *(self._switches[name].apply(self._bridges(self._nodes[name])) for name in there)
        )
        self._stale -= set(there)

    async def refresh(self, name: str) -> None:
        """Tell a switch that has been away what it has missed."""
        if name in self._stale and self.running(name):
            await self.apply([name])

    async def until_connected(self, names: Collection[str]) -> None:
        """Wait until these are programmed.

        Raises:
            UnavailableError: some do not connect to their controller.
        """
        missing = set(names)
        for _ in range(round(_CONNECT_S / 0.02)):
            missing = set(names) - await self._control.connected()
            if not missing:
                return
            await asyncio.sleep(0.02)
        raise UnavailableError(f"these switches do not connect: {', '.join(sorted(missing))}")

    def children(self) -> dict[str, Child]:
        """Return the processes of those on this machine, by name."""
        return {
            child.spec.name: child
            for switch in self._switches.values()
            for child in switch.children
        }

    async def port_counters(self, names: Collection[str]) -> list[dict[str, Any]]:
        """Return the counters of all ports of these switches; of one that is away, none."""
        parts = await asyncio.gather(*map(self._counters, names))
        return [counter for part in parts for counter in part]

    async def _counters(self, name: str) -> list[dict[str, Any]]:
        devices = {end.port_no: end.device for _, end in self._layout().at(name)}
        devices[HOST_PORT] = SWITCH_DEVICE
        try:
            stats = await self._control.port_stats(name)
        except FabricError:
            return []
        return [
            {
                "node": name,
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

    def _switch(self, node: NodePlan) -> NodeSwitch:
        if node.tunnel is not None:
            assert self.abroad is not None
            return self.abroad.switch(node)
        return OpenVSwitch(
            node.name,
            node.namespace,
            switch_directory(self._settings, node.name),
            self._settings.run_id,
            self._on_event,
            # A switch that is late with its assurances looks dead to its neighbours.
            realtime=0 < self._settings.fabric.bfd_ms < _PUNCTUAL_MS,
        )

    def _bridges(self, node: NodePlan) -> list[Bridge]:
        overlay = self._bridge(node)
        return [overlay, self.beside[node.name]] if node.name in self.beside else [overlay]

    def _bridge(self, node: NodePlan) -> Bridge:
        interval = self._settings.fabric.bfd_ms
        bfd = Bfd(interval, interval) if interval else None
        target = self._control.target(node.name)
        outlet = []
        if node.outlet is not None:
            outlet.append(Device(name=node.outlet.device, ofport=OUTLET_PORT))
        return Bridge(
            BRIDGE,
            (
                Device(name=SWITCH_DEVICE, ofport=HOST_PORT),
                *outlet,
                *(
                    Device(name=end.device, ofport=end.port_no, bfd=bfd)
                    for _, end in self._layout().at(node.name)
                ),
            ),
            node.dpid,
            controllers=(ControllerTarget(target),) if target is not None else (),
        )
