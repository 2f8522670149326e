"""The way out of a leaf for streams that nobody asks for packet by packet: plain seats.

Thin over nft, and a raw socket that hears who does not take what it is sent.
"""

import asyncio
import socket
import struct
from collections.abc import Collection
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path

from anabranch.host.forwarding import FAMILIES, Family, family_of
from anabranch.host.network import NetworkError, entered, run_tool

_TABLE = "anabranch_receivers"
_TTL = 64
_SOL_RAW, _ICMP_FILTER, _UNREACHABLE = 255, 1, 3
_ICMP6_FILTER, _UNREACHABLE_6 = 1, 1
"""Of linux/icmp.h and linux/icmpv6.h; Python's socket module has none of them."""


def let_streams_out(
    namespace: str,
    inner: str,
    outer: str,
    source: IPv4Address,
    port: int,
    *,
    source_6: IPv6Address | None = None,
) -> None:
    """Have a namespace pass on UDP from one device to another, to exactly the receivers it is told.

    What leaves says that it comes from ``source`` and ``port``. Nothing is remembered of a stream:
    each packet is rewritten by itself. See :func:`set_receivers`.

    Args:
        namespace: the table goes with it.
        inner, outer: the devices; nothing else that comes by ``inner`` is passed on.
        source: the outer device's own address.
        port: no one of the namespace's own; what is sent back to it is dropped.
        source_6: the outer device's own IPv6 address; None: nothing goes out by IPv6.

    Raises:
        NetworkError: the kernel refused something.
    """
    tables = _way_out("ip", inner, outer, source, port)
    if source_6 is not None:
        tables += _way_out("ip6", inner, outer, source_6, port)
    run_tool("nft", "-f", "-", namespace=namespace, stdin=tables)
    with entered(namespace):
        Path(f"/proc/sys/net/ipv4/conf/{inner}/forwarding").write_text("1")
        if source_6 is not None:
            _pass_on_6(inner)


def _way_out(
    family: Family, inner: str, outer: str, source: IPv4Address | IPv6Address, port: int
) -> str:
    hops = "ip ttl" if family == "ip" else "ip6 hoplimit"
    # What the kernel says of itself (multicast listener reports) has no business on the overlay.
    quiet = f"""chain output {{
    type filter hook output priority 0; policy accept;
    oifname "{inner}" drop
  }}"""
    return f"""
table {family} {_TABLE} {{
  set places {{ type {"ipv4" if family == "ip" else "ipv6"}_addr . inet_service; size 65535; }}
  chain forward {{
    type filter hook forward priority 0; policy accept;
    iifname "{inner}" oifname "{outer}" {family} daddr . udp dport @places {hops} set {_TTL} \
      {family} saddr set {source} udp sport set {port} accept
    iifname "{inner}" drop
  }}
  chain input {{
    type filter hook input priority 0; policy accept;
    iifname "{outer}" udp dport {port} drop
  }}
  {quiet if family == "ip6" else ""}
}}
"""


def _pass_on_6(device: str) -> None:
    """Have the namespace that this thread is in forward IPv6 that comes in by a device.

    The device has no address. The kernel forwards between all devices or none, whatever is
    written for one (ip-sysctl.rst).
    """
    settings = Path("/proc/sys/net/ipv6/conf")
    wanted = {
        f"{device}/addr_gen_mode": "1",  # first: enabled it would draw an address
        f"{device}/accept_ra": "0",
        f"{device}/disable_ipv6": "0",
        "all/forwarding": "1",
    }
    for name, value in wanted.items():
        try:
            (settings / name).write_text(value)
        except OSError as error:
            raise NetworkError(f"{device} cannot take IPv6: {error.strerror}") from error


async def set_receivers(
    namespace: str, places: Collection[tuple[str, int]], families: Collection[Family] = FAMILIES[:1]
) -> None:
    """Have :func:`let_streams_out` let streams out to exactly these addresses and UDP ports.

    Args:
        families: that it lets out; places of others are passed over.

    Raises:
        NetworkError: the namespace or its table is gone.
    """
    lines = []
    for family in families:
        lines.append(f"flush set {family} {_TABLE} places")
        mine = [place for place in sorted(places) if family_of(place[0]) == family]
        if mine:
            elements = ", ".join(f"{address} . {port}" for address, port in mine)
            lines.append(f"add element {family} {_TABLE} places {{ {elements} }}")
    await asyncio.to_thread(
        run_tool, "nft", "-f", "-", namespace=namespace, stdin="\n".join(lines) + "\n"
    )


def unreachable_socket(namespace: str, family: Family = "ip") -> socket.socket:
    """Return a raw socket that gets the ICMP messages "destination unreachable" of a namespace.

    Of IPv4 it gets whole packets, of IPv6 what follows the header (RFC 3542, section 3).

    Raises:
        NetworkError: there is no such namespace.
    """
    with entered(namespace):
        if family == "ip":
            made = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)
        else:
            made = socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6)
    if family == "ip":
        blocked = struct.pack("I", ~(1 << _UNREACHABLE) & 0xFFFFFFFF)
        made.setsockopt(_SOL_RAW, _ICMP_FILTER, blocked)
    else:
        blocked = struct.pack("I", ~(1 << _UNREACHABLE_6) & 0xFFFFFFFF) + b"\xff" * 28
        made.setsockopt(socket.IPPROTO_ICMPV6, _ICMP6_FILTER, blocked)
    made.setblocking(False)
    return made
