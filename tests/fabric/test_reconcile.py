"""Plans, carried out by a soft switch: from any tables to any others, and never a refusal."""

from collections.abc import Iterable
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from anabranch.fabric.errors import MisuseError
from anabranch.fabric.groups import MAX_BUCKETS, same
from anabranch.fabric.openflow.actions import Action, Group, Output, SetField
from anabranch.fabric.openflow.messages import (
    Bucket,
    FlowMod,
    GroupCommand,
    GroupMod,
    GroupType,
    MeterBand,
    MeterMod,
    MultipartRequest,
    MultipartType,
)
from anabranch.fabric.openflow.oxm import Match
from anabranch.fabric.reconcile import Batch, Held, check_sizes, plan_changes
from anabranch.fabric.softswitch.statistics import answer
from anabranch.fabric.softswitch.switch import SoftSwitch
from anabranch.fabric.tables import (
    INTENT_COOKIE,
    REACTIVE_COOKIE,
    GroupSpec,
    MeterSpec,
    Rule,
    Tables,
    check,
)

PORTS = (1, 2, 3, 4)
VERSIONS = (4, 5, 6)


def bucket(port: int, *more: Action, weight: int = 0) -> Bucket:
    return Bucket((*more, Output(port)), weight=weight)


BUCKETS = st.builds(
    bucket, st.sampled_from(PORTS), st.builds(SetField, st.just("udp_dst"), st.integers(1, 40))
)


@st.composite
def tables(draw: st.DrawFn) -> Tables:
    groups = []
    for number in sorted(draw(st.sets(st.integers(1, 4)))):
        kind = draw(st.sampled_from([GroupType.ALL, GroupType.ALL, GroupType.SELECT]))
        size = draw(st.sampled_from([0, 1, 3, 30]))
        buckets = draw(st.lists(BUCKETS, min_size=size // 2, max_size=size))
        if kind is GroupType.SELECT:
            buckets = [replace(one, weight=1) for one in buckets]
        elif number > 1 and groups and draw(st.booleans()):
            buckets.append(Bucket((Group(groups[-1].group_id),)))
        groups.append(GroupSpec(number, kind, tuple(buckets)))
    meters = [
        MeterSpec(number, (MeterBand(draw(st.sampled_from([10, 20]))),))
        for number in sorted(draw(st.sets(st.integers(1, 2))))
    ]
    rules = {}
    for number in sorted(draw(st.sets(st.integers(1, 5)))):
        actions = draw(st.sampled_from([Output(2), *(Group(group.group_id) for group in groups)]))
        meter = draw(st.sampled_from([None, *(meter.meter_id for meter in meters)]))
        rules[number] = Rule(
            draw(st.integers(0, 1)),
            7,
            Match(in_port=number),
            (actions,),
            INTENT_COOKIE,
            meter=meter,
        )
    return Tables(frozenset(rules.values()), frozenset(groups), frozenset(meters))


def read(switch: SoftSwitch) -> Held:
    def ask(kind: MultipartType) -> list:
        return answer(switch, MultipartRequest(kind), 0.0)

    return Held.found(
        map(Rule.installed, ask(MultipartType.FLOW)),
        {
            d.group_id: GroupSpec(d.group_id, d.type, d.buckets)
            for d in ask(MultipartType.GROUP_DESC)
        },
        {
            config.meter_id: MeterSpec(config.meter_id, config.bands, config.packets)
            for config in ask(MultipartType.METER_CONFIG)
        },
    )


def obey(switch: SoftSwitch, held: Held, batches: Iterable[Batch]) -> list[object]:
    """Do what a plan says; a refusal raises."""
    messages = []
    for batch in batches:
        for change in batch.changes:
            message = change.message
            messages.append(message)
            if isinstance(message, FlowMod):
                switch.flow_mod(message, 0.0)
            elif isinstance(message, GroupMod):
                switch.group_mod(message, 0.0)
            else:
                switch.meter_mod(message, 0.0)
            change.apply(held)
    return messages


def kinds(batches: Iterable[Batch]) -> list[int]:
    """Return 0 for each rule, 1 for each group, 2 for each meter, in the order of sending."""
    order = (FlowMod, GroupMod, MeterMod)
    return [order.index(type(change.message)) for batch in batches for change in batch.changes]


def holds(held: Held, wanted: Tables) -> bool:
    groups = {group.group_id: group for group in wanted.groups}
    return (
        set(held.rules.values()) == set(wanted.rules)
        and set(held.meters.values()) == set(wanted.meters)
        and held.groups.keys() == groups.keys()
        and all(
            group is not None and same(group.spec, groups[group.spec.group_id])
            for group in held.groups.values()
        )
    )


@given(tables(), tables(), st.sampled_from(VERSIONS))
def test_a_plan_leads_from_any_tables_to_any_others(
    before: Tables, wanted: Tables, version: int
) -> None:
    check(wanted)
    check_sizes(wanted)
    switch = SoftSwitch(1, PORTS)
    switch.load(before, 0.0)
    held = read(switch)
    plan = plan_changes(held, wanted, version)
    assert kinds(plan.add) == sorted(kinds(plan.add), reverse=True)
    assert kinds(plan.delete) == sorted(kinds(plan.delete))
    obey(switch, held, plan.add)
    assert set(wanted.rules) <= set(read(switch).rules.values())  # before anything is deleted
    obey(switch, held, plan.delete)
    assert holds(read(switch), wanted)
    assert holds(held, wanted), "what was written down is not what is there"
    assert not plan_changes(held, wanted, version)
    assert not plan_changes(read(switch), wanted, version)


@given(tables(), tables(), tables())
def test_what_is_known_to_be_there_makes_no_other_plan(
    first: Tables, second: Tables, third: Tables
) -> None:
    """The short cut over ``synced`` finds the same differences as the long way."""
    switch = SoftSwitch(1, PORTS)
    held = Held()
    for wanted in (first, second, third, third):
        plan = plan_changes(held, wanted, 6)
        obey(switch, held, plan.add)
        obey(switch, held, plan.delete)
        held.synced = wanted
        assert holds(read(switch), wanted)
    assert not plan_changes(held, Tables(third.rules, third.groups, third.meters), 6)


def many(count: int, *, start: int = 1) -> tuple[Bucket, ...]:
    return tuple(bucket(2, SetField("udp_dst", number)) for number in range(start, start + count))


def everything(*groups: GroupSpec) -> Tables:
    return Tables(groups=frozenset(groups))


def settled(wanted: Tables, version: int) -> tuple[SoftSwitch, Held]:
    switch, held = SoftSwitch(1, PORTS), Held()
    obey(switch, held, plan_changes(held, wanted, version).add)
    return switch, held


@pytest.mark.parametrize("version", VERSIONS)
def test_a_bucket_moves_between_groups_in_one_atomic_batch(version: int) -> None:
    mover, rest = many(1)[0], many(60, start=2)
    before = [GroupSpec(1, GroupType.ALL, (*rest, mover)), GroupSpec(2, GroupType.ALL, rest)]
    after = [GroupSpec(1, GroupType.ALL, rest), GroupSpec(2, GroupType.ALL, (mover, *rest))]
    switch, held = settled(everything(*before), version)
    plan = plan_changes(held, everything(*after), version)
    (batch,), delete = plan.add, plan.delete
    assert batch.atomic
    assert delete == ()
    first, second = (change.message for change in batch.changes)
    assert isinstance(first, GroupMod)
    assert isinstance(second, GroupMod)
    assert (first.group_id, second.group_id) == (1, 2)  # it leaves before it arrives
    if version == 6:
        assert (first.command, first.buckets) == (GroupCommand.REMOVE_BUCKET, ())
        assert second.command is GroupCommand.INSERT_BUCKET
        assert len(second.buckets) == 1
    else:
        assert {first.command, second.command} == {GroupCommand.MODIFY}
    obey(switch, held, plan.add)
    assert holds(read(switch), everything(*after))


def test_a_small_or_very_different_group_is_sent_whole() -> None:
    switch, held = settled(everything(GroupSpec(1, GroupType.ALL, many(100))), 6)
    wanted = everything(GroupSpec(1, GroupType.ALL, many(100, start=60)))
    (batch,) = plan_changes(held, wanted, 6).add
    (change,) = batch.changes
    assert isinstance(change.message, GroupMod)
    assert change.message.command is GroupCommand.MODIFY
    obey(switch, held, [batch])
    assert holds(read(switch), wanted)


def test_what_cannot_be_read_is_written_anew_or_deleted() -> None:
    wanted = everything(GroupSpec(1, GroupType.ALL, many(2)))
    switch, _ = settled(everything(*wanted.groups, GroupSpec(9, GroupType.ALL, ())), 6)
    held = Held.found((), {1: None, 9: None}, {})
    plan = plan_changes(held, wanted, 6)
    messages = obey(switch, held, (*plan.add, *plan.delete))
    commands = [(m.command, m.group_id) for m in messages if isinstance(m, GroupMod)]
    assert commands == [(GroupCommand.MODIFY, 1), (GroupCommand.DELETE, 9)]
    assert holds(read(switch), wanted)


def test_reactive_rules_are_left_alone_and_foreign_ones_are_not() -> None:
    def rule(number: int, cookie: int) -> Rule:
        return Rule(0, 1, Match(in_port=number), (), cookie)

    held = Held.found([rule(1, REACTIVE_COOKIE | 5), rule(2, 5), rule(3, INTENT_COOKIE)], {}, {})
    (batch,) = plan_changes(held, Tables(), 6).delete
    assert {change.key for change in batch.changes} == {rule(2, 0).key, rule(3, 0).key}


# groups in parts

SIZES = st.sampled_from([1, 399, 400, 401, 499, 500, 501, 744, 1000, 3200])


@given(
    st.lists(st.tuples(SIZES, st.integers(1, 400)), min_size=1, max_size=4),
    st.sampled_from(VERSIONS),
)
def test_a_large_group_is_held_in_parts_that_stay_small(
    steps: list[tuple[int, int]], version: int
) -> None:
    switch, held = SoftSwitch(1, PORTS), Held()
    for size, start in steps:
        group = GroupSpec(5, GroupType.ALL, many(size, start=start))
        plan = plan_changes(held, everything(group), version)
        obey(switch, held, plan.add)
        obey(switch, held, plan.delete)
        assert [g.group_id for g in plan.split] == [5] * (size > MAX_BUCKETS)
        found = read(switch).groups
        assert all(g is not None and len(g.spec.buckets) <= MAX_BUCKETS for g in found.values())
        assert sorted(outputs(found, 5)) == list(range(start, start + size))
        assert not plan_changes(read(switch), everything(group), version).add


def outputs(groups: dict, number: int) -> list[int]:
    """Return the UDP ports that a packet sent to a group leaves with."""
    ports = []
    for one in groups[number].spec.buckets:
        match one.actions:
            case (Group(part),):
                ports += outputs(groups, part)
            case (SetField(_, port), Output(_)):
                ports.append(port)
    return ports


def test_one_bucket_more_changes_one_part_only() -> None:
    switch, held = settled(everything(GroupSpec(5, GroupType.ALL, many(700))), 6)
    plan = plan_changes(held, everything(GroupSpec(5, GroupType.ALL, many(701))), 6)
    (message,) = obey(switch, held, (*plan.add, *plan.delete))
    assert isinstance(message, GroupMod)
    assert message.command is GroupCommand.INSERT_BUCKET
    assert len(message.buckets) == 1


@pytest.mark.parametrize(
    ("group", "words"),
    [
        (GroupSpec(1, GroupType.ALL, many(3201)), "ALL group 1 has 3201 buckets; 3200 is"),
        (GroupSpec(1, GroupType.SELECT, many(501)), "SELECT group 1 has 501 buckets; 500 is"),
        (GroupSpec(1, GroupType.FAST_FAILOVER, many(501)), "501 buckets; 500 is the limit"),
        (GroupSpec(1, GroupType.INDIRECT, many(2)), "such a group has 1"),
        (GroupSpec(0xF0000000, GroupType.ALL, ()), "the numbers are 0 to 0xefffffff"),
    ],
)
def test_a_group_that_cannot_be_held_is_misuse(group: GroupSpec, words: str) -> None:
    with pytest.raises(MisuseError, match=words):
        check_sizes(everything(group))
