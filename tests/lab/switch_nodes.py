"""A real Open vSwitch with two hosts and service nodes at it, all started as an operator does.

provider 10.78.0.1 ---1  s1  2--- user 10.78.0.2 and 10.78.0.101 to .116
                       11  12
                   10.78.0.11 10.78.0.12: nodes, each a namespace with ``svc0``
"""

import asyncio
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import httpx
import yaml
from tests.lab.inside import inside, socket_in
from tests.lab.two_bridges import join, run
from tests.waiting import wait_until

from anabranch.fabric.bridges import Bridge, Device
from anabranch.fabric.openvswitch import OpenVSwitch
from anabranch.host.network import remove_namespace
from anabranch.host.process import end_marked
from anabranch.services import modules
from anabranch.services.archive import pack
from anabranch.services.keys import PrivateKey
from anabranch.services.node.sending import signalling
from anabranch.services.provider import Path as ServicePath
from anabranch.services.signalling.compose import Author
from anabranch.services.signalling.response import Hop

MONITOR = "NetServ.apps.NetMonitor_1.0.0"
PROVIDER, USER = "10.78.0.1", "10.78.0.2"
SOURCES = [f"10.78.0.{101 + number}" for number in range(16)]
SANDBOXES = {1: "10.78.0.201", 2: "10.78.0.202"}
"""Where jane's server modules are spoken to, by node."""
NODES = {1: "10.78.0.11", 2: "10.78.0.12"}
BRIDGE, WEB_PORT = "br0", 8000
_IP_RECVTTL, _SO_RCVBUFFORCE = 12, 33  # ip(7), socket(7)
_UP = "Stop: Ctrl-C"
_PROGRAM = str(Path(sys.executable).with_name("anabranch"))
_PORTS = {"provider": 1, "user": 2, "n1": 11, "n2": 12}


class SwitchNodes:
    """The lab; remove it with :meth:`close`."""

    def __init__(self) -> None:
        self._word = secrets.token_hex(3)
        self.directory = Path(tempfile.mkdtemp(prefix="ab-t"))
        self._run_id = f"test-{secrets.token_hex(6)}"
        self._switch = OpenVSwitch(
            "s1", self.netns("s"), self.directory / "s1", self._run_id, lambda _: None
        )
        self._stack = ExitStack()
        self._stack.callback(shutil.rmtree, self.directory, ignore_errors=True)
        self._nodes: dict[int, subprocess.Popen[str]] = {}
        self._killed: set[int] = set()
        self.key = PrivateKey.generate()
        self._api: httpx.Client | None = None
        self._controller: subprocess.Popen[bytes] | None = None
        self._stack.callback(self.end_controller)

    def netns(self, name: str) -> str:
        return f"ab-w{self._word}-{name}"

    def node(self, number: int) -> str:
        """Return a node's name."""
        return f"w{self._word}-n{number}"

    async def build(self) -> None:
        """Make and start everything but the nodes."""
        for name in ("s", *_PORTS):
            self._stack.callback(remove_namespace, self.netns(name))
            run("ip", "netns", "add", self.netns(name))
            quiet = "net.ipv6.conf.default.disable_ipv6=1"
            run("ip", "netns", "exec", self.netns(name), "sysctl", "-qw", quiet)
            run("ip", "-n", self.netns(name), "link", "set", "lo", "up")
        for name, number in _PORTS.items():
            device = "svc0" if name.startswith("n") else "eth0"
            join((self.netns("s"), f"p{number}"), (self.netns(name), device))
            own = {"provider": [PROVIDER], "user": [USER, *SOURCES]}
            for address in own.get(name) or [NODES[number - 10]]:
                run("ip", "-n", self.netns(name), "addr", "add", f"{address}/24", "dev", device)
        for number in NODES:
            run("ip", "netns", "exec", self.netns(f"n{number}"), "sysctl", "-qw",
                "net.ipv4.ip_forward=1", "net.ipv4.conf.all.rp_filter=0")  # fmt: skip
        await self._switch.start()
        ports = tuple(Device(name=f"p{number}", ofport=number) for number in _PORTS.values())
        await self._switch.apply([Bridge(BRIDGE, ports, 1)])
        self._write_files()
        self.start_controller()
        self._serve_archives()

    def _write_files(self) -> None:
        controller = {
            "listen": None,
            "api": f"unix:{self.directory}/api.sock",
            "token": str(self.directory / "token"),
            "switches": [
                {"name": "s1", "dpid": 1, "connect": f"{self.directory}/s1/{BRIDGE}.mgmt"}
            ],
            "edge": [f"s1:{number}" for number in _PORTS.values()],
            "discover": False,
        }
        (self.directory / "net.yaml").write_text(yaml.safe_dump(controller))
        for number, address in SANDBOXES.items():
            user = {"name": "jane", "public_key": str(self.key.public), "address": address,
                    "listen_ports": [7], "filter_prefixes": ["10.78.0.0/24"]}  # fmt: skip
            users = yaml.safe_dump({"users": [user]})
            (self.directory / f"users{number}.yaml").write_text(users)
        self.key.store(self.directory / "key.pem")
        (self.directory / "web").mkdir()
        self.offer(Path(modules.__file__).parent / "netmonitor")

    def offer(self, source: Path) -> None:
        """Pack and sign a module, and put it on the provider's web server."""
        archive = pack(source).sign("jane", self.key)
        (self.directory / "web" / f"{source.name}.abm").write_bytes(bytes(archive))

    def start_controller(self) -> None:
        """Start the controller, and wait until the switch has its rules."""
        log = (self.directory / "controller.log").open("w")
        process = subprocess.Popen(
            (_PROGRAM, "fabric", "controller", str(self.directory / "net.yaml")),
            stdout=log, stderr=subprocess.STDOUT,
        )  # fmt: skip
        log.close()
        self._controller = process
        self._api = httpx.Client(
            transport=httpx.HTTPTransport(uds=f"{self.directory}/api.sock"),
            base_url="http://controller/api/fabric",
        )

        def up() -> bool:
            assert process.poll() is None, (self.directory / "controller.log").read_text()
            if not (self.directory / "api.sock").exists():
                return False
            with suppress(httpx.HTTPError, OSError):
                return bool(self.ask("/datapaths")[0]["rules"])
            return False

        wait_until(up, "the controller does not come up", limit_s=20)

    def end_controller(self) -> None:
        """End the controller; the switch keeps its rules."""
        if self._controller is not None:
            _end(self._controller)
        if self._api is not None:
            self._api.close()
        self._controller = self._api = None
        (self.directory / "api.sock").unlink(missing_ok=True)

    def ask(self, path: str) -> Any:
        """Return what the controller's API answers."""
        assert self._api is not None
        token = (self.directory / "token").read_text().strip()
        answer = self._api.get(path, headers={"Authorization": f"Bearer {token}"})
        assert answer.is_success, answer.text
        return answer.json()

    def _serve_archives(self) -> None:
        directory = str(self.directory / "web")

        class Handler(SimpleHTTPRequestHandler):
            def __init__(self, *args: Any) -> None:
                super().__init__(*args, directory=directory)

            def log_message(self, *args: Any) -> None:
                pass

        def serve() -> None:
            with inside(self.netns("provider")):
                server = ThreadingHTTPServer(("", WEB_PORT), Handler)
            made.append(server)
            ready.set()
            server.serve_forever(0.05)
            server.server_close()

        made: list[ThreadingHTTPServer] = []
        ready = threading.Event()
        thread = threading.Thread(target=serve)
        thread.start()
        ready.wait()
        self._stack.callback(thread.join)
        self._stack.callback(made[0].shutdown)

    # Nodes

    def start(self, number: int, stage: str = "") -> None:
        """Start a node by the command line, and wait until packets can be led to it."""
        name = self.node(number)
        key = self.directory / f"{name}.key"
        if not key.exists():
            key.write_text(self.ask(f"/service-nodes/{name}/key")["key"])
        text = self.directory / f"{name}.log"
        log = text.open("a")
        lives = text.read_text().count(_UP)  # it may have been there before
        process = subprocess.Popen(
            # not `ip netns exec`: it would hide the control groups
            ("nsenter", f"--net=/run/netns/{self.netns(f'n{number}')}", "--", _PROGRAM, "module",
             "serve", "--users", str(self.directory / f"users{number}.yaml"), "--name", name,
             "--state", str(self.directory / name), "--port", "svc0", "--at", f"s1:{10 + number}",
             "--controller", f"unix:{self.directory}/api.sock",
             "--token", str(key), "--stage", stage),
            stdout=log, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip
        log.close()
        self._nodes[number] = process
        self._killed.discard(number)

        def up() -> bool:
            assert process.poll() is None, text.read_text()
            return self.reached().get(name, False) and text.read_text().count(_UP) > lives

        wait_until(up, "a node does not come up", limit_s=20)

    def stop(self, number: int) -> None:
        """End a node as an operator does."""
        process = self._nodes.pop(number)
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0, (self.directory / f"{self.node(number)}.log").read_text()
        (self.directory / f"{self.node(number)}.log").unlink()

    def kill(self, number: int) -> None:
        """Have a node die; what it leaves goes with its next start, see :meth:`start`."""
        process = self._nodes.pop(number)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        (self.directory / f"{self.node(number)}.log").unlink()
        self._killed.add(number)

    def reached(self) -> dict[str, bool]:
        """Return the nodes that the controller knows, and which it can lead packets to."""
        return {node["name"]: node["reached"] for node in self.ask("/service-nodes")}

    # Traffic

    def command(self, *argv: str) -> subprocess.CompletedProcess[str]:
        """Run ``anabranch module`` as the provider."""
        key = ("--user", "jane", "--key", str(self.directory / "key.pem"))
        return subprocess.run(
            ("ip", "netns", "exec", self.netns("provider"), _PROGRAM, "module", *argv, *key),
            capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip

    def install(self, name: str = MONITOR, file: str = "netmonitor", *more: str) -> list[str]:
        """Have a module on the nodes towards the user; return these in their order."""
        wanted = more or ("--filter", "udp:5060", "-p", "top=16")
        done = self.command("install", name, USER, *self.offered(file), *wanted, "--json")
        assert done.returncode == 0, done.stderr + done.stdout
        rows = json.loads(done.stdout)
        assert all(row["status"] == 200 for row in rows), rows
        return [row["node"] for row in rows]

    def offered(self, file: str) -> tuple[str, str]:
        """Return the option that says where an archive is."""
        return "--url", f"http://{PROVIDER}:{WEB_PORT}/{file}.abm"

    def counted(self) -> dict[str, int]:
        """Return how many packets each node's NetMonitor has counted, by PROBE."""
        hops = self._along_the_path(lambda path: path.probe("status", name=MONITOR))
        return {
            hop.node_id: int(hop.details["counted"]) for hop in hops if "counted" in hop.details
        }

    def _along_the_path(self, use: Callable[[ServicePath], Awaitable[list[Hop]]]) -> list[Hop]:
        """Ask the nodes towards the user from the provider, in this process."""

        async def work() -> list[Hop]:
            async with signalling() as signaller:
                author = Author("jane", self.key)
                return await use(ServicePath(signaller, author, ip_address(USER)))

        def enter() -> list[Hop]:
            with inside(self.netns("provider")):
                return asyncio.run(work())

        with ThreadPoolExecutor(1) as pool:
            return pool.submit(enter).result()

    def send(self, rounds: int, port: int = 5060, *, pause_s: float = 0.002) -> int:
        """Have every source of the user send; return how many packets came to the provider.

        Each is to arrive as it was sent: payload, addresses and TTL.
        """
        inbox = socket_in(self.netns("provider"), lambda: _bound(PROVIDER, port))
        outboxes = [
            socket_in(self.netns("user"), lambda source=source: _bound(source, 0))
            for source in SOURCES
        ]
        inbox.setsockopt(socket.IPPROTO_IP, _IP_RECVTTL, 1)
        inbox.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, 4 << 20)
        sent = {
            (source, f"{number} of {source}".encode())
            for source in SOURCES
            for number in range(rounds)
        }
        for number in range(rounds):
            for source, outbox in zip(SOURCES, outboxes, strict=True):
                outbox.sendto(f"{number} of {source}".encode(), (PROVIDER, port))
            time.sleep(pause_s)
        got: list[tuple[str, bytes]] = []
        inbox.settimeout(1.0)
        with suppress(TimeoutError):
            while len(got) < len(sent):
                data, ancillary, _, source = inbox.recvmsg(100, 100)
                assert ancillary[0][2][0] == 64, "no switch takes the TTL down"
                got.append((source[0], data))
        for each in (inbox, *outboxes):
            each.close()
        assert len(set(got)) == len(got), "a packet came twice"
        assert set(got) <= sent
        return len(got)

    def asking(self, address: str, port: int) -> socket.socket:
        """Return a UDP socket of the user's that hears only whom it asks."""
        made = socket_in(self.netns("user"), lambda: _bound(USER, 0))
        made.settimeout(5)
        made.connect((address, port))
        return made

    def questions(self) -> int:
        """Return how many first packets the controller has led to nodes."""
        return int(self.ask("/counters").get("steered", 0))

    async def close(self) -> None:
        """End everything and leave nothing."""
        failures = []
        for number in list(self._killed):
            self.start(number)  # it takes away what the one before left
        for number in list(self._nodes):
            try:
                self.stop(number)
            except (AssertionError, subprocess.TimeoutExpired) as error:
                failures.append(error)
        await self._switch.stop()
        end_marked(self._run_id)
        self._stack.close()
        assert not failures


def _bound(address: str, port: int) -> socket.socket:
    made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    made.bind((address, port))
    return made


def _end(process: subprocess.Popen[Any]) -> None:
    process.terminate()
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
