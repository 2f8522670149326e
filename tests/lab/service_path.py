"""Sender - node a - plain router - node b - destination, each a namespace of its own."""

import asyncio
import http.server
import json
import os
import secrets
import signal
import subprocess
import sys
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack
from ipaddress import ip_address
from itertools import pairwise
from pathlib import Path
from typing import Any

import yaml
from tests.lab.inside import inside
from tests.lab.service_host import MARK
from tests.lab.two_bridges import join, run

from anabranch.services.keys import PrivateKey
from anabranch.services.node.sending import Signaller, signalling
from anabranch.services.signalling.compose import Author

CHAIN = ("s", "a", "r", "b", "d")
SENDER, DESTINATION = ip_address("10.77.1.1"), ip_address("10.77.4.2")
DESTINATION_6 = ip_address("fd77:4::2")
NODE_A, NODE_B = "10.77.1.2", "10.77.3.2"
WEB_PORT = 8000
ARCHIVE = MARK + b" 1"


class ServicePath:
    """The path, its nodes running; remove it with :meth:`close`."""

    def __init__(self, directory: Path) -> None:
        self.prefix = f"ab-s{secrets.token_hex(3)}"
        self.directory = directory
        self.key = PrivateKey.generate()
        self.author = Author("janedoe", self.key)
        self._hosts: dict[str, subprocess.Popen[str]] = {}
        self._stack = ExitStack()
        self.web = directory / "web"

    def netns(self, name: str) -> str:
        return f"{self.prefix}-{name}"

    def build(self, **options: Any) -> None:
        """Make the namespaces and links, then start both nodes and the sender's web server."""
        for name in CHAIN:
            netns = self.netns(name)
            run("ip", "netns", "add", netns)
            self._stack.callback(run, "ip", "netns", "del", netns)
            run("ip", "-n", netns, "link", "set", "lo", "up")
            run("ip", "netns", "exec", netns, "sysctl", "-qw", "net.ipv4.ip_forward=1",
                "net.ipv6.conf.all.forwarding=1")  # fmt: skip
        for index, (left, right) in enumerate(pairwise(CHAIN), 1):
            join((self.netns(left), "right"), (self.netns(right), "left"))
            for name, device, host in ((left, "right", 1), (right, "left", 2)):
                address = f"10.77.{index}.{host}/24"
                run("ip", "-n", self.netns(name), "addr", "add", address, "dev", device)
                address = f"fd77:{index}::{host}/64"
                run("ip", "-n", self.netns(name), "addr", "add", address, "dev", device, "nodad")
        for place, name in enumerate(CHAIN):
            for subnet in range(1, len(CHAIN)):
                if place <= subnet <= place + 1:
                    continue  # its own
                hop, host = (place + 1, 2) if subnet > place else (place, 1)
                for there, via in (
                    (f"10.77.{subnet}.0/24", f"10.77.{hop}.{host}"),
                    (f"fd77:{subnet}::/64", f"fd77:{hop}::{host}"),
                ):
                    run("ip", "-n", self.netns(name), "route", "add", there, "via", via)
        self.extend()
        self.web.mkdir(exist_ok=True)
        (self.web / "module.zip").write_bytes(ARCHIVE)
        self.key.store(self.directory / "key.pem")
        self._serve()
        for name in ("a", "b"):
            self.start(name, **options)

    def extend(self) -> None:
        """Add to the path what a test has beside it; before the nodes start."""

    def add_host(self, name: str) -> str:
        """Make another namespace, removed with the path; return its full name."""
        netns = self.netns(name)
        run("ip", "netns", "add", netns)
        self._stack.callback(run, "ip", "netns", "del", netns)
        run("ip", "-n", netns, "link", "set", "lo", "up")
        return netns

    def start(self, name: str, **options: Any) -> None:
        """Start a node, and wait until it runs."""
        directory = self.directory / name
        directory.mkdir(exist_ok=True)
        user = {
            "name": "janedoe",
            "public_key": str(self.key.public),
            "filter_prefixes": ["10.77.1.0/24"],
        }
        (directory / "users.yaml").write_text(yaml.safe_dump({"users": [user]}))
        host = subprocess.Popen(
            # not `ip netns exec`: it would hide the control groups
            ("nsenter", f"--net=/run/netns/{self.netns(name)}", "--", sys.executable, "-m",
             "tests.lab.service_host", name, str(directory), json.dumps(options)),
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        self._hosts[name] = host
        assert host.stdout
        assert host.stdout.readline() == "ready\n"

    def stop(self, name: str) -> None:
        """End a node as an operator does; it says nothing more."""
        host = self._hosts.pop(name)
        assert host.stdin
        host.stdin.close()
        assert host.wait(10) == 0
        assert host.stdout
        host.stdout.close()

    def installed(self, name: str) -> list[str]:
        """Return what is in janedoe's sandbox at a node."""
        shelf = self.directory / name / "sandboxes" / "janedoe"
        return sorted(path.name for path in shelf.iterdir()) if shelf.exists() else []

    def sending(self, use: Callable[[Signaller], Awaitable[Any]]) -> Any:
        """Run ``use`` with a sender in its namespace."""
        found: list[Any] = []

        async def work() -> None:
            async with signalling() as signaller:
                found.append(await use(signaller))

        def enter() -> None:
            with inside(self.netns("s")):
                asyncio.run(work())

        thread = threading.Thread(target=enter)
        thread.start()
        thread.join()
        return found[0]

    def command(self, *argv: str) -> subprocess.CompletedProcess[str]:
        """Run ``anabranch module`` at the sender."""
        program = str(Path(sys.executable).with_name("anabranch"))
        key = ("--user", "janedoe", "--key", str(self.directory / "key.pem"))
        return subprocess.run(
            ("ip", "netns", "exec", self.netns("s"), program, "module", *argv, *key),
            capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip

    def _serve(self) -> None:
        directory = str(self.web)

        class Handler(http.server.SimpleHTTPRequestHandler):
            def __init__(self, *args: Any) -> None:
                super().__init__(*args, directory=directory)

            def log_message(self, *args: Any) -> None:
                pass

        def enter() -> None:
            with inside(self.netns("s")):
                server = http.server.ThreadingHTTPServer(("", WEB_PORT), Handler)
            made.append(server)
            ready.set()
            server.serve_forever(0.05)
            server.server_close()

        made: list[http.server.ThreadingHTTPServer] = []
        ready = threading.Event()
        thread = threading.Thread(target=enter)
        thread.start()
        ready.wait()
        self._stack.callback(thread.join)
        self._stack.callback(made[0].shutdown)

    def close(self) -> None:
        """End everything and leave nothing."""
        for name in self._hosts:
            self._stack.callback(self.stop, name)
        self._stack.close()


class WholeNodes(ServicePath):
    """The path with nodes as an operator starts them: ``anabranch module serve``."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self._relays: dict[str, threading.Thread] = {}

    def user(self, name: str) -> dict[str, Any]:
        """Return what janedoe has at a node, beside name and key."""
        return {}

    def start(self, name: str, **options: Any) -> None:
        directory = self.directory / name
        directory.mkdir(exist_ok=True)
        user = {"name": "janedoe", "public_key": str(self.key.public), **self.user(name)}
        (directory / "users.yaml").write_text(yaml.safe_dump({"users": [user]}))
        netns = self.netns(name)
        devices = Path("/proc/sys/net/ipv4/conf")
        with inside(netns):
            for each in devices.iterdir():
                (each / "rp_filter").write_text("0")
        # Not by ip-netns(8): it mounts /sys anew, and the control groups are out of sight.
        host = subprocess.Popen(
            ("nsenter", f"--net=/run/netns/{netns}", sys.executable, "-m", "anabranch", "module",
             "serve", "--users", str(directory / "users.yaml"), "--name", self.node(name),
             "--state", str(directory / "state")),
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip
        self._hosts[name] = host
        assert host.stdout
        lines = iter(host.stdout.readline, "")
        assert any("Stop: Ctrl-C" in line for line in lines)
        relay = threading.Thread(target=self._relay, args=(name, lines), daemon=True)
        self._relays[name] = relay
        relay.start()

    def _relay(self, name: str, lines: Iterator[str]) -> None:
        """Keep what a node logs with what the test prints: it is shown where one fails."""
        for line in lines:
            sys.stdout.write(f"{name}: {line}")

    def node(self, name: str) -> str:
        """Return what a node is called on this machine, and in answers."""
        return f"{name}{os.getpid()}"

    def stop(self, name: str) -> None:
        self._end(name, signal.SIGTERM, 0)

    def kill(self, name: str) -> None:
        """End a node as a fault does."""
        self._end(name, signal.SIGKILL, -signal.SIGKILL)

    def _end(self, name: str, number: int, code: int) -> None:
        host = self._hosts.pop(name)
        host.send_signal(number)
        assert host.wait(20) == code
        self._relays.pop(name).join(5)
        for end in (host.stdin, host.stdout):
            assert end is not None
            end.close()

    def provide(self, *argv: str) -> subprocess.Popen[bytes]:
        """Start ``anabranch provide`` at the sender; whoever does ends it."""
        program = str(Path(sys.executable).with_name("anabranch"))
        key = ("--user", "janedoe", "--key", str(self.directory / "key.pem"))
        return subprocess.Popen(
            ("ip", "netns", "exec", self.netns("s"), program, "provide", *argv, *key)
        )
