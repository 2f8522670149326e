"""Cutting bytes from a message, and the addresses inside it."""

import ipaddress
import re
import struct
from typing import Any

from anabranch.fabric.errors import MisuseError, ProtocolError

_MAC = re.compile(r"[0-9a-fA-F]{2}(?::[0-9a-fA-F]{2}){5}")


class Reader:
    """Reads ``data`` from front to back; every step beyond the end is a ProtocolError."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def __len__(self) -> int:
        """Bytes not yet taken."""
        return len(self._data) - self._at

    def take(self, count: int) -> bytes:
        """Return the next ``count`` bytes."""
        if count < 0 or count > len(self):
            raise ProtocolError(f"message cut short: {count} bytes announced, {len(self)} there")
        self._at += count
        return self._data[self._at - count : self._at]

    def unpack(self, shape: struct.Struct) -> tuple[Any, ...]:
        """Return the next ``shape.size`` bytes as the values of ``shape``."""
        return shape.unpack(self.take(shape.size))

    def part(self, count: int) -> "Reader":
        """Return a reader of the next ``count`` bytes alone."""
        return Reader(self.take(count))

    def rest(self) -> bytes:
        """Return everything left."""
        return self.take(len(self))


def padding(length: int) -> bytes:
    """Return the zero bytes that bring ``length`` to a multiple of 8."""
    return bytes(-length % 8)


def canonical_mac(text: str) -> str:
    """Return a MAC address in lower case, ``aa:bb:cc:dd:ee:ff``.

    Raises:
        MisuseError: it is none.
    """
    if not _MAC.fullmatch(text):
        raise MisuseError(f"{text[:40]!r} is not a MAC address")
    return text.lower()


def canonical_ipv4(text: str) -> str:
    """Return a plain IPv4 address as written by everybody.

    Raises:
        MisuseError: it is none.
    """
    try:
        return str(ipaddress.IPv4Address(text))
    except ValueError:
        raise MisuseError(f"{text[:40]!r} is not an IPv4 address") from None


def canonical_ipv4_mask(text: str) -> str:
    """Return an IPv4 match in one spelling: ``a.b.c.d``, ``a.b.c.d/n`` or ``a.b.c.d/m.m.m.m``.

    Bits outside the mask are zero and a mask of 32 bits is left out.

    Raises:
        MisuseError: it is none of the three.
    """
    address, slash, mask = text.partition("/")
    if not slash:
        return canonical_ipv4(address)
    if mask.isdecimal() and len(mask) <= 2 and int(mask) <= 32:
        bits = (0xFFFFFFFF << (32 - int(mask))) & 0xFFFFFFFF
    else:
        bits = int(ipaddress.IPv4Address(canonical_ipv4(mask)))
    value = int(ipaddress.IPv4Address(canonical_ipv4(address))) & bits
    return ipv4_text(value.to_bytes(4, "big"), bits.to_bytes(4, "big"))


def mac_bytes(text: str) -> bytes:
    """Return the 6 bytes of a canonical MAC address."""
    return bytes.fromhex(text.replace(":", ""))


def mac_text(raw: bytes) -> str:
    """Return 6 bytes as a canonical MAC address."""
    return raw.hex(":")


def ipv4_bytes(text: str) -> tuple[bytes, bytes | None]:
    """Return a canonical IPv4 match as the address and its mask (None: all 32 bits)."""
    address, slash, mask = text.partition("/")
    value = ipaddress.IPv4Address(address).packed
    if not slash:
        return value, None
    if "." in mask:
        return value, ipaddress.IPv4Address(mask).packed
    bits = (0xFFFFFFFF << (32 - int(mask))) & 0xFFFFFFFF
    return value, bits.to_bytes(4, "big")


def ipv4_text(raw: bytes, mask: bytes | None = None) -> str:
    """Return an address and its mask as a canonical IPv4 match; the inverse of ipv4_bytes."""
    address = str(ipaddress.IPv4Address(raw))
    if mask is None or mask == b"\xff\xff\xff\xff":
        return address
    bits = int.from_bytes(mask, "big")
    length = bits.bit_count()
    if bits == (0xFFFFFFFF << (32 - length)) & 0xFFFFFFFF:
        return f"{address}/{length}"
    return f"{address}/{ipaddress.IPv4Address(mask)}"
