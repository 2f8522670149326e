"""Rules as data: what they do to a packet is found by doing it."""

from collections import Counter
from itertools import permutations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from anabranch.fabric.errors import MisuseError
from anabranch.fabric.flows import Delivery, Hop, MediaFlow, rules_for, sending_order
from anabranch.fabric.openflow.actions import (
    PORT_IN_PORT,
    PORT_LOCAL,
    Output,
    SetField,
)
from anabranch.fabric.openflow.oxm import Match
from anabranch.fabric.tables import Rule

FLOW = MediaFlow("news", "239.1.2.3", 5004)
SENT_MAC = "01:00:5e:01:02:03"
MACS = ("02:00:00:00:00:01", "02:00:00:00:00:02")

Copy = tuple[int, str, str, int]


def copies(rule: Rule, in_port: int) -> Counter[Copy]:
    """Apply a rule to a packet of the flow; return each copy: port, MAC, address, UDP port."""
    packet: dict[str, int | str] = {
        "eth_dst": SENT_MAC,
        "ipv4_dst": FLOW.group,
        "udp_dst": FLOW.udp_port,
    }
    out: Counter[Copy] = Counter()
    for action in rule.actions:
        if isinstance(action, SetField):
            packet[action.field] = action.value
        else:
            assert isinstance(action, Output)
            assert action.port_no != in_port, "a switch drops this copy"
            port_no = in_port if action.port_no == PORT_IN_PORT else action.port_no
            out[(port_no, *packet.values())] += 1
    return out


def wanted_copies(out_ports: set[int], deliveries: set[Delivery]) -> Counter[Copy]:
    plain = Counter((port_no, SENT_MAC, FLOW.group, FLOW.udp_port) for port_no in out_ports)
    return plain + Counter(
        (
            delivery.port_no,
            delivery.eth_dst or SENT_MAC,
            delivery.ip_dst or FLOW.group,
            delivery.udp_dst or FLOW.udp_port,
        )
        for delivery in deliveries
    )


DELIVERIES = st.builds(
    Delivery,
    port_no=st.integers(1, 4),
    eth_dst=st.none() | st.sampled_from(MACS),
    ip_dst=st.none() | st.sampled_from(("10.0.0.1", "10.0.0.2")),
    udp_dst=st.none() | st.sampled_from((6000, 6002)),
)


@given(st.frozensets(st.integers(2, 5)), st.sets(DELIVERIES, max_size=6))
def test_every_copy_has_its_own_header(
    out_ports: frozenset[int], deliveries: set[Delivery]
) -> None:
    rules = rules_for(FLOW, [Hop("leaf", 1, out_ports, tuple(deliveries))], 5)
    found: Counter[Copy] = Counter()
    for rule in rules.get("leaf", []):
        found += copies(rule, 1)
    assert found == wanted_copies(set(out_ports), deliveries)


def test_the_order_of_deliveries_makes_no_other_rule() -> None:
    deliveries = (
        Delivery(2, MACS[0], "10.0.0.1", 6000),
        Delivery(2, None, "10.0.0.2", None),
        Delivery(3),
    )
    rules = {
        tuple(rules_for(FLOW, [Hop("leaf", 1, deliveries=order)], 1)["leaf"])
        for order in permutations(deliveries)
    }
    assert len(rules) == 1


def test_a_rule_matches_port_group_and_udp_port() -> None:
    ((switch, (rule,)),) = rules_for(FLOW, [Hop("root", 4, frozenset({3, 2}))], 9).items()
    assert switch == "root"
    assert rule.match == Match(
        in_port=4, eth_type=0x0800, ip_proto=17, ipv4_dst="239.1.2.3", udp_dst=5004
    )
    assert (rule.table, rule.cookie, rule.actions) == (0, 9, (Output(2), Output(3)))


def test_a_hop_that_leads_nowhere_gives_no_rule() -> None:
    assert rules_for(FLOW, [Hop("root", 1)], 1) == {}


def test_hops_of_one_switch_and_port_are_joined() -> None:
    hops = [Hop("relay", 1, frozenset({2})), Hop("relay", 1, frozenset({3})), Hop("relay", 4)]
    (rule,) = rules_for(FLOW, hops, 1)["relay"]
    assert rule.actions == (Output(2), Output(3))


def test_a_delivery_may_leave_where_the_flow_came_in() -> None:
    (rule,) = rules_for(FLOW, [Hop("leaf", 1, deliveries=(Delivery(1, MACS[0]),))], 1)["leaf"]
    assert rule.actions[-1] == Output(PORT_IN_PORT)


def test_impossible_flows_are_misuse() -> None:
    for make in (
        lambda: MediaFlow("x", "10.0.0.1", 5004),
        lambda: MediaFlow("x", "239.1.1.1", 0),
        lambda: MediaFlow("x", "nonsense", 1),
        lambda: Delivery(0),
        lambda: Delivery(1, eth_dst="xx"),
        lambda: Delivery(1, ip_dst="10.0.0.0/8"),
        lambda: Delivery(1, udp_dst=70000),
        lambda: Hop("root", 1, frozenset({1})),
        lambda: Hop("root", PORT_IN_PORT),
    ):
        with pytest.raises(MisuseError):
            make()
    Hop("root", PORT_LOCAL)


def test_spellings_of_one_delivery_are_equal() -> None:
    assert Delivery(1, "AA:00:00:00:00:01") == Delivery(1, "aa:00:00:00:00:01")


def test_switches_are_ordered_from_upstream_to_downstream() -> None:
    assert sending_order({"leaf", "root", "b", "a"}, ("root", "relay", "leaf")) == [
        "root",
        "leaf",
        "a",
        "b",
    ]
