"""Frames and packets from their fields, with right checksums."""

import ipaddress
import struct

from anabranch.fabric.errors import MisuseError
from anabranch.fabric.frames.checksums import checksum, transport_checksum
from anabranch.fabric.frames.headers import (
    ARP,
    ARP_REPLY,
    ARP_REQUEST,
    BROADCAST,
    ETH_ARP,
    ETH_IPV4,
    ETH_VLAN,
    ICMP,
    ICMP_ECHO_REPLY,
    ICMP_ECHO_REQUEST,
    IP_ICMP,
    IP_TCP,
    IP_UDP,
    IPV4,
    IPV6,
    PORTS,
    TCP,
    U16,
    UDP,
    number,
    parse,
)
from anabranch.fabric.openflow.wire import canonical_mac, mac_bytes

_TAG = struct.Struct("!HH")


def ethernet(dst: str, src: str, eth_type: int, payload: bytes, vlan: int | None = None) -> bytes:
    """Return a frame, not padded; ``vlan`` is the 12-bit VLAN id of a tag."""
    tag = b"" if vlan is None else _TAG.pack(ETH_VLAN, vlan)
    return _mac(dst) + _mac(src) + tag + U16.pack(eth_type) + payload


def arp_request(sender_mac: str, sender_ip: str, target_ip: str) -> bytes:
    """Return the broadcast frame that asks who has ``target_ip``."""
    arp = _arp(ARP_REQUEST, sender_mac, sender_ip, "00:00:00:00:00:00", target_ip)
    return ethernet(BROADCAST, sender_mac, ETH_ARP, arp)


def arp_probe(sender_mac: str, target_mac: str, target_ip: str) -> bytes:
    """Return the frame that asks ``target_mac`` alone whether it has ``target_ip`` (RFC 5227)."""
    arp = _arp(ARP_REQUEST, sender_mac, "0.0.0.0", "00:00:00:00:00:00", target_ip)
    return ethernet(target_mac, sender_mac, ETH_ARP, arp)


def arp_reply(sender_mac: str, sender_ip: str, target_mac: str, target_ip: str) -> bytes:
    """Return the frame that tells ``target`` that ``sender_ip`` is at ``sender_mac``."""
    arp = _arp(ARP_REPLY, sender_mac, sender_ip, target_mac, target_ip)
    return ethernet(target_mac, sender_mac, ETH_ARP, arp)


def _arp(op: int, sha: str, spa: str, tha: str, tpa: str) -> bytes:
    return ARP.pack(1, ETH_IPV4, 6, 4, op, _mac(sha), _ipv4(spa), _mac(tha), _ipv4(tpa))


def ipv4(src: str, dst: str, proto: int, payload: bytes, ttl: int = 64, dscp: int = 0) -> bytes:
    """Return an IPv4 packet without options that may be fragmented.

    Raises:
        MisuseError: it is longer than 65,535 bytes.
    """
    total = IPV4.size + len(payload)
    if total > 0xFFFF:
        raise MisuseError(f"an IPv4 packet of {total} bytes")
    ends = (number("ipv4_src", src), number("ipv4_dst", dst))
    blank = IPV4.pack(0x45, dscp << 2, total, 0, 0, ttl, proto, 0, *ends)
    head = IPV4.pack(0x45, dscp << 2, total, 0, 0, ttl, proto, checksum(blank), *ends)
    return head + payload


def udp(src: str, dst: str, src_port: int, dst_port: int, data: bytes) -> bytes:
    """Return a UDP datagram with its checksum; the addresses are both IPv4 or both IPv6."""
    length = UDP.size + len(data)
    if length > 0xFFFF:
        raise MisuseError(f"a UDP datagram of {length} bytes")
    blank = UDP.pack(src_port, dst_port, length, 0) + data
    summed = transport_checksum(_packed(src), _packed(dst), IP_UDP, blank)
    return UDP.pack(src_port, dst_port, length, summed or 0xFFFF) + data


def tcp(
    src: str, dst: str, src_port: int, dst_port: int, data: bytes = b"", flags: int = 2
) -> bytes:
    """Return a TCP segment without options with its checksum; ``flags`` 2 is SYN."""
    head = (src_port, dst_port, 0, 0, 5 << 4, flags, 0xFFFF)
    summed = transport_checksum(_packed(src), _packed(dst), IP_TCP, TCP.pack(*head, 0, 0) + data)
    return TCP.pack(*head, summed, 0) + data


def ipv4_udp(
    eth_dst: str,
    eth_src: str,
    ipv4_src: str,
    ipv4_dst: str,
    udp_src: int,
    udp_dst: int,
    data: bytes,
    *,
    ttl: int = 64,
    vlan: int | None = None,
) -> bytes:
    """Return a frame with a UDP datagram."""
    datagram = udp(ipv4_src, ipv4_dst, udp_src, udp_dst, data)
    packet = ipv4(ipv4_src, ipv4_dst, IP_UDP, datagram, ttl)
    return ethernet(eth_dst, eth_src, ETH_IPV4, packet, vlan)


def ipv6(src: str, dst: str, proto: int, payload: bytes, ttl: int = 64) -> bytes:
    """Return an IPv6 packet without extension headers."""
    return IPV6.pack(6 << 28, len(payload), proto, ttl, _packed(src), _packed(dst)) + payload


def icmp_echo(
    eth_dst: str,
    eth_src: str,
    ipv4_src: str,
    ipv4_dst: str,
    *,
    identifier: int = 0,
    sequence: int = 0,
    data: bytes = b"",
    reply: bool = False,
    ttl: int = 64,
) -> bytes:
    """Return a frame with an ICMP echo request or reply."""
    head = (ICMP_ECHO_REPLY if reply else ICMP_ECHO_REQUEST, 0)
    summed = checksum(ICMP.pack(*head, 0, identifier, sequence) + data)
    message = ICMP.pack(*head, summed, identifier, sequence) + data
    return ethernet(eth_dst, eth_src, ETH_IPV4, ipv4(ipv4_src, ipv4_dst, IP_ICMP, message, ttl))


def icmp_echo_reply(request: bytes) -> bytes | None:
    """Return the answer to an ICMP echo request, from whom it was sent to; None if it is none."""
    headers = parse(request)
    if headers.fields.get("icmpv4_type") != ICMP_ECHO_REQUEST or headers.fragment:
        return None
    identifier, sequence = PORTS.unpack_from(request, headers.l4 + 4)
    names = ("eth_src", "eth_dst", "ipv4_dst", "ipv4_src")
    return icmp_echo(
        *(str(headers.get(name)) for name in names),
        identifier=identifier,
        sequence=sequence,
        data=headers.payload,
        reply=True,
    )


def _mac(value: str) -> bytes:
    return mac_bytes(canonical_mac(value))


def _ipv4(value: str) -> bytes:
    return number("ipv4_src", value).to_bytes(4, "big")


def _packed(address: str) -> bytes:
    try:
        return ipaddress.ip_address(address).packed
    except ValueError:
        raise MisuseError(f"{address[:60]!r} is not an IP address") from None
