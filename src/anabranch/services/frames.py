"""Where things are in a packet, and the Internet checksum over many packets at once.

Offsets count from the first byte of the IP header. Numbers are in network byte order on the wire
and plain integers in all arrays.
"""

import numpy as np
from numpy.typing import NDArray

Bytes = NDArray[np.uint8]
Numbers = NDArray[np.uint32]
Mask = NDArray[np.bool_]
Sums = NDArray[np.uint64]

ETHERNET_BYTES = 14
IPV4_BYTES, IPV6_BYTES = 20, 40
ICMP, TCP, UDP, ICMPV6 = 1, 6, 17, 58
CHECKSUM_AT = {ICMP: 2, TCP: 16, UDP: 6, ICMPV6: 2}
"""Of each protocol that has one: where, from its own header's first byte (RFC 792, 9293, 768)."""
SHORTEST = {ICMP: 8, TCP: 20, UDP: 8, ICMPV6: 8}


def word_sums(words: NDArray[np.uint32]) -> Sums:
    """Return the sums of the rows of 32-bit words, in whatever byte order they are (RFC 1071)."""
    sums: Sums = words.sum(axis=1, dtype=np.uint64)
    return sums


def folded(sums: Sums) -> NDArray[np.uint16]:
    """Return the checksums of one's complement sums, in the byte order of their words."""
    sums = (sums & 0xFFFFFFFF) + (sums >> 32)
    for _ in range(3):
        sums = (sums & 0xFFFF) + (sums >> 16)
    checksums: NDArray[np.uint16] = (~sums & 0xFFFF).astype(np.uint16)
    return checksums


def checksum(data: bytes) -> int:
    """Return the Internet checksum of some bytes, as a number."""
    words = np.frombuffer(data + b"\0" * (len(data) % 2), ">u2")
    return int(folded(np.array([words.sum(dtype=np.uint64)], np.uint64))[0])
