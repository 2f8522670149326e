"""This machine's addresses, and which of its UDP ports are free."""

import socket
from collections.abc import Callable, Iterable, Sequence
from contextlib import closing
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path
from typing import Literal

import psutil

from anabranch.core.errors import UnavailableError

_PASSING = 0x01 | 0x08 | 0x20 | 0x40
"""IFA_F_TEMPORARY, _DADFAILED, _DEPRECATED and _TENTATIVE of linux/if_addr.h."""
_ADDRESSES_6 = Path("/proc/thread-self/net/if_inet6")


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


def global_addresses_6(*, but: Callable[[str], bool] = lambda _device: False) -> list[IPv6Address]:
    """Return this machine's IPv6 addresses that reach beyond a link, the outward one first.

    Those that do not last are left out: temporary ones (RFC 8981), deprecated ones, and such as
    the link has not yet been asked about (RFC 4862 section 5.4). ``but`` as for
    :func:`local_addresses`.
    """
    try:
        lines = _ADDRESSES_6.read_text().splitlines()
    except OSError:  # a kernel without IPv6
        return []
    found = []
    for line in lines:
        address, _index, _prefix, _scope, flags, device = line.split()
        if not int(flags, 16) & _PASSING and not but(device):
            found.append(IPv6Address(int(address, 16)))
    outward = outward_address_6()
    usable = [a for a in found if not a.is_loopback and not a.is_link_local]
    return sorted(dict.fromkeys(usable), key=lambda address: address != outward)


def outward_address_6() -> IPv6Address | None:
    """Return the IPv6 address by which this machine reaches others, or None; sends nothing.

    The far address is from the range kept for documentation (RFC 3849). It may be a temporary one.
    """
    try:
        with closing(socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)) as probe:
            probe.connect(("2001:db8::1", 9))
            return IPv6Address(probe.getsockname()[0])
    except OSError:
        return None


def ipv6() -> Literal["on", "disabled", "absent"]:
    """Say whether this machine has IPv6: it may be disabled by sysctl, or the kernel without it.

    It is on where any device has it, whatever is set for all.
    """
    try:
        disabled = Path("/proc/sys/net/ipv6/conf/all/disable_ipv6").read_text().strip()
        addresses = _ADDRESSES_6.read_text()
    except OSError:
        return "absent"
    return "disabled" if disabled == "1" and not addresses else "on"


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
