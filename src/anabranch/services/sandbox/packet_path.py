"""Packets from a sandbox's ring through the modules and out again."""

import numpy as np

from anabranch.services.chain import Chain
from anabranch.services.frames import ETHERNET_BYTES, Bytes
from anabranch.services.rings.receive import ETHERNET_AT, SLOT_BYTES, ReceiveRing
from anabranch.services.rings.transmit import Transmitter
from anabranch.services.sandbox.addressing import Addressing
from anabranch.services.slots import Slots

BATCH = 256
"""Packets at a time: NumPy's cost of a call is spread over them, and they stay in the cache."""
_IP_AT = ETHERNET_AT + ETHERNET_BYTES
_MOST_EMITTED = 256
_ETHERTYPE = {4: b"\x08\x00", 6: b"\x86\xdd"}


class PacketPath:
    """The ring, the chain and the way out.

    Args:
        addressing: decides the MAC addresses of what goes out.
    """

    def __init__(
        self, ring: ReceiveRing, transmitter: Transmitter, chain: Chain, addressing: Addressing
    ) -> None:
        self._ring = ring
        self._transmitter = transmitter
        self._chain = chain
        self._addressing = addressing
        self._view = ring.view
        starts = np.arange(max(BATCH, _MOST_EMITTED), dtype=np.uint64) * np.uint64(SLOT_BYTES)
        self._starts = starts[:BATCH] + np.uint64(ring.address + ETHERNET_AT)
        # Not zeros: pages that nobody writes to are nobody's.
        self._emitted = np.empty((_MOST_EMITTED, SLOT_BYTES), np.uint8)
        self._emitted_at = starts[:_MOST_EMITTED] + np.uint64(self._emitted.ctypes.data)
        self.received = self.sent = self.dropped = self.lost = self.unknown = 0

    def fileno(self) -> int:
        return self._ring.fileno()

    def turn(self) -> int:
        """Pass on what waits, at most :data:`BATCH` packets; return how many there were."""
        count = self._ring.take(BATCH)
        if not count:
            return 0
        packets = self._ring.packets(count)
        slots = Slots(packets, _IP_AT, self._ring.lengths(count))
        self._chain.run(slots)
        if count == 1 and not slots.touched and not slots.emitted:
            self._pass_on(int(slots.sizes[0]))
            return 1
        rows, sizes = slots.leaving()
        frames = packets[:, ETHERNET_AT:]
        if len(rows):
            self._addressing.set(frames, rows, slots)
            starts = self._starts[rows] + np.uint64(self._ring.at)
            self.sent += self._transmitter.send(starts, sizes)
        if slots.emitted:
            self._emit(slots, frames)
        self._ring.release(count)
        self.received += count
        self.dropped += count - len(rows)
        return count

    def _pass_on(self, size: int) -> None:
        """Send on a packet that came alone and is as it came: what most of a quiet path are."""
        at = self._ring.at + ETHERNET_AT
        fixed = self._addressing.fixed
        self._view[at : at + len(fixed)] = fixed
        self.sent += self._transmitter.send_one(self._view[at : at + size])
        self._ring.release(1)
        self.received += 1

    def _emit(self, slots: Slots, frames: Bytes) -> None:
        found = [
            (addresses, packet)
            for packet in slots.emitted
            if (addresses := self._addressing.of(frames, slots, packet)) is not None
        ]
        self.unknown += len(slots.emitted) - len(found)
        for begin in range(0, len(found), _MOST_EMITTED):
            part = found[begin : begin + _MOST_EMITTED]
            sizes = np.zeros(len(part), np.uint32)
            for place, (addresses, packet) in enumerate(part):
                frame = addresses + _ETHERTYPE[packet[0] >> 4] + packet
                self._emitted[place, : len(frame)] = np.frombuffer(frame, np.uint8)
                sizes[place] = len(frame)
            self.sent += self._transmitter.send(self._emitted_at[: len(part)], sizes)

    def figures(self) -> dict[str, int]:
        """Return the counters.

        ``lost`` are packets for which the ring had no slot, ``refused`` what could not be sent.
        """
        self.lost += self._ring.counts().lost
        return {
            "received": self.received,
            "sent": self.sent,
            "dropped": self.dropped,
            "lost": self.lost,
            "refused": self._transmitter.refused + self.unknown,
        }
