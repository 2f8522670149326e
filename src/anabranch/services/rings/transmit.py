"""Frames out by a device, many with one system call: ``sendmmsg`` of an AF_PACKET socket.

The kernel copies each frame while it is handed over. A transmit ring (PACKET_TX_RING) would lend
it our memory, and says that it is free again before the frame has arrived: on a veth a frame may
still wait in somebody's receive buffer when its slot is written anew.
"""

import ctypes
import errno
import os
import socket

import numpy as np
from numpy.typing import NDArray

_SOL_PACKET = 263
_QDISC_BYPASS = 20
_MSG_DONTWAIT = 0x40
_SEND_BUFFER = 4 * 1024 * 1024
_LOST = frozenset({errno.EBADF, errno.ENETDOWN, errno.ENXIO})
"""Of the device itself: it will not get better."""

IOVEC = np.dtype([("base", np.uint64), ("length", np.uint64)])
MESSAGE = np.dtype([
    ("name", np.uint64), ("name_length", np.uint64),
    ("vectors", np.uint64), ("vector_count", np.uint64),
    ("control", np.uint64), ("control_length", np.uint64), ("flags", np.uint64),
    ("sent", np.uint64),
])  # fmt: skip
"""struct mmsghdr of the 64-bit ABIs; its two ints with their padding taken as one word each."""

_libc = ctypes.CDLL(None, use_errno=True)
_libc.sendmmsg.argtypes = (ctypes.c_int, ctypes.c_void_p, ctypes.c_uint, ctypes.c_int)


def open_transmit_socket(device: str) -> socket.socket:
    """Return a socket that sends whole Ethernet frames by ``device``, past its queues.

    Raises:
        OSError: there is no such device, or no right to open it (CAP_NET_RAW).
    """
    opened = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)  # protocol 0: it receives nothing
    try:
        opened.setsockopt(_SOL_PACKET, _QDISC_BYPASS, 1)
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER)
        opened.bind((device, 0))
    except BaseException:
        opened.close()
        raise
    return opened


class Transmitter:
    """Sends frames from where they lie; it keeps the last ones alive, no longer."""

    def __init__(self, opened: socket.socket, most: int) -> None:
        self.socket = opened
        self._vectors = np.zeros(most, IOVEC)
        self._messages = np.zeros(most, MESSAGE)
        first = self._vectors.ctypes.data
        self._messages["vectors"] = first + np.arange(most, dtype=np.uint64) * IOVEC.itemsize
        self._messages["vector_count"] = 1
        self._bases, self._lengths = self._vectors["base"], self._vectors["length"]
        self._start = self._messages.ctypes.data
        self.refused = 0

    def send(self, addresses: NDArray[np.uint64], lengths: NDArray[np.uint32]) -> int:
        """Send the frames at these addresses; return how many went out.

        One that the kernel refuses (too long for the device, no buffer) is counted in
        :attr:`refused` and left out.
        """
        count = len(addresses)
        self._bases[:count] = addresses
        self._lengths[:count] = lengths
        done = went = 0
        while done < count:
            sent = _libc.sendmmsg(
                self.socket.fileno(),
                self._start + done * MESSAGE.itemsize,
                count - done,
                _MSG_DONTWAIT,
            )
            if sent > 0:
                done += sent
                went += sent
                continue
            code = ctypes.get_errno()
            if code == errno.EINTR:
                continue
            if code in _LOST:
                raise OSError(code, os.strerror(code))
            done += 1
            self.refused += 1
        return went

    def send_one(self, frame: memoryview) -> int:
        """Send a frame: as :meth:`send`, and faster for just one."""
        try:
            self.socket.send(frame, _MSG_DONTWAIT)
        except OSError as error:
            if error.errno in _LOST:
                raise
            self.refused += 1
            return 0
        return 1

    def close(self) -> None:
        self.socket.close()
