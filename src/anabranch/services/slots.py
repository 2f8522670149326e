"""The memory behind a batch: fixed slots with a packet each, and what becomes of every one."""

from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from anabranch.services.frames import (
    CHECKSUM_AT,
    ETHERNET_BYTES,
    ICMP,
    IPV4_BYTES,
    IPV6_BYTES,
    SHORTEST,
    UDP,
    Bytes,
    Numbers,
    folded,
    word_sums,
)

FORWARD, DROP, REPLY = 0, 1, 2
"""Verdicts."""
Rows = NDArray[np.intp] | slice
_NUMBERS = np.arange(4096, dtype=np.intp)


class Slots:
    """Memory with one packet a row, seen as bytes and as words, and the verdicts.

    Args:
        memory: (slots, bytes of a slot), contiguous; a slot has a multiple of 4 bytes.
        start: where the IP header begins in each slot; a multiple of 4.
        sizes: bytes of each frame as it arrived, from its Ethernet header on.
    """

    def __init__(self, memory: Bytes, start: int, sizes: Numbers) -> None:
        self.memory = memory
        self.start = start
        self.room = memory.shape[1] - start
        self.sizes = sizes
        self.verdicts = np.zeros(len(memory), np.uint8)
        self.changed = np.zeros(len(memory), np.bool_)
        self.emitted: list[bytes] = []
        self.touched = False
        """Whether a verdict was given or a packet changed: most batches just go on."""
        self.plain = False
        """Whether all are IPv4 without options, as :meth:`whole` has found."""

    def __len__(self) -> int:
        return len(self.memory)

    @cached_property
    def words(self) -> NDArray[np.uint32]:
        """The packets as 32-bit words in network byte order, (slots, room / 4)."""
        return self.memory.view(">u4")[:, self.start // 4 :]

    @cached_property
    def halves(self) -> NDArray[np.uint16]:
        """The packets as 16-bit words in network byte order, (slots, room / 2)."""
        return self.memory.view(">u2")[:, self.start // 2 :]

    @cached_property
    def bytes(self) -> Bytes:
        """The packets, (slots, room)."""
        return self.memory[:, self.start :]

    def whole(self) -> Rows:
        """Return the rows that hold a whole and well-formed packet of IPv4 or IPv6."""
        if len(self) == 1:
            head = self.bytes[0, :4].tobytes()
            total_1 = head[2] << 8 | head[3]
            if head[0] == 0x45 and IPV4_BYTES < total_1 <= int(self.sizes[0]) - ETHERNET_BYTES:
                self.plain = True
                return slice(0, 1)
        sizes = self.sizes.astype(np.int64) - ETHERNET_BYTES
        first, total = self.bytes[:, 0], self.halves[:, 1].astype(np.int64)
        if bool(((first == 0x45) & (total <= sizes) & (total > IPV4_BYTES)).all()):
            self.plain = True
            return slice(0, len(self))
        header = (first & 15).astype(np.int64) * 4
        four = (first >> 4 == 4) & (header >= IPV4_BYTES) & (total >= header)
        four &= (total <= sizes) & (sizes >= IPV4_BYTES)
        total6 = self.halves[:, 2].astype(np.int64) + IPV6_BYTES
        six = (first >> 4 == 6) & (total6 <= sizes) & (sizes >= IPV6_BYTES)
        return np.flatnonzero(four | six)

    def leaving(self) -> tuple[NDArray[np.intp], Numbers]:
        """Return the rows that go out, all checksums right, and the bytes of their frames.

        What was no whole packet never goes out: the batch did not show it, nobody can have
        decided about it.
        """
        if not self.touched and len(self) <= len(_NUMBERS):
            return _NUMBERS[: len(self)], self.sizes
        rows = np.flatnonzero(self.verdicts != DROP)
        sizes = self.sizes[rows]
        changed = self.changed[rows]
        if len(rows) == len(self) and bool(changed.all()):
            sizes[:] = self._complete(slice(0, len(self))) + ETHERNET_BYTES
        elif bool(changed.any()):
            sizes[changed] = self._complete(rows[changed]) + ETHERNET_BYTES
        return rows, sizes

    def _complete(self, rows: Rows) -> NDArray[np.int64]:
        """Set the checksums of changed packets; return the bytes of the packets."""
        first = self.bytes[rows, 0]
        total: NDArray[np.int64] = self.halves[rows, 1].astype(np.int64)
        # Packets of one shape are one rectangle of memory: those of a batch mostly are.
        shapes = (total << 16) | ((self.halves[rows, 3] & 0x3FFF) != 0)
        shapes |= self.halves[rows, 4].astype(np.int64) & 0xFF
        if self.plain and bool((shapes == shapes[0]).all()):
            self._complete_alike(rows, IPV4_BYTES, int(total[0]), 4)
            return total
        index = np.arange(len(self), dtype=np.intp)[rows]
        six = first >> 4 == 6
        total[six] = self.halves[index[six], 2].astype(np.int64) + IPV6_BYTES
        header = np.where(six, IPV6_BYTES, (first & 15).astype(np.int64) * 4)
        protocol = np.where(six, self.bytes[rows, 6], self.bytes[rows, 9]).astype(np.int64)
        fragment = ((self.halves[rows, 3] & 0x3FFF) != 0) & ~six
        shapes = (total << 17) | (header << 10) | (protocol << 2) | (fragment * 2) | six
        for shape in np.unique(shapes):
            alike = shapes == shape
            version = 6 if shape & 1 else 4
            self._complete_alike(index[alike], int(header[alike][0]), int(total[alike][0]), version)
        return total

    def _complete_alike(self, rows: Rows, header: int, total: int, version: int) -> None:
        """Set the checksums of packets of one length, kind and length of header."""
        protocol, fragment = int(self.bytes[rows, 6][0]), False
        if version == 4:
            protocol, flags = int(self.bytes[rows, 9][0]), int(self.halves[rows, 3][0])
            fragment = flags & 0x3FFF != 0
            self.halves[rows, 5] = 0
            self._native[rows, 5] = folded(word_sums(self._words[rows, : header // 4]))
        if not fragment:
            self._complete_payload(rows, header, total, protocol, version)

    def _complete_payload(self, rows: Rows, at: int, end: int, protocol: int, version: int) -> None:
        if protocol not in CHECKSUM_AT or end < at + SHORTEST[protocol]:
            return
        where = (at + CHECKSUM_AT[protocol]) // 2
        self.halves[rows, where] = 0
        stop = (end + 3) // 4
        self.bytes[rows, end : stop * 4] = 0  # past the end: the padding of RFC 1071
        sums = word_sums(self._words[rows, at // 4 : stop])
        if protocol != ICMP:
            # The pseudo header: both addresses, the protocol, the length (RFC 768, RFC 8200).
            sums += word_sums(self._words[rows, 2:10] if version == 6 else self._words[rows, 3:5])
            sums += np.uint64(_as_read(protocol) + _as_read(end - at))
        checksums = folded(sums)
        if protocol == UDP:
            checksums[checksums == 0] = 0xFFFF  # 0 says that there is none
        self._native[rows, where] = checksums

    @cached_property
    def _native(self) -> NDArray[np.uint16]:
        """As :attr:`halves`, in this machine's byte order."""
        return self.memory.view(np.uint16)[:, self.start // 2 :]

    @cached_property
    def _words(self) -> NDArray[np.uint32]:
        """As :attr:`words`, in this machine's byte order: sums do not mind, and are faster."""
        return self.memory.view(np.uint32)[:, self.start // 4 :]


def _as_read(number: int) -> int:
    """Return what 16 bits of network byte order are when they are read in this machine's."""
    return int(np.array([number], ">u2").view(np.uint16)[0])
