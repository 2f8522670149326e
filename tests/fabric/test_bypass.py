"""Bypasses: their rules and groups, and how few VLAN ids go round."""

from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.fabric.worlds import World, frame_of, match_of, network_of

from anabranch.fabric import bypass as module
from anabranch.fabric.bypass import VLAN_IDS, Bypasses, group_number, link_port
from anabranch.fabric.compiler import Compiler
from anabranch.fabric.graph import Graph, usable
from anabranch.fabric.intents import Egress, Flow, Intents
from anabranch.fabric.model import Link, PortRef
from anabranch.fabric.numbering import Numbering, assign
from anabranch.fabric.openflow.actions import PORT_IN_PORT, Output, PopVlan, PushVlan, SetField
from anabranch.fabric.openflow.messages import Bucket, GroupType
from anabranch.fabric.trees import Change

TRIANGLE = network_of(3, [(0, 1, False), (1, 2, False), (2, 0, False)])


def link_between(links: Mapping[Link, object], src: str, dst: str) -> Link:
    return min(link for link in links if (link.src.switch, link.dst.switch) == (src, dst))


def test_a_bypass_is_a_rule_for_each_switch_behind_the_first() -> None:
    link = link_between(TRIANGLE.links, "s0", "s1")
    found = Bypasses(Graph(usable(TRIANGLE)), lambda _: 7).of(link)
    assert found is not None
    over, last = found.path
    rules = found.rules()
    assert rules.keys() == {"s2", "s1"}
    assert rules["s2"].actions == (Output(last.src.port_no),)
    assert rules["s1"].actions == (PopVlan(),)
    for rule, arrival in ((rules["s2"], over), (rules["s1"], last)):
        assert (rule.match.in_port, rule.match.vlan_vid) == (arrival.dst.port_no, 0x1007)
    group = found.group(group_number(found, None))
    assert group.type is GroupType.FAST_FAILOVER
    assert group.buckets == (
        Bucket((Output(link.src.port_no),), watch_port=link.src.port_no),
        Bucket(
            (PushVlan(), SetField("vlan_vid", 0x1007), Output(over.src.port_no)),
            watch_port=over.src.port_no,
        ),
    )
    back = group_number(found, over.reverse)
    assert back != group.group_id
    assert link_port(back) == link_port(group.group_id) == link.src.port_no
    turned = found.group(back).buckets[1]
    assert (turned.actions[-1], turned.watch_port) == (Output(PORT_IN_PORT), over.src.port_no)


def test_a_bypass_is_found_again_only_where_it_may_be_another() -> None:
    network = network_of(4, [(0, 1, False), (1, 2, False), (2, 0, False), (2, 3, False)])
    graph = Graph(usable(network))
    bypasses = Bypasses(graph, lambda _: 7)
    link, stub = (link_between(network.links, "s0", end) for end in ("s1", "s2"))
    dead_end = link_between(network.links, "s2", "s3")
    first = bypasses.of(link)
    assert bypasses.of(dead_end) is None
    gone = {link_between(network.links, "s2", "s3").reverse}
    graph.change(gone, {})
    assert bypasses.change(Change(frozenset(gone))) == {}
    assert bypasses.of(link) is first
    graph.change({stub}, {})
    assert bypasses.change(Change(frozenset({stub}))) == {link: first}
    assert bypasses.of(link) is None
    graph.change((), {stub: 1})
    forgotten = bypasses.change(Change(added={stub: 1}))
    assert forgotten[link] is None
    assert bypasses.of(link) == first


def test_flows_are_carried_unprotected_when_ids_run_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("anabranch.fabric.compiler.VLAN_IDS", range(2, 4))
    egress = frozenset({Egress(PortRef("s1", 1)), Egress(PortRef("s2", 1))})
    flow = Flow("flow0", match_of(0), PortRef("s0", 1), egress)
    other = Flow("flow1", match_of(1), PortRef("s1", 1), frozenset({Egress(PortRef("s2", 2))}))
    plan = Compiler().compile(Intents((flow, other)), TRIANGLE)
    assert len(plan.unprotected) == 1
    world = World(TRIANGLE)
    world.load(plan.tables)
    assert set(world.send(flow.ingress, frame_of(0))) == {(one.at, frame_of(0)) for one in egress}
    assert not Compiler().compile(Intents((flow,)), TRIANGLE).unprotected


def test_a_link_at_a_port_with_a_huge_number_has_no_bypass() -> None:
    link = Link(PortRef("s0", 0x10000), PortRef("s1", 1))
    others = {link_between(TRIANGLE.links, *ends): 1 for ends in (("s0", "s2"), ("s2", "s1"))}
    bypasses = Bypasses(Graph({link: 1, **others}), lambda _: 7)
    assert bypasses.of(link) is None
    assert module.LAST_PORT == 0xFFFF


NAMES = st.sets(st.text(max_size=3), max_size=30)


@given(NAMES, st.sets(st.integers(0, 20)))
def test_numbers_are_different_and_depend_on_the_names_alone(
    names: set[str], taken: set[int]
) -> None:
    numbers = range(5, 25)
    found = assign(names, numbers, taken)
    assert found == assign(sorted(names, reverse=True), numbers, taken)
    free = set(numbers) - taken
    assert set(found.values()) <= free
    assert len(set(found.values())) == len(found) == min(len(names), len(free))


@given(st.lists(NAMES, min_size=1, max_size=6))
def test_numbers_have_no_history(steps: list[set[str]]) -> None:
    numbering = Numbering(range(1, 40))
    before: set[str] = set()
    values: dict[str, int] = {}
    for names in steps:
        moved = numbering.change(before - names, names - before)
        now = {name: numbering[name] for name in names}
        assert now == assign(names, range(1, 40))
        assert moved == {name for name in names & before if values[name] != now[name]}
        before, values = names, now


def test_a_bypass_wears_what_no_default_vlan_has() -> None:
    assert (VLAN_IDS[0], VLAN_IDS[-1], len(VLAN_IDS)) == (2, 4094, 4093)
