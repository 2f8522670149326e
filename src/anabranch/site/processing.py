"""A node's side of media pipelines: it obeys the root, and tells what becomes of them."""

import asyncio
from collections.abc import Coroutine
from contextlib import suppress

from anabranch.core.errors import UnavailableError
from anabranch.tree.pipelines.handler import PipelineHandler
from anabranch.tree.pipelines.overlay import Overlay
from anabranch.tree.runtime import TreeNode
from anabranch.tree.soleil.codec import type_of
from anabranch.tree.soleil.messages import ROOT, Error, Fault, Message, PipeDefInfo


class Processing:
    """Has pipelines run for a node.

    Args:
        node: speaks with the root.
        run_id: mark of the processes.
        overlay: where they may receive and send; None: nowhere yet, so there can be none.
    """

    def __init__(self, node: TreeNode, run_id: str, overlay: Overlay | None) -> None:
        self._node = node
        self._run_id = run_id
        self._tasks: set[asyncio.Task[None]] = set()
        self._overlay: Overlay | None = None
        self._handler: PipelineHandler | None = None
        self._put(overlay)

    async def move(self, overlay: Overlay | None) -> None:
        """Have pipelines elsewhere from now on; those at another place than this end."""
        if overlay != self._overlay:
            former = self._handler
            self._put(overlay)
            if former is not None:
                await former.stop()

    async def stop(self) -> None:
        """End all pipelines; there can be none from now on."""
        await self.move(None)
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def end(self) -> None:
        """End all pipelines soon: the root has ended the node."""
        self._spawn(self.move(None))

    def command(self, message: Message) -> None:
        """Obey a command of the root's, after those to the same pipeline before it."""
        self._spawn(self._obey(message))

    def tell(self) -> None:
        """Tell the root of all pipelines: it may know of none."""
        if self._handler is not None:
            for info in self._handler.infos():
                self._say(info)

    def _spawn(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.create_task(work, name="pipelines")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _put(self, overlay: Overlay | None) -> None:
        self._overlay = overlay
        self._handler = (
            None if overlay is None else PipelineHandler(overlay, self._run_id, self._say)
        )
        self._node.member.pipelines = ()

    async def _obey(self, message: Message) -> None:
        handler = self._handler
        if handler is None:
            text = f"{self._node.member.name} has no place on the overlay for pipelines now"
            self._answer(Error(Fault.FAILED, text, type_of(message.body), message.id), message)
            return
        answer = await handler.handle(message)
        assert answer is not None
        if handler is self._handler:
            self._node.member.pipelines = handler.pipelines
        self._answer(answer, message)

    def _answer(self, answer: PipeDefInfo | Error, message: Message) -> None:
        """Answer with the time of the command, which tells its answer from other news."""
        with suppress(UnavailableError):  # the root asks again
            self._node.send(
                answer, message.sender, time_ms=message.time_ms, in_seconds=message.in_seconds
            )

    def _say(self, info: PipeDefInfo) -> None:
        with suppress(UnavailableError):  # all is told to the next parent
            self._node.send(info, ROOT)
