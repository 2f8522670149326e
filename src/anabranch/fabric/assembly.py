"""The tables of one switch, put together from the parts of many intents."""

from collections import Counter
from collections.abc import Hashable, Iterable
from typing import TypeVar

from anabranch.fabric.flow_rules import Part
from anabranch.fabric.openflow.actions import PORT_CONTROLLER, Output
from anabranch.fabric.openflow.oxm import ETH_LLDP, Match
from anabranch.fabric.pipeline import (
    CLASSIFY,
    EDGE,
    EDGE_PRIORITY,
    FLOWS,
    FROM_LINK,
    HOSTS,
    LINK_PRIORITY,
    LLDP_PRIORITY,
    ORIGIN_MASK,
    PASS_PRIORITY,
    SERVICES,
)
from anabranch.fabric.tables import INTENT_COOKIE, GroupSpec, MeterSpec, Rule, Tables

_WHOLE = 0xFFFF  # packets go to the controller uncut
_T = TypeVar("_T")

_LLDP = Rule(
    CLASSIFY,
    LLDP_PRIORITY,
    Match(eth_type=ETH_LLDP),
    (Output(PORT_CONTROLLER, _WHOLE),),
    INTENT_COOKIE,
)
_PASSING = tuple(
    Rule(table, priority, Match(), (), INTENT_COOKIE, goto_table=onward)
    for table, priority, onward in (
        (CLASSIFY, EDGE_PRIORITY, EDGE),
        (EDGE, PASS_PRIORITY, SERVICES),
        (SERVICES, PASS_PRIORITY, FLOWS),
        (FLOWS, PASS_PRIORITY, HOSTS),
    )
)


def base(inner_ports: Iterable[int]) -> Part:
    """Return what every switch has, whatever is wanted.

    Args:
        inner_ports: those at which a link is known, up or not.
    """
    links = (
        Rule(
            CLASSIFY,
            LINK_PRIORITY,
            Match(in_port=port_no),
            (),
            INTENT_COOKIE,
            goto_table=SERVICES,
            metadata=(FROM_LINK, ORIGIN_MASK),
        )
        for port_no in sorted(inner_ports)
    )
    return Part((_LLDP, *_PASSING, *links))


class Assembly:
    """Parts by key, and the tables they make; what several parts have in common is there once."""

    def __init__(self) -> None:
        self._parts: dict[Hashable, Part] = {}
        self._rules: dict[Rule, int] = {}
        self._groups: dict[GroupSpec, int] = {}
        self._meters: dict[MeterSpec, int] = {}
        self.failover: Counter[int] = Counter()
        """Number of parts that refer to a group of a link, by the group's number."""
        self._tables = Tables()
        self._changed = False

    def get(self, key: Hashable) -> Part | None:
        """Return the part under a key."""
        return self._parts.get(key)

    def put(self, key: Hashable, part: Part | None) -> list[int]:
        """Set or take away (None) what is under a key.

        Returns: numbers of links' groups that are now referred to, or no longer.
        """
        before = self._parts.get(key)
        if before == part:
            return []
        self._changed = True
        if part is None:
            del self._parts[key]
        else:
            self._parts[key] = part
        new, old = part or Part(), before or Part()
        _count(self._rules, new.rules, old.rules)
        _count(self._groups, new.groups, old.groups)
        _count(self._meters, new.meters, old.meters)
        was = {number for number in old.failover if self.failover[number]}
        for number in new.failover:
            self.failover[number] += 1
        for number in old.failover:
            self.failover[number] -= 1
            if not self.failover[number]:
                del self.failover[number]
        now = {number for number in (*new.failover, *old.failover) if number in self.failover}
        fresh = {number for number in new.failover if self.failover[number] == 1}
        return sorted((was - now) | (fresh - was))

    def tables(self) -> Tables:
        """Return the tables; the same object as before if they are equal."""
        if self._changed:
            self._changed = False
            made = Tables(frozenset(self._rules), frozenset(self._groups), frozenset(self._meters))
            if made != self._tables:
                self._tables = made
        return self._tables


def _count(counts: dict[_T, int], new: tuple[_T, ...], old: tuple[_T, ...]) -> None:
    if new == old:
        return
    for item in new:
        if item not in old:
            counts[item] = counts.get(item, 0) + 1
    for item in old:
        if item not in new:
            left = counts[item] - 1
            if left:
                counts[item] = left
            else:
                del counts[item]
