"""Three switches in a line, s1 - s2 - s3, and the frames of the hosts at their ports.

Ports 1 and 2 of each switch are for hosts; 8 leads to the previous switch, 9 to the next one.
"""

import struct
from collections.abc import Mapping
from dataclasses import dataclass, replace

from anabranch.fabric import frames
from anabranch.fabric.host_services.settings import Settings
from anabranch.fabric.model import Host, Link, LinkInfo, Network, PortInfo, PortRef

SWITCHES = {"s1": 1, "s2": 2, "s3": 3}
A, B, C, SERVER = (f"02:00:00:00:00:0{n}" for n in (1, 2, 3, 9))
A_IP, B_IP, C_IP, SERVER_IP = "10.0.0.1", "10.0.0.2", "10.0.0.3", "10.0.0.9"
A_AT, B_AT, C_AT, SERVER_AT = PortRef("s1", 1), PortRef("s3", 1), PortRef("s2", 1), PortRef("s1", 2)
FREE_AT = PortRef("s3", 2)
S12 = Link(PortRef("s1", 9), PortRef("s2", 8))
S23 = Link(PortRef("s2", 9), PortRef("s3", 8))
SETTINGS = Settings(dhcp_server=SERVER_AT)


def network(*hosts: Host, links: Mapping[Link, LinkInfo] | None = None) -> Network:
    """Return the line with these hosts, all its links up unless said otherwise."""
    known = {link: LinkInfo() for one in (S12, S23) for link in (one, one.reverse)}
    ports = {
        PortRef(switch, number): PortInfo(f"{switch}-{number}")
        for switch in SWITCHES
        for number in (1, 2, 8, 9)
        if (switch, number) not in (("s1", 8), ("s3", 9))
    }
    return Network(SWITCHES, ports, {**known, **(links or {})}, {host.mac: host for host in hosts})


HOST_A, HOST_B, HOST_C = Host(A, A_AT, A_IP), Host(B, B_AT, B_IP), Host(C, C_AT, C_IP)
HOST_SERVER = Host(SERVER, SERVER_AT, SERVER_IP)
EVERYBODY = network(HOST_A, HOST_B, HOST_C, HOST_SERVER)


def down(link: Link) -> Network:
    """Return the line with everybody where a link is down in this direction."""
    return replace(EVERYBODY, links={**EVERYBODY.links, link: LinkInfo(up=False)})


def ping(source: str, target: str, source_ip: str = A_IP, target_ip: str = B_IP) -> bytes:
    return frames.icmp_echo(target, source, source_ip, target_ip, sequence=1, data=b"ping")


@dataclass(frozen=True)
class Dhcp:
    """A DHCP message to be built byte by byte (RFC 2131, figure 1), and its frame."""

    kind: int
    chaddr: str = A
    op: int = 1
    ciaddr: str = "0.0.0.0"
    yiaddr: str = "0.0.0.0"
    options: bytes = b""
    flags: int = 0x8000  # answers shall be broadcast

    def message(self) -> bytes:
        mac = bytes.fromhex(self.chaddr.replace(":", ""))
        fixed = struct.pack("!BBBBIHH", self.op, 1, 6, 0, 0x12345678, 0, self.flags)
        addresses = b"".join(
            bytes(map(int, text.split("."))) for text in (self.ciaddr, self.yiaddr)
        )
        legacy = bytes(8) + mac + bytes(10) + bytes(192)
        kind = bytes((53, 1, self.kind))
        return fixed + addresses + legacy + b"\x63\x82\x53\x63" + kind + self.options + b"\xff"

    def from_client(
        self,
        eth_src: str | None = None,
        eth_dst: str = frames.BROADCAST,
        source_ip: str = "0.0.0.0",
        target_ip: str = "255.255.255.255",
    ) -> bytes:
        ends = eth_dst, eth_src or self.chaddr, source_ip, target_ip
        return frames.ipv4_udp(*ends, 68, 67, self.message())

    def from_server(self, eth_dst: str = frames.BROADCAST, eth_src: str = SERVER) -> bytes:
        ends = eth_dst, eth_src, SERVER_IP, "255.255.255.255"
        return frames.ipv4_udp(*ends, 67, 68, self.message())
