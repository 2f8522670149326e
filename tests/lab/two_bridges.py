"""Nodes of the seed with two bridges each, on one physical network, and a VM on each overlay.

vm a -- br1 a ~~~ tunnels ~~~ br1 b -- vm b
         | patch                | patch
        br0 a -- physical --- br0 b
                 network
                    |-- outsider (a host that is none of ours)
"""

import secrets
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Interface
from pathlib import Path

from tests.lab.inside import socket_in

from anabranch.core.events import Event
from anabranch.fabric.bridges import (
    Bfd,
    Bridge,
    ControllerTarget,
    Device,
    FailMode,
    Tunnel,
    TunnelKind,
    two_bridge_node,
)
from anabranch.fabric.openvswitch import OpenVSwitch
from anabranch.host.process import end_marked

VM_OFPORT, PATCH_OFPORT, FIRST_TUNNEL = 1, 9, 10
UDP_PORT = 5000
Make = Callable[[], socket.socket]


def join(left: tuple[str, str], right: tuple[str, str]) -> None:
    """Join two namespaces by a cable; each end is a namespace and a device."""
    run("ip", "link", "add", left[1], "netns", left[0], "type", "veth",
        "peer", "name", right[1], "netns", right[0])  # fmt: skip
    for netns, device in (left, right):
        run("ip", "-n", netns, "link", "set", device, "up")
        run("ip", "netns", "exec", netns, "ethtool", "-K", device, "tx", "off")


def run(*argv: str) -> str:
    done = subprocess.run(argv, capture_output=True, text=True, timeout=20, check=False)
    assert done.returncode == 0, f"{argv}: {done.stderr}"
    return done.stdout


def packet_socket(device: str) -> Make:
    def make() -> socket.socket:
        made = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
        made.bind((device, 3))
        made.setblocking(False)
        return made

    return make


def udp_socket(address: str, device: str | None = None) -> Make:
    def make() -> socket.socket:
        made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
        if device is not None:
            made.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, device.encode())
        made.bind((address, UDP_PORT))
        made.setblocking(False)
        return made

    return make


def frames(sniffer: socket.socket, seconds: float) -> list[bytes]:
    """Return what arrives (not what leaves) within ``seconds``."""
    got = []
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        with suppress(BlockingIOError):
            data, address = sniffer.recvfrom(2048)
            if address[2] != socket.PACKET_OUTGOING:
                got.append(data)
            continue
        time.sleep(0.002)
    return got


@dataclass
class TwoBridgeLab:
    """``edges`` are the tunnels: names of two nodes; those in ``reserve`` are redundancy links."""

    nodes: tuple[str, ...] = ("a", "b")
    edges: tuple[tuple[str, str], ...] = (("a", "b"),)
    reserve: tuple[tuple[str, str], ...] = ()
    kind: TunnelKind = TunnelKind.VXLAN
    bfd: Bfd | None = None
    prefix: str = field(default_factory=lambda: f"ab-t{secrets.token_hex(3)}")
    directory: Path = field(default_factory=lambda: Path(tempfile.mkdtemp(prefix="ab-t")))
    run_id: str = field(default_factory=lambda: f"test-{secrets.token_hex(6)}")
    events: list[Event] = field(default_factory=list)
    switches: dict[str, OpenVSwitch] = field(default_factory=dict)
    sockets: list[socket.socket] = field(default_factory=list)
    vms: dict[str, socket.socket] = field(default_factory=dict)
    namespaces: list[str] = field(default_factory=list)

    def namespace(self, name: str) -> str:
        return f"{self.prefix}-{name}"

    def vm_address(self, node: str) -> str:
        return f"10.0.0.{11 + self.nodes.index(node)}"

    def outer(self, node: str) -> IPv4Interface:
        return IPv4Interface(f"192.168.50.{11 + self.nodes.index(node)}/24")

    def _make_namespace(self, name: str) -> str:
        netns = self.namespace(name)
        run("ip", "netns", "add", netns)
        self.namespaces.append(netns)
        quiet = "net.ipv6.conf.default.disable_ipv6=1"
        run("ip", "netns", "exec", netns, "sysctl", "-qw", quiet)
        run("ip", "-n", netns, "link", "set", "lo", "up")
        return netns

    def link(self, left: str, left_device: str, right: str, right_device: str) -> None:
        join((self.namespace(left), left_device), (self.namespace(right), right_device))

    async def build(self) -> None:
        wire = self._make_namespace("wire")
        run("ip", "-n", wire, "link", "add", "wire", "type", "bridge")
        run("ip", "-n", wire, "link", "set", "wire", "up")
        outsider = self._make_namespace("out")
        self.link("wire", "out", "out", "eth0")
        run("ip", "-n", wire, "link", "set", "out", "master", "wire")
        run("ip", "-n", outsider, "addr", "add", "192.168.50.100/24", "dev", "eth0")
        for node in self.nodes:
            self._make_namespace(node)
            vm = self._make_namespace(f"vm{node}")
            self.link("wire", f"to{node}", node, "eth0")
            run("ip", "-n", wire, "link", "set", f"to{node}", "master", "wire")
            self.link(node, "vnet0", f"vm{node}", "eth0")
            run("ip", "-n", vm, "link", "set", "eth0", "mtu", "1450")
            run("ip", "-n", vm, "addr", "add", f"{self.vm_address(node)}/24", "dev", "eth0")
            self.vms[node] = self.open(f"vm{node}", udp_socket("0.0.0.0"))
            self.switches[node] = switch = OpenVSwitch(
                node,
                self.namespace(node),
                self.directory / node,
                self.run_id,
                self.events.append,
            )
            await switch.start()

    async def apply(
        self, fail_mode: FailMode, *, probe_ms: int = 1000, target: str | None = None
    ) -> None:
        for node, switch in self.switches.items():
            await switch.apply(self.describe(node, fail_mode, probe_ms=probe_ms, target=target))

    def describe(
        self,
        node: str,
        fail_mode: FailMode = FailMode.SECURE,
        *,
        probe_ms: int = 1000,
        target: str | None = None,
        overlay_address: IPv4Interface | None = None,
    ) -> tuple[Bridge, Bridge]:
        switch = self.switches[node]
        where = target or f"unix:{switch.controller_path('br1')}"
        return two_bridge_node(
            "eth0",
            self.outer(node),
            dpid=1 + self.nodes.index(node),
            controllers=[ControllerTarget(where, probe_ms)],
            edge=[Device(name="vnet0", ofport=VM_OFPORT)],
            links=[self._tunnel(node, edge) for edge in self.edges if node in edge],
            reserve=[self._tunnel(node, edge) for edge in self.reserve if node in edge],
            patch_ofport=PATCH_OFPORT,
            fail_mode=fail_mode,
            overlay_address=overlay_address,
        )

    def tunnel_ofport(self, node: str, far: str) -> int:
        return FIRST_TUNNEL + self.nodes.index(far)

    def _tunnel(self, node: str, edge: tuple[str, str]) -> Tunnel:
        (far,) = set(edge) - {node}
        one, other = sorted(self.nodes.index(end) for end in edge)
        return Tunnel(
            name=f"to-{far}",
            ofport=self.tunnel_ofport(node, far),
            kind=self.kind,
            remote_ip=IPv4Address(self.outer(far).ip),
            local_ip=IPv4Address(self.outer(node).ip),
            key=100 + 10 * one + other,
            bfd=self.bfd,
        )

    def open(self, name: str, make: Make) -> socket.socket:
        made = socket_in(self.namespace(name), make)
        self.sockets.append(made)
        return made

    def add_flow(self, node: str, rule: str) -> None:
        management = f"unix:{self.directory}/{node}/br1.mgmt"
        run("ovs-ofctl", "--timeout=2", "-O", "OpenFlow13", "add-flow", management, rule)

    def flows(self, node: str) -> str:
        management = f"unix:{self.directory}/{node}/br1.mgmt"
        return run("ovs-ofctl", "--timeout=2", "-O", "OpenFlow13", "dump-flows", management)

    def reaches(self, one: str, other: str, *, patience: float = 1.0, size: int = 64) -> bool:
        """Send from VM to VM until one arrives; False if none does."""
        return self.arrives(self.vms[one], self.vms[other], self.vm_address(other), patience, size)

    def arrives(
        self,
        source: socket.socket,
        target: socket.socket,
        address: str,
        patience: float = 1.0,
        size: int = 64,
    ) -> bool:
        word = secrets.token_hex(size // 2).encode()
        until = time.monotonic() + patience
        while time.monotonic() < until:
            with suppress(OSError):  # nobody answered for that address
                source.sendto(word, (address, UDP_PORT))
            again = time.monotonic() + 0.05
            while time.monotonic() < again:
                with suppress(BlockingIOError):
                    if target.recv(2048) == word:
                        return True
                    continue
                time.sleep(0.001)
        return False

    async def tear_down(self) -> None:
        for made in self.sockets:
            made.close()
        for switch in self.switches.values():
            await switch.stop()
        end_marked(self.run_id)
        for name in self.namespaces:
            subprocess.run(["ip", "netns", "delete", name], check=False)
        shutil.rmtree(self.directory, ignore_errors=True)
