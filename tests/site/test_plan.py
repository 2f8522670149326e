"""The plan: on any tree every name, address and number is one node's alone."""

from dataclasses import replace
from ipaddress import IPv4Network, IPv6Network
from itertools import pairwise

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from tests.site.conftest import Make

from anabranch.core.errors import UsageError
from anabranch.site.layout import MAX_NODES
from anabranch.site.plan import SitePlan, access_ends_6, make_plan, share_ports
from anabranch.site.settings import (
    ACCESS_6,
    Addresses,
    FabricSettings,
    LeafSettings,
    Ports,
    RedundancyLink,
    SiteNode,
)
from anabranch.tree.model import Role, TreeError


@st.composite
def trees(draw: st.DrawFn) -> list[SiteNode]:
    nodes = [SiteNode("root", Role.ROOT)]
    for number in range(draw(st.integers(0, 8))):
        parent = draw(st.sampled_from([node.name for node in nodes]))
        nodes.append(SiteNode(f"relay{number}", Role.RELAY, parent))
    inner = [node.name for node in nodes]
    for number in range(draw(st.integers(1, 12))):
        parent = draw(st.sampled_from(inner))
        nodes.append(SiteNode(f"leaf{number}", Role.LEAF, parent, idle=draw(st.booleans())))
    if all(node.idle for node in nodes if node.role is Role.LEAF):
        nodes.append(SiteNode("leaf", Role.LEAF, draw(st.sampled_from(inner))))
    return draw(st.permutations(nodes))


def distinct(values: list[object]) -> bool:
    return len(values) == len(set(values))


@given(trees())
def test_on_any_tree_nothing_is_given_twice(settings: Make, nodes: list[SiteNode]) -> None:
    plan = make_plan(settings(nodes=nodes))
    planned = list(plan.nodes.values())
    assert planned[0].role is Role.ROOT
    assert {node.name for node in planned} == {node.name for node in nodes}
    for values in (
        [node.namespace for node in planned],
        [node.dpid for node in planned],
        [node.host.mac for node in planned],
        [node.overlay_address for node in planned],
        [node.gateway.device for node in plan.leaves if node.gateway],
        [plan.port_towards(node.name) for node in planned],
    ):
        assert distinct(list(values))
    for node in planned:
        assert node.overlay_address in IPv4Network("10.98.0.0/24")
        assert 0 < node.dpid < 2**64
        assert (node.access is None) == (node.role is not Role.LEAF)
        assert all(0 < len(end.device) <= 15 for end in (node.access, node.gateway) if end)


@given(trees(), st.data())
def test_what_a_node_is_given_does_not_depend_on_who_is_idle(
    settings: Make, nodes: list[SiteNode], data: st.DataObject
) -> None:
    busy = {node.name for node in nodes if node.role is Role.LEAF and not node.idle}
    other = [
        node if node.name in busy else replace(node, idle=data.draw(st.booleans()))
        for node in nodes
        if node.role is not Role.ROOT
    ]
    root = [node for node in nodes if node.role is Role.ROOT]
    before = make_plan(settings(nodes=[*root, *(n for n in nodes if n.role is not Role.ROOT)]))
    try:
        assert make_plan(settings(nodes=[*root, *other])).nodes == before.nodes
    except TreeError:  # a leaf's relay is idle now
        assume(False)


@given(trees())
def test_leaves_share_the_media_ports_and_have_a_network_each(
    settings: Make, nodes: list[SiteNode]
) -> None:
    plan = make_plan(settings(nodes=nodes))
    ports = [
        port for leaf in plan.leaves for port in range(leaf.media_ports[0], leaf.media_ports[1] + 1)
    ]
    assert distinct(list(ports))
    assert min(ports) >= 20000
    assert max(ports) <= 20999
    networks = []
    for leaf in plan.leaves:
        assert leaf.access
        assert leaf.gateway
        assert leaf.access.address
        assert leaf.gateway.address
        assert leaf.access.address.network == leaf.gateway.address.network
        assert leaf.access.address.ip != leaf.gateway.address.ip
        networks.append(leaf.access.address.network)
    assert distinct(list(networks))


def test_the_same_settings_give_the_same_plan(settings: Make) -> None:
    one, again = make_plan(settings()), make_plan(settings())
    assert (one.nodes, one.tree, one.table) == (again.nodes, again.tree, again.table)
    assert one.layout == again.layout


def names(plan: SitePlan) -> set[object]:
    """What two sites of one machine must not share."""
    found: set[object] = {plan.table}
    for node in plan.nodes.values():
        found |= {node.namespace, node.dpid, node.host.mac}
        found |= {node.gateway.device} if node.gateway else set()
    return found


@given(st.sets(st.sampled_from(["main", "a", "b", "main2", "a-b", "studio", "t1"]), min_size=2))
def test_two_sites_of_one_machine_share_no_name(settings: Make, chosen: set[str]) -> None:
    found = [names(make_plan(settings(name))) for name in chosen]
    assert len(set().union(*found)) == sum(map(len, found))


@pytest.mark.parametrize(
    ("addresses", "ports", "words"),
    [
        (Addresses(overlay=IPv4Network("10.98.0.0/30")), Ports(), "no room for 4 nodes"),
        (Addresses(overlay=IPv4Network("10.98.0.1/32")), Ports(), "no room for 4 nodes"),
        (Addresses(access=IPv4Network("10.97.0.0/30")), Ports(), "no room for 2 leaves"),
        (Addresses(access=IPv4Network("10.97.0.0/31")), Ports(), "no room for 2 leaves"),
        (Addresses(), Ports(media=(20000, 20018)), "too few for 2 leaves"),
        (
            Addresses(tunnels=IPv4Network("10.98.0.0/16")),
            Ports(),
            "and of tunnels.* overlap",
        ),
    ],
)
def test_ranges_that_are_too_small_are_said(
    settings: Make, addresses: Addresses, ports: Ports, words: str
) -> None:
    with pytest.raises(UsageError, match=words):
        make_plan(settings(addresses=addresses, ports=ports))


def test_many_leaves_need_many_networks(settings: Make) -> None:
    nodes = [
        SiteNode("root", Role.ROOT),
        *(SiteNode(f"l{n}", Role.LEAF, "root") for n in range(65)),
    ]
    with pytest.raises(UsageError, match="no room for 65 leaves"):
        make_plan(settings(nodes=nodes))
    assert len(make_plan(settings(nodes=nodes[:-1])).leaves) == 64


@given(st.integers(1, 60000), st.integers(0, 5000), st.integers(1, 40))
def test_shares_are_equal_apart_and_inside(first: int, length: int, count: int) -> None:
    try:
        shares = share_ports((first, first + length), count)
    except UsageError:
        assert (length + 1) // count < 10
        return
    assert shares[0][0] == first
    assert shares[-1][1] <= first + length
    assert {high - low for low, high in shares} == {(length + 1) // count - 1}
    assert all(one[1] + 1 == other[0] for one, other in pairwise(shares))


@pytest.mark.parametrize(
    ("link", "message"),
    [
        (RedundancyLink("leaf1", "nowhere"), "nowhere, which is no node"),
        (RedundancyLink("leaf1", "leaf1"), "leaf1 with itself"),
        (RedundancyLink("leaf1", "leaf2", 0.0), "has no rate"),
    ],
)
def test_a_redundancy_link_that_cannot_be_is_refused(
    settings: Make, link: RedundancyLink, message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        make_plan(settings(fabric=FabricSettings((link,))))


PUBLIC = ("192.0.2.1", "2001:db8::1")


@given(trees(), st.sampled_from(["main", "other", "a"]))
def test_leaves_have_ipv6_links_of_their_own_where_viewers_come_by_it(
    settings: Make, nodes: list[SiteNode], name: str
) -> None:
    made = settings(name, nodes=nodes, public_addresses=PUBLIC)
    plan = make_plan(made)
    ends = []
    for leaf in plan.leaves:
        assert leaf.access is not None
        assert leaf.gateway is not None
        assert leaf.access.address_6 is not None
        assert leaf.gateway.address_6 is not None
        assert leaf.access.address_6.network == leaf.gateway.address_6.network
        assert leaf.access.address_6.network.prefixlen == 127
        assert leaf.access.address_6.network.subnet_of(made.addresses.access_6)
        assert leaf.inner_addresses == (str(leaf.access.address_6.ip),)
        ends += [leaf.access.address_6.ip, leaf.gateway.address_6.ip]
    assert distinct(list(ends))
    assert all(node.access is None for node in plan.nodes.values() if node.role is not Role.LEAF)
    # Another site of this machine, with the same settings but for its name, has others.
    others = make_plan(settings("another", nodes=nodes, public_addresses=PUBLIC))
    assert not {leaf.inner_addresses for leaf in others.leaves} & {
        leaf.inner_addresses for leaf in plan.leaves
    }


@pytest.mark.parametrize(
    "changed",
    [
        {"public_addresses": ()},
        {"public_addresses": PUBLIC[:1]},
        {"public_addresses": PUBLIC, "leaf": LeafSettings("janus")},
    ],
)
def test_where_nobody_comes_by_ipv6_all_is_as_it_would_be_without(
    settings: Make, changed: dict[str, object]
) -> None:
    made = settings(**changed)
    assert "ip6" not in made.families
    assert make_plan(made).nodes == make_plan(settings()).nodes


def test_nodes_of_other_sites_on_this_machine_have_links_apart_from_its_own() -> None:
    most = access_ends_6(ACCESS_6, 0xFFFF, MAX_NODES - 1)
    theirs = access_ends_6(ACCESS_6, 0xFFFF, MAX_NODES)
    assert not most[0].network.overlaps(theirs[0].network)
    last = access_ends_6(ACCESS_6, 0xFFFF, MAX_NODES + 0xFFFF)
    assert last[0].network.subnet_of(IPv6Network("fd56:2b7e:91c4:ffff::/64"))
    assert last[0].network.supernet(new_prefix=64).subnet_of(ACCESS_6)


def test_a_range_that_is_too_small_for_ipv6_is_refused(settings: Make) -> None:
    small = Addresses(access_6=IPv6Network("fd00:1:2:3::/64"))
    with pytest.raises(UsageError, match="fd00:1:2:3::/64 is no /48"):
        make_plan(settings(addresses=small))
