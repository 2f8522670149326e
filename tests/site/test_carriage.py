"""Carriage: one copy a link, rewritten for the right leaf, and only for what is wanted."""

from ipaddress import IPv4Network

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.site.conftest import Make

from anabranch.core.errors import UsageError
from anabranch.fabric.actions import Output, SetField
from anabranch.media.leaf import Feed, Inlet
from anabranch.site.carriage import (
    STREAM_PORT,
    DirectCarriage,
    StreamId,
    Target,
    Want,
    group_address,
    rules_of,
    wants_of,
)
from anabranch.site.plan import HOST_PORT, UP_PORT, SitePlan, make_plan

HIGH, SOUND = StreamId("news", "high"), StreamId("news", "audio")
GROUPS = {HIGH: "239.192.0.17", SOUND: "239.192.0.16"}
NETWORK = IPv4Network("239.192.0.0/16")


@pytest.fixture(scope="module")
def plan(settings: Make) -> SitePlan:
    return make_plan(settings())


def test_an_inlet_wants_the_picture_and_its_channels_sound() -> None:
    feed = Feed("news", "high")
    assert wants_of("leaf1", [Inlet(feed, 21000, 21001), Inlet(feed, 21002, 0)]) == {
        Want(HIGH, "leaf1", 21000),
        Want(SOUND, "leaf1", 21001),
        Want(HIGH, "leaf1", 21002),
    }
    assert wants_of("leaf1", []) == frozenset()


def test_what_nobody_wants_has_no_rule(plan: SitePlan) -> None:
    assert rules_of(plan, [], GROUPS) == {name: [] for name in plan.nodes}


def test_one_leaf_costs_one_copy_on_its_way_and_none_elsewhere(plan: SitePlan) -> None:
    rules = rules_of(plan, [Want(HIGH, "leaf2", 21000)], GROUPS)
    assert rules["leaf1"] == []
    (root,), (relay,), (leaf,) = rules["root"], rules["relay"], rules["leaf2"]
    assert root.actions == (Output(plan.nodes["root"].child_ports["relay"]),)
    assert relay.actions == (Output(plan.nodes["relay"].child_ports["leaf2"]),)
    host = plan.nodes["leaf2"].host
    assert leaf.actions == (
        SetField("eth_dst", host.mac or ""),
        SetField("ipv4_dst", str(plan.nodes["leaf2"].overlay_address)),
        SetField("udp_dst", 21000),
        Output(HOST_PORT),
    )
    in_ports = [rule.match.in_port for rule in (root, relay, leaf)]
    assert in_ports == [HOST_PORT, UP_PORT, UP_PORT]
    assert all(rule.match.ipv4_dst == GROUPS[HIGH] for rule in (root, relay, leaf))


def test_two_leaves_and_two_inlets_still_cost_one_copy_a_link(plan: SitePlan) -> None:
    wants = [Want(HIGH, leaf, port) for leaf in ("leaf1", "leaf2") for port in (21000, 21002)]
    rules = rules_of(plan, wants, GROUPS)
    assert [len(rules[name]) for name in plan.nodes] == [1, 1, 1, 1]
    assert rules["root"][0].actions == (Output(plan.nodes["root"].child_ports["relay"]),)
    outputs = {action.port_no for action in rules["relay"][0].actions if isinstance(action, Output)}
    assert outputs == set(plan.nodes["relay"].child_ports.values())
    for leaf in ("leaf1", "leaf2"):
        ports = [
            a.value
            for a in rules[leaf][0].actions
            if isinstance(a, SetField) and a.field == "udp_dst"
        ]
        assert ports == [21000, 21002]


def test_a_stream_that_has_gone_is_passed_over(plan: SitePlan) -> None:
    wants = [Want(StreamId("gone", "high"), "leaf1", 21000), Want(SOUND, "leaf1", 21001)]
    rules = rules_of(plan, wants, GROUPS)
    assert [len(rules[name]) for name in ("root", "relay", "leaf1")] == [1, 1, 1]


@given(
    st.sets(
        st.builds(
            Want,
            st.sampled_from([HIGH, SOUND, StreamId("gone", "high")]),
            st.sampled_from(["leaf1", "leaf2"]),
            st.integers(21000, 21009),
        )
    )
)
def test_rules_do_not_hang_on_the_order_of_wishes(plan: SitePlan, wants: set[Want]) -> None:
    rules = rules_of(plan, sorted(wants), GROUPS)
    assert rules == rules_of(plan, sorted(wants, reverse=True), GROUPS)
    streams = {want.stream for want in wants} & GROUPS.keys()
    assert len(rules["root"]) == len(streams)  # a copy a stream on the first link
    for leaf in ("leaf1", "leaf2"):
        wanted = {w.port for w in wants if w.leaf == leaf and w.stream in GROUPS}
        given_ = {
            a.value
            for r in rules[leaf]
            for a in r.actions
            if isinstance(a, SetField) and a.field == "udp_dst"
        }
        assert given_ == wanted


async def test_direct_carriage_tells_only_what_changed() -> None:
    told: list[tuple[StreamId, list[Target]]] = []
    carriage = DirectCarriage("127.0.0.1", lambda stream, targets: told.append((stream, targets)))
    assert carriage.targets(HIGH, "unused") == []

    await carriage.carry(frozenset({Want(HIGH, "leaf1", 1), Want(SOUND, "leaf1", 2)}), GROUPS)
    assert dict(told) == {HIGH: [("127.0.0.1", 1)], SOUND: [("127.0.0.1", 2)]}
    told.clear()
    wants = frozenset({Want(HIGH, "leaf1", 3), Want(HIGH, "leaf1", 1), Want(SOUND, "leaf1", 2)})
    await carriage.carry(wants, GROUPS)
    assert told == [(HIGH, [("127.0.0.1", 1), ("127.0.0.1", 3)])]
    assert carriage.targets(HIGH, "unused") == [("127.0.0.1", 1), ("127.0.0.1", 3)]
    told.clear()
    await carriage.carry(wants, GROUPS)
    assert told == []
    await carriage.carry(frozenset({Want(StreamId("gone", "x"), "leaf1", 9)}), GROUPS)
    assert dict(told) == {HIGH: [], SOUND: []}


@pytest.mark.parametrize("prefix", [16, 24, 28])
def test_every_stream_has_a_group_of_its_own(prefix: int) -> None:
    network = IPv4Network(f"239.192.0.0/{prefix}")
    slots = range(min(1001, network.num_addresses // 16))
    found = [group_address(network, slot, index) for slot in slots for index in range(16)]
    assert len(found) == len(set(found))
    with pytest.raises(UsageError, match="no room"):
        group_address(network, network.num_addresses // 16, 0)
    with pytest.raises(UsageError):
        group_address(network, 0, 16)


def test_streams_go_to_the_port_that_the_rules_match(plan: SitePlan) -> None:
    (rule,) = rules_of(plan, [Want(HIGH, "leaf1", 21000)], GROUPS)["root"]
    assert rule.match.udp_dst == STREAM_PORT
