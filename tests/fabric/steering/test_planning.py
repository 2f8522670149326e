"""Which nodes a flow passes: spread, in turn, and never back."""

from collections import Counter
from ipaddress import IPv4Address, IPv4Network

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.fabric.steering.soft_nodes import A, B, node

from anabranch.fabric.errors import MisuseError
from anabranch.fabric.frames import parse
from anabranch.fabric.model import PortRef
from anabranch.fabric.steering import Filter, FlowKey, ServiceNode
from anabranch.fabric.steering.planning import chain

EVERYTHING = IPv4Network("0.0.0.0/0")
keys = st.builds(
    FlowKey,
    st.just(A),
    st.just(B),
    st.ip_addresses(v=4),
    st.ip_addresses(v=4),
    st.sampled_from((1, 6, 17, 132)),
    st.none() | st.sampled_from((0, 53, 5060)),
)
filters = st.builds(
    Filter,
    st.sampled_from(("jane", "joe", "ann")),
    st.sampled_from((EVERYTHING, IPv4Network("128.0.0.0/1"), IPv4Network("10.0.0.0/8"))),
    st.sampled_from((None, 17)),
)
nodes = st.lists(
    st.builds(
        lambda number, stage, claimed: node(number, *claimed, stage=stage),
        st.integers(1, 9), st.sampled_from(("", "a", "b")), st.lists(filters, max_size=3),
    ),
    unique_by=lambda each: each.name,
)  # fmt: skip


def key(source: int, port: int = 5060) -> FlowKey:
    return FlowKey(A, B, IPv4Address(source), IPv4Address("10.0.0.2"), 17, port)


@given(nodes, keys)
def test_a_flow_passes_one_node_of_each_stage_and_user_in_ascending_order(
    given_nodes: list[ServiceNode], flow: FlowKey
) -> None:
    passed = chain(given_nodes, flow)
    assert [each.rank for each in passed] == sorted({each.rank for each in passed})
    wanted = {(each.stage, f.user) for each in given_nodes for f in each.filters if f.covers(flow)}
    had = {(each.stage, f.user) for each in passed for f in each.filters if f.covers(flow)}
    assert had == wanted
    assert len(passed) <= len(wanted)


@given(nodes, keys, st.randoms(use_true_random=False))
def test_what_comes_back_goes_to_later_nodes_only(given_nodes, flow, random) -> None:
    for after in given_nodes:
        onward = chain(given_nodes, flow, after)
        assert all(each.rank > after.rank for each in onward)
        if after in chain(given_nodes, flow):
            passed = chain(given_nodes, flow)
            assert onward == passed[passed.index(after) + 1 :]
    shuffled = list(given_nodes)
    random.shuffle(shuffled)
    assert chain(shuffled, flow) == chain(given_nodes, flow)


def test_flows_are_spread_evenly_and_a_node_that_goes_takes_only_its_own_along() -> None:
    everybody = [node(number, Filter("jane", EVERYTHING, 17)) for number in (1, 2, 3)]
    flows = [key(number << 8) for number in range(3000)]
    before = {flow: chain(everybody, flow) for flow in flows}
    shares = Counter(passed[0].name for passed in before.values())
    assert all(900 < share < 1100 for share in shares.values())
    after = {flow: chain(everybody[:2], flow) for flow in flows}
    for flow, (was,) in before.items():
        assert after[flow] == (was,) or was.name == "n3"
    assert Counter(each[0].name for each in after.values())["n1"] > 1350


@given(keys)
def test_both_directions_and_fragments_are_one_nodes(flow: FlowKey) -> None:
    everybody = [node(number, Filter("jane", EVERYTHING)) for number in (1, 2, 3)]
    back = FlowKey(B, A, flow.ipv4_dst, flow.ipv4_src, flow.ip_proto, 99)
    assert chain(everybody, flow) == chain(everybody, back)


@given(filters, keys)
def test_a_switch_tells_packets_as_the_filter_does(claimed: Filter, flow: FlowKey) -> None:
    """``covers`` and ``matches`` are two ways to say the same."""

    def holds(fields: dict) -> bool:
        network = IPv4Network(fields.get("ipv4_dst", "0.0.0.0/0"))
        ports = [v for name, v in fields.items() if name in ("udp_dst", "tcp_dst")]
        protocol = fields.get("ip_proto", flow.ip_proto) == flow.ip_proto
        return flow.ipv4_dst in network and protocol and (not ports or flow.port in ports)

    assert claimed.covers(flow) == any(holds(dict(m.fields)) for m in claimed.matches())


@given(st.binary(max_size=120))
def test_any_frame_is_a_flow_or_none(frame: bytes) -> None:
    found = FlowKey.of(parse(frame))
    if found is not None:
        assert found.match(7).in_port == 7


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: Filter("", EVERYTHING),
        lambda: Filter("jane", EVERYTHING, 256),
        lambda: Filter("jane", EVERYTHING, 132, (5060,)),
        lambda: Filter("jane", EVERYTHING, None, (5060,)),
        lambda: Filter("jane", EVERYTHING, 17, (70000,)),
        lambda: Filter("jane", EVERYTHING, 17, tuple(range(1, 18))),
        lambda: ServiceNode("", PortRef("s1", 1), A, IPv4Address(1)),
        lambda: ServiceNode("n/1", PortRef("s1", 1), A, IPv4Address(1)),
        lambda: ServiceNode("n", PortRef("s1", 1), "no MAC", IPv4Address(1)),
        lambda: ServiceNode("n", PortRef("s1", 1 << 20), A, IPv4Address(1)),
        lambda: ServiceNode("n", PortRef("s1", 1), A, IPv4Address(1), "two words"),
    ],
)
def test_what_cannot_be_is_refused(wrong) -> None:
    with pytest.raises(MisuseError):
        wrong()
