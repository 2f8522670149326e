"""A leaf's inlet under observation: every RTP packet that its host receives, with the time."""

import socket
import struct
import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise

from pyroute2 import netns

from anabranch.app.bench.site_process import SiteProcess
from anabranch.core.errors import UnavailableError
from anabranch.site.plan import HOST_DEVICE, namespace_of

_ETH_P_IP = 0x0800
_SO_RCVBUFFORCE, _SO_TIMESTAMPNS = 33, 35  # socket(7); not in Python's module
_TIME = struct.Struct("@qq")
_RTP = struct.Struct("!BBHII")
_IP_AT, _UDP = 14, 17
_AGAIN_S = 8.0
"""An offer whose viewer never connects holds its seat for 15 s: ample time for the next one."""

OFFER = "\r\n".join(
    (
        *("v=0", "o=- 1 1 IN IP4 127.0.0.1", "s=-", "t=0 0", "a=group:BUNDLE 0 1"),
        *("a=ice-ufrag:abcd", f"a=ice-pwd:{'p' * 24}"),
        *("a=fingerprint:sha-256 " + ":".join(["AB"] * 32), "a=setup:actpass"),
        *("m=video 9 UDP/TLS/RTP/SAVPF 96", "c=IN IP4 0.0.0.0", "a=mid:0", "a=recvonly"),
        *("a=rtcp-mux", "a=rtpmap:96 H264/90000"),
        "a=fmtp:96 level-asymmetry-allowed=1;packetization-mode=1;profile-level-id=42e01f",
        *("m=audio 9 UDP/TLS/RTP/SAVPF 111", "c=IN IP4 0.0.0.0", "a=mid:1", "a=recvonly"),
        *("a=rtcp-mux", "a=rtpmap:111 opus/48000/2", ""),
    )
)
"""Of a viewer who will never connect: its leaf is fed all the same."""


@dataclass(frozen=True, slots=True)
class Packet:
    """One RTP packet; ``at`` is when the kernel received it, seconds since the epoch."""

    at: float
    ssrc: int
    sequence: int


class Inlet:
    """What arrives at a leaf."""

    def __init__(self, namespace: str) -> None:
        netns.pushns(namespace)
        try:
            self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
            self._socket.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)
            self._socket.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, 8 << 20)
            self._socket.settimeout(0.2)
            self._socket.bind((HOST_DEVICE, _ETH_P_IP))
        finally:
            netns.popns()
        self.packets: list[Packet] = []
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._receive, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._ended.set()
        self._thread.join()
        self._socket.close()

    def until_flowing(self, limit_s: float = 10.0) -> None:
        """Wait for a second of packets.

        Raises:
            UnavailableError: there is none.
        """
        end = time.monotonic() + limit_s
        while time.monotonic() < end:
            recent = [packet for packet in self.packets if packet.at > time.time() - 1.0]
            if len(recent) > 20 and time.time() - recent[0].at > 0.8:
                return
            time.sleep(0.05)
        raise UnavailableError("nothing arrives at the leaf")

    def gap_ms(self, since: float) -> float:
        """Return the longest time without a packet, from the last one before ``since`` on.

        Raises:
            UnavailableError: nothing has arrived since.
        """
        times = sorted(packet.at for packet in list(self.packets))
        gaps = [after - before for before, after in pairwise(times) if after >= since]
        if not gaps:
            raise UnavailableError("no packet came again")
        return 1000 * max(gaps)

    def lost(self) -> tuple[int, int]:
        """Return how many packets are missing between the first and the last, and all of these."""
        return missing(self.packets)

    def _receive(self) -> None:
        while not self._ended.is_set():
            try:
                data, extra, _, address = self._socket.recvmsg(2048, 64)
            except TimeoutError:
                continue
            if address[2] == socket.PACKET_OUTGOING:
                continue
            seconds, ns = _TIME.unpack(extra[0][2])
            packet = read(data, seconds + ns / 1e9)
            if packet is not None:
                self.packets.append(packet)


def read(frame: bytes, at: float) -> Packet | None:
    """Return the RTP packet of a frame (RFC 3550, section 5.1); None: it has none."""
    if len(frame) < _IP_AT + 20 or frame[_IP_AT + 9] != _UDP:
        return None
    start = _IP_AT + 4 * (frame[_IP_AT] & 0xF) + 8
    if len(frame) < start + _RTP.size or frame[start] >> 6 != 2:
        return None
    _, _, sequence, _, ssrc = _RTP.unpack_from(frame, start)
    return Packet(at, ssrc, sequence)


def missing(packets: list[Packet]) -> tuple[int, int]:
    """Return how many packets are missing by the numbers of each SSRC, and how many there were."""
    numbers: dict[int, list[int]] = defaultdict(list)
    for packet in packets:
        before = numbers[packet.ssrc][-1] if numbers[packet.ssrc] else packet.sequence
        step = (packet.sequence - before + 0x8000 & 0xFFFF) - 0x8000
        numbers[packet.ssrc].append(before + step)
    expected = sum(max(each) - min(each) + 1 for each in numbers.values())
    return expected - sum(len(set(each)) for each in numbers.values()), expected


@contextmanager
def fed(site: SiteProcess, leaf: str) -> Iterator[Inlet]:
    """Have a channel delivered to one leaf, and watch it arrive; all other leaves are drained.

    Raises:
        UnavailableError: it does not arrive.
    """
    nodes = site.api("GET", "/api/nodes").json()
    for node in nodes:
        if node["role"] == "leaf" and node["state"] in ("up", "draining"):
            what = "undrain" if node["name"] == leaf else "drain"
            site.api("POST", f"/api/nodes/{node['name']}/{what}").raise_for_status()
    ended = threading.Event()
    thread = threading.Thread(target=_keep_watching, args=(site, ended), daemon=True)
    thread.start()
    inlet = Inlet(namespace_of(site.name, leaf))
    try:
        inlet.until_flowing()
        yield inlet
    finally:
        ended.set()
        thread.join()
        inlet.close()


def _keep_watching(site: SiteProcess, ended: threading.Event) -> None:
    while True:
        headers = {"Content-Type": "application/sdp"}
        site.post("/whep/test1", content=OFFER, headers=headers)
        if ended.wait(_AGAIN_S):
            return
