"""Ethernet frames: headers as OXM fields, builders, rewriting with right checksums.

Sources: IEEE 802.1Q, RFC 826 (ARP), 791 (IPv4), 8200 (IPv6), 768 (UDP), 9293 (TCP), 792 (ICMP),
4443 (ICMPv6), 1071 and 1624 (checksums); OpenFlow 1.3.5, table 12 (names of the fields).
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
_TAG = struct.Struct("!HH")
_U16 = struct.Struct("!H")
_ARP = struct.Struct("!HHBBH6s4s6s4s")
_IPV4 = struct.Struct("!BBHHHBBHII")
_IPV6 = struct.Struct("!IHBB16s16s")
_UDP = struct.Struct("!HHHH")
_TCP = struct.Struct("!HHIIBBHHH")
_ICMP = struct.Struct("!BBHHH")
_PORTS = struct.Struct("!HH")
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
        (eth_type,) = _U16.unpack_from(frame, at)
    at += 2
    if eth_type < 0x600:  # IEEE 802.3: the length of the payload
        eth_type = ETH_NONE
        if frame[at : at + 6] == _SNAP and len(frame) >= at + 8:
            (snap,) = _U16.unpack_from(frame, at + 6)
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
    if headers.end < at + _ARP.size:
        return
    kind, protocol, hlen, plen, op, sha, spa, tha, tpa = _ARP.unpack_from(headers.frame, at)
    if (kind, protocol, hlen, plen) != (1, ETH_IPV4, 6, 4):
        return
    headers.l3 = at
    headers.payload_at = headers.end = at + _ARP.size  # beyond is padding
    fields = headers.fields
    fields["arp_op"] = op
    fields["arp_spa"], fields["arp_tpa"] = int.from_bytes(spa, "big"), int.from_bytes(tpa, "big")
    fields["arp_sha"], fields["arp_tha"] = int.from_bytes(sha, "big"), int.from_bytes(tha, "big")


def _parse_ipv4(headers: Headers, at: int) -> None:
    if headers.end < at + _IPV4.size:
        return
    first, tos, total, _, flags, ttl, proto, _, src, dst = _IPV4.unpack_from(headers.frame, at)
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
    if headers.end < at + _IPV6.size:
        return
    first, length, proto, ttl, src, dst = _IPV6.unpack_from(frame, at)
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
    at += _IPV6.size
    headers.end = min(headers.end, at + length)
    later = False
    while (proto in _EXTENSIONS or proto == _FRAGMENT) and headers.end >= at + 8 and not later:
        if proto == _FRAGMENT:
            (offset,) = _U16.unpack_from(frame, at + 2)
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
    if proto == IP_UDP and room >= _UDP.size:
        fields["udp_src"], fields["udp_dst"] = _PORTS.unpack_from(headers.frame, at)
        size = _UDP.size
    elif proto == IP_TCP and room >= _TCP.size:
        fields["tcp_src"], fields["tcp_dst"] = _PORTS.unpack_from(headers.frame, at)
        (flags,) = _U16.unpack_from(headers.frame, at + 12)
        fields["tcp_flags"] = flags & 0xFFF
        size = max(_TCP.size, (flags >> 12) * 4)
    elif proto == IP_ICMP and "ipv4_src" in fields and room >= _ICMP.size:
        fields["icmpv4_type"], fields["icmpv4_code"] = headers.frame[at], headers.frame[at + 1]
        size = _ICMP.size
    elif proto == IP_ICMPV6 and "ipv6_src" in fields and room >= _ICMP.size:
        kind, code = headers.frame[at], headers.frame[at + 1]
        fields["icmpv6_type"], fields["icmpv6_code"] = kind, code
        size = _ICMP.size
        if kind in (135, 136) and code == 0 and room >= 24:  # neighbour discovery (RFC 4861)
            target = headers.frame[at + 8 : at + 24]
            fields["ipv6_nd_target"] = int.from_bytes(target, "big")
    else:
        return
    headers.l4 = at
    headers.payload_at = min(at + size, headers.end)


# Checksums


def checksum(data: bytes) -> int:
    """Return the Internet checksum of ``data`` (RFC 1071), 16 bits."""
    # A sum with end-around carry is a remainder of 0xffff, in which 0xffff itself stands for 0.
    total = int.from_bytes(data + bytes(len(data) & 1), "big")
    return 0xFFFF - (total % 0xFFFF or (0xFFFF if total else 0))


def transport_checksum(src: bytes, dst: bytes, proto: int, segment: bytes) -> int:
    """Return the checksum of a UDP, TCP or ICMPv6 segment with its pseudo-header.

    Args:
        src, dst: both of 4 or both of 16 bytes.
        segment: header (checksum 0) and data. UDP writes 0xffff where this returns 0.
    """
    shape = "!4s4sxBH" if len(src) == 4 else "!16s16s3xBI"
    if len(src) == 4:
        pseudo = struct.pack(shape, src, dst, proto, len(segment))
    else:
        pseudo = src + dst + struct.pack("!I3xB", len(segment), proto)
    return checksum(pseudo + segment)


def _adjusted(old_sum: int, old: bytes, new: bytes) -> int:
    """Return a checksum after ``old`` became ``new`` (RFC 1624, equation 3); a wrong one stays so.

    Both begin at an even offset of what is summed and have an even length.
    """
    total = 0xFFFF - old_sum + len(old) // 2 * 0xFFFF
    total += int.from_bytes(new, "big") % 0xFFFF - int.from_bytes(old, "big") % 0xFFFF
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return 0xFFFF - total


# Rewriting

_L3 = {"ipv4_src": (12, 4), "ipv4_dst": (16, 4), "ipv6_src": (8, 16), "ipv6_dst": (24, 16)}
_ARPS = {
    "arp_op": (6, 2),
    "arp_sha": (8, 6),
    "arp_spa": (14, 4),
    "arp_tha": (18, 6),
    "arp_tpa": (24, 4),
}
_L4 = {"udp_src": (0, 2), "udp_dst": (2, 2), "tcp_src": (0, 2), "tcp_dst": (2, 2)}
_L4 |= {"icmpv4_type": (0, 1), "icmpv4_code": (1, 1), "icmpv6_type": (0, 1), "icmpv6_code": (1, 1)}
REWRITABLE = frozenset(
    {"eth_dst", "eth_src", "vlan_vid", "vlan_pcp", "ip_dscp", "ip_ecn", *_L3, *_ARPS, *_L4}
)


def rewrite(frame: bytes, name: str, value: int | str, headers: Headers | None = None) -> bytes:
    """Return ``frame`` with one field set and the checksums over it kept right.

    A frame that lacks the field comes back as it is. A UDP checksum of 0 (none) stays 0; the later
    fragments of an IP packet have no checksum of their own. ``headers``: if they are parsed.

    Raises:
        MisuseError: the field is not in REWRITABLE or the value does not fit it.
    """
    if name not in REWRITABLE:
        raise MisuseError(f"{name!r} cannot be rewritten")
    headers = headers or parse(frame)
    if name not in headers.fields or (name == "vlan_vid" and not headers.vlans):
        return frame
    new = number(name, value)
    data = bytearray(frame)
    try:
        if name in ("eth_dst", "eth_src"):
            at = 0 if name == "eth_dst" else 6
            data[at : at + 6] = new.to_bytes(6, "big")
        elif name in ("vlan_vid", "vlan_pcp"):
            _set_tag(data, name, new)
        elif name in ("ip_dscp", "ip_ecn"):
            _set_traffic_class(data, headers, name, new)
        elif name in _ARPS:
            at, width = headers.l3 + _ARPS[name][0], _ARPS[name][1]
            data[at : at + width] = new.to_bytes(width, "big")
        elif name in _L3:
            _set_address(data, headers, name, new)
        else:
            at, width = headers.l4 + _L4[name][0], _L4[name][1]
            _set_summed(data, headers, at, new.to_bytes(width, "big"))
    except OverflowError:
        raise MisuseError(f"{value!r} does not fit into {name}") from None
    return bytes(data)


def _set_tag(data: bytearray, name: str, new: int) -> None:
    (tci,) = _U16.unpack_from(data, 14)
    if name == "vlan_vid":
        _U16.pack_into(data, 14, tci & 0xF000 | new & 0xFFF)
    elif 0 <= new < 8:
        _U16.pack_into(data, 14, tci & 0x1FFF | new << 13)
    else:
        raise OverflowError


def _set_traffic_class(data: bytearray, headers: Headers, name: str, new: int) -> None:
    if not 0 <= new < (64 if name == "ip_dscp" else 4):
        raise OverflowError
    at = headers.l3
    ipv4 = "ipv4_src" in headers.fields
    (first,) = _U16.unpack_from(data, at)
    shift = (0 if ipv4 else 4) + (2 if name == "ip_dscp" else 0)
    mask = (0x3F if name == "ip_dscp" else 3) << shift
    changed = _U16.pack(first & ~mask | new << shift)
    if ipv4:
        _adjust(data, at + 10, bytes(data[at : at + 2]), changed)
    data[at : at + 2] = changed


def _set_address(data: bytearray, headers: Headers, name: str, new: int) -> None:
    offset, width = _L3[name]
    at = headers.l3 + offset
    old, changed = bytes(data[at : at + width]), new.to_bytes(width, "big")
    if width == 4:
        _adjust(data, headers.l3 + 10, old, changed)
    if "icmpv4_type" not in headers.fields:  # the only one without a pseudo-header
        _adjust_transport(data, headers, old, changed)
    data[at : at + width] = changed


def _set_summed(data: bytearray, headers: Headers, at: int, changed: bytes) -> None:
    """Set bytes of the transport header."""
    even = at - (at - headers.l4) % 2
    old = bytes(data[even : even + 2])
    data[at : at + len(changed)] = changed
    _adjust_transport(data, headers, old, bytes(data[even : even + 2]))


def _adjust_transport(data: bytearray, headers: Headers, old: bytes, new: bytes) -> None:
    if not headers.l4:
        return
    if "udp_src" in headers.fields:
        at = headers.l4 + 6
        if data[at : at + 2] == b"\0\0":
            return
        _adjust(data, at, old, new)
        if data[at : at + 2] == b"\0\0":
            data[at : at + 2] = b"\xff\xff"
    else:
        at = headers.l4 + (16 if "tcp_src" in headers.fields else 2)
        _adjust(data, at, old, new)
        if not any(data[headers.l4 : headers.end]):  # RFC 1624 holds for all but nothing but zeros
            data[at : at + 2] = b"\xff\xff"


def _adjust(data: bytearray, at: int, old: bytes, new: bytes) -> None:
    (before,) = _U16.unpack_from(data, at)
    _U16.pack_into(data, at, _adjusted(before, old, new))


def push_vlan(frame: bytes, ethertype: int = ETH_VLAN) -> bytes:
    """Return ``frame`` with one more tag in front, a copy of the outermost there is or 0.

    Source: OpenFlow 1.3.5, section 5.11.1.
    """
    tci = frame[14:16] if parse(frame).vlans else b"\0\0"
    return frame[:12] + _U16.pack(ethertype) + tci + frame[12:]


def pop_vlan(frame: bytes) -> bytes:
    """Return ``frame`` without its outermost tag; as it is, if it has none."""
    return frame[:12] + frame[16:] if parse(frame).vlans else frame


# Builders


def ethernet(dst: str, src: str, eth_type: int, payload: bytes, vlan: int | None = None) -> bytes:
    """Return a frame, not padded; ``vlan`` is the 12-bit VLAN id of a tag."""
    tag = b"" if vlan is None else _TAG.pack(ETH_VLAN, vlan)
    return _mac(dst) + _mac(src) + tag + _U16.pack(eth_type) + payload


def arp_request(sender_mac: str, sender_ip: str, target_ip: str) -> bytes:
    """Return the broadcast frame that asks who has ``target_ip``."""
    arp = _arp(ARP_REQUEST, sender_mac, sender_ip, "00:00:00:00:00:00", target_ip)
    return ethernet(BROADCAST, sender_mac, ETH_ARP, arp)


def arp_reply(sender_mac: str, sender_ip: str, target_mac: str, target_ip: str) -> bytes:
    """Return the frame that tells ``target`` that ``sender_ip`` is at ``sender_mac``."""
    arp = _arp(ARP_REPLY, sender_mac, sender_ip, target_mac, target_ip)
    return ethernet(target_mac, sender_mac, ETH_ARP, arp)


def _arp(op: int, sha: str, spa: str, tha: str, tpa: str) -> bytes:
    return _ARP.pack(1, ETH_IPV4, 6, 4, op, _mac(sha), _ipv4(spa), _mac(tha), _ipv4(tpa))


def ipv4(src: str, dst: str, proto: int, payload: bytes, ttl: int = 64, dscp: int = 0) -> bytes:
    """Return an IPv4 packet without options that may be fragmented.

    Raises:
        MisuseError: it is longer than 65,535 bytes.
    """
    total = _IPV4.size + len(payload)
    if total > 0xFFFF:
        raise MisuseError(f"an IPv4 packet of {total} bytes")
    ends = (number("ipv4_src", src), number("ipv4_dst", dst))
    blank = _IPV4.pack(0x45, dscp << 2, total, 0, 0, ttl, proto, 0, *ends)
    head = _IPV4.pack(0x45, dscp << 2, total, 0, 0, ttl, proto, checksum(blank), *ends)
    return head + payload


def udp(src: str, dst: str, src_port: int, dst_port: int, data: bytes) -> bytes:
    """Return a UDP datagram with its checksum; the addresses are both IPv4 or both IPv6."""
    length = _UDP.size + len(data)
    if length > 0xFFFF:
        raise MisuseError(f"a UDP datagram of {length} bytes")
    blank = _UDP.pack(src_port, dst_port, length, 0) + data
    summed = transport_checksum(_packed(src), _packed(dst), IP_UDP, blank)
    return _UDP.pack(src_port, dst_port, length, summed or 0xFFFF) + data


def tcp(
    src: str, dst: str, src_port: int, dst_port: int, data: bytes = b"", flags: int = 2
) -> bytes:
    """Return a TCP segment without options with its checksum; ``flags`` 2 is SYN."""
    head = (src_port, dst_port, 0, 0, 5 << 4, flags, 0xFFFF)
    summed = transport_checksum(_packed(src), _packed(dst), IP_TCP, _TCP.pack(*head, 0, 0) + data)
    return _TCP.pack(*head, summed, 0) + data


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
    return _IPV6.pack(6 << 28, len(payload), proto, ttl, _packed(src), _packed(dst)) + payload


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
    summed = checksum(_ICMP.pack(*head, 0, identifier, sequence) + data)
    message = _ICMP.pack(*head, summed, identifier, sequence) + data
    return ethernet(eth_dst, eth_src, ETH_IPV4, ipv4(ipv4_src, ipv4_dst, IP_ICMP, message, ttl))


def icmp_echo_reply(request: bytes) -> bytes | None:
    """Return the answer to an ICMP echo request, from whom it was sent to; None if it is none."""
    headers = parse(request)
    if headers.fields.get("icmpv4_type") != ICMP_ECHO_REQUEST or headers.fragment:
        return None
    identifier, sequence = _PORTS.unpack_from(request, headers.l4 + 4)
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
