"""Ways around single links, which the switches take by themselves (RFC 4090, facility bypass).

Every link that a protected flow uses has one bypass, shared by all flows over it. Packets on it
wear a VLAN tag that names the bypass; inner switches forward by that tag, and at the far end of the
link it is taken off and the packet goes on as if it had come over the link. In a ring a bypass
begins where the packets came from, or ends where they go next: OpenFlow's IN_PORT does that.

A bypass has no link of last resort, for a group fails over to live ports only. Nor does a link of
last resort that a flow uses have a bypass: with one, the flow would go that way. So packets are
put out of its port plainly, live or not, and it is really tried.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from anabranch.fabric.graph import LAST_RESORT_COST, Graph, Path
from anabranch.fabric.model import Link
from anabranch.fabric.openflow.actions import (
    PORT_IN_PORT,
    Output,
    PopVlan,
    PushVlan,
    SetField,
)
from anabranch.fabric.openflow.messages import Bucket, GroupType
from anabranch.fabric.openflow.oxm import VLAN_PRESENT, Match
from anabranch.fabric.pipeline import (
    BYPASS_PRIORITY,
    CLASSIFY,
    FROM_LINK,
    ORIGIN_MASK,
    SERVICES,
)
from anabranch.fabric.tables import INTENT_COOKIE, GroupSpec, Rule
from anabranch.fabric.trees import Change

VLAN_IDS = range(2, 4095)
"""What tags may say: 1 is the default VLAN of many switches, 0 and 4095 are reserved."""

LAST_PORT = 0xFFFF
_TURNED = 0x10000
_MANY = 40  # new links, from which on every bypass is looked for again

Labels = Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Bypass:
    """The way around a link.

    Attributes:
        link: what it stands in for.
        path: from the link's source to its destination; never empty.
        vlan: id of the tag that packets wear on it.
    """

    link: Link
    path: Path
    vlan: int

    @property
    def first_port(self) -> int:
        """The port of the link's source by which it begins."""
        return self.path[0].src.port_no

    @property
    def last_port(self) -> int:
        """The port of the link's destination at which it ends."""
        return self.path[-1].dst.port_no

    def rules(self) -> dict[str, Rule]:
        """Return the rule of each switch on it, but for the first, which has the group."""
        found = {}
        for link, onward in zip(self.path, (*self.path[1:], None), strict=True):
            match = Match(in_port=link.dst.port_no, vlan_vid=VLAN_PRESENT | self.vlan)
            if onward is not None:
                actions: tuple[Output | PopVlan, ...] = (Output(onward.src.port_no),)
                rule = Rule(CLASSIFY, BYPASS_PRIORITY, match, actions, INTENT_COOKIE)
            else:
                rule = Rule(
                    CLASSIFY,
                    BYPASS_PRIORITY,
                    match,
                    (PopVlan(),),
                    INTENT_COOKIE,
                    goto_table=SERVICES,
                    metadata=(FROM_LINK, ORIGIN_MASK),
                )
            found[link.dst.switch] = rule
        return found

    def group(self, number: int) -> GroupSpec:
        """Return the group, see :func:`group_number`, that leads over the link or else around."""
        port_no = self.link.src.port_no
        first = PORT_IN_PORT if number & _TURNED else self.first_port
        around = (PushVlan(), SetField("vlan_vid", VLAN_PRESENT | self.vlan), Output(first))
        return GroupSpec(
            number,
            GroupType.FAST_FAILOVER,
            (
                Bucket((Output(port_no),), watch_port=port_no),
                Bucket(around, watch_port=self.first_port),
            ),
        )


def group_number(bypass: Bypass, arrival: Link | None) -> int:
    """Return the number of the group for packets that leave by a link.

    Args:
        bypass: of the link that they leave by.
        arrival: the link that they came by, None from an edge port. If the bypass begins with its
            reverse, they need a group that sends them back.
    """
    turned = arrival is not None and arrival.dst.port_no == bypass.first_port
    return bypass.link.src.port_no | (_TURNED if turned else 0)


def link_port(number: int) -> int:
    """Return the port of the link that a group of :func:`group_number` leads over."""
    return number & LAST_PORT


class Bypasses:
    """The bypasses of a graph, each found when it is first asked for.

    Args:
        graph: kept up to date by somebody else.
        label: returns the VLAN id of a link's bypass, None if there are too few.
    """

    def __init__(self, graph: Graph, label: Callable[[Link], int | None]) -> None:
        self._graph = graph
        self._label = label
        self._found: dict[Link, Bypass | None] = {}
        self._over: dict[Link, set[Link]] = {}

    def of(self, link: Link) -> Bypass | None:
        """Return the bypass of a link, None if there is none: no other way, or no id left."""
        if link in self._found:
            return self._found[link]
        found = self._found[link] = self._find(link)
        if found is not None:
            for part in found.path:
                self._over.setdefault(part, set()).add(link)
        return found

    def _find(self, link: Link) -> Bypass | None:
        vlan = self._label(link)
        if vlan is None or link.src.port_no > LAST_PORT:
            return None
        path = self._graph.around(link)
        return None if path is None else Bypass(link, path, vlan)

    def change(self, change: Change) -> dict[Link, Bypass | None]:
        """Forget what a change of the graph concerns; return what it was."""
        if not self._found:
            return {}
        if len(change.added) > _MANY:
            return self._forget(list(self._found))
        stale: set[Link] = set()
        for link in change.removed:
            stale |= self._over.get(link, set())
            stale |= self._found.keys() & {link}
        for link, cost in change.added.items():
            stale |= self._found.keys() & {link}
            if cost < LAST_RESORT_COST:
                stale |= self._shorter_by(link)
        return self._forget(stale)

    def relabel(self) -> dict[Link, Bypass | None]:
        """Forget bypasses whose VLAN id is another now; return what they were."""
        return self._forget(
            [
                link
                for link, found in self._found.items()
                if (None if found is None else found.vlan) != self._label(link)
            ]
        )

    def _shorter_by(self, added: Link) -> set[Link]:
        # What leads over the new link is at least this long, even where it is its own detour.
        before = self._graph.hops_to(added.src.switch)
        behind = self._graph.hops_from(added.dst.switch)
        stale = set()
        for link, found in self._found.items():
            one, other = before.get(link.src.switch), behind.get(link.dst.switch)
            if one is None or other is None:
                continue
            if found is None or one + 1 + other <= len(found.path):
                stale.add(link)
        return stale

    def _forget(self, links: Iterable[Link]) -> dict[Link, Bypass | None]:
        forgotten = {}
        for link in links:
            found = forgotten[link] = self._found.pop(link)
            for part in found.path if found is not None else ():
                self._over[part].discard(link)
                if not self._over[part]:
                    del self._over[part]
        return forgotten
