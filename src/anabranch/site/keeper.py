"""Who takes over when a node dies, and what becomes of it when it is back.

The decisions are pure: :class:`Vigil` says who is dead, :func:`rehung` and :func:`taken_back` how
the tree is then. :class:`Keeper` looks and has it done.
"""

import asyncio
from collections.abc import AsyncGenerator, Callable, Coroutine, Mapping
from contextlib import aclosing, suppress
from dataclasses import dataclass, replace
from enum import StrEnum

import structlog

from anabranch.core.errors import AnabranchError
from anabranch.core.events import Event
from anabranch.fabric.damping import Damper, DampingRules
from anabranch.fabric.errors import FabricError
from anabranch.site.switched import SwitchedUnderlay
from anabranch.tree.description import CandidateLink, ends
from anabranch.tree.growth import grow
from anabranch.tree.model import Role, TreeError
from anabranch.tree.planning import Plan
from anabranch.tree.regrow import without

_LOOK_S = 1.0
_TELLING = ("switch.", "link.", "child.restarted")
_log = structlog.get_logger("anabranch.site")


class Ailment(StrEnum):
    """What a node suffers from."""

    GONE = "its switch does not run"
    CUT_OFF = "all of its links are down"
    SILENT = "its switch is not connected"


PATIENCE_S: Mapping[Ailment, float] = {
    Ailment.GONE: 0.4,  # supervision has it run again after 0.2
    Ailment.CUT_OFF: 0.1,
    Ailment.SILENT: 2.0,  # it may forward all the same
}
"""How long a node may suffer before it counts as dead."""
_AGAIN_S = 0.05
"""Seconds between two looks at one that suffers: of what, may turn out only later."""
HOLD_S = 3.0
"""Seconds for which one that was dead must be well until it is used again."""


@dataclass(frozen=True, slots=True)
class Health:
    """How a node is.

    Attributes:
        running: its processes are there.
        connected: its switch is, to the controller; None: there is nobody who could tell.
        links: whether each neighbour is reached, by any link; empty: nobody can tell.
    """

    running: bool
    connected: bool | None
    links: Mapping[str, bool]


def ailments(healths: Mapping[str, Health], roles: Mapping[str, Role]) -> dict[str, Ailment]:
    """Return who suffers, the root excepted, which nobody could replace.

    Of the two ends of a link that is down the relay is to blame that has no other link left.
    """
    found: dict[str, Ailment] = {}
    for name, health in healths.items():
        if roles[name] is Role.ROOT:
            continue
        if not health.running:
            found[name] = Ailment.GONE
        elif len(health.links) > 1 and roles[name] is Role.RELAY and not any(health.links.values()):
            found[name] = Ailment.CUT_OFF
        elif health.connected is False:
            found[name] = Ailment.SILENT
    return found


@dataclass(frozen=True, slots=True)
class Verdict:
    """What has changed: who has died, of what, and who is back."""

    died: Mapping[str, Ailment]
    back: tuple[str, ...]


class Vigil:
    """Decides who is dead; monotonic seconds are handed in as ``now``.

    A node that is back counts only after HOLD_S without any ailment; one that dies again and again
    is held down for up to a minute.
    """

    def __init__(self, rules: DampingRules | None = None) -> None:
        self._rules = rules or DampingRules()
        self._suffering: dict[str, float] = {}
        self._well: dict[str, float] = {}
        self._dampers: dict[str, Damper] = {}
        self._due: float | None = None
        self.dead: set[str] = set()

    def look(self, healths: Mapping[str, Health], roles: Mapping[str, Role], now: float) -> Verdict:
        """Take the present state of every node that is up; others are forgotten."""
        for known in (self._suffering, self._well, self._dampers):
            for name in known.keys() - healths.keys():
                del known[name]
        self.dead &= healths.keys()
        ill = ailments(healths, roles)
        dues: list[float] = []
        died: dict[str, Ailment] = {}
        back: list[str] = []
        for name in sorted(healths):
            if name in ill:
                self._well.pop(name, None)
                due = self._suffering.setdefault(name, now) + PATIENCE_S[ill[name]]
                if name in self.dead:
                    continue
                if now >= due:
                    self.dead.add(name)
                    self._dampers.setdefault(name, Damper(self._rules, now)).flap(now)
                    died[name] = ill[name]
                else:
                    dues.append(min(due, now + _AGAIN_S))
                continue
            self._suffering.pop(name, None)
            if name in self.dead:
                due = self._held_until(name, now)
                if now >= due:
                    self.dead.discard(name)
                    del self._well[name]
                    back.append(name)
                else:
                    dues.append(due)
        self._due = min(dues, default=None)
        return Verdict(died, tuple(back))

    def _held_until(self, name: str, now: float) -> float:
        due = self._well.setdefault(name, now) + HOLD_S
        damper = self._dampers[name]
        damper.release(now)
        return max(due, damper.next_timer()) if damper.suppressed else due

    def next_timer(self) -> float | None:
        """Return when to look again, whatever happens; None: when something happens."""
        return self._due


def rehung(tree: Plan, name: str) -> Plan:
    """Return the tree after a relay has died.

    Who hung from it and has no link to anybody else gets one to the dead node's parent.

    Raises:
        TreeError: there is no such node in the tree.
    """
    children = [child for child, parent in tree.parents.items() if parent == name]
    try:
        after = without(tree, name)
        orphans = [child for child in children if child not in after.parents]
    except TreeError:  # no leaf would be left
        orphans = children
    if not orphans:
        return after
    grandparent = tree.parents[name]
    rates = {link.ends: link.rate_mbit for link in tree.description.links}
    lent = tuple(
        CandidateLink(child, grandparent, rates[ends(child, name)])
        for child in orphans
        if ends(child, grandparent) not in rates
    )
    description = replace(tree.description, links=(*tree.description.links, *lent))
    return without(Plan(description, tree.parents, tree.pruned), name)


@dataclass(frozen=True, slots=True)
class Loss:
    """What a dead node left: the tree before it died, and the tree that it was rehung to."""

    before: Plan
    after: Plan

    @property
    def lent(self) -> frozenset[tuple[str, str]]:
        """The links that were made for want of others."""
        drawn = self.before.description.weights.keys()
        return frozenset(self.after.description.weights.keys() - drawn)


def taken_back(tree: Plan, name: str, loss: Loss) -> Plan:
    """Return the tree with a node that was dead, in its old place if that is still free.

    Whoever has been moved to another parent since stays there. Links that were lent go.
    """
    nodes = tuple(
        replace(node, available=True) if node.name == name else node
        for node in tree.description.nodes
    )
    parents = dict(tree.parents)
    above = loss.before.parents[name]
    if above == tree.description.root or above in parents:
        parents[name] = above
        for child, parent in loss.before.parents.items():
            stayed = parents.get(child) == loss.after.parents.get(child)
            if parent == name and child in parents and stayed and not _below(parents, name, child):
                parents[child] = name
    used = {ends(child, parent) for child, parent in parents.items()}
    links = tuple(
        link for link in tree.description.links if link.ends in used or link.ends not in loss.lent
    )
    description = replace(tree.description, nodes=nodes, links=links)
    grown = grow(description, kept=parents, present=parents)
    return Plan(description, grown.parents, grown.pruned)


def _below(parents: Mapping[str, str], name: str, top: str) -> bool:
    while name != top and name in parents:
        name = parents[name]
    return name == top


class Keeper:
    """Looks after the nodes of a site that are up.

    Args:
        happenings: yields the site's events: some are a reason to look at once.
        on_event: gets ``node.died`` and ``node.back``.

    Attributes:
        dead: the nodes that do not serve, though they are up.
    """

    def __init__(
        self,
        underlay: SwitchedUnderlay,
        happenings: Callable[[], AsyncGenerator[Event, None]],
        on_event: Callable[[Event], None],
    ) -> None:
        self._underlay = underlay
        self._happenings = happenings
        self._on_event = on_event
        self._vigil = Vigil()
        self._losses: dict[str, Loss] = {}
        self._wake = asyncio.Event()

    @property
    def dead(self) -> frozenset[str]:
        return frozenset(self._vigil.dead)

    async def run(self) -> None:
        """Have orphans hang from others, and nodes that are back in their place, for ever."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._listen(), name="keeper-listens")
            group.create_task(self._keep(), name="keeper")

    async def _listen(self) -> None:
        async with aclosing(self._happenings()) as happening:
            async for event in happening:
                if event.kind.startswith(_TELLING):
                    self._wake.set()

    async def _keep(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            healths, roles = await self._healths(), self._underlay.tree.description.roles
            verdict = self._vigil.look(healths, roles, loop.time())
            for name, ailment in verdict.died.items():
                self._on_event(Event("node.died", name, {"reason": str(ailment)}))
                await self._guarded(self._died(name), name)
            for name in verdict.back:
                self._on_event(Event("node.back", name))
                await self._guarded(self._came_back(name), name)
            due = self._vigil.next_timer()
            pause = _LOOK_S if due is None else min(_LOOK_S, max(0.0, due - loop.time()))
            with suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._wake.wait()
            self._wake.clear()

    async def _healths(self) -> dict[str, Health]:
        control, up = self._underlay.control, self._underlay.up
        links: dict[str, dict[str, bool]] = {name: {} for name in up}
        connected: frozenset[str] | None = None
        with suppress(FabricError):
            for link, is_up in (await control.links()).items():
                if {link.src.switch, link.dst.switch} <= up:
                    mine = links[link.src.switch]
                    mine[link.dst.switch] = is_up or mine.get(link.dst.switch, False)
            connected = await control.connected()
        return {
            name: Health(
                self._underlay.running(name),
                name in connected if connected else None,
                links[name],
            )
            for name in up
        }

    async def _guarded(self, work: Coroutine[None, None, None], name: str) -> None:
        try:
            await work
        except AnabranchError as error:
            _log.error("tree.not_mended", node=name, error=str(error))
            self._on_event(Event("tree.failed", name, {"error": str(error)}))

    async def _died(self, name: str) -> None:
        before = self._underlay.tree

        def change(tree: Plan) -> Plan:
            nonlocal before
            before = tree
            return rehung(tree, name)

        if before.description.roles[name] is Role.RELAY and name in before.parents:
            self._losses[name] = Loss(before, await self._underlay.regrow(change))

    async def _came_back(self, name: str) -> None:
        await self._underlay.refresh(name)
        loss = self._losses.pop(name, None)
        if loss is not None:
            await self._underlay.regrow(lambda tree: taken_back(tree, name, loss))
