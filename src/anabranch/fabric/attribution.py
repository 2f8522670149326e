"""Whom the failures of switches hit: the flows and taps that are not carried because of them."""

from collections import defaultdict
from collections.abc import Collection, Mapping
from dataclasses import replace

from anabranch.fabric.compiler import Plan
from anabranch.fabric.failures import Failure
from anabranch.fabric.flow_rules import cookie_of
from anabranch.fabric.groups import FIRST_PART, is_large
from anabranch.fabric.intents import Intents
from anabranch.fabric.openflow.actions import Group, Meter
from anabranch.fabric.openflow.messages import GroupType
from anabranch.fabric.reconcile import HeldGroup
from anabranch.fabric.tables import INTENT_COOKIE, NOTHING, GroupSpec, MeterSpec, Rule, Tables
from anabranch.fabric.trees import FlowTree

_NOBODY: frozenset[str] = frozenset()


def attributed(failures: Collection[Failure], intents: Intents, plan: Plan) -> tuple[Failure, ...]:
    """Return failures with the names of the flows and taps that they hit.

    Rules, groups and meters hit whose they are. What all share on the way hits those that come to
    the switch by the port in question, and a switch that fails as a whole all that pass it. What
    is only to be removed hits nobody, nor does a bypass: the links themselves carry.

    Args:
        intents, plan: those that the switches were to hold.
    """
    if not failures:
        return ()
    wanted = _Wanted(intents, plan)
    return tuple(replace(failure, hit=wanted.hit(failure)) for failure in failures)


class _Wanted:
    def __init__(self, intents: Intents, plan: Plan) -> None:
        self._plan = plan
        self._taps = intents.taps
        self._names = {cookie_of(name): name for name in intents.names}
        self._used: dict[str, dict[Group | Meter, list[Rule]]] = {}

    def hit(self, failure: Failure) -> frozenset[str]:
        switch, change = failure.switch, failure.change
        places: set[Group | Meter]
        if change is None:
            return self._passing(switch, None)
        match change.result:
            case Rule() as rule:
                return self._having(switch, rule)
            case HeldGroup(spec):
                places = {Group(number) for number in self._numbers(switch, spec)}
            case MeterSpec(meter_id):
                places = {Meter(meter_id)}
            case None:
                return _NOBODY
        users = self._users(switch)
        return _NOBODY.union(
            *(self._having(switch, rule) for place in places for rule in users.get(place, ()))
        )

    def _tables(self, switch: str) -> Tables:
        return self._plan.tables.get(switch, NOTHING)

    def _users(self, switch: str) -> Mapping[Group | Meter, list[Rule]]:
        """Return which rules of a switch send packets to a group or meter."""
        found = self._used.get(switch)
        if found is None:
            found = self._used[switch] = defaultdict(list)
            for rule in self._tables(switch).rules:
                for action in rule.actions:
                    if isinstance(action, Group):
                        found[action].append(rule)
                if rule.meter is not None:
                    found[Meter(rule.meter)].append(rule)
        return found

    def _numbers(self, switch: str, group: GroupSpec) -> set[int]:
        """Return the number of a group, or, if it is a part, those of which it may be one.

        Of a part's door nothing tells: that may be of any large group.
        """
        if group.group_id < FIRST_PART:
            return {group.group_id}
        buckets = frozenset(group.buckets if group.type is GroupType.ALL else ())
        return {
            whole.group_id
            for whole in self._tables(switch).groups
            if is_large(whole) and buckets <= frozenset(whole.buckets)
        }

    def _having(self, switch: str, rule: Rule) -> frozenset[str]:
        name = self._names.get(rule.cookie)
        if name is not None:
            return frozenset({name})
        passes_on = rule.goto_table is not None and not rule.actions
        if rule.cookie == INTENT_COOKIE and passes_on:
            return self._passing(switch, rule.match.in_port)
        return _NOBODY

    def _passing(self, switch: str, port_no: int | None) -> frozenset[str]:
        """Return what comes to a switch by a port; None: by any."""
        found = {name for name, tree in self._plan.trees.items() if _comes(tree, switch, port_no)}
        found.update(tap.name for tap in self._taps if not tap.switches or switch in tap.switches)
        return frozenset(found)


def _comes(tree: FlowTree, switch: str, port_no: int | None) -> bool:
    if switch not in tree.switches:
        return False
    if port_no is None:
        return True
    for segment in tree.segments:
        arrival = segment.arrivals.get(switch)
        if arrival is not None and arrival.dst.port_no == port_no:
            return True
        if segment.root == switch and segment.entry == port_no:
            return True
    return False
