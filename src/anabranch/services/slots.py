"""The memory behind a batch: fixed slots with a packet each, and what becomes of every one."""

from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from anabranch.services.frames import (
    CHECKSUM_AT,
    ETHERNET_BYTES,
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
        sizes = self.sizes.astype(np.int64) - ETHERNET_BYTES
        first, total = self.bytes[:, 0], self.halves[:, 1].astype(np.int64)
        if bool(((first == 0x45) & (total <= sizes) & (total > IPV4_BYTES)).all()):
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
        rows = np.flatnonzero(self.verdicts != DROP)
        sizes = self.sizes[rows]
        changed = self.changed[rows]
        if bool(changed.any()):
            written = rows[changed]
            sizes[changed] = self._complete(written) + ETHERNET_BYTES
        return rows, sizes

    def _complete(self, rows: NDArray[np.intp]) -> NDArray[np.int64]:
        """Set the checksums of changed packets; return the bytes of the packets."""
        first = self.bytes[rows, 0]
        total: NDArray[np.int64] = self.halves[rows, 1].astype(np.int64)
        header = (first & 15).astype(np.int64) * 4
        protocol = self.bytes[rows, 9]
        fragment = (self.halves[rows, 3] & 0x3FFF) != 0
        six = first >> 4 == 6
        if bool(six.any()):
            total[six] = self.halves[rows[six], 2].astype(np.int64) + IPV6_BYTES
            header[six] = IPV6_BYTES
            protocol[six] = self.bytes[rows[six], 6]
            fragment[six] = False
        # Packets of one shape are one rectangle of memory: those of a batch mostly are.
        shapes = (total << 16) | (header << 9) | (protocol.astype(np.int64) << 1) | fragment
        for shape in _distinct(shapes):
            alike = shapes == shape
            chosen, at = rows[alike], int(header[alike][0])
            if at != IPV6_BYTES or not bool(six[alike][0]):
                self._complete_header(chosen, at)
            if not shape & 1:
                self._complete_payload(chosen, at, int(total[alike][0]), int(protocol[alike][0]))
        return total

    def _complete_header(self, rows: NDArray[np.intp], header: int) -> None:
        self.halves[rows, 5] = 0
        words = self._native[rows, : header // 2]
        self._native[rows, 5] = folded(word_sums(words))

    def _complete_payload(self, rows: NDArray[np.intp], at: int, end: int, protocol: int) -> None:
        if protocol not in CHECKSUM_AT or end < at + SHORTEST[protocol]:
            return
        where = (at + CHECKSUM_AT[protocol]) // 2
        self.halves[rows, where] = 0
        if end % 2:
            self.bytes[rows, end] = 0  # past the end: the padding of RFC 1071
        sums = word_sums(self._native[rows, at // 2 : (end + 1) // 2])
        if protocol != 1:
            # The pseudo header: both addresses, the protocol, the length (RFC 768, RFC 8200).
            six = self.bytes[rows[0], 0] >> 4 == 6
            sums += word_sums(self._native[rows, 4:20] if six else self._native[rows, 6:10])
            sums += _as_read(protocol) + _as_read(end - at)
        checksums = folded(sums)
        if protocol == UDP:
            checksums[checksums == 0] = 0xFFFF  # 0 says that there is none
        self._native[rows, where] = checksums

    @cached_property
    def _native(self) -> NDArray[np.uint16]:
        """As :attr:`halves`, in this machine's byte order: sums do not mind, and are faster."""
        return self.memory.view(np.uint16)[:, self.start // 2 :]


def _as_read(number: int) -> int:
    """Return what 16 bits of network byte order are when they are read in this machine's."""
    return int(np.array([number], ">u2").view(np.uint16)[0])


def _distinct(values: NDArray[np.int64]) -> list[int]:
    if bool((values == values[0]).all()):
        return [int(values[0])]
    return [int(value) for value in np.unique(values)]
