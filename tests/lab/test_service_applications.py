"""The applications over two nodes with a plain router between: real messages, sandboxes, Kamailio,
sipp, coturn, aioice. The server is at one end of the path, its users at the other:

    server s --- node a --- plain router r --- node b --- users d
"""

import asyncio
import json
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aioice.turn
import httpx
import pytest
from tests.lab.inside import inside, socket_in
from tests.lab.service_path import DESTINATION, SENDER, WEB_PORT, WholeNodes
from tests.lab.two_bridges import run
from tests.services.test_keepalive import notify

from anabranch.app.bench import overload
from anabranch.services import modules
from anabranch.services.archive import pack

pytestmark = pytest.mark.lab
SANDBOXES = {"a": "10.9.1.1", "b": "10.9.2.1", "r": "10.9.3.1"}
PEER_PORT = 3480
PACKETS = 20
BUNDLED = Path(modules.__file__).parent
MONITOR = "NetServ.apps.NetMonitor_1.0.0"
KEEP_ALIVE = "NetServ.apps.KeepAlive_1.0.0"
RELAY = "NetServ.apps.MediaRelay_1.0.0"
OVERLOAD = overload.MODULE


class NodePath(WholeNodes):
    """The path with whole nodes, and all modules for them to fetch."""

    def build(self, **options: Any) -> None:
        super().build(**options)
        for name, node, via in (
            ("d", "b", "10.77.4.1"), ("r", "b", "10.77.3.2"), ("a", "b", "10.77.2.2"),
            ("s", "b", "10.77.1.2"), ("s", "a", "10.77.1.2"),
        ):  # fmt: skip
            run("ip", "-n", self.netns(name), "route", "add", f"{SANDBOXES[node]}/32", "via", via)
        for source in (each.parent for each in BUNDLED.glob("*/module.toml")):
            archive = pack(source).sign("janedoe", self.key)
            (self.web / f"{source.name}.abm").write_bytes(bytes(archive))

    def user(self, name: str) -> dict[str, Any]:
        return {
            "address": SANDBOXES[name],
            "listen_ports": ["3478", "49152-49213"],
            "filter_prefixes": ["10.77.1.0/24"],
        }

    def install(self, module: str, identity: str, *more: str) -> None:
        """Install a module on both nodes; it gets what goes to the server's port 5060."""
        url = f"http://{SENDER}:{WEB_PORT}/{module}.abm"
        wanted = ("--url", url, "--filter", "udp:5060", "--json")
        done = self.command("install", identity, str(DESTINATION), *wanted, *more)
        assert done.returncode == 0, done.stdout + done.stderr

    def probe(self, module: str, nodes: str = "ab") -> list[dict[str, str]]:
        """Return what each node says of a module, the one nearest the server first."""
        done = self.command("probe", str(DESTINATION), module, "--json")
        assert done.returncode == 0, done.stdout + done.stderr
        hops = json.loads(done.stdout)
        assert [hop["node"] for hop in hops] == [self.node(each) for each in nodes]
        return [hop["details"] for hop in hops]


@pytest.fixture(scope="module")
def path() -> Iterator[NodePath]:
    with tempfile.TemporaryDirectory(prefix="ab-path-") as name:
        Path(name).chmod(0o755)
        made = NodePath(Path(name))
        try:
            made.build()
            yield made
        finally:
            made.close()


def users_socket(path: NodePath) -> socket.socket:
    made = socket_in(path.netns("d"), lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
    made.settimeout(5)
    return made


def test_packets_are_counted_at_each_node(path: NodePath) -> None:
    path.install("netmonitor", MONITOR)
    with users_socket(path) as agent:
        for _ in range(PACKETS):
            agent.sendto(b"hello", (str(SENDER), 5060))
    for ttl in (62, 64):  # b counts them by the TTL that they were sent with, a two routers later
        flow = f"{DESTINATION}_{SENDER}_{ttl}"
        until(lambda flow=flow: str(PACKETS) in [hop.get(flow) for hop in path.probe(MONITOR)])
    assert path.command("remove", MONITOR, str(DESTINATION)).returncode == 0


def test_keep_alives_are_answered_by_the_first_node_and_go_no_further(path: NodePath) -> None:
    path.install("keepalive", KEEP_ALIVE)
    with users_socket(path) as agent:
        agent.connect((str(SENDER), 5060))  # an answer from anybody else does not come in
        for number in range(PACKETS):
            agent.send(notify(number))
            assert agent.recv(2000).startswith(b"SIP/2.0 200 OK\r\n")
    at_a, at_b = path.probe(KEEP_ALIVE)
    assert at_a["answered"] == "0"
    assert int(at_a["packets"]) < PACKETS  # the kernel's own, when the link came up
    assert at_b["answered"] == str(PACKETS)
    assert path.command("remove", KEEP_ALIVE, str(DESTINATION)).returncode == 0


@pytest.mark.alone  # what the server can is counted in calls a second
async def test_a_flooded_sip_server_keeps_working(path: NodePath) -> None:
    """Five times what it can, and the module comes by signed messages: SETUP to the node nearest
    to the callers, its reports and the feedback over the routers between. Without
    the module most calls fail, see ``bench overload``."""
    directory = Path(tempfile.mkdtemp(prefix="sip-", dir=path.directory))
    directory.chmod(0o755)
    offered = int(overload.NOMINAL * overload.TIMES)
    async with (
        overload.running_kamailio(path.netns("s"), directory, str(SENDER)),
        providing(
            path, "overload", "--url", f"http://{SENDER}:{WEB_PORT}/overload.abm",
            "--archive", str(path.web / "overload.abm"), "--rpc", str(directory / "rpc"),
            "--sip", f"{SENDER}:5060", "--feedback", f"{SENDER}:5066",
        ),
    ):  # fmt: skip
        calling = asyncio.create_task(
            overload.call(
                path.netns("d"), directory, offered, 12, 6, own=str(DESTINATION), to=str(SENDER)
            )
        )
        await asyncio.sleep(14)
        hops = await asyncio.to_thread(path.probe, OVERLOAD)
        outcome = await calling
    assert "packets" not in hops[0]  # it is where the callers are, and not at a
    assert int(hops[1]["packets"]) > offered
    assert outcome.done >= 0.7 * overload.NOMINAL
    assert outcome.refused >= 2 * overload.NOMINAL
    assert outcome.late <= 0.1 * outcome.offered


@asynccontextmanager
async def providing(path: NodePath, *arguments: str) -> AsyncIterator[None]:
    """Run ``anabranch provide`` beside the server."""
    provider = await asyncio.create_subprocess_exec(
        "ip", "netns", "exec", path.netns("s"), str(Path(sys.executable).with_name("anabranch")),
        "provide", arguments[0], "--user", "janedoe", "--key", str(path.directory / "key.pem"),
        *arguments[1:], stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    try:
        yield
    finally:
        provider.send_signal(signal.SIGTERM)
        said, _ = await provider.communicate()
        sys.stdout.write(said.decode(errors="replace"))
    assert provider.returncode == 0


def until(condition: Callable[[], bool], patience: float = 5.0) -> None:
    deadline = time.monotonic() + patience
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def register(path: NodePath) -> None:
    text = (
        f"REGISTER sip:{SENDER} SIP/2.0\r\n"
        f"Via: SIP/2.0/UDP {DESTINATION}:5060;rport;branch=z9hG4bK1\r\n"
        f"From: <sip:alice@{SENDER}>;tag=1\r\nTo: <sip:alice@{SENDER}>\r\nCall-ID: 1\r\n"
        "CSeq: 1 REGISTER\r\nMax-Forwards: 70\r\nContent-Length: 0\r\n\r\n"
    )
    with users_socket(path) as agent:
        agent.sendto(text.encode(), (str(SENDER), 5060))
        assert agent.recv(2000).startswith(b"SIP/2.0 200")


def credentials(path: NodePath) -> dict[str, Any]:
    """Ask the provider's side, from the SIP server's namespace."""
    with inside(path.netns("s")):
        url = f"http://127.0.0.1:8087/credentials?address={DESTINATION}&user=alice"
        try:
            answer = httpx.get(url, trust_env=False)
        except httpx.ConnectError:
            return {}
    return answer.json() if answer.status_code == 200 else {}


async def test_who_registers_gets_a_relay_on_the_nearest_node(path: NodePath) -> None:
    """The scenario of seed 003, section 7.3, with two clients that are not ours."""
    async with (
        overload.running_kamailio(path.netns("s"), path.directory, str(SENDER)),
        providing(
            path, "relay", "--url", f"http://{SENDER}:{WEB_PORT}/mediarelay.abm",
            "--archive", str(path.web / "mediarelay.abm"), "--rpc", str(path.directory / "rpc"),
            "--sip", f"{SENDER}:5060",
        ),
    ):  # fmt: skip
        await asyncio.to_thread(register, path)
        given: dict[str, Any] = {}
        for _ in range(150):
            given = await asyncio.to_thread(credentials, path)
            if given:
                break
            await asyncio.sleep(0.1)
        assert given["uris"] == [f"turn:{SANDBOXES['b']}:3478?transport=udp"]
        at_a, at_b = await asyncio.to_thread(path.probe, RELAY)
        assert "turn" not in at_a
        assert at_b["turn"] == f"{SANDBOXES['b']}:3478"
        await use_relay(path, given["username"], given["password"])


def test_what_a_killed_node_left_is_removed_by_the_next(path: NodePath) -> None:
    """The router between becomes a node for a while."""

    def links() -> list[str]:
        """Return the numbers of the devices that lead to sandboxes."""
        lines = run("ip", "-n", path.netns("r"), "-o", "link").splitlines()
        return [number for number, name, *_ in map(str.split, lines) if name.startswith("svc")]

    path.start("r")
    path.install("netmonitor", MONITOR)
    path.kill("r")
    left = links()
    assert left
    path.start("r")
    try:
        assert not {*left} & {*links()}
        assert len(links()) == 1  # made ahead, for the next user
        path.install("netmonitor", MONITOR)
        assert [each["state"] for each in path.probe(MONITOR, "arb")] == ["running"] * 3
        assert path.command("remove", MONITOR, str(DESTINATION)).returncode == 0
    finally:
        path.stop("r")
    assert f"ab-svc-{path.node('r')}-" not in run("ip", "netns", "list")
    assert "anabranch" not in run("ip", "netns", "exec", path.netns("r"), "nft", "list", "tables")


async def use_relay(path: NodePath, username: str, password: str) -> None:
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
                "-r", str(PEER_PORT), "-n", "50", "-m", "2", "-l", "170", *more, SANDBOXES["b"],
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
            Echoes, server_addr=(SANDBOXES["b"], 3478), username=username, password=password
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
