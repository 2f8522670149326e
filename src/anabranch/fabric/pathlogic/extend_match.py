"""The operator's specific match, as the seed's JSON file has it (7.3).

The keys are those of Floodlight's ``OFMatch``. 0, -1, ``0.0.0.0`` and the zero MAC address mean
that any value will do. Trailing commas, as in the seed's own example, and comments are tolerated.
"""

import json
import re
from collections.abc import Callable, Mapping
from ipaddress import IPv4Address
from typing import Any

from anabranch.fabric.errors import MisuseError, ProtocolError
from anabranch.fabric.openflow.oxm import ETH_IPV4, IP_TCP, IP_UDP, VLAN_PRESENT, Match

SECTION = "vpm-extend-match"
MAX_BYTES = 65_536

_TOKENS = re.compile(r'("(?:[^"\\]|\\.)*")|//[^\n]*|/\*.*?\*/', re.DOTALL)
_COMMAS = re.compile(r'("(?:[^"\\]|\\.)*")|,(?=\s*[}\]])', re.DOTALL)
_UNTAGGED = 0xFFFF  # what Floodlight reads -1 as
_ZERO_MAC = "00:00:00:00:00:00"
_ANY_ADDRESS = "0.0.0.0"  # nobody listens on it
_TRANSPORTS = {IP_TCP: "tcp", IP_UDP: "udp"}
_MAC = re.compile(r"[0-9a-fA-F]{2}(:[0-9a-fA-F]{2}){5}")

_INTEGERS = {
    "dataLayerType": 0xFFFF,
    "dataLayerVirtualLan": _UNTAGGED,
    "dataLayerVirtualLanPriorityCodePoint": 7,
    "networkTypeOfService": 0xFF,
    "networkProtocol": 0xFF,
    "networkSourceMaskLen": 32,
    "networkDestinationMaskLen": 32,
    "transportSource": 0xFFFF,
    "transportDestination": 0xFFFF,
    "inputPort": 0xFFFF,
}
_MACS = ("dataLayerSource", "dataLayerDestination")
_ADDRESSES = ("networkSource", "networkDestination")


def loads(data: bytes | str) -> Match:
    """Return the match that the file's contents say.

    Raises:
        MisuseError: naming the key and its value, or the place where it is not JSON.
    """
    return to_match(section_of(data))


def section_of(data: bytes | str) -> dict[str, Any]:
    """Return the keys and values of the file's section as they stand. Raises as :func:`loads`."""
    if isinstance(data, bytes):
        try:
            data = data.decode("utf-8-sig")
        except UnicodeDecodeError as problem:
            raise MisuseError(f"{SECTION}: not UTF-8 at byte {problem.start}") from None
    if len(data) > MAX_BYTES:
        raise MisuseError(f"{SECTION}: longer than {MAX_BYTES} characters")
    document = _document(_repaired(data))
    section = document.get(SECTION, document)
    if not isinstance(section, dict):
        raise MisuseError(f"{SECTION}: an object is expected, not {_shown(section)}")
    return section


def to_match(section: Mapping[str, Any]) -> Match:
    """Return what the seed's keys and values say. Raises as :func:`loads`."""
    known = {*_INTEGERS, *_MACS, *_ADDRESSES}
    for key in section:
        if key not in known:
            raise MisuseError(f"{SECTION}: {_shown(key)} is not one of {', '.join(sorted(known))}")
    numbers = {key: _integer(key, section.get(key, 0)) for key in _INTEGERS}
    if numbers["inputPort"]:
        raise MisuseError(f"{SECTION}: inputPort {numbers['inputPort']}: the path decides on ports")
    fields: dict[str, Any] = {}
    if numbers["dataLayerType"]:
        fields["eth_type"] = numbers["dataLayerType"]
    for key, name in zip(_MACS, ("eth_src", "eth_dst"), strict=True):
        mac = _text(key, section.get(key, _ZERO_MAC), _mac)
        if mac != _ZERO_MAC:
            fields[name] = mac
    fields |= _vlan(numbers) | _network(section, numbers) | _transport(numbers)
    try:
        return Match(**fields)
    except (MisuseError, ProtocolError) as problem:  # all was checked; only in case it was not
        raise MisuseError(f"{SECTION}: {problem}") from None


def _vlan(numbers: Mapping[str, int]) -> dict[str, Any]:
    vlan, priority = numbers["dataLayerVirtualLan"], numbers["dataLayerVirtualLanPriorityCodePoint"]
    if vlan in (0, _UNTAGGED):
        if priority:
            raise MisuseError(
                f"{SECTION}: dataLayerVirtualLanPriorityCodePoint {priority} needs a "
                "dataLayerVirtualLan"
            )
        return {}
    if vlan > 4094:
        raise MisuseError(f"{SECTION}: dataLayerVirtualLan {vlan}: 1 to 4094 are VLANs")
    return {"vlan_vid": VLAN_PRESENT | vlan} | ({"vlan_pcp": priority} if priority else {})


def _network(section: Mapping[str, Any], numbers: Mapping[str, int]) -> dict[str, Any]:
    fields: dict[str, Any] = {}
    for key, name in zip(_ADDRESSES, ("ipv4_src", "ipv4_dst"), strict=True):
        address = _text(key, section.get(key, _ANY_ADDRESS), _address)
        bits = numbers[f"{key}MaskLen"] if f"{key}MaskLen" in section else 32
        if address != _ANY_ADDRESS and bits:
            fields[name] = f"{address}/{bits}"
    service = numbers["networkTypeOfService"]
    if service & 3:
        raise MisuseError(
            f"{SECTION}: networkTypeOfService {service}: its lower two bits are not matched"
        )
    if service:
        fields["ip_dscp"] = service >> 2
    if numbers["networkProtocol"]:
        fields["ip_proto"] = numbers["networkProtocol"]
    if fields and numbers["dataLayerType"] != ETH_IPV4:
        raise MisuseError(
            f"{SECTION}: dataLayerType {numbers['dataLayerType']:#06x} has no IPv4 fields; "
            "0x0800 has"
        )
    return fields


def _transport(numbers: Mapping[str, int]) -> dict[str, Any]:
    ports = {"src": numbers["transportSource"], "dst": numbers["transportDestination"]}
    if not any(ports.values()):
        return {}
    prefix = _TRANSPORTS.get(numbers["networkProtocol"])
    if prefix is None:
        raise MisuseError(
            f"{SECTION}: networkProtocol {numbers['networkProtocol']} has no ports; 6 and 17 have"
        )
    return {f"{prefix}_{end}": port for end, port in ports.items() if port}


def _repaired(text: str) -> str:
    text = _TOKENS.sub(lambda found: found[1] or " ", text)
    text = _COMMAS.sub(lambda found: found[1] or "", text).strip()
    # The seed shows the section without the braces of the whole.
    return text if text.startswith("{") else f"{{{text.rstrip(',')}}}"


def _document(text: str) -> dict[str, Any]:
    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) != len(pairs):
            twice = next(key for key, _ in pairs if [k for k, _ in pairs].count(key) > 1)
            raise MisuseError(f"{SECTION}: {_shown(twice)} is there twice")
        return found

    try:
        document = json.loads(text, object_pairs_hook=unique)
    except (ValueError, RecursionError) as problem:
        raise MisuseError(f"{SECTION}: not JSON: {problem}") from None
    assert isinstance(document, dict), "it begins with a brace"
    return document


def _integer(key: str, value: object) -> int:
    number: int | None = None
    if isinstance(value, int) and not isinstance(value, bool):
        number = value
    elif isinstance(value, str) and len(value) <= 12 and value.isascii():
        try:
            number = int(value, 0)
        except ValueError:
            number = None
    if number == -1:
        return _UNTAGGED if key == "dataLayerVirtualLan" else 0
    if number is None or not 0 <= number <= _INTEGERS[key]:
        raise MisuseError(f"{SECTION}: {key} {_shown(value)}: 0 to {_INTEGERS[key]} fit")
    return number


def _text(key: str, value: object, read: Callable[[str], str | None]) -> str:
    found = read(value) if isinstance(value, str) else None
    if isinstance(value, int) and not isinstance(value, bool) and value in (0, -1):
        return _ZERO_MAC if key in _MACS else _ANY_ADDRESS
    if found is None:
        what = "a MAC address" if key in _MACS else "an IPv4 address"
        raise MisuseError(f"{SECTION}: {key} {_shown(value)} is not {what}")
    return found


def _mac(text: str) -> str | None:
    return text.lower() if _MAC.fullmatch(text) else None


def _address(text: str) -> str | None:
    try:
        return str(IPv4Address(text))
    except ValueError:
        return None


def _shown(value: object) -> str:
    return repr(value)[:60]
