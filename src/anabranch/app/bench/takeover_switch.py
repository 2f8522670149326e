"""The switch before two leaf servers that have one address: it decides who of them is reached.

    viewer and encoder (this machine's own network) ----1 br0 2---- leaf a
                                                             3---- leaf b

Streams go to both leaf servers, a viewer's packets to one; what comes of a leaf server passes only
while it is let through. ARP goes everywhere: both would answer the same.
"""

import asyncio
from collections.abc import Collection
from ipaddress import IPv4Interface
from pathlib import Path

from anabranch.core.errors import UnavailableError
from anabranch.fabric.controller import Controller
from anabranch.fabric.openflow.actions import Output
from anabranch.fabric.openflow.oxm import ETH_ARP, ETH_IPV4, IP_UDP, Match
from anabranch.fabric.openvswitch import OpenVSwitch
from anabranch.fabric.switches import SwitchState
from anabranch.fabric.tables import Rule, Tables
from anabranch.host.network import Port, make_link, make_namespace

LEAVES = ("a", "b")
VIEWER_ADDRESS, LEAF_ADDRESS = "10.97.252.1", "10.97.252.2"
MEDIA_PORT = 20000
INLET_PORTS = (21008, 21009)
_LEAF_MAC = "02:00:00:97:fc:02"
_OUTSIDE, _FIRST_LEAF = 1, 2
_BRIDGE, _NAME = "br0", "switch"
_CONNECT_S = 5.0


class TakeoverSwitch:
    """The namespaces, their links, the switch and its controller.

    Args:
        prefix: of the namespaces' names, at most 10 characters; also the viewer's device.
        directory: where the switch keeps what it needs.
        run_id: mark of its processes.
    """

    def __init__(self, prefix: str, directory: Path, run_id: str) -> None:
        self.device = prefix
        self._prefix = prefix
        self._switch = OpenVSwitch(_NAME, f"{prefix}-sw", directory, run_id, lambda _event: None)
        self._connected = asyncio.Event()
        self._controller = Controller(lambda _event: None, on_switch=self._seen)

    def namespace(self, leaf: str) -> str:
        """Return where a leaf server lives."""
        return f"{self._prefix}-{leaf}"

    @property
    def namespaces(self) -> tuple[str, ...]:
        """All that it makes."""
        return (f"{self._prefix}-sw", *(self.namespace(leaf) for leaf in LEAVES))

    async def start(self) -> None:
        """Make everything; nobody is let through yet.

        Raises:
            NetworkError: the kernel refuses something.
            FabricError: Open vSwitch does not start.
            UnavailableError: it does not connect to its controller.
        """
        await asyncio.to_thread(self._make_links)
        self._switch.directory.mkdir(parents=True, exist_ok=True)
        path = self._switch.controller_path(_BRIDGE)
        await self._controller.listen_unix(path, _NAME)
        await self._switch.start()
        ports = {"outside": _OUTSIDE, **{leaf: _port(leaf) for leaf in LEAVES}}
        await self._switch.configure(_BRIDGE, 1, ports, f"unix:{path}")
        try:
            async with asyncio.timeout(_CONNECT_S):
                await self._connected.wait()
        except TimeoutError:
            raise UnavailableError("the switch does not connect to its controller") from None

    async def stop(self) -> None:
        """End the switch and its controller; the namespaces stay."""
        await self._controller.close()
        await self._switch.stop()

    async def lead(self, to: str, let_through: Collection[str]) -> None:
        """Send what viewers send to the leaf server ``to``, and let these leaf servers through.

        Who is no longer let through has no way out any more when this returns.

        Raises:
            FabricError: the switch does not do it.
        """
        everywhere = tuple(Output(_port(leaf)) for leaf in LEAVES)
        rules = [
            Rule(0, 1, Match(in_port=_OUTSIDE, eth_type=ETH_ARP), everywhere),
            Rule(0, 1, _udp(_OUTSIDE), everywhere),
            Rule(0, 2, _udp(_OUTSIDE, MEDIA_PORT), (Output(_port(to)),)),
        ]
        for leaf in LEAVES:
            way = (Output(_OUTSIDE),)
            rules.append(Rule(0, 1, Match(in_port=_port(leaf), eth_type=ETH_ARP), way))
            if leaf in let_through:
                rules.append(Rule(0, 1, _udp(_port(leaf)), way))
        await self._controller.apply({_NAME: Tables(frozenset(rules))})

    def _seen(self, _name: str, state: SwitchState | None) -> None:
        if state is not None:
            self._connected.set()

    def _make_links(self) -> None:
        for namespace in self.namespaces:
            make_namespace(namespace)
        inside = self.namespaces[0]
        make_link(
            Port(self.device, None, address=IPv4Interface(f"{VIEWER_ADDRESS}/29")),
            Port("outside", inside),
        )
        address = IPv4Interface(f"{LEAF_ADDRESS}/29")
        for leaf in LEAVES:
            make_link(
                Port("eth0", self.namespace(leaf), mac=_LEAF_MAC, address=address),
                Port(leaf, inside),
            )


def _port(leaf: str) -> int:
    return _FIRST_LEAF + LEAVES.index(leaf)


def _udp(in_port: int, to: int | None = None) -> Match:
    return Match(in_port=in_port, eth_type=ETH_IPV4, ip_proto=IP_UDP, udp_dst=to)
