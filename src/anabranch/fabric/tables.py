"""What a switch shall hold, as data: rules, groups and meters, and the difference of two states."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import cached_property

from anabranch.fabric.errors import MisuseError
from anabranch.fabric.openflow.actions import (
    GROUP_ANY,
    Action,
    ApplyActions,
    GotoTable,
    Group,
    Instruction,
    Meter,
    OtherAction,
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

INTENT_COOKIE = 0xAB << 56
REACTIVE_COOKIE = 0xAC << 56
COOKIE_MASK = 0xFF << 56
SEND_FLOW_REMOVED = 1

RuleKey = tuple[int, int, Match]


@dataclass(frozen=True, slots=True)
class Rule:
    """One flow entry of a switch; ``table``, ``priority`` and ``match`` are its identity.

    Attributes:
        actions: applied at once, in this order; empty and no ``goto_table``: drop.
        cookie: upper 8 bits say who owns the entry, see INTENT_COOKIE and REACTIVE_COOKIE.
        metadata: value and mask that are written into the packet's metadata.
        meter: the meter that the packet passes first.
        idle_timeout, hard_timeout: seconds, 0 for never.
        notify: the switch reports when the entry ends.
    """

    table: int
    priority: int
    match: Match
    actions: tuple[Action, ...]
    cookie: int = 0
    goto_table: int | None = None
    metadata: tuple[int, int] | None = None
    meter: int | None = None
    idle_timeout: int = 0
    hard_timeout: int = 0
    notify: bool = False

    @property
    def key(self) -> RuleKey:
        return self.table, self.priority, self.match

    def add(self) -> FlowMod:
        """Return the message that installs this rule, in place of one with the same key."""
        # The order in which a switch executes them (OpenFlow 1.3.5, section 5.9).
        instructions: list[Instruction] = []
        if self.meter is not None:
            instructions.append(Meter(self.meter))
        if self.actions:
            instructions.append(ApplyActions(self.actions))
        if self.metadata is not None:
            instructions.append(WriteMetadata(*self.metadata))
        if self.goto_table is not None:
            instructions.append(GotoTable(self.goto_table))
        return FlowMod(
            Command.ADD,
            self.match,
            tuple(instructions),
            priority=self.priority,
            table_id=self.table,
            cookie=self.cookie,
            idle_timeout=self.idle_timeout,
            hard_timeout=self.hard_timeout,
            flags=SEND_FLOW_REMOVED if self.notify else 0,
        )

    def delete(self) -> FlowMod:
        """Return the message that removes the entry with this key and no other."""
        return FlowMod(
            Command.DELETE_STRICT, self.match, priority=self.priority, table_id=self.table
        )

    @classmethod
    def installed(cls, stats: FlowStats) -> "Rule":
        """Return a switch's entry as a rule.

        What no rule says (other instructions and flags) becomes an ``OtherAction``, so that such
        an entry equals no rule anybody wants.
        """
        actions: list[Action] = []
        goto_table = metadata = meter = None
        for instruction in stats.instructions:
            match instruction:
                case ApplyActions(applied):
                    actions += applied
                case GotoTable(table_id):
                    goto_table = table_id
                case WriteMetadata(value, mask):
                    metadata = value, mask
                case Meter(meter_id):
                    meter = meter_id
                case _:
                    actions.append(OtherAction(instruction.raw))
        if stats.flags & ~SEND_FLOW_REMOVED:
            actions.append(OtherAction(b""))
        return cls(
            stats.table_id,
            stats.priority,
            stats.match,
            tuple(actions),
            stats.cookie,
            goto_table,
            metadata,
            meter,
            stats.idle_timeout,
            stats.hard_timeout,
            bool(stats.flags & SEND_FLOW_REMOVED),
        )

    def __str__(self) -> str:
        return (
            f"rule table={self.table} priority={self.priority} {self.match} cookie={self.cookie:#x}"
        )


@dataclass(frozen=True)
class GroupSpec:
    """A group a switch shall hold. Buckets are compared without their ids."""

    group_id: int
    type: GroupType
    buckets: tuple[Bucket, ...]

    def __hash__(self) -> int:
        # Not of all buckets: there are hundreds, and two groups of one number are rarely compared.
        return hash((self.group_id, len(self.buckets)))

    @cached_property
    def referred(self) -> frozenset[int]:
        """The groups that it hands packets to or watches."""
        watched = {bucket.watch_group for bucket in self.buckets} - {GROUP_ANY}
        entered = {
            action.group_id
            for bucket in self.buckets
            for action in bucket.actions
            if isinstance(action, Group)
        }
        return frozenset(watched | entered)


@dataclass(frozen=True, slots=True)
class MeterSpec:
    """A meter a switch shall hold; ``packets``: rates are packets/s, else kbit/s."""

    meter_id: int
    bands: tuple[MeterBand, ...]
    packets: bool = False


@dataclass(frozen=True, slots=True)
class Tables:
    """Everything a switch shall hold."""

    rules: frozenset[Rule] = frozenset()
    groups: frozenset[GroupSpec] = frozenset()
    meters: frozenset[MeterSpec] = frozenset()


NOTHING = Tables()


def check(tables: Tables) -> None:
    """Say what no switch could hold.

    Raises:
        MisuseError: two rules have the same table, match and priority, two groups or meters the
            same number, a rule or group refers to a group or meter that is not there, or groups
            refer to each other in a ring.
    """
    if len({rule.key for rule in tables.rules}) != len(tables.rules):
        raise MisuseError("two rules with the same match and priority are wanted at one switch")
    groups = {group.group_id: group for group in tables.groups}
    meters = {meter.meter_id for meter in tables.meters}
    if len(groups) != len(tables.groups) or len(meters) != len(tables.meters):
        raise MisuseError("two groups or meters with the same number are wanted at one switch")
    for rule in tables.rules:
        if rule.meter is not None and rule.meter not in meters:
            raise MisuseError(f"{rule} wants meter {rule.meter}, which nobody wants")
        for action in rule.actions:
            if isinstance(action, Group) and action.group_id not in groups:
                raise MisuseError(f"{rule} wants group {action.group_id}, which nobody wants")
    for group in tables.groups:
        if missing := group.referred - groups.keys():
            raise MisuseError(f"group {group.group_id} wants {min(missing)}, which nobody wants")
    levels(groups)


def levels(groups: Mapping[int, GroupSpec]) -> list[list[GroupSpec]]:
    """Return groups so that each comes in a later list than those of them that it refers to.

    Raises:
        MisuseError: groups refer to each other in a ring.
    """
    waiting = {number: group.referred & groups.keys() for number, group in groups.items()}
    found: list[list[GroupSpec]] = []
    done: set[int] = set()
    while waiting:
        ready = sorted(group_id for group_id, needs in waiting.items() if needs <= done)
        if not ready:
            raise MisuseError(f"the groups {sorted(waiting)} refer to each other in a ring")
        found.append([groups[group_id] for group_id in ready])
        done.update(ready)
        for group_id in ready:
            del waiting[group_id]
    return found


@dataclass(frozen=True, slots=True)
class Difference:
    """What makes one set of rules of another: ``add`` also replaces, ``delete`` removes."""

    add: tuple[Rule, ...]
    delete: tuple[Rule, ...]

    def __bool__(self) -> bool:
        return bool(self.add or self.delete)


def difference(installed: Collection[Rule], wanted: Collection[Rule]) -> Difference:
    """Return what to send to a switch that has ``installed`` so that it has ``wanted``.

    A rule whose key stays but whose actions or cookie change is added only: the switch replaces it
    in one step and no packet falls between. A rule without successor is deleted.

    Raises:
        MisuseError: two wanted rules have the same key.
    """
    present = {rule.key: rule for rule in installed}
    future = {rule.key: rule for rule in wanted}
    if len(future) != len(frozenset(wanted)):
        raise MisuseError("two rules with the same match and priority are wanted at one switch")
    return Difference(
        add=tuple(rule for key, rule in future.items() if present.get(key) != rule),
        delete=tuple(rule for key, rule in present.items() if key not in future),
    )
