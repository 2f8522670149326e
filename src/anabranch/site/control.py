"""Who programs the site's switches, and the director itself as the one who does."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Protocol

from anabranch.core.events import Event
from anabranch.fabric.fabric import Fabric
from anabranch.fabric.host_services import Settings
from anabranch.fabric.intents import Intents
from anabranch.fabric.intents_json import Wanted
from anabranch.fabric.model import Link
from anabranch.fabric.notify import StoredSubscriptions
from anabranch.fabric.openflow.messages import PortStats
from anabranch.fabric.options import Options
from anabranch.fabric.wishes import StoredWishes, Wishes
from anabranch.host.process import Child
from anabranch.site.layout import Layout
from anabranch.site.plan import BRIDGE, SitePlan
from anabranch.site.settings import SiteSettings
from anabranch.store.database import Database

SITE = "site"
"""Whose intents those of the viewers are."""


class Control(Protocol):
    """The site's hand on its switches."""

    def target(self, node: str) -> str | None:
        """Return the controller target of a node's switch; None: its controller dials in."""

    async def start(self) -> None: ...

    async def run(self) -> None:
        """Keep the switches in step, for ever."""

    async def stop(self) -> None: ...

    async def put(self, intents: Intents) -> frozenset[str]:
        """Have the switches carry exactly ``intents``; see :meth:`Fabric.put`."""

    async def expect(self, layout: Layout) -> None:
        """Know of exactly these nodes and links from now on, whether they are there yet or not."""

    async def settled(self) -> None:
        """Return once the switches carry what is wanted by the present links.

        Raises:
            FabricError: as :meth:`put`.
        """

    async def connected(self) -> frozenset[str]:
        """Return the switches that are connected."""

    async def links(self) -> Mapping[Link, bool]:
        """Return every link that is known, both directions: True, if it is up.

        Raises:
            DisconnectedError: nobody who would know is at work.
        """

    async def port_stats(self, switch: str) -> list[PortStats]: ...

    def children(self) -> Mapping[str, Child]: ...

    @property
    def fabric(self) -> Fabric | None:
        """The fabric itself, if it is in this process."""

    @property
    def active(self) -> str | None:
        """The controller process at work, if there is one."""


def switch_directory(settings: SiteSettings, node: str) -> Path:
    """Return where a node's Open vSwitch keeps its sockets."""
    return settings.run_dir / node / "ovs"


class InsideControl:
    """The director itself."""

    active: str | None = None

    def __init__(
        self,
        settings: SiteSettings,
        plan: SitePlan,
        on_event: Callable[[Event], None],
        database: Database,
    ) -> None:
        self._settings = settings
        self._plan = plan
        self._layout = plan.layout
        self.fabric = Fabric(
            Options(
                names={plan.nodes[name].dpid: name for name in plan.layout.up},
                links=plan.layout.links,
                edge=plan.edge | plan.outside,
                hosts=Settings(
                    edge=plan.edge,
                    outside=plan.outside,
                    dhcp_server=plan.dhcp_port if settings.fabric.dhcp else None,
                    packet_in_rate=500,
                ),
                counters_s=5.0 if settings.fabric.redundancy else 0.0,
            ),
            on_event,
            callbacks=StoredSubscriptions(database),
        )
        self.wishes = Wishes(StoredWishes(database))

    def target(self, node: str) -> str | None:
        return f"unix:{self._path(node)}"

    def _path(self, node: str) -> Path:
        # Open vSwitch refuses sockets elsewhere.
        return switch_directory(self._settings, node) / f"{BRIDGE}.controller"

    async def start(self) -> None:
        await self.wishes.load()
        for node in self._layout.up:
            await self._listen(node)

    async def _listen(self, node: str) -> None:
        self._path(node).parent.mkdir(parents=True, exist_ok=True)
        await self.fabric.controller.listen_unix(self._path(node), node)

    async def run(self) -> None:
        await self.fabric.run()

    async def stop(self) -> None:
        await self.fabric.close()

    async def put(self, intents: Intents) -> frozenset[str]:
        if not self.wishes.restored:
            return await self.wishes.restore(self.fabric, Wanted({SITE: intents}))
        return await self.fabric.put(intents, SITE)

    async def expect(self, layout: Layout) -> None:
        before, self._layout = self._layout, layout
        for name in layout.up - before.up:
            self.fabric.expect(name, self._plan.nodes[name].dpid)
            await self._listen(name)
        self.fabric.wire(layout.links)
        for name in before.up - layout.up:
            await self.fabric.dismiss(name)

    async def settled(self) -> None:
        await self.fabric.settled()

    async def links(self) -> Mapping[Link, bool]:
        return {link: info.up for link, info in self.fabric.network().links.items()}

    async def connected(self) -> frozenset[str]:
        return frozenset(n for n, state in self.fabric.switches().items() if state.connected)

    async def port_stats(self, switch: str) -> list[PortStats]:
        return await self.fabric.port_stats(switch)

    def children(self) -> Mapping[str, Child]:
        return {}
