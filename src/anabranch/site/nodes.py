"""The site's nodes as an operator sees them: started, drained, switched off, looked after."""

import asyncio
from collections import defaultdict
from collections.abc import AsyncGenerator, Callable, Iterable
from typing import Any, Literal, Protocol

from anabranch.channels.seats import AnySeat, Seats
from anabranch.core.errors import ConflictError, NotFoundError, UsageError
from anabranch.core.events import Event
from anabranch.media.leaf import Feed, Ladder, LeafServer, LeafUnavailableError, Viewing
from anabranch.site.keeper import Keeper
from anabranch.site.plan import NodePlan
from anabranch.site.switched import SwitchedUnderlay
from anabranch.site.underlay import DirectUnderlay
from anabranch.tree.description import Candidate
from anabranch.tree.model import Role, TreeError
from anabranch.tree.planning import Plan
from anabranch.tree.regrow import insert_level, joined, without

PATIENCE_S = 10.0
"""Seconds that the viewers of a leaf have to leave by themselves before it is switched off."""

State = Literal["up", "idle", "starting", "draining", "down"]


class Host(Protocol):
    """What nodes need of their site."""

    seats: Seats

    def adopt(self, leaf: LeafServer) -> None:
        """Hear what a leaf server has to say from now on."""

    async def end(self, seat: AnySeat) -> None:
        """End a seat."""

    def happenings(self) -> AsyncGenerator[Event, None]:
        """Yield every event of the site from now on."""


class Nodes:
    """Which nodes are up, which of them take viewers, and how they hang.

    Attributes:
        leaves: the leaf servers that are up.
    """

    def __init__(
        self,
        underlay: SwitchedUnderlay | DirectUnderlay,
        host: Host,
        on_event: Callable[[Event], None],
    ) -> None:
        self.leaves: list[LeafServer] = []
        self._underlay = underlay
        self._host = host
        self._on_event = on_event
        self._draining: set[str] = set()
        self._starting: set[str] = set()
        self._busy: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._keeper: Keeper | None = None
        if isinstance(underlay, SwitchedUnderlay):
            self._keeper = Keeper(underlay, host.happenings, on_event)

    async def start(self) -> None:
        """Start the leaf servers of the nodes that are up, or go on with those that live on.

        A seat whose viewer is not there any more is freed.
        """
        for leaf in self._underlay.leaves():
            self._host.adopt(leaf)
            self.leaves.append(leaf)
            there = [seat for seat in self._host.seats if seat.leaf == leaf.name]
            leaf.recall({seat.viewing: Feed(seat.channel, seat.rendition) for seat in there})
        await asyncio.gather(*(leaf.start() for leaf in self.leaves))

    async def run(self) -> None:
        """Look after the nodes, for ever."""
        if self._keeper is not None:
            await self._keeper.run()

    async def stop(self) -> None:
        await asyncio.gather(*(leaf.stop() for leaf in self.leaves), return_exceptions=True)

    # --- viewers ------------------------------------------------------------------------------

    def leaf(self, name: str) -> LeafServer | None:
        """Return a leaf server that is up."""
        return next((leaf for leaf in self.leaves if leaf.name == name), None)

    async def watch(
        self, name: str, feed: Feed, offer: str, ladder: Ladder, pinned: bool
    ) -> tuple[LeafServer, Viewing]:
        """Have a leaf answer a viewer's offer. Raises as :meth:`LeafServer.watch`."""
        leaf = self.leaf(name)
        if leaf is None:
            raise LeafUnavailableError(f"leaf {name} is not up")
        viewing = await leaf.watch(feed, offer, ladder=ladder, pinned=pinned)
        if self.leaf(name) is not leaf:
            raise LeafUnavailableError(f"leaf {name} has just been switched off")
        return leaf, viewing

    def capacity(self, name: str) -> int | None:
        """Return how many viewers a leaf takes at most, None: as many as come."""
        if isinstance(self._underlay, SwitchedUnderlay):
            return self._underlay.plan.nodes[name].capacity
        return None

    # --- what an operator asks for ------------------------------------------------------------

    async def start_node(self, name: str, *, below: str | None = None) -> None:
        """Bring a node of the pool up; one that is up stays.

        A leaf takes viewers as soon as it is ready. A relay waits until it is needed, unless it is
        put ``below`` a node: then half of that node's children hang from it.

        Raises:
            NotFoundError: there is no such node, or none to put it ``below``.
            ConflictError: the site has no switches, or the node cannot be put below another now.
            UsageError: a leaf is put below a node.
            AnabranchError: it cannot be; nothing is left of it.
        """
        underlay = self._switched(name)
        role = underlay.plan.nodes[name].role
        async with self._busy[name]:
            if below is not None:
                _check_below(underlay.tree, name, role, self._switched(below).plan.nodes[below])
            fresh = name not in underlay.up
            if fresh:
                self._starting.add(name)
            try:
                await underlay.start_node(name)
                await underlay.regrow(lambda tree: _with(tree, name, role, below))
                serves = role is Role.LEAF and not underlay.plan.nodes[name].sorts_only
                if serves and self.leaf(name) is None:
                    await self._start_leaf(underlay.leaf(name))
            except BaseException:
                if fresh:
                    await self._take_down(underlay, name)
                raise
            finally:
                self._starting.discard(name)
            self._draining.discard(name)

    async def _start_leaf(self, leaf: LeafServer) -> None:
        self._host.adopt(leaf)
        self.leaves.append(leaf)
        await leaf.start()

    def drain(self, name: str) -> None:
        """Have a leaf take nobody new; those who watch stay.

        Raises:
            NotFoundError: there is no such node.
            ConflictError: it is no leaf that is up.
        """
        self._check_leaf(name)
        if name not in self._draining:
            self._draining.add(name)
            self._on_event(Event("node.draining", name))

    def undrain(self, name: str) -> None:
        """Have a leaf take viewers again. Raises as :meth:`drain`."""
        self._check_leaf(name)
        if name in self._draining:
            self._draining.discard(name)
            self._on_event(Event("node.undrained", name))

    def _check_leaf(self, name: str) -> None:
        underlay = self._switched(name)
        if underlay.plan.nodes[name].role is not Role.LEAF or name not in underlay.up:
            raise ConflictError(f"{name} is no leaf that is up")

    async def switch_off(self, name: str, *, patience_s: float = PATIENCE_S) -> None:
        """Take a node down: it is in the pool again. One that is not up stays so.

        A leaf is drained first; seats that are left after ``patience_s`` are ended, and their pages
        connect elsewhere. What hangs from a relay hangs from another one before it goes.

        Raises:
            NotFoundError: there is no such node.
            ConflictError: it is the root, the last leaf, or somebody would hang from nothing.
        """
        underlay = self._switched(name)
        async with self._busy[name]:
            if name not in underlay.up:
                return
            _spared(underlay.tree, name)
            if underlay.plan.nodes[name].role is Role.LEAF:
                self.drain(name)
                await self._until_empty(name, patience_s)
            await self._take_down(underlay, name)

    async def _until_empty(self, name: str, patience_s: float) -> None:
        loop = asyncio.get_running_loop()
        end = loop.time() + patience_s
        while self._seats_at(name) and loop.time() < end:  # noqa: ASYNC110  # nobody tells
            await asyncio.sleep(0.1)
        await asyncio.gather(*map(self._host.end, self._seats_at(name)))

    def _seats_at(self, name: str) -> list[AnySeat]:
        seats: list[AnySeat] = [*self._host.seats, *self._host.seats.plain]
        return [seat for seat in seats if seat.leaf == name]

    async def _take_down(self, underlay: SwitchedUnderlay, name: str) -> None:
        if name in underlay.tree.parents:
            await underlay.regrow(lambda tree: _spared(tree, name))
        leaf = self.leaf(name)
        if leaf is not None:
            self.leaves.remove(leaf)
            await leaf.stop()
        await underlay.stop_node(name)
        self._draining.discard(name)

    def _switched(self, name: str) -> SwitchedUnderlay:
        if not isinstance(self._underlay, SwitchedUnderlay):
            raise ConflictError("a site without switches has one leaf, which stays")
        if name not in self._underlay.plan.nodes:
            raise NotFoundError(f"there is no node named {name[:60]!r}")
        return self._underlay

    # --- what it looks like -------------------------------------------------------------------

    def state(self, name: str) -> State:
        """Return what a node does now."""
        if self._keeper is not None and name in self._keeper.dead:
            return "down"
        if name in self._starting:
            return "starting"
        if isinstance(self._underlay, SwitchedUnderlay) and name not in self._underlay.up:
            return "idle"
        return "draining" if name in self._draining else "up"

    async def report(self) -> list[dict[str, Any]]:
        """Return every node of the site, those of the pool too."""
        viewers = self._host.seats.per_leaf()
        ready = {leaf.name: leaf.ready for leaf in self.leaves}
        return [
            {
                **node,
                "state": self.state(node["name"]),
                "connected": node["connected"] and ready.get(node["name"], True),
                "viewers": viewers[node["name"]] if node["role"] == "leaf" else None,
                "capacity": self.capacity(node["name"]) if node["role"] == "leaf" else None,
            }
            for node in await self._underlay.nodes()
        ]

    @property
    def tree(self) -> Plan | None:
        """How the nodes hang; None: there are no switches."""
        return self._underlay.tree if isinstance(self._underlay, SwitchedUnderlay) else None


def _check_below(tree: Plan, name: str, role: Role, above: NodePlan) -> None:
    """Look whether a node can be put between another and its children.

    Raises:
        UsageError: it is a leaf.
        ConflictError: it hangs from somebody else already, or the other is not, or is a leaf.
    """
    if role is Role.LEAF:
        raise UsageError(f"{name} is a leaf, and only a relay is put below a node")
    if tree.parents.get(name, above.name) != above.name:
        raise ConflictError(f"{name} hangs from {tree.parents[name]} already")
    if above.role is Role.LEAF:
        raise ConflictError(f"{above.name} is a leaf: nothing hangs from it")
    if above.role is Role.RELAY and above.name not in tree.parents:
        raise ConflictError(f"{above.name} is not in the tree: nothing hangs from it")


def _with(tree: Plan, name: str, role: Role, below: str | None) -> Plan:
    """Return the tree with a node that has come up.

    Raises:
        TreeError: it can hang from nobody, or not between ``below`` and its children.
    """
    if name not in tree.parents:
        tree = joined(tree, Candidate(name, role))
    if role is Role.LEAF and name in tree.pruned:
        raise TreeError(f"the leaf {name} {tree.pruned[name].text}")
    if below is not None and name not in tree.parents:
        tree = insert_level(tree, below, name)
    return tree


def _spared(tree: Plan, name: str) -> Plan:
    """Return the tree without a node.

    Raises:
        ConflictError: it cannot be spared.
    """
    try:
        after = without(tree, name)
    except TreeError as error:
        raise ConflictError(f"{name} cannot be spared: {error}") from None
    lost = _leaves(tree) - _leaves(after) - {name}
    if lost:
        raise ConflictError(f"{name} cannot be spared: {min(lost)} would hang from nobody")
    return after


def _leaves(tree: Plan) -> frozenset[str]:
    roles = tree.description.roles
    names: Iterable[str] = tree.parents
    return frozenset(name for name in names if roles[name] is Role.LEAF)
