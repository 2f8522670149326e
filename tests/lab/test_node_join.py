"""Another machine, behind a NAT, becomes a leaf of a running site: joins, plays, dies, goes.

See machines.py for the picture.
"""

import asyncio
import json
import os
import re
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
import pytest
from tests.lab.machines import HOME_ADDRESS, Machines, machines
from tests.tree.nats_server import nats_server
from tests.waiting import wait_until

from anabranch.app.bench.site_process import SiteProcess, running_site

pytestmark = [
    pytest.mark.lab,
    pytest.mark.alone,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root"),
]
NODE = "away"
WIREGUARD_TYPES = {bytes((number, 0, 0, 0)) for number in range(1, 5)}


class NodeProcess:
    """``anabranch node join`` on the machine at home."""

    def __init__(
        self, world: Machines, site: SiteProcess, directory: Path, *, name: str = NODE
    ) -> None:
        directory.mkdir(exist_ok=True)
        self.name = name
        self.world = world
        self.site = site
        self.directory = directory
        self.process: subprocess.Popen[bytes] | None = None
        self.log = directory / "log"

    def start(self, token: str | None, *ways: str) -> None:
        """Start it; ``ways`` to the root, in place of TCP."""
        tcp = f"{self.world.root_address}:{self.site.settings['REMOTE_PORT']}"
        arguments = [
            *("node", "join", *(ways or (tcp,))),
            *("--name", self.name, "--media", "24000-24099"),
            *("--state-dir", str(self.directory / "state")),
            *("--run-dir", str(self.directory / "run")),
        ]
        environment = {key: v for key, v in os.environ.items() if not key.startswith("ANABRANCH_")}
        if token is not None:
            environment["ANABRANCH_JOIN_TOKEN"] = token
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [
                    *("nsenter", f"--net=/run/netns/{self.world.home}", "--"),
                    *(sys.executable, "-m", "anabranch", *arguments),
                ],
                env=environment,
                cwd=self.directory,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def kill(self) -> None:
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def stop(self) -> int:
        assert self.process is not None
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
        return self.process.wait(60)

    def words(self) -> str:
        return self.log.read_text(errors="replace")


def invite(site: SiteProcess, name: str = NODE, *options: str) -> str:
    done = site.command("node", "invite", name, *(options or ("--parent", "relay")))
    assert done.returncode == 0, done.stderr
    token = re.search(r"--token (\S+)", done.stdout)
    assert token is not None
    return token[1]


def node_state(site: SiteProcess, name: str = NODE) -> str:
    guests = json.loads(site.command("node", "list", "--json").stdout)
    return str(next((guest["state"] for guest in guests if guest["name"] == name), "unknown"))


def is_serving(site: SiteProcess) -> bool:
    nodes = site.api("GET", "/api/nodes").json()
    # Its switch is there before its leaf takes viewers.
    (state,) = [(n["connected"], n["state"]) for n in nodes if n["name"] == NODE] or [(False, "")]
    return state == (True, "up")


def watch_at_home(world: Machines, site: SiteProcess, frames: int = 25) -> str:
    """Have a viewer at home watch; return what it saw."""
    url = f"http://{world.root_address}:{site.port}/whep/test1"
    done = subprocess.run(
        [
            *("nsenter", f"--net=/run/netns/{world.home}", "--"),
            *(sys.executable, "-m", "tests.lab.viewer", url, str(frames)),
        ],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout.strip()


@contextmanager
def _removed(directory: Path) -> Iterator[None]:
    try:
        yield
    finally:
        shutil.rmtree(directory, ignore_errors=True)


@contextmanager
def worlds(
    bus_port: int | None = None, **settings: str
) -> Iterator[tuple[Machines, SiteProcess, NodeProcess]]:
    """Give the machines, a site on the root's and a node at home that has not joined yet.

    Args:
        bus_port: where a bus is expected at the root's address.
    """
    directory = Path(tempfile.mkdtemp(prefix="abn", dir="/tmp"))
    port = 30000 + secrets.randbelow(2000)
    third = secrets.randbelow(200) + 20
    with machines() as world, _removed(directory):
        if bus_port is not None:
            settings["REMOTE__BUS"] = f"tls://{world.root_address}:{bus_port}"
        with running_site(
            REMOTE__LISTEN=f"{world.root_address}:{port}",
            ADDRESSES__TUNNELS=f"10.96.{third}.0/24",
            **settings,
        ) as site:
            site.settings["REMOTE_PORT"] = str(port)
            node = NodeProcess(world, site, directory)
            try:
                yield world, site, node
            except BaseException:
                sys.stderr.write(f"--- the node said:\n{node.words()[-6000:]}\n")
                sys.stderr.write(f"--- the site said:\n{site.log.read_text()[-8000:]}\n")
                raise
            finally:
                if node.process is not None:
                    node.stop()


def only_leaf_is_away(site: SiteProcess) -> None:
    for leaf in ("leaf1", "leaf2"):
        assert site.api("POST", f"/api/nodes/{leaf}/drain").is_success


def left_of(world: Machines) -> list[str]:
    """Return what a node left: namespaces, devices of its machine, processes there."""
    names = subprocess.run(["ip", "netns"], capture_output=True, text=True, check=True).stdout
    left = [line.split()[0] for line in names.splitlines() if line.split()[0].endswith(f"-{NODE}")]
    devices = subprocess.run(
        ["ip", "-n", world.home, "-o", "link"], capture_output=True, text=True, check=True
    ).stdout
    left += re.findall(r"\d+: (ab\w+)", devices)
    inode = Path(f"/run/netns/{world.home}").stat().st_ino
    for process in psutil.process_iter():
        with suppress(OSError, psutil.Error):
            if os.stat(f"/proc/{process.pid}/ns/net").st_ino == inode:
                left.append(" ".join(process.cmdline()))
    tables = ["nsenter", f"--net=/run/netns/{world.home}", "nft", "list", "tables"]
    left += subprocess.run(tables, capture_output=True, text=True, check=True).stdout.splitlines()
    return left


async def test_a_machine_behind_a_nat_is_a_leaf() -> None:
    await asyncio.to_thread(_a_machine_behind_a_nat_is_a_leaf)


def _a_machine_behind_a_nat_is_a_leaf() -> None:
    with worlds() as (world, site, node):
        token = invite(site)
        assert node_state(site) == "invited"
        with world.overheard() as heard:
            began = time.monotonic()
            node.start(token)
            wait_until(lambda: is_serving(site))
            sys.stdout.write(f"\nserving {time.monotonic() - began:.1f} s after its start\n")
            assert node_state(site) == "up"
            only_leaf_is_away(site)
            assert watch_at_home(world, site) == "640x360"
        tls = {int(site.settings["REMOTE_PORT"])}
        whep = {site.port}  # the viewer's own, over plain HTTP
        readable = [frame for frame in heard if not is_encrypted(frame, tls | whep)]
        assert readable == []
        assert len(heard) > 500
        secret = token.split(".")[2].encode()
        assert not any(secret in frame or b"<message" in frame for frame in heard)

        node.kill()
        node.start(None)
        wait_until(lambda: not is_serving(site))
        wait_until(lambda: is_serving(site))
        assert watch_at_home(world, site) == "640x360"

        assert node.stop() == 0
        assert left_of(world) == []
        wait_until(lambda: node_state(site) == "invited")
        node.start(None)
        wait_until(lambda: is_serving(site))

        assert site.command("node", "remove", NODE).returncode == 0
        assert node.process is not None
        assert node.process.wait(60) == 0
        assert "ended by the root" in node.words()
        assert node_state(site) == "unknown"
        assert left_of(world) == []
        node.start(None)  # its certificate is void
        time.sleep(3)
        assert node_state(site) == "unknown"
        assert not is_serving(site)


def is_encrypted(frame: bytes, tls: set[int]) -> bool:
    """Say whether a frame is WireGuard, TCP of a port in ``tls``, ARP or ICMP."""
    if frame[12:14] != b"\x08\x00":
        return True  # ARP
    match frame[23]:
        case 17:
            return segment_in(frame)[8:12] in WIREGUARD_TYPES
        case 6:
            return not tcp_ports(frame).isdisjoint(tls)
        case protocol:
            return protocol == 1  # ICMP


def segment_in(frame: bytes) -> bytes:
    """Return what a frame's IPv4 packet carries."""
    return frame[14 + 4 * (frame[14] & 15) :]


def tcp_ports(frame: bytes) -> set[int]:
    """Return both ports of a frame of TCP over IPv4; none of another frame."""
    if frame[12:14] != b"\x08\x00" or frame[23] != 6:
        return set()
    segment = segment_in(frame)
    return {int.from_bytes(segment[at : at + 2], "big") for at in (0, 2)}


def test_a_forged_token_is_refused_and_leaves_nothing() -> None:
    with worlds() as (world, site, node):
        prefix, name, secret, authority = invite(site).split(".")
        other = "A" if secret[0] != "A" else "B"
        node.start(".".join((prefix, name, other + secret[1:], authority)))
        assert node.process is not None
        assert node.process.wait(60) == 1
        assert "the root refuses" in node.words()
        node.start(".".join((prefix, name, secret, "0" * 64)))
        assert node.process.wait(60) == 1
        assert "another authority" in node.words()
        assert secret not in node.words()
        assert node_state(site) == "invited"
        assert left_of(world) == []
        assert HOME_ADDRESS not in site.log.read_text()


@pytest.mark.parametrize("scheme", [pytest.param("http", marks=pytest.mark.proof), "https"])
def test_a_machine_that_has_nothing_but_http(scheme: str) -> None:
    """What media needs is WireGuard's UDP; the tree, joining included, goes by the pages' port."""
    with worlds(TLS__ENABLED=str(scheme == "https").lower()) as (world, site, node):
        url = f"{scheme}://{world.root_address}:{site.port}"
        token = invite(site)
        with world.overheard() as heard:
            node.start(token, url)
            wait_until(lambda: node_state(site) == "up")
        port = int(site.settings["REMOTE_PORT"])
        assert not any(port in tcp_ports(frame) for frame in heard)
        assert any(site.port in tcp_ports(frame) for frame in heard)
        assert not any(token.split(".")[2].encode() in frame for frame in heard)
        node.kill()
        node.start(None, url)
        wait_until(lambda: node.words().count("part of the tree") == 2)
        wait_until(lambda: node_state(site) == "up")
        assert node.stop() == 0
        wait_until(lambda: node_state(site) == "invited")
        assert left_of(world) == []


def test_a_machine_that_comes_by_the_bus() -> None:
    """It joins over TCP, as it needs a certificate for the bus; then there is the bus alone."""
    bus_port = 32000 + secrets.randbelow(700)
    with (
        worlds(bus_port) as (world, site, node),
        nats_server(node.directory, world.root_address) as server,
    ):
        server.port = bus_port
        server.configuration = Path(site.command("node", "bus-config").stdout.strip())
        assert server.configuration.stat().st_mode & 0o777 == 0o600
        server.start()
        node.start(invite(site))
        wait_until(lambda: node_state(site) == "up")
        assert node.stop() == 0
        wait_until(lambda: node_state(site) == "invited")

        server.reload()  # the server is told of the guest
        by_bus = (
            f"{world.root_address}:1",
            "--bus",
            site.settings["REMOTE__BUS"],
            "--site",
            site.name,
        )
        node.start(None, *by_bus)
        wait_until(lambda: node_state(site) == "up")
        only_leaf_is_away(site)
        assert watch_at_home(world, site) == "640x360"
        assert site.command("node", "remove", NODE).returncode == 0
        assert node.process is not None
        assert node.process.wait(60) == 0
        assert "ended by the root" in node.words()
        assert NODE not in server.configuration.read_text()
        assert left_of(world) == []


def test_a_node_that_leaves_while_it_is_taken_in_is_gone_soon() -> None:
    with worlds() as (_, site, node):
        node.start(invite(site))
        wait_until(lambda: "part of the tree" in node.words())
        node.kill()
        node.start(None)
        wait_until(lambda: node.words().count("part of the tree") == 2)
        began = time.monotonic()
        assert node.stop() == 0
        wait_until(lambda: node_state(site) == "invited")
        took = time.monotonic() - began
        sys.stdout.write(f"\nremoved {took:.1f} s after its goodbye\n")
        assert took < 15


def test_a_viewer_plays_on_after_the_network_was_away() -> None:
    with worlds() as (world, site, node):
        node.start(invite(site))
        wait_until(lambda: is_serving(site))
        only_leaf_is_away(site)
        url = f"http://{world.root_address}:{site.port}/whep/test1"
        command = [
            *("nsenter", f"--net=/run/netns/{world.home}", "--"),
            *(sys.executable, "-m", "tests.lab.viewer", url, "500"),
        ]
        viewer = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        try:
            wait_until(lambda: seats(site) == [(NODE, "watching")])
            cut = ["ip", "-n", world.internet, "link", "set", "lan0"]
            subprocess.run([*cut, "down"], check=True)
            wait_until(lambda: not is_serving(site))
            subprocess.run([*cut, "up"], check=True)
            wait_until(lambda: is_serving(site))
            assert seats(site) == [(NODE, "watching")]
            said, _ = viewer.communicate(timeout=120)
            assert (viewer.returncode, said.strip()) == (0, "640x360")
        finally:
            viewer.kill()
            viewer.wait()


def seats(site: SiteProcess) -> list[tuple[str, str]]:
    return [(seat["leaf"], seat["state"]) for seat in site.api("GET", "/api/seats").json()]


def test_a_relay_elsewhere_has_a_leaf_below_it() -> None:
    """Both at home: what one has for the other goes by the hub."""
    with worlds() as (world, site, leaf):
        relay = NodeProcess(world, site, leaf.directory / "relay", name="middle")
        try:
            relay.start(invite(site, "middle", "--role", "relay"))
            leaf.start(invite(site, NODE, "--parent", "middle"))
            wait_until(lambda: is_serving(site))
            only_leaf_is_away(site)
            nodes = site.api("GET", "/api/tree").json()["nodes"]
            parents = {node["name"]: node["parent"] for node in nodes}
            assert (parents[NODE], parents["middle"]) == ("middle", "relay")
            assert watch_at_home(world, site) == "640x360"

            relay.kill()  # its leaf hangs from somebody else
            wait_until(lambda: parent_of(site, NODE) == "relay")
            wait_until(lambda: is_serving(site))
            assert watch_at_home(world, site) == "640x360"
            relay.start(None)  # so that what the killed one left is removed
            wait_until(lambda: node_state(site, "middle") == "up")
        finally:
            relay.stop()


def parent_of(site: SiteProcess, name: str) -> str | None:
    nodes = site.api("GET", "/api/tree").json()["nodes"]
    return next((str(node["parent"]) for node in nodes if node["name"] == name), None)
