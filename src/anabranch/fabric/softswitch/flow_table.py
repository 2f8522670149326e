"""One flow table: which entry a packet meets, and which entries a flow_mod means.

Lookup is a tuple space search (Srinivasan, Suri, Varghese: "Packet Classification using Tuple Space
Search", 1999): the entries with the same fields and masks share one dictionary.
"""

from bisect import insort
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import lru_cache

from anabranch.fabric.openflow.actions import (
    GROUP_ANY,
    PORT_ANY,
    Action,
    ApplyActions,
    GotoTable,
    Group,
    Instruction,
    Meter,
    Output,
    WriteMetadata,
)
from anabranch.fabric.openflow.messages import FlowMod
from anabranch.fabric.openflow.oxm import Match, field_named
from anabranch.fabric.openflow.refusals import Refusal
from anabranch.fabric.softswitch.refusals import RefusedError

_NO_PACKET_COUNTS, _NO_BYTE_COUNTS = 8, 16

Term = tuple[str, int, int]


@lru_cache(maxsize=65536)
def terms_of(match: Match) -> tuple[Term, ...]:
    """Return the fields of a match as name, value and mask, all numbers.

    Raises:
        RefusedError: it has a field that this switch does not know.
    """
    if match.other:
        raise RefusedError(Refusal.BAD_FIELD)
    terms = []
    for name, value in match.fields:
        known = field_named(name)
        mask = (1 << known.bits) - 1
        if isinstance(value, tuple):
            terms.append((name, *value))
        elif isinstance(value, int):
            terms.append((name, value, mask))
        else:
            assert known.address is not None
            raw, masked = known.address.split(value)
            mask = mask if masked is None else int.from_bytes(masked, "big")
            terms.append((name, int.from_bytes(raw, "big") & mask, mask))
    return tuple(terms)


@dataclass(slots=True, eq=False)
class FlowEntry:
    """An entry with its counters; times are monotonic seconds.

    Attributes:
        meter, actions, metadata, goto: the instructions, taken apart; see ``set_instructions``.
        live: it is in its table.
    """

    table_id: int
    priority: int
    match: Match
    cookie: int
    idle_timeout: int
    hard_timeout: int
    flags: int
    created: float
    used: float
    terms: tuple[Term, ...] = ()
    packets: int = 0
    bytes: int = 0
    live: bool = True
    instructions: tuple[Instruction, ...] = ()
    meter: int | None = None
    actions: tuple[Action, ...] = ()
    metadata: tuple[int, int] | None = None
    goto: int | None = None

    @classmethod
    def of(cls, mod: FlowMod, now: float) -> "FlowEntry":
        """Return the entry that an ADD makes."""
        entry = cls(
            mod.table_id,
            mod.priority,
            mod.match,
            mod.cookie,
            mod.idle_timeout,
            mod.hard_timeout,
            mod.flags,
            now,
            now,
            terms_of(mod.match),
        )
        entry.set_instructions(mod.instructions)
        return entry

    def set_instructions(self, instructions: tuple[Instruction, ...]) -> None:
        self.instructions = instructions
        self.meter, self.actions, self.metadata, self.goto = None, (), None, None
        for instruction in instructions:
            match instruction:
                case Meter(meter_id):
                    self.meter = meter_id
                case ApplyActions(actions):
                    self.actions = actions
                case WriteMetadata(value, mask):
                    self.metadata = value & mask, mask
                case GotoTable(table_id):
                    self.goto = table_id

    @property
    def table_miss(self) -> bool:
        """It is the table-miss entry (section 5.4)."""
        return self.priority == 0 and not self.terms

    def count(self, length: int, now: float) -> None:
        if not self.flags & _NO_PACKET_COUNTS:
            self.packets += 1
        if not self.flags & _NO_BYTE_COUNTS:
            self.bytes += length
        self.used = now

    def deadline(self) -> tuple[float, int] | None:
        """Return when it times out and the reason (0 idle, 1 hard), None for never."""
        idle = self.used + self.idle_timeout if self.idle_timeout else None
        hard = self.created + self.hard_timeout if self.hard_timeout else None
        if hard is not None and (idle is None or hard <= idle):
            return hard, 1
        return None if idle is None else (idle, 0)

    def forwards_to(self, out_port: int, out_group: int) -> bool:
        """Say whether its actions name the port and the group; ANY is always named."""
        return (
            out_port == PORT_ANY
            or any(isinstance(a, Output) and a.port_no == out_port for a in self.actions)
        ) and (
            out_group == GROUP_ANY
            or any(isinstance(a, Group) and a.group_id == out_group for a in self.actions)
        )


@dataclass(slots=True, eq=False)
class _Space:
    """The entries with the same fields and masks; ``top`` is their highest priority."""

    names: tuple[str, ...]
    masks: tuple[int, ...] | None  # None: no field is masked
    found: dict[tuple[int | None, ...], list[FlowEntry]] = field(default_factory=dict)
    priorities: Counter[int] = field(default_factory=Counter)
    top: int = -1


class FlowTable:
    """The entries of one table; ``lookups`` and ``matched`` count packets."""

    def __init__(self) -> None:
        self.lookups = self.matched = 0
        self._entries: dict[tuple[int, Match], FlowEntry] = {}
        self._spaces: dict[tuple[tuple[str, int], ...], _Space] = {}
        self._order: list[_Space] = []  # highest priority first
        self._sorted = True

    def __len__(self) -> int:
        return len(self._entries)

    def __iter__(self) -> Iterator[FlowEntry]:
        return iter(self._entries.values())

    def get(self, priority: int, match: Match) -> FlowEntry | None:
        """Return the entry that a strict command means."""
        return self._entries.get((priority, match))

    def add(self, entry: FlowEntry) -> None:
        """Insert ``entry``; there is none with the same priority and match."""
        self._entries[entry.priority, entry.match] = entry
        signature = tuple((name, mask) for name, _, mask in entry.terms)
        space = self._spaces.get(signature)
        if space is None:
            exact = all(mask == (1 << field_named(name).bits) - 1 for name, mask in signature)
            names = tuple(name for name, _ in signature)
            space = _Space(names, None if exact else tuple(mask for _, mask in signature))
            self._spaces[signature] = space
            self._order.append(space)
        key = tuple(value for _, value, _ in entry.terms)
        insort(space.found.setdefault(key, []), entry, key=lambda other: -other.priority)
        space.priorities[entry.priority] += 1
        if entry.priority > space.top:
            space.top = entry.priority
            self._sorted = False

    def remove(self, entry: FlowEntry) -> None:
        """Take ``entry`` out."""
        entry.live = False
        del self._entries[entry.priority, entry.match]
        signature = tuple((name, mask) for name, _, mask in entry.terms)
        space = self._spaces[signature]
        key = tuple(value for _, value, _ in entry.terms)
        same = space.found[key]
        same.remove(entry)
        if not same:
            del space.found[key]
        space.priorities[entry.priority] -= 1
        if not space.priorities[entry.priority]:
            del space.priorities[entry.priority]
            if not space.priorities:
                del self._spaces[signature]
                self._order.remove(space)
            elif entry.priority == space.top:
                space.top = max(space.priorities)
                self._sorted = False

    def lookup(self, fields: dict[str, int]) -> FlowEntry | None:
        """Return the matching entry of the highest priority."""
        if not self._sorted:
            self._order.sort(key=lambda space: -space.top)
            self._sorted = True
        self.lookups += 1
        best: FlowEntry | None = None
        get = fields.get
        for space in self._order:
            if best is not None and best.priority >= space.top:
                break
            key = tuple(map(get, space.names))
            if space.masks is not None:
                if None in key:
                    continue
                key = tuple([v & m for v, m in zip(key, space.masks, strict=True)])  # type: ignore[operator]
            same = space.found.get(key)
            if same is not None and (best is None or same[0].priority > best.priority):
                best = same[0]
        if best is not None:
            self.matched += 1
        return best

    def chosen(
        self,
        match: Match,
        *,
        strict_priority: int | None = None,
        cookie: int = 0,
        cookie_mask: int = 0,
        out_port: int = PORT_ANY,
        out_group: int = GROUP_ANY,
    ) -> list[FlowEntry]:
        """Return the entries that a request means (section 6.4).

        ``strict_priority``: only the one with this priority and exactly this match; None: every
        one whose match is at least as narrow as ``match``.
        """
        found: Iterable[FlowEntry]
        if strict_priority is not None:
            one = self.get(strict_priority, match)
            found = () if one is None else (one,)
        else:
            wanted = terms_of(match)
            found = (entry for entry in self if not wanted or _narrower(entry.terms, wanted))
        return [
            entry
            for entry in found
            if not (entry.cookie ^ cookie) & cookie_mask and entry.forwards_to(out_port, out_group)
        ]

    def overlaps(self, priority: int, match: Match) -> bool:
        """Say whether a packet may match both and an entry of the same priority."""
        terms = terms_of(match)
        return any(entry.priority == priority and _meet(entry.terms, terms) for entry in self)


def _narrower(terms: tuple[Term, ...], wanted: tuple[Term, ...]) -> bool:
    has = {name: (value, mask) for name, value, mask in terms}
    for name, value, mask in wanted:
        own = has.get(name)
        if own is None or own[1] & mask != mask or own[0] & mask != value:
            return False
    return True


def _meet(left: tuple[Term, ...], right: tuple[Term, ...]) -> bool:
    has = {name: (value, mask) for name, value, mask in left}
    return not any(
        (own := has.get(name)) is not None and (own[0] ^ value) & own[1] & mask
        for name, value, mask in right
    )
