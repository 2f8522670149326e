"""Overload Control and Media Relay on a real node: sandbox, router, Kamailio, sipp, coturn."""

import asyncio
import os
import re
import shutil
import tempfile
import threading
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass
from hashlib import sha256
from ipaddress import IPv4Address, ip_address
from pathlib import Path

import aioice.turn
import pytest
from tests.lab.inside import inside

from anabranch.app.bench import overload
from anabranch.app.bench.modules.world import RECEIVER, SENDER, World, make_world
from anabranch.services import modules
from anabranch.services.archive import pack
from anabranch.services.controller.runtime import ModuleRequest
from anabranch.services.controller.users import User
from anabranch.services.keys import PrivateKey
from anabranch.services.modules.mediarelay.provider import Credentials, RelayProvider
from anabranch.services.planes.linux import LinuxPlane
from anabranch.services.runtime import NodeRuntime, RuntimeSettings

pytestmark = pytest.mark.lab
RELAY = "NetServ.apps.MediaRelay_1.0.0"
RELAY_ADDRESS = "10.9.0.1"
PEER_PORT = 3480


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    with make_world(sink=False) as made:
        yield made


async def test_a_flooded_sip_server_keeps_working(world: World) -> None:
    """Five times what it can: without the module most calls fail, see ``bench overload``."""
    with tempfile.TemporaryDirectory(prefix="ab-overload-") as name:
        directory = Path(name)
        directory.chmod(0o755)
        async with (
            overload.running_kamailio(world.receiver, directory),
            overload.controlled(world, directory) as edge,
        ):
            offered = int(overload.NOMINAL * overload.TIMES)
            outcome = await overload.call(world.sender, directory, offered, 12, 6)
            assert edge.installed.is_set()
    assert outcome.done >= 0.7 * overload.NOMINAL
    assert outcome.refused >= 2 * overload.NOMINAL
    assert outcome.late <= 0.1 * outcome.offered


class Node:
    """The one node on the path, as a provider's edge."""

    def __init__(self, runtime: NodeRuntime, directory: Path) -> None:
        key = PrivateKey.generate()
        ports = (range(3478, 3479), range(49152, 49214))
        self.user = User(
            name="itsp", public_key=key.public, address=IPv4Address(RELAY_ADDRESS),
            listen_ports=ports,
        )  # fmt: skip
        data = bytes(pack(Path(modules.__file__).parent / "mediarelay").sign("itsp", key))
        self.archive = directory / "relay.abm"
        self.archive.write_bytes(data)
        self.digest = sha256(data).digest()
        self.runtime = runtime

    async def install(self, towards: object, properties: Mapping[str, str]) -> Mapping[str, str]:
        request = ModuleRequest(RELAY, self.archive, self.digest, None, 60, properties)
        await self.runtime.install(self.user, request)
        return await self.status()

    async def status(self) -> Mapping[str, str]:
        return await self.runtime.status(self.user, RELAY)

    async def remove(self, towards: object) -> None:
        await self.runtime.remove(self.user, RELAY)


@dataclass
class Relays:
    provider: RelayProvider
    node: Node

    def credentials(self) -> Credentials:
        address = ip_address(SENDER)
        found = self.provider.relays.credentials(address, "alice", time.time(), 600)
        assert found is not None
        assert found.uris == (f"turn:{RELAY_ADDRESS}:3478?transport=udp",)
        return found


@pytest.fixture
async def relays(world: World) -> AsyncIterator[Relays]:
    class Registered:
        async def callers(self, most: int) -> list:
            return [ip_address(SENDER)]

    with tempfile.TemporaryDirectory(prefix="ab-relay-") as name:
        runtime = NodeRuntime(
            RuntimeSettings(Path(name) / "node", f"relay-{os.getpid()}"),
            LinuxPlane("relay", world.router),
        )
        try:
            await runtime.open()
            node = Node(runtime, Path(name))
            provider = RelayProvider(Registered(), node)
            await provider.turn()
            yield Relays(provider, node)
        finally:
            await runtime.close()


async def test_coturns_client_and_aioices_are_relayed(world: World, relays: RelayProvider) -> None:
    given = relays.credentials()
    uclient = shutil.which("turnutils_uclient")
    assert uclient is not None
    peer = await asyncio.create_subprocess_exec(
        "ip", "netns", "exec", world.receiver, "turnutils_peer", "-L", RECEIVER,
        "-p", str(PEER_PORT), stdout=asyncio.subprocess.DEVNULL,
    )  # fmt: skip
    try:
        for more in ([], ["-s"]):  # channels; Send indications; both with an RTCP port beside
            client = await asyncio.create_subprocess_exec(
                "ip", "netns", "exec", world.sender, uclient, "-u", given.username,
                "-w", given.password, "-e", RECEIVER, "-r", str(PEER_PORT), "-L", SENDER,
                "-n", "50", "-m", "2", "-l", "170", *more, RELAY_ADDRESS,
                stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
            )  # fmt: skip
            out, _ = await asyncio.wait_for(client.communicate(), 60)
            said = out.decode(errors="replace")
            counts = re.findall(r"tot_send_msgs=(\d+), tot_recv_msgs=(\d+)", said)
            assert counts, said[-2000:]
            assert counts[-1][0] == counts[-1][1] != "0", said[-2000:]
        echoed = await asyncio.to_thread(echo_by_aioice, world, given)
        assert echoed == [b"packet %d" % number for number in range(20)]
    finally:
        peer.terminate()
        await peer.wait()
    status = await relays.node.status()
    assert int(status["relayed"]) >= 2 * (200 + 20)


def echo_by_aioice(world: World, given: Credentials) -> list[bytes]:
    """Have 20 packets go to the peer and back over a channel, in a thread inside the namespace."""
    received: list[bytes] = []

    class Echoes(asyncio.DatagramProtocol):
        def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
            received.append(data)

    async def run() -> None:
        transport, _ = await aioice.turn.create_turn_endpoint(
            Echoes, server_addr=(RELAY_ADDRESS, 3478), username=given.username,
            password=given.password,
        )  # fmt: skip
        try:
            for number in range(20):
                transport.sendto(b"packet %d" % number, (RECEIVER, PEER_PORT))
                await asyncio.sleep(0.05)
            async with asyncio.timeout(5):
                while len(received) < 20:
                    await asyncio.sleep(0.05)
        finally:
            transport.close()
            await asyncio.sleep(0.2)

    def enter() -> None:
        with inside(world.sender):
            asyncio.run(run())

    thread = threading.Thread(target=enter)
    thread.start()
    thread.join(30)
    return received
