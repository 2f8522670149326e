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
from ipaddress import IPv4Address
from pathlib import Path

from pyroute2.netlink.exceptions import NetlinkError
from pyroute2.netlink.nfnetlink.nfctsocket import NFCTAttrTuple, NFCTSocket

from anabranch.core.errors import ConflictError
from anabranch.host import network
from anabranch.host.process import run_command

NEWCOMERS = 500
"""Unknown senders/s to one port that are looked at; the others are dropped by the kernel, since
each would take a place among the connections that it tracks, of which all networks here live."""
_ESTABLISHED = "01"


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


def make_forwarding(table: str, device: str, inner: IPv4Address) -> None:
    """Make the nft table that forwards to a gateway; at first it forwards nothing.

    Args:
        table: name of the table; made anew.
        device: this machine's end of the cable to the gateway.
        inner: the gateway's address at the other end.

    Raises:
        NetworkError: the kernel refused it.
    """
    forward = f"fib daddr type local meta l4proto . th dport @ways dnat to {inner}"
    which = "meta l4proto . th dport"
    network.run_tool(
        "nft",
        "-f",
        "-",
        stdin=f"""
table ip {table}
delete table ip {table}
table ip {table} {{
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
  chain postrouting {{
    type nat hook postrouting priority srcnat; policy accept;
    oifname "{device}" ip saddr 127.0.0.0/8 masquerade
  }}
}}
""",
    )
    settings = Path(f"/proc/sys/net/ipv4/conf/{device}")
    # Only of this cable: what 127.0.0.1 is sent, its answers too, may go by it; and ARP asks in the
    # name of the cable's end, whichever of this machine's addresses the packet bears.
    (settings / "route_localnet").write_text("1")
    (settings / "arp_announce").write_text("2")


def forward_ways(table: str, ways: Collection[Way]) -> None:
    """Forward exactly these; what flows is not cut.

    Raises:
        NetworkError: the table is gone.
    """
    elements = ", ".join(f"{way.protocol.name.lower()} . {way.port}" for way in sorted(ways))
    script = f"flush set ip {table} ways\n"
    if elements:
        script += f"add element ip {table} ways {{ {elements} }}\n"
    network.run_tool("nft", "-f", "-", stdin=script)


async def dropped_newcomers(table: str) -> int:
    """Return how many packets the kernel dropped of too many unknown senders.

    Raises:
        ProcessError: the table is gone.
    """
    text = await run_command("nft", "-j", "list", "counter", "ip", table, "newcomers")
    return sum(
        int(item["counter"]["packets"])
        for item in json.loads(text)["nftables"]
        if "counter" in item
    )


def forget_senders(ways: Iterable[Way]) -> None:
    """Have the kernel look anew where what is sent to these ports goes.

    It decides that with a sender's first packet: whoever has sent since before the port was
    forwarded would not get in as long as it keeps sending.

    Raises:
        NetworkError: the kernel does not say whom it tracks.
    """
    try:
        for way in ways:
            wanted = NFCTAttrTuple(proto=way.protocol, dport=way.port)
            with closing(NFCTSocket()) as tracking:
                entries = [*tracking.dump(tuple_orig=wanted)]
            for entry in entries:
                found = entry.get_attr("CTA_TUPLE_ORIG")
                sender = NFCTAttrTuple.from_netlink(socket.AF_INET, found)
                with closing(NFCTSocket()) as tracking:
                    tracking.entry("del", tuple_orig=sender)
    except (NetlinkError, OSError) as error:
        raise network.NetworkError(f"connection tracking: {error}") from error


def hold(way: Way) -> socket.socket:
    """Have a port of this machine, so that no other program and no other site takes it.

    Nothing is read from it: what is sent to it is forwarded.

    Raises:
        ConflictError: another program has it.
    """
    udp = way.protocol is Protocol.UDP
    held = socket.socket(socket.AF_INET, socket.SOCK_DGRAM if udp else socket.SOCK_STREAM)
    try:
        if not udp:  # else the connections of an earlier run would keep it for a minute
            held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        held.bind(("0.0.0.0", way.port))
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
