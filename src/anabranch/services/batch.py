"""A batch of packets: header fields as arrays, payloads as views, and verdicts.

    def process(self, batch: Batch) -> None:
        batch.drop((batch.protocol == UDP) & (batch.ttl < 5))

The packets lie in :class:`~anabranch.services.slots.Slots`: the receive ring in a sandbox, an
ordinary array in the test kit. Nothing is copied to look at a field. A batch holds whole,
well-formed packets of IPv4 and IPv6, and nothing else.

Wherever a method takes *which* packets, it takes a mask, an array of indices, one index, or None
for all.
"""

from collections.abc import Sequence
from functools import cached_property
from ipaddress import IPv4Address

import numpy as np
from numpy.typing import NDArray

from anabranch.services.errors import ModuleError
from anabranch.services.frames import (
    IPV4_BYTES,
    IPV6_BYTES,
    SHORTEST,
    TCP,
    UDP,
    Bytes,
    Mask,
    Numbers,
)
from anabranch.services.slots import DROP, FORWARD, REPLY, Rows, Slots

Index = NDArray[np.intp]
Which = Mask | NDArray[np.integer] | int | None
Payloads = bytes | Sequence[bytes] | Bytes
"""The same for all, one each, or a matrix with a row each."""
_FRESH_TTL = 64
_FIXED_4 = np.array([0xFF, 0, 0, 0, 0, 0, 0xFF, 0xFF, 0, 0xFF], np.uint8)
_FIXED_6 = np.array([0xF0, 0, 0, 0, 0, 0, 0xFF, 0, 0, 0], np.uint8)
"""Bits of the first ten bytes of a header that a packet in the place of another has as well."""


class Batch:
    """Packets in the order in which they came; every array has one element a packet.

    Fields are computed when they are first asked for, and go on telling what arrived after a
    packet was changed.
    """

    def __init__(self, slots: Slots, rows: Rows) -> None:
        self._slots = slots
        self._rows = rows
        self._count = len(slots) if isinstance(rows, slice) else len(rows)

    def __len__(self) -> int:
        return self._count

    @cached_property
    def _index(self) -> Index:
        """The row of each packet."""
        if isinstance(self._rows, slice):
            return np.arange(len(self._slots), dtype=np.intp)
        return self._rows

    # Fields of the IP header

    @cached_property
    def version(self) -> NDArray[np.uint8]:
        """4 or 6."""
        return self._byte(0) >> np.uint8(4)

    @cached_property
    def header_length(self) -> NDArray[np.int64]:
        """Bytes of the IP header with its options; 40 for IPv6."""
        if self._slots.plain:
            return np.full(len(self), IPV4_BYTES, np.int64)
        return np.where(self.version == 4, (self._byte(0) & 15).astype(np.int64) * 4, IPV6_BYTES)

    @cached_property
    def length(self) -> NDArray[np.int64]:
        """Bytes of the IP packet."""
        total = self._half(1).astype(np.int64)
        if self._six is not None:
            total[self._six] = self._half(2)[self._six].astype(np.int64) + IPV6_BYTES
        return total

    @cached_property
    def source(self) -> Numbers:
        """IPv4 source address as a number; 0 for IPv6."""
        return self._address(3)

    @cached_property
    def destination(self) -> Numbers:
        """IPv4 destination address as a number; 0 for IPv6."""
        return self._address(4)

    @cached_property
    def source6(self) -> Bytes:
        """IPv6 source address, (packets, 16); zeros for IPv4."""
        return self._address_6(8)

    @cached_property
    def destination6(self) -> Bytes:
        """IPv6 destination address, (packets, 16); zeros for IPv4."""
        return self._address_6(24)

    @cached_property
    def ttl(self) -> NDArray[np.uint8]:
        """Time to live, or hop limit."""
        return self._by_version(8, 7)

    @cached_property
    def protocol(self) -> NDArray[np.uint8]:
        """IP protocol number, or the next header of IPv6."""
        return self._by_version(9, 6)

    @cached_property
    def fragment(self) -> Mask:
        """Whether it is a fragment of an IPv4 packet; all but the first have no ports."""
        if self._plain_udp:
            return np.zeros(len(self), np.bool_)
        found: Mask = ((self._half(3) & 0x3FFF) != 0) & (self.version == 4)
        return found

    @cached_property
    def whole_udp(self) -> Mask:
        """Whether it is UDP, with its header, and no fragment: such can be answered."""
        return self._has(UDP) & ~self.fragment

    # Ports and payload

    @cached_property
    def source_port(self) -> NDArray[np.uint16]:
        """Of UDP and TCP; else 0."""
        return self._port(0)

    @cached_property
    def destination_port(self) -> NDArray[np.uint16]:
        """Of UDP and TCP; else 0."""
        return self._port(2)

    @cached_property
    def payload_start(self) -> NDArray[np.int64]:
        """Where the payload of UDP or TCP begins, counted from the IP header; else that of IP."""
        if self._plain_udp:
            return np.full(len(self), IPV4_BYTES + 8, np.int64)
        header, udp, tcp = self.header_length, self._has(UDP), self._has(TCP)
        start = header + udp * 8
        if bool(tcp.any()):
            words = self._slots.bytes[self._index[tcp], header[tcp] + 12] >> 4
            start[tcp] += np.maximum(words.astype(np.int64) * 4, SHORTEST[TCP])
        return np.minimum(start, self.length)

    @cached_property
    def payload_length(self) -> NDArray[np.int64]:
        """Bytes of the payload."""
        return self.length - self.payload_start

    def payload(self, index: int) -> memoryview:
        """Return the payload of one packet, to read or to change in place.

        Whoever changes it says so by :meth:`rewrite`, for the checksum.
        """
        start = self._slots.start + int(self.payload_start[index])
        row = self._slots.memory[self._index[index]]
        return memoryview(row)[start : start + int(self.payload_length[index])]

    def udp_payload(self, index: int) -> bytes | None:
        """Return a copy of the payload of one packet, or None if it is not whole UDP.

        It asks no array: where there are few packets it is the faster way to look at them.
        """
        packet = self._slots.bytes[self._row(index)].tobytes()
        if packet[0] >> 4 == 4:
            start, end = (packet[0] & 15) * 4, packet[2] << 8 | packet[3]
            good = packet[9] == UDP and not (packet[6] & 0x3F or packet[7])
        else:
            start, end = IPV6_BYTES, (packet[4] << 8 | packet[5]) + IPV6_BYTES
            good = packet[6] == UDP
        return packet[start + 8 : end] if good and end - start >= SHORTEST[UDP] else None

    @property
    def packets(self) -> Bytes:
        """The packets from their IP header on, (packets, room), to read.

        What is past the end of a packet is garbage.
        """
        view = self._slots.bytes[self._rows]
        view.flags.writeable = False
        return view

    # Verdicts

    @property
    def waiting(self) -> Mask:
        """Which packets nobody has dropped or answered yet."""
        waiting: Mask = self._slots.verdicts[self._rows] == FORWARD
        return waiting

    def drop(self, which: Which = None) -> None:
        """Let them go no further."""
        self._slots.verdicts[self._index[self._chosen(which)]] = DROP
        self._slots.touched = True

    def rewrite(
        self,
        which: Which = None,
        *,
        source: IPv4Address | int | None = None,
        destination: IPv4Address | int | None = None,
        source_port: int | None = None,
        destination_port: int | None = None,
        ttl: int | None = None,
        payloads: Payloads | None = None,
    ) -> None:
        """Send them on changed; lengths and checksums are set right for you.

        Without anything to set it says that payloads were changed in place. The checksum over a
        fragment's payload is left alone: it covers what is not here.

        Raises:
            ModuleError: an IPv4 address for a packet of IPv6, a port for one without ports, a
                payload for what is not whole UDP, or one that has no room.
        """
        chosen = self._chosen(which)
        rows = self._index[chosen]
        for word, address in ((3, source), (4, destination)):
            if address is not None:
                self._ask(self.version[chosen] == 4, "IPv4 addresses are for packets of IPv4")
                self._slots.words[rows, word] = int(address)
        for at, port in ((0, source_port), (2, destination_port)):
            if port is not None:
                self._ask(self._with_ports[chosen], "only UDP and TCP have ports")
                self._slots.halves[rows, (self.header_length[chosen] + at) // 2] = port
        if ttl is not None:
            self._slots.bytes[rows, np.where(self.version[chosen] == 4, 8, 7)] = ttl
        if payloads is not None:
            self._set_payloads(chosen, payloads)
        self._slots.changed[rows] = True
        self._slots.touched = True

    def reply(self, which: Which = None, payloads: Payloads | None = None) -> None:
        """Answer UDP packets in the name of whom they were sent to; they themselves go nowhere.

        Addresses and ports change places and the TTL is fresh. The modules after this one do not
        see the answers.

        Args:
            payloads: of the answers; None: what came, or what it was changed to.

        Raises:
            ModuleError: one is not UDP, or a fragment; or a payload has no room.
        """
        chosen = self._chosen(which)
        if self._plain_udp and len(chosen) == len(self):
            self._reply_plain(payloads)
            return
        rows = self._index[chosen]
        self._ask(self.whole_udp[chosen], "only whole UDP packets can be answered")
        halves, ports = self._slots.halves, self.header_length[chosen] // 2
        halves[rows, ports], halves[rows, ports + 1] = (
            self.destination_port[chosen],
            self.source_port[chosen],
        )
        self._swap_addresses(chosen)
        self._slots.bytes[rows, np.where(self.version[chosen] == 4, 8, 7)] = _FRESH_TTL
        if payloads is not None:
            self._set_payloads(chosen, payloads)
        self._slots.changed[rows] = True
        self._slots.verdicts[rows] = REPLY
        self._slots.touched = True

    def replace(self, which: Which, packets: Bytes) -> None:
        """Send other bytes on in their place: a row each, whole from the IP header on.

        Version, protocol, fragmentation and the length of the header stay as they are; the total
        length in the header says how much of a row counts. UDP's own length and all checksums are
        set right for you.

        Raises:
            ModuleError: something of that is other than it was, or a length cannot be; then
                nothing has changed.
        """
        chosen = self._chosen(which)
        rows, header, width = self._index[chosen], self.header_length[chosen], packets.shape[1]
        fixed = np.where(self.version[chosen, None] == 4, _FIXED_4, _FIXED_6)
        changes = (packets[:, :10] ^ self._slots.bytes[rows, :10]) & fixed
        same: Mask = changes.max(axis=1, initial=0) == 0
        self._ask(same, "its version, protocol, header or fragment is another one")
        head = packets[:, :6].astype(np.int64)
        total = np.where(self.version[chosen] == 4, head[:, 2] << 8 | head[:, 3],
                         (head[:, 4] << 8 | head[:, 5]) + IPV6_BYTES)  # fmt: skip
        self._ask((total >= header) & (total <= min(width, self._slots.room)),
                  "a packet's length cannot be")  # fmt: skip
        udp = self.whole_udp[chosen]
        self._ask(~udp | (total >= header + SHORTEST[UDP]), "UDP has a header of 8 bytes")
        self._slots.bytes[rows, :width] = packets
        self._slots.halves[rows[udp], header[udp] // 2 + 2] = (total - header)[udp]
        self._slots.changed[rows] = True
        self._slots.touched = True

    def emit(self, packet: bytes) -> None:
        """Send another packet, whole from its IP header on; its checksums are yours to make.

        Raises:
            ModuleError: it is no IP packet, or longer than a slot.
        """
        if not packet or packet[0] >> 4 not in {4, 6} or len(packet) > self._slots.room:
            raise ModuleError(f"cannot emit {len(packet)} bytes: no IP packet, or too long")
        self._slots.emitted.append(bytes(packet))

    def remaining(self) -> "Batch":
        """Return the packets that still wait, as they are now: for the next module."""
        if not self._slots.touched:
            return self
        waiting = self.waiting
        unread = not bool(self._slots.changed.any())
        if bool(waiting.all()):
            return self if unread else Batch(self._slots, self._rows)
        return Batch(self._slots, self._index[waiting])

    # How fields are read

    def _row(self, index: int) -> int:
        return index if isinstance(self._rows, slice) else int(self._rows[index])

    def _byte(self, at: int) -> NDArray[np.uint8]:
        return self._slots.bytes[self._rows, at]

    def _half(self, at: int) -> NDArray[np.uint16]:
        return self._slots.halves[self._rows, at].astype(np.uint16)

    @cached_property
    def _six(self) -> Mask | None:
        """Which are IPv6; None: there is none, and nothing need be chosen by version."""
        if self._slots.plain:
            return None
        six = self.version == 6
        return six if bool(six.any()) else None

    @cached_property
    def _plain_udp(self) -> bool:
        """Whether all are whole UDP over IPv4 without options: most batches are."""
        if not self._slots.plain or not len(self):
            return False
        whole = (self.protocol == UDP) & (self.length >= IPV4_BYTES + SHORTEST[UDP])
        return bool((whole & (self._half(3) & 0x3FFF == 0)).all())

    def _by_version(self, four: int, six: int) -> NDArray[np.uint8]:
        if self._six is None:
            return self._byte(four).copy()
        return np.where(self._six, self._byte(six), self._byte(four))

    def _address(self, word: int) -> Numbers:
        found = self._slots.words[self._rows, word].astype(np.uint32)
        if self._six is not None:
            found[self._six] = 0
        return found

    def _address_6(self, at: int) -> Bytes:
        found = np.zeros((len(self), 16), np.uint8)
        if self._six is not None:
            found[self._six] = self._slots.bytes[self._index[self._six], at : at + 16]
        return found

    def _has(self, protocol: int) -> Mask:
        """Which carry a whole header of this protocol."""
        if self._plain_udp:
            return np.full(len(self), protocol == UDP)
        room = self.length - self.header_length >= SHORTEST[protocol]
        later = (self._half(3) & 0x1FFF != 0) & (self.version == 4)
        found: Mask = (self.protocol == protocol) & room & ~later
        return found

    @cached_property
    def _with_ports(self) -> Mask:
        return self._has(UDP) | self._has(TCP)

    def _port(self, at: int) -> NDArray[np.uint16]:
        if self._plain_udp:
            return self._half((IPV4_BYTES + at) // 2)
        header = self.header_length
        if bool((header == header[:1]).all()) and len(header):
            ports = self._half((int(header[0]) + at) // 2)
        else:
            ports = self._slots.halves[self._index, (header + at) // 2].astype(np.uint16)
        ports[~self._with_ports] = 0
        return ports

    # How packets are changed

    def _reply_plain(self, payloads: Payloads | None) -> None:
        """As :meth:`reply` to all of a batch that is plain UDP: whole columns at a time."""
        rows, words = self._rows, self._slots.words
        words[rows, 3], words[rows, 4] = self.destination, self.source
        words[rows, 5] = (self.destination_port.astype(np.uint32) << 16) | self.source_port
        self._slots.bytes[rows, 8] = _FRESH_TTL
        if payloads is not None:
            self._set_payloads(np.arange(len(self)), payloads)
        self._slots.changed[rows] = True
        self._slots.verdicts[rows] = REPLY
        self._slots.touched = True

    def _chosen(self, which: Which) -> Index:
        """Return the indices, in this batch, of the packets that are meant."""
        if which is None:
            return np.arange(len(self))
        if isinstance(which, np.ndarray) and which.dtype == np.bool_:
            return np.flatnonzero(which)
        return np.atleast_1d(np.asarray(which, np.intp))

    def _ask(self, condition: Mask, why: str) -> None:
        if not bool(condition.all()):
            raise ModuleError(why)

    def _swap_addresses(self, chosen: Index) -> None:
        four = chosen if self._six is None else chosen[~self._six[chosen]]
        words, rows = self._slots.words, self._index[four]
        words[rows, 3], words[rows, 4] = self.destination[four], self.source[four]
        if self._six is not None:
            six = chosen[self._six[chosen]]
            rows = self._index[six]
            self._slots.bytes[rows, 8:24] = self.destination6[six]
            self._slots.bytes[rows, 24:40] = self.source6[six]

    def _set_payloads(self, chosen: Index, payloads: Payloads) -> None:
        self._ask(self.whole_udp[chosen], "only whole UDP packets can get another payload")
        starts = self.payload_start[chosen]
        rows: Rows = self._index[chosen]
        if isinstance(self._rows, slice) and len(chosen) == len(self) and self._plain_udp:
            rows = self._rows
        if isinstance(payloads, Sequence) and not isinstance(payloads, bytes):
            lengths = self._set_each(self._index[chosen], starts, payloads)
        else:
            block = np.frombuffer(payloads, np.uint8) if isinstance(payloads, bytes) else payloads
            lengths = np.full(len(chosen), block.shape[-1], np.int64)
            self._ask(starts + lengths <= self._slots.room, "a payload has no room in its slot")
            self._set_block(rows, starts, block)
        header = self.header_length[chosen]
        halves = self._slots.halves
        if self._plain_udp:
            halves[rows, IPV4_BYTES // 2 + 2] = lengths + 8
        else:
            halves[rows, header // 2 + 2] = lengths + 8
        if self._six is None:
            halves[rows, 1] = header + lengths + 8
            return
        index, four = self._index[chosen], self.version[chosen] == 4
        halves[index[four], 1] = (header + lengths + 8)[four]
        halves[index[~four], 2] = (lengths + 8)[~four]

    def _set_block(self, rows: Rows, starts: NDArray[np.int64], block: Bytes) -> None:
        if self._plain_udp:
            start = IPV4_BYTES + SHORTEST[UDP]
            self._slots.bytes[rows, start : start + block.shape[-1]] = block
            return
        index = np.arange(len(self._slots))[rows]
        for start in np.unique(starts):
            alike = starts == start
            part = block[alike] if block.ndim == 2 else block
            self._slots.bytes[index[alike], start : start + block.shape[-1]] = part

    def _set_each(
        self, rows: Index, starts: NDArray[np.int64], payloads: Sequence[bytes]
    ) -> NDArray[np.int64]:
        if len(payloads) != len(rows):
            raise ModuleError(f"{len(payloads)} payloads for {len(rows)} packets")
        lengths = np.fromiter(map(len, payloads), np.int64, len(payloads))
        self._ask(starts + lengths <= self._slots.room, "a payload has no room in its slot")
        for row, start, data in zip(rows, starts, payloads, strict=True):
            self._slots.bytes[row, start : start + len(data)] = np.frombuffer(data, np.uint8)
        return lengths
