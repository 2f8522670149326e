"""From what is wanted and the network as it is to the tables of every switch.

The tables are a pure function of intents, network and extra rules, however they came about: a
director that starts anew finds the same ones as the one that it follows. (Exception: a flow that
takes the widest way keeps it while links, capacities and the flow itself stay as they are; the
loads of that moment count.) The compiler keeps what it found and redoes only what a change touches.
"""

import gc
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TypeVar

from anabranch.fabric import flow_rules, taps
from anabranch.fabric.apart import Apart
from anabranch.fabric.assembly import Assembly, base
from anabranch.fabric.bypass import VLAN_IDS, Bypass, Bypasses, link_port
from anabranch.fabric.flow_rules import FLOW_NUMBERS, FlowRules, Part
from anabranch.fabric.intents import Egress, Flow, Intents, Policy, Tap
from anabranch.fabric.model import Link, Network, PortRef
from anabranch.fabric.numbering import Numbering, assign
from anabranch.fabric.tables import Rule, Tables
from anabranch.fabric.trees import Change, FlowTree, Routes, downstream


@dataclass(frozen=True, slots=True)
class Plan:
    """What every switch shall hold, and why.

    Attributes:
        tables: by switch. Those that a compilation leaves alone are the same objects as before.
        order: switches, from upstream to downstream for the flows that changed last.
        trees: the way of each flow, by name.
        unreachable: by the name of a flow, the egresses that nothing leads to now. What is an end
            of a link, or a port that its switch does not have, is no way in or out.
        unprotected: links of protected flows that have no bypass: there is no other way, or there
            are no more VLAN ids.
        warnings: what works, but worse than whoever asked may think; one line each.
        bypasses: for each link that carries a protected flow, the way around it.
    """

    tables: Mapping[str, Tables] = field(default_factory=lambda: MappingProxyType({}))
    order: tuple[str, ...] = ()
    trees: Mapping[str, FlowTree] = field(default_factory=lambda: MappingProxyType({}))
    unreachable: Mapping[str, frozenset[Egress]] = field(
        default_factory=lambda: MappingProxyType({})
    )
    unprotected: frozenset[Link] = frozenset()
    warnings: tuple[str, ...] = ()
    bypasses: Mapping[Link, tuple[Link, ...]] = field(default_factory=lambda: MappingProxyType({}))


class Compiler:
    """Makes plans; see the module. One instance serves one fabric."""

    def __init__(self) -> None:
        self._forget()

    def _forget(self) -> None:
        self._intents = Intents()
        self._flows: dict[str, Flow] = {}
        self._apart = Apart()
        self._numbers = Numbering(FLOW_NUMBERS)
        self._makers: dict[str, FlowRules] = {}
        self._network = Network()
        self._routes = Routes()
        self._bypasses = Bypasses(self._routes.graph, self._label)
        self._trees: dict[str, FlowTree] = {}
        self._unreachable: dict[str, frozenset[Egress]] = {}
        self._by_link: dict[Link, set[str]] = {}
        self._by_source: dict[str, set[str]] = {}
        self._by_port: dict[PortRef, set[str]] = {}  # that flows want to enter or leave by
        self._shut: frozenset[PortRef] = frozenset()  # those of them that are none
        self._guarded: Counter[Link] = Counter()
        self._leaving: dict[PortRef, Link] = {}
        self._labels: dict[str, int] = {}
        self._tags: dict[str, int] = {}
        self._tagged: dict[str, tuple[str | None, ...]] = {}
        self._label_input: object = None
        self._laid: dict[Link, tuple[Bypass, tuple[int, ...]]] = {}
        self._assemblies: dict[str, Assembly] = {}
        self._tables: dict[str, Tables] = {}
        self._touched: set[str] = set()
        self._tap_input: object = None
        self._shut_taps: frozenset[tuple[str, PortRef]] = frozenset()
        self._extra: Mapping[str, Collection[Rule]] = {}
        self._order: tuple[str, ...] = ()

    def compile(
        self,
        intents: Intents,
        network: Network,
        extra: Mapping[str, Collection[Rule]] = MappingProxyType({}),
    ) -> Plan:
        """Return the plan for these intents in this network.

        Args:
            extra: further rules by switch, merged in as they are.

        Raises:
            MisuseError: an intent cannot be expressed, or two flows could not be told apart;
                nothing changed. The network is never the cause.
        """
        collecting = gc.isenabled()
        if len(intents.flows) > len(self._flows) + _MANY:
            gc.disable()  # it would look at a million new records again and again, all in use
        try:
            changed, gone = self._take(intents)
            try:
                return self._compile(changed, gone, intents, network, extra)
            except BaseException:
                self._forget()  # half a change would be worse than the work of doing all again
                raise
        finally:
            if collecting:
                gc.enable()

    # --- what is wanted --------------------------------------------------------------------------

    def _take(self, intents: Intents) -> tuple[dict[str, Flow], set[str]]:
        """Check what is new; return the flows that are new or others than before, and the gone."""
        if intents is self._intents:
            return {}, set()
        before = self._flows
        changed = {
            flow.name: flow
            for flow in intents.flows
            if (old := before.get(flow.name)) is not flow and old != flow
        }
        gone = before.keys() - {flow.name for flow in intents.flows}
        for flow in changed.values():
            flow_rules.check(flow)
        if intents.taps != self._intents.taps:
            taps.check(intents.taps)
        replaced = [before[name] for name in (*gone, *changed) if name in before]
        self._apart.change(replaced, changed.values())
        return changed, gone

    # --- what follows ----------------------------------------------------------------------------

    def _compile(
        self,
        changed: Mapping[str, Flow],
        gone: set[str],
        intents: Intents,
        network: Network,
        extra: Mapping[str, Collection[Rule]],
    ) -> Plan:
        known_before = self._routes.switches
        links_before = self._network.links
        change = self._routes.change(network)
        for link in change.removed:
            self._leaving.pop(link.src, None)
        for link in change.added:
            self._leaving[link.src] = link
        shut_before = self._shut
        dirty = self._renumber(changed, gone)
        if change.ports or changed or gone:
            admits = self._routes.admits
            self._shut = frozenset(port for port in self._by_port if not admits(port))
        concerned = self._concerned(change, known_before, shut_before)
        stale = {name: self._flows[name] for name in concerned}
        moved = self._retrace({**stale, **changed}, gone, dirty)
        if gone or changed:
            self._routes.keep(self._by_source)
        self._intents, self._network = intents, network
        were = self._relabel(links_before is not network.links, dirty)
        for link, was in self._bypasses.change(change).items():
            were.setdefault(link, was)
        unsettled = self._rebypass(were, dirty)
        self._emit(dirty, unsettled)
        for link in unsettled:
            self._settle(link)
        self._base(links_before, known_before)
        self._tap(intents.taps, change)
        self._merge(extra)
        if moved:
            self._order = downstream([self._trees[name] for name in moved])
        return self._plan()

    def _renumber(self, changed: Mapping[str, Flow], gone: set[str]) -> dict[str, set[str]]:
        """Take the new flows over; return the switches, by flow, whose parts must be made anew."""
        dirty: dict[str, set[str]] = {}
        if not changed and not gone:
            return dirty
        for name in (*gone, *(name for name in changed if name in self._flows)):
            dirty[name] = set(self._trees[name].switches)
            for source in _sources(self._flows[name]):
                _discard(self._by_source, source, name)
            for port in _ports(self._flows[name]):
                _discard(self._by_port, port, name)
        renumbered = self._numbers.change(
            gone, [name for name in changed if name not in self._flows]
        )
        for name in gone:
            del self._flows[name], self._makers[name]
        self._flows.update(changed)
        for name, flow in changed.items():
            for source in _sources(flow):
                self._by_source.setdefault(source, set()).add(name)
            for port in _ports(flow):
                self._by_port.setdefault(port, set()).add(name)
        for name in (*changed, *renumbered):
            self._makers[name] = FlowRules(self._flows[name], self._numbers[name])
        for name in renumbered - changed.keys():
            dirty.setdefault(name, set()).update(self._trees[name].switches)
        return dirty

    def _concerned(
        self, change: Change, known_before: frozenset[str], shut_before: frozenset[PortRef]
    ) -> set[str]:
        """Return the flows whose ways a change of the network may change."""
        names: set[str] = set()
        for link in change.removed:
            names |= self._by_link.get(link, set())
        for source in change.better:
            names |= self._by_source.get(source, set())
        for switch in known_before ^ self._routes.switches:
            names |= self._by_source.get(switch, set())
        for port in shut_before ^ self._shut:
            names |= self._by_port.get(port, set())
        if change.widths:
            names |= {name for name, flow in self._flows.items() if flow.policy is Policy.WIDEST}
        return names & self._flows.keys()

    def _retrace(
        self, flows: Mapping[str, Flow], gone: set[str], dirty: dict[str, set[str]]
    ) -> list[str]:
        """Find the ways of flows anew; return those whose ways are others, new ones included."""
        for name in gone:
            self._index(name, self._trees.pop(name), None)
            self._tagged.pop(name, None)
            self._unreachable.pop(name, None)
        moved = []
        for name, flow in flows.items():
            tree = self._routes.tree(flow)
            before = self._trees.get(name)
            if tree == before and name not in dirty:
                continue
            self._trees[name] = tree
            self._index(name, before, tree)
            moved.append(name)
            switches = dirty.setdefault(name, set())
            switches |= tree.switches
            if before is not None:
                switches |= before.switches
            if any(segment.tagged for segment in tree.segments):
                self._tagged[name] = tuple(
                    f"{name} {number}" if segment.tagged else None
                    for number, segment in enumerate(tree.segments)
                )
            else:
                self._tagged.pop(name, None)
        return moved

    def _index(self, name: str, before: FlowTree | None, now: FlowTree | None) -> None:
        for link in before.links if before is not None else ():
            _discard(self._by_link, link, name)
        for link in now.links if now is not None else ():
            self._by_link.setdefault(link, set()).add(name)

    # --- VLAN ids and bypasses -------------------------------------------------------------------

    def _label(self, link: Link) -> int | None:
        return self._labels.get(_link_name(link))

    def _relabel(self, links_new: bool, dirty: dict[str, set[str]]) -> dict[Link, Bypass | None]:
        """Give VLAN ids out anew where it is needed; return the bypasses that this ends."""
        reserved = frozenset(
            flow.match.vlan_vid & 0xFFF
            for flow in self._flows.values()
            if isinstance(flow.match.vlan_vid, int) and flow.match.vlan_vid
        )
        worn = frozenset(tag for tags in self._tagged.values() for tag in tags if tag is not None)
        links: Iterable[Link] = self._network.links.keys()
        if len(self._network.links) > len(VLAN_IDS) - len(reserved) - len(worn):
            links = frozenset(
                link
                for link, names in self._by_link.items()
                if any(self._flows[name].protected for name in names)
            )
        elif not links_new and self._label_input == (reserved, worn):
            return {}
        given = reserved, worn, frozenset(links)
        if given == self._label_input:
            return {}
        tags = assign(worn, VLAN_IDS, reserved)
        for name, worn_by in self._tagged.items():
            if any(tag and tags.get(tag) != self._tags.get(tag) for tag in worn_by):
                dirty.setdefault(name, set()).update(self._trees[name].switches)
        self._tags = tags
        self._labels = assign(map(_link_name, links), VLAN_IDS, {*reserved, *tags.values()})
        self._label_input = given
        return self._bypasses.relabel()

    def _rebypass(
        self, were: Mapping[Link, Bypass | None], dirty: dict[str, set[str]]
    ) -> set[Link]:
        """Look at bypasses that may be others now; return links whose bypasses must be laid."""
        unsettled = set()
        for link, was in were.items():
            names = self._by_link.get(link, set())
            now = self._bypasses.of(link) if names else None
            if now != was:
                unsettled.add(link)
                if _ends(now) != _ends(was):
                    for name in names:
                        dirty.setdefault(name, set()).update((link.src.switch, link.dst.switch))
        return unsettled

    def _settle(self, link: Link) -> None:
        """Lay the bypass of a link if some rule leads to it, else take it away."""
        head = self._assembly(link.src.switch)
        numbers = tuple(
            sorted(
                number
                for number in (link.src.port_no, link.src.port_no | 0x10000)
                if number in head.failover
            )
        )
        bypass = (
            self._bypasses.of(link) if numbers and self._leaving.get(link.src) == link else None
        )
        before = self._laid.get(link)
        now = None if bypass is None else (bypass, numbers)
        if now == before:
            return
        key = "bypass", link
        wanted: dict[str, Part] = {}
        if bypass is not None:
            self._laid[link] = bypass, numbers
            wanted = {switch: Part((rule,)) for switch, rule in bypass.rules().items()}
            wanted[link.src.switch] = Part(groups=tuple(map(bypass.group, numbers)))
        else:
            del self._laid[link]
        if before is not None:
            for switch in {link.src.switch, *before[0].rules()} - wanted.keys():
                self._put(switch, key, None)
        for switch, part in wanted.items():
            self._put(switch, key, part)

    # --- tables ----------------------------------------------------------------------------------

    def _assembly(self, switch: str) -> Assembly:
        found = self._assemblies.get(switch)
        if found is None:
            found = self._assemblies[switch] = Assembly()
        return found

    def _put(self, switch: str, key: object, part: Part | None) -> list[int]:
        self._touched.add(switch)
        return self._assembly(switch).put(key, part)

    def _emit(self, dirty: Mapping[str, set[str]], unsettled: set[Link]) -> None:
        bypass_of = self._bypasses.of
        for name, switches in dirty.items():
            maker = self._makers.get(name)
            tree = self._trees.get(name, _NOWHERE)
            names = self._tagged.get(name)
            tags: tuple[int | None, ...] = (None,) * len(tree.segments)
            if names is not None:
                tags = tuple(None if tag is None else self._tags.get(tag) for tag in names)
                if any(tag and tag not in self._tags for tag in names):
                    tree = FlowTree((), self._flows[name].egress)
            if maker is not None and tree.unreachable:
                self._unreachable[name] = tree.unreachable
            else:
                self._unreachable.pop(name, None)
            for switch in switches:
                part = None
                if maker is not None and switch in tree.switches:
                    part = maker.part(switch, tree, bypass_of, tags)
                for number in self._put(switch, name, part):
                    link = self._leaving.get(PortRef(switch, link_port(number)))
                    if link is not None:
                        unsettled.add(link)

    def _base(self, links_before: Mapping[Link, object], known_before: frozenset[str]) -> None:
        known = self._routes.switches
        links = self._network.links
        if known == known_before and (links is links_before or links.keys() == links_before.keys()):
            return
        inner: dict[str, set[int]] = {switch: set() for switch in known}
        for link in links:
            for end in (link.src, link.dst):
                inner[end.switch].add(end.port_no)
        for switch, ports in inner.items():
            self._put(switch, _BASE, base(ports))
        for switch in known_before - known:
            self._put(switch, _BASE, None)

    def _tap(self, wanted: tuple[Tap, ...], change: Change) -> None:
        known = self._routes.switches
        given = wanted, known
        if given == self._tap_input and not change.ports:
            return
        shut = frozenset(
            (tap.name, PortRef(switch, tap.to))
            for tap in wanted
            if tap.to is not None
            for switch in (tap.switches & known if tap.switches else known)
            if not self._routes.admits(PortRef(switch, tap.to))
        )
        if given == self._tap_input and shut == self._shut_taps:
            return
        self._tap_input, self._shut_taps = given, shut
        found = taps.parts(wanted, known, {port for _, port in shut})
        for switch in {*self._assemblies, *found}:
            self._put(switch, _TAPS, found.get(switch))

    def _merge(self, extra: Mapping[str, Collection[Rule]]) -> None:
        if extra is self._extra:
            return
        for switch in self._extra.keys() | extra.keys():
            rules = extra.get(switch)
            if rules is not self._extra.get(switch) or rules is None:
                part = Part(tuple(sorted(set(rules), key=str))) if rules else None
                self._put(switch, _EXTRA, part)
        self._extra = dict(extra)

    def _plan(self) -> Plan:
        known = self._routes.switches
        for switch in self._touched | (self._tables.keys() - known) | (known - self._tables.keys()):
            if switch in known:
                self._tables[switch] = self._assembly(switch).tables()
            else:
                self._tables.pop(switch, None)
        self._touched.clear()
        bypasses = {
            link: self._bypasses.of(link)
            for link, names in self._by_link.items()
            if any(self._flows[name].protected for name in names)
        }
        return Plan(
            MappingProxyType(dict(self._tables)),
            self._order,
            MappingProxyType(dict(self._trees)),
            MappingProxyType(dict(self._unreachable)),
            frozenset(link for link, bypass in bypasses.items() if bypass is None),
            self._warnings(),
            MappingProxyType({link: b.path for link, b in bypasses.items() if b is not None}),
        )

    def _warnings(self) -> tuple[str, ...]:
        return tuple(
            sorted(
                f"tap {name}: {port} is inside the fabric or does not exist; nothing goes there"
                for name, port in self._shut_taps
            )
        )


_Key = TypeVar("_Key")
_MANY = 500  # new flows
_BASE, _TAPS, _EXTRA = ("base",), ("taps",), ("extra",)
_NOWHERE = FlowTree()


def _sources(flow: Flow) -> set[str]:
    return {flow.ingress.switch, *(service.back.switch for service in flow.through)}


def _ports(flow: Flow) -> set[PortRef]:
    ports = {flow.ingress, *(egress.at for egress in flow.egress)}
    return ports.union(*((service.to, service.back) for service in flow.through))


def _discard(index: dict[_Key, set[str]], key: _Key, name: str) -> None:
    names = index[key]
    names.discard(name)
    if not names:
        del index[key]


def _link_name(link: Link) -> str:
    return f"{link.src}>{link.dst}"


def _ends(bypass: Bypass | None) -> tuple[int, int] | None:
    return None if bypass is None else (bypass.first_port, bypass.last_port)
