"""Three Open vSwitches in a line with hosts at their ports, under a whole fabric.

    a ----1 s1 9----8 s2 9----8 s3 1---- b
    server 2           1 c        2 x

Every switch and host is a namespace of its own; no host has an address at first. The DHCP server is
a real dnsmasq.
"""

import asyncio
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

from tests.fabric.host_services.line import S12, S23, SWITCHES, Dhcp
from tests.lab.inside import socket_in
from tests.lab.two_bridges import join, packet_socket, run

from anabranch.core.events import Event
from anabranch.fabric import frames
from anabranch.fabric.dhcp_server import DhcpServer, DhcpSettings
from anabranch.fabric.fabric import Fabric
from anabranch.fabric.host_services import Settings
from anabranch.fabric.host_services.dhcp_message import DhcpMessage, parse_dhcp
from anabranch.fabric.intents import Intents
from anabranch.fabric.model import LinkInfo, PortRef
from anabranch.fabric.openvswitch import OpenVSwitch
from anabranch.fabric.options import Options
from anabranch.host.process import end_marked

BRIDGE = "br0"
HOSTS = {
    "a": PortRef("s1", 1),
    "server": PortRef("s1", 2),
    "c": PortRef("s2", 1),
    "b": PortRef("s3", 1),
    "x": PortRef("s3", 2),
}
MACS = {name: f"02:00:00:00:0a:{n:02x}" for n, name in enumerate(HOSTS, 1)}
SERVER_ADDRESS = IPv4Interface("10.0.0.1/24")
FIRST, LAST = IPv4Address("10.0.0.100"), IPv4Address("10.0.0.120")


@dataclass
class HostLine:
    """The lab; ``settings`` are those of the host services, less ports."""

    idle_timeout: int = 2
    prefix: str = field(default_factory=lambda: f"ab-t{secrets.token_hex(3)}")
    directory: Path = field(default_factory=lambda: Path(tempfile.mkdtemp(prefix="ab-t")))
    run_id: str = field(default_factory=lambda: f"test-{secrets.token_hex(6)}")
    events: list[Event] = field(default_factory=list)
    namespaces: list[str] = field(default_factory=list)
    switches: dict[str, OpenVSwitch] = field(default_factory=dict)
    sniffers: dict[str, socket.socket] = field(default_factory=dict)
    servers: list[DhcpServer] = field(default_factory=list)
    fabric: Fabric | None = None
    running: asyncio.Task[None] | None = None

    def namespace(self, name: str) -> str:
        return f"{self.prefix}-{name}"

    async def build(self) -> None:
        for name in (*SWITCHES, *HOSTS):
            netns = self.namespace(name)
            run("ip", "netns", "add", netns)
            self.namespaces.append(netns)
            quiet = "net.ipv6.conf.default.disable_ipv6=1"
            run("ip", "netns", "exec", netns, "sysctl", "-qw", quiet)
            run("ip", "-n", netns, "link", "set", "lo", "up")
        for link in (S12, S23):
            self._link(*(part for end in (link.src, link.dst) for part in _device(end)))
        for name, at in HOSTS.items():
            self._link(name, "eth0", *_device(at))
            run("ip", "-n", self.namespace(name), "link", "set", "eth0", "address", MACS[name])
            self.sniffers[name] = socket_in(self.namespace(name), packet_socket("eth0"))
        links = {link: LinkInfo() for one in (S12, S23) for link in (one, one.reverse)}
        edge = frozenset(HOSTS.values())
        hosts = Settings(HOSTS["server"], edge, idle_timeout=self.idle_timeout)
        names = {dpid: name for name, dpid in SWITCHES.items()}
        options = Options(names=names, links=links, edge=edge, hosts=hosts, counters_s=0)
        self.fabric = Fabric(options, self.events.append)
        for name, dpid in SWITCHES.items():
            switch = OpenVSwitch(
                name, self.namespace(name), self.directory / name, self.run_id, self.events.append
            )
            self.switches[name] = switch
            await switch.start()
            await self.fabric.controller.listen_unix(switch.controller_path(BRIDGE), name)
            ends = {at for link in links for at in (link.src, link.dst)} | edge
            ports = {_device(at)[1]: at.port_no for at in ends if at.switch == name}
            target = f"unix:{switch.controller_path(BRIDGE)}"
            await switch.configure(BRIDGE, dpid, ports, target)
        self.running = asyncio.create_task(self.fabric.run(), name="fabric")
        assert await self.fabric.put(Intents()) == frozenset()

    def _link(self, left: str, left_device: str, right: str, right_device: str) -> None:
        join((self.namespace(left), left_device), (self.namespace(right), right_device))

    async def serve(self, name: str, address: IPv4Interface, first: str, last: str) -> DhcpServer:
        """Start a DHCP server at a host."""
        run("ip", "-n", self.namespace(name), "addr", "add", str(address), "dev", "eth0")
        settings = DhcpSettings("eth0", address, IPv4Address(first), IPv4Address(last), mtu=1450)
        directory = self.directory / f"dhcp-{name}"
        server = DhcpServer(
            settings, self.namespace(name), directory, self.run_id, self.events.append
        )
        self.servers.append(server)
        await server.start()
        return server

    async def heard(self, name: str, seconds: float = 0.3) -> list[bytes]:
        """Return what reaches a host (not what it sends) until nothing has for ``seconds``."""
        sniffer, got, until = self.sniffers[name], [], time.monotonic() + seconds
        while time.monotonic() < until:
            with suppress(BlockingIOError):
                data, address = sniffer.recvfrom(2048)
                if address[2] != socket.PACKET_OUTGOING:
                    got.append(data)
                    until = time.monotonic() + seconds
                continue
            await asyncio.sleep(0.002)
        return got

    async def answer(self, name: str, wanted: Callable[[DhcpMessage], bool]) -> DhcpMessage:
        """Return the first DHCP answer at a host that is wanted; within 3 s."""
        async with asyncio.timeout(3):
            while True:
                try:
                    data = self.sniffers[name].recv(2048)
                except BlockingIOError:
                    await asyncio.sleep(0.002)
                    continue
                headers = frames.parse(data)
                if headers.get("udp_dst") == 68:
                    message = parse_dhcp(headers.payload)
                    if wanted(message):
                        return message

    def send(self, name: str, frame: bytes) -> None:
        self.sniffers[name].send(frame)

    async def lease(self, name: str, flags: int = 0x8000) -> str:
        """Let a host get and take an address as RFC 2131 has it; return that."""
        mac = MACS[name]
        self.send(name, Dhcp(1, mac, flags=flags).from_client())
        offer = await self.answer(name, lambda message: message.type == 2)
        assert offer.yiaddr is not None
        assert offer.server_id is not None
        asked = _option(50, offer.yiaddr) + _option(54, offer.server_id)
        self.send(name, Dhcp(3, mac, flags=flags, options=asked).from_client())
        ack = await self.answer(name, lambda message: message.type in (5, 6))
        assert (ack.type, ack.yiaddr) == (5, offer.yiaddr)
        run("ip", "-n", self.namespace(name), "addr", "add", f"{ack.yiaddr}/24", "dev", "eth0")
        return ack.yiaddr

    async def ping(self, name: str, target: str, count: int = 1) -> bool:
        """Say whether every one of ``count`` pings was answered within a second."""
        netns = self.namespace(name)
        argv = ("ip", "netns", "exec", netns, "ping", "-q", "-n", f"-c{count}", "-i0.2", "-W1")
        process = await asyncio.create_subprocess_exec(
            *argv, target, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
        out, _ = await process.communicate()
        return f"{count} packets transmitted, {count} received" in out.decode()

    async def tear_down(self) -> None:
        if self.running is not None:
            self.running.cancel()
            with suppress(asyncio.CancelledError):
                await self.running
        for sniffer in self.sniffers.values():
            sniffer.close()
        for server in self.servers:
            await server.stop()
        for switch in self.switches.values():
            await switch.stop()
        if self.fabric is not None:
            await self.fabric.close()
        end_marked(self.run_id)
        for netns in self.namespaces:
            subprocess.run(("ip", "netns", "del", netns), check=False, timeout=20)
        shutil.rmtree(self.directory, ignore_errors=True)


def _device(at: PortRef) -> tuple[str, str]:
    return at.switch, f"{at.switch}-{at.port_no}"


def _option(code: int, address: str) -> bytes:
    return bytes((code, 4)) + IPv4Address(address).packed
