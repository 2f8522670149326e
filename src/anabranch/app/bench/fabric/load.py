"""A switch that only asks: how many flows a second does its controller set up?

Speaks the handshake by the ordinary codec; then sends PACKET_INs built beforehand, ``window`` of
them unanswered at any time, and counts the FLOW_MODs that come back. Every packet is another pair
of hosts, until all pairs are used and it begins anew.

Runs as a process of its own: ``python -m anabranch.app.bench.fabric.load PORT WINDOW SECONDS``
prints one JSON object: ``{"per_s": ..., "round_trips_ms": [...]}``.
"""

import json
import socket
import struct
import sys
import time
from itertools import product

from anabranch.app.bench.fabric.hosts import SOURCES, TARGETS, frame, source_mac, target_mac
from anabranch.fabric.host_services.rules import UNICAST_MISS_COOKIE
from anabranch.fabric.openflow.actions import NO_BUFFER
from anabranch.fabric.openflow.codec import Framer, decode, encode
from anabranch.fabric.openflow.messages import (
    BarrierReply,
    BarrierRequest,
    EchoReply,
    EchoRequest,
    FeaturesReply,
    FeaturesRequest,
    FlowMod,
    Hello,
    Message,
    MultipartReply,
    MultipartRequest,
    MultipartType,
    PacketIn,
    Port,
    RoleReply,
    RoleRequest,
)
from anabranch.fabric.openflow.oxm import Match
from anabranch.fabric.pipeline import HOSTS

DPID = 1
SOURCE_PORT, TARGET_PORT = 1, 2
_VERSION = 4
_FLOW_MOD = 14
_LENGTH = struct.Struct("!xBH")
_QUIET_S = 0.5
_WARM_UP_S = 1.0
_RECEIVE = 1 << 18
PAIRS = SOURCES * TARGETS


class FakeSwitch:
    """One connection to a controller.

    Raises:
        OSError: the controller cannot be reached, or ends the connection.
    """

    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=10)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._framer = Framer()
        self._rest = b""
        self._send(Hello(frozenset({_VERSION}), _VERSION))

    def settle(self) -> None:
        """Answer whatever the controller asks, until it has been quiet for half a second."""
        self._socket.settimeout(_QUIET_S)
        try:
            while True:
                for raw in self._framer.feed(self._receive()):
                    self._answer(decode(raw))
        except TimeoutError:
            self._socket.settimeout(10)

    def introduce(self) -> None:
        """Send a packet from every host, for controllers that learn addresses so."""
        for macs, port_no in ((SOURCES, SOURCE_PORT), (TARGETS, TARGET_PORT)):
            mac_of = source_mac if port_no == SOURCE_PORT else target_mac
            for number in range(macs):
                self._socket.sendall(packet_in(port_no, frame(b"\xff" * 6, mac_of(number))))
        self.settle()

    def load(self, window: int, seconds: float) -> tuple[float, list[float]]:
        """Return flows set up per second, and with window 1 the milliseconds each one took."""
        length, packets = all_pairs()
        count = len(packets) // length
        view = memoryview(packets)
        at = 0
        round_trips: list[float] = []
        answered = 0
        self._socket.sendall(view[: window * length])
        at = window
        clock = time.perf_counter
        asked = began = clock()
        begun = False
        while True:
            more = self._flow_mods(self._receive())
            now = clock()
            if not begun and now >= began + _WARM_UP_S:
                begun, began, answered, round_trips = True, now, 0, []
            if not more:
                continue
            answered += more
            if window == 1:
                round_trips.append((now - asked) * 1000)
            if begun and now >= began + seconds:
                return answered / (now - began), round_trips
            if at + more > count:
                at = 0
            asked = clock()
            self._socket.sendall(view[at * length : (at + more) * length])
            at += more

    def close(self) -> None:
        self._socket.close()

    def _receive(self) -> bytes:
        data = self._socket.recv(_RECEIVE)
        if not data:
            raise ConnectionError("the controller has ended the connection")
        return data

    def _flow_mods(self, data: bytes) -> int:
        """Count the FLOW_MODs that are complete now."""
        data = self._rest + data if self._rest else data
        at, end, found = 0, len(data), 0
        unpack = _LENGTH.unpack_from
        while end - at >= 4:
            kind, length = unpack(data, at)
            if at + length > end:
                break
            if kind == _FLOW_MOD:
                found += 1
            elif kind != _PACKET_OUT:
                self._answer(decode(data[at : at + length]))
            at += length
        self._rest = data[at:]
        return found

    def _answer(self, message: object) -> None:
        answer: Message | None = None
        match message:
            case EchoRequest(data=data, xid=xid):
                answer = EchoReply(data, xid=xid)
            case FeaturesRequest(xid=xid):
                answer = FeaturesReply(DPID, 256, 8, 0, 0, xid=xid)
            case BarrierRequest(xid=xid):
                answer = BarrierReply(xid=xid)
            case RoleRequest(role=role, generation_id=generation_id, xid=xid):
                answer = RoleReply(role, generation_id, xid=xid)
            case MultipartRequest(type=MultipartType.PORT_DESC, xid=xid):
                ports = tuple(
                    Port(port_no, f"02:00:00:00:ff:{port_no:02x}", f"eth{port_no}")
                    for port_no in (SOURCE_PORT, TARGET_PORT)
                )
                answer = MultipartReply(MultipartType.PORT_DESC, ports, xid=xid)
            case MultipartRequest(type=kind, xid=xid):
                answer = MultipartReply(kind, (), xid=xid)
            case FlowMod() | Hello():
                pass
        if answer is not None:
            self._send(answer)

    def _send(self, message: Message) -> None:
        self._socket.sendall(encode(message, _VERSION))


_PACKET_OUT = 13


def packet_in(port_no: int, data: bytes) -> bytes:
    """Return the message that hands a whole packet to the controller."""
    match = Match(in_port=port_no)
    message = PacketIn(NO_BUFFER, len(data), 0, HOSTS, UNICAST_MISS_COOKIE, match, data)
    return encode(message, _VERSION)


def all_pairs() -> tuple[int, bytes]:
    """Return the length of one message, and the messages of all pairs of hosts."""
    pairs = product(range(SOURCES), range(TARGETS))
    messages = [
        packet_in(SOURCE_PORT, frame(target_mac(target), source_mac(source)))
        for source, target in pairs
    ]
    return len(messages[0]), b"".join(messages)


def main(port: int, window: int, seconds: float) -> None:
    """Connect, load, print."""
    switch = FakeSwitch(port)
    try:
        switch.settle()
        switch.introduce()
        per_s, round_trips = switch.load(window, seconds)
    finally:
        switch.close()
    json.dump({"per_s": per_s, "round_trips_ms": round_trips[:20_000]}, sys.stdout)


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]))
