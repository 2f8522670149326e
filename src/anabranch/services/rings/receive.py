"""Packets that arrive at a device, in memory shared with the kernel: AF_PACKET's ring, TPACKET_V2.

Fixed slots make the status words, lengths and header fields of all packets strided arrays: NumPy
reads a hundred packets as fast as Python reads one. Format: packet_mmap.rst of the kernel.
"""

import mmap
import socket
import struct
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from anabranch.services.frames import ETHERNET_BYTES

ETHERNET_AT = 66
"""Where the Ethernet header begins in a slot; the IP header then begins at 80, aligned."""
SLOT_BYTES = 1600
"""Room for a packet of 1,500 bytes, and an odd number of cache lines: the heads of a batch are
spread over the whole cache, where those of slots of 2,048 bytes share two of its sets."""
LONGEST_FRAME = SLOT_BYTES - ETHERNET_AT
LONGEST_PACKET = LONGEST_FRAME - ETHERNET_BYTES
BLOCK_BYTES = 256 * 1024
"""The kernel takes its memory in pieces of this size; no slot lies in two of them."""
_SLOT_WORDS = SLOT_BYTES // 4
_SOL_PACKET = 263
_RX_RING, _STATISTICS, _VERSION, _IGNORE_OUTGOING = 5, 6, 10, 23
_TPACKET_V2 = 1
_TO_KERNEL, _TO_USER = 0, 1
_ETH_P_ALL = 3


@dataclass(frozen=True, slots=True)
class RingCounts:
    """What the kernel counted since it was last asked: packets seen, and those without a slot."""

    seen: int
    lost: int


def slots_of(blocks: int, block_bytes: int = BLOCK_BYTES) -> int:
    """Return how many packets have room in a ring."""
    return blocks * (block_bytes // SLOT_BYTES)


def open_ring_socket(device: str, blocks: int) -> socket.socket:
    """Return a socket with a receive ring on ``device`` of this thread's network namespace.

    The ring exists from here on; a process that is handed the socket maps it with
    :class:`ReceiveRing`.

    Raises:
        OSError: there is no such device, or no right to open it (CAP_NET_RAW).
    """
    opened = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
    try:
        opened.setsockopt(_SOL_PACKET, _VERSION, _TPACKET_V2)
        opened.setsockopt(_SOL_PACKET, _IGNORE_OUTGOING, 1)
        request = struct.pack("4I", BLOCK_BYTES, blocks, SLOT_BYTES, slots_of(blocks))
        opened.setsockopt(_SOL_PACKET, _RX_RING, request)
        opened.bind((device, _ETH_P_ALL))
        opened.setblocking(False)
    except BaseException:
        opened.close()
        raise
    return opened


class ReceiveRing:
    """The packets of a ring socket, as arrays.

    Those that wait, as :meth:`take` counts them, stay where they are until :meth:`release`.
    """

    def __init__(self, opened: socket.socket, blocks: int, block_bytes: int = BLOCK_BYTES) -> None:
        self.socket = opened
        self._memory = mmap.mmap(opened.fileno(), blocks * block_bytes, mmap.MAP_SHARED)
        self._words = memoryview(self._memory).cast("I")  # for single packets: no arrays
        whole = np.frombuffer(self._memory, np.uint8)
        self.address: int = whole.ctypes.data
        """Where the memory begins in this process."""
        self._slots = slots_of(1, block_bytes)
        used = self._slots * SLOT_BYTES
        self._blocks = [
            block[:used].reshape(self._slots, SLOT_BYTES)
            for block in whole.reshape(blocks, block_bytes)
        ]
        words = [block.view(np.uint32) for block in self._blocks]
        self._status = [block[:, 0] for block in words]
        self._length, self._captured = ([block[:, n] for block in words] for n in (1, 2))
        self._block_bytes = block_bytes
        self._block = self._slot = 0  # of the first packet that waits, or is awaited
        self._word = 0  # where it is in the memory

    def fileno(self) -> int:
        return self.socket.fileno()

    @property
    def view(self) -> memoryview:
        """All of its memory, in a row."""
        return self._words.cast("B")

    @property
    def at(self) -> int:
        """Where in that memory the slot of the first packet that waits begins."""
        return self._word * 4

    def take(self, most: int) -> int:
        """Return how many packets wait at least, at most ``most``: all of them in one block."""
        words, at = self._words, self._word
        if not words[at] & _TO_USER:
            return 0
        first = self._slot
        if first + 1 == self._slots or not words[at + _SLOT_WORDS] & _TO_USER:
            return 1
        waiting = self._status[self._block][first : first + most] & _TO_USER
        first_gap = int(waiting.argmin())
        return first_gap if not waiting[first_gap] else len(waiting)

    def packets(self, count: int) -> NDArray[np.uint8]:
        """Return the slots of the first ``count`` packets that wait, (count, SLOT_BYTES)."""
        return self._blocks[self._block][self._slot : self._slot + count]

    def lengths(self, count: int) -> NDArray[np.uint32]:
        """Return the bytes of each frame; one longer than its slot is reported as 0."""
        if count == 1:
            at = self._word
            whole = self._words[at + 1] <= self._words[at + 2]
            return np.array([self._words[at + 2] if whole else 0], np.uint32)
        span = slice(self._slot, self._slot + count)
        captured = self._captured[self._block][span]
        length: NDArray[np.uint32] = captured.copy()
        length[self._length[self._block][span] > captured] = 0
        return length

    def release(self, count: int) -> None:
        """Give the first ``count`` slots that wait back to the kernel."""
        if count == 1:
            self._words[self._word] = _TO_KERNEL
        else:
            self._status[self._block][self._slot : self._slot + count] = _TO_KERNEL
        self._slot += count
        if self._slot == self._slots:
            self._slot = 0
            self._block = (self._block + 1) % len(self._blocks)
        self._word = (self._block * self._block_bytes + self._slot * SLOT_BYTES) // 4

    def counts(self) -> RingCounts:
        """Return, and reset, the kernel's counters."""
        seen, lost = struct.unpack("II", self.socket.getsockopt(_SOL_PACKET, _STATISTICS, 8))
        return RingCounts(seen, lost)

    def close(self) -> None:
        self.socket.close()
