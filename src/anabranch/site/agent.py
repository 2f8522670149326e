"""A node's agent: its place in the SOLEIL tree, and what it reports of itself and those below."""

import asyncio
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Protocol

import structlog

from anabranch.core.errors import AnabranchError, UnavailableError, UsageError
from anabranch.site.processing import Processing
from anabranch.tree.complaints import Complaints
from anabranch.tree.events import Attached, Deliver, Forgotten, NodeEvent, Stopped
from anabranch.tree.member import Member
from anabranch.tree.metrics import LARGEST, THRESHOLDS, Threshold, Weighting
from anabranch.tree.pipelines.handler import Command
from anabranch.tree.pipelines.overlay import Overlay
from anabranch.tree.reporter import Readings, Reporter
from anabranch.tree.runtime import TreeNode
from anabranch.tree.soleil.codec import type_of
from anabranch.tree.soleil.messages import (
    Error,
    Fault,
    FullStats,
    Message,
    ReqFullStats,
    Stats,
)
from anabranch.tree.statistics import StatisticsError, messages_of

_QUIET_S = 60.0
"""Seconds between two complaints about the reports of a child, which come all the time."""
_log = structlog.get_logger("anabranch.tree")


class Gauge(Protocol):
    """Reads what a node knows of itself, where it runs."""

    async def read(self) -> Readings:
        """Return the present counts.

        Raises:
            AnabranchError: they cannot be had just now; there is no report in this interval.
        """
        ...


@dataclass(frozen=True, slots=True)
class Reporting:
    """How nodes report; the same in the whole tree.

    Attributes:
        interval_s: seconds between two reports.
        thresholds: by figure, for counting who is in trouble.

    Raises:
        UsageError: there is no figure of a name in ``thresholds``.
    """

    interval_s: float = 2.0
    weighting: Weighting = Weighting.VIEWERS
    thresholds: Mapping[str, Threshold] = field(default_factory=lambda: THRESHOLDS)

    def __post_init__(self) -> None:
        if unknown := self.thresholds.keys() - THRESHOLDS.keys():
            raise UsageError(
                f"thresholds: there is no figure {min(unknown)[:60]!r}; there are"
                f" {', '.join(sorted(THRESHOLDS))}"
            )


class Agent:
    """One node at work: measures, reports to its parent, answers the root.

    Args:
        member: the node's decisions.
        gauge: reads what it knows of itself.
        reporting: how.
        on_event: told what else concerns the node; must not block.
        heaviest: the weight that a child can have at most.
        run_id: mark of the processes of pipelines.
        overlay: where pipelines may receive and send; None: there can be none.
        connection: further arguments of :class:`TreeNode`.

    Attributes:
        processing: has the node's pipelines.
    """

    def __init__(
        self,
        member: Member,
        gauge: Gauge,
        reporting: Reporting,
        *,
        on_event: Callable[[NodeEvent], None] = lambda _: None,
        heaviest: Callable[[str], float] = lambda _: LARGEST,
        run_id: str = "",
        overlay: Overlay | None = None,
        **connection: Any,
    ) -> None:
        self.member = member
        self.node = TreeNode(member, self._happened, **connection)
        self.processing = Processing(self.node, run_id, overlay)
        self.reporter = Reporter(
            member.name,
            time.time(),
            weighting=reporting.weighting,
            thresholds=reporting.thresholds,
        )
        self._gauge = gauge
        self._interval = reporting.interval_s
        self._on_event = on_event
        self._heaviest = heaviest
        self._complaints = Complaints(_log, _QUIET_S)

    async def run(self) -> None:
        """Report at every interval, for ever."""
        loop = asyncio.get_running_loop()
        due = loop.time()
        while True:
            due = max(due + self._interval, loop.time())
            await asyncio.sleep(due - loop.time())
            try:
                readings = await self._gauge.read()
            except AnabranchError as error:
                _log.warning("node.unread", node=self.member.name, error=str(error))
                continue
            stats = self.reporter.measure(readings, self.member.children, time.time())
            self._report(stats)

    async def stop(self, reason: str) -> None:
        """End the node's pipelines, say goodbye and end every connection."""
        await self.processing.stop()
        await self.node.stop(reason)

    def _report(self, stats: Stats) -> None:
        with suppress(UnavailableError):  # for want of a parent nobody is told of this interval
            for part in messages_of(stats):
                self.node.send(part)

    def _happened(self, event: NodeEvent) -> None:
        match event:
            case Deliver(Message(Stats() as stats, sender=child) as report, neighbour) if (
                child == neighbour
            ):
                self._take(neighbour, stats, report)
            case Deliver(Message(ReqFullStats(stream)) as request):
                self._answer(request, stream)
            case Deliver(Message(body) as command) if isinstance(body, Command):
                self.processing.command(command)
            case _:
                if isinstance(event, Attached | Forgotten):
                    self.processing.tell()
                elif isinstance(event, Stopped):
                    self.processing.end()
                self._on_event(event)

    def _take(self, child: str, stats: Stats, report: Message) -> None:
        if child not in self.member.children:
            return
        try:
            self.reporter.take(child, stats, heaviest=self._heaviest(child))
        except StatisticsError as error:
            now = asyncio.get_running_loop().time()
            self._complaints.make(child, now, "report refused", node=child, reason=str(error))
            refusal = Error(Fault.MALFORMED, str(error), type_of(stats), report.id)
            with suppress(UnavailableError):  # it has just left
                self.node.send(refusal, child)

    def _answer(self, request: Message, stream: str | None) -> None:
        containers = self.reporter.details(stream)
        end = max((each.end for each in containers), default=None)
        answer = FullStats(containers, stream, end)
        with suppress(UnavailableError):  # the root asks again
            self.node.send(
                answer, request.sender, time_ms=request.time_ms, in_seconds=request.in_seconds
            )
