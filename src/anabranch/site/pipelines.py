"""The root's side of media pipelines: commands to nodes, and what is known of their pipelines.

Nothing is kept: what nodes tell is all that the root knows, and a node that begins anew has none.
"""

import asyncio
import time
from collections import defaultdict
from collections.abc import Callable, Collection
from dataclasses import dataclass

from anabranch.core.errors import (
    AnabranchError,
    ConflictError,
    NotFoundError,
    UnavailableError,
    UsageError,
)
from anabranch.core.events import Event
from anabranch.site.carriage import Route
from anabranch.tree.events import Deliver, Introduced, Left, NodeEvent
from anabranch.tree.pipelines.handler import Command
from anabranch.tree.soleil.codec import CodecError, type_of
from anabranch.tree.soleil.messages import (
    ROOT,
    Error,
    Fault,
    Message,
    PipeDefInfo,
    PipelineState,
)

_ERRORS: dict[Fault, type[AnabranchError]] = {
    Fault.NOT_FOUND: NotFoundError,
    Fault.CONFLICT: ConflictError,
    Fault.FAILED: UnavailableError,
    Fault.NO_ROUTE: UnavailableError,
}


@dataclass(frozen=True, slots=True)
class _Asked:
    """A command whose answer is awaited; the answer has its time."""

    command: Command
    answer: "asyncio.Future[PipeDefInfo]"


class Pipelines:
    """Commands the pipelines of all nodes.

    Args:
        root: the root's name.
        known: the names of all nodes, those that are not up too.
        send: sends a message to a node, with this time; raises UnavailableError.
        on_event: gets ``pipeline.changed``, whose subject is the node.
        patience_s: how long a node may take to answer.

    Attributes:
        on_routes: called when :meth:`routes` may have changed; the owner sets it.
    """

    def __init__(
        self,
        root: str,
        known: Callable[[], Collection[str]],
        send: Callable[[Command, str, int], None],
        on_event: Callable[[Event], None],
        *,
        patience_s: float = 5.0,
    ) -> None:
        self.on_routes: Callable[[], None] = lambda: None
        self._root = root
        self._known = known
        self._send = send
        self._on_event = on_event
        self._patience_s = patience_s
        self._told: defaultdict[str, dict[str, PipeDefInfo]] = defaultdict(dict)
        self._asked: dict[tuple[str, int], _Asked] = {}
        self._last_ms = 0

    def of(self, node: str) -> list[PipeDefInfo]:
        """Return the pipelines of a node, by name.

        Raises:
            NotFoundError: there is no such node.
        """
        self._check(node)
        told = self._told.get(node, {})
        return [told[name] for name in sorted(told)]

    def routes(self) -> frozenset[Route]:
        """Return where all pipelines send, or will."""
        return frozenset(
            Route(node, (to.host, to.port))
            for node, told in self._told.items()
            for info in told.values()
            for outlet in info.outlets.values()
            for to in outlet
        )

    async def command(self, node: str, command: Command) -> PipeDefInfo:
        """Have a node obey a command; return what has become of the pipeline.

        Raises:
            NotFoundError: there is no such node, pipeline or outlet.
            UsageError: the command is not allowed; the message is the node's.
            UnavailableError: the node cannot be reached, does not answer, or cannot do it now.
        """
        self._check(node)
        self._last_ms = max(self._last_ms + 1, time.time_ns() // 1_000_000)
        key = node, self._last_ms
        asked = _Asked(command, asyncio.get_running_loop().create_future())
        self._asked[key] = asked
        try:
            self._send(command, node, self._last_ms)
            async with asyncio.timeout(self._patience_s):
                return await asked.answer
        except CodecError as error:
            raise UsageError(str(error)) from error
        except TimeoutError:
            raise UnavailableError(
                f"{node} has not answered within {self._patience_s:g} s; it may obey yet"
            ) from None
        finally:
            del self._asked[key]

    def happened(self, event: NodeEvent) -> None:
        """Take what the tree tells."""
        match event:
            case Deliver(Message(PipeDefInfo() as info) as message):
                self._take(self._node(message), info)
                self._answered(message)
            case Deliver(Message(Error()) as message):
                self._answered(message)
            case Introduced(name, hello):
                told = self._told[name]
                self._told[name] = {each: told[each] for each in told if each in hello.pipelines}
                self.on_routes()
            case Left(name):
                self._told.pop(name, None)
                self.on_routes()
            case _:
                pass

    def _take(self, node: str, info: PipeDefInfo) -> None:
        before = self._told[node].get(info.pipeline)
        if info.description:
            self._told[node][info.pipeline] = info
        else:  # it has been removed
            self._told[node].pop(info.pipeline, None)
        self.on_routes()
        if before is None or (before.state, before.restarts) != (info.state, info.restarts):
            data = {"pipeline": info.pipeline, "state": str(info.state)}
            if info.state is PipelineState.FAILED:
                data["error"] = info.error or ""
            self._on_event(Event("pipeline.changed", node, data))

    def _answered(self, message: Message) -> None:
        asked = self._asked.get((self._node(message), message.time_ms))
        if asked is None or asked.answer.done():
            return
        match message.body:
            case PipeDefInfo(pipeline) as info if pipeline == asked.command.pipeline:
                asked.answer.set_result(info)
            case Error(fault, text, regarding) if regarding == type_of(asked.command):
                asked.answer.set_exception(_ERRORS.get(fault, UsageError)(text or str(fault)))
            case _:
                pass

    def _node(self, message: Message) -> str:
        return self._root if message.sender in (None, ROOT) else message.sender

    def _check(self, node: str) -> None:
        if node not in self._known():
            raise NotFoundError(f"there is no node named {node[:60]!r}")
