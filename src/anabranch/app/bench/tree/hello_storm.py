"""``hello_storm_s``: a power cut is over, and 1,000 nodes dial the root within one second.

The root is a real one with its authority and its book, in this process; the nodes are in another,
each with its own key and certificate, or token. The limit in the same run is a server that does
nothing but TLS: it answers the first bytes of each connection.
"""

import asyncio
import json
import ssl
import sys
import time
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from anabranch.app.bench.report import Peer, Result, sampled
from anabranch.core.errors import UnavailableError
from anabranch.tree.admission import Admission
from anabranch.tree.certificates import Authority, Credentials, server_context
from anabranch.tree.events import Introduced, NodeEvent
from anabranch.tree.model import Role
from anabranch.tree.root import RootMember
from anabranch.tree.runtime import TreeNode
from anabranch.tree.soleil.codec import encode
from anabranch.tree.soleil.messages import Hello, Message

NODES = 1000
WITHIN_S = 1.0
_PATIENCE_S = 120.0
_BARE = "asyncio with TLS, nothing else"


@dataclass(frozen=True, slots=True)
class _Storm:
    """How long it took, and CPU seconds of the root and of all nodes together."""

    took: float
    root_cpu: float
    nodes_cpu: float


def measure(samples: int) -> list[Result]:
    """Let the nodes come ``samples`` times with certificates, and as often with tokens.

    Raises:
        UnavailableError: not all of them got in.
    """
    bare = [asyncio.run(_bare()) for _ in range(samples)]
    storms = [asyncio.run(_storm(tokens=False)) for _ in range(samples)]
    joins = [asyncio.run(_storm(tokens=True)) for _ in range(samples)]
    limit = Peer(_BARE, round(sorted(each.took for each in bare)[len(bare) // 2], 2))
    limit_cpu = Peer(_BARE, round(sorted(each.root_cpu for each in bare)[len(bare) // 2], 2))

    def result(metric: str, values: list[float], peer: Peer | None, target: str | None) -> Result:
        return sampled(metric, "s", values, target=target, peer=peer, digits=2)

    return [
        result("hello_storm_s", [each.took for each in storms], limit, "max <= 4"),
        result("hello_storm_root_cpu_s", [each.root_cpu for each in storms], limit_cpu, None),
        result("hello_storm_nodes_cpu_s", [each.nodes_cpu for each in storms], None, None),
        result("hello_storm_tokens_s", [each.took for each in joins], limit, None),
        result("hello_storm_tokens_root_cpu_s", [each.root_cpu for each in joins], limit_cpu, None),
        result("hello_storm_tokens_nodes_cpu_s", [each.nodes_cpu for each in joins], None, None),
    ]


async def _storm(*, tokens: bool) -> _Storm:
    with _directory() as made:
        directory = Path(made)
        authority = Authority.open(directory / "authority.pem")
        admission = Admission(authority, None)
        own = Credentials(directory / "root")
        authority.provide(own, "root", Role.ROOT)
        nodes = _provide(directory / "nodes", authority, admission, tokens=tokens)
        present: set[str] = set()
        all_here = asyncio.Event()

        def on_event(event: NodeEvent) -> None:
            if isinstance(event, Introduced):
                present.add(event.name)
                if len(present) == NODES:
                    all_here.set()

        member = RootMember("root", gate=admission)
        root = TreeNode(member, on_event, credentials=own, admission=admission)
        port = root.listen("127.0.0.1", 0)
        root.start()
        try:
            return await _timed(nodes, port, all_here)
        finally:
            await root.stop()


async def _bare() -> _Storm:
    with _directory() as made:
        directory = Path(made)
        authority = Authority.open(directory / "authority.pem")
        own = Credentials(directory / "root")
        authority.provide(own, "root", Role.ROOT)
        nodes = _provide(directory / "nodes", authority, Admission(authority, None), tokens=False)
        all_here = asyncio.Event()
        async with _answering(server_context(own), all_here.set) as port:
            return await _timed(nodes, port, all_here)


class _Answer(asyncio.Protocol):
    """Answers the first bytes with a HELLO that was written before."""

    def __init__(self, answer: bytes, answered: Callable[[], None]) -> None:
        self._answer = answer
        self._answered = answered
        self._transport: asyncio.BaseTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        if self._answer:
            assert isinstance(self._transport, asyncio.Transport)
            self._transport.write(self._answer)
            self._answer = b""
            self._answered()


@asynccontextmanager
async def _answering(context: ssl.SSLContext, done: Callable[[], None]) -> AsyncIterator[int]:
    document = encode(Message(Hello("root", Role.ROOT), 0))
    left = NODES

    def answered() -> None:
        nonlocal left
        left -= 1
        if left == 0:
            done()

    server = await asyncio.get_running_loop().create_server(
        lambda: _Answer(len(document).to_bytes(4, "big") + document, answered),
        *("127.0.0.1", 0),
        ssl=context,
        backlog=4096,
    )
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        await server.wait_closed()


def _provide(nodes: Path, authority: Authority, admission: Admission, *, tokens: bool) -> Path:
    for number in range(NODES):
        name = f"n{number}"
        credentials = Credentials(nodes / name)
        if tokens:
            credentials.directory.mkdir(parents=True)
            (credentials.directory / "token").write_text(admission.issue(name, Role.LEAF).reveal())
        else:
            admission.adopt(name, Role.LEAF)
            authority.provide(credentials, name, Role.LEAF)
    return nodes


async def _timed(nodes: Path, port: int, all_here: asyncio.Event) -> _Storm:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "anabranch.app.bench.tree.storm_clients"),
        *(str(nodes), str(port), str(WITHIN_S)),
        stdin=PIPE,
        stdout=PIPE,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        await process.stdout.readline()
        began, cpu = time.perf_counter(), time.process_time()
        process.stdin.write(b"go\n")
        async with asyncio.timeout(_PATIENCE_S):
            await all_here.wait()
            took, used = time.perf_counter() - began, time.process_time() - cpu
            figures = json.loads(await process.stdout.readline())
    except TimeoutError:
        raise UnavailableError("not all nodes of the storm got in") from None
    finally:
        process.kill()
        await process.wait()
    if figures["faults"]:
        raise UnavailableError(f"nodes of the storm failed: {figures['faults']}")
    return _Storm(took, used, figures["cpu"])


def _directory() -> "TemporaryDirectory[str]":
    """Return a directory in memory: each real node has a disk of its own."""
    memory = Path("/dev/shm")  # noqa: S108  # a fresh directory in it
    return TemporaryDirectory(dir=memory if memory.is_dir() else None)
