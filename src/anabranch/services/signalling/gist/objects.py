"""GIST's objects as they stand in a message (RFC 5971, appendix A.2 and A.3)."""

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address, ip_address
from struct import Struct
from typing import Self

from anabranch.services.errors import ServicesError

Address = IPv4Address | IPv6Address

SID_BYTES = 16


class GistError(ServicesError):
    """Bytes that are no GIST message, or not one that this node reads.

    Attributes:
        code: the error code to answer with (RFC 5971, A.4.4).
        subcode: more of that.
    """

    def __init__(self, text: str, code: int = 1, subcode: int = 0) -> None:
        super().__init__(text)
        self.code = code
        self.subcode = subcode


class ObjectType(IntEnum):
    """IANA's registry "Object Types" of GIST."""

    MRI = 0
    SESSION_ID = 1
    NLI = 2
    STACK_PROPOSAL = 3
    STACK_CONFIGURATION = 4
    QUERY_COOKIE = 5
    RESPONDER_COOKIE = 6
    NAT_TRAVERSAL = 7
    NSLP_DATA = 8
    ERROR = 9
    HELLO_ID = 10


# What to do with an unknown object (A.2.1): the bits A and B.
MANDATORY, IGNORE, FORWARD = 0, 1, 2

_HEADER = Struct("!HH")
_MRI = Struct("!BBBB")
_PREFIXES = Struct("!BBBB")
_NLI = Struct("!BBBBI")
_STACK = Struct("!B3x")
_OPTION = Struct("!BBBB")
_CONFIGURATION = Struct("!B3xI")
_MAX_WORDS = 0xFFF

_PATH_COUPLED = 0
_UPSTREAM = 0x20  # D, of the bits P T F S A B D after the IP version


def write(kind: ObjectType, value: bytes) -> bytes:
    """Return an object: header, value, padding. Raises GistError if it is too long."""
    words, rest = divmod(len(value), 4)
    if rest:
        value += bytes(4 - rest)
        words += 1
    if words > _MAX_WORDS:
        raise GistError(f"{len(value)} bytes do not fit into one object", 8)
    return _HEADER.pack(kind, words) + value


def split(data: bytes, offset: int) -> Iterator[tuple[int, int, bytes]]:
    """Yield type, the bits A and B, and the value of each object. Raises GistError."""
    end = len(data)
    while offset < end:
        if offset + 4 > end:
            raise GistError("a message ends within an object's header", 1)
        first, second = _HEADER.unpack_from(data, offset)
        stop = offset + 4 + 4 * (second & _MAX_WORDS)
        if stop > end:
            raise GistError("a message ends within an object", 10, 0)
        yield first & 0xFFF, first >> 14, data[offset + 4 : stop]
        offset = stop


@dataclass(frozen=True, slots=True)
class Flow:
    """Message-Routing-Information of the path-coupled method (A.3.1.1).

    Attributes:
        source: the flow's source, a whole address.
        destination: where its packets, and the queries, go.
        upstream: the message travels against the flow.
    """

    source: Address
    destination: Address
    upstream: bool = False

    def encode(self) -> bytes:
        """Return the value of the object."""
        version = self.source.version
        length = self.source.max_prefixlen
        return (
            _MRI.pack(_PATH_COUPLED, 0, version << 4, _UPSTREAM if self.upstream else 0)
            + self.source.packed
            + self.destination.packed
            + _PREFIXES.pack(length, length, 0, 0)
        )

    @staticmethod
    def parse(value: bytes) -> "Flow":
        """Read the value of the object.

        Raises:
            GistError: another method, wrong length, or a flow between more than two hosts.
        """
        return _flow(value)


@lru_cache(maxsize=8192)  # a flow's messages come together
def _flow(value: bytes) -> Flow:
    if len(value) < 4:
        raise GistError("message routing information is too short", 10, 0)
    method, _nat, high, low = _MRI.unpack_from(value)
    if method != _PATH_COUPLED:
        raise GistError(f"message routing method {method} is not supported", 10, 1)
    size = {4: 4, 6: 16}.get(high >> 4)
    if size is None or len(value) < 8 + 2 * size:
        raise GistError("message routing information of a wrong length", 10, 0)
    source = ip_address(value[4 : 4 + size])
    destination = ip_address(value[4 + size : 4 + 2 * size])
    prefixes = value[4 + 2 * size], value[5 + 2 * size]
    if prefixes != (8 * size, 8 * size):
        raise GistError("a flow between networks is not supported", 12, 0)
    return Flow(source, destination, bool(low & _UPSTREAM))


@dataclass(frozen=True, slots=True)
class PeerInfo:
    """Network-Layer-Information (A.3.3): who sends, and for how long that holds.

    Attributes:
        identity: 1 to 40 bytes that name the node whatever its address.
        address: of the interface that the peer reaches.
        validity: of the routing state, milliseconds.
        ttl: the IP TTL that a Query was sent with.
    """

    identity: bytes
    address: Address
    validity: int
    ttl: int = 0

    def encode(self) -> bytes:
        """Return the value of the object."""
        identity = self.identity + bytes(-len(self.identity) % 4)
        head = _NLI.pack(len(self.identity), self.ttl, self.address.version << 4, 0, self.validity)
        return head + identity + self.address.packed

    @classmethod
    def parse(cls, value: bytes) -> Self:
        """Read the value of the object. Raises GistError."""
        if len(value) < _NLI.size:
            raise GistError("network layer information is too short", 10, 0)
        length, ttl, version, _, validity = _NLI.unpack_from(value)
        size = {4: 4, 6: 16}.get(version >> 4)
        begin = _NLI.size + length + -length % 4
        if size is None or not 1 <= length <= 40 or len(value) != begin + size:
            raise GistError("network layer information of a wrong length", 10, 0)
        address = ip_address(value[begin:])
        return cls(value[_NLI.size : _NLI.size + length], address, validity, ttl)


class Transport(IntEnum):
    """IANA's registry "MA-Protocol-IDs"."""

    TCP = 1
    TLS = 2


_TRANSPORTS = frozenset(map(int, Transport))


@dataclass(frozen=True, slots=True)
class Stack:
    """Stack-Proposal and Stack-Configuration-Data (A.3.4, A.3.5) together.

    Attributes:
        profiles: each the protocols of one way to connect, uppermost last: (TCP, TLS).
        port: where the responder listens for TCP; 0 in a Query.
        hold_time: for how long an association without traffic is kept, milliseconds.
    """

    profiles: tuple[tuple[Transport, ...], ...]
    port: int = 0
    hold_time: int = 0

    def encode(self) -> tuple[bytes, bytes]:
        """Return the values of both objects."""
        proposal = _STACK.pack(len(self.profiles))
        for profile in self.profiles:
            record = bytes((len(profile), *profile))
            proposal += record + bytes(-len(record) % 4)
        options = b""
        if self.port:
            tcp = _OPTION.pack(Transport.TCP, 0, 2, 0) + self.port.to_bytes(2, "big") + bytes(2)
            options = tcp
        return proposal, _CONFIGURATION.pack(1 if options else 0, self.hold_time) + options

    @classmethod
    def parse(cls, proposal: bytes, configuration: bytes) -> Self:
        """Read the values of both; protocols that we do not know are left out with their profile.

        Raises:
            GistError: a length is wrong.
        """
        try:
            profiles = cls._profiles(proposal)
            count, hold_time = _CONFIGURATION.unpack_from(configuration)
            port, offset = 0, _CONFIGURATION.size
            for _ in range(count):
                protocol, _profile, length, _flags = _OPTION.unpack_from(configuration, offset)
                data = configuration[offset + 4 : offset + 4 + length]
                if protocol == Transport.TCP and len(data) == 2:
                    port = int.from_bytes(data, "big")
                offset += 4 + length + -length % 4
        except (struct.error, IndexError) as error:
            raise GistError("a stack proposal of a wrong length", 10, 0) from error
        return cls(profiles, port, hold_time)

    @staticmethod
    def _profiles(proposal: bytes) -> tuple[tuple[Transport, ...], ...]:
        (count,) = _STACK.unpack_from(proposal)
        profiles, offset = [], _STACK.size
        for _ in range(count):
            length = proposal[offset]
            profile = proposal[offset + 1 : offset + 1 + length]
            if len(profile) != length:
                raise GistError("a stack proposal of a wrong length", 10, 0)
            if set(profile) <= _TRANSPORTS:
                profiles.append(tuple(map(Transport, profile)))
            offset += 1 + length + -(length + 1) % 4
        return tuple(profiles)
