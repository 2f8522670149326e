"""Lists of buckets and what leads from one to the other."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from anabranch.fabric.groups import bare, bucket_change, in_parts, is_large, same
from anabranch.fabric.openflow.actions import Output, SetField
from anabranch.fabric.openflow.messages import Bucket, GroupType
from anabranch.fabric.reconcile import held_group
from anabranch.fabric.tables import GroupSpec

BUCKETS = st.lists(st.builds(lambda port: Bucket((Output(port),)), st.integers(1, 6)), max_size=12)


@given(BUCKETS, BUCKETS)
def test_a_bucket_change_leads_from_one_list_to_the_other(
    old: list[Bucket], new: list[Bucket]
) -> None:
    change = bucket_change(old, new)
    kept = [origin for origin in change.origins if origin is not None]
    assert sorted((*kept, *change.removed)) == list(range(len(old)))  # each stays or goes, once
    assert len(change.origins) == len(new)
    for place, origin in enumerate(change.origins):
        assert origin is None or old[origin] == new[place]
    before, after = Counter(old), Counter(new)
    assert Counter(old[place] for place in change.removed) == before - after  # not one too many
    assert Counter(new[place] for place in change.inserted) == after - before


@pytest.mark.parametrize(
    ("kind", "equal"),
    [(GroupType.ALL, True), (GroupType.SELECT, True), (GroupType.FAST_FAILOVER, False)],
)
def test_order_matters_where_buckets_are_asked_in_order(kind: GroupType, equal: bool) -> None:
    one, other = Bucket((Output(1),), watch_port=1), Bucket((Output(2),), watch_port=2)
    left, right = GroupSpec(1, kind, (one, other)), GroupSpec(1, kind, (other, one))
    assert same(left, left)
    assert same(left, right) is equal
    assert not same(left, GroupSpec(1, kind, (one, one)))
    assert not same(left, GroupSpec(1, kind, (one,)))
    assert not same(left, GroupSpec(1, GroupType.INDIRECT, (one, other)))


def test_ids_are_names_and_weights_count_only_where_they_are_used() -> None:
    named = (Bucket((Output(1),), weight=5, bucket_id=9), Bucket((Output(2),), bucket_id=4))
    assert bare(GroupSpec(1, GroupType.ALL, named)).buckets == (
        Bucket((Output(1),)),
        Bucket((Output(2),)),
    )
    assert [b.weight for b in bare(GroupSpec(1, GroupType.SELECT, named)).buckets] == [5, 0]
    assert held_group(GroupSpec(1, GroupType.ALL, named)).ids == (9, 4)
    assert held_group(GroupSpec(1, GroupType.ALL, (*named, Bucket(())))).ids is None
    assert held_group(GroupSpec(1, GroupType.ALL, (named[0], named[0]))).ids is None


def test_numbers_of_parts_that_are_taken_are_not_used_again() -> None:
    large = GroupSpec(1, GroupType.ALL, tuple(Bucket((Output(n),)) for n in range(1, 601)))
    stray = {0xF0000000: None, 0xF0000005: None}
    parts = [0xF0000002, 0xF0000003, 0xF0000006, 0xF0000007]
    assert sorted(in_parts({1: large}, stray)) == [1, *parts]


def test_each_part_of_a_large_group_is_behind_a_door_of_its_own() -> None:
    large = GroupSpec(1, GroupType.ALL, tuple(Bucket((Output(n),)) for n in range(1, 2002)))
    found = in_parts({1: large}, {})
    doors = [found[action.group_id] for b in found[1].buckets for action in b.actions]
    assert [door.type for door in doors] == [GroupType.SELECT] * 6
    assert all(len(door.buckets) == 1 and door.buckets[0].weight == 1 for door in doors)
    parts = [found[action.group_id] for door in doors for action in door.buckets[0].actions]
    assert [len(part.buckets) for part in parts] == [400] * 5 + [1]
    assert Counter(bucket for part in parts for bucket in part.buckets) == Counter(large.buckets)


def test_one_bucket_less_changes_one_part() -> None:
    buckets = tuple(Bucket((Output(n),)) for n in range(1, 1001))
    before = in_parts({1: GroupSpec(1, GroupType.ALL, buckets)}, {})
    after = in_parts({1: GroupSpec(1, GroupType.ALL, (*buckets[:500], *buckets[501:]))}, before)
    changed = [n for n in before if before[n] != after[n]]
    assert (len(changed), before.keys()) == (1, after.keys())


def test_groups_that_rewrite_ipv6_are_large_sooner() -> None:
    def copies(field: str, to: str, size: int) -> GroupSpec:
        buckets = (Bucket((SetField(field, to), Output(n + 1))) for n in range(size))
        return GroupSpec(1, GroupType.ALL, tuple(buckets))

    assert not is_large(copies("ipv4_dst", "10.0.0.9", 500))
    assert is_large(copies("ipv4_dst", "10.0.0.9", 501))
    assert not is_large(copies("ipv6_dst", "fd00::9", 400))
    assert is_large(copies("ipv6_dst", "fd00::9", 401))
