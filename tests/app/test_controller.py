"""Controllers in processes of their own: one at work, another that takes over, and their ends."""

import asyncio
import json
import os
import signal
import socket
import stat
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from structlog.testing import capture_logs
from tests.store.postgresql import PASSWORD, postgresql
from tests.waiting import until

from anabranch.app.controller import ControllerProcess
from anabranch.app.controller_file import ControllerFile
from anabranch.fabric.frames import ipv4_udp
from anabranch.fabric.lease import FileLease
from anabranch.fabric.model import PortRef
from anabranch.fabric.openflow.messages import ControllerRole, FlowMod, RoleRequest
from anabranch.fabric.softswitch.agent import Channel, SwitchAgent
from anabranch.fabric.softswitch.network import SoftNetwork
from anabranch.fabric.softswitch.switch import SoftSwitch

MASTER, SLAVE = ControllerRole.MASTER, ControllerRole.SLAVE
LECTURE = {
    "name": "lecture",
    "match": {"eth_type": 0x0800, "ipv4_dst": "239.1.2.3"},
    "ingress": {"switch": "s1", "port_no": 1},
    "egress": [{"at": {"switch": "s2", "port_no": 1}}],
}
STREAM = {
    "name": "stream",
    "ingress": "s1:1",
    "exit": "s2:1",
    "external": "192.168.1.181",
    "match": {"eth_type": 0x0800, "ipv4_dst": "10.0.0.255"},
}


class Wire(asyncio.Protocol):
    """A controller's connection to a switch that is dialled."""

    def __init__(self, switch: "Dialled") -> None:
        self._switch = switch

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self.channel = self._switch.agent.connect()
        self._switch.wires.append(self)
        self._switch.flush()

    def data_received(self, data: bytes) -> None:
        self.channel.receive(data, asyncio.get_running_loop().time())
        self._switch.flush()

    def connection_lost(self, exc: Exception | None) -> None:
        self.channel.close()
        self._switch.wires.remove(self)


class Dialled(SoftSwitch):
    """A switch that waits for controllers at a socket, as Open vSwitch does; counts changes."""

    def __init__(self, dpid: int, ports: list[int]) -> None:
        super().__init__(dpid, ports)
        self.agent = SwitchAgent(self)
        self.wires: list[Wire] = []
        self.changes = 0

    def flow_mod(self, mod: FlowMod, now: float) -> None:
        self.changes += 1
        super().flow_mod(mod, now)

    def flush(self) -> None:
        for wire in self.wires:
            if data := wire.channel.data_to_send():
                wire.transport.write(data)

    @property
    def roles(self) -> list[ControllerRole]:
        return sorted(channel.role for channel in self.agent.channels if channel.up)

    def take_over(self) -> Channel:
        """Let somebody else become master."""
        other = self.agent.connect()
        assert self.agent.generation is not None
        self.agent.take_role(other, RoleRequest(MASTER, self.agent.generation + 1))
        self.flush()
        return other


class Bench:
    """Two switches in a row in this process, and controllers in processes of their own."""

    def __init__(self, directory: Path, stack: AsyncExitStack) -> None:
        self.directory = directory
        self._stack = stack
        self.switches = {f"s{number}": Dialled(number, [1, 2]) for number in (1, 2)}
        ends = PortRef("s1", 2), PortRef("s2", 2)
        self.network = SoftNetwork(self.switches, [ends])

    async def listen(self) -> None:
        loop = asyncio.get_running_loop()
        for name, switch in self.switches.items():

            def accept(switch: Dialled = switch) -> Wire:
                return Wire(switch)

            path = str(self.directory / f"{name}.mgmt")
            await self._stack.enter_async_context(await loop.create_unix_server(accept, path))

    @property
    def changes(self) -> int:
        return sum(switch.changes for switch in self.switches.values())

    def roles(self) -> list[list[ControllerRole]]:
        return [switch.roles for switch in self.switches.values()]

    def send(self, address: str) -> list[PortRef]:
        """Let a frame in at s1; return where it comes out."""
        frame = ipv4_udp("01:00:5e:01:02:03", "02:00:00:00:00:01", "10.0.0.1", address, 1, 2, b"x")
        now = asyncio.get_running_loop().time()
        return [port for port, _ in self.network.send(PortRef("s1", 1), frame, now)]

    async def controller(self, name: str, **more: object) -> "Process":
        """Start a controller that dials the switches."""
        file = {
            "listen": None,
            "api": f"unix:{self.directory / name}.sock",
            "token": str(self.directory / "token"),
            "lease": str(self.directory / "lease"),
            "discover": False,
            "switches": [
                {"name": it, "dpid": switch.dpid, "connect": str(self.directory / f"{it}.mgmt")}
                for it, switch in self.switches.items()
            ],
            "links": [{"between": ["s1:2", "s2:2"]}],
            "intents": {"flows": [LECTURE]},
            "paths": [STREAM],
            **more,
        }
        path = self.directory / f"{name}.yaml"
        path.write_text(yaml.safe_dump(file))
        return await self.start("-m", "anabranch", "fabric", "controller", str(path), name=name)

    async def start(self, *arguments: str, name: str = "") -> "Process":
        return await self._stack.enter_async_context(
            process(arguments, self.directory / f"{name}.sock")
        )


class Process:
    """A process of ours; what it says on standard error is kept in memory."""

    def __init__(self, child: asyncio.subprocess.Process, socket_path: Path) -> None:
        self._child = child
        self.socket = socket_path
        self.pid = child.pid
        self.client = httpx.AsyncClient(
            transport=httpx.AsyncHTTPTransport(uds=str(socket_path)), base_url="http://controller"
        )

    async def state(self) -> dict[str, Any]:
        try:
            answer = await self.client.get("/control/state")
        except httpx.HTTPError:
            return {"active": None, "switches": {}}
        found: dict[str, Any] = answer.json()
        return found

    async def until(self, active: bool) -> None:
        """Wait until it has both switches, and is at work or stands by."""
        async with asyncio.timeout(20):
            while True:
                state = await self.state()
                up = [known["connected"] for known in state["switches"].values()]
                if state["active"] is active and up == [True, True]:
                    return
                await asyncio.sleep(0.01)

    async def said(self) -> dict[str, Any]:
        """Return the next line of standard output."""
        assert self._child.stdout is not None
        async with asyncio.timeout(20):
            found: dict[str, Any] = json.loads(await self._child.stdout.readline())
            return found

    async def ended(self) -> tuple[int, str]:
        """Return its exit code and the last line it said, once it has ended by itself."""
        async with asyncio.timeout(20):
            _, errors = await self._child.communicate()
        return self._child.returncode or 0, (errors.decode().splitlines() or [""])[-1]


@asynccontextmanager
async def process(arguments: tuple[str, ...], socket_path: Path) -> AsyncIterator[Process]:
    pipe = asyncio.subprocess.PIPE
    child = await asyncio.create_subprocess_exec(
        sys.executable, *arguments, stdout=pipe, stderr=pipe
    )
    made = Process(child, socket_path)
    try:
        yield made
    finally:
        await made.client.aclose()
        if child.returncode is None:
            with suppress(ProcessLookupError):  # it has ended, and nobody has heard of it yet
                child.kill()
        await child.communicate()


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    async with AsyncExitStack() as stack:
        made = Bench(tmp_path, stack)
        await made.listen()
        yield made


async def test_the_second_stands_by_and_takes_over_without_a_change(bench: Bench) -> None:
    first = await bench.controller("first")
    await first.until(active=True)
    await until(lambda: bench.send("239.1.2.3") == [PortRef("s2", 1)])
    await until(lambda: bench.send("10.0.0.255") == [PortRef("s2", 1)])
    second = await bench.controller("second")
    await second.until(active=False)
    await until(lambda: bench.roles() == [[MASTER, SLAVE]] * 2)
    generation, changes = bench.switches["s1"].agent.generation, bench.changes

    os.kill(first.pid, signal.SIGKILL)
    await second.until(active=True)
    await until(lambda: bench.roles() == [[MASTER]] * 2)
    assert bench.switches["s1"].agent.generation == (generation or 0) + 1
    # An empty wish of somebody else is done when the tables have been compared.
    answer = await second.client.put("/control/intents/site", content=b"{}")
    assert answer.json() == {"pending": []}
    assert bench.changes == changes
    assert bench.send("239.1.2.3") == bench.send("10.0.0.255") == [PortRef("s2", 1)]

    assert (await second.client.put("/control/intents/file", content=b"{}")).is_success
    assert bench.changes > changes
    assert bench.send("239.1.2.3") == []
    third = await bench.controller("third")
    await third.until(active=False)
    os.kill(second.pid, signal.SIGTERM)
    assert (await second.ended())[0] == 0
    await third.until(active=True)
    await until(lambda: bench.send("239.1.2.3") == [PortRef("s2", 1)])


OWN = {
    "name": "own",
    "match": {"eth_type": 0x0800, "ipv4_dst": "239.7.7.7"},
    "ingress": "s1:1",
    "egresses": [{"at": "s2:1"}],
}


async def operator(bench: Bench, process: Process, method: str, path: str, **more: Any) -> Any:
    """Do something over REST, and return the JSON of the answer."""
    token = (bench.directory / "token").read_text().strip()
    headers = {"Authorization": f"Bearer {token}"}
    answer = await process.client.request(method, path, headers=headers, timeout=20, **more)
    assert answer.is_success, answer.text
    return answer.json() if answer.content else None


@pytest.mark.parametrize("lease", ["lease", None])
async def test_what_an_operator_wants_survives_its_controller(
    bench: Bench, lease: str | None
) -> None:
    more = {
        "state": str(bench.directory / "state"),
        "lease": None if lease is None else str(bench.directory / lease),
    }
    first = await bench.controller("first", **more)
    await first.until(active=True)
    await until(lambda: bench.send("10.0.0.255"))
    await operator(bench, first, "POST", "/api/fabric/paths", json=OWN)
    past = {**STREAM, "name": "past", "match": {"eth_type": 0x0800, "ipv4_dst": "10.0.1.255"}}
    await operator(bench, first, "POST", "/api/fabric/vm-paths", json=past)
    assert bench.send("239.7.7.7") == bench.send("10.0.1.255") == [PortRef("s2", 1)]
    assert stat.S_IMODE((bench.directory / "state").stat().st_mode) == 0o600
    changes = bench.changes
    if lease is None:
        os.kill(first.pid, signal.SIGKILL)
        second = await bench.controller("second", **more)
    else:  # one that began before any of this was asked for, as far as it knows
        second = await bench.controller("second", **more)
        await second.until(active=False)
        refused = await second.client.delete(
            "/api/fabric/paths/own",
            headers={"Authorization": f"Bearer {(bench.directory / 'token').read_text().strip()}"},
        )
        assert refused.status_code == 503
        await operator(bench, first, "DELETE", "/api/fabric/vm-paths/past")
        changes = bench.changes
        os.kill(first.pid, signal.SIGKILL)
    await second.until(active=True)
    assert (await second.client.put("/control/intents/site", content=b"{}")).is_success
    paths = (await operator(bench, second, "GET", "/api/fabric/paths"))["items"]
    assert [path["name"] for path in paths if path["own"]] == ["own"]
    followed = (await operator(bench, second, "GET", "/api/fabric/vm-paths"))["items"]
    names = ["past", "stream"] if lease is None else ["stream"]
    assert [path["name"] for path in followed] == names
    assert bench.changes == changes, "no rule was touched"
    await operator(bench, second, "DELETE", "/api/fabric/paths/own")
    assert bench.send("239.7.7.7") == []
    assert bench.send("239.1.2.3") == [PortRef("s2", 1)]


@pytest.mark.lab
async def test_a_lease_in_a_database_is_lost_and_had_again_with_it(bench: Bench) -> None:
    with postgresql() as server:
        lease = {"lease": server.url(), "lease_name": "campus"}
        first = await bench.controller("first", **lease)
        await first.until(active=True)
        await until(lambda: bench.send("239.1.2.3"))
        second = await bench.controller("second", **lease)
        await second.until(active=False)
        await until(lambda: bench.roles() == [[MASTER, SLAVE]] * 2)
        changes = bench.changes
        os.kill(first.pid, signal.SIGKILL)
        await second.until(active=True)
        await until(lambda: bench.roles() == [[MASTER]] * 2)
        assert bench.switches["s1"].agent.generation == 2

        server.stop()
        await second.until(active=False)
        await until(lambda: bench.roles() == [[SLAVE]] * 2)
        server.start()
        await second.until(active=True)
        await until(lambda: bench.roles() == [[MASTER]] * 2)
        assert bench.switches["s1"].agent.generation == 3
        assert (await second.client.put("/control/intents/site", content=b"{}")).is_success
        assert bench.changes == changes, "no rule was touched"
        os.kill(second.pid, signal.SIGTERM)
        code, _ = await second.ended()
        assert code == 0
        third = await bench.controller("third", **lease)
        await third.until(active=True)
        server.stop()
        fourth = await bench.controller("fourth", **lease)
        code, words = await fourth.ended()
        assert code == 1
        assert words.startswith("anabranch: cannot use the lease: ")
        assert PASSWORD not in words
        server.start()


async def test_whoever_is_no_longer_master_ends(bench: Bench) -> None:
    first = await bench.controller("first")
    await first.until(active=True)
    await until(lambda: bench.roles() == [[MASTER]] * 2)
    other = bench.switches["s2"].take_over()
    assert await first.ended() == (1, "anabranch: another controller has taken over")
    other.close()


async def test_its_api_is_its_owners_alone_and_a_signal_ends_it(bench: Bench) -> None:
    first = await bench.controller("first")
    await first.until(active=True)
    assert stat.S_IMODE(first.socket.stat().st_mode) == 0o600
    token = (bench.directory / "token").read_text().strip()
    assert stat.S_IMODE((bench.directory / "token").stat().st_mode) == 0o600
    assert (await first.client.get("/api/fabric/vm-paths")).status_code == 401
    operator = {"Authorization": f"Bearer {token}"}
    await until(lambda: bench.send("10.0.0.255"))
    answer = await first.client.get("/api/fabric/vm-paths", headers=operator)
    assert [path["name"] for path in answer.json()["items"]] == ["stream"]
    async with first.client.stream("GET", "/control/events") as events:
        assert json.loads(await anext(events.aiter_lines())) == {"active": True}
        os.kill(first.pid, signal.SIGTERM)  # somebody still listens
        assert (await first.ended())[0] == 0
    lease = FileLease(bench.directory / "lease")
    async with asyncio.timeout(1):
        assert await lease.acquire() == 2
    lease.release()
    assert bench.send("239.1.2.3") == [PortRef("s2", 1)], "the switches go on"


async def test_what_contradicts_itself_is_not_begun(bench: Bench) -> None:
    first = await bench.controller("first", paths=[{**STREAM, "name": "lecture"}])
    code, words = await first.ended()
    assert (code, words) == (1, "anabranch: asked for twice: lecture")


@pytest.mark.parametrize(("host", "warned"), [("0.0.0.0", True), ("127.0.0.1", False)])
async def test_who_listens_to_anybody_without_tls_is_warned(host: str, warned: bool) -> None:
    with socket.create_server((host, 0)) as free:
        port = free.getsockname()[1]
    made = ControllerProcess(ControllerFile(listen=f"{host}:{port}"))
    try:
        with capture_logs() as logs:
            await made._meet_switches()
    finally:
        await made.fabric.close()
    assert ("controller.unprotected" in [entry["event"] for entry in logs]) is warned


async def test_switches_that_dial_find_whoever_listens_now(bench: Bench) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = f"127.0.0.1:{free.getsockname()[1]}"
    file = {
        "listen": address,
        "lease": None,
        "switches": [{"name": "s1", "dpid": 1}, {"name": "s2", "dpid": 2}],
    }
    farm = await bench.start(
        *("-m", "anabranch.fabric.softswitch", "--count", "2", "--topology", "line"),
        *("--host-ports", "1", "--connect", f"tcp:{address}"),
    )
    assert await farm.said() == {"state": "dialling", "switches": 2}
    first = await bench.controller("first", **file)
    assert (await farm.said())["state"] == "connected"
    await first.until(active=True)
    os.kill(first.pid, signal.SIGKILL)
    assert {(await farm.said())["state"] for _ in range(2)} == {"lost"}
    second = await bench.controller("second", **file)
    assert (await farm.said())["state"] == "connected"
    await second.until(active=True)
    done = await second.client.put("/control/intents/site", content=b"{}")
    assert done.json() == {"pending": []}
    os.kill(farm.pid, signal.SIGTERM)
    end = await farm.said()
    while end["state"] != "stopped":
        end = await farm.said()
    assert end["rules"] > 0
