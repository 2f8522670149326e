"""What a director and its controllers tell each other is what was meant."""

import datetime
import json
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.fabric.worlds import intents_of, network_of

from anabranch.fabric import intents_json
from anabranch.fabric.errors import MisuseError
from anabranch.fabric.intents import Intents, Tap
from anabranch.fabric.intents_json import Wanted, declared_links
from anabranch.fabric.model import Link, LinkInfo, PortRef
from anabranch.fabric.openflow.oxm import Match
from anabranch.fabric.pathlogic.logic import Path, Role

NETWORK = network_of(3, [(0, 1, False), (1, 2, False)])
TAP = Tap("syn", Match(eth_type=0x0800, ip_proto=6, tcp_flags=(2, 2)), frozenset({"s1"}))
PORTS = st.builds(PortRef, st.sampled_from(("s1", "s2")), st.integers(1, 0xFFFFFF00))
INFOS = st.builds(LinkInfo, capacity_mbit=st.none() | st.floats(0, 1e6), redundant=st.booleans())
PATHS = st.builds(
    Path,
    st.text(max_size=10),
    PORTS,
    PORTS,
    st.ip_addresses(v=4).map(str),
    st.sampled_from((Match(), Match(eth_type=0x0800, vlan_vid=(0x1000, 0x1000)), TAP.match)),
    st.none() | st.just("02:00:00:00:00:01"),
    st.none() | st.dictionaries(st.text(max_size=5), st.sampled_from(Role), max_size=3),
)


@given(intents_of(NETWORK))
def test_intents_are_themselves_again(intents: Intents) -> None:
    wanted = Intents(intents.flows, (TAP,))
    assert intents_json.loads(intents_json.dumps(wanted)) == wanted
    assert intents_json.from_plain(json.loads(intents_json.dumps(wanted))) == wanted


@given(st.lists(PATHS, max_size=3))
def test_paths_are_themselves_again(paths: list[Path]) -> None:
    wanted = Wanted(paths=tuple(paths))
    assert intents_json.load_wanted(intents_json.dump_wanted(wanted)) == wanted


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=10,
)


@given(st.binary(max_size=50) | _JSON.map(lambda value: json.dumps(value).encode()))
def test_anything_else_is_misuse(data: bytes) -> None:
    for load in (intents_json.loads, intents_json.load_wanted):
        with suppress(MisuseError):
            load(data)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"external": "nowhere"}, "path a: 'nowhere' is not"),
        ({"external_mac": "x"}, "path a: 'x' is not a MAC"),
        ({"ingress": "s1:1"}, "wrong at paths.0.ingress"),
        ({"roles": {"s1": "king"}}, "wrong at paths.0.roles.s1"),
        ({"match": {"udp_dst": 70000}}, "the wishes are wrong"),
    ],
)
def test_what_is_wrong_with_a_path_is_named(change: dict[str, Any], words: str) -> None:
    path = Path("a", PortRef("s1", 1), PortRef("s2", 1), "10.0.0.1", Match(eth_type=0x0800))
    good = json.loads(intents_json.dump_wanted(Wanted(paths=(path,))))
    bad = {**good, "paths": [{**good["paths"][0], **change}]}
    with pytest.raises(MisuseError, match=words):
        intents_json.load_wanted(json.dumps(bad).encode())


@given(st.data())
def test_everything_wanted_comes_through(data: st.DataObject) -> None:
    owners = data.draw(st.dictionaries(st.text(max_size=5), intents_of(NETWORK), max_size=3))
    links = data.draw(st.dictionaries(st.builds(Link, PORTS, PORTS), INFOS, max_size=3))
    paths = tuple(data.draw(st.lists(PATHS, max_size=2)))
    wanted = Wanted(owners, paths, declared_links(links))
    assert {each.link: each.info for each in wanted.links} == links
    assert intents_json.load_wanted(intents_json.dump_wanted(wanted)) == wanted


@pytest.mark.parametrize(
    "change",
    [
        {"match": {"eth_type": True}},
        {"match": {"vlan_vid": [True, True]}},
        {"match": {"eth_type": "2048"}},
        {"priority": True},
        {"rate_kbps": True},
        {"ingress": {"switch": "s1", "port_no": True}},
        {"egress": [{"at": {"switch": "s1", "port_no": 2}, "udp_dst": True}]},
    ],
)
def test_true_is_no_number(change: dict[str, Any]) -> None:
    intents = {"flows": [{**_FLOW, **change}]}
    for load in (
        lambda: intents_json.from_plain(intents),
        lambda: intents_json.loads(json.dumps(intents).encode()),
        lambda: intents_json.load_wanted(json.dumps({"intents": {"site": intents}}).encode()),
    ):
        with pytest.raises(MisuseError, match="wrong at"):
            load()


@pytest.mark.parametrize("data", [{"flows": {1, 2}}, {"flows": [datetime.date(2026, 1, 1)]}])
def test_what_is_not_json_is_misuse(data: Any) -> None:
    with pytest.raises(MisuseError, match="the intents are wrong"):
        intents_json.from_plain(data)


_FLOW = {"name": "a", "match": {"eth_type": 2048}, "ingress": {"switch": "s1", "port_no": 1}}


@pytest.mark.parametrize(
    "slip",
    [
        {"flowss": []},
        {"flows": [{**_FLOW, "polcy": "widest"}]},
        {"flows": [{**_FLOW, "match": {"eth_typ": 2048}}]},
        {"flows": [{**_FLOW, "ingress": {"switch": "s1", "port_no": 1, "port": 2}}]},
        {"flows": [{**_FLOW, "egress": [{"at": {"switch": "s1", "port_no": 1}, "mac": "x"}]}]},
    ],
)
def test_a_misspelt_name_is_not_passed_over(slip: dict[str, Any]) -> None:
    intents_json.from_plain({"flows": [_FLOW]})
    with pytest.raises(MisuseError, match="Unexpected keyword argument"):
        intents_json.from_plain(slip)
