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

ETHERNET_AT = 66
"""Where the Ethernet header begins in a slot; the IP header then begins at 80, aligned."""
SLOT_BYTES = 2048
LONGEST_FRAME = SLOT_BYTES - ETHERNET_AT
_SLOT_WORDS = SLOT_BYTES // 4
_SOL_PACKET = 263
_RX_RING, _STATISTICS, _VERSION, _IGNORE_OUTGOING = 5, 6, 10, 23
_TPACKET_V2 = 1
_TO_KERNEL, _TO_USER = 0, 1
_ETH_P_ALL = 3
_BLOCK_BYTES = 256 * 1024


@dataclass(frozen=True, slots=True)
class RingCounts:
    """What the kernel counted since it was last asked: packets seen, and those without a slot."""

    seen: int
    lost: int


def open_ring_socket(device: str, slots: int) -> socket.socket:
    """Return a socket with a receive ring on ``device`` of this thread's network namespace.

    ``slots`` is a multiple of 128. The ring exists from here on; a process that is handed the
    socket maps it with :class:`ReceiveRing`.

    Raises:
        OSError: there is no such device, or no right to open it (CAP_NET_RAW).
    """
    opened = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
    try:
        opened.setsockopt(_SOL_PACKET, _VERSION, _TPACKET_V2)
        opened.setsockopt(_SOL_PACKET, _IGNORE_OUTGOING, 1)
        blocks = slots * SLOT_BYTES // _BLOCK_BYTES
        request = struct.pack("4I", _BLOCK_BYTES, blocks, SLOT_BYTES, slots)
        opened.setsockopt(_SOL_PACKET, _RX_RING, request)
        opened.bind((device, _ETH_P_ALL))
        opened.setblocking(False)
    except BaseException:
        opened.close()
        raise
    return opened


class ReceiveRing:
    """The packets of a ring socket, as arrays."""

    def __init__(self, opened: socket.socket, slots: int) -> None:
        self.socket = opened
        self._memory = mmap.mmap(opened.fileno(), slots * SLOT_BYTES, mmap.MAP_SHARED)
        self._slots = np.frombuffer(self._memory, np.uint8).reshape(slots, SLOT_BYTES)
        words = self._slots.view(np.uint32)
        self._words = memoryview(self._memory).cast("I")  # for single packets: no arrays
        self._status = words[:, 0]
        self._length, self._captured = words[:, 1], words[:, 2]
        self._head = 0

    def fileno(self) -> int:
        return self.socket.fileno()

    @property
    def memory(self) -> NDArray[np.uint8]:
        """All slots, (slots, SLOT_BYTES)."""
        return self._slots

    @property
    def view(self) -> memoryview:
        """The same memory, all in a row."""
        return self._words.cast("B")

    def take(self, most: int) -> tuple[int, int]:
        """Return the first slot and the number of packets that wait, at most ``most``.

        The packets stay where they are until :meth:`release`; they never wrap around the end.
        """
        head, words = self._head, self._words
        if not words[head * _SLOT_WORDS] & _TO_USER:
            return head, 0
        if head + 1 == len(self._slots) or not words[(head + 1) * _SLOT_WORDS] & _TO_USER:
            return head, 1
        waiting = self._status[head : head + most] & _TO_USER
        first_gap = int(waiting.argmin())
        return head, first_gap if not waiting[first_gap] else len(waiting)

    def lengths(self, first: int, count: int) -> NDArray[np.uint32]:
        """Return the bytes of each frame; one longer than its slot is reported as 0."""
        if count == 1:
            at = first * _SLOT_WORDS
            whole = self._words[at + 1] <= self._words[at + 2]
            return np.array([self._words[at + 2] if whole else 0], np.uint32)
        span = slice(first, first + count)
        length: NDArray[np.uint32] = self._captured[span].copy()
        length[self._length[span] > self._captured[span]] = 0
        return length

    def release(self, count: int) -> None:
        """Give the first ``count`` waiting slots back to the kernel."""
        head = self._head
        if count == 1:
            self._words[head * _SLOT_WORDS] = _TO_KERNEL
        else:
            self._status[head : head + count] = _TO_KERNEL
        self._head = (head + count) % len(self._slots)

    def counts(self) -> RingCounts:
        """Return, and reset, the kernel's counters."""
        seen, lost = struct.unpack("II", self.socket.getsockopt(_SOL_PACKET, _STATISTICS, 8))
        return RingCounts(seen, lost)

    def close(self) -> None:
        self.socket.close()
