"""MAC addresses of what leaves a sandbox: the router's, or on a switch those it came with."""

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from anabranch.services.frames import ETHERNET_BYTES, Bytes
from anabranch.services.slots import REPLY, Slots

_ADDRESSES = slice(0, 12)
_SWAPPED = (*range(6, 12), *range(6))
_SOURCE = slice(ETHERNET_BYTES + 12, ETHERNET_BYTES + 16)
_DESTINATION = slice(ETHERNET_BYTES + 16, ETHERNET_BYTES + 20)
_REMEMBERED = 256


class Addressing(Protocol):
    """Decides the addresses of frames.

    Attributes:
        fixed: what all that goes on is given; empty: it keeps what it has.
    """

    fixed: bytes

    def set(self, frames: Bytes, rows: NDArray[np.intp], slots: Slots) -> None:
        """Set those of a batch, (packets, bytes of a frame), of which ``rows`` go out."""

    def of(self, frames: Bytes, slots: Slots, packet: bytes) -> bytes | None:
        """Return the 12 bytes for a packet that a module emitted; None: nobody knows them."""


class FixedAddresses:
    """The same for all.

    Args:
        addresses: destination first, 12 bytes.
    """

    def __init__(self, addresses: bytes) -> None:
        self.fixed = addresses
        self._row = np.frombuffer(addresses, np.uint8)

    def set(self, frames: Bytes, rows: NDArray[np.intp], slots: Slots) -> None:
        whole = len(rows) == len(slots)
        frames[slice(None) if whole else rows, _ADDRESSES] = self._row

    def of(self, frames: Bytes, slots: Slots, packet: bytes) -> bytes | None:
        return self.fixed


class KeptAddresses:
    """Those that each frame came with; an answer goes back to whom the packet came from.

    A packet of a module's own goes where packets of its batch with that IPv4 address come from or
    go to; else where the last ones to that address went.
    """

    fixed = b""

    def __init__(self) -> None:
        self._remembered: dict[bytes, bytes] = {}

    def set(self, frames: Bytes, rows: NDArray[np.intp], slots: Slots) -> None:
        if slots.touched:
            answers = np.flatnonzero(slots.verdicts == REPLY)
            frames[answers, _ADDRESSES] = frames[answers][:, _SWAPPED]

    def of(self, frames: Bytes, slots: Slots, packet: bytes) -> bytes | None:
        if packet[0] >> 4 != 4 or len(packet) < 20:
            return None
        target = packet[16:20]
        wanted = np.frombuffer(target, np.uint8)
        # What was changed may go elsewhere now than its frame says.
        sure = ~slots.changed | (slots.verdicts == REPLY)
        to = np.flatnonzero(sure & (frames[:, _DESTINATION] == wanted).all(axis=1))
        back = np.flatnonzero(sure & (frames[:, _SOURCE] == wanted).all(axis=1))
        if len(to):
            found = frames[to[0], _ADDRESSES].tobytes()
        elif len(back):
            found = frames[back[0], _SWAPPED].tobytes()
        else:
            return self._remembered.get(target)
        self._remembered.pop(target, None)
        self._remembered[target] = found
        if len(self._remembered) > _REMEMBERED:
            del self._remembered[next(iter(self._remembered))]
        return found
