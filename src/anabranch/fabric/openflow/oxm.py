"""What a packet must look like: OXM matches (OpenFlow 1.3.5, section 7.2.2 and 7.2.3)."""

import struct
from dataclasses import dataclass, field
from functools import lru_cache
from operator import attrgetter
from typing import Any

from anabranch.fabric.errors import MisuseError, ProtocolError
from anabranch.fabric.openflow.wire import IPV4, IPV6, MAC, Addressing, Reader, padding

ETH_IPV4 = 0x0800
ETH_ARP = 0x0806
ETH_IPV6 = 0x86DD
ETH_LLDP = 0x88CC
IP_ICMP = 1
IP_TCP = 6
IP_UDP = 17
IP_ICMPV6 = 58
VLAN_PRESENT = 0x1000  # OFPVID_PRESENT: the bit of vlan_vid that says "there is a tag"

Value = int | str | tuple[int, int]

_BASIC = 0x8000
_EXPERIMENTER = 0xFFFF
_ONF = 0x4F4E4600
_OXM = 1
_HEADER = struct.Struct("!HH")
_TLV = struct.Struct("!HBB")
_ONF_TLV = struct.Struct("!HBBI")
_BASIC_SINCE = 6  # version in which ONF's extension field tcp_flags became a basic one


@dataclass(frozen=True, slots=True, eq=False)
class Field:
    """One OXM field: number, width in bits, whether it may have a mask, and kind of value.

    ``width`` is in bytes on the wire, ``most`` the greatest number that fits, ``address`` None for
    a number. ``extension``: until OpenFlow 1.4 it is a field of ONF's experimenter class, from 1.5
    on one of the class OPENFLOW_BASIC as all others are.
    """

    name: str
    number: int
    bits: int
    maskable: bool = False
    address: Addressing | None = None
    extension: bool = False
    hexadecimal: bool = False
    width: int = field(init=False)
    most: int = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "width", (self.bits + 7) // 8)
        object.__setattr__(self, "most", (1 << self.bits) - 1)


# Ascending numbers put every field behind the one it requires (table 12 of the specification).
FIELDS = (
    Field("in_port", 0, 32),
    Field("metadata", 2, 64, maskable=True, hexadecimal=True),
    Field("eth_dst", 3, 48, maskable=True, address=MAC),
    Field("eth_src", 4, 48, maskable=True, address=MAC),
    Field("eth_type", 5, 16, hexadecimal=True),
    Field("vlan_vid", 6, 13, maskable=True, hexadecimal=True),
    Field("vlan_pcp", 7, 3),
    Field("ip_dscp", 8, 6),
    Field("ip_ecn", 9, 2),
    Field("ip_proto", 10, 8),
    Field("ipv4_src", 11, 32, maskable=True, address=IPV4),
    Field("ipv4_dst", 12, 32, maskable=True, address=IPV4),
    Field("tcp_src", 13, 16),
    Field("tcp_dst", 14, 16),
    Field("udp_src", 15, 16),
    Field("udp_dst", 16, 16),
    Field("icmpv4_type", 19, 8),
    Field("icmpv4_code", 20, 8),
    Field("arp_op", 21, 16),
    Field("arp_spa", 22, 32, maskable=True, address=IPV4),
    Field("arp_tpa", 23, 32, maskable=True, address=IPV4),
    Field("arp_sha", 24, 48, maskable=True, address=MAC),
    Field("arp_tha", 25, 48, maskable=True, address=MAC),
    Field("ipv6_src", 26, 128, maskable=True, address=IPV6),
    Field("ipv6_dst", 27, 128, maskable=True, address=IPV6),
    Field("icmpv6_type", 29, 8),
    Field("icmpv6_code", 30, 8),
    Field("ipv6_nd_target", 31, 128, address=IPV6),
    Field("tunnel_id", 38, 64, maskable=True, hexadecimal=True),
    Field("tcp_flags", 42, 12, maskable=True, extension=True, hexadecimal=True),
)
_BY_NUMBER = {known.number: known for known in FIELDS}
_BY_NAME = {known.name: known for known in FIELDS}
_values = attrgetter(*_BY_NAME)


@dataclass(frozen=True, slots=True, eq=False, repr=False, kw_only=True)
class Match:
    """Which packets a rule is for; None matches everything, equal matches compare equal.

    A masked number is the tuple ``(value, mask)``, a masked address ``"address/bits"`` or
    ``"address/mask"``; only the fields whose type says so may be masked.

    Attributes:
        in_port: OpenFlow port number.
        metadata: 64 bits that an earlier table wrote.
        eth_dst, eth_src: MAC addresses, ``aa:bb:cc:dd:ee:ff``, maskable.
        eth_type: 0x0800 is required by the IPv4 fields, 0x0806 by the ARP fields, 0x86dd by the
            IPv6 fields; in a tagged frame it is the type behind the tag.
        vlan_vid: VLAN_PRESENT | VLAN id, 0 for untagged frames.
        vlan_pcp: priority of the tag; requires vlan_vid with VLAN_PRESENT.
        ip_dscp, ip_ecn, ip_proto: of IPv4 and IPv6.
        ipv4_src, ipv4_dst, ipv6_src, ipv6_dst: maskable addresses.
        tcp_src, tcp_dst, tcp_flags: require ip_proto 6.
        udp_src, udp_dst: require ip_proto 17.
        icmpv4_type, icmpv4_code: require ip_proto 1.
        icmpv6_type, icmpv6_code, ipv6_nd_target: require ip_proto 58.
        arp_op, arp_spa, arp_tpa, arp_sha, arp_tha: of ARP, the addresses maskable.
        tunnel_id: key of the tunnel that the packet came by.
        other: OXM fields of a switch's reply that have no attribute here, as they came.
        fields: name and value of every field that is not None, in the order of the wire.

    Raises:
        MisuseError: a value does not fit its field.
    """

    in_port: int | None = None
    metadata: int | tuple[int, int] | None = None
    eth_dst: str | None = None
    eth_src: str | None = None
    eth_type: int | None = None
    vlan_vid: int | tuple[int, int] | None = None
    vlan_pcp: int | None = None
    ip_dscp: int | None = None
    ip_ecn: int | None = None
    ip_proto: int | None = None
    ipv4_src: str | None = None
    ipv4_dst: str | None = None
    tcp_src: int | None = None
    tcp_dst: int | None = None
    udp_src: int | None = None
    udp_dst: int | None = None
    icmpv4_type: int | None = None
    icmpv4_code: int | None = None
    arp_op: int | None = None
    arp_spa: str | None = None
    arp_tpa: str | None = None
    arp_sha: str | None = None
    arp_tha: str | None = None
    ipv6_src: str | None = None
    ipv6_dst: str | None = None
    icmpv6_type: int | None = None
    icmpv6_code: int | None = None
    ipv6_nd_target: str | None = None
    tunnel_id: int | tuple[int, int] | None = None
    tcp_flags: int | tuple[int, int] | None = None
    other: bytes = b""
    fields: tuple[tuple[str, Value], ...] = field(init=False)

    def __post_init__(self) -> None:
        found = []
        for known, value in zip(FIELDS, _values(self), strict=True):
            if value is not None:
                one = canonical(known, value, masks=True)
                if one is not value:
                    object.__setattr__(self, known.name, one)
                if one is not None:
                    found.append((known.name, one))
        object.__setattr__(self, "fields", tuple(found))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Match):
            return NotImplemented
        return self.fields == other.fields and self.other == other.other

    def __hash__(self) -> int:
        return hash((self.fields, self.other))

    def __str__(self) -> str:
        shown = [f"{name}={_shown(_BY_NAME[name], value)}" for name, value in self.fields]
        if self.other:
            shown.append(f"other={self.other.hex()}")
        return " ".join(shown) or "any"

    def __repr__(self) -> str:
        shown = [f"{name}={value!r}" for name, value in self.fields]
        if self.other:
            shown.append(f"other={self.other!r}")
        return f"Match({', '.join(shown)})"


EVERYTHING = Match()

_new = object.__new__
_SLOTS = [(name, Match.__dict__[name].__set__) for name in _BY_NAME]
_put_other, _put_fields = (Match.__dict__[name].__set__ for name in ("other", "fields"))


def field_named(name: str) -> Field:
    """Return the field called ``name``.

    Raises:
        MisuseError: there is none.
    """
    try:
        return _BY_NAME[name]
    except KeyError:
        raise MisuseError(f"there is no match field {name!r}") from None


def canonical(known: Field, value: Value, *, masks: bool) -> Value | None:
    """Return ``value`` in the one spelling of its field; None if its mask excludes nothing.

    Raises:
        MisuseError: it does not fit the field, or has a mask where none may be.
    """
    if type(value) is int and known.address is None and 0 <= value <= known.most:
        return value
    masks = masks and known.maskable
    match value:
        case int() if known.address is None and 0 <= value <= known.most:
            return int(value)  # an IntEnum, say
        case str() if known.address is not None and (masks or "/" not in value):
            return known.address.canonical(value)
        case (int(number), int(mask)) if known.address is None and masks:
            if 0 <= number <= known.most and 0 <= mask < 1 << 8 * known.width:
                mask &= known.most
                full = mask == known.most
                return int(number) if full else (number & mask, mask) if mask else None
    raise MisuseError(f"{value!r} does not fit into {known.name}")


def _shown(known: Field, value: Value) -> str:
    if isinstance(value, tuple):
        return f"{value[0]:#x}/{value[1]:#x}"
    if known.hexadecimal and isinstance(value, int):
        return f"{value:#0{2 + 2 * known.width if known.name == 'eth_type' else 0}x}"
    return str(value)


def encode_field(known: Field, value: Value, version: int = 4) -> bytes:
    """Return one TLV: 4 bytes of header, then the value and, if it has one, its mask."""
    mask: bytes | None = None
    if isinstance(value, int):
        raw = value.to_bytes(known.width, "big")
    elif isinstance(value, tuple):
        raw, mask = (part.to_bytes(known.width, "big") for part in value)
    else:
        assert known.address is not None
        raw, mask = known.address.split(value)
    number = known.number << 1 | (mask is not None)
    payload = raw if mask is None else raw + mask
    if known.extension and version < _BASIC_SINCE:
        return _ONF_TLV.pack(_EXPERIMENTER, number, 4 + len(payload), _ONF) + payload
    return _TLV.pack(_BASIC, number, len(payload)) + payload


def decode_field(reader: Reader) -> tuple[Field, Value | None] | bytes:
    """Read one TLV; one that :class:`Match` cannot express comes back as its bytes.

    Raises:
        ProtocolError: it is cut short or its length contradicts its field.
    """
    header = reader.take(_TLV.size)
    return _decode_tlv(header + reader.take(header[3]))


@lru_cache(maxsize=16384)  # the same few ports, types and groups come again and again
def _decode_tlv(raw: bytes) -> tuple[Field, Value | None] | bytes:
    oxm_class, number, _ = _TLV.unpack_from(raw)
    payload = raw[_TLV.size :]
    known = _BY_NUMBER.get(number >> 1)
    if oxm_class == _EXPERIMENTER and payload[:4] == _ONF.to_bytes(4, "big"):
        payload = payload[4:]
        if known is None or not known.extension:
            return raw
    elif oxm_class != _BASIC or known is None:
        return raw
    masked = bool(number & 1)
    if len(payload) != known.width * (1 + masked):
        raise ProtocolError(f"{known.name} with {len(payload)} bytes")
    if known.address is not None and not masked:
        return known, known.address.to_text(payload)
    try:
        return known, canonical(known, _value(known, payload, masked), masks=True)
    except MisuseError:  # a mask, or a bit, that the specification does not provide for
        return raw


def _value(known: Field, payload: bytes, masked: bool) -> Value:
    value, mask = payload[: known.width], payload[known.width :] if masked else None
    if known.address is not None:
        text = known.address.to_text(value)
        return text if mask is None else f"{text}/{known.address.to_text(mask)}"
    number = int.from_bytes(value, "big")
    if mask is None or not mask.strip(b"\xff"):
        return number
    return number, int.from_bytes(mask, "big")


def encode_match(match: Match, version: int = 4) -> bytes:
    """Return ``ofp_match``: type, length without padding, TLVs, zeros up to a multiple of 8."""
    fields = b"".join(
        [encode_field(_BY_NAME[name], value, version) for name, value in match.fields]
    )
    fields += match.other
    length = _HEADER.size + len(fields)
    return _HEADER.pack(_OXM, length) + fields + padding(length)


def decode_match(reader: Reader) -> Match:
    """Read ``ofp_match`` with its padding.

    Raises:
        ProtocolError: not of the OXM kind, cut short, or a field appears twice.
    """
    kind, length = reader.unpack(_HEADER)
    if kind != _OXM or length < _HEADER.size:
        raise ProtocolError(f"match of type {kind} and length {length}")
    fields = reader.take(length - _HEADER.size)
    reader.take(-length % 8)
    values: dict[str, Value | None] = {}
    other = b""
    at = last = 0
    ascending = True
    while at < len(fields):
        end = at + _TLV.size + int.from_bytes(fields[at + 3 : at + 4], "big")
        if end > len(fields):
            raise ProtocolError("match cut short in the middle of a field")
        decoded = _decode_tlv(fields[at:end])
        at = end
        if isinstance(decoded, bytes):
            other += decoded
        elif decoded[0].name in values:
            raise ProtocolError(f"{decoded[0].name} twice in one match")
        else:
            values[decoded[0].name] = decoded[1]
            ascending = ascending and last <= decoded[0].number
            last = decoded[0].number
    if not ascending or None in values.values():
        return Match(**values, other=other)  # type: ignore[arg-type]  # _decode_tlv checks
    return _of_canonical(values, other)


def _of_canonical(values: dict[str, Any], other: bytes) -> Match:
    """Return a match of values that are canonical and in order: three times as fast as Match()."""
    match = _new(Match)
    for name, put in _SLOTS:
        put(match, values.get(name))
    _put_other(match, other)
    _put_fields(match, tuple(values.items()))
    return match
