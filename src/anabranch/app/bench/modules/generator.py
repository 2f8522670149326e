"""A sender of packets that is faster than what it measures: a transmit ring, filled once.

    python -m anabranch.app.bench.modules.generator NAMESPACE DEVICE FRAMES.npy RATE SECONDS CORE

Prints how many packets it sent. The frames in the ring never change, so that nothing is wrong
with sending them again before they have arrived.
"""

import json
import mmap
import os
import socket
import struct
import sys
import time

import numpy as np

from anabranch.host.network import entered

_SOL_PACKET, _TX_RING, _VERSION, _LOSS, _QDISC_BYPASS = 263, 13, 10, 14, 20
_FRAME_AT, _SLOT = 32, 2048
_SEND_REQUEST = 1
_PACE_S = 0.0005


def main() -> None:
    namespace, device, path, rate, seconds, core = sys.argv[1:]
    os.sched_setaffinity(0, {int(core)})
    frames = np.load(path)
    with entered(namespace):
        opened = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
    ring = _Ring(opened, device, frames)
    began = time.perf_counter()
    sent = ring.flood(float(seconds)) if rate == "0" else ring.pace(float(rate), float(seconds))
    print(json.dumps({"sent": sent, "seconds": time.perf_counter() - began}))


class _Ring:
    def __init__(self, opened: socket.socket, device: str, frames: np.ndarray) -> None:
        count, size = frames.shape
        opened.setsockopt(_SOL_PACKET, _VERSION, 1)
        opened.setsockopt(_SOL_PACKET, _LOSS, 1)
        opened.setsockopt(_SOL_PACKET, _QDISC_BYPASS, 1)
        block = 128 * 1024
        request = struct.pack("4I", block, count * _SLOT // block, _SLOT, count)
        opened.setsockopt(_SOL_PACKET, _TX_RING, request)
        opened.bind((device, 0))
        memory = mmap.mmap(opened.fileno(), count * _SLOT)
        slots = np.frombuffer(memory, np.uint8).reshape(count, _SLOT)
        slots[:, _FRAME_AT : _FRAME_AT + size] = frames
        words = slots.view(np.uint32)
        words[:, 1] = size
        self._status = words[:, 0]
        self._socket = opened
        self._next = 0

    def flood(self, seconds: float) -> int:
        """Send all there is, again and again."""
        sent, end = 0, time.perf_counter() + seconds
        while time.perf_counter() < end:
            self._status[:] = _SEND_REQUEST
            self._socket.send(b"")
            sent += len(self._status)
        return sent

    def pace(self, rate: float, seconds: float) -> int:
        """Send ``rate`` packets a second, a few every half millisecond."""
        sent, began = 0, time.perf_counter()
        total = int(rate * seconds)
        while sent < total:
            due = min(int((time.perf_counter() - began) * rate), total) - sent
            due = min(due, len(self._status) - self._next)
            if due <= 0:
                time.sleep(_PACE_S)
                continue
            self._status[self._next : self._next + due] = _SEND_REQUEST
            self._socket.send(b"")
            self._next = (self._next + due) % len(self._status)
            sent += due
        return sent


if __name__ == "__main__":
    main()
