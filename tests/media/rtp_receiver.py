"""A receiver of RTP for tests: counts packets, cuts H.264 into pictures and decodes them."""

import asyncio
import socket
import struct
import time
from dataclasses import dataclass, field
from itertools import pairwise
from types import TracebackType

import av

START_CODE = b"\0\0\0\1"


@dataclass
class Packet:
    ssrc: int
    payload_type: int
    seq: int
    timestamp: int
    marker: bool
    payload: bytes
    arrived: float


def parse_rtp(data: bytes) -> Packet:
    first, second, seq, timestamp, ssrc = struct.unpack("!BBHII", data[:12])
    assert first >> 6 == 2
    return Packet(ssrc, second & 127, seq, timestamp, second > 127, data[12:], time.time())


def nal_units(payload: bytes) -> tuple[bytes, bool]:
    """Return the byte stream of an RFC 6184 payload and whether it has (the start of) an IDR."""
    kind = payload[0] & 31
    if kind == 24:
        out, rest, idr = b"", payload[1:], False
        while rest:
            size = struct.unpack("!H", rest[:2])[0]
            out += START_CODE + rest[2 : 2 + size]
            idr |= rest[2] & 31 == 5
            rest = rest[2 + size :]
        return out, idr
    if kind == 28:
        if payload[1] & 0x80:
            head = bytes([payload[0] & 0xE0 | payload[1] & 31])
            return START_CODE + head + payload[2:], payload[1] & 31 == 5
        return payload[2:], False
    return START_CODE + payload, kind == 5


@dataclass
class Picture:
    timestamp: int
    data: bytes
    idr: bool
    arrived: float
    complete: bool = False


@dataclass
class Decoded:
    timestamp: int
    arrived: float
    width: int
    height: int
    stride: int
    luma: bytes

    def mean(self) -> float:
        return sum(self.luma[:: self.stride * 8 + 37]) / len(self.luma[:: self.stride * 8 + 37])


class RtpReceiver(asyncio.DatagramProtocol):
    """Bound to a free port of 127.0.0.1 while used as a context."""

    def __init__(self) -> None:
        self.packets: list[Packet] = []
        self.sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_000_000)
        self.sock.bind(("127.0.0.1", 0))
        self.target: tuple[str, int] = self.sock.getsockname()

    async def __aenter__(self) -> "RtpReceiver":
        loop = asyncio.get_running_loop()
        self.transport, _ = await loop.create_datagram_endpoint(lambda: self, sock=self.sock)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.transport.close()
        await asyncio.sleep(0)

    def datagram_received(self, data: bytes, addr: object) -> None:
        self.packets.append(parse_rtp(data))

    def gaps(self) -> list[tuple[int, int]]:
        """Return the pairs of neighbours whose sequence numbers do not follow on each other."""
        numbers = [packet.seq for packet in self.packets]
        return [(a, b) for a, b in pairwise(numbers) if (b - a) % 65536 != 1]

    def pictures(self) -> list[Picture]:
        """Cut the packets into access units by their timestamps."""
        pictures: list[Picture] = []
        for packet in self.packets:
            data, idr = nal_units(packet.payload)
            if not pictures or pictures[-1].timestamp != packet.timestamp:
                pictures.append(Picture(packet.timestamp, b"", False, packet.arrived))
            last = pictures[-1]
            last.data += data
            last.idr |= idr
            last.complete |= packet.marker
            last.arrived = packet.arrived
        return pictures

    def decode(self) -> list[Decoded]:
        """Decode every complete picture from the first key frame on: the last may be on its way."""
        codec = av.CodecContext.create("h264", "r")
        codec.thread_count = 1
        result, begun = [], False
        for picture in self.pictures():
            begun = begun or picture.idr
            if not (begun and picture.complete):
                continue
            packet = av.Packet(picture.data)
            packet.pts = picture.timestamp
            for frame in codec.decode(packet):
                plane = frame.planes[0]
                result.append(
                    Decoded(
                        frame.pts,
                        picture.arrived,
                        frame.width,
                        frame.height,
                        plane.line_size,
                        bytes(plane),
                    )
                )
        return result


@dataclass
class States:
    """Collects what a callback reports, and waits for something in it."""

    seen: list[object] = field(default_factory=list)

    def add(self, *state: object) -> None:
        self.seen.append(state if len(state) > 1 else state[0])
