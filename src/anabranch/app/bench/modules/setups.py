"""How long it takes from a SETUP's arrival at a node to the first packet through the module.

The node is what an operator starts, ``anabranch module serve``, on the router; the sender signals
to the receiver while its keep-alives pass, and the module is KeepAlive Responder: the first answer
says that it is there. Both times are the kernel's, taken at devices. Every sample has a user of
its own, whose archive is in the node's cache, as it was sent, and nowhere unpacked.
"""

import asyncio
import os
import secrets
import select
import socket
import struct
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from hashlib import sha256
from ipaddress import ip_address
from pathlib import Path

import yaml

from anabranch.app.bench.modules.latency import Frames
from anabranch.app.bench.modules.node import KEEP_ALIVE
from anabranch.app.bench.modules.sip import notify
from anabranch.app.bench.modules.traffic import send, udp_frames
from anabranch.app.bench.modules.world import RECEIVER, SENDER, World
from anabranch.app.bench.report import Result, sampled
from anabranch.core.errors import UnavailableError
from anabranch.core.tasks import end_task
from anabranch.host.network import entered, made_inside
from anabranch.services.archive import pack
from anabranch.services.keys import PrivateKey
from anabranch.services.node.sending import Signaller, signalling
from anabranch.services.signalling.compose import Author, compose, setup_headers
from anabranch.services.signalling.message import Method

_RATE = 2000  # keep-alives a second
_SAMPLE_S = 30.0
_REST_S = 0.4
_START_S = 15.0
_SO_TIMESTAMPNS, _SO_RCVBUFFORCE = 35, 33
_ETH_P_IP = 0x0800
_SOL_PACKET, _IGNORE_OUTGOING = 263, 23
_TO_NODE, _TO_SIP = 270, 5060


async def measure(world: World, samples: int) -> list[Result]:
    """Return the row."""
    frames = udp_frames(world, notify(340 - 42))
    key = PrivateKey.generate()
    users = [f"user-{number}" for number in range(samples)]
    with tempfile.TemporaryDirectory(prefix="ab-setups-") as directory:
        digests, identity = _prepare(Path(directory), users, key)
        async with _serving(world, Path(directory)):
            took = await asyncio.to_thread(
                _as_sender, world, frames, [Author(user, key) for user in users], digests, identity
            )
    return [sampled("setup_to_first_packet_ms", "ms", took, target="p50 <= 60")]


def _prepare(directory: Path, users: list[str], key: PrivateKey) -> tuple[list[bytes], str]:
    """Write the users' file and the node's cache of archives."""
    cache = directory / "state" / "cache"
    cache.mkdir(parents=True)
    digests, identity = [], ""
    for user in users:
        archive = pack(KEEP_ALIVE).sign(user, key)
        identity = archive.manifest().identity
        data = bytes(archive)
        digests.append(sha256(data).digest())
        (cache / digests[-1].hex()).write_bytes(data)
    known = [
        {"name": user, "public_key": str(key.public), "filter_prefixes": ["10.2.0.0/16"]}
        for user in users
    ]
    (directory / "users.yaml").write_text(yaml.safe_dump({"users": known}))
    return digests, identity


@asynccontextmanager
async def _serving(world: World, directory: Path) -> AsyncIterator[None]:
    """Run a node on the router."""
    log = directory / "log"
    command = (sys.executable, "-m", "anabranch", "module", "serve", "--name", f"b{os.getpid()}",
               "--users", str(directory / "users.yaml"),
               "--state", str(directory / "state"))  # fmt: skip
    with log.open("wb") as out, entered(world.router):
        process = await asyncio.create_subprocess_exec(*command, stdout=out, stderr=out)
    try:
        deadline = time.monotonic() + _START_S
        while b"Stop: Ctrl-C" not in log.read_bytes():
            if process.returncode is not None or time.monotonic() > deadline:
                raise UnavailableError(f"the node does not start: {log.read_text()[-300:]}")
            await asyncio.sleep(0.05)
        yield
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()


def _as_sender(
    world: World, frames: Frames, authors: list[Author], digests: list[bytes], identity: str
) -> list[float]:
    """Take the samples, in a thread that is in the sender's namespace."""

    async def work() -> list[float]:
        took = []
        async with signalling() as signaller:
            for author, digest in zip(authors, digests, strict=True):
                sending = asyncio.create_task(send(world, frames, _SAMPLE_S, rate=_RATE))
                try:
                    await _passing(receiver)
                    took.append(await _sample(world, signaller, author, digest, identity))
                finally:
                    await end_task(sending)
                await asyncio.sleep(_REST_S)
        return took

    with _swallower(world) as receiver, entered(world.sender):
        return asyncio.run(work())


async def _passing(receiver: socket.socket) -> None:
    """Return when keep-alives pass the router."""
    while select.select([receiver], [], [], 0)[0]:
        receiver.recv(2048)
    async with asyncio.timeout(_START_S):
        await asyncio.get_running_loop().sock_recv(receiver, 2048)


async def _sample(
    world: World, signaller: Signaller, author: Author, digest: bytes, identity: str
) -> float:
    """Return milliseconds."""
    headers = setup_headers(
        "http://nowhere.invalid/", digest, 60, filter_dst=RECEIVER, filter_proto="udp",
        filter_ports=[_TO_SIP],
    )  # fmt: skip
    destination = ip_address(RECEIVER)
    with _Tap(world.router, "in0") as requests, _Tap(world.sender, "s0") as answers:
        await _answered(signaller, author, Method.PROBE, identity, {"probe": "node-id"})
        session = signaller.session(destination, source=ip_address(SENDER))
        await _answered(signaller, author, Method.SETUP, identity, headers, session)
        await asyncio.sleep(0.05)
        arrived = requests.first(_TO_NODE, to_port=True, having=b"SETUP ")
        answered = answers.first(_TO_SIP, to_port=False, having=b"SIP/2.0 200")
        await _answered(signaller, author, Method.REMOVE, identity, {}, session)
    return (answered - arrived) / 1e6


async def _answered(
    signaller: Signaller, author: Author, method: Method, name: str,
    headers: dict[str, str | None] | dict[str, str], session: bytes | None = None,
) -> None:  # fmt: skip
    session = session or signaller.session(ip_address(RECEIVER), source=ip_address(SENDER))
    message = compose(author, method, name, headers, wall_time=time.time(),
                      nonce=secrets.token_bytes(16))  # fmt: skip
    response = (await signaller.ask(session, message)).response
    if response is None or not response.hops or not response.hops[0].ok:
        raise UnavailableError(f"the node does not do it: {response}")


class _Tap:
    """What comes in by a device, with the kernel's times."""

    def __init__(self, namespace: str, device: str) -> None:
        self._socket = made_inside(
            namespace, lambda: socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, 0)
        )
        self._socket.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)
        self._socket.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, 64 * 1024 * 1024)
        self._socket.setsockopt(_SOL_PACKET, _IGNORE_OUTGOING, 1)
        self._socket.setblocking(False)
        self._socket.bind((device, _ETH_P_IP))

    def first(self, port: int, *, to_port: bool, having: bytes) -> int:
        """Return when the first such packet of UDP came, in nanoseconds."""
        at = 22 if to_port else 20
        while True:
            try:
                packet, ancillary, _, _ = self._socket.recvmsg(2048, 256)
            except BlockingIOError:
                raise UnavailableError(f"no packet has {having!r}") from None
            if packet[9] != 17 or int.from_bytes(packet[at : at + 2], "big") != port:
                continue
            if having in packet:
                seconds, nanoseconds = struct.unpack("qq", ancillary[0][2][:16])
                return int(seconds * 10**9 + nanoseconds)

    def __enter__(self) -> "_Tap":
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()


def _swallower(world: World) -> socket.socket:
    """Return a receiver of the keep-alives that nobody answers: no ICMP errors go back."""
    made = made_inside(world.receiver, lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
    made.bind((RECEIVER, _TO_SIP))
    made.setblocking(False)
    return made
