"""Groups as data: large ones in parts, and the least that turns one list of buckets into another.

Measured on Open vSwitch 3.1: 818 buckets that rewrite three fields fit one group_mod of OpenFlow
1.3; above 744 (455 of IPv6) the actions of one packet exceed 64 KiB: every packet takes the slow
path, and enters no further group, without a word. So a large group is one of *doors*: groups
of the type SELECT with a single bucket, which leads to a part. By OpenFlow such a door is nothing;
Open vSwitch hashes the packet there and begins anew with it (recirculation), with 64 KiB more.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import count, islice

from anabranch.fabric.errors import MisuseError
from anabranch.fabric.openflow.actions import Group, SetField
from anabranch.fabric.openflow.messages import Bucket, GroupType
from anabranch.fabric.tables import GroupSpec

MAX_BUCKETS = 500
"""Of a group that is not in parts: each packet goes straight through it."""
PART_BUCKETS = 400
"""Of a part, and of a group that rewrites IPv6 addresses: they are longer."""
MAX_PARTS = 8
FIRST_PART = 0xF0000000
"""Group numbers from here on are those of parts, even, and of their doors; nobody else's."""
_LAST_PART = 0xFFFFFF00  # OFPG_MAX

KnownGroups = Mapping[int, GroupSpec | None]
"""Bare groups of a switch by number; None: it is there, and nobody knows with which buckets."""


def bare(group: GroupSpec) -> GroupSpec:
    """Return a group as it is compared: without bucket ids, weights only where they count."""
    weighs = group.type is GroupType.SELECT
    if all(bucket.bucket_id is None and (weighs or not bucket.weight) for bucket in group.buckets):
        return group
    buckets = (
        replace(bucket, bucket_id=None, weight=bucket.weight if weighs else 0)
        for bucket in group.buckets
    )
    return replace(group, buckets=tuple(buckets))


def is_large(group: GroupSpec) -> bool:
    """Say whether a group has too many buckets to be held as one."""
    size = len(group.buckets)
    return size > MAX_BUCKETS or (size > PART_BUCKETS and _rewrites_ipv6(group))


def _rewrites_ipv6(group: GroupSpec) -> bool:
    return any(
        isinstance(action, SetField) and action.field.startswith("ipv6")
        for bucket in group.buckets
        for action in bucket.actions
    )


def check_size(group: GroupSpec) -> None:
    """Say which group can neither be sent nor be split.

    Raises:
        MisuseError: it is too large for its type, or its number is one of the parts'.
    """
    size, name = len(group.buckets), f"{group.type.name} group {group.group_id}"
    limit = MAX_BUCKETS
    if group.type is GroupType.INDIRECT:
        if size != 1:
            raise MisuseError(f"{name} has {size} buckets; such a group has 1")
    elif group.type is GroupType.ALL:
        limit = MAX_PARTS * PART_BUCKETS
    if size > limit:
        raise MisuseError(f"{name} has {size} buckets; {limit} is the limit")
    if not 0 <= group.group_id < FIRST_PART:
        raise MisuseError(f"{name}: the numbers are 0 to {FIRST_PART - 1:#x}")


def split(group: GroupSpec, present: KnownGroups, numbers: Iterator[int]) -> list[GroupSpec]:
    """Return an ALL group as parts of at most PART_BUCKETS, their doors, and what leads to these.

    A bucket stays in the part that holds it at the switch now, so that one more or one less
    changes one part only.

    Args:
        present: what the switch holds.
        numbers: group numbers for new parts; the next higher ones are their doors'.
    """
    missing = Counter(group.buckets)
    parts: list[tuple[int, list[Bucket]]] = []
    for part in _parts_of(present.get(group.group_id), present):
        kept = []
        for bucket in part.buckets:
            if missing[bucket] > 0:
                missing[bucket] -= 1
                kept.append(bucket)
        if kept:
            parts.append((part.group_id, kept))
    rest = missing.elements()
    for _, buckets in parts:
        buckets += islice(rest, PART_BUCKETS - len(buckets))
    while buckets := list(islice(rest, PART_BUCKETS)):
        parts.append((next(numbers), buckets))
    made = []
    for number, buckets in parts:
        made.append(GroupSpec(number, GroupType.ALL, tuple(buckets)))
        to_part = Bucket((Group(number),), weight=1)
        made.append(GroupSpec(_door(number), GroupType.SELECT, (to_part,)))
    heads = tuple(Bucket((Group(_door(number)),)) for number, _ in parts)
    return [*made, GroupSpec(group.group_id, GroupType.ALL, heads)]


def _door(part: int) -> int:
    return part + 1


def _parts_of(head: GroupSpec | None, present: KnownGroups) -> Iterator[GroupSpec]:
    for bucket in head.buckets if head is not None else ():
        match bucket.actions:
            case (Group(number),) if number > FIRST_PART:
                part = present.get(number - 1)
                if part is not None and part.type is GroupType.ALL:
                    yield part


def in_parts(groups: Mapping[int, GroupSpec], present: KnownGroups) -> dict[int, GroupSpec]:
    """Return ``groups`` with every one that is too large for one message in parts."""
    taken = present.keys()
    numbers = (n for n in count(FIRST_PART, 2) if n not in taken and _door(n) not in taken)
    found: dict[int, GroupSpec] = {}
    for group in groups.values():
        for part in split(group, present, numbers) if is_large(group) else [group]:
            found[part.group_id] = part
    return found


@dataclass(frozen=True, slots=True)
class BucketChange:
    """From one list of buckets to another, whatever their order.

    Attributes:
        removed: places in the first list of what the second lacks.
        origins: for each place in the second list its place in the first, None: it is new.
    """

    removed: tuple[int, ...]
    origins: tuple[int | None, ...]

    def __bool__(self) -> bool:
        return bool(self.removed) or None in self.origins

    @property
    def inserted(self) -> list[int]:
        """Return the places in the second list of what the first lacks."""
        return [place for place, origin in enumerate(self.origins) if origin is None]


def bucket_change(old: Sequence[Bucket], new: Sequence[Bucket]) -> BucketChange:
    """Compare two lists of buckets that are written as :func:`bare` does.

    Equal ends are passed over first: hashing 500 buckets takes longer than a switch does.
    """
    shorter = min(len(old), len(new))
    head = _alike(old, new, shorter)
    tail = _alike(reversed(old), reversed(new), shorter - head)
    places = defaultdict[Bucket, list[int]](list)
    for place in reversed(range(head, len(old) - tail)):
        places[old[place]].append(place)
    middle: list[int | None] = []
    for bucket in new[head : len(new) - tail]:
        there = places[bucket]
        middle.append(there.pop() if there else None)
    removed = sorted(place for left in places.values() for place in left)
    return BucketChange(tuple(removed), (*range(head), *middle, *range(len(old) - tail, len(old))))


def _alike(old: Iterable[Bucket], new: Iterable[Bucket], limit: int) -> int:
    """Return how many buckets in a row are the same in both, ``limit`` at most."""
    pairs = enumerate(zip(islice(old, limit), new, strict=False))
    return next((place for place, (a, b) in pairs if a is not b and a != b), limit)


def ordered(group: GroupSpec) -> bool:
    """Say whether the order of its buckets counts."""
    return group.type is GroupType.FAST_FAILOVER


def same(present: GroupSpec, wanted: GroupSpec) -> bool:
    """Say whether two bare groups do the same to every packet."""
    if present.type is not wanted.type or len(present.buckets) != len(wanted.buckets):
        return False
    if ordered(wanted):
        return present.buckets == wanted.buckets
    return not bucket_change(present.buckets, wanted.buckets)
