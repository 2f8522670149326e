"""What to send to a switch so that it holds what is wanted: a plan as data, no I/O.

The plan has two halves. The first adds and replaces: meters and groups before the rules that send
packets to them. The second deletes in reverse. Each half is a list of batches; the switch is done
with one (a barrier lies between) before it sees the next.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import count

from anabranch.fabric.errors import MisuseError
from anabranch.fabric.groups import (
    bare,
    bucket_change,
    check_size,
    in_parts,
    is_large,
    ordered,
)
from anabranch.fabric.openflow.messages import (
    BUCKET_LAST,
    Bucket,
    FlowMod,
    GroupCommand,
    GroupMod,
    GroupType,
    MeterCommand,
    MeterMod,
)
from anabranch.fabric.tables import (
    COOKIE_MASK,
    REACTIVE_COOKIE,
    GroupSpec,
    MeterSpec,
    Rule,
    RuleKey,
    Tables,
    difference,
    levels,
)

BUCKET_COMMANDS = 6
"""Wire version from which single buckets can be inserted and removed: OpenFlow 1.5."""
_SMALL_GROUP = 16  # buckets up to which the whole list is as quick as the difference


@dataclass(frozen=True, slots=True)
class HeldGroup:
    """A group as a switch holds it: bare, and the ids of its buckets where they have some."""

    spec: GroupSpec
    ids: tuple[int, ...] | None = None


@dataclass(slots=True)
class Held:
    """What a switch is known to hold, apart from reactive rules.

    Attributes:
        groups, meters: None instead of one that is there but could not be read.
        synced: the tables that all of it is known to equal, if any.
    """

    rules: dict[RuleKey, Rule] = field(default_factory=dict)
    groups: dict[int, HeldGroup | None] = field(default_factory=dict)
    meters: dict[int, MeterSpec | None] = field(default_factory=dict)
    synced: Tables | None = None

    @classmethod
    def found(
        cls,
        rules: Iterable[Rule],
        groups: Mapping[int, GroupSpec | None],
        meters: Mapping[int, MeterSpec | None],
    ) -> "Held":
        """Return what was read from a switch; reactive rules are passed over."""
        mine = (rule for rule in rules if rule.cookie & COOKIE_MASK != REACTIVE_COOKIE)
        return cls(
            {rule.key: rule for rule in mine},
            {
                number: None if group is None else held_group(group)
                for number, group in groups.items()
            },
            dict(meters),
        )


def held_group(group: GroupSpec) -> HeldGroup:
    """Return a group with its bucket ids apart; without, if any lacks one or two share one."""
    ids = [bucket.bucket_id for bucket in group.buckets if bucket.bucket_id is not None]
    complete = len(set(ids)) == len(group.buckets)
    return HeldGroup(bare(group), tuple(ids) if complete else None)


@dataclass(frozen=True, slots=True)
class Change:
    """One message, and what the switch holds once it has obeyed.

    ``key`` names the place: a rule's key, or the number of a group or meter. ``result`` None: it
    is gone.
    """

    message: FlowMod | GroupMod | MeterMod
    key: RuleKey | int
    result: Rule | HeldGroup | MeterSpec | None

    def apply(self, held: Held) -> None:
        """Write down that the switch has obeyed."""
        places: dict[object, object]
        match self.message:
            case FlowMod():
                places = held.rules  # type: ignore[assignment]  # the message tells the type
            case GroupMod():
                places = held.groups  # type: ignore[assignment]
            case MeterMod():
                places = held.meters  # type: ignore[assignment]
        if self.result is None:
            places.pop(self.key, None)
        else:
            places[self.key] = self.result

    def __str__(self) -> str:
        match self.message:
            case FlowMod() as flow:
                rule = self.result or Rule(flow.table_id, flow.priority, flow.match, ())
                return str(rule)
            case GroupMod():
                return f"group {self.key}"
            case MeterMod():
                return f"meter {self.key}"


@dataclass(frozen=True, slots=True)
class Batch:
    """Changes that may be done in any order, or, if ``atomic``, in theirs and all at once."""

    changes: tuple[Change, ...]
    atomic: bool = False


@dataclass(frozen=True, slots=True)
class Changes:
    """What makes a switch hold what is wanted; ``split``: groups that had to be put in parts."""

    add: tuple[Batch, ...]
    delete: tuple[Batch, ...]
    split: tuple[GroupSpec, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.add or self.delete)


NO_CHANGES = Changes((), ())


def check_sizes(tables: Tables) -> None:
    """Raise MisuseError for a group that is too large to be held."""
    for group in tables.groups:
        check_size(group)


def plan_changes(held: Held, wanted: Tables, version: int) -> Changes:
    """Return what to send to a switch that holds ``held`` so that it holds ``wanted``.

    ``wanted`` has passed :func:`anabranch.fabric.tables.check` and :func:`check_sizes`;
    ``version`` is the session's wire version.
    """
    if held.synced is wanted:
        return NO_CHANGES
    rules = _rules(held, wanted)
    groups = {group.group_id: bare(group) for group in wanted.groups}
    large = tuple(group for group in groups.values() if is_large(group))
    if large:
        present = {
            number: None if group is None else group.spec for number, group in held.groups.items()
        }
        groups = in_parts(groups, present)
    meters = {meter.meter_id: meter for meter in wanted.meters}
    return Changes(
        (*_meters_put(held, meters), *_groups_put(held, groups, version), *rules.add),
        (*rules.delete, *_groups_gone(held, groups), *_meters_gone(held, meters)),
        large,
    )


def _batch(changes: Iterable[Change]) -> Iterator[Batch]:
    if found := tuple(changes):
        yield Batch(found)


def _rules(held: Held, wanted: Tables) -> Changes:
    synced = held.synced
    if synced is None:
        change = difference(held.rules.values(), wanted.rules)
    else:  # sets remember the hashes of what is in them: this is quick for many rules
        change = difference(synced.rules - wanted.rules, wanted.rules - synced.rules)
    put = (Change(rule.add(), rule.key, rule) for rule in change.add)
    gone = (Change(rule.delete(), rule.key, None) for rule in change.delete)
    return Changes(tuple(_batch(put)), tuple(_batch(gone)))


def _meters_put(held: Held, meters: Mapping[int, MeterSpec]) -> Iterator[Batch]:
    changes = []
    for number, meter in meters.items():
        if number in held.meters and held.meters[number] == meter:
            continue
        command = MeterCommand.MODIFY if number in held.meters else MeterCommand.ADD
        message = MeterMod(command, number, meter.bands, meter.packets)
        changes.append(Change(message, number, meter))
    yield from _batch(changes)


def _meters_gone(held: Held, meters: Mapping[int, MeterSpec]) -> Iterator[Batch]:
    gone = sorted(held.meters.keys() - meters.keys())
    yield from _batch(
        Change(MeterMod(MeterCommand.DELETE, number), number, None) for number in gone
    )


def _groups_put(held: Held, groups: Mapping[int, GroupSpec], version: int) -> Iterator[Batch]:
    """Add groups, those first that others refer to; then change those that are there.

    Buckets leave groups before others enter some: where it is not done at once, a receiver
    misses a packet rather than getting one of two streams.
    """
    if groups.keys() - held.groups.keys():
        for level in levels(groups):
            new = [group for group in level if group.group_id not in held.groups]
            yield from _batch(_whole(GroupCommand.ADD, group, version) for group in new)
    leaving: list[Change] = []
    entering: list[Change] = []
    for number, group in groups.items():
        if number not in held.groups:
            continue
        for change, leaves in _group_changes(held.groups[number], group, version):
            (leaving if leaves else entering).append(change)
    changes = (*leaving, *entering)
    if changes:
        yield Batch(changes, atomic=len(changes) > 1)


def _groups_gone(held: Held, groups: Mapping[int, GroupSpec]) -> Iterator[Batch]:
    gone = {
        number: GroupSpec(number, GroupType.ALL, ()) if group is None else group.spec
        for number, group in held.groups.items()
        if number not in groups
    }
    try:
        ordered = levels(gone)
    except MisuseError:  # not ours, then
        ordered = [list(gone.values())]
    for level in reversed(ordered):
        yield from _batch(
            Change(GroupMod(GroupCommand.DELETE, group.group_id, group.type), group.group_id, None)
            for group in level
        )


def _group_changes(
    present: HeldGroup | None, wanted: GroupSpec, version: int
) -> Iterator[tuple[Change, bool]]:
    """Yield what changes a group, and of each message whether buckets only leave by it."""
    number = wanted.group_id
    if present is None or present.spec.type is not wanted.type:
        yield _whole(GroupCommand.MODIFY, wanted, version), False
        return
    if present.spec is wanted:
        return
    change = bucket_change(present.spec.buckets, wanted.buckets)
    if not change and not (ordered(wanted) and present.spec.buckets != wanted.buckets):
        return
    inserted, taken = change.inserted, set(present.ids or ())
    size = len(wanted.buckets)
    if (
        version < BUCKET_COMMANDS
        or present.ids is None
        or wanted.type not in (GroupType.ALL, GroupType.SELECT)
        or size <= _SMALL_GROUP
        or len(change.removed) + len(inserted) > size // 4
    ):
        yield _whole(GroupCommand.MODIFY, wanted, version), not inserted
        return
    ids, buckets = list(present.ids), list(present.spec.buckets)
    for place in reversed(change.removed):
        message = GroupMod(
            GroupCommand.REMOVE_BUCKET, number, wanted.type, (), command_bucket_id=ids[place]
        )
        del ids[place], buckets[place]
        left = HeldGroup(replace(wanted, buckets=tuple(buckets)), tuple(ids))
        yield Change(message, number, left), True
    if inserted:
        fresh = (free for free in count() if free not in taken)
        names = tuple(
            next(fresh) if origin is None else present.ids[origin] for origin in change.origins
        )
        added = tuple(replace(wanted.buckets[place], bucket_id=names[place]) for place in inserted)
        message = GroupMod(
            GroupCommand.INSERT_BUCKET, number, wanted.type, added, command_bucket_id=BUCKET_LAST
        )
        yield Change(message, number, HeldGroup(wanted, names)), False


def _whole(command: GroupCommand, group: GroupSpec, version: int) -> Change:
    """Return the message with all buckets of a group, with ids where the version has them."""
    number = group.group_id
    if version < BUCKET_COMMANDS:
        message = GroupMod(command, number, group.type, group.buckets)
        return Change(message, number, HeldGroup(group))
    ids = tuple(range(len(group.buckets)))
    buckets: tuple[Bucket, ...] = tuple(
        replace(bucket, bucket_id=place) for place, bucket in enumerate(group.buckets)
    )
    message = GroupMod(command, number, group.type, buckets)
    return Change(message, number, HeldGroup(group, ids))
