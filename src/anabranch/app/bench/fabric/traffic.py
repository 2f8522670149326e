"""Numbered packets from one namespace to another, as a process of its own.

``python -m anabranch.app.bench.fabric.traffic FLOWS PPS SENDER RECEIVER`` prints a line when it
sends, stops at the line ``stop``, and prints one JSON object: ``sent`` packets, and ``arrived``, a
list of ``[number, flow, sent_ns, arrived_ns]`` in order of arrival; times of CLOCK_REALTIME by the
sender and by the kernel of the receiver's socket.

Packets are of FLOWS pairs of hosts, one after the other; the line ``only N`` has those of flow N
sent alone from then on, ``none`` has nothing sent.
"""

import json
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from pyroute2 import netns

from anabranch.app.bench.fabric.contender import python
from anabranch.app.bench.fabric.hosts import SOURCES, TARGETS, frame, source_mac, target_mac

DEVICE = "eth0"
ETH_P_IP = 0x0800
_SO_RCVBUFFORCE, _SO_TIMESTAMPNS = 33, 35  # socket(7); not in Python's module
_BODY = struct.Struct("!4sIIQ2x")  # mark, number, flow, when; the rest fills 64 bytes
_MARK = b"ABen"
_PAYLOAD_AT = 42
_SPACE = bytes(_BODY.size)
_SWITCH_S = 0.0002
_TIME = struct.Struct("@qq")
_NS = 1_000_000_000
_DRAIN_S = 0.5
_BUFFER = 4 << 20


@dataclass(frozen=True, slots=True)
class Arrival:
    """One packet that came; times in seconds since the epoch."""

    number: int
    flow: int
    sent: float
    arrived: float


@dataclass(frozen=True, slots=True)
class Record:
    """What became of the packets."""

    sent: int
    arrivals: tuple[Arrival, ...]

    @property
    def lost(self) -> int:
        """Packets that never came."""
        return self.sent - len({arrival.number for arrival in self.arrivals})

    @property
    def duplicates(self) -> int:
        """Packets that came again."""
        return len(self.arrivals) - len({arrival.number for arrival in self.arrivals})

    def outage_ms(self, since: float, until: float) -> float:
        """Return the longest time for which packets were lost, by when they were sent.

        ``since`` and ``until`` are seconds since the epoch. Lost time is the distance of the last
        packet before and the first after the loss; with no loss it is 0.
        """
        arrivals = sorted(self.arrivals, key=lambda arrival: arrival.number)
        gaps = [
            after.sent - before.sent
            for before, after in pairwise(arrivals)
            if after.number > before.number + 1 and since <= after.sent and before.sent <= until
        ]
        return 1000 * max(gaps, default=0.0)


class Traffic:
    """Packets that are being sent; :meth:`stop` says what became of them."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self._process = process

    def choose(self, flow: int) -> None:
        """Send only packets of ``flow`` from now on."""
        self._tell(f"only {flow}")

    def pause(self) -> None:
        """Send nothing from now on."""
        self._tell("none")

    def stop(self) -> Record:
        """Stop sending and return the record; half a second later than the last packet."""
        out, _ = self._process.communicate("stop\n", timeout=60)
        found: dict[str, Any] = json.loads(out)
        arrivals = tuple(
            Arrival(number, flow, sent / _NS, came / _NS)
            for number, flow, sent, came in found["arrived"]
        )
        return Record(found["sent"], arrivals)

    def _tell(self, line: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(f"{line}\n")
        self._process.stdin.flush()


@contextmanager
def traffic(flows: int, pps: int, sender: str, receiver: str) -> Iterator[Traffic]:
    """Send ``pps`` packets a second of ``flows`` flows from one namespace to another.

    Raises:
        UnavailableError: it cannot be begun.
    """
    module = "anabranch.app.bench.fabric.traffic"
    with python(module, str(flows), str(pps), sender, receiver) as process:
        yield Traffic(process)


def socket_in(namespace: str, *, receives: bool) -> socket.socket:
    """Return a packet socket on the device ``eth0`` of a namespace."""
    netns.pushns(namespace)
    try:
        made = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
        if receives:
            made.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)
            made.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _BUFFER)
        made.bind((DEVICE, ETH_P_IP if receives else 0))
    finally:
        netns.popns()
    return made


def introduce(sender: str, receiver: str) -> None:
    """Send a broadcast from every host, for controllers that learn addresses so."""
    for namespace, count, mac_of in (
        (sender, SOURCES, source_mac),
        (receiver, TARGETS, target_mac),
    ):
        with socket_in(namespace, receives=False) as end:
            for number in range(count):
                end.send(frame(b"\xff" * 6, mac_of(number)))
                time.sleep(0.002)


class _Sender(threading.Thread):
    def __init__(self, flows: int, pps: int, namespace: str) -> None:
        super().__init__(daemon=True)
        self._interval = 1 / pps
        self._flows = flows
        self.chosen: int | None = None
        self.paused = False
        self._socket = socket_in(namespace, receives=False)
        self._stopped = threading.Event()
        self.sent = 0

    def run(self) -> None:
        """Send; what is late because this machine was busy is sent at once."""
        began = time.monotonic()
        missed = 0
        while not self._stopped.is_set():
            due = int((time.monotonic() - began) / self._interval) - missed
            if self.paused:
                missed += due - self.sent
                due = self.sent
            while self.sent < due:
                flow = self.sent % self._flows if self.chosen is None else self.chosen
                target, source = target_mac(flow % TARGETS), source_mac(flow // TARGETS)
                headers = frame(target, source, _SPACE)[:_PAYLOAD_AT]
                # Last of all: nothing but the system call is between this time and the packet.
                body = _BODY.pack(_MARK, self.sent, flow, time.time_ns())
                self._socket.send(headers + body)
                self.sent += 1
            following = began + (self.sent + missed + 1) * self._interval
            time.sleep(max(0.0, following - time.monotonic()))
        self._socket.close()

    def stop(self) -> None:
        self._stopped.set()
        self.join()


def _receive(end: socket.socket, arrived: list[tuple[int, int, int, int]]) -> None:
    while True:
        try:
            data, extra, _, _ = end.recvmsg(2048, 64)
        except TimeoutError:
            continue
        except OSError:
            return
        if len(data) < _PAYLOAD_AT + _BODY.size or data[_PAYLOAD_AT : _PAYLOAD_AT + 4] != _MARK:
            continue
        _, number, flow, sent = _BODY.unpack_from(data, _PAYLOAD_AT)
        seconds, ns = _TIME.unpack(extra[0][2])
        arrived.append((number, flow, sent, seconds * _NS + ns))


def main(flows: int, pps: int, sender_in: str, receiver_in: str) -> None:
    """Send until told to stop."""
    sys.setswitchinterval(_SWITCH_S)  # the sender waits no longer for the receiver's thread
    arrived: list[tuple[int, int, int, int]] = []
    receiver = socket_in(receiver_in, receives=True)
    receiver.settimeout(0.2)
    receiving = threading.Thread(target=_receive, args=(receiver, arrived), daemon=True)
    receiving.start()
    sender = _Sender(flows, pps, sender_in)
    sender.start()
    sys.stdout.write("sending\n")
    sys.stdout.flush()
    while (line := sys.stdin.readline().split()) not in ([], ["stop"]):
        sender.paused = line == ["none"]
        if not sender.paused:
            sender.chosen = int(line[1])
    sender.stop()
    time.sleep(_DRAIN_S)
    receiver.close()
    receiving.join(1.0)
    json.dump({"sent": sender.sent, "arrived": arrived}, sys.stdout)


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], sys.argv[4])
