"""The hub of the tunnels to other machines: WireGuard in a namespace that nothing else is in.

Links between switches are VXLAN devices that go by the tunnels. The hub passes on what guests have
for each other, VXLAN only, and lets their switches in to the controller.
"""

import asyncio
import errno
import socket
import zlib
from collections.abc import Callable, Mapping
from contextlib import suppress
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

import structlog

from anabranch.core.errors import ConflictError
from anabranch.core.names import new_id
from anabranch.host import network, packet_rules
from anabranch.host.journal import Journal
from anabranch.host.process import Child, ProcessError
from anabranch.host.wireguard import (
    Interface,
    Peer,
    PeerStatus,
    private_key,
    public_key,
)
from anabranch.site.guests import API_PORT, CONTROLLER_PORT, hub_address
from anabranch.site.splice import InDoor, OutDoor
from anabranch.tree.certificates import Credentials, client_context, server_context
from anabranch.tree.peering import Identity

_LOOK_S = 5.0
_log = structlog.get_logger("anabranch.site")


class Hub:
    """The root's end of all tunnels.

    Args:
        site: the site's name.
        namespace: where the tunnels end.
        tunnels: the network of their addresses.
        port: UDP port where guests dial.
        key_file: keeps the WireGuard key.
        credentials: the root's.
        controller: the Unix socket at which the controller waits for a node's switch; None: that
            node has no business with it.

    Attributes:
        life: drawn anew at each start.
        public_key: the hub's WireGuard key.
    """

    def __init__(
        self,
        site: str,
        namespace: str,
        tunnels: IPv4Network,
        port: int,
        key_file: Path,
        credentials: Credentials,
        run_id: str,
        journal: Journal,
        controller: Callable[[Identity], Path | None],
    ) -> None:
        private = private_key(key_file)
        self.life = new_id()
        self.public_key = public_key(private)
        self.address = hub_address(tunnels)
        self.port = port
        self._namespace = namespace
        self._credentials = credentials
        self._journal = journal
        self._interface = Interface(
            f"abw{zlib.crc32(site.encode()):08x}",
            namespace,
            self.address,
            private,
            run_id,
            port=port,
            forward=True,
        )
        self._controller = InDoor(controller)
        self._looking: asyncio.Task[None] | None = None
        self.status: Mapping[str, PeerStatus] = {}

    @property
    def controller(self) -> str:
        """Where a guest's switch looks for its controller, as Open vSwitch has it."""
        return f"ssl:{self.address.ip}:{CONTROLLER_PORT}"

    @property
    def child(self) -> Child:
        """The process that is WireGuard, where the kernel is not."""
        return self._interface.child

    async def start(self) -> None:
        """Have the hub there, without guests.

        Raises:
            ConflictError: the port is taken.
            ProcessError: there is no WireGuard.
            NetworkError: the kernel refused something.
        """
        self._journal.record("netns", self._namespace)
        await asyncio.to_thread(network.make_namespace, self._namespace)
        try:
            await self._interface.start()
        except ProcessError as error:
            if _is_taken(self.port):
                raise ConflictError(
                    f"UDP port {self.port}, for the tunnels of remote.listen, is taken: end what"
                    " uses it, or give remote.listen another port"
                ) from error
            raise
        await asyncio.to_thread(
            packet_rules.guard_tunnel,
            self._namespace,
            self._interface.device,
            tcp_port=CONTROLLER_PORT,
            from_address=None,
        )
        listening = network.socket_inside(self._namespace)
        listening.bind((str(self.address.ip), CONTROLLER_PORT))
        await self._controller.open(listening, server_context(self._credentials))
        self._looking = asyncio.create_task(self._look(), name="hub-looks")

    async def stop(self) -> None:
        """Remove it; the namespace is in the journal."""
        if self._looking is not None:
            self._looking.cancel()
            await asyncio.gather(self._looking, return_exceptions=True)
        await self._controller.close()
        await self._interface.stop()

    async def set_guests(self, keys: Mapping[IPv4Address, str]) -> None:
        """Have tunnels to exactly these guests, by address, with their WireGuard keys.

        Raises:
            UsageError: a key is none.
            ProcessError: wg(8) refuses it.
        """
        await self._interface.set_peers(
            Peer(key, (IPv4Network(address),)) for address, key in keys.items()
        )

    def way_to(self, name: str, address: IPv4Address) -> OutDoor:
        """Return a door to a guest's leaf server, to be opened."""
        return OutDoor(
            name,
            (address, API_PORT),
            lambda: network.socket_inside(self._namespace),
            client_context(self._credentials),
        )

    async def _look(self) -> None:
        while True:
            with suppress(ProcessError):  # it is being made anew
                self.status = await self._interface.status()
            await asyncio.sleep(_LOOK_S)


def _is_taken(port: int) -> bool:
    """Say whether another program has a UDP port of this machine."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.bind(("", port))
        except OSError as error:
            return error.errno == errno.EADDRINUSE
    return False
