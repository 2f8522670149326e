"""The operator's match: the seed's own file, what may be in it, and anything else."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from anabranch.fabric.errors import MisuseError
from anabranch.fabric.openflow.oxm import Match
from anabranch.fabric.pathlogic.extend_match import MAX_BYTES, loads, to_match

SEED = """
"vpm-extend-match": {
    "dataLayerType": "0x0800",
    "networkTypeOfService": 0,
    "transportDestination": 0,
    "dataLayerVirtualLanPriorityCodePoint": 0,
    "transportSource": 0,
    "networkSource": "0.0.0.0",
    "dataLayerDestination": "00:00:00:00:00:00",
    "networkSourceMaskLen": 0,
    "dataLayerVirtualLan": -1, "networkDestination":
        "10.0.0.255",
    "networkProtocol": 0,
    "networkDestinationMaskLen": 32,
    "dataLayerSource": "00:00:00:00:00:00",
}
"""
BROADCAST = Match(eth_type=0x0800, ipv4_dst="10.0.0.255")


def test_the_file_of_the_seed_is_read_as_it_stands() -> None:
    assert loads(SEED) == BROADCAST
    assert loads(f"{{{SEED}}}".encode()) == BROADCAST
    assert loads(f"\ufeff{{{SEED}}}".encode()) == BROADCAST


def test_comments_go_and_strings_stay() -> None:
    text = """{ // of the whole
      "vpm-extend-match": { /* "dataLayerType": 1, */
        "dataLayerType": "0x0800", // http://a, }
        "networkDestination": "10.0.0.255", // the last
      },
    }"""
    assert loads(text) == BROADCAST
    with pytest.raises(MisuseError, match="networkSource '//, }'"):
        loads('{"networkSource": "//, }"}')


def test_every_key_has_its_field() -> None:
    assert to_match(
        {
            "dataLayerType": 0x0800,
            "dataLayerSource": "AA:00:00:00:00:01",
            "dataLayerDestination": "aa:00:00:00:00:02",
            "dataLayerVirtualLan": 7,
            "dataLayerVirtualLanPriorityCodePoint": "5",
            "networkTypeOfService": 0xB8,
            "networkProtocol": "17",
            "networkSource": "10.1.2.3",
            "networkSourceMaskLen": 16,
            "networkDestination": "10.0.0.255",
            "transportSource": 4000,
            "transportDestination": "5004",
            "inputPort": -1,
        }
    ) == Match(
        eth_type=0x0800,
        eth_src="aa:00:00:00:00:01",
        eth_dst="aa:00:00:00:00:02",
        vlan_vid=0x1007,
        vlan_pcp=5,
        ip_dscp=46,
        ip_proto=17,
        ipv4_src="10.1.0.0/16",
        ipv4_dst="10.0.0.255",
        udp_src=4000,
        udp_dst=5004,
    )
    assert to_match(
        {"dataLayerType": 0x0800, "networkProtocol": 6, "transportDestination": 80}
    ) == Match(eth_type=0x0800, ip_proto=6, tcp_dst=80)
    assert loads("") == to_match({}) == to_match(dict.fromkeys(ZEROS, 0)) == Match()
    assert to_match(dict.fromkeys(ZEROS, -1) | {"networkDestinationMaskLen": 0}) == Match()


ZEROS = (
    "dataLayerType",
    "dataLayerVirtualLan",
    "networkProtocol",
    "networkSource",
    "dataLayerSource",
    "transportSource",
)


@pytest.mark.parametrize(
    ("section", "said"),
    [
        ({"dataLayerTypo": 1}, "'dataLayerTypo' is not one of"),
        ({"dataLayerType": "x"}, "dataLayerType 'x'"),
        ({"dataLayerType": 65536}, "dataLayerType 65536"),
        ({"dataLayerType": True}, "dataLayerType True"),
        ({"dataLayerType": None}, "dataLayerType None"),
        ({"dataLayerType": 2048.0}, "dataLayerType 2048.0"),
        ({"dataLayerVirtualLan": 4095}, "dataLayerVirtualLan 4095"),
        ({"dataLayerVirtualLanPriorityCodePoint": 3}, "PriorityCodePoint 3 needs"),
        ({"dataLayerSource": "00:11"}, "dataLayerSource '00:11' is not a MAC"),
        ({"networkSource": "10.0.0"}, "networkSource '10.0.0' is not an IPv4"),
        ({"networkSource": 7}, "networkSource 7 is not"),
        ({"networkSource": "10.0.0.1"}, "dataLayerType 0x0000 has no IPv4"),
        ({"networkSourceMaskLen": 33}, "networkSourceMaskLen 33"),
        ({"dataLayerType": 0x800, "networkTypeOfService": 3}, "networkTypeOfService 3"),
        ({"dataLayerType": 0x800, "transportSource": 3}, "networkProtocol 0 has no ports"),
        ({"inputPort": 3}, "inputPort 3"),
    ],
)
def test_an_error_names_key_and_value(section: dict[str, object], said: str) -> None:
    with pytest.raises(MisuseError, match=said):
        loads(json.dumps({"vpm-extend-match": section}))


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "[]",
        '{"vpm-extend-match": []}',
        '{"inputPort": 0, "inputPort": 0}',
        " " * MAX_BYTES * 2,
    ],
)
def test_what_is_no_such_file_is_misuse(text: str) -> None:
    with pytest.raises(MisuseError, match="vpm-extend-match: "):
        loads(text)


VALUES = (
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20)
    | st.sampled_from(("0x0800", "10.0.0.1", "aa:00:00:00:00:01", 0x800, 17, 6, -1, 0, 32))
)  # fmt: skip
KEYS = st.sampled_from(
    ("dataLayerType", "networkProtocol", "networkSource", "networkSourceMaskLen", "inputPort",
     "transportSource", "dataLayerSource", "dataLayerVirtualLan", "networkTypeOfService")
)  # fmt: skip


@given(st.dictionaries(KEYS | st.text(max_size=5), VALUES))
def test_any_object_is_a_match_or_misuse(section: dict[str, object]) -> None:
    try:
        match = loads(json.dumps({"vpm-extend-match": section}))
    except MisuseError:
        return
    assert isinstance(match, Match)


@given(st.binary() | st.text().map(str.encode) | st.binary().map(lambda b: SEED.encode()[:90] + b))
def test_any_bytes_are_a_match_or_misuse(data: bytes) -> None:
    try:
        loads(data)
    except MisuseError as problem:
        assert "vpm-extend-match" in str(problem)  # noqa: PT017
