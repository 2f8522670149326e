"""This machine's addresses, and which of its UDP ports are free."""

import socket
from collections.abc import Callable, Iterable, Sequence
from contextlib import closing
from ipaddress import IPv4Address, IPv6Address

import psutil

from anabranch.core.errors import UnavailableError


def outward_address() -> IPv4Address | None:
    """Return the address by which this machine reaches others, or None if it reaches nobody.

    Connecting a UDP socket sends nothing: the kernel only looks up the route. The far address
    is from the range kept for documentation (RFC 5737).
    """
    with closing(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as probe:
        try:
            probe.connect(("203.0.113.1", 9))
        except OSError:
            return None
        return IPv4Address(probe.getsockname()[0])


def local_addresses(*, but: Callable[[str], bool] = lambda _device: False) -> list[IPv4Address]:
    """Return this machine's IPv4 addresses but loopback's, the outward one first.

    ``but(device)`` says of which network devices none are wanted.
    """
    found = [
        IPv4Address(address.address)
        for device, addresses in psutil.net_if_addrs().items()
        for address in addresses
        if address.family is socket.AF_INET and not but(device)
    ]
    outward = outward_address()
    usable = [a for a in found if not a.is_loopback and not a.is_link_local]
    return sorted(usable, key=lambda address: address != outward)


def global_addresses_6() -> list[IPv6Address]:
    """Return this machine's IPv6 addresses that reach beyond a link."""
    found = [
        IPv6Address(address.address)
        for addresses in psutil.net_if_addrs().values()
        for address in addresses
        if address.family is socket.AF_INET6 and "%" not in address.address
    ]
    return [a for a in found if not a.is_loopback and not a.is_link_local]


def distinct(addresses: Iterable[IPv4Address | IPv6Address]) -> tuple[str, ...]:
    """Return each address once: two devices may have the same one."""
    return tuple(dict.fromkeys(map(str, addresses)))


def is_udp_port_free(port: int, address: str = "0.0.0.0") -> bool:
    """Return whether a UDP port is free at an address of this machine."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with closing(socket.socket(family, socket.SOCK_DGRAM)) as probe:
        try:
            probe.bind((address, port))
        except OSError:
            return False
    return True


def free_udp_port(addresses: Sequence[str], ports: range) -> int:
    """Return the first UDP port that is free at all of these addresses just now.

    Raises:
        UnavailableError: there is none, or one of the addresses is not this machine's.
    """
    for port in ports:
        if all(is_udp_port_free(port, address) for address in addresses):
            return port
    raise UnavailableError(f"none of the UDP ports {ports[0]} to {ports[-1]} is free")
