"""Checksums of the Internet (RFC 1071 and 1624)."""

import struct


def checksum(data: bytes) -> int:
    """Return the Internet checksum of ``data`` (RFC 1071), 16 bits."""
    # A sum with end-around carry is a remainder of 0xffff, in which 0xffff itself stands for 0.
    total = int.from_bytes(data + bytes(len(data) & 1), "big")
    return 0xFFFF - (total % 0xFFFF or (0xFFFF if total else 0))


def transport_checksum(src: bytes, dst: bytes, proto: int, segment: bytes) -> int:
    """Return the checksum of a UDP, TCP or ICMPv6 segment with its pseudo-header.

    Args:
        src, dst: both of 4 or both of 16 bytes.
        segment: header (checksum 0) and data. UDP writes 0xffff where this returns 0.
    """
    shape = "!4s4sxBH" if len(src) == 4 else "!16s16s3xBI"
    if len(src) == 4:
        pseudo = struct.pack(shape, src, dst, proto, len(segment))
    else:
        pseudo = src + dst + struct.pack("!I3xB", len(segment), proto)
    return checksum(pseudo + segment)


def adjusted(old_sum: int, old: bytes, new: bytes) -> int:
    """Return a checksum after ``old`` became ``new`` (RFC 1624, equation 3); a wrong one stays so.

    Both begin at an even offset of what is summed and have an even length.
    """
    total = 0xFFFF - old_sum + len(old) // 2 * 0xFFFF
    total += int.from_bytes(new, "big") % 0xFFFF - int.from_bytes(old, "big") % 0xFFFF
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return 0xFFFF - total
