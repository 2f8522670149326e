"""Cutting bytes from a message, and the addresses inside it."""

import ipaddress
import re
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from socket import AF_INET, inet_ntop, inet_pton
from typing import Any

from anabranch.fabric.errors import MisuseError, ProtocolError

MAX_LENGTH = 0xFFFF  # of one message, header included
_PROPERTY = struct.Struct("!HH")
_MAC = re.compile(r"[0-9a-fA-F]{2}(?::[0-9a-fA-F]{2}){5}")


class Reader:
    """Reads ``data`` from front to back; every step beyond the end is a ProtocolError."""

    __slots__ = ("_at", "_data", "_end")

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0
        self._end = len(data)

    def __len__(self) -> int:
        """Bytes not yet taken."""
        return self._end - self._at

    def take(self, count: int) -> bytes:
        """Return the next ``count`` bytes."""
        at = self._at
        if not 0 <= count <= self._end - at:
            raise ProtocolError(f"message cut short: {count} bytes announced, {len(self)} there")
        self._at = at + count
        return self._data[at : at + count]

    def unpack(self, shape: struct.Struct) -> tuple[Any, ...]:
        """Return the next ``shape.size`` bytes as the values of ``shape``."""
        at = self._at
        if self._end - at < shape.size:
            raise ProtocolError(f"message cut short: {shape.size} bytes needed, {len(self)} there")
        self._at = at + shape.size
        return shape.unpack_from(self._data, at)

    def part(self, count: int) -> "Reader":
        """Return a reader of the next ``count`` bytes alone."""
        return Reader(self.take(count))

    def rest(self) -> bytes:
        """Return everything left."""
        return self.take(len(self))

    def properties(self) -> Iterator[tuple[int, bytes]]:
        """Read type-length-value properties up to the end, each padded to a multiple of 8."""
        while len(self):
            kind, length = self.unpack(_PROPERTY)
            value = self.take(length - _PROPERTY.size)
            self.take(min(-length % 8, len(self)))
            yield kind, value


def duration_parts(seconds: float) -> tuple[int, int]:
    """Return a time as whole seconds and nanoseconds."""
    whole = int(seconds)
    return whole, min(round((seconds - whole) * 1e9), 999_999_999)


def text_of(raw: bytes) -> str:
    """Return the text before the first zero byte of a fixed-width field."""
    return raw.split(b"\0", 1)[0].decode(errors="replace")


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
    return inet_ntop(AF_INET, _ipv4_raw(text))


def canonical_ipv6(text: str) -> str:
    """Return a plain IPv6 address in its shortest spelling, without a zone.

    Raises:
        MisuseError: it is none.
    """
    return ipv6_text(_ipv6_raw(text))


def mac_bytes(text: str) -> bytes:
    """Return the 6 bytes of a canonical MAC address."""
    return bytes.fromhex(text.replace(":", ""))


def mac_text(raw: bytes) -> str:
    """Return 6 bytes as a canonical MAC address."""
    return raw.hex(":")


def ipv4_text(raw: bytes) -> str:
    """Return 4 bytes as a canonical IPv4 address."""
    return inet_ntop(AF_INET, raw)


def ipv6_text(raw: bytes) -> str:
    """Return 16 bytes as a canonical IPv6 address."""
    return str(ipaddress.IPv6Address(raw))


def _mac_raw(text: str) -> bytes:
    return mac_bytes(canonical_mac(text))


def _ipv4_raw(text: str) -> bytes:
    try:
        return inet_pton(AF_INET, text)
    except (OSError, ValueError):
        raise MisuseError(f"{text[:40]!r} is not an IPv4 address") from None


def _ipv6_raw(text: str) -> bytes:
    try:
        if "%" not in text:
            return ipaddress.IPv6Address(text).packed
    except ValueError:
        pass
    raise MisuseError(f"{text[:60]!r} is not an IPv6 address")


@dataclass(frozen=True, slots=True)
class Addressing:
    """One kind of address and of its masks, as text and as bytes.

    Attributes:
        plain: the canonical spelling of an address without mask.
        to_bytes, to_text: the two directions, without mask.
        prefixes: a mask of leading ones is written as their number.
    """

    width: int
    plain: Callable[[str], str]
    to_bytes: Callable[[str], bytes]
    to_text: Callable[[bytes], str]
    prefixes: bool

    def canonical(self, text: str) -> str | None:
        """Return ``address``, ``address/bits`` or ``address/mask`` in one spelling.

        Bits outside of the mask become zero and a mask of ones is left out; None stands for a
        mask of zeros.

        Raises:
            MisuseError: it is none of the three.
        """
        if "/" not in text:
            return self.plain(text)
        return self.join(*self.split(text))

    def split(self, text: str) -> tuple[bytes, bytes | None]:
        """Return the address and its mask (None: there is none). Raises as :meth:`canonical`."""
        address, slash, mask = text.partition("/")
        raw = self.to_bytes(address)
        if not slash:
            return raw, None
        if not (mask.isascii() and mask.isdecimal()):
            return raw, self.to_bytes(mask)
        bits = 8 * self.width
        if len(mask) > 3 or int(mask) > bits:
            raise MisuseError(f"{text[:60]!r} has a mask of more than {bits} bits")
        return raw, _leading_ones(int(mask), bits).to_bytes(self.width, "big")

    def join(self, raw: bytes, mask: bytes | None) -> str | None:
        """Return an address and its mask as canonical text; the inverse of :meth:`split`."""
        if mask is None:
            return self.to_text(raw)
        ones = int.from_bytes(mask, "big")
        count, bits = ones.bit_count(), 8 * self.width
        if not count:
            return None
        address = self.to_text((int.from_bytes(raw, "big") & ones).to_bytes(self.width, "big"))
        if count == bits:
            return address
        if self.prefixes and ones == _leading_ones(count, bits):
            return f"{address}/{count}"
        return f"{address}/{self.to_text(mask)}"


def _leading_ones(count: int, bits: int) -> int:
    return (1 << bits) - (1 << (bits - count))


MAC = Addressing(6, canonical_mac, _mac_raw, mac_text, prefixes=False)
IPV4 = Addressing(4, canonical_ipv4, _ipv4_raw, ipv4_text, prefixes=True)
IPV6 = Addressing(16, canonical_ipv6, _ipv6_raw, ipv6_text, prefixes=True)
