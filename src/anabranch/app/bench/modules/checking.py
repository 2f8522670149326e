"""Takes the answers to keep-alives at the sender, every one, and checks all of it afterwards.

Checking takes ten times as long as taking: done meanwhile, it would have packets overflow the ring
of who checks.
"""

import asyncio
import struct
from dataclasses import dataclass

from anabranch.app.bench.modules.latency import Frames
from anabranch.app.bench.modules.traffic import send
from anabranch.app.bench.modules.world import World
from anabranch.host.network import made_inside
from anabranch.services.frames import checksum
from anabranch.services.rings.receive import ETHERNET_AT, ReceiveRing, open_ring_socket, slots_of

_BLOCKS = 64
_RATE, _SECONDS = 10_000, 4.0
_LONGEST = 512
_KEPT = (b"Via", b"From", b"Call-ID", b"CSeq")


@dataclass(frozen=True, slots=True)
class Checked:
    """What came of it.

    Attributes:
        wrong: answers with something wrong.
        missing: requests without an answer, beyond those for which we had no room ourselves.
        unseen: packets that overflowed our own ring.
    """

    sent: int
    wrong: int
    missing: int
    unseen: int


async def checked_answers(world: World, frames: Frames) -> Checked:
    """Send keep-alives for a while and check what comes back."""
    opened = made_inside(world.sender, lambda: open_ring_socket("s0", _BLOCKS))
    ring = ReceiveRing(opened, _BLOCKS)
    taken: list[bytes] = []
    sending = asyncio.create_task(send(world, frames, _SECONDS, rate=_RATE))
    quiet = 0
    while not sending.done() or quiet < 20:
        count = ring.take(slots_of(1))
        quiet = 0 if count else quiet + 1
        if not count:
            await asyncio.sleep(0.002)
            continue
        begin = ETHERNET_AT + 14
        rows = ring.packets(count)[:, begin : begin + _LONGEST].copy()
        lengths = ring.lengths(count).tolist()
        ring.release(count)
        taken += [row[: n - 14].tobytes() for row, n in zip(rows, lengths, strict=True)]
    sent, unseen = (await sending).packets, ring.counts().lost
    ring.close()
    expected = {frame[42:].tobytes(): frame.tobytes() for frame in frames}
    by_call = {_header(payload, b"Call-ID"): frame for payload, frame in expected.items()}
    answers = [packet for packet in taken if packet[0] == 0x45 and packet[9] == 17]
    wrong = sum(not _is_right(packet, by_call) for packet in answers)
    return Checked(sent, wrong, max(sent - len(answers) - unseen, 0), unseen)


def _is_right(packet: bytes, by_call: dict[bytes, bytes]) -> bool:
    packet = packet[: struct.unpack("!H", packet[2:4])[0]]
    pseudo = packet[12:20] + struct.pack("!BBH", 0, 17, len(packet) - 20)
    if checksum(packet[:20]) != 0 or checksum(pseudo + packet[20:]) != 0:
        return False
    answer = packet[28:]
    asked = by_call.get(_header(answer, b"Call-ID"))
    if asked is None or not answer.startswith(b"SIP/2.0 200 OK\r\n"):
        return False
    turned = asked[30:34] + asked[26:30] + asked[36:38] + asked[34:36]
    if packet[12:24] != turned:
        return False
    return all(_header(answer, name) == _header(asked[42:], name) for name in _KEPT)


def _header(message: bytes, name: bytes) -> bytes:
    found = message.partition(b"\r\n" + name + b": ")[2]
    return found.partition(b"\r\n")[0]
