"""Overload Control and Media Relay on real nodes: sandboxes, Kamailio, sipp, coturn, aioice."""

import asyncio
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aioice.turn
import httpx
import pytest
from tests.lab.inside import inside, socket_in
from tests.lab.service_path import DESTINATION, SENDER, WEB_PORT, WholeNodes
from tests.lab.two_bridges import run

from anabranch.app.bench import overload
from anabranch.app.bench.modules.world import make_world
from anabranch.services import modules
from anabranch.services.archive import pack

pytestmark = pytest.mark.lab
RELAYS = {"a": "10.9.1.1", "b": "10.9.2.1"}
PEER_PORT = 3480


async def test_a_flooded_sip_server_keeps_working(tmp_path: Path) -> None:
    """Five times what it can: without the module most calls fail, see ``bench overload``."""
    with tempfile.TemporaryDirectory(prefix="ab-overload-") as name:
        directory = Path(name)
        directory.chmod(0o755)
        async with (
            flooded_world() as world,
            overload.running_kamailio(world.receiver, directory),
            overload.controlled(world, directory) as edge,
        ):
            offered = int(overload.NOMINAL * overload.TIMES)
            outcome = await overload.call(world.sender, directory, offered, 12, 6)
            assert edge.installed.is_set()
    assert outcome.done >= 0.7 * overload.NOMINAL
    assert outcome.refused >= 2 * overload.NOMINAL
    assert outcome.late <= 0.1 * outcome.offered


@asynccontextmanager
async def flooded_world():
    made = make_world(sink=False)
    world = await asyncio.to_thread(made.__enter__)
    try:
        yield world
    finally:
        await asyncio.to_thread(made.__exit__, None, None, None)


class RelayPath(WholeNodes):
    """The path with whole nodes, and Media Relay for them to fetch.

    sip server s --- node a --- plain router r --- node b --- user agent d
    """

    def build(self, **options: Any) -> None:
        super().build(**options)
        run("ip", "-n", self.netns("d"), "route", "add", f"{RELAYS['b']}/32", "via", "10.77.4.1")
        archive = pack(Path(modules.__file__).parent / "mediarelay").sign("janedoe", self.key)
        (self.web / "relay.abm").write_bytes(bytes(archive))

    def user(self, name: str) -> dict[str, Any]:
        return {"address": RELAYS[name], "listen_ports": ["3478", "49152-49213"]}


@pytest.fixture
def path() -> Iterator[RelayPath]:
    with tempfile.TemporaryDirectory(prefix="ab-relay-") as name:
        Path(name).chmod(0o755)
        made = RelayPath(Path(name))
        try:
            made.build()
            yield made
        finally:
            made.close()


def register(path: RelayPath) -> None:
    text = (
        f"REGISTER sip:{SENDER} SIP/2.0\r\n"
        f"Via: SIP/2.0/UDP {DESTINATION}:5060;rport;branch=z9hG4bK1\r\n"
        f"From: <sip:alice@{SENDER}>;tag=1\r\nTo: <sip:alice@{SENDER}>\r\nCall-ID: 1\r\n"
        "CSeq: 1 REGISTER\r\nMax-Forwards: 70\r\nContent-Length: 0\r\n\r\n"
    )
    agent = socket_in(path.netns("d"), lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
    with agent:
        agent.settimeout(5)
        agent.sendto(text.encode(), (str(SENDER), 5060))
        assert agent.recv(2000).startswith(b"SIP/2.0 200")


def credentials(path: RelayPath) -> dict[str, Any]:
    """Ask the provider's side, from the SIP server's namespace."""
    with inside(path.netns("s")):
        url = f"http://127.0.0.1:8087/credentials?address={DESTINATION}&user=alice"
        try:
            answer = httpx.get(url, trust_env=False)
        except httpx.ConnectError:
            return {}
    return answer.json() if answer.status_code == 200 else {}


async def test_who_registers_gets_a_relay_on_the_nearest_node(path: RelayPath) -> None:
    """The scenario of seed 003, section 7.3, with two clients that are not ours."""
    command = (
        "ip", "netns", "exec", path.netns("s"), str(Path(sys.executable).with_name("anabranch")),
        "provide", "relay", "--user", "janedoe", "--key", str(path.directory / "key.pem"),
        "--url", f"http://{SENDER}:{WEB_PORT}/relay.abm",
        "--archive", str(path.web / "relay.abm"), "--rpc", str(path.directory / "rpc"),
        "--sip", f"{SENDER}:5060",
    )  # fmt: skip
    async with overload.running_kamailio(path.netns("s"), path.directory, str(SENDER)):
        provider = await asyncio.create_subprocess_exec(
            *command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
        try:
            await asyncio.to_thread(register, path)
            given: dict[str, Any] = {}
            for _ in range(150):
                given = await asyncio.to_thread(credentials, path)
                if given:
                    break
                await asyncio.sleep(0.1)
            assert given["uris"] == [f"turn:{RELAYS['b']}:3478?transport=udp"]
            await use_relay(path, given["username"], given["password"])
        finally:
            provider.send_signal(signal.SIGTERM)
            said, _ = await provider.communicate()
            sys.stdout.write(said.decode(errors="replace"))
    assert provider.returncode == 0


async def use_relay(path: RelayPath, username: str, password: str) -> None:
    """Have coturn's client and aioice's send to a peer and get everything back."""
    uclient = shutil.which("turnutils_uclient")
    assert uclient is not None
    inside_d = ("ip", "netns", "exec", path.netns("d"))
    peer = await asyncio.create_subprocess_exec(
        *inside_d, "turnutils_peer", "-L", str(DESTINATION), "-p", str(PEER_PORT),
        stdout=asyncio.subprocess.DEVNULL,
    )  # fmt: skip
    try:
        for more in ([], ["-s"]):  # channels; Send indications; both with an RTCP port beside
            client = await asyncio.create_subprocess_exec(
                *inside_d, uclient, "-u", username, "-w", password, "-e", str(DESTINATION),
                "-r", str(PEER_PORT), "-n", "50", "-m", "2", "-l", "170", *more, RELAYS["b"],
                stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
            )  # fmt: skip
            out, _ = await asyncio.wait_for(client.communicate(), 60)
            said = out.decode(errors="replace")
            counts = re.findall(r"tot_send_msgs=(\d+), tot_recv_msgs=(\d+)", said)
            assert counts, said[-2000:]
            assert counts[-1][0] == counts[-1][1] != "0", said[-2000:]
        echoed = await asyncio.to_thread(echo_by_aioice, path.netns("d"), username, password)
        assert echoed == [b"packet %d" % number for number in range(20)]
    finally:
        peer.terminate()
        await peer.wait()


def echo_by_aioice(netns: str, username: str, password: str) -> list[bytes]:
    """Send 20 packets to the peer over a channel, from inside the namespace; return the echoes."""
    received: list[bytes] = []

    class Echoes(asyncio.DatagramProtocol):
        def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
            received.append(data)

    async def exchange() -> None:
        transport, _ = await aioice.turn.create_turn_endpoint(
            Echoes, server_addr=(RELAYS["b"], 3478), username=username, password=password
        )
        try:
            for number in range(20):
                transport.sendto(b"packet %d" % number, (str(DESTINATION), PEER_PORT))
                await asyncio.sleep(0.05)
            async with asyncio.timeout(5):
                while len(received) < 20:
                    await asyncio.sleep(0.05)
        finally:
            transport.close()
            await asyncio.sleep(0.2)

    with inside(netns):
        asyncio.run(exchange())
    return received
