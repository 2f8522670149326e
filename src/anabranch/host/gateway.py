"""The way in for producers: this machine's ports, forwarded to a gateway behind a cable.

Thin over nft, netlink and ``/proc``. What blocks does so for milliseconds: call it in a thread.
The address of whoever sends is kept, but for programs of this machine that send to 127.0.0.1: their
packets bear the address of this machine's end of the cable, since loopback addresses go nowhere.
"""

import json
import socket
from collections.abc import Collection, Iterable
from contextlib import closing
from dataclasses import dataclass
from enum import IntEnum
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path

from pyroute2.netlink.exceptions import NetlinkError
from pyroute2.netlink.nfnetlink.nfctsocket import NFCTAttrTuple, NFCTSocket

from anabranch.core.errors import ConflictError
from anabranch.host import network
from anabranch.host.forwarding import FAMILIES, Family
from anabranch.host.process import run_command

NEWCOMERS = 500
"""Unknown senders/s to one port that are looked at; the others are dropped by the kernel, since
each would take a place among the connections that it tracks, of which all networks here live."""
_ESTABLISHED = "01"
_SOCKETS: dict[Family, socket.AddressFamily] = {"ip": socket.AF_INET, "ip6": socket.AF_INET6}


class Protocol(IntEnum):
    """Transport protocols by their numbers in the IP header."""

    TCP = 6
    UDP = 17


@dataclass(frozen=True, slots=True, order=True)
class Way:
    """A port that producers send to."""

    protocol: Protocol
    port: int

    def __str__(self) -> str:
        return f"{self.protocol.name.lower()}/{self.port}"


def make_forwarding(
    table: str, device: str, inner: IPv4Address, inner_6: IPv6Address | None = None
) -> None:
    """Make the nft tables that forward to a gateway; at first they forward nothing.

    Args:
        table: their name, one of each family; made anew.
        device: this machine's end of the cable to the gateway.
        inner, inner_6: the gateway's addresses at the other end; None: it has none of IPv6.

    Raises:
        NetworkError: the kernel refused it.
    """
    # Loopback addresses go nowhere. Those of IPv6 cannot even be translated.
    loopback = f"""chain postrouting {{
    type nat hook postrouting priority srcnat; policy accept;
    oifname "{device}" ip saddr 127.0.0.0/8 masquerade
  }}"""
    script = _forwarding(table, "ip", inner, loopback)
    if inner_6 is not None:
        script += _forwarding(table, "ip6", inner_6)
    network.run_tool("nft", "-f", "-", stdin=script)
    settings = Path(f"/proc/sys/net/ipv4/conf/{device}")
    # Only of this cable: what 127.0.0.1 is sent, its answers too, may go by it; and ARP asks in the
    # name of the cable's end, whichever of this machine's addresses the packet bears.
    (settings / "route_localnet").write_text("1")
    (settings / "arp_announce").write_text("2")


def _forwarding(
    table: str, family: Family, inner: IPv4Address | IPv6Address, more: str = ""
) -> str:
    forward = f"fib daddr type local meta l4proto . th dport @ways dnat to {inner}"
    which = "meta l4proto . th dport"
    return f"""
table {family} {table}
delete table {family} {table}
table {family} {table} {{
  counter newcomers {{ }}
  set ways {{ type inet_proto . inet_service; }}
  set coming {{ type inet_proto . inet_service; flags dynamic; size 4096; }}
  chain newcomers {{
    type filter hook prerouting priority mangle; policy accept;
    fib daddr type local {which} @ways ct status ! confirmed \\
      update @coming {{ {which} limit rate over {NEWCOMERS}/second burst {NEWCOMERS} packets }} \\
      counter name newcomers drop
  }}
  chain prerouting {{ type nat hook prerouting priority dstnat; policy accept; {forward}; }}
  chain output {{ type nat hook output priority -100; policy accept; {forward}; }}
  {more}
}}
"""


def forward_ways(
    table: str, ways: Collection[Way], family: Family = "ip", *, forget: Iterable[Way] = ()
) -> None:
    """Forward exactly these of a family; what flows is not cut.

    Args:
        forget: of these, ports that were not forwarded before, the kernel looks anew where what is
            sent to them goes; see :func:`forget_senders`.

    Raises:
        NetworkError: the table is gone, or the kernel does not say whom it tracks.
    """
    elements = ", ".join(f"{way.protocol.name.lower()} . {way.port}" for way in sorted(ways))
    script = f"flush set {family} {table} ways\n"
    if elements:
        script += f"add element {family} {table} ways {{ {elements} }}\n"
    network.run_tool("nft", "-f", "-", stdin=script)
    forget_senders(forget, family)


async def dropped_newcomers(table: str, families: Collection[Family] = FAMILIES[:1]) -> int:
    """Return how many packets the kernel dropped of too many unknown senders.

    Raises:
        ProcessError: the table is gone.
    """
    dropped = 0
    for family in families:
        text = await run_command("nft", "-j", "list", "counter", family, table, "newcomers")
        dropped += sum(
            int(item["counter"]["packets"])
            for item in json.loads(text)["nftables"]
            if "counter" in item
        )
    return dropped


def forget_senders(ways: Iterable[Way], family: Family = "ip") -> None:
    """Have the kernel look anew where what is sent to these ports goes.

    It decides that with a sender's first packet: whoever has sent since before the port was
    forwarded would not get in as long as it keeps sending.

    Raises:
        NetworkError: the kernel does not say whom it tracks.
    """
    kind = _SOCKETS[family]
    try:
        for way in ways:
            wanted = NFCTAttrTuple(family=kind, proto=way.protocol, dport=way.port)
            with closing(NFCTSocket(nfgen_family=kind)) as tracking:
                entries = [*tracking.dump(tuple_orig=wanted)]
            for entry in entries:
                found = entry.get_attr("CTA_TUPLE_ORIG")
                sender = NFCTAttrTuple.from_netlink(kind, found)
                with closing(NFCTSocket(nfgen_family=kind)) as tracking:
                    tracking.entry("del", tuple_orig=sender)
    except (NetlinkError, OSError) as error:
        raise network.NetworkError(f"connection tracking: {error}") from error


def hold(way: Way, family: Family = "ip") -> socket.socket:
    """Have a port of this machine, so that no other program and no other site takes it.

    Nothing is read from it: what is sent to it is forwarded.

    Raises:
        ConflictError: another program has it.
    """
    udp = way.protocol is Protocol.UDP
    held = socket.socket(_SOCKETS[family], socket.SOCK_DGRAM if udp else socket.SOCK_STREAM)
    try:
        if family == "ip6":
            held.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        if not udp:  # else the connections of an earlier run would keep it for a minute
            held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        held.bind(("0.0.0.0" if family == "ip" else "::", way.port))
        if not udp:  # with that option only one who listens has it for himself
            held.listen(0)
    except OSError as error:
        held.close()
        raise ConflictError(f"port {way.port} is taken by another program") from error
    return held


def is_udp_port_free_inside(namespace: str, port: int) -> bool:
    """Return whether a UDP port is free at every address of a namespace.

    Raises:
        NetworkError: there is no such namespace.
    """
    with closing(network.socket_inside(namespace, socket.SOCK_DGRAM)) as probe:
        try:
            probe.bind(("0.0.0.0", port))
        except OSError:
            return False
    return True


def tcp_peers(pid: int, port: int) -> frozenset[tuple[str, int]]:
    """Return who is connected to a TCP port where a process is: addresses and ports, IPv4."""
    try:
        text = Path(f"/proc/{pid}/net/tcp").read_text()
    except OSError:
        return frozenset()
    return parse_tcp_table(text, port)


def parse_tcp_table(text: str, port: int) -> frozenset[tuple[str, int]]:
    """Return the far ends of a local port's connections in the kernel's table (proc_net_tcp).

    Lines that are none of the table's are passed over.
    """
    found = set()
    for line in text.splitlines()[1:]:
        words = line.split()
        try:
            local, remote, state = words[1:4]
            if state == _ESTABLISHED and int(local.partition(":")[2], 16) == port:
                address, _, number = remote.partition(":")
                # Addresses are written as this machine's numbers.
                octets = int(address, 16).to_bytes(4, "little")
                found.add((str(IPv4Address(octets)), int(number, 16)))
        except (ValueError, OverflowError):
            continue
    return frozenset(found)
