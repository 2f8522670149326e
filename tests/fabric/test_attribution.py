"""Whom a failure hits: what it does not is carried by the switches without what was refused."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.fabric.worlds import (
    World,
    frame_of,
    intents_of,
    match_of,
    network_of,
    networks,
    wanted_copies,
)

from anabranch.fabric.attribution import attributed
from anabranch.fabric.compiler import Compiler, Plan
from anabranch.fabric.failures import Failure, NotDoneError
from anabranch.fabric.intents import Egress, Flow, Intents, Tap
from anabranch.fabric.model import PortRef
from anabranch.fabric.openflow.actions import Group
from anabranch.fabric.openflow.messages import GroupType
from anabranch.fabric.reconcile import Change, Changes, Held, HeldGroup, plan_changes
from anabranch.fabric.tables import NOTHING, Rule, Tables

LINE = network_of(3, [(0, 1, False), (1, 2, False)])
RING = network_of(3, [(0, 1, False), (1, 2, False), (2, 0, False)])


def all_of(changes: Changes) -> list[Change]:
    return [change for batch in (*changes.add, *changes.delete) for change in batch.changes]


def needed(tables: Tables, version: int = 6) -> list[Change]:
    """Return what is sent to a switch that holds nothing."""
    return all_of(plan_changes(Held(), tables, version))


def hit_by(switch: str, change: Change | None, intents: Intents, plan: Plan) -> frozenset[str]:
    (failure,) = attributed([Failure(switch, "no", change)], intents, plan)
    return failure.hit


def refusing(tables: Tables, change: Change) -> Tables:
    """Return what a switch holds that refuses a change, and what depends on it."""
    number = change.key
    match change.result:
        case Rule() as rule:
            return replace(tables, rules=tables.rules - {rule})
        case HeldGroup():
            rules = {rule for rule in tables.rules if Group(number) not in rule.actions}  # type: ignore[arg-type]
            groups = {group for group in tables.groups if group.group_id != number}
            return replace(tables, rules=frozenset(rules), groups=frozenset(groups))
        case _:
            rules = {rule for rule in tables.rules if rule.meter != number}
            meters = {meter for meter in tables.meters if meter.meter_id != number}
            return replace(tables, rules=frozenset(rules), meters=frozenset(meters))


@settings(deadline=None, max_examples=200)
@given(st.data())
def test_who_is_not_hit_is_carried(data: st.DataObject) -> None:
    network = data.draw(networks())
    intents = data.draw(intents_of(network))
    plan = Compiler().compile(intents, network)
    switch = data.draw(st.sampled_from(sorted(plan.tables)))
    change = data.draw(st.sampled_from(sorted(needed(plan.tables[switch]), key=str)))
    hit = hit_by(switch, change, intents, plan)
    assert hit <= {name for name, tree in plan.trees.items() if switch in tree.switches}
    world = World(network)
    world.load({**plan.tables, switch: refusing(plan.tables[switch], change)})
    for flow in intents.flows:
        frame = frame_of(int(flow.name.removeprefix("flow")))
        wanted = wanted_copies(flow, frame, plan.unreachable.get(flow.name, ()))
        if flow.name not in hit and wanted:
            assert world.deliver(flow, frame) == wanted, (flow.name, str(change))


def wide(name: str, number: int, copies: int, **more: object) -> Flow:
    egress = frozenset(Egress(PortRef("s2", 1), udp_dst=1 + copy) for copy in range(copies))
    return Flow(name, match_of(number), PortRef("s0", 1), egress, **more)  # type: ignore[arg-type]


def test_rules_groups_and_meters_hit_whose_they_are() -> None:
    intents = Intents((wide("news", 0, 9, rate_kbps=5), wide("sport", 1, 1)))
    plan = Compiler().compile(intents, LINE)
    for switch, tables in plan.tables.items():
        for change in needed(tables):
            hit = hit_by(switch, change, intents, plan)
            rule = change.result
            if not isinstance(rule, Rule):
                assert hit == {"news"}, "sport has neither a group nor a meter"
            elif rule.actions and rule.match.ipv4_dst is not None:
                assert hit == {"news" if rule.match.ipv4_dst.endswith(".1") else "sport"}


def test_a_part_of_a_large_group_hits_whose_the_whole_is() -> None:
    intents = Intents((wide("news", 0, 600), wide("sport", 1, 9)))
    plan = Compiler().compile(intents, LINE)
    tables = plan.tables["s2"]
    hits = [
        hit_by("s2", change, intents, plan)
        for change in needed(tables)
        if not isinstance(change.result, Rule)
    ]
    assert sorted(map(sorted, hits)) == [["news"]] * 5 + [["sport"]]  # a head, two parts, doors


def test_a_link_that_is_refused_hits_those_that_use_it_and_a_bypass_nobody() -> None:
    direct = Flow("near", match_of(0), PortRef("s0", 1), frozenset({Egress(PortRef("s1", 1))}))
    other = Flow("far", match_of(1), PortRef("s0", 2), frozenset({Egress(PortRef("s2", 1))}))
    intents = Intents((direct, other))
    plan = Compiler().compile(intents, RING)
    found = {}
    for change in needed(plan.tables["s0"]):
        if getattr(change.message, "type", None) is GroupType.FAST_FAILOVER:
            found[change.key] = hit_by("s0", change, intents, plan)
    assert sorted(map(sorted, found.values())) == [["far"], ["near"]]
    bypass = [
        change
        for change in needed(plan.tables["s2"])
        if isinstance(change.result, Rule)
        and change.result.match.vlan_vid is not None
        and change.result.match.in_port is not None
    ]
    assert bypass
    assert all(not hit_by("s2", change, intents, plan) for change in bypass)


def test_a_switch_that_fails_as_a_whole_hits_all_that_pass_it_and_taps() -> None:
    near = Flow("near", match_of(0), PortRef("s0", 1), frozenset({Egress(PortRef("s1", 1))}))
    taps = (
        Tap("all", match_of(2), frozenset(), 3),
        Tap("there", match_of(3), frozenset({"s1"}), 3),
    )
    intents = Intents((near, wide("news", 1, 1)), taps)
    plan = Compiler().compile(intents, LINE)
    assert hit_by("s1", None, intents, plan) == {"near", "news", "all", "there"}
    assert hit_by("s2", None, intents, plan) == {"news", "all"}
    assert hit_by("s9", None, intents, plan) == {"all"}


def test_what_is_only_to_be_removed_hits_nobody() -> None:
    intents = Intents((wide("news", 0, 9),))
    plan = Compiler().compile(intents, LINE)
    held = Held()
    for change in needed(plan.tables["s2"]):
        change.apply(held)
    removals = all_of(plan_changes(held, NOTHING, 4))
    assert removals
    assert all(not hit_by("s2", change, intents, plan) for change in removals)


def test_the_message_names_each_switch_once() -> None:
    failures = [Failure("a", "a is full"), Failure("b", "b is full"), Failure("a", "a is odd")]
    error = NotDoneError(failures, frozenset())
    assert str(error) == "a is full; b is full"
    assert attributed([], Intents(), Plan()) == ()
    with pytest.raises(NotDoneError, match="a is full"):
        raise error
