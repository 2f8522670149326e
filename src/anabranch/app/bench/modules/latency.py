"""How much longer a packet is on its way when a module looks at it.

From before it is sent to when the receiver's kernel has it: what wakes up the measuring program
is none of the module's.
"""

import asyncio
import socket
import struct
import time
from statistics import median

import numpy as np
from numpy.typing import NDArray

from anabranch.app.bench.modules.node import KEEP_ALIVE, running_node
from anabranch.app.bench.modules.sip import notify
from anabranch.app.bench.modules.world import RECEIVER, World
from anabranch.app.bench.report import Peer, Result, percentiles
from anabranch.host.network import made_inside

Frames = NDArray[np.uint8]
_PACKETS = 3000
_GAP_S = 0.0005
_PORT = 5060
_SO_TIMESTAMPNS = 35


async def measure(world: World, _: int) -> list[Result]:
    """Return by how much KeepAlive Responder delays what it reads and forwards (340 B)."""
    plain = await asyncio.to_thread(_one_way, world)
    async with running_node(world) as node:
        await node.install("one", KEEP_ALIVE)
        through = await asyncio.to_thread(_one_way, world)
    before = await asyncio.to_thread(_one_way, world)
    base = median([*plain, *before])
    added = [each - base for each in through]
    p50, p95, most = percentiles(added)
    return [
        Result("keepalive_added_us", "us over forwarding, one way", len(added), p50=round(p50, 1),
               p95=round(p95, 1), max=round(most, 1), target="p50 <= 90",
               peer=Peer("kernel forwarding, us", round(base, 1)))
    ]  # fmt: skip


def _one_way(world: World) -> list[float]:
    """Return the microseconds from before a packet's sending to its reception."""
    body = notify(340 - 42 - 8, event="presences1").replace(b"{n:05}", b"00000")
    receiver = made_inside(world.receiver, lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
    sender = made_inside(world.sender, lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
    took = []
    with receiver, sender:
        receiver.bind((RECEIVER, _PORT))
        receiver.settimeout(1.0)
        receiver.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)
        sender.connect((RECEIVER, _PORT))
        for number in range(_PACKETS + 100):
            packet = body + struct.pack("!Q", number)
            began = time.time_ns()
            sender.send(packet)
            _, ancillary, _, _ = receiver.recvmsg(2048, 64)
            seconds, nanoseconds = struct.unpack("qq", ancillary[0][2][:16])
            if number >= 100:
                took.append((seconds * 10**9 + nanoseconds - began) / 1000)
            time.sleep(_GAP_S)
    return took
