"""Looks at the RTP packets (RFC 3550) that arrive at a device: their headers, not their secrets."""

import asyncio
import hashlib
import socket
import struct
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

_ETH_IPV4 = 0x0800
_UDP = 17
_SO_RCVBUFFORCE, _SO_TIMESTAMPNS = 33, 35
_BUFFER = 2**24
_RTCP_TYPES = range(192, 224)
"""Second byte of what is RTCP and no RTP (RFC 5761, section 4)."""
_HEADER = struct.Struct("!BBHII")


@dataclass(frozen=True, slots=True)
class RtpPacket:
    """One packet.

    Attributes:
        at: when the kernel took it, in seconds of its clock of the day.
        digest: of the whole packet.
    """

    at: float
    ssrc: int
    payload_type: int
    sequence: int
    timestamp: int
    digest: bytes


class RtpSniffer:
    """Notes what arrives from one UDP port. Attributes: ``packets``, in their order."""

    def __init__(self, device: str, port: int) -> None:
        self.packets: list[RtpPacket] = []
        self._port = port
        self._socket = socket.socket(
            socket.AF_PACKET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK, socket.htons(_ETH_IPV4)
        )
        self._socket.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _BUFFER)
        self._socket.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)
        self._socket.bind((device, _ETH_IPV4))
        asyncio.get_running_loop().add_reader(self._socket, self.read)

    def close(self) -> None:
        asyncio.get_running_loop().remove_reader(self._socket)
        self._socket.close()

    def of(self, payload_type: int) -> list[RtpPacket]:
        """Return the packets of a payload type, those that wait to be read included."""
        self.read()
        return [packet for packet in self.packets if packet.payload_type == payload_type]

    def read(self) -> None:
        """Note what waits to be read."""
        while True:
            try:
                data, extra, _flags, address = self._socket.recvmsg(2**16, 64)
            except BlockingIOError:
                return
            if address[2] != socket.PACKET_OUTGOING:
                seconds, nanoseconds = struct.unpack("qq", extra[0][2])
                self._note(data, seconds + nanoseconds / 1e9)

    def _note(self, data: bytes, at: float) -> None:
        words = 4 * (data[0] & 15)
        if data[9] != _UDP or len(data) < words + 8 + _HEADER.size:
            return
        source, _to, length, _sum = struct.unpack_from("!HHHH", data, words)
        rtp = data[words + 8 : words + length]
        if source != self._port or len(rtp) < _HEADER.size:
            return
        first, second, sequence, timestamp, ssrc = _HEADER.unpack_from(rtp)
        if first >> 6 == 2 and second not in _RTCP_TYPES:
            digest = hashlib.sha256(rtp).digest()
            packet = RtpPacket(at, ssrc, second & 127, sequence, timestamp, digest)
            self.packets.append(packet)


@contextmanager
def sniffing(device: str, port: int) -> Iterator[RtpSniffer]:
    """Give a sniffer of what arrives at a device from this UDP port."""
    sniffer = RtpSniffer(device, port)
    try:
        yield sniffer
    finally:
        sniffer.close()


def extended(packets: Sequence[RtpPacket]) -> list[int]:
    """Return the sequence numbers as if they had no end (RFC 3550, appendix A.1).

    Args:
        packets: of one stream, in the order of their arrival.
    """
    numbers: list[int] = []
    for packet in packets:
        last = numbers[-1] if numbers else packet.sequence
        ahead = (packet.sequence - last + 0x8000) % 0x10000 - 0x8000
        numbers.append(last + ahead)
    return numbers


def repeats(packets: Sequence[RtpPacket]) -> int:
    """Return how often a sequence number of a stream came with two contents.

    What is sent again unchanged is no such case. ``packets`` as for :func:`extended`.
    """
    seen: dict[int, bytes] = {}
    return sum(
        seen.setdefault(number, packet.digest) != packet.digest
        for number, packet in zip(extended(packets), packets, strict=True)
    )
