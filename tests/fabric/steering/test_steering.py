"""Packets through service nodes, over soft switches: seed 003, figure 8.2, and what goes wrong."""

from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.fabric.steering.soft_nodes import (
    A_AT,
    A_IP,
    B_AT,
    B_IP,
    C_AT,
    C_IP,
    NOBODY_AT,
    S12,
    SIP,
    A,
    B,
    C,
    SoftNodes,
    node,
    udp,
)

from anabranch.core.errors import ConflictError
from anabranch.fabric import frames
from anabranch.fabric.host_services.settings import Unicast
from anabranch.fabric.model import Host, PortRef
from anabranch.fabric.steering import Filter, Steering
from anabranch.fabric.steering.registry import MAX_NODES, Registry
from anabranch.fabric.steering.steering import MAX_FLOWS

OTHER = Filter("joe", IPv4Network("10.0.0.2/32"), 17, (5060,))


def test_the_first_packet_asks_and_later_ones_do_not() -> None:
    world = SoftNodes(node(1, SIP))
    assert world.send(A_AT, udp()) == [(B_AT, udp())]
    assert (world.visits, world.asked) == ([11], [A_AT])
    assert world.send(A_AT, udp()) == [(B_AT, udp())]
    assert (world.visits, world.asked) == ([11], [])
    assert world.entries() == 3  # to the node, from it, and one at the second switch


def test_unclaimed_packets_never_see_a_node() -> None:
    world = SoftNodes(node(1, SIP))
    for frame in (udp(port=5061), udp(B, A, B_IP, A_IP), frames.icmp_echo(B, A, A_IP, B_IP)):
        at = B_AT if frame[6:12] == bytes.fromhex(B.replace(":", "")) else A_AT
        assert len(world.send(at, frame)) == 1
        assert (world.visits, world.asked) == ([], [])


def test_where_nothing_else_is_carried_all_other_misses_sink() -> None:
    world = SoftNodes(node(1, SIP), unicast=Unicast.NONE)
    world.send(A_AT, udp())  # to the next switch, where nobody claims anything
    assert world.visits == [11]
    assert world.send(A_AT, udp(port=5061)) == []
    to_c = udp(target=C, target_ip=C_IP)
    assert world.send(A_AT, to_c) == []
    world.put(node(1, Filter("jane", IPv4Network("10.0.0.3/32"), 17)))
    assert world.send(A_AT, to_c) == [(C_AT, to_c)]
    assert world.send(A_AT, udp(target="02:00:00:00:00:99")) == []


def test_flows_are_spread_and_each_stays_with_its_node() -> None:
    world = SoftNodes(node(1, SIP), node(2, SIP))
    went = {}
    for number in range(40):
        frame = udp(source_ip=f"10.1.0.{number}")
        assert world.send(A_AT, frame) == [(B_AT, frame)]
        (went[number],) = world.visits
    assert 10 < sum(port == 11 for port in went.values()) < 30
    for number, port in went.items():
        world.send(A_AT, udp(source_ip=f"10.1.0.{number}"))
        assert (world.visits, world.asked) == ([port], [])


def test_a_flow_passes_several_nodes_in_turn() -> None:
    world = SoftNodes(node(2, SIP, stage="a"), node(1, SIP, stage="b"), node(3, OTHER, stage="a"))
    for _ in range(2):
        assert world.send(A_AT, udp()) == [(B_AT, udp())]
        assert world.visits == [12, 13, 11]
    assert world.asked == []


def test_a_node_that_goes_leaves_its_flows_to_others_without_a_question() -> None:
    world = SoftNodes(node(1, SIP), node(2, SIP))
    sent = [udp(source_ip=f"10.1.0.{number}") for number in range(20)]
    for frame in sent:
        world.send(A_AT, frame)
    world.withdraw("n1")
    for frame in sent:
        assert world.send(A_AT, frame) == [(B_AT, frame)]
        assert (world.visits, world.asked) == ([12], [])
    world.put(node(1, SIP))
    there = set()
    for frame in sent:
        assert world.send(A_AT, frame) == [(B_AT, frame)]
        assert world.asked == []
        there |= {*world.visits}
    assert there == {11, 12}
    world.withdraw("n1")
    world.withdraw("n2")
    for frame in sent:
        assert world.send(A_AT, frame) == [(B_AT, frame)]
        assert world.visits == []


@pytest.mark.parametrize("how", ["silent", "port down", "port gone"])
def test_a_node_that_dies_is_a_node_that_goes(how: str) -> None:
    world = SoftNodes(node(1, SIP), node(2, SIP))
    assert not world.steering.registry.put(node(2, SIP), world.now + 100)
    gone = node(1).at
    if how == "silent":
        assert world.steering.registry.next_timer() == world.now + 3
        assert world.steering.registry.expire(world.now + 3) == ["n1"]
    else:
        ports = dict(world.network.ports)
        if how == "port gone":
            del ports[gone]
        else:
            ports[gone] = replace(ports[gone], up=False)
        world.network = replace(world.network, ports=ports)
    world.settle()
    for number in range(9):
        world.send(A_AT, udp(source_ip=f"10.1.0.{number}"))
        assert world.visits == [12]


def test_what_a_module_claims_no_more_goes_its_plain_way() -> None:
    world = SoftNodes(node(1, SIP))
    world.send(A_AT, udp())
    world.put(node(1))
    assert world.send(A_AT, udp()) == [(B_AT, udp())]
    assert (world.visits, world.asked) == ([], [])
    assert world.steering.counters["steering_moved"] == 1


def test_an_answer_goes_back_without_the_host_having_moved() -> None:
    world = SoftNodes(node(1, SIP))
    answer = udp(B, A, B_IP, A_IP, port=4000)
    world.modules[11] = lambda frame: [answer]
    assert world.send(A_AT, udp()) == [(A_AT, answer)]
    assert world.asked == [A_AT, node(1).at]
    assert world.send(A_AT, udp()) == [(A_AT, answer)]
    assert world.asked == []
    assert world.network.hosts[B].at == B_AT
    assert world.unicast == []


def test_signalling_visits_every_node_in_turn_without_the_controller() -> None:
    world = SoftNodes(node(2), node(1), node(3, Filter("jane", IPv4Network("10.0.0.0/24"))))
    query = udp(port=270)

    def onward(number: int):
        """A node answers by a query of its own, from its own address."""
        own = node(number)

        def module(frame: bytes):
            assert frames.parse(frame).mac("eth_dst") == own.mac
            return [udp(own.mac, B, str(own.address), B_IP, port=270)]

        return module

    world.modules = {10 + number: onward(number) for number in (1, 2, 3)}
    last = udp(node(3).mac, B, str(node(3).address), B_IP, port=270)
    for asked in ([node(3).at], []):
        assert world.send(A_AT, query) == [(B_AT, last)]
        assert world.visits == [11, 12, 13]
        assert world.asked == asked


def test_signalling_to_a_node_itself_is_nobody_elses() -> None:
    world = SoftNodes(node(1), node(2))
    world.modules = {11: lambda frame: [], 12: lambda frame: []}
    to_second = udp(target=node(2).mac, target_ip=str(node(2).address), port=270)
    assert world.send(A_AT, to_second) == []
    assert world.visits == [12]
    ends = node(2).mac, node(1).mac, str(node(2).address), str(node(1).address)
    world.send(node(2).at, udp(*ends, port=270))
    assert world.visits == [11], "an answer from the second node to the first"


def test_what_a_node_says_for_itself_is_a_hosts() -> None:
    world = SoftNodes(node(1, SIP))
    own = udp(node(1).mac, C, str(node(1).address), C_IP, port=80)
    assert world.send(node(1).at, own) == [(C_AT, own)]
    assert world.asked == []


def test_nobody_is_steered_in_anothers_name() -> None:
    world = SoftNodes(node(1, SIP))
    world.send(A_AT, udp())
    assert world.send(C_AT, udp()) == []
    assert world.visits == []
    assert world.network.hosts[A].at == A_AT


def test_a_host_that_was_not_known_is_learned_and_served() -> None:
    world = SoftNodes(node(1, SIP))
    frame = udp("02:00:00:00:00:55", source_ip="10.0.0.55")
    assert world.send(NOBODY_AT, frame) == [(B_AT, frame)]
    assert world.visits == [11]


def test_a_destination_that_moves_is_followed() -> None:
    world = SoftNodes(node(1, SIP))
    world.send(A_AT, udp())
    world.network = replace(world.network, hosts={**world.network.hosts, B: Host(B, C_AT, B_IP)})
    world.settle()
    assert world.send(A_AT, udp()) == [(C_AT, udp())]
    assert (world.visits, world.asked) == ([11], [])
    without = {mac: host for mac, host in world.network.hosts.items() if mac != B}
    world.network = replace(world.network, hosts=without)
    world.settle()
    assert world.send(A_AT, udp()) == []


def test_entries_end_when_nobody_uses_them() -> None:
    world = SoftNodes(node(1, SIP))
    world.send(A_AT, udp())
    assert world.steering.flows_of(node(1)) == 1
    world.wait(60)
    assert world.entries() == 0
    assert world.steering.flows_of(node(1)) == 0
    world.send(A_AT, udp())
    assert world.asked == [A_AT]


def test_entries_of_a_controller_before_are_cleared_when_a_node_registers() -> None:
    world = SoftNodes(node(1, SIP))
    world.send(A_AT, udp())
    world.steering = Steering()
    world.settle()
    world.put(node(1, SIP))
    assert world.send(A_AT, udp()) == [(B_AT, udp())]
    assert world.asked == [A_AT]


def test_packets_from_the_other_switch_are_served_where_the_node_is() -> None:
    to_c = Filter("jane", IPv4Network("10.0.0.3/32"), 17)
    world = SoftNodes(node(1, to_c))
    frame = udp(B, C, B_IP, C_IP)
    assert world.send(B_AT, frame) == [(C_AT, frame)]
    assert (world.visits, world.asked) == ([11], [S12.src])


def test_two_nodes_cannot_be_one() -> None:
    registry = Registry()
    registry.put(node(1), 0.0)
    for twin in (
        replace(node(2), at=node(1).at),
        replace(node(2), mac=node(1).mac),
        replace(node(2), address=node(1).address),
    ):
        with pytest.raises(ConflictError):
            registry.put(twin, 0.0)
    for number in range(MAX_NODES - 1):
        more = replace(
            node(2),
            name=f"m{number}",
            at=PortRef("s3", number + 1),
            mac=f"02:00:00:01:{number:02x}:00",
            address=IPv4Address(number + 1000),
        )
        registry.put(more, 0.0)
    with pytest.raises(ConflictError):
        registry.put(node(3), 0.0)


def test_a_flood_of_flows_is_bounded() -> None:
    world = SoftNodes(node(1, SIP))
    for number in range(MAX_FLOWS + 50):
        source = str(IPv4Address("10.64.0.0") + number)
        world.steering.packet_in("s1", 1, udp(source_ip=source), world.network)
    assert world.steering.flows_of(node(1)) == MAX_FLOWS


TARGETS = [(B, B_IP), (C, C_IP), (A, A_IP)]
wills = st.lists(
    st.tuples(
        st.sampled_from((11, 12, 13)), st.sampled_from(TARGETS), st.sampled_from((5060, 6000))
    ),
    max_size=3, unique_by=lambda each: each[0],
)  # fmt: skip
claims = st.lists(
    st.builds(
        Filter, st.sampled_from(("jane", "joe", "ann")),
        st.sampled_from([IPv4Network(f"{ip}/32") for _, ip in TARGETS]),
        st.just(17), st.sampled_from(((5060,), (6000,), ())),
    ),
    max_size=3,
)  # fmt: skip


@settings(max_examples=60, deadline=None)
@given(st.tuples(claims, claims, claims), wills)
def test_nothing_goes_round_whatever_modules_make_of_packets(each_claims, will) -> None:
    world = SoftNodes(*(node(n, *claimed) for n, claimed in enumerate(each_claims, 1)))
    for port, (mac, address), udp_port in will:
        changed = udp(target=mac, target_ip=address, port=udp_port)
        world.modules[port] = lambda frame, changed=changed: [changed]
    for _ in range(2):
        delivered = world.send(A_AT, udp())
        assert world.visits == sorted(set(world.visits))
        assert len(delivered) <= 1


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=80), st.sampled_from((1, 2, 3, 9, 11, 99)))
def test_whatever_comes_to_the_controller_is_dealt_with(data: bytes, in_port: int) -> None:
    world = SoftNodes(node(1, SIP))
    whole = udp()
    for frame in (data, whole[: len(data)] + data, whole[:12] + data):
        acts = world.steering.packet_in("s1", in_port, frame, world.network)
        assert acts is None or len(acts) <= 2
