"""STUN messages as a server reads and writes them (RFC 8489, 5 and 14; attributes of RFC 8656).

Attributes keep their order, their number and their unknown members: a server has to answer for
each that it does not understand, and may be given several of one kind.
"""

import hmac
import struct
from binascii import crc32
from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntEnum
from hashlib import md5
from ipaddress import IPv4Address, IPv6Address, ip_address

from anabranch.services.errors import ServicesError

COOKIE = 0x2112A442
HEADER_BYTES = 20
_INTEGRITY_BYTES, _FINGERPRINT_BYTES = 24, 8
_FINGERPRINT_XOR = 0x5354554E
_SOFTWARE = b"anabranch"
Place = tuple[str, int]
"""IP address and port."""


class StunError(ServicesError):
    """Bytes that are no STUN message, or an attribute that is malformed."""


class Method(IntEnum):
    """What is asked for (RFC 8489, 18.2; RFC 8656, 17)."""

    BINDING = 1
    ALLOCATE = 3
    REFRESH = 4
    SEND = 6
    DATA = 7
    CREATE_PERMISSION = 8
    CHANNEL_BIND = 9


class Kind(IntEnum):
    """The class of a message: its two bits, where they stand in the type."""

    REQUEST = 0x000
    INDICATION = 0x010
    SUCCESS = 0x100
    ERROR = 0x110


class Attribute(IntEnum):
    """Those that are understood. From 0x8000 on an unknown one may be passed over."""

    USERNAME = 0x0006
    MESSAGE_INTEGRITY = 0x0008
    ERROR_CODE = 0x0009
    UNKNOWN_ATTRIBUTES = 0x000A
    CHANNEL_NUMBER = 0x000C
    LIFETIME = 0x000D
    XOR_PEER_ADDRESS = 0x0012
    DATA = 0x0013
    REALM = 0x0014
    NONCE = 0x0015
    XOR_RELAYED_ADDRESS = 0x0016
    REQUESTED_ADDRESS_FAMILY = 0x0017
    EVEN_PORT = 0x0018
    REQUESTED_TRANSPORT = 0x0019
    XOR_MAPPED_ADDRESS = 0x0020
    RESERVATION_TOKEN = 0x0022
    SOFTWARE = 0x8022
    FINGERPRINT = 0x8028


_KNOWN = frozenset(Attribute)
Attributes = Iterable[tuple[int, bytes]]


@dataclass(frozen=True, slots=True)
class Message:
    """What was received.

    Attributes:
        attributes: type and value, as far as they are under the integrity check, if there is one.
        signed: the bytes that MESSAGE-INTEGRITY covers, and its value; or None.
    """

    method: int
    kind: Kind
    transaction: bytes
    attributes: tuple[tuple[int, bytes], ...]
    signed: tuple[bytes, bytes] | None = None

    def get(self, attribute: Attribute) -> bytes | None:
        """Return the first value of an attribute, or None."""
        return next((value for kind, value in self.attributes if kind == attribute), None)

    def all(self, attribute: Attribute) -> list[bytes]:
        return [value for kind, value in self.attributes if kind == attribute]

    def unknown(self) -> list[int]:
        """Return the attributes that had to be understood and are not."""
        return [kind for kind, _ in self.attributes if kind < 0x8000 and kind not in _KNOWN]

    def is_signed_by(self, key: bytes) -> bool:
        """Check MESSAGE-INTEGRITY."""
        if self.signed is None:
            return False
        data, value = self.signed
        return hmac.compare_digest(hmac.digest(key, data, "sha1"), value)

    def number(self, attribute: Attribute) -> int | None:
        """Return a 32-bit value, or None. Raises StunError."""
        value = self.get(attribute)
        if value is None:
            return None
        if len(value) != 4:
            raise StunError(f"{attribute.name} has 4 bytes")
        return int.from_bytes(value)

    def text(self, attribute: Attribute) -> str | None:
        """Return a text, or None. Raises StunError."""
        value = self.get(attribute)
        try:
            return None if value is None else value.decode()
        except UnicodeDecodeError as error:
            raise StunError(f"{attribute.name} is not UTF-8") from error


def parse(data: bytes) -> Message:
    """Read a message.

    Raises:
        StunError: it is none.
    """
    if len(data) < HEADER_BYTES or data[0] & 0xC0:
        raise StunError("no STUN header")
    kind, length, cookie = struct.unpack_from("!HHI", data)
    if cookie != COOKIE or length % 4 or length != len(data) - HEADER_BYTES:
        raise StunError("no STUN message: the cookie or the length is wrong")
    attributes: list[tuple[int, bytes]] = []
    signed = None
    at = HEADER_BYTES
    while at < len(data):
        number, size = struct.unpack_from("!HH", data, at)
        end = at + 4 + size
        if end > len(data):
            raise StunError("an attribute is longer than the message")
        value = data[at + 4 : end]
        if number == Attribute.FINGERPRINT:
            _check_fingerprint(data, at, value)
        elif signed is not None:
            pass  # behind the integrity check: anybody may have written it (RFC 8489, 14.5)
        elif number == Attribute.MESSAGE_INTEGRITY:
            if size != _INTEGRITY_BYTES - 4:
                raise StunError("MESSAGE-INTEGRITY has 20 bytes")
            signed = _with_length(data[:at], at + _INTEGRITY_BYTES), value
        else:
            attributes.append((number, value))
        at = end + -size % 4
    method = (kind & 0x000F) | (kind & 0x00E0) >> 1 | (kind & 0x3E00) >> 2
    return Message(method, Kind(kind & 0x110), data[8:20], tuple(attributes), signed)


def _check_fingerprint(data: bytes, at: int, value: bytes) -> None:
    expected = crc32(data[:at]) ^ _FINGERPRINT_XOR
    if at + _FINGERPRINT_BYTES != len(data) or value != expected.to_bytes(4):
        raise StunError("the fingerprint is wrong")


def _with_length(data: bytes, end: int) -> bytes:
    return data[:2] + (end - HEADER_BYTES).to_bytes(2) + data[4:]


def encode(
    method: int, kind: Kind, transaction: bytes, attributes: Attributes, key: bytes | None = None
) -> bytes:
    """Write a message; with a key it ends with MESSAGE-INTEGRITY."""
    parts = [b""]
    for number, value in attributes:
        parts.append(struct.pack("!HH", number, len(value)) + value + bytes(-len(value) % 4))
    bits = (method & 0x000F) | (method & 0x0070) << 1 | (method & 0x0F80) << 2 | kind
    body = b"".join(parts)
    length = len(body) + (_INTEGRITY_BYTES if key is not None else 0)
    message = struct.pack("!HHI", bits, length, COOKIE) + transaction + body
    if key is not None:
        value = hmac.digest(key, message, "sha1")
        message += struct.pack("!HH", Attribute.MESSAGE_INTEGRITY, len(value)) + value
    return message


def answer(request: Message, attributes: Attributes, key: bytes | None = None) -> bytes:
    """Return a success response."""
    more = [*attributes, (int(Attribute.SOFTWARE), _SOFTWARE)]
    return encode(request.method, Kind.SUCCESS, request.transaction, more, key)


def refusal(
    request: Message, code: int, reason: str, attributes: Attributes = (), key: bytes | None = None
) -> bytes:
    """Return an error response."""
    error = struct.pack("!HBB", 0, code // 100, code % 100) + reason.encode()
    more = [(int(Attribute.ERROR_CODE), error), *attributes]
    return encode(request.method, Kind.ERROR, request.transaction, more, key)


def address(place: Place, transaction: bytes) -> bytes:
    """Return the value of an XOR-...-ADDRESS attribute."""
    host = ip_address(place[0])
    mask = (COOKIE.to_bytes(4) + transaction)[: len(host.packed)]
    family = 1 if host.version == 4 else 2
    mixed = bytes(a ^ b for a, b in zip(host.packed, mask, strict=True))
    return struct.pack("!BBH", 0, family, place[1] ^ (COOKIE >> 16)) + mixed


def read_address(value: bytes, transaction: bytes) -> Place:
    """Read the value of an XOR-...-ADDRESS attribute. Raises StunError."""
    size = {1: 4, 2: 16}.get(value[1] if len(value) > 1 else 0)
    if size is None or len(value) != 4 + size:
        raise StunError("no address")
    mask = (COOKIE.to_bytes(4) + transaction)[:size]
    packed = bytes(a ^ b for a, b in zip(value[4:], mask, strict=True))
    host = IPv4Address(packed) if size == 4 else IPv6Address(packed)
    return str(host), int.from_bytes(value[2:4]) ^ (COOKIE >> 16)


def long_term_key(username: str, realm: str, password: str) -> bytes:
    """Return the key of a long-term credential (RFC 8489, 9.2.2)."""
    # MD5 is the protocol's; what it protects is an HMAC.
    return md5(f"{username}:{realm}:{password}".encode(), usedforsecurity=False).digest()
