"""The rules of one flow at one switch, from its tree. Pure functions of records."""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from operator import attrgetter
from typing import Any

from anabranch.fabric.bypass import Bypass, group_number
from anabranch.fabric.errors import MisuseError
from anabranch.fabric.groups import MAX_PARTS, PART_BUCKETS
from anabranch.fabric.intents import Egress, Flow
from anabranch.fabric.model import Link, PortRef
from anabranch.fabric.numbering import hashed
from anabranch.fabric.openflow.actions import (
    PORT_IN_PORT,
    PORT_LOCAL,
    PORT_MAX,
    Action,
    Group,
    Output,
    PopVlan,
    PushVlan,
    SetField,
)
from anabranch.fabric.openflow.messages import Bucket, GroupType, MeterBand
from anabranch.fabric.openflow.oxm import ETH_IPV4, ETH_IPV6, IP_UDP, VLAN_PRESENT, Match
from anabranch.fabric.openflow.prerequisites import fault_of
from anabranch.fabric.pipeline import (
    CLASSIFY,
    EDGE,
    FLOWS,
    FROM_LINK,
    ORIGIN_MASK,
    RETURN_PRIORITY,
    SERVED_MASK,
    SERVED_SHIFT,
    flow_priority,
)
from anabranch.fabric.tables import INTENT_COOKIE, GroupSpec, MeterSpec, Rule
from anabranch.fabric.trees import FlowTree

REWRITTEN = ("eth_dst", "eth_src", "ipv4_dst", "ipv4_src", "ipv6_dst", "udp_dst")
MAX_LISTED = 8
"""Rewritten copies of one rule; more are made by a group."""

FLOW_GROUPS = 0x01000000
"""Group numbers from here on belong to flows; those below to links."""
FLOW_NUMBERS = range(1, 0x01000000)
_LAST_SERVICE_PORT = 0xFFFF

BypassOf = Callable[[Link], Bypass | None]


@dataclass(frozen=True, slots=True)
class Part:
    """What one intent, or one link, adds to the tables of one switch.

    ``failover``: numbers of the groups of links that its rules refer to.
    """

    rules: tuple[Rule, ...] = ()
    groups: tuple[GroupSpec, ...] = ()
    meters: tuple[MeterSpec, ...] = ()
    failover: tuple[int, ...] = ()


def cookie_of(name: str) -> int:
    """Return the cookie of an intent's rules: packet_ins and counters are told by it."""
    return INTENT_COOKIE | hashed(name)


def carried(match: Match) -> Match:
    """Return what of a flow's match holds in every table: untagged, unless it names a VLAN."""
    return match if match.vlan_vid is not None else _with(match, vlan_vid=0)


def _with(match: Match, **changes: int | tuple[int, int]) -> Match:
    fields: dict[str, Any] = {**dict(match.fields), **changes}  # half the time of replace()
    return Match(**fields)


def check(flow: Flow) -> None:
    """Say what no table can express, before anything is changed.

    Raises:
        MisuseError: naming the flow.
    """
    try:
        _check(flow)
    except MisuseError as problem:
        raise MisuseError(f"flow {flow.name}: {problem}") from None


def _check(flow: Flow) -> None:
    vlan = flow.match.vlan_vid
    if flow.match.other or isinstance(vlan, tuple):
        raise MisuseError("a VLAN is matched exactly or not at all")
    if (fault := fault_of(flow.match)) is not None:
        raise MisuseError(fault)
    returns = [flow.ingress, *(service.back for service in flow.through)]
    if len(set(returns)) < len(returns):
        raise MisuseError("it enters twice by one port; nothing would tell which time it is")
    ports = {flow.ingress, *(egress.at for egress in flow.egress)}
    for service in flow.through:
        ports |= {service.to, service.back}
        if service.back.port_no & _LAST_SERVICE_PORT != service.back.port_no and (
            service.back.port_no != PORT_LOCAL
        ):
            raise MisuseError(f"{service.back} has too high a number for a service's return")
    for port in ports:
        if not 1 <= port.port_no <= PORT_MAX and port.port_no != PORT_LOCAL:
            raise MisuseError(f"{port} is not a port: 1 to {PORT_MAX} are")
    if flow.rate_kbps is not None and flow.rate_kbps < 1:
        raise MisuseError(f"{flow.rate_kbps} kbit/s is no rate")
    copies = Counter(egress.at.switch for egress in flow.egress)
    for switch, number in copies.items():
        if number > MAX_PARTS * PART_BUCKETS:
            raise MisuseError(f"{number} copies at {switch} are too many for a switch")
    for egress in flow.egress:
        if (egress.ipv4_dst or egress.ipv4_src) and flow.match.eth_type != ETH_IPV4:
            raise MisuseError("only where eth_type 0x0800 is matched IPv4 can be rewritten")
        if egress.ipv6_dst and flow.match.eth_type != ETH_IPV6:
            raise MisuseError("only where eth_type 0x86dd is matched IPv6 can be rewritten")
        if egress.udp_dst is not None and flow.match.ip_proto != IP_UDP:
            raise MisuseError("only where ip_proto 17 is matched UDP can be rewritten")
        _copy(egress)


@dataclass(frozen=True, slots=True)
class _Copy:
    """One copy that leaves.

    Attributes:
        rewritten: in the order of REWRITTEN.
        fields: names of these.
        order: its place among the copies of a flow.
        bucket: what makes it in a group, where it does not leave by the port it came in by.
    """

    egress: Egress
    rewritten: tuple[SetField, ...]
    fields: frozenset[str]
    order: tuple[PortRef, tuple[tuple[str, str], ...]]
    bucket: Bucket


@lru_cache(maxsize=1 << 15)  # one copy comes or goes; 500 others of the flow stay
def _copy(egress: Egress) -> _Copy:
    rewritten = tuple(
        SetField(name, value) for name in REWRITTEN if (value := getattr(egress, name)) is not None
    )
    return _Copy(
        egress,
        rewritten,
        frozenset(one.field for one in rewritten),
        (egress.at, tuple((one.field, str(one.value)) for one in rewritten)),
        Bucket((*rewritten, Output(egress.at.port_no))),
    )


class FlowRules:
    """Makes the parts of one flow.

    Args:
        flow: checked.
        number: one of FLOW_NUMBERS that no other flow has; of its groups and meter.
    """

    def __init__(self, flow: Flow, number: int) -> None:
        self._flow = flow
        self._number = number
        self._cookie = cookie_of(flow.name)
        self._match = carried(flow.match)
        self._transit: Match | None = None
        self._known = {
            name: value
            for name in REWRITTEN
            if (value := getattr(flow.match, name)) is not None and "/" not in str(value)
        }
        self._local: dict[str, list[_Copy]] = {}
        for copy in sorted(map(_copy, flow.egress), key=attrgetter("order")):
            self._local.setdefault(copy.egress.at.switch, []).append(copy)

    def part(
        self, switch: str, tree: FlowTree, bypass_of: BypassOf, tags: Sequence[int | None]
    ) -> Part | None:
        """Return what the flow needs at a switch, None for nothing.

        Args:
            bypass_of: returns the bypass of a link, None if it has none.
            tags: VLAN id of each segment of the tree, None for an untagged one.
        """
        made = _Making([], [], [], set())
        for number, segment in enumerate(tree.segments):
            if switch == segment.root or switch in segment.arrivals:
                self._add(made, switch, number, tree, bypass_of, tags[number])
        if not made.rules:
            return None
        return Part(
            tuple(made.rules),
            tuple(made.groups),
            tuple(made.meters),
            tuple(sorted(made.failover)),
        )

    def _add(
        self,
        made: "_Making",
        switch: str,
        number: int,
        tree: FlowTree,
        bypass_of: BypassOf,
        tag: int | None,
    ) -> None:
        flow, segment = self._flow, tree.segments[number]
        arrival = segment.arrivals.get(switch)
        children = segment.children.get(switch, ())
        onward = self._onward(made, arrival, children, bypass_of)
        if number < len(flow.through):
            to = flow.through[number].to
            local = [_copy(Egress(to))] if to.switch == switch else []
        else:
            local = self._local.get(switch, [])
            if tree.unreachable:
                local = [copy for copy in local if copy.egress not in tree.unreachable]
        sort = switch in flow.sort and number == len(flow.through)
        priority = flow_priority(flow.priority)
        if arrival is None:
            entry = segment.entry
            actions = _tagged(onward, tag, bool(local))
            actions += self._deliver(made, local, entry, sort=sort)
            if number:
                match = _with(self._match, metadata=(_served(entry), SERVED_MASK))
                made.rules.append(return_rule(entry))
            else:
                match = _with(self._match, in_port=entry)
            meter = None
            if not number and flow.rate_kbps is not None:
                meter = self._number
                made.meters.append(MeterSpec(meter, (MeterBand(flow.rate_kbps),)))
            made.rules.append(
                Rule(FLOWS, priority, match, tuple(actions), self._cookie, meter=meter)
            )
            return
        if self._transit is None:
            self._transit = _with(self._match, metadata=(FROM_LINK, ORIGIN_MASK))
        match = self._transit
        delivered: list[Action] = []
        if tag is not None:
            match = _with(match, vlan_vid=VLAN_PRESENT | tag)
            delivered = [PopVlan()] if local else []
        delivered += self._deliver(made, local, None, sort=sort)
        made.rules.append(Rule(FLOWS, priority, match, (*onward, *delivered), self._cookie))
        bypass = bypass_of(arrival) if flow.protected and children else None
        if bypass is None:
            return
        back = [link for link in children if link.src.port_no == bypass.last_port]
        if back:
            others = [link for link in children if link not in back]
            turned = [
                *self._onward(made, arrival, others, bypass_of),
                Output(PORT_IN_PORT),
                *delivered,
            ]
            match = _with(match, in_port=bypass.last_port)
            above = flow_priority(flow.priority, turned=True)
            made.rules.append(Rule(FLOWS, above, match, tuple(turned), self._cookie))

    def _onward(
        self,
        made: "_Making",
        arrival: Link | None,
        children: Iterable[Link],
        bypass_of: BypassOf,
    ) -> list[Action]:
        actions: list[Action] = []
        for link in children:
            bypass = bypass_of(link) if self._flow.protected else None
            if bypass is None:
                actions.append(Output(link.src.port_no))
            else:
                group_id = group_number(bypass, arrival)
                made.failover.add(group_id)
                actions.append(Group(group_id))
        return actions

    def _deliver(
        self, made: "_Making", local: Sequence[_Copy], in_port: int | None, *, sort: bool
    ) -> list[Action]:
        """Order the copies so that none sees what was rewritten for another, or make a group.

        A rewritten field stays so for all later actions. What is known from the match is put back
        where a copy wants it; what is not known must be rewritten by none before one that wants it
        as it came. ``sort``: a group, however few there are.
        """
        unknown = [copy.fields - self._known.keys() for copy in local]
        order = sorted(range(len(local)), key=lambda place: len(unknown[place]))
        in_line = all(unknown[one] <= unknown[other] for one, other in pairwise(order))
        if sort or len(local) > MAX_LISTED or not in_line:
            group_id = FLOW_GROUPS + self._number
            buckets = tuple(
                Bucket((*copy.rewritten, _out(copy, in_port)))
                if copy.egress.at.port_no == in_port
                else copy.bucket
                for copy in local
            )
            made.groups.append(GroupSpec(group_id, GroupType.ALL, buckets))
            return [Group(group_id)]
        actions: list[Action] = []
        now: dict[str, int | str] = dict(self._known)
        for place in order:
            rewritten = {one.field: one.value for one in local[place].rewritten}
            wanted = {**self._known, **rewritten}
            for name in REWRITTEN:
                if name in wanted and now.get(name) != wanted[name]:
                    now[name] = wanted[name]
                    actions.append(SetField(name, wanted[name]))
            actions.append(_out(local[place], in_port))
        return actions


@dataclass(slots=True)
class _Making:
    rules: list[Rule]
    groups: list[GroupSpec]
    meters: list[MeterSpec]
    failover: set[int]


def _out(copy: _Copy, in_port: int | None) -> Output:
    # A switch never sends out of the port a packet came in by unless asked in this way.
    port_no = copy.egress.at.port_no
    return Output(PORT_IN_PORT if port_no == in_port else port_no)


def _tagged(onward: list[Action], tag: int | None, back: bool) -> list[Action]:
    if tag is None or not onward:
        return list(onward)
    worn: list[Action] = [PushVlan(), SetField("vlan_vid", VLAN_PRESENT | tag), *onward]
    return [*worn, PopVlan()] if back else worn


def _served(port_no: int) -> int:
    return (port_no & _LAST_SERVICE_PORT) << SERVED_SHIFT


def return_rule(port_no: int) -> Rule:
    # To EDGE, since what is attached there asks for addresses like any other host.
    return Rule(
        CLASSIFY,
        RETURN_PRIORITY,
        Match(in_port=port_no),
        (),
        INTENT_COOKIE,
        goto_table=EDGE,
        metadata=(_served(port_no), SERVED_MASK),
    )
