"""Rewriting a frame's fields with right checksums; VLAN tags put on and taken off."""

from anabranch.fabric.errors import MisuseError
from anabranch.fabric.frames.checksums import adjusted
from anabranch.fabric.frames.headers import ETH_VLAN, U16, Headers, number, parse

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
    (tci,) = U16.unpack_from(data, 14)
    if name == "vlan_vid":
        U16.pack_into(data, 14, tci & 0xF000 | new & 0xFFF)
    elif 0 <= new < 8:
        U16.pack_into(data, 14, tci & 0x1FFF | new << 13)
    else:
        raise OverflowError


def _set_traffic_class(data: bytearray, headers: Headers, name: str, new: int) -> None:
    if not 0 <= new < (64 if name == "ip_dscp" else 4):
        raise OverflowError
    at = headers.l3
    ipv4 = "ipv4_src" in headers.fields
    (first,) = U16.unpack_from(data, at)
    shift = (0 if ipv4 else 4) + (2 if name == "ip_dscp" else 0)
    mask = (0x3F if name == "ip_dscp" else 3) << shift
    changed = U16.pack(first & ~mask | new << shift)
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
    (before,) = U16.unpack_from(data, at)
    U16.pack_into(data, at, adjusted(before, old, new))


def push_vlan(frame: bytes, ethertype: int = ETH_VLAN) -> bytes:
    """Return ``frame`` with one more tag in front, a copy of the outermost there is or 0.

    Source: OpenFlow 1.3.5, section 5.11.1.
    """
    tci = frame[14:16] if parse(frame).vlans else b"\0\0"
    return frame[:12] + U16.pack(ethertype) + tci + frame[12:]


def pop_vlan(frame: bytes) -> bytes:
    """Return ``frame`` without its outermost tag; as it is, if it has none."""
    return frame[:12] + frame[16:] if parse(frame).vlans else frame
