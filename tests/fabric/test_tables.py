"""What a switch can hold at all, and in which order groups come."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from anabranch.fabric.errors import MisuseError
from anabranch.fabric.openflow.actions import (
    ApplyActions,
    GotoTable,
    Group,
    Meter,
    OtherAction,
    OtherInstruction,
    Output,
    WriteMetadata,
)
from anabranch.fabric.openflow.messages import (
    Bucket,
    Command,
    FlowMod,
    FlowStats,
    GroupType,
    MeterBand,
)
from anabranch.fabric.openflow.oxm import Match
from anabranch.fabric.tables import (
    NOTHING,
    GroupSpec,
    MeterSpec,
    Rule,
    Tables,
    check,
    difference,
    levels,
)

A, B, C = (Match(in_port=number) for number in (1, 2, 3))


def test_the_difference_changes_in_place_and_deletes_only_what_is_gone() -> None:
    stays = Rule(0, 1, A, (Output(2),), 1)
    old, new = Rule(0, 1, B, (Output(3),), 1), Rule(0, 1, B, (Output(3), Output(4)), 1)
    gone, fresh = Rule(0, 1, C, (), 1), Rule(0, 2, C, (), 1)
    change = difference({stays, old, gone}, {stays, new, fresh})
    assert set(change.add) == {new, fresh}
    assert change.delete == (gone,)
    assert change
    assert not difference({stays}, {stays})


def test_another_cookie_is_another_rule_in_the_same_place() -> None:
    change = difference([Rule(0, 1, A, (), 1)], [Rule(0, 1, A, (), 2)])
    assert (len(change.add), change.delete) == (1, ())


def test_two_rules_in_one_place_are_misuse() -> None:
    with pytest.raises(MisuseError, match="same match and priority"):
        difference([], [Rule(0, 1, A, (), 1), Rule(0, 1, A, (Output(2),), 1)])


RULES = st.builds(
    Rule,
    st.integers(0, 1),
    st.integers(1, 2),
    st.sampled_from([A, B, C]),
    st.sampled_from([(), (Output(2),), (Output(3),)]),
    st.integers(1, 2),
)
TABLES = st.lists(RULES, unique_by=lambda rule: rule.key).map(set)


@given(TABLES, TABLES)
def test_sending_the_difference_makes_the_tables_equal(
    installed: set[Rule], wanted: set[Rule]
) -> None:
    table = {rule.key: rule for rule in installed}
    change = difference(installed, wanted)
    for rule in change.add:
        assert rule.key not in table or table[rule.key] != rule
        table[rule.key] = rule
    for rule in change.delete:
        del table[rule.key]
    assert set(table.values()) == wanted


def test_a_rule_becomes_one_flow_mod() -> None:
    rule = Rule(3, 7, A, (Output(2),), 9, goto_table=4)
    assert rule.add() == FlowMod(
        Command.ADD,
        A,
        (ApplyActions((Output(2),)), GotoTable(4)),
        priority=7,
        table_id=3,
        cookie=9,
    )
    assert rule.delete() == FlowMod(Command.DELETE_STRICT, A, priority=7, table_id=3)
    assert Rule(0, 1, A, ()).add().instructions == ()


def stats(rule: Rule, **changes: object) -> FlowStats:
    values: dict[str, object] = {
        "table_id": rule.table,
        "duration": 1.0,
        "priority": rule.priority,
        "idle_timeout": 0,
        "hard_timeout": 0,
        "flags": 0,
        "cookie": rule.cookie,
        "packet_count": 5,
        "byte_count": 6,
        "match": rule.match,
        "instructions": rule.add().instructions,
    }
    return FlowStats(**(values | changes))


def test_an_installed_rule_is_recognised_and_a_strange_one_is_not() -> None:
    rule = Rule(0, 7, A, (Output(2),), 9, goto_table=4)
    assert Rule.installed(stats(rule)) == rule
    for other in ({"idle_timeout": 5}, {"hard_timeout": 5}, {"flags": 1}, {"cookie": 1}):
        assert Rule.installed(stats(rule, **other)) != rule
    for strange in (
        {"flags": 2},
        {"instructions": (*rule.add().instructions, OtherInstruction(b"meter"))},
    ):
        found = Rule.installed(stats(rule, **strange))
        assert found != rule
        assert found.key == rule.key
        assert isinstance(found.actions[-1], OtherAction)


def test_a_rule_reads_well_in_a_log() -> None:
    match = Match(in_port=4, eth_type=0x0800, ipv4_dst="239.1.2.3")
    assert str(Rule(2, 10, match, (), 9)) == (
        "rule table=2 priority=10 in_port=4 eth_type=0x0800 ipv4_dst=239.1.2.3 cookie=0x9"
    )


@given(
    st.builds(
        Rule,
        st.integers(0, 5),
        st.integers(0, 9),
        st.sampled_from([A, B]),
        st.sampled_from([(), (Output(2),), (Group(4), Output(3))]),
        st.integers(0, 2**64 - 1),
        st.none() | st.integers(6, 9),
        st.none() | st.tuples(st.integers(0, 9), st.just(0xFF)),
        st.none() | st.integers(1, 9),
        st.integers(0, 9),
        st.integers(0, 9),
        st.booleans(),
    )
)
def test_every_rule_is_recognised_when_it_is_read_back(rule: Rule) -> None:
    sent = rule.add()
    assert (
        Rule.installed(
            stats(
                rule,
                instructions=sent.instructions,
                flags=sent.flags,
                idle_timeout=sent.idle_timeout,
                hard_timeout=sent.hard_timeout,
            )
        )
        == rule
    )


def test_a_rule_has_its_instructions_in_the_order_of_execution() -> None:
    rule = Rule(0, 1, A, (Output(2),), goto_table=3, metadata=(1, 3), meter=4)
    assert rule.add().instructions == (
        Meter(4),
        ApplyActions((Output(2),)),
        WriteMetadata(1, 3),
        GotoTable(3),
    )


def group(number: int, *refers: int, watch: int | None = None) -> GroupSpec:
    buckets = [Bucket((Group(other),)) for other in refers]
    if watch is not None:
        buckets.append(Bucket((), watch_group=watch))
    return GroupSpec(number, GroupType.ALL, tuple(buckets))


def test_tables_that_can_be_held_pass() -> None:
    check(NOTHING)
    rule = Rule(0, 1, A, (Group(2),), meter=3)
    groups = (group(1), group(2, 1, watch=1))
    check(Tables(frozenset({rule}), frozenset(groups), frozenset({MeterSpec(3, (MeterBand(1),))})))


@pytest.mark.parametrize(
    ("tables", "words"),
    [
        (Tables(frozenset({Rule(0, 1, A, (Group(2),))})), "wants group 2, which nobody wants"),
        (Tables(frozenset({Rule(0, 1, A, (), meter=2)})), "wants meter 2, which nobody wants"),
        (Tables(groups=frozenset({group(1, 2)})), "group 1 wants 2, which nobody wants"),
        (Tables(groups=frozenset({group(1, watch=2)})), "group 1 wants 2, which nobody wants"),
        (Tables(groups=frozenset({group(1, 2), group(2, 1)})), "in a ring"),
        (Tables(groups=frozenset({group(1, 1)})), "in a ring"),
        (Tables(groups=frozenset({group(1), GroupSpec(1, GroupType.SELECT, ())})), "same number"),
        (
            Tables(meters=frozenset({MeterSpec(1, ()), MeterSpec(1, (MeterBand(1),))})),
            "same number",
        ),
    ],
)
def test_tables_that_no_switch_can_hold_are_misuse(tables: Tables, words: str) -> None:
    with pytest.raises(MisuseError, match=words):
        check(tables)


@given(st.dictionaries(st.integers(1, 9), st.sets(st.integers(1, 9)), max_size=9))
def test_a_group_comes_after_those_it_refers_to(graph: dict[int, set[int]]) -> None:
    # Only to smaller numbers, so that there is no ring.
    groups = {n: group(n, *(other for other in refers if other < n)) for n, refers in graph.items()}
    found = levels(groups)
    place = {one.group_id: level for level, ones in enumerate(found) for one in ones}
    assert place.keys() == groups.keys()
    for number, one in groups.items():
        assert all(place[other] < place[number] for other in one.referred & groups.keys())
