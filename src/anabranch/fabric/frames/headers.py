"""The headers of a frame as OXM fields.

Sources: IEEE 802.1Q, RFC 826 (ARP), 791 (IPv4), 8200 (IPv6), 768 (UDP), 9293 (TCP), 792 (ICMP),
4443 (ICMPv6); OpenFlow 1.3.5, table 12 (names of the fields).
"""

import ipaddress
import struct
from dataclasses import dataclass, field

from anabranch.fabric.errors import MisuseError
from anabranch.fabric.openflow.wire import canonical_ipv4, canonical_mac, mac_bytes, mac_text

ETH_IPV4, ETH_ARP, ETH_VLAN, ETH_QINQ, ETH_IPV6 = 0x0800, 0x0806, 0x8100, 0x88A8, 0x86DD
ETH_LLDP = 0x88CC
ETH_NONE = 0x05FF  # what eth_type is for a frame of IEEE 802.3 without one
IP_ICMP, IP_TCP, IP_UDP, IP_ICMPV6 = 1, 6, 17, 58
ARP_REQUEST, ARP_REPLY = 1, 2
ICMP_ECHO_REPLY, ICMP_ECHO_REQUEST = 0, 8
VLAN_PRESENT = 0x1000
BROADCAST = "ff:ff:ff:ff:ff:ff"

_MACS = frozenset({"eth_dst", "eth_src", "arp_sha", "arp_tha"})
_IPV4S = frozenset({"ipv4_src", "ipv4_dst", "arp_spa", "arp_tpa"})
_IPV6S = frozenset({"ipv6_src", "ipv6_dst", "ipv6_nd_target"})

_TAG_TYPES = frozenset({ETH_VLAN, ETH_QINQ})
_SNAP = b"\xaa\xaa\x03\0\0\0"
_ETHERNET = struct.Struct("!6s6sH")
U16 = struct.Struct("!H")
ARP = struct.Struct("!HHBBH6s4s6s4s")
IPV4 = struct.Struct("!BBHHHBBHII")
IPV6 = struct.Struct("!IHBB16s16s")
UDP = struct.Struct("!HHHH")
TCP = struct.Struct("!HHIIBBHHH")
ICMP = struct.Struct("!BBHHH")
PORTS = struct.Struct("!HH")
_EXTENSIONS = frozenset({0, 43, 51, 60})  # hop-by-hop, routing, authentication, destination
_FRAGMENT = 44


@dataclass(slots=True)
class Headers:
    """What a frame's headers say. Not to be changed by anybody.

    Attributes:
        frame: the frame itself.
        fields: OXM name to number; addresses are the numbers their bytes make. ``vlan_vid`` has
            the bit ``VLAN_PRESENT`` where there is a tag and is 0 where there is none. A field that
            the frame does not have (or has cut short) is missing.
        vlans: 802.1Q tags; the outermost is the one in ``fields``.
        l3, l4: where the ARP or IP header and the UDP, TCP or ICMP header begin; 0 for none.
        payload_at, end: what the innermost header known here carries, without Ethernet padding.
        ttl: of the IP header, 0 for none.
        fragment: a fragment of an IP packet, maybe the first, which alone has UDP or TCP ports.
    """

    frame: bytes
    fields: dict[str, int] = field(default_factory=dict)
    vlans: int = 0
    l3: int = 0
    l4: int = 0
    payload_at: int = 0
    end: int = 0
    ttl: int = 0
    fragment: bool = False

    def get(self, name: str) -> int | str | None:
        """Return a field as ``Match`` writes it (addresses as text), None if it is missing."""
        value = self.fields.get(name)
        return None if value is None else text(name, value)

    def mac(self, name: str) -> str | None:
        """Return ``eth_dst``, ``eth_src``, ``arp_sha`` or ``arp_tha`` as text."""
        return self._text(name, _MACS)

    def ipv4(self, name: str) -> str | None:
        """Return ``ipv4_src``, ``ipv4_dst``, ``arp_spa`` or ``arp_tpa`` as text."""
        return self._text(name, _IPV4S)

    @property
    def payload(self) -> bytes:
        """What follows the innermost header known here: of UDP its data, of ARP nothing."""
        return self.frame[self.payload_at : self.end]

    def _text(self, name: str, names: frozenset[str]) -> str | None:
        if name not in names:
            raise MisuseError(f"{name} is not one of {sorted(names)}")
        value = self.fields.get(name)
        return None if value is None else str(text(name, value))


def text(name: str, value: int) -> int | str:
    """Return the number of field ``name`` as ``Match`` writes it."""
    if name in _MACS:
        return mac_text(value.to_bytes(6, "big"))
    if name in _IPV4S:
        return str(ipaddress.IPv4Address(value))
    if name in _IPV6S:
        return str(ipaddress.IPv6Address(value))
    return value


def number(name: str, value: int | str) -> int:
    """Return a value of field ``name`` as a number; the inverse of :func:`text`.

    Raises:
        MisuseError: it is no address of the field's kind.
    """
    if isinstance(value, int):
        return value
    if name in _MACS:
        return int.from_bytes(mac_bytes(canonical_mac(value)), "big")
    if name in _IPV4S:
        return int(ipaddress.IPv4Address(canonical_ipv4(value)))
    if name in _IPV6S:
        try:
            return int(ipaddress.IPv6Address(value))
        except ValueError:
            raise MisuseError(f"{value[:60]!r} is not an IPv6 address") from None
    raise MisuseError(f"{name} is a number, not {value[:40]!r}")


def parse(frame: bytes) -> Headers:
    """Return the headers of ``frame``, whatever its bytes: what is cut short or wrong is missing.

    A length in an IP header that promises more than there is counts as up to the end, so that the
    start of a packet, as a packet_in may carry it, can be read.
    """
    headers = Headers(frame, end=len(frame))
    if len(frame) < _ETHERNET.size:
        return headers
    fields = headers.fields
    fields["eth_dst"] = int.from_bytes(frame[:6], "big")
    fields["eth_src"] = int.from_bytes(frame[6:12], "big")
    fields["vlan_vid"] = 0
    at = 12
    eth_type = frame[12] << 8 | frame[13]
    while eth_type in _TAG_TYPES and len(frame) >= at + 6:
        if not headers.vlans:
            tci = frame[at + 2] << 8 | frame[at + 3]
            fields["vlan_vid"] = VLAN_PRESENT | tci & 0xFFF
            fields["vlan_pcp"] = tci >> 13
        headers.vlans += 1
        at += 4
        (eth_type,) = U16.unpack_from(frame, at)
    at += 2
    if eth_type < 0x600:  # IEEE 802.3: the length of the payload
        eth_type = ETH_NONE
        if frame[at : at + 6] == _SNAP and len(frame) >= at + 8:
            (snap,) = U16.unpack_from(frame, at + 6)
            at += 8
            eth_type = snap if snap >= 0x600 else ETH_NONE
    fields["eth_type"] = eth_type
    headers.payload_at = at
    if eth_type == ETH_IPV4:
        _parse_ipv4(headers, at)
    elif eth_type == ETH_ARP:
        _parse_arp(headers, at)
    elif eth_type == ETH_IPV6:
        _parse_ipv6(headers, at)
    return headers


def _parse_arp(headers: Headers, at: int) -> None:
    if headers.end < at + ARP.size:
        return
    kind, protocol, hlen, plen, op, sha, spa, tha, tpa = ARP.unpack_from(headers.frame, at)
    if (kind, protocol, hlen, plen) != (1, ETH_IPV4, 6, 4):
        return
    headers.l3 = at
    headers.payload_at = headers.end = at + ARP.size  # beyond is padding
    fields = headers.fields
    fields["arp_op"] = op
    fields["arp_spa"], fields["arp_tpa"] = int.from_bytes(spa, "big"), int.from_bytes(tpa, "big")
    fields["arp_sha"], fields["arp_tha"] = int.from_bytes(sha, "big"), int.from_bytes(tha, "big")


def _parse_ipv4(headers: Headers, at: int) -> None:
    if headers.end < at + IPV4.size:
        return
    first, tos, total, _, flags, ttl, proto, _, src, dst = IPV4.unpack_from(headers.frame, at)
    size = (first & 15) * 4
    if first >> 4 != 4 or size < 20 or total < size or headers.end < at + size:
        return
    headers.l3, headers.ttl = at, ttl
    headers.payload_at, headers.end = at + size, min(headers.end, at + total)
    fields = headers.fields
    fields["ip_dscp"], fields["ip_ecn"], fields["ip_proto"] = tos >> 2, tos & 3, proto
    fields["ipv4_src"], fields["ipv4_dst"] = src, dst
    headers.fragment = bool(flags & 0x3FFF)
    if not flags & 0x1FFF:
        _parse_transport(headers, proto)


def _parse_ipv6(headers: Headers, at: int) -> None:
    frame = headers.frame
    if headers.end < at + IPV6.size:
        return
    first, length, proto, ttl, src, dst = IPV6.unpack_from(frame, at)
    if first >> 28 != 6:
        return
    headers.l3, headers.ttl = at, ttl
    fields = headers.fields
    traffic = first >> 20 & 0xFF
    fields["ip_dscp"], fields["ip_ecn"], fields["ipv6_flabel"] = (
        traffic >> 2,
        traffic & 3,
        first & 0xFFFFF,
    )
    fields["ipv6_src"], fields["ipv6_dst"] = int.from_bytes(src, "big"), int.from_bytes(dst, "big")
    at += IPV6.size
    headers.end = min(headers.end, at + length)
    later = False
    while (proto in _EXTENSIONS or proto == _FRAGMENT) and headers.end >= at + 8 and not later:
        if proto == _FRAGMENT:
            (offset,) = U16.unpack_from(frame, at + 2)
            headers.fragment = headers.fragment or bool(offset & 0xFFF9)
            later = offset >= 8
            size = 8
        else:
            size = (frame[at + 1] + 2) * 4 if proto == 51 else (frame[at + 1] + 1) * 8
        if headers.end < at + size:
            break
        proto = frame[at]
        at += size
    fields["ip_proto"] = proto
    headers.payload_at = at
    if not later:
        _parse_transport(headers, proto)


def _parse_transport(headers: Headers, proto: int) -> None:
    fields, at, room = headers.fields, headers.payload_at, headers.end - headers.payload_at
    if proto == IP_UDP and room >= UDP.size:
        fields["udp_src"], fields["udp_dst"] = PORTS.unpack_from(headers.frame, at)
        size = UDP.size
    elif proto == IP_TCP and room >= TCP.size:
        fields["tcp_src"], fields["tcp_dst"] = PORTS.unpack_from(headers.frame, at)
        (flags,) = U16.unpack_from(headers.frame, at + 12)
        fields["tcp_flags"] = flags & 0xFFF
        size = max(TCP.size, (flags >> 12) * 4)
    elif proto == IP_ICMP and "ipv4_src" in fields and room >= ICMP.size:
        fields["icmpv4_type"], fields["icmpv4_code"] = headers.frame[at], headers.frame[at + 1]
        size = ICMP.size
    elif proto == IP_ICMPV6 and "ipv6_src" in fields and room >= ICMP.size:
        kind, code = headers.frame[at], headers.frame[at + 1]
        fields["icmpv6_type"], fields["icmpv6_code"] = kind, code
        size = ICMP.size
        if kind in (135, 136) and code == 0 and room >= 24:  # neighbour discovery (RFC 4861)
            target = headers.frame[at + 8 : at + 24]
            fields["ipv6_nd_target"] = int.from_bytes(target, "big")
    else:
        return
    headers.l4 = at
    headers.payload_at = min(at + size, headers.end)
