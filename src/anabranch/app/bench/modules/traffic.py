"""The frames that are sent, and the process that sends them."""

import asyncio
import json
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from anabranch.app.bench.modules.world import RECEIVER, SOURCES_FROM, World, mac_of
from anabranch.services.errors import ServicesError
from anabranch.services.frames import checksum

FRAMES = 512
_MODULE = "anabranch.app.bench.modules.generator"


@dataclass(frozen=True, slots=True)
class Sent:
    """What a sender did."""

    packets: int
    seconds: float

    @property
    def rate(self) -> float:
        return self.packets / self.seconds


def udp_frames(
    world: World,
    payload: bytes,
    *,
    sources: int = 64,
    destinations: Sequence[str] = (RECEIVER,),
    port: int = 5060,
    count: int = FRAMES,
    next_hop: tuple[str, str] | None = None,
) -> NDArray[np.uint8]:
    """Return frames from the sender through the router, (count, bytes of a frame).

    ``next_hop``: namespace and device that they are for; None: the router's.

    They come from as many addresses and ports as ``sources`` says; ``{n:05}`` in the payload is
    the frame's number.
    """
    head = bytes.fromhex(mac_of(*(next_hop or (world.router, "in0"))).replace(":", ""))
    head += bytes.fromhex(mac_of(world.sender, "s0").replace(":", "")) + b"\x08\x00"
    frames = []
    for number in range(count):
        source = IPv4Address(SOURCES_FROM) + number % sources
        destination = IPv4Address(destinations[number % len(destinations)])
        body = payload.replace(b"{n:05}", b"%05d" % number)
        frames.append(head + _udp(source, destination, 20000 + number % sources, port, body))
    return np.array([np.frombuffer(frame, np.uint8) for frame in frames])


async def send(world: World, frames: NDArray[np.uint8], seconds: float, *, rate: float = 0,
               core: int = 0) -> Sent:  # fmt: skip
    """Send frames for a while from a process of its own; ``rate`` 0: as fast as can be.

    Raises:
        ServicesError: the sender failed; with its last words.
    """
    with tempfile.TemporaryDirectory(prefix="ab-frames-") as directory:
        path = Path(directory) / "frames.npy"
        np.save(path, frames)
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", _MODULE, world.sender, "s0", str(path), str(rate or 0),
            str(seconds), str(core),
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        try:
            out, err = await process.communicate()
        except asyncio.CancelledError:
            process.kill()
            await process.wait()
            raise
    if process.returncode != 0:
        raise ServicesError(f"the sender failed: {err.decode(errors='replace')[-300:]}")
    said = json.loads(out)
    return Sent(said["sent"], said["seconds"])


def _udp(source: IPv4Address, destination: IPv4Address, from_port: int, to_port: int,
         payload: bytes) -> bytes:  # fmt: skip
    length = 8 + len(payload)
    pseudo = source.packed + destination.packed + b"\0\x11" + length.to_bytes(2, "big")
    ports = from_port.to_bytes(2, "big") + to_port.to_bytes(2, "big") + length.to_bytes(2, "big")
    udp = ports + (checksum(pseudo + ports + b"\0\0" + payload) or 0xFFFF).to_bytes(2, "big")
    ip = b"\x45\0" + (20 + length).to_bytes(2, "big") + b"\0\0\0\0\x40\x11"
    ip += checksum(ip + b"\0\0" + source.packed + destination.packed).to_bytes(2, "big")
    return ip + source.packed + destination.packed + udp + payload
