"""A tunnel between two machines, one behind a NAT, and a link between switches inside of it."""

import asyncio
import os
import secrets
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from ipaddress import IPv4Address, IPv4Interface, IPv4Network
from pathlib import Path

import pytest
from tests.lab.inside import socket_in
from tests.lab.machines import Machines, machines
from tests.lab.two_bridges import run

from anabranch.core.errors import ConflictError
from anabranch.host import network, packet_rules
from anabranch.host.journal import Journal
from anabranch.host.process import find_marked
from anabranch.host.wireguard import KEEPALIVE_S, Interface, Peer, private_key, public_key
from anabranch.site.hub import Hub
from anabranch.tree.certificates import Credentials

pytestmark = [pytest.mark.lab, pytest.mark.skipif(os.geteuid() != 0, reason="needs root")]

off = asyncio.to_thread
HUB, SPOKE = IPv4Interface("10.96.7.1/24"), IPv4Interface("10.96.7.2/24")
PORT = 41230


class Tunnel:
    """Both ends. The far one is made here and its child then run on the other machine."""

    def __init__(self, world: Machines, directory: Path) -> None:
        self.world = world
        self.run_id = f"test-{secrets.token_hex(6)}"
        self.near, self.far = f"abx-{world.tag}-hub", f"abx-{world.tag}-spoke"
        keys = [private_key(directory / name) for name in ("hub", "spoke")]
        self.hub = Interface(f"wgh{world.tag}", self.near, HUB, keys[0], self.run_id, port=PORT)
        self.spoke_key = keys[1]
        self.to_hub = Peer(
            public_key(keys[0]),
            (IPv4Network("10.96.7.0/24"),),
            (world.root_address, PORT),
            KEEPALIVE_S,
        )
        self.to_spoke = Peer(public_key(keys[1]), (IPv4Network("10.96.7.2/32"),))


@asynccontextmanager
async def tunnel(directory: Path) -> AsyncIterator[Tunnel]:
    with machines() as world:
        made = Tunnel(world, directory)
        for name in (made.near, made.far):
            await off(network.make_namespace, name)
        # The other machine's end is made by a process there, as the agent would.
        agent = await asyncio.create_subprocess_exec(
            *("nsenter", f"--net=/run/netns/{world.home}", "--", sys.executable),
            "-m", "tests.lab.spoke", f"wgs{world.tag}", made.far, str(SPOKE), made.run_id,
            str(directory / "spoke"), made.to_hub.public_key, world.root_address, str(PORT),
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
        )  # fmt: skip
        try:
            await made.hub.start()
            await made.hub.set_peers([made.to_spoke])
            assert agent.stdout is not None
            assert await agent.stdout.readline() == b"up\n"
            yield made
        finally:
            assert agent.stdin is not None
            agent.stdin.close()
            await agent.wait()
            await made.hub.stop()
            for name in (made.near, made.far):
                await off(network.remove_namespace, name)
        assert find_marked(made.run_id) == []
        assert not list(Path("/var/run/wireguard").glob(f"*{world.tag}.sock"))


def echo(here: str, address: IPv4Address, there: str, word: bytes, limit: float = 30.0) -> bool:
    """Send a datagram from a namespace to an address of another until it arrives."""

    def listen() -> socket.socket:
        made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        made.bind(("0.0.0.0", 5000))
        made.settimeout(0.1)
        return made

    with (
        socket_in(there, listen) as server,
        socket_in(here, lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as client,
    ):
        for _ in range(round(limit / 0.1)):
            client.sendto(word, (str(address), 5000))
            try:
                if server.recv(65535) == word:
                    return True
            except TimeoutError:
                continue
    return False


async def test_a_tunnel_from_behind_a_nat_carries_frames_unreadably(tmp_path: Path) -> None:
    async with tunnel(tmp_path) as made:
        word = secrets.token_bytes(600)
        with made.world.overheard() as heard:
            assert await off(echo, made.far, HUB.ip, made.near, word)
            assert await off(echo, made.near, SPOKE.ip, made.far, word)
            ends = ((made.near, HUB.ip, SPOKE.ip, "1"), (made.far, SPOKE.ip, HUB.ip, "2"))
            for where, local, remote, digit in ends:
                port = network.Port("to5", where, rate_mbit=100.0)
                await off(
                    network.make_vxlan,
                    port,
                    underlay=where,
                    local=local,
                    remote=remote,
                    key=77,
                    mtu=1500,
                )
                run("ip", "-n", where, "addr", "add", f"10.1.1.{digit}/24", "dev", "to5")
            full = secrets.token_bytes(1472)
            assert await off(echo, made.far, IPv4Address("10.1.1.1"), made.near, full)
        assert sum(len(frame) for frame in heard) > 2 * len(word) + len(full)
        assert not any(word[:32] in frame or full[:32] in frame for frame in heard)
        (status,) = (await made.hub.status()).values()
        assert status.endpoint is not None
        assert status.endpoint[0] == made.world.nat_address
        assert status.heard_at is not None


async def test_a_hub_that_is_killed_comes_back_and_the_link_on_it_stays(tmp_path: Path) -> None:
    async with tunnel(tmp_path) as made:
        if made.hub.child.pid is None:
            pytest.skip("the kernel's own WireGuard cannot be killed")
        await off(network.make_vxlan,
            network.Port("to5", made.near),
            underlay=made.near, local=HUB.ip, remote=SPOKE.ip, key=77, mtu=1500,
        )  # fmt: skip
        assert await off(echo, made.far, HUB.ip, made.near, b"before")
        await made.hub.status()
        made.hub.child.kill()
        while made.hub.child.restarts == 0 or not await off(
            network.has_device, made.hub.device, made.near
        ):
            await asyncio.sleep(0.02)
        assert await off(echo, made.far, HUB.ip, made.near, b"after")
        assert await off(network.has_device, "to5", made.near)


async def test_only_the_sites_own_traffic_comes_in(tmp_path: Path) -> None:
    async with tunnel(tmp_path) as made:
        assert await off(echo, made.far, HUB.ip, made.near, b"open")
        await off(
            packet_rules.guard_tunnel, made.near, made.hub.device, tcp_port=6653, from_address=None
        )
        await off(
            packet_rules.guard_tunnel, made.near, made.hub.device, tcp_port=6653, from_address=None
        )
        assert not await off(echo, made.far, HUB.ip, made.near, b"shut", 1.0)
        run("ip", "netns", "exec", made.far, "ping", "-c1", "-W5", str(HUB.ip))


async def test_a_hub_whose_port_is_taken_says_what_to_do(tmp_path: Path) -> None:
    namespace = f"abx-{secrets.token_hex(2)}"
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
        taken.bind(("0.0.0.0", 0))
        port = taken.getsockname()[1]
        (tmp_path / "run").mkdir()
        hub = Hub(
            *(namespace, namespace, IPv4Network("10.96.7.0/24"), port, tmp_path / "key"),
            *(Credentials(tmp_path), "test-x", Journal(tmp_path / "run"), lambda _who: None),
        )
        try:
            with pytest.raises(ConflictError, match=f"^UDP port {port}, .* another port$"):
                await hub.start()
        finally:
            await hub.stop()
            await off(network.remove_namespace, namespace)


async def test_a_udp_port_that_is_taken_is_told(tmp_path: Path) -> None:
    namespace = f"abx-{secrets.token_hex(2)}"
    await off(network.make_namespace, namespace)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
        taken.bind(("0.0.0.0", 0))
        port = taken.getsockname()[1]
        key = private_key(tmp_path / "key")
        one = Interface(f"wgt{namespace[-4:]}", namespace, HUB, key, "test-x", port=port)
        try:
            with pytest.raises(Exception, match="in use"):
                await one.start()
        finally:
            await one.stop()
            await off(network.remove_namespace, namespace)
