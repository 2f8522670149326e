"""The seed's testbed (7.1) in network namespaces; ``functional_test.py`` has its picture.

All that is made carries one random name and is removed at the end, whatever happens.
"""

import asyncio
import secrets
import shutil
import socket
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from ipaddress import IPv4Address, IPv4Interface
from pathlib import Path

from pyroute2 import netns

from anabranch.fabric import bridges
from anabranch.fabric.dhcp_server import DhcpServer, DhcpSettings
from anabranch.fabric.fabric import Fabric
from anabranch.fabric.host_services import Settings
from anabranch.fabric.intents import Intents
from anabranch.fabric.model import Link, LinkInfo, PortRef
from anabranch.fabric.openflow.actions import PORT_LOCAL
from anabranch.fabric.openvswitch import OpenVSwitch
from anabranch.fabric.options import Options
from anabranch.host import network
from anabranch.host.process import ProcessError, end_marked, run_command

NODES = ("root", "relay", "leaf", "leaf2")
TREE = (("root", "relay"), ("relay", "leaf"), ("root", "leaf2"))
RESERVE = (("leaf", "leaf2"),)
VM_PORT, PATCH_PORT, FIRST_TUNNEL = 1, 9, 10  # OpenFlow port numbers of every br1
USER, BROADCAST, STREAM_PORT = IPv4Interface("192.168.1.181/24"), "10.0.0.255", 5004
RANGE = IPv4Address("10.0.0.2"), IPv4Address("10.0.0.254")
DHCP = DhcpSettings("br1", IPv4Interface("10.0.0.1/24"), *RANGE)
DHCP_SCRIPT = """#!/bin/sh
[ "$1" = bound ] || exit 0
ip address replace "$ip/$mask" dev "$interface"
ip link set "$interface" mtu "$mtu"
echo "address $ip"
"""


class Machine(asyncio.DatagramProtocol):
    """A program on a VM, or at the user: hears the stream and, where it ``relays``, sends it on.

    A packet is the stream's sequence number and the names of the VMs that it came through.
    """

    def __init__(self, title: str, word: str, namespace: str) -> None:
        self.title, self.word, self.namespace = title, word, namespace
        self.address, self.relays = "", False
        self.heard: list[tuple[int, list[str]]] = []
        self.transport: asyncio.DatagramTransport | None = None

    async def open(self, address: str = "") -> None:
        netns.pushns(self.namespace)
        try:
            made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        finally:
            netns.popns()
        made.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
        made.bind((address, STREAM_PORT))
        loop = asyncio.get_running_loop()
        self.transport, _ = await loop.create_datagram_endpoint(lambda: self, sock=made)

    def send(self, number: int, way: list[str]) -> None:
        if self.transport is not None:
            words = [str(number), *way, self.word]
            self.transport.sendto(" ".join(words).encode(), (BROADCAST, STREAM_PORT))

    def datagram_received(self, data: bytes, source: tuple[str, int]) -> None:
        number, *way = data.decode().split()
        if self.word in way:
            return  # the kernel gives a broadcast to its sender, too
        self.heard.append((int(number), way))
        if self.relays:
            self.send(int(number), way)

    async def pings(self, other: "Machine", limit_s: int = 5) -> bool:
        """Say whether another one answers within so many seconds."""
        ping = ("ping", "-qn", "-c1", "-i0.2", f"-w{limit_s}", other.address)
        with suppress(ProcessError):
            await run_command(*ping, netns=self.namespace)
            return True
        return False

    def close(self) -> None:
        if self.transport is not None:
            self.transport.close()


class Testbed:
    """Nodes, VMs and the user; ``fabric`` controls every br1. To be removed in any case."""

    def __init__(self) -> None:
        self.id = f"ab-ex{secrets.token_hex(3)}"
        self.directory = Path(tempfile.gettempdir(), self.id)
        self.directory.mkdir(mode=0o700)
        self.pool = ThreadPoolExecutor(1)  # one after the other, also if nobody waits any more
        self.switches: dict[str, OpenVSwitch] = {}
        self.vms: dict[str, Machine] = {}
        self.user = Machine("the user", "user", f"{self.id}-user")
        where = f"{self.id}-root", self.directory / "dhcp", self.id
        self.dhcp = DhcpServer(DHCP, *where, lambda _: None)
        self.running: asyncio.Task[None] | None = None
        pairs = {pair: LinkInfo(redundant=pair in RESERVE) for pair in TREE + RESERVE}
        links = {Link(_end(*pair), _end(*pair[::-1])): info for pair, info in pairs.items()}
        outside = frozenset(PortRef(node, PATCH_PORT) for node in NODES)
        server = PortRef("root", PORT_LOCAL)
        edge = outside | {server} | {PortRef(node, VM_PORT) for node in NODES}
        hosts = Settings(server, edge, outside=outside)
        options = Options(dict(enumerate(NODES, 1)), links=links, edge=edge, hosts=hosts)
        self.fabric = Fabric(options, lambda _: None)

    async def build(self) -> None:
        for name in ("wire", "user", *NODES):
            await self._make_namespace(name)
        await self._in("wire", "ip", "link", "add", "wire", "up", "type", "bridge")
        await self._plug("user", USER)
        # The kernel drops packets from addresses that it has no way to.
        await self._in("user", "ip", "route", "add", "default", "dev", "eth0")
        await self.user.open(str(USER.ip))
        for node in NODES:
            await self._plug(node)
            # The address is br0's; eth0 must not answer for it with its own MAC address.
            await self._in(node, "sysctl", "-qw", "net.ipv4.conf.all.arp_ignore=1")
            where = f"{self.id}-{node}", self.directory / node, self.id
            self.switches[node] = switch = OpenVSwitch(node, *where, lambda _: None)
            await switch.start()
            await self.fabric.controller.listen_unix(switch.controller_path("br1"), node)
            await self._configure(node)
        await self.dhcp.start()
        self.running = asyncio.create_task(self.fabric.run(), name="fabric")
        await self.fabric.put(Intents())

    async def boot(self, node: str) -> Machine:
        """Start a VM on a node as libvirt does, and return when it has an address."""
        name = f"vm-{node}"
        await self._make_namespace(name)
        self.vms[node] = vm = Machine(f"the VM of {node}", node, f"{self.id}-{name}")
        vm.relays = node != "root"
        ends = network.Port("vnet0", f"{self.id}-{node}"), network.Port("eth0", vm.namespace)
        await self._do(network.make_link, *ends)
        await self._in(name, "ethtool", "-K", "eth0", "tx", "off")
        await vm.open()
        await self._configure(node)
        vm.address = await self.lease(vm)
        return vm

    async def lease(self, machine: Machine, tries: int = 9) -> str:
        """Have a machine get and take an address by DHCP.

        Raises:
            ProcessError: it gets none, asking once a second.
        """
        script = self.directory / "udhcpc.sh"
        script.write_text(DHCP_SCRIPT)
        script.chmod(0o700)
        udhcpc = ("udhcpc", "-fqn", "-i", "eth0", "-t", str(tries), "-T", "1", "-O", "mtu", "-s")
        said = await run_command(*udhcpc, str(script), netns=machine.namespace)
        return said.split("address ")[1].split()[0]

    async def shut_down(self, node: str) -> None:
        """End a VM: its port is taken away, then the rest."""
        vm = self.vms.pop(node)
        await self._configure(node)
        vm.close()
        await self._do(network.remove_namespace, vm.namespace)

    async def remove(self) -> None:
        """Remove all that there is. Safe to call at any time."""
        if self.running is not None:
            self.running.cancel()
            await asyncio.gather(self.running, return_exceptions=True)
        await self.dhcp.stop()
        await asyncio.gather(*(switch.stop() for switch in self.switches.values()))
        await self.fabric.close()
        end_marked(self.id)
        for machine in (*self.vms.values(), self.user):
            machine.close()
        self.pool.shutdown()
        for path in Path("/run/netns").glob(f"{self.id}-*"):
            await asyncio.to_thread(network.remove_namespace, path.name)
        shutil.rmtree(self.directory, ignore_errors=True)

    async def _configure(self, node: str) -> None:
        target = bridges.ControllerTarget(f"unix:{self.switches[node].controller_path('br1')}")
        made = bridges.two_bridge_node(
            "eth0",
            _outer(node),
            dpid=1 + NODES.index(node),
            controllers=[target],
            edge=[bridges.Device(name="vnet0", ofport=VM_PORT)] if node in self.vms else [],
            links=[_tunnel(node, pair) for pair in TREE if node in pair],
            reserve=[_tunnel(node, pair) for pair in RESERVE if node in pair],
            patch_ofport=PATCH_PORT,
            overlay_address=DHCP.address if node == "root" else None,
        )
        await self.switches[node].apply(made)

    async def _do(self, job: Callable[..., None], *arguments: object) -> None:
        await asyncio.get_running_loop().run_in_executor(self.pool, job, *arguments)

    async def _make_namespace(self, name: str) -> None:
        await self._do(network.make_namespace, f"{self.id}-{name}")

    async def _in(self, name: str, *argv: str) -> str:
        return await run_command(*argv, netns=f"{self.id}-{name}")

    async def _plug(self, name: str, address: IPv4Interface | None = None) -> None:
        """Connect a namespace's eth0 to the physical network."""
        port = network.Port("eth0", f"{self.id}-{name}", address=address)
        await self._do(network.make_link, network.Port(name, f"{self.id}-wire"), port)
        await self._in("wire", "ip", "link", "set", name, "master", "wire")


def _outer(node: str) -> IPv4Interface:
    return IPv4Interface(f"192.168.1.{11 + NODES.index(node)}/24")


def _end(node: str, far: str) -> PortRef:
    return PortRef(node, FIRST_TUNNEL + NODES.index(far))


def _tunnel(node: str, pair: tuple[str, str]) -> bridges.Tunnel:
    far = pair[1] if pair[0] == node else pair[0]
    return bridges.Tunnel(
        name=f"gre-{far}",
        ofport=_end(node, far).port_no,
        kind=bridges.TunnelKind.GRE,
        remote_ip=_outer(far).ip,
        local_ip=_outer(node).ip,
        key=2,
    )
