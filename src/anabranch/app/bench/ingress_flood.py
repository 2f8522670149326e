"""Floods a UDP port: ``python -m anabranch.app.bench.ingress_flood TO PORT PPS SECONDS SOURCE``.

SOURCE is the address and port that every packet bears, or ``random``: another for each, of the
network 198.19.0.0/16 (RFC 2544). Prints how many packets were sent, as JSON. It needs root, and
belongs into a namespace.
"""

import json
import random
import socket
import struct
import sys
import time
from ipaddress import IPv4Address

_BATCH_S = 0.005
_HEADERS = struct.Struct("!BBHHHBBH4s4sHHHH")
_PAYLOAD = bytes(32)


def packet(source: IPv4Address, source_port: int, to: IPv4Address, port: int) -> bytes:
    """Return an IPv4 packet with a UDP datagram that has no checksum (RFC 768)."""
    length = 8 + len(_PAYLOAD)
    total = _HEADERS.size + len(_PAYLOAD)
    ends = source.packed, to.packed
    # The kernel fills in the header's checksum.
    header = _HEADERS.pack(0x45, 0, total, 0, 0, 64, 17, 0, *ends, source_port, port, length, 0)
    return header + _PAYLOAD


def flood(to: IPv4Address, port: int, pps: int, seconds: float, source: str) -> int:
    """Send, and return how many packets were."""
    if source == "random":
        draw = random.Random(0)  # noqa: S311
        net = int(IPv4Address("198.19.0.0"))
        packets = [
            packet(
                IPv4Address(net + draw.randrange(1 << 16)), draw.randrange(1024, 65536), to, port
            )
            for _ in range(min(100_000, round(pps * seconds)))
        ]
    else:
        address, _, number = source.rpartition(":")
        packets = [packet(IPv4Address(address), int(number), to, port)]
    sent = 0
    with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW) as raw:
        began = time.monotonic()
        while (now := time.monotonic() - began) < seconds:
            due = round(min(now + _BATCH_S, seconds) * pps)
            for number_sent in range(sent, due):
                raw.sendto(packets[number_sent % len(packets)], (str(to), port))
            sent = max(sent, due)
            time.sleep(_BATCH_S / 2)
    return sent


if __name__ == "__main__":
    given = sys.argv[1:]
    done = flood(IPv4Address(given[0]), int(given[1]), int(given[2]), float(given[3]), given[4])
    print(json.dumps({"sent": done}))
