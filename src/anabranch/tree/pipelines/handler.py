"""The pipeline handler of a node (seed 000, section 3.2.1, figure 3.6)."""

import asyncio
from collections.abc import Callable, Mapping
from weakref import WeakValueDictionary

import structlog

from anabranch.host.process import ProcessError
from anabranch.tree.pipelines.counters import PipelineReport
from anabranch.tree.pipelines.definitions import (
    CommandError,
    Definitions,
    Pipeline,
    worker_config,
)
from anabranch.tree.pipelines.overlay import Overlay
from anabranch.tree.pipelines.run import Run
from anabranch.tree.soleil.codec import type_of
from anabranch.tree.soleil.messages import (
    Error,
    Fault,
    Message,
    PipeDef,
    PipeDefInfo,
    PipelineState,
    PlayPipeline,
    RemovePipeline,
    RoutePipeline,
    StopPipeline,
)

_log = structlog.get_logger("anabranch.tree")

Command = PipeDef | PlayPipeline | StopPipeline | RemovePipeline | RoutePipeline


class PipelineHandler:
    """Defines, plays, routes, stops and removes pipelines, and tells what becomes of them.

    Commands to one pipeline are carried out in the order in which :meth:`handle` is called: a
    caller that does not want to wait makes a task of each.

    Args:
        overlay: where they may receive and send.
        run_id: mark of the children.
        on_change: called when the state of a pipeline changes without a command; must not block.
        most: how many there may be.
        silence: see :class:`Run`.
    """

    def __init__(
        self,
        overlay: Overlay,
        run_id: str,
        on_change: Callable[[PipeDefInfo], None],
        *,
        most: int = 16,
        silence: float = 15.0,
    ) -> None:
        self._overlay = overlay
        self._run_id = run_id
        self._on_change = on_change
        self._silence = silence
        self._definitions = Definitions(overlay, most)
        self._runs: dict[str, Run] = {}
        self._commanded: set[str] = set()
        self._turns: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._closed = False

    @property
    def pipelines(self) -> tuple[str, ...]:
        """The names of those that are defined, for HELLO."""
        return tuple(self._definitions.pipelines)

    def infos(self) -> list[PipeDefInfo]:
        """Return what has become of all pipelines."""
        return [pipeline.info() for pipeline in self._definitions.pipelines.values()]

    def pid(self, pipeline: str) -> int | None:
        """Return the process of a pipeline; None: there is none."""
        run = self._runs.get(pipeline)
        return run.pid if run is not None else None

    def reports(self) -> Mapping[str, PipelineReport]:
        """Return state and counters of all pipelines; counters are up to a second old."""
        reports = {}
        for name, pipeline in self._definitions.pipelines.items():
            run = self._runs.get(name)
            reports[name] = (
                PipelineReport(pipeline.state)
                if run is None
                else PipelineReport(
                    pipeline.state, run.lives, run.figures.sources, run.figures.outlets
                )
            )
        return reports

    async def handle(self, message: Message) -> PipeDefInfo | Error | None:
        """Obey a command and return the answer to its sender; None: it is no such command.

        Whether its sender may command is the caller's question (COMMANDS in ``member.py``).
        """
        body = message.body
        if not isinstance(body, Command):
            return None
        async with self._turn(body.pipeline):
            self._commanded.add(body.pipeline)
            try:
                return await self._obey(body)
            except CommandError as error:
                return Error(error.fault, str(error), type_of(body), message.id)
            finally:
                self._commanded.remove(body.pipeline)

    async def stop(self) -> None:
        """End and forget all pipelines; the node takes leave, or the root has ended it."""
        self._closed = True
        for run in self._runs.values():
            run.give_up()
        await asyncio.gather(*(self._forget(name) for name in self.pipelines))

    async def _forget(self, name: str) -> None:
        async with self._turn(name):
            await self._end(name)
            self._definitions.pipelines.pop(name, None)

    def _turn(self, name: str) -> asyncio.Lock:
        """Return what orders the commands to a pipeline; it lives as long as somebody has it."""
        return self._turns.setdefault(name, asyncio.Lock())

    async def _obey(self, command: Command) -> PipeDefInfo:
        if self._closed:
            raise CommandError(Fault.FAILED, "this node is leaving")
        match command:
            case PipeDef():
                return await self._define(command)
            case PlayPipeline(name):
                return await self._play(self._definitions.named(name))
            case StopPipeline(name):
                return await self._stop(self._definitions.named(name))
            case RemovePipeline(name):
                await self._stop(self._definitions.named(name))
                del self._definitions.pipelines[name]
                return PipeDefInfo(name, PipelineState.STOPPED)
            case RoutePipeline():
                pipeline, to = self._definitions.route(command)
                pipeline.routes[command.outlet] = to
                if (run := self._runs.get(pipeline.name)) is not None:
                    run.route(command.outlet, to)
                return pipeline.info()

    async def _define(self, command: PipeDef) -> PipeDefInfo:
        """Define; the same again is not touched, so that a root may repeat itself."""
        new = self._definitions.define(command)
        old = self._definitions.pipelines.get(new.name)
        if old is not None and old.description == new.description:
            return old.info()
        self._definitions.pipelines[new.name] = new  # from here on it has its ports
        await self._end(new.name)
        return new.info()

    async def _play(self, pipeline: Pipeline) -> PipeDefInfo:
        if pipeline.name in self._runs:
            return pipeline.info()
        pipeline.error = None
        run = Run(
            f"pipeline:{pipeline.name}",
            self._run_id,
            self._overlay.netns,
            lambda: worker_config(pipeline, self._overlay),
            lambda trouble: self._changed(pipeline, trouble),
            self._silence,
        )
        self._runs[pipeline.name] = run
        try:
            await run.start()
        except ProcessError as error:
            await self._end(pipeline.name)
            raise CommandError(Fault.FAILED, str(error)) from error
        return pipeline.info()

    async def _stop(self, pipeline: Pipeline) -> PipeDefInfo:
        await self._end(pipeline.name)
        pipeline.state = PipelineState.STOPPED
        return pipeline.info()

    async def _end(self, name: str) -> None:
        run = self._runs.pop(name, None)
        if run is not None:
            await run.stop()

    def _changed(self, pipeline: Pipeline, trouble: str | None) -> None:
        if pipeline.name not in self._runs:
            return
        if trouble is None:
            pipeline.state = PipelineState.PLAYING
        else:
            pipeline.state = PipelineState.FAILED
            pipeline.error = trouble
            pipeline.restarts += 1
            _log.warning("pipeline failed", pipeline=pipeline.name, reason=trouble)
        if pipeline.name not in self._commanded:
            self._on_change(pipeline.info())
