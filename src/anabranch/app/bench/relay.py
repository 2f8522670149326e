"""``relay``: how many packets of media a Media Relay in its sandbox passes on.

    sender, a TURN client with one channel --- node, the module in a sandbox --- receiver, the peer

Rates are tried upwards until twice in a row more than one packet in a thousand is lost.
"""

import asyncio
import os
import socket
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from importlib.resources import as_file, files
from ipaddress import IPv4Address
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from anabranch.app.bench.modules.traffic import send, udp_frames
from anabranch.app.bench.modules.world import RECEIVER, SOURCES_FROM, World, make_world
from anabranch.app.bench.report import Result
from anabranch.core.errors import UnavailableError
from anabranch.host.network import made_inside, run_tool
from anabranch.services.archive import pack
from anabranch.services.blocks import stun, turn
from anabranch.services.blocks.stun import Attribute, Kind, Method
from anabranch.services.controller.runtime import ModuleRequest
from anabranch.services.controller.users import User
from anabranch.services.keys import PrivateKey
from anabranch.services.modules.mediarelay.provider import relay_of
from anabranch.services.planes.linux import LinuxPlane
from anabranch.services.runtime import NodeRuntime, RuntimeSettings

MODULE = "NetServ.apps.MediaRelay_1.0.0"
RELAY = "10.9.0.1"
PORT, PEER_PORT, CHANNEL = 3478, 6000, 0x4001
_CLIENT_PORT = 20000  # of the frames that are sent
_PAYLOAD = 172  # bytes: RTP with 20 ms of G.711
_RATES = (10_000, 20_000, 30_000, 40_000, 50_000, 60_000, 70_000, 80_000, 100_000)
_SECONDS = 2.0
_MOST_LOST = 0.001


def measure(_samples: int) -> list[Result]:
    """Measure on a node of its own. Raises UnavailableError; needs root."""
    with make_world(sink=False) as world, tempfile.TemporaryDirectory(prefix="ab-relay-") as name:
        best = asyncio.run(_measure(world, Path(name)))
    return [
        Result("relay_packets_per_s", f"packets/s of {_PAYLOAD} B", len(_RATES), round(best)),
    ]


async def _measure(world: World, directory: Path) -> float:
    settings = RuntimeSettings(directory / "node", f"relay-{os.getpid()}")
    runtime = NodeRuntime(settings, LinuxPlane("relay", world.router))
    try:
        await runtime.open()
        secret = await _installed(runtime, directory)
        with _client(world, secret):
            head = CHANNEL.to_bytes(2) + _PAYLOAD.to_bytes(2)
            frames = udp_frames(
                world, head + bytes(_PAYLOAD), sources=1, destinations=(RELAY,), port=PORT
            )
            await send(world, frames, 1.0, rate=_RATES[0] / 2)  # addresses are resolved by it
            best, failures = 0.0, 0
            for rate in _RATES:
                before = world.received()
                sent = await send(world, frames, _SECONDS, rate=rate)
                await asyncio.sleep(0.5)
                arrived = world.received() - before
                if arrived >= sent.packets * (1 - _MOST_LOST):
                    best, failures = arrived / sent.seconds, 0
                elif failures:
                    break
                else:
                    failures += 1
            if not best:
                raise UnavailableError("the relay passes nothing on without loss")
            return best
    finally:
        await runtime.close()


async def _installed(runtime: NodeRuntime, directory: Path) -> bytes:
    """Install the module; return the secret that it shares with us."""
    key, exchange = PrivateKey.generate(), X25519PrivateKey.generate()
    ports = (range(PORT, PORT + 1), range(49152, 49214))
    user = User(name="itsp", public_key=key.public, address=IPv4Address(RELAY), listen_ports=ports)
    with as_file(files("anabranch.services.modules.mediarelay")) as source:
        data = bytes(pack(source).sign(user.name, key))
    archive = directory / "relay.abm"
    archive.write_bytes(data)
    properties = {"key": exchange.public_key().public_bytes_raw().hex()}
    request = ModuleRequest(MODULE, archive, sha256(data).digest(), None, 600, properties)
    await runtime.install(user, request)
    return relay_of(await runtime.status(user, MODULE), exchange, 0.0).secret


@contextmanager
def _client(world: World, secret: bytes) -> Iterator[None]:
    """Hold an allocation with a channel to the receiver, made from where the frames come from."""
    address = f"{SOURCES_FROM}/32"
    run_tool("ip", "address", "add", address, "dev", "s0", namespace=world.sender)
    peer = made_inside(world.receiver, lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
    client = made_inside(world.sender, lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
    with peer, client:
        peer.bind((RECEIVER, PEER_PORT))
        client.bind((SOURCES_FROM, _CLIENT_PORT))
        client.settimeout(5)
        client.connect((RELAY, PORT))
        username, password = turn.credential(secret, "bench", time.time() + 600)
        key = stun.long_term_key(username, "anabranch", password)
        nonce = b""

        def ask(method: Method, *attributes: tuple[int, bytes]) -> stun.Message:
            credential = [
                (int(Attribute.USERNAME), username.encode()), (int(Attribute.REALM), b"anabranch"),
                (int(Attribute.NONCE), nonce),
            ]  # fmt: skip
            transaction = os.urandom(12)
            more = [
                (kind, value or stun.address((RECEIVER, PEER_PORT), transaction))
                for kind, value in attributes
            ]
            client.send(stun.encode(method, Kind.REQUEST, transaction, [*more, *credential], key))
            return stun.parse(client.recv(2000))

        transport = (int(Attribute.REQUESTED_TRANSPORT), b"\x11\0\0\0")
        nonce = ask(Method.ALLOCATE, transport).get(Attribute.NONCE) or b""
        allocated = ask(Method.ALLOCATE, transport)
        number = (int(Attribute.CHANNEL_NUMBER), CHANNEL.to_bytes(2) + b"\0\0")
        bound = ask(Method.CHANNEL_BIND, number, (int(Attribute.XOR_PEER_ADDRESS), b""))
        if not allocated.kind == bound.kind == Kind.SUCCESS:
            raise UnavailableError("the relay refuses")
        yield
