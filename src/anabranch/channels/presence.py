"""Whether somebody still listens at a plain seat's receiver, as far as anybody can tell. Pure.

Who ends a player tells nobody. But its machine then refuses each packet (ICMP, port unreachable,
RFC 792), and a machine that is off makes this one say so itself (host unreachable).
"""

import socket
from collections.abc import Collection
from dataclasses import dataclass

from anabranch.channels.seats import PlainSeat

PATIENCE_S = 6.0
"""For so long a receiver may refuse: one that is restarted, or not yet started, is no gone one."""
PAUSE_S = 5.0
"""Refusals so far apart have nothing to do with each other. Kernels send one a second, at most;
and one in three seconds where nobody answers to the address."""

_HEADER = 20
_UNREACHABLE, _HOST, _PORT = 3, 1, 3
_UDP = 17
_HEADER_6 = 40
_UNREACHABLE_6, _ADDRESS_6, _PORT_6 = 1, 3, 4
"""RFC 4443, section 3.1."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """A receiver's machine, or the last one on the way to it, does not take what it was sent."""

    address: str
    port: int


def refusal_of(packet: bytes, own: Collection[str]) -> Refusal | None:
    """Return what an IPv4 packet with ICMP says of a receiver; None: nothing that counts.

    Only the receiver's own machine says that nobody listens at a port there; and only this
    machine, by one of its ``own`` addresses, that there is no such machine: others could say
    anything of a stranger.
    """
    inner = (packet[0] & 15) * 4 + 8 if packet else 0
    if len(packet) < inner + _HEADER or inner < _HEADER + 8 or packet[inner - 8] != _UNREACHABLE:
        return None
    transport = inner + (packet[inner] & 15) * 4
    if packet[inner] >> 4 != 4 or packet[inner + 9] != _UDP or len(packet) < transport + 4:
        return None
    sender, code = _text(packet[12:16]), packet[inner - 7]
    address = _text(packet[inner + 16 : inner + 20])
    port = int.from_bytes(packet[transport + 2 : transport + 4], "big")
    if (code == _PORT and sender == address) or (code == _HOST and sender in own):
        return Refusal(address, port)
    return None


def refusal_of_6(message: bytes, sender: str, own: Collection[str]) -> Refusal | None:
    """Return what an ICMPv6 message says of a receiver, as :func:`refusal_of` does for IPv4.

    Args:
        message: what follows the IPv6 header.
        sender: whose it is, in the shortest form.
    """
    about = message[8:]
    if len(about) < _HEADER_6 + 4 or message[0] != _UNREACHABLE_6:
        return None
    if about[0] >> 4 != 6 or about[6] != _UDP:  # we send no extension headers
        return None
    code, address = message[1], socket.inet_ntop(socket.AF_INET6, about[24:40])
    port = int.from_bytes(about[_HEADER_6 + 2 : _HEADER_6 + 4], "big")
    if (code == _PORT_6 and sender == address) or (code == _ADDRESS_6 and sender in own):
        return Refusal(address, port)
    return None


def _text(address: bytes) -> str:
    return ".".join(map(str, address))


class Refusals:
    """How long each seat's receiver has refused what it is sent. Times: seconds, monotonic."""

    def __init__(self) -> None:
        self._spans: dict[str, tuple[float, float]] = {}

    def refused(self, seat_id: str, now: float) -> bool:
        """Note a refusal; say whether the receiver has gone."""
        first, last = self._spans.get(seat_id, (now, now))
        if now - last > PAUSE_S:
            first = now
        self._spans[seat_id] = first, now
        return now - first >= PATIENCE_S

    def forget(self, seat_id: str) -> None:
        """Forget a seat that has ended, or is somewhere else now."""
        self._spans.pop(seat_id, None)


def has_expired(seat: PlainSeat, now: float) -> bool:
    """Say whether a seat's lease has ended; ``now`` is the time of day."""
    return seat.ttl_s is not None and now > seat.renewed + seat.ttl_s
