"""The way out of a leaf for streams that nobody asks for packet by packet: plain seats.

Thin over nft, and a raw socket that hears who does not take what it is sent.
"""

import asyncio
import socket
import struct
from collections.abc import Collection
from ipaddress import IPv4Address
from pathlib import Path

from anabranch.host.network import entered, run_tool

_TABLE = "anabranch_receivers"
_TTL = 64
_SOL_RAW, _ICMP_FILTER, _UNREACHABLE = 255, 1, 3
"""Of linux/icmp.h; Python's socket module has none of them."""


def let_streams_out(namespace: str, inner: str, outer: str, source: IPv4Address, port: int) -> None:
    """Have a namespace pass on UDP from one device to another, to exactly the receivers it is told.

    What leaves says that it comes from ``source`` and ``port``. Nothing is remembered of a stream:
    each packet is rewritten by itself. See :func:`set_receivers`.

    Args:
        namespace: the table goes with it.
        inner, outer: the devices; nothing else that comes by ``inner`` is passed on.
        source: the outer device's own address.
        port: no one of the namespace's own; what is sent back to it is dropped.
    """
    run_tool("nft", "-f", "-", namespace=namespace, stdin=f"""
table ip {_TABLE} {{
  set places {{ type ipv4_addr . inet_service; size 65535; }}
  chain forward {{
    type filter hook forward priority 0; policy accept;
    iifname "{inner}" oifname "{outer}" ip daddr . udp dport @places ip ttl set {_TTL} \
      ip saddr set {source} udp sport set {port} accept
    iifname "{inner}" drop
  }}
  chain input {{
    type filter hook input priority 0; policy accept;
    iifname "{outer}" udp dport {port} drop
  }}
}}
""")  # fmt: skip
    with entered(namespace):
        Path(f"/proc/sys/net/ipv4/conf/{inner}/forwarding").write_text("1")


async def set_receivers(namespace: str, places: Collection[tuple[str, int]]) -> None:
    """Have :func:`let_streams_out` let streams out to exactly these addresses and UDP ports.

    Raises:
        NetworkError: the namespace or its table is gone.
    """
    lines = [f"flush set ip {_TABLE} places"]
    if places:
        elements = ", ".join(f"{address} . {port}" for address, port in sorted(places))
        lines.append(f"add element ip {_TABLE} places {{ {elements} }}")
    await asyncio.to_thread(
        run_tool, "nft", "-f", "-", namespace=namespace, stdin="\n".join(lines) + "\n"
    )


def unreachable_socket(namespace: str) -> socket.socket:
    """Return a raw socket that gets the ICMP messages "destination unreachable" of a namespace.

    Raises:
        NetworkError: there is no such namespace.
    """
    with entered(namespace):
        made = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)
    made.setsockopt(_SOL_RAW, _ICMP_FILTER, struct.pack("I", ~(1 << _UNREACHABLE) & 0xFFFFFFFF))
    made.setblocking(False)
    return made
