"""What a packet must look like: OXM matches (OpenFlow 1.3.5, section 7.2.2 and 7.2.3)."""

import struct
from dataclasses import dataclass

from anabranch.fabric.errors import MisuseError, ProtocolError
from anabranch.fabric.wire import (
    Reader,
    canonical_ipv4,
    canonical_ipv4_mask,
    canonical_mac,
    ipv4_bytes,
    ipv4_text,
    mac_bytes,
    mac_text,
    padding,
)

ETH_IPV4 = 0x0800
IP_UDP = 17

_BASIC = 0x8000
_OXM = 1
_HEADER = struct.Struct("!HH")
_TLV = struct.Struct("!HBB")


@dataclass(frozen=True, slots=True)
class Field:
    """One OXM field of the class OPENFLOW_BASIC: number, width in bytes, kind of value."""

    name: str
    number: int
    width: int
    kind: str = "int"


# Ascending numbers put every field behind the one it requires (table 12 of the specification).
FIELDS = (
    Field("in_port", 0, 4),
    Field("eth_dst", 3, 6, "mac"),
    Field("eth_src", 4, 6, "mac"),
    Field("eth_type", 5, 2),
    Field("ip_proto", 10, 1),
    Field("ipv4_src", 11, 4, "ipv4"),
    Field("ipv4_dst", 12, 4, "ipv4"),
    Field("udp_src", 15, 2),
    Field("udp_dst", 16, 2),
    Field("arp_op", 21, 2),
    Field("arp_tpa", 23, 4, "ipv4"),
)
_BY_NUMBER = {field.number: field for field in FIELDS}
_BY_NAME = {field.name: field for field in FIELDS}


@dataclass(frozen=True, slots=True)
class Match:
    """Which packets a rule is for; None matches everything, equal matches compare equal.

    Attributes:
        in_port: OpenFlow port number.
        eth_dst, eth_src: MAC addresses, ``aa:bb:cc:dd:ee:ff``.
        eth_type: 0x0800 is required by the IPv4 fields, 0x0806 by the ARP fields.
        ip_proto: 17 is required by the UDP fields.
        ipv4_src, ipv4_dst, arp_tpa: address, ``address/bits`` or ``address/mask``.
        other: OXM fields of a switch's reply that have no attribute here, as they came.

    Raises:
        MisuseError: a value does not fit its field.
    """

    in_port: int | None = None
    eth_dst: str | None = None
    eth_src: str | None = None
    eth_type: int | None = None
    ip_proto: int | None = None
    ipv4_src: str | None = None
    ipv4_dst: str | None = None
    udp_src: int | None = None
    udp_dst: int | None = None
    arp_op: int | None = None
    arp_tpa: str | None = None
    other: bytes = b""

    def __post_init__(self) -> None:
        for field in FIELDS:
            value = getattr(self, field.name)
            if value is not None:
                object.__setattr__(self, field.name, canonical(field, value, masks=True))


EVERYTHING = Match()


def field_named(name: str) -> Field:
    """Return the field called ``name``.

    Raises:
        MisuseError: there is none.
    """
    try:
        return _BY_NAME[name]
    except KeyError:
        raise MisuseError(f"there is no match field {name!r}") from None


def canonical(field: Field, value: int | str, *, masks: bool) -> int | str | None:
    """Return ``value`` in the one spelling of its field; None if its mask excludes nothing.

    Raises:
        MisuseError: it does not fit the field.
    """
    if field.kind == "int":
        if isinstance(value, int) and 0 <= value < 1 << (8 * field.width):
            return int(value)
    elif isinstance(value, str):
        if field.kind == "mac":
            return canonical_mac(value)
        text = canonical_ipv4_mask(value) if masks else canonical_ipv4(value)
        return None if text.endswith("/0") else text
    raise MisuseError(f"{value!r} does not fit into {field.name}")


def encode_field(field: Field, value: int | str) -> bytes:
    """Return one TLV: 4 bytes of header, then the value and, if it has one, its mask."""
    mask: bytes | None = None
    if isinstance(value, int):
        raw = value.to_bytes(field.width, "big")
    elif field.kind == "mac":
        raw = mac_bytes(value)
    else:
        raw, mask = ipv4_bytes(value)
    payload = raw + (mask or b"")
    return _TLV.pack(_BASIC, field.number << 1 | (mask is not None), len(payload)) + payload


def decode_field(reader: Reader) -> tuple[Field, int | str | None] | bytes:
    """Read one TLV; one that :class:`Match` cannot express comes back as its bytes.

    Raises:
        ProtocolError: it is cut short or its length contradicts its field.
    """
    oxm_class, number, length = reader.unpack(_TLV)
    payload = reader.take(length)
    raw = _TLV.pack(oxm_class, number, length) + payload
    field = _BY_NUMBER.get(number >> 1) if oxm_class == _BASIC else None
    if field is None:
        return raw
    masked = bool(number & 1)
    if length != field.width * (1 + masked):
        raise ProtocolError(f"{field.name} with {length} bytes")
    value, mask = payload[: field.width], payload[field.width :] if masked else None
    if field.kind == "ipv4":
        return field, canonical(field, ipv4_text(value, mask), masks=True)
    if mask is not None and mask.strip(b"\xff"):
        return raw
    return field, mac_text(value) if field.kind == "mac" else int.from_bytes(value, "big")


def encode_match(match: Match) -> bytes:
    """Return ``ofp_match``: type, length without padding, TLVs, zeros up to a multiple of 8."""
    fields = b"".join(
        encode_field(field, value)
        for field in FIELDS
        if (value := getattr(match, field.name)) is not None
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
    fields = reader.part(length - _HEADER.size)
    reader.take(-length % 8)
    values: dict[str, int | str | None] = {}
    other = b""
    while len(fields):
        decoded = decode_field(fields)
        if isinstance(decoded, bytes):
            other += decoded
        elif decoded[0].name in values:
            raise ProtocolError(f"{decoded[0].name} twice in one match")
        else:
            values[decoded[0].name] = decoded[1]
    return Match(**values, other=other)  # type: ignore[arg-type]  # widths are checked above
