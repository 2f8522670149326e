"""What gauges and policies see of a site: its nodes, their processes, links and viewers."""

import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Protocol

from anabranch.channels.seats import Seat, Seats
from anabranch.media.leaf import LeafServer
from anabranch.site.gauges import stream_of
from anabranch.site.nodes import Nodes
from anabranch.site.picture import NodeView
from anabranch.site.settings import SiteSettings
from anabranch.site.switched import SwitchedUnderlay
from anabranch.tree.model import Role
from anabranch.tree.planning import Plan
from anabranch.tree.state import Phase

DIRECT = {"root": Role.ROOT, "leaf1": Role.LEAF}
"""The nodes of a site without switches."""


class Host(Protocol):
    """What is needed of the site."""

    seats: Seats
    nodes: Nodes

    def children(self) -> dict[str, dict[str, Any]]:
        """Return the process number of every supervised child, by name."""


class Views:
    """Looks at a site.

    Attributes:
        coming: offers that leaves are answering, by leaf.
    """

    def __init__(
        self, settings: SiteSettings, host: Host, underlay: SwitchedUnderlay | None
    ) -> None:
        self._settings = settings
        self._host = host
        self._underlay = underlay
        self._pool = {node.name for node in settings.nodes if node.idle}
        self.coming: Counter[str] = Counter()

    @property
    def roles(self) -> Mapping[str, Role]:
        """The roles of all nodes, those of the pool too."""
        if self._underlay is None:
            return DIRECT
        return {node.name: node.role for node in self._underlay.plan.nodes.values()}

    @property
    def root(self) -> str:
        return next(name for name, role in self.roles.items() if role is Role.ROOT)

    @property
    def parents(self) -> Mapping[str, str]:
        """Who hangs from whom, as planned."""
        tree = self._host.nodes.tree
        return {"leaf1": "root"} if tree is None else tree.parents

    @property
    def up(self) -> Mapping[str, Role]:
        """The nodes of this machine that are up and not dead, with their roles; not the root."""
        return {
            name: role
            for name, role in self.roles.items()
            if role is not Role.ROOT
            and name not in self._guests
            and self._host.nodes.state(name) not in ("idle", "down")
        }

    @property
    def sessions(self) -> Mapping[str, str]:
        """Who hangs from whom in the SOLEIL tree: guests from the root.

        The other nodes of this machine take in only what is on it.
        """
        return {**self.parents, **dict.fromkeys(self._guests, self.root)}

    @property
    def _guests(self) -> frozenset[str]:
        """The nodes on other machines, which come and go by themselves."""
        if self._underlay is None:
            return frozenset()
        nodes = self._underlay.plan.nodes.values()
        return frozenset(node.name for node in nodes if node.tunnel is not None)

    def below(self, name: str) -> set[str]:
        """Return the descendants of a node, as planned."""
        found: set[str] = set()
        pending = [name]
        for at in pending:
            for child, parent in self.parents.items():
                if parent == at and child not in found:
                    found.add(child)
                    pending.append(child)
        return found

    # For gauges; see gauges.World.

    def pids_of(self, node: str) -> Iterator[int]:
        root, roles = self.root, self.roles
        if node == root:
            yield os.getpid()
        for name, child in self._host.children().items():
            owner = _owner(name)
            if (owner if owner in roles else root) == node and child["pid"] is not None:
                yield int(child["pid"])

    def leaf_of(self, node: str) -> LeafServer | None:
        return self._host.nodes.leaf(node)

    def seats_at(self, node: str) -> Iterable[Seat]:
        return [seat for seat in self._host.seats if seat.leaf == node]

    def links_above(self, node: str) -> Iterator[tuple[tuple[str, int], tuple[str, int]]]:
        parent = self.parents.get(node)
        if self._underlay is None or parent is None:
            return
        for cable in self._underlay.layout.cables:
            for above, below in ((cable.one, cable.other), (cable.other, cable.one)):
                if (above.node, below.node) == (parent, node):
                    yield (above.node, above.port_no), (below.node, below.port_no)

    # For policies.

    def capacity(self, name: str) -> int:
        """Return how many viewers a leaf can have, or how many children another node."""
        role = self.roles[name]
        if role is not Role.LEAF:
            return self._settings.tree.fan_out.get(role, len(self.roles))
        first, last = (
            self._settings.ports.media  # a guest has as many as that, for all we know
            if self._underlay is None or name in self._guests
            else self._underlay.plan.nodes[name].media_ports
        )
        ports = last - first + 1
        wanted = self._host.nodes.capacity(name)
        return ports if wanted is None else min(wanted, ports)

    def heaviest(self, child: str) -> float:
        """Return the weight that a child's report can have at most: its viewers, or its nodes."""
        names = {child} | self.below(child)
        viewers = sum(self.capacity(each) for each in names if self.roles[each] is Role.LEAF)
        return float(max(viewers, len(self.roles)))

    def nodes(
        self, drained: Iterable[str], cpu: Callable[[str], float | None]
    ) -> Iterator[NodeView]:
        """Yield every node that is not dead.

        Args:
            drained: leaves that policies drain: those they may undrain.
            cpu: returns the load of a node.
        """
        everybody, plain = self._host.seats.per_leaf(), self._host.seats.plain_per_leaf()
        viewers = everybody - plain + self.coming  # a plain seat takes nothing of a leaf server
        links = self._links()
        drained = set(drained)
        for name, role in self.roles.items():
            state = self._host.nodes.state(name)
            if state == "down" or (state == "idle" and name in self._guests):
                continue
            leaf = self.leaf_of(name)
            phase = {"idle": Phase.IDLE, "draining": Phase.DRAINING}.get(state, Phase.UP)
            yield NodeView(
                name,
                role,
                phase,
                self.parents.get(name),
                ready=(role is not Role.LEAF or (leaf is not None and leaf.ready))
                and (phase is not Phase.DRAINING or name in drained),
                pool=name in self._pool,
                viewers=viewers[name],
                capacity=self.capacity(name),
                busy=viewers[name] + plain[name] > 0 or name in self.parents.values(),
                cpu=cpu(name),
                streams=frozenset(
                    stream_of(inlet.feed.channel, inlet.feed.rendition)
                    for inlet in (leaf.inlets() if leaf is not None else ())
                ),
                links=links.get(name, frozenset()),
            )

    def _links(self) -> dict[str, frozenset[str]]:
        """Return from whom each node could hang."""
        tree: Plan | None = self._host.nodes.tree
        found: dict[str, set[str]] = {}
        for link in tree.description.links if tree is not None else ():
            if not link.redundant:
                found.setdefault(link.one, set()).add(link.other)
                found.setdefault(link.other, set()).add(link.one)
        return {name: frozenset(others) for name, others in found.items()}


def _owner(child: str) -> str:
    """Return the node that a leaf server or switch works for, by its name as a child."""
    for server in ("janus:", "leaf:", "ring:"):
        if child.startswith(server):
            return child.removeprefix(server)
    return child.removesuffix("-vswitchd").removesuffix("-ovsdb")
