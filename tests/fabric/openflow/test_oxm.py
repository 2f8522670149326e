"""Matches: one spelling, all fields on the wire, and what nobody may ask for."""

import struct
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.fabric.openflow.oracle import (
    ALL_VERSIONS,
    CONSTANTS,
    MATCHES,
    PARSERS,
    ours_match,
    their_match,
    theirs_match,
)

from anabranch.fabric.errors import MisuseError, ProtocolError
from anabranch.fabric.openflow.actions import SETTABLE, SetField
from anabranch.fabric.openflow.oxm import (
    EVERYTHING,
    FIELDS,
    Match,
    decode_match,
    encode_match,
    field_named,
)
from anabranch.fabric.openflow.wire import Reader


def wire(match: Match, version: int = 4) -> Match:
    reader = Reader(encode_match(match, version))
    found = decode_match(reader)
    assert len(reader) == 0
    return found


@given(MATCHES, ALL_VERSIONS)
def test_a_match_survives_the_wire(match: Match, version: int) -> None:
    assert len(encode_match(match, version)) % 8 == 0
    found = wire(match, version)
    assert found == match
    assert hash(found) == hash(match)


@given(MATCHES, ALL_VERSIONS)
def test_os_ken_writes_and_reads_a_match_as_we_do(match: Match, version: int) -> None:
    raw = encode_match(match, version)
    theirs = bytearray()
    their_match(match, version).serialize(theirs, 0)
    assert sorted_fields(raw) == sorted_fields(bytes(theirs))
    assert theirs_match(PARSERS[version].OFPMatch.parser(raw, 0)) == ours_match(match)


def sorted_fields(raw: bytes) -> list[bytes]:
    """Return the TLVs of an ofp_match; os-ken writes experimenters' fields in another place."""
    length = struct.unpack_from("!HH", raw)[1]
    fields, at = [], 4
    while at < length:
        end = at + 4 + raw[at + 3]
        fields.append(raw[at:end])
        at = end
    return sorted(fields)


def test_every_field_has_the_number_and_width_of_the_specification() -> None:
    theirs = {known.name: known for known in CONSTANTS[6].oxm_types}
    for field in FIELDS:
        assert theirs[field.name].oxm_field == field.number
        assert theirs[field.name].type.size == field.width
        assert getattr(Match(), field.name) is None
    assert {field.name for field in FIELDS} >= set(SETTABLE)


@given(MATCHES)
def test_a_match_equals_what_its_repr_says(match: Match) -> None:
    assert eval(repr(match), {"Match": Match}) == match


def test_equal_matches_have_one_spelling() -> None:
    assert Match(ipv4_dst="10.1.2.3/8") == Match(ipv4_dst="10.0.0.0/255.0.0.0")
    assert Match(ipv4_dst="10.1.2.3/32") == Match(ipv4_dst="10.1.2.3")
    assert Match(ipv4_dst="10.1.2.3/0") == Match(ipv4_dst="1.1.1.1/0.0.0.0") == Match()
    assert Match(ipv4_src="10.1.2.3/255.0.255.0").ipv4_src == "10.0.2.0/255.0.255.0"
    assert Match(eth_dst="AA:bb:CC:00:11:22").eth_dst == "aa:bb:cc:00:11:22"
    assert Match(eth_dst="ff:ff:ff:00:11:22/ff:ff:ff:FF:ff:ff") == Match(
        eth_dst="ff:ff:ff:0:11:22".replace(":0:", ":00:")
    )
    assert Match(eth_dst="ff:ff:ff:00:11:22/1").eth_dst == "80:00:00:00:00:00/80:00:00:00:00:00"
    assert Match(ipv6_dst="FE80:0::1/10") == Match(ipv6_dst="fe80::/ffc0::")
    assert Match(ipv6_dst="fe80::1/128").ipv6_dst == "fe80::1"
    assert Match(vlan_vid=(0x1FFF, 0x1000)) == Match(vlan_vid=(0x1000, 0x1000))
    assert (
        Match(vlan_vid=(0x1005, 0x1FFF))
        == Match(vlan_vid=(0x1005, 0xFFFF))
        == Match(vlan_vid=0x1005)
    )
    assert Match(metadata=(7, 0)) == EVERYTHING
    assert Match(metadata=(7, 0)).metadata is None
    assert len({Match(metadata=(0xFF, 1)), Match(metadata=(1, 1)), Match(metadata=1)}) == 2
    assert Match(in_port=1) != Match(in_port=1, other=b"\x80\0\0\0")


def test_a_match_shows_only_the_fields_it_has() -> None:
    match = Match(in_port=1, eth_type=0x0800, ipv4_dst="239.0.0.0/8", metadata=(1, 1), vlan_vid=0)
    assert str(match) == (
        "in_port=1 metadata=0x1/0x1 eth_type=0x0800 vlan_vid=0x0 ipv4_dst=239.0.0.0/8"
    )
    assert repr(Match(in_port=1)) == "Match(in_port=1)"
    assert str(EVERYTHING) == "any"
    assert str(Match(other=b"\x80\0\1")) == "other=800001"
    assert match.fields[0] == ("in_port", 1)


@pytest.mark.parametrize(
    "values",
    [
        {"in_port": -1},
        {"in_port": "1"},
        {"in_port": (1, 1)},
        {"in_port": 1.0},
        {"in_port": [1]},
        {"udp_dst": 65536},
        {"vlan_vid": 0x2000},
        {"vlan_pcp": 8},
        {"ip_dscp": 64},
        {"metadata": (1, 2**64)},
        {"metadata": (2**64, 1)},
        {"metadata": (1, 2, 3)},
        {"metadata": ("1", 1)},
        {"eth_dst": "aa:bb"},
        {"eth_dst": "02:00:00:00:00:01/49"},
        {"eth_dst": 5},
        {"ipv4_dst": "10.0.0.256"},
        {"ipv4_dst": "10.0.0.1/33"},
        {"ipv4_dst": "10.0.0.1/x"},
        {"ipv4_dst": "10.0.0.1/"},
        {"ipv4_dst": "10.0.0.1/8/8"},
        {"ipv4_dst": "10.0.0.1\0"},
        {"ipv4_dst": "\ud800"},
        {"ipv4_dst": "10.0.0.1/٣"},
        {"ipv6_dst": "fe80::1%eth0"},
        {"ipv6_dst": "1.2.3.4"},
        {"ipv6_dst": "::/129"},
        {"ipv6_nd_target": "::/64"},
        {"ip_proto": 256},
    ],
)
def test_impossible_matches_are_misuse(values: dict[str, Any]) -> None:
    with pytest.raises(MisuseError):
        Match(**values)


def test_no_other_field_can_be_asked_for() -> None:
    with pytest.raises(MisuseError, match="mpls_label"):
        field_named("mpls_label")
    for name, value in (("eth_type", 1), ("ipv4_dst", "10.0.0.0/8"), ("vlan_vid", (1, 1))):
        with pytest.raises(MisuseError):
            SetField(name, value)  # type: ignore[arg-type]


def test_fields_that_no_match_can_express_are_kept_as_they_came() -> None:
    mpls = bytes.fromhex("80004404" + "00000005")
    masked_port = bytes.fromhex(
        "80001f04" + "1f40" + "ff00"
    )  # of Open vSwitch: udp_src 8000/0xff00
    large_vlan = bytes.fromhex("80000c02" + "f001")
    other_experimenter = bytes.fromhex("ffff5408" + "00002320" + "00020012")
    fields = mpls + masked_port + large_vlan + other_experimenter
    raw = struct.pack("!HH", 1, 4 + len(fields)) + fields + bytes(-(4 + len(fields)) % 8)
    match = decode_match(Reader(raw))
    assert match == Match(other=fields)
    assert encode_match(match) == raw


def test_a_mask_of_ones_is_no_mask() -> None:
    raw = struct.pack("!HH", 1, 16) + bytes.fromhex("80001708" + "0a000001" + "ffffffff")
    assert decode_match(Reader(raw)) == Match(ipv4_src="10.0.0.1")


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ("8000000400000001" * 2, "in_port twice"),
        ("800000040000000180", "cut short"),
        ("8000000400000001800000", "cut short"),
        ("800000030000000000", "in_port with 3"),
        ("8000010400000001", "in_port with 4"),
    ],
)
def test_malformed_fields_are_the_switchs_fault(fields: str, reason: str) -> None:
    raw = bytes.fromhex(fields)
    with pytest.raises(ProtocolError, match=reason):
        decode_match(Reader(struct.pack("!HH", 1, 4 + len(raw)) + raw + bytes(8)))


@given(st.binary(max_size=80))
def test_any_fields_give_a_match_that_goes_back_unchanged(fields: bytes) -> None:
    raw = struct.pack("!HH", 1, 4 + len(fields)) + fields + bytes(-(4 + len(fields)) % 8)
    try:
        match = decode_match(Reader(raw))
    except ProtocolError:
        return
    assert wire(match) == match
