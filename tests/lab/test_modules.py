"""Modules on the path of a plain Linux router: sender - node - receiver, real namespaces."""

import asyncio
import os
import shutil
import socket
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack, contextmanager
from hashlib import sha256
from ipaddress import IPv4Address, IPv6Address, ip_network
from pathlib import Path

import psutil
import pytest
from tests.services.test_keepalive import notify
from tests.services.wasm.guests import guest

from anabranch.app.bench.modules.traffic import send, udp_frames
from anabranch.app.bench.modules.world import World, make_world, packets_in
from anabranch.host.network import made_inside, run_tool
from anabranch.services import modules
from anabranch.services.archive import pack
from anabranch.services.controller.runtime import ModuleRequest, RuntimeRefusedError
from anabranch.services.controller.users import User
from anabranch.services.keys import PrivateKey
from anabranch.services.planes.linux import LinuxPlane
from anabranch.services.resident import Grant
from anabranch.services.runtime import NodeRuntime, RuntimeSettings
from anabranch.services.signalling.values import Filter

pytestmark = pytest.mark.lab

MODULES = Path(modules.__file__).parent
KEYS = {name: PrivateKey.generate() for name in ("alice", "bob", "mallory")}
ADDRESSES = {"alice": "10.9.0.1", "bob": "10.9.0.2", "mallory": "10.9.0.3"}
MONITOR = "NetServ.apps.NetMonitor_1.0.0"
SIP = Filter(ip_network("10.2.0.1/32"), 17, (5060,))


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    with make_world(sink=False) as made:
        yield made


@pytest.fixture
async def runtime(world: World) -> AsyncIterator[NodeRuntime]:
    with tempfile.TemporaryDirectory(prefix="ab-modules-") as state:
        run_id = f"test-{os.getpid()}"
        grants = {"mallory": Grant(memory_mb=32, cpu_percent=20, tasks=8)}
        settings = RuntimeSettings(Path(state), run_id, Grant(memory_mb=128), grants)
        made = NodeRuntime(settings, LinuxPlane(f"t{os.getpid()}", world.router))
        await made.open()
        try:
            yield made
        finally:
            await made.close()


def user(name: str, ports: tuple[int, ...] = (80, 5070)) -> User:
    return User(
        name=name, public_key=KEYS[name].public, address=IPv4Address(ADDRESSES[name]),
        listen_ports=tuple(range(p, p + 1) for p in ports),
    )  # fmt: skip


async def install(runtime: NodeRuntime, who: User, source: Path, identity: str,
                  wanted: Filter | None = SIP, **properties: str):  # fmt: skip
    data = bytes(pack(source).sign(who.name, KEYS[who.name]))
    with tempfile.NamedTemporaryFile(suffix=".abm") as file:
        file.write(data)
        file.flush()
        request = ModuleRequest(identity, Path(file.name), sha256(data).digest(), wanted, 60,
                                properties)  # fmt: skip
        return await runtime.install(who, request)


def written(directory: Path, code: str, version: str = "1.0.0", resources: str = "") -> Path:
    directory.mkdir()
    (directory / "module.toml").write_text(
        f'name = "attempt"\nversion = "{version}"\nentry = "attempt:Attempt"\n'
        f"[resources]\n{resources}\n"
    )
    (directory / "attempt.py").write_text(code)
    return directory


@contextmanager
def sockets(world: World) -> Iterator[tuple[Callable, Callable]]:
    """Give makers of sockets at the receiver, bound, and at the sender."""
    with ExitStack() as stack:

        def make(
            namespace: str, kind: int, address: tuple[str, int] | None, family: int = socket.AF_INET
        ) -> socket.socket:
            made = made_inside(namespace, lambda: socket.socket(family, kind))
            stack.enter_context(made)
            made.settimeout(5)
            if address is not None:
                made.bind(address)
            return made

        yield (
            lambda kind, address=None: make(world.receiver, kind, address),
            lambda kind, address=None, **how: make(world.sender, kind, address, **how),
        )


def read_all(listener: socket.socket) -> bytes:
    accepted, _ = listener.accept()
    accepted.settimeout(5)
    with accepted, accepted.makefile("rb") as file:
        return file.read()


async def get(world: World, address: str) -> bytes:
    def ask() -> bytes:
        with sockets(world) as (_, sender):
            family = socket.AF_INET6 if ":" in address else socket.AF_INET
            caller = sender(socket.SOCK_STREAM, family=family)
            caller.connect((address, 80))
            caller.sendall(b"GET / HTTP/1.0\r\n\r\n")
            with caller.makefile("rb") as file:
                return file.read()

    return await asyncio.to_thread(ask)


async def test_packets_pass_a_module_and_go_on(world: World, runtime: NodeRuntime) -> None:
    alice = user("alice")
    await install(runtime, alice, MODULES / "netmonitor", MONITOR, top="16")
    before = world.received()
    frames = udp_frames(world, b"x" * 22, sources=16)
    sent = await send(world, frames, 1.0, rate=2000)
    await asyncio.sleep(0.3)
    status = await runtime.status(alice, MONITOR)
    assert int(status["counted"]) == sent.packets
    assert int(status["flows"]) == 16
    assert world.received() - before >= sent.packets
    assert status["10.1.128.1_10.2.0.1_64"] == str(sent.packets // 16)
    await runtime.remove(alice, MONITOR)
    assert await runtime.status(alice, MONITOR) == {}
    before = world.received()
    sent = await send(world, frames, 0.5, rate=1000)
    await asyncio.sleep(0.2)
    assert world.received() - before >= sent.packets


async def test_checksums_and_segments_of_ordinary_programs(
    world: World, runtime: NodeRuntime, tmp_path: Path
) -> None:
    """What local sockets leave to a device is made before a module sees it: TCP of many
    megabytes and UDP come through a module that looks at every byte and changes their ports."""
    source = written(
        tmp_path / "m",
        """
from anabranch.services.module import Module
import numpy as np
class Attempt(Module):
    seen = longest = 0
    def process(self, batch):
        self.seen += len(batch)
        self.longest = max(self.longest, int(batch.length.max()))
        batch.rewrite(batch.destination_port == 7001, destination_port=7000)
        batch.rewrite(batch.protocol == 17, ttl=33)
    def status(self):
        return {"seen": self.seen, "longest": self.longest}
""",
    )
    alice = user("alice")
    everything = Filter(ip_network("10.2.0.1/32"))
    await install(runtime, alice, source, "attempt_1.0.0", everything)
    data = os.urandom(3_000_000)
    with sockets(world) as (receiver, sender):
        listener = receiver(socket.SOCK_STREAM, ("10.2.0.1", 7000))
        listener.listen()
        caller = sender(socket.SOCK_STREAM)
        received = asyncio.create_task(asyncio.to_thread(read_all, listener))
        await asyncio.to_thread(caller.connect, ("10.2.0.1", 7000))
        await asyncio.to_thread(caller.sendall, data)
        caller.close()
        assert await received == data
        inbox = receiver(socket.SOCK_DGRAM, ("10.2.0.1", 7000))
        outbox = sender(socket.SOCK_DGRAM)
        outbox.sendto(b"hello", ("10.2.0.1", 7001))
        assert await asyncio.to_thread(inbox.recv, 100) == b"hello"
    status = await runtime.status(alice, "attempt_1.0.0")
    assert int(status["longest"]) <= 1500
    assert int(status["seen"]) > 2000


async def test_keep_alives_are_answered_in_the_servers_name(
    world: World, runtime: NodeRuntime
) -> None:
    alice = user("alice")
    await install(runtime, alice, MODULES / "keepalive", "NetServ.apps.KeepAlive_1.0.0")
    before = world.received()
    with sockets(world) as (_, sender):
        agent = sender(socket.SOCK_DGRAM)
        agent.connect(("10.2.0.1", 5060))  # an answer from anybody else does not come in
        for number in range(20):
            agent.send(notify(number))
            answer = await asyncio.to_thread(agent.recv, 2000)
            assert answer.startswith(b"SIP/2.0 200 OK\r\n")
            assert f"Call-ID: {number:08}@".encode() in answer
    assert world.received() == before


async def test_two_tenants_listen_on_port_80(
    world: World, runtime: NodeRuntime, tmp_path: Path
) -> None:
    code = """
import http.server, threading
from anabranch.services.module import Module
class Attempt(Module):
    def configure(self, context):
        self.text = context.properties["text"].encode()
    def start(self):
        text = self.text
        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                self.send_response(200)
                self.send_header("Content-Length", str(len(text)))
                self.end_headers()
                self.wfile.write(text)
        self.server = http.server.ThreadingHTTPServer(("", 80), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
    def stop(self):
        self.server.shutdown()
        self.server.server_close()
"""
    source = written(tmp_path / "web", code, resources="ports = [80]")
    for name in ("alice", "bob"):
        said = await install(runtime, user(name), source, "attempt_1.0.0", None, text=name)
        assert said["listens"] == f"{ADDRESSES[name]}:80"
    for name in ("alice", "bob"):
        assert (await get(world, ADDRESSES[name])).endswith(name.encode())
    # another version takes over the port
    newer = written(tmp_path / "newer", code, "1.1.0", "ports = [80]")
    await install(runtime, user("bob"), newer, "attempt_1.1.0", None, text="newer")
    assert (await get(world, ADDRESSES["bob"])).endswith(b"newer")
    assert (await get(world, ADDRESSES["alice"])).endswith(b"alice")
    mail = written(tmp_path / "mail", code, resources="ports = [25]")
    with pytest.raises(RuntimeRefusedError, match="may not listen on port 25"):
        await install(runtime, user("alice"), mail, "attempt_1.0.0", None, text="")


async def test_a_server_is_reached_by_ipv6_and_knows_its_user(
    world: World, runtime: NodeRuntime, tmp_path: Path
) -> None:
    code = """
import http.server, socket, threading
from anabranch.services.module import Module
class Server(http.server.ThreadingHTTPServer):
    address_family = socket.AF_INET6
class Attempt(Module):
    def configure(self, context):
        self.text = f"{context.address6} {context.public_key}".encode()
    def start(self):
        text = self.text
        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                self.send_response(200)
                self.end_headers()
                self.wfile.write(text)
        self.server = Server(("::", 80), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
    def stop(self):
        self.server.shutdown()
        self.server.server_close()
"""
    for netns, device, address in (
        (world.sender, "s0", "fd77:1::1"), (world.router, "in0", "fd77:1::2")
    ):  # fmt: skip
        run_tool("sysctl", "-qw", f"net.ipv6.conf.{device}.disable_ipv6=0", namespace=netns)
        run_tool("ip", "-n", netns, "addr", "add", f"{address}/64", "dev", device, "nodad")
    run_tool("ip", "-n", world.sender, "route", "add", "fd77:9::/64", "via", "fd77:1::2")
    run_tool("sysctl", "-qw", "net.ipv6.conf.all.forwarding=1", namespace=world.router)
    alice = user("alice").model_copy(update={"address6": IPv6Address("fd77:9::1")})
    source = written(tmp_path / "web", code, resources="ports = [80]")
    said = await install(runtime, alice, source, "attempt_1.0.0", None)
    assert said["listens"] == f"{ADDRESSES['alice']}:80 [fd77:9::1]:80"
    assert (await get(world, "fd77:9::1")).endswith(f"fd77:9::1 {alice.public_key}".encode())
    assert (await get(world, ADDRESSES["alice"])).endswith(str(alice.public_key).encode())


async def test_a_new_version_goes_on_without_a_lost_packet(
    world: World, runtime: NodeRuntime, tmp_path: Path
) -> None:
    alice = user("alice")
    versions = []
    for version in ("1.0.0", "1.1.0", "1.2.0"):
        source = tmp_path / version
        shutil.copytree(MODULES / "netmonitor", source)
        text = (source / "module.toml").read_text()
        (source / "module.toml").write_text(text.replace("1.0.0", version))
        versions.append((source, f"NetServ.apps.NetMonitor_{version}"))
    await install(runtime, alice, *versions[0])
    before = world.received()
    sending = asyncio.create_task(send(world, udp_frames(world, b"x" * 22), 2.5, rate=5_000))
    await asyncio.sleep(1.0)
    for source, identity in versions[1:]:
        said = await install(runtime, alice, source, identity)
        assert float(said["pause-ms"]) < 10
    sent = await sending
    await asyncio.sleep(0.3)
    await runtime.remove(alice, versions[0][1])  # an older one is not this one
    status = await runtime.status(alice, versions[2][1])
    assert status["lost"] == "0"
    assert int(status["counted"]) == sent.packets
    assert world.received() - before >= sent.packets


async def test_a_module_that_breaks_on_install_leaves_the_old_one_be(
    world: World, runtime: NodeRuntime, tmp_path: Path
) -> None:
    alice = user("alice")
    good = """
from anabranch.services.module import Module
class Attempt(Module):
    starts = 0
    def start(self):
        self.starts += 1
    def status(self):
        return {"starts": self.starts}
"""
    await install(runtime, alice, written(tmp_path / "good", good), "attempt_1.0.0")
    for number, (code, words) in enumerate(
        [
            ("syntax error", "SyntaxError"),
            ("import nowhere", "ModuleNotFoundError"),
            ("x = 1", "no class"),
            (good.replace("self.starts += 1", "raise OSError('no port')"), "no port"),
            (good + "    def configure(self, c): raise ValueError('bad property')", "bad property"),
        ]
    ):
        source = written(tmp_path / f"bad{number}", code, "2.0.0")
        with pytest.raises(RuntimeRefusedError, match=words):
            await install(runtime, alice, source, "attempt_2.0.0")
    status = await runtime.status(alice, "attempt_1.0.0")
    assert status["state"] == "running"
    assert status["starts"] == "2"


ATTACKS = """
import ctypes, os, resource, signal, socket, subprocess, threading
from pathlib import Path
from anabranch.services.module import Module

def attempt(function):
    try:
        function()
    except BaseException as error:
        return type(error).__name__
    return "done"

def bind(kind, port, address=""):
    with socket.socket(socket.AF_INET, kind) as opened:
        opened.bind((address, port))
        if kind == socket.SOCK_STREAM:
            opened.listen()

def libc(name, *arguments):
    if getattr(ctypes.CDLL(None), name)(*arguments) < 0:
        raise PermissionError

class Attempt(Module):
    def configure(self, context):
        stream, datagram = socket.SOCK_STREAM, socket.SOCK_DGRAM
        self.results = {
            "fork": attempt(os.fork),
            "execute": attempt(lambda: subprocess.run(["/bin/true"])),
            "raw": attempt(lambda: socket.socket(socket.AF_INET, socket.SOCK_RAW, 17)),
            "packet": attempt(lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 3)),
            "netlink": attempt(lambda: socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0)),
            "unix": attempt(lambda: socket.socket(socket.AF_UNIX)),
            "listen elsewhere": attempt(lambda: bind(stream, 22)),
            "listen here": attempt(lambda: bind(stream, 5070)),
            "passwd": attempt(lambda: open("/etc/passwd")),
            "proc": attempt(lambda: os.listdir("/proc")),
            "others' code": attempt(lambda: os.listdir("/modules/../..")),
            "write code": attempt(lambda: (context.code / "attempt.py").write_text("")),
            "own code": attempt(lambda: (context.code / "attempt.py").read_text()),
            "write files": attempt(lambda: (context.directory / "x").write_bytes(b"x")),
            "fill the disk": attempt(lambda: (context.directory / "y").write_bytes(bytes(9 << 20))),
            "link": attempt(lambda: os.symlink("/etc", context.directory / "l")),
            "kill": attempt(lambda: os.kill(-1, 9)),
            "ptrace": attempt(lambda: libc("ptrace", 16, 1, 0, 0)),
            "mount": attempt(lambda: libc("mount", b"x", b"/data", b"tmpfs", 0, 0)),
            "unshare": attempt(lambda: libc("unshare", 0x10000000)),
            "setns": attempt(lambda: libc("setns", 3, 0)),
            "become root": attempt(lambda: os.setuid(0)),
            "more memory": attempt(lambda: resource.setrlimit(resource.RLIMIT_AS, (-1, -1))),
            "threads": attempt(lambda: [threading.Thread(target=threading.Event().wait, args=(9,),
                daemon=True).start() for _ in range(50)]),
        }
    def status(self):
        return self.results
"""
ALLOWED = {"listen-here", "own-code", "write-files"}


async def test_what_a_module_may_not_it_cannot(
    world: World, runtime: NodeRuntime, tmp_path: Path
) -> None:
    mallory = user("mallory")
    source = written(tmp_path / "m", ATTACKS, resources="disk_mb = 4")
    await install(runtime, mallory, source, "attempt_1.0.0", None)
    status = await runtime.status(mallory, "attempt_1.0.0")
    done = {name for name, result in status.items() if result == "done"}
    assert done == ALLOWED, status
    assert status["threads"] == "RuntimeError"
    # its files are there again in its next life, and it is no device of this machine's any more
    await runtime.remove(mallory, "attempt_1.0.0")
    assert "files.img" not in Path("/proc/self/mounts").read_text()


DYING = {
    "loops": "while True: pass",
    "eats memory": "self.hoard = [b'x' * (1 << 20) for _ in range(4000)]",
    "dies": "import os; os._exit(3)",
    "babbles": "[write(descriptor) for descriptor in range(3, 30)]",
    "floods the log": "[print('x' * 1000) for _ in range(100000)]",
}


@pytest.mark.parametrize("way", DYING)
async def test_a_module_that_dies_or_hangs_harms_nobody(
    world: World, runtime: NodeRuntime, tmp_path: Path, way: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its packets go their plain way, its neighbour's through the neighbour, and it is logged."""
    source = written(tmp_path / "m", f"""
from anabranch.services.module import Module
def write(descriptor):
    import os
    try:
        os.write(descriptor, b"x" * 99)
    except OSError:
        pass
class Attempt(Module):
    def process(self, batch):
        if bytes(batch.payload(0)[:3]) == b"now":
            {DYING[way]}
""")  # fmt: skip
    alice, mallory = user("alice"), user("mallory")
    await install(runtime, alice, MODULES / "netmonitor", MONITOR)
    await install(runtime, mallory, source, "attempt_1.0.0",
                  Filter(ip_network("10.2.0.1/32"), 17, (6000,)))  # fmt: skip
    await send(world, udp_frames(world, b"now", port=6000, count=64), 0.01, rate=6400)
    if way == "floods the log":
        await asyncio.sleep(0.5)
        assert (await runtime.status(alice, MONITOR))["state"] == "running"
        return
    log = ""
    for _ in range(120):
        await asyncio.sleep(0.1)
        log += capsys.readouterr().out
        if "sandbox.died" in log:
            break
    assert "sandbox.died" in log
    assert "user=mallory" in log
    before = world.received()
    sent = await send(world, udp_frames(world, b"x", port=6000), 0.5, rate=1000)
    ours = await send(world, udp_frames(world, b"x"), 0.5, rate=1000)
    await asyncio.sleep(0.2)
    assert world.received() - before >= sent.packets + ours.packets
    status = await runtime.status(alice, MONITOR)
    assert int(status["counted"]) == ours.packets
    for _ in range(50):
        status = await runtime.status(mallory, "attempt_1.0.0")
        if status.get("state") == "running":
            break
        await asyncio.sleep(0.1)
    assert status["state"] == "running"


async def test_a_child_that_dies_before_its_tenant_comes_costs_time_only(
    runtime: NodeRuntime,
) -> None:
    alice = user("alice")
    (zygote,) = [p for p in psutil.Process().children() if "zygote" in " ".join(p.cmdline())]
    for _ in range(100):
        if waiting := zygote.children():
            break
        await asyncio.sleep(0.05)
    waiting[0].kill()
    await install(runtime, alice, MODULES / "netmonitor", MONITOR)
    assert (await runtime.status(alice, MONITOR))["state"] == "running"
    for _ in range(100):  # and the next one waits again
        if len(zygote.children()) == 2:
            return
        await asyncio.sleep(0.05)
    raise AssertionError("nobody waits")


async def test_a_tenant_cannot_forge_or_take_anothers_packets(
    world: World, runtime: NodeRuntime, tmp_path: Path
) -> None:
    forger = written(tmp_path / "m", """
from anabranch.services.module import Module
from anabranch.services.frames import checksum
class Attempt(Module):
    def process(self, batch):
        head = bytes.fromhex("4500001c00000000400100000a0203040a010001")
        head = head[:10] + checksum(head).to_bytes(2, "big") + head[12:]
        batch.emit(head + bytes.fromhex("0800f7ff00000000"))
""")  # fmt: skip
    alice, mallory = user("alice"), user("mallory")
    await install(runtime, mallory, forger, "attempt_1.0.0",
                  Filter(ip_network("10.2.0.1/32"), 17, (6000,)))  # fmt: skip
    with sockets(world) as (receiver, _):
        receiver(socket.SOCK_DGRAM, ("10.2.0.1", 6000))  # it says nothing to what comes
        before = packets_in(world.sender, "s0")
        await send(world, udp_frames(world, b"x", port=6000), 0.2, rate=1000)
        await asyncio.sleep(0.3)
        assert packets_in(world.sender, "s0") == before
    with pytest.raises(RuntimeRefusedError, match="another tenant"):
        await install(runtime, alice, MODULES / "netmonitor", MONITOR,
                      Filter(ip_network("10.2.0.0/24"), 17))  # fmt: skip
    # the refused install has left nothing
    assert await runtime.status(alice, MONITOR) == {}
    await install(runtime, alice, MODULES / "netmonitor", MONITOR,
                  Filter(ip_network("10.2.0.0/24"), 6))  # fmt: skip


async def test_archives_of_others_are_refused(runtime: NodeRuntime) -> None:
    alice, mallory = user("alice"), user("mallory")
    stolen = user("mallory").model_copy(update={"name": "alice"})
    with pytest.raises(RuntimeRefusedError, match="signature") as refused:
        await install(runtime, stolen, MODULES / "netmonitor", MONITOR)
    assert refused.value.status == 403
    assert await runtime.status(alice, MONITOR) == {}
    with pytest.raises(RuntimeRefusedError, match=r"not NetServ\.apps\.Other_1\.0\.0"):
        await install(runtime, mallory, MODULES / "netmonitor", "NetServ.apps.Other_1.0.0")


BAD_GUESTS = {
    "no WebAssembly": (b"\x7fELF" + bytes(64), "no WebAssembly"),
    "WASI": (
        guest("", imports=['(import "wasi_snapshot_preview1" "fd_write" (func))']),
        "of anabranch there are",
    ),
    "too large": (guest("").replace(b"32)", b"3200)", 1), "memory"),
}  # fmt: skip


def wasm(directory: Path, code: bytes, version: str = "1.0.0") -> Path:
    directory.mkdir()
    (directory / "module.toml").write_text(
        f'name = "attempt"\nversion = "{version}"\nentry = "guest.wasm"\n'
    )
    (directory / "guest.wasm").write_bytes(code)
    return directory


async def test_webassembly_runs_in_a_sandbox(
    world: World, runtime: NodeRuntime, tmp_path: Path
) -> None:
    """Compiled there, within what seccomp, Landlock and the address space allow; replaced; bad
    ones are refused, and the good one goes on."""
    assert "wasmtime" in runtime.building_blocks
    alice = user("alice")
    identity = "NetServ.apps.NetMonitorWasm_1.0.0"
    await install(runtime, alice, MODULES / "netmonitor_wasm", identity)
    before = world.received()
    sent = await send(world, udp_frames(world, b"x" * 22, sources=16), 0.5, rate=2000)
    newer = tmp_path / "newer"
    shutil.copytree(MODULES / "netmonitor_wasm", newer)
    manifest = (newer / "module.toml").read_text()
    (newer / "module.toml").write_text(manifest.replace("1.0.0", "1.1.0"))
    await asyncio.sleep(0.3)
    await install(runtime, alice, newer, "NetServ.apps.NetMonitorWasm_1.1.0")
    status = await runtime.status(alice, "NetServ.apps.NetMonitorWasm_1.1.0")
    assert int(status["counted"]) == sent.packets
    assert int(status["flows"]) == 16
    assert int(status["10.1.128.1_10.2.0.1_64"]) - sent.packets // 16 in {0, 1}
    assert world.received() - before >= sent.packets
    for name, (code, words) in BAD_GUESTS.items():
        with pytest.raises(RuntimeRefusedError, match=words):
            await install(runtime, alice, wasm(tmp_path / name, code), "attempt_1.0.0")
    assert (await runtime.status(alice, "NetServ.apps.NetMonitorWasm_1.1.0"))["failures"] == "0"
    loops = wasm(tmp_path / "loops", guest("(loop $l (br $l))"))
    wanted = Filter(ip_network("10.2.0.1/32"), 17, (6000,))
    await install(runtime, user("mallory"), loops, "attempt_1.0.0", wanted)
    before = world.received()
    sent = await send(world, udp_frames(world, b"x", port=6000), 1.0, rate=50)
    await asyncio.sleep(0.6)
    status = await runtime.status(user("mallory"), "attempt_1.0.0")
    assert int(status["failures"]) >= 2
    assert world.received() - before >= sent.packets
