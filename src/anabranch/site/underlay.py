"""The underlay: what carries the channels.

``SwitchedUnderlay`` (:mod:`.switched`) has a namespace, an Open vSwitch and a host for every node
that is up. ``DirectUnderlay`` makes nothing: one leaf server beside the director, fed by the
encoders.
"""

from collections.abc import Callable, Mapping
from typing import Any, Protocol

from anabranch.core.errors import UnavailableError
from anabranch.host import addresses as machine
from anabranch.host import holdings
from anabranch.host.process import Child
from anabranch.media.leaf import LeafPlace, LeafServer
from anabranch.site.carriage import Carriage, DirectCarriage, StreamId, Target
from anabranch.site.control import Control
from anabranch.site.ingress import Ingress
from anabranch.site.leaf_servers import make_leaf
from anabranch.site.plan import is_access_link
from anabranch.site.settings import SiteSettings

_PORT_NOTE = "media port"


class Underlay(Protocol):
    """What a site stands on."""

    carriage: Carriage
    encoder_namespace: str | None
    encoder_interface: str | None
    ingress: Ingress | None

    @property
    def controller(self) -> str | None:
        """The child that programs the switches, None if the director does or there are none."""

    async def start(self, progress: Callable[[str], None]) -> None: ...

    async def stop(self) -> None: ...

    def leaves(self) -> list[LeafServer]:
        """Return the leaf servers to be started, one for each leaf node."""

    @property
    def control(self) -> Control | None:
        """Who programs the switches, if there are any."""

    async def run(self) -> None:
        """Do what must go on while the site is up, for ever."""

    async def nodes(self) -> list[dict[str, Any]]: ...

    def children(self) -> Mapping[str, Child]: ...

    async def port_counters(self) -> list[dict[str, Any]]: ...


class DirectUnderlay:
    """No switches and no privileges: the encoders send straight to one leaf server."""

    encoder_namespace: str | None = None
    encoder_interface: str | None = None
    ingress: Ingress | None = None
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

    def leaves(self) -> list[LeafServer]:
        """Return the one leaf server.

        Raises:
            UnavailableError: this machine has no address but loopback, which Janus cannot use, or
                no port is free at which the server could take viewers.
        """
        addresses = machine.distinct(machine.local_addresses(but=is_access_link))
        first, last = self._settings.ports.media
        if self._settings.leaf.kind == "anabranch":
            addresses += machine.distinct(machine.global_addresses_6(but=is_access_link))
            addresses = addresses or ("127.0.0.1",)
            first = self._media_port(addresses, range(first, last + 1))
        elif not addresses:
            raise UnavailableError(
                "this machine has no network address but loopback, and Janus needs one:"
                " connect it to a network, or run as root"
            )
        place = LeafPlace(
            name="leaf1",
            directory=self._settings.run_dir / "leaf1",
            run_id=self._settings.run_id,
            netns=None,
            media_addresses=addresses,
            public_addresses=self._settings.public_besides(addresses),
            media_ports=(first, last),
            inlet_interface="127.0.0.1",
            inlet_ports=self._settings.ports.inlets,
        )
        return [make_leaf(self._settings.leaf, place)]

    def _media_port(self, addresses: tuple[str, ...], ports: range) -> int:
        """Return the port of a leaf server that lives on, else one that is free."""
        run_id = self._settings.run_id
        port = holdings.noted(run_id, _PORT_NOTE) or 0
        if "leaf:leaf1" not in holdings.left(run_id) or port not in ports:
            port = machine.free_udp_port(addresses, ports)
        holdings.note(run_id, _PORT_NOTE, port)
        return int(port)

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
