"""UDP sockets for GIST: with the original destination, the TTL, and ICMP errors with their author.

Linux: ip(7), ipv6(7), linux/errqueue.h.
"""

import socket
import struct
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address, ip_address

from anabranch.services.errors import ServicesError
from anabranch.services.signalling.gist.events import Datagram
from anabranch.services.signalling.gist.objects import Address

_MAX_DATAGRAM = 65535
_BATCH = 64  # datagrams read before anything else gets its turn
_RECEIVE_BUFFER = 8 * 1024 * 1024
_ERROR = struct.Struct("=IBBBxII")  # struct sock_extended_err
_ROUTES_FOR = 30.0  # seconds for which our address towards a peer is remembered


class PortTakenError(ServicesError):
    """The sockets that a node or sender needs cannot be had."""


@dataclass(frozen=True, slots=True)
class _Family:
    family: socket.AddressFamily
    level: int
    transparent: int
    original: int
    receive_ttl: int
    ttl: int
    errors: int
    unreachable: tuple[int, int]  # ICMP type and code of "port unreachable"


_FAMILIES = {
    4: _Family(socket.AF_INET, socket.IPPROTO_IP, 19, 20, 12, 2, 11, (3, 3)),
    6: _Family(socket.AF_INET6, socket.IPPROTO_IPV6, 75, 74, 51, 52, 25, (1, 4)),
}


@dataclass(frozen=True, slots=True)
class Arrived:
    """A datagram; ``destination`` is None if the socket is not told."""

    data: bytes
    source: tuple[Address, int]
    destination: tuple[Address, int] | None
    ttl: int


@dataclass(frozen=True, slots=True)
class Unreachable:
    """An ICMP "port unreachable" with what it quotes."""

    offender: Address
    quoted: bytes


class DatagramSocket:
    """One UDP socket, non-blocking."""

    def __init__(self, version: int, port: int, *, transparent: bool) -> None:
        """Open it on ``port`` (0: any) of every address of an IP version.

        ``transparent``: diverted packets come to it (needs CAP_NET_ADMIN).

        Raises:
            PortTakenError: it cannot be had.
        """
        self._of = _FAMILIES[version]
        self.socket = socket.socket(self._of.family, socket.SOCK_DGRAM)
        try:
            if version == 6:
                self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            if transparent:
                self.socket.setsockopt(self._of.level, self._of.transparent, 1)
                self.socket.setsockopt(self._of.level, self._of.original, 1)
            self.socket.setsockopt(self._of.level, self._of.receive_ttl, 1)
            self.socket.setsockopt(self._of.level, self._of.errors, 1)
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _RECEIVE_BUFFER)
            self.socket.bind(("", port))
        except OSError as error:
            self.socket.close()
            raise PortTakenError(f"UDP port {port}, IPv{version}: {error.strerror}") from error
        self.socket.setblocking(False)
        self._room = memoryview(bytearray(_MAX_DATAGRAM))

    def receive(self) -> Iterator[Arrived]:
        """Yield what is there, at most 64."""
        for _ in range(_BATCH):
            try:
                size, ancillary, _flags, source = self.socket.recvmsg_into((self._room,), 256)
            except BlockingIOError:
                return
            except OSError:
                continue  # an ICMP error's: the error queue has all of it
            destination, ttl = None, 64
            for level, kind, value in ancillary:
                if level == self._of.level and kind == self._of.original:
                    destination = _address(value)
                elif level == self._of.level and kind in (self._of.ttl, self._of.receive_ttl):
                    ttl = int.from_bytes(value[:4], "little")
            data = bytes(self._room[:size])
            yield Arrived(data, (_parsed(source[0]), source[1]), destination, ttl)

    def errors(self) -> Iterator[Unreachable]:
        """Yield the ICMP errors that came, at most 64."""
        for _ in range(_BATCH):
            try:
                data, ancillary, _flags, _to = self.socket.recvmsg(
                    _MAX_DATAGRAM, 512, socket.MSG_ERRQUEUE
                )
            except OSError:
                return
            for level, kind, value in ancillary:
                if level != self._of.level or kind != self._of.errors:
                    continue
                _errno, origin, icmp_type, code, *_ = _ERROR.unpack_from(value)
                if origin in (2, 3) and (icmp_type, code) == self._of.unreachable:
                    yield Unreachable(_address(value[_ERROR.size :])[0], data)

    def send(self, datagram: Datagram) -> None:
        """Send, or drop it as any router may: GIST repeats what matters."""
        address, port = datagram.destination
        if datagram.source is not None:
            self._send_as(datagram, *datagram.source)
            return
        for _ in range(2):  # an earlier ICMP error is reported here, and nothing is sent
            with suppress(OSError):
                self.socket.sendto(datagram.data, (str(address), port))
                return

    def _send_as(self, datagram: Datagram, address: Address, port: int) -> None:
        """Send in another host's name: a packet of its own that goes on its way."""
        with suppress(OSError), socket.socket(self._of.family, socket.SOCK_DGRAM) as sender:
            sender.setsockopt(self._of.level, self._of.transparent, 1)
            sender.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sender.setsockopt(
                self._of.level,
                socket.IP_TTL if self._of is _FAMILIES[4] else socket.IPV6_UNICAST_HOPS,
                datagram.ttl or 64,
            )
            sender.bind((str(address), port))
            sender.sendto(datagram.data, (str(datagram.destination[0]), datagram.destination[1]))

    def close(self) -> None:
        self.socket.close()


class OwnAddresses:
    """By which of our addresses a peer reaches us, and which addresses are ours."""

    def __init__(self) -> None:
        self._towards: dict[Address, Address] = {}
        self._local: dict[Address, bool] = {}
        self._forget_at = 0.0

    def towards(self, peer: Address) -> Address:
        """Return our address on the route to ``peer``; unspecified if there is none."""
        self._forget()
        found = self._towards.get(peer)
        if found is None:
            of = _FAMILIES[peer.version]
            with socket.socket(of.family, socket.SOCK_DGRAM) as probe:
                try:
                    probe.connect((str(peer), 9))
                    found = _parsed(probe.getsockname()[0])
                except OSError:
                    found = ip_address("0.0.0.0" if peer.version == 4 else "::")
            self._towards[peer] = found
        return found

    def has(self, address: Address) -> bool:
        """Return whether ``address`` is one of this machine's."""
        self._forget()
        found = self._local.get(address)
        if found is None:
            of = _FAMILIES[address.version]
            with socket.socket(of.family, socket.SOCK_DGRAM) as probe:
                try:
                    probe.bind((str(address), 0))
                    found = True
                except OSError:
                    found = False
            self._local[address] = found
        return found

    def _forget(self) -> None:
        now = time.monotonic()
        if now >= self._forget_at or len(self._towards) + len(self._local) > 10_000:
            self._towards.clear()
            self._local.clear()
            self._forget_at = now + _ROUTES_FOR


@lru_cache(maxsize=4096)
def _parsed(text: str) -> Address:
    return ip_address(text.partition("%")[0])


@lru_cache(maxsize=4096)
def _address(sockaddr: bytes) -> tuple[Address, int]:
    """Read a struct sockaddr_in or sockaddr_in6."""
    (family,) = struct.unpack_from("=H", sockaddr)
    port = int.from_bytes(sockaddr[2:4], "big")
    if family == socket.AF_INET6:
        return IPv6Address(sockaddr[8:24]), port
    return IPv4Address(sockaddr[4:8]), port
