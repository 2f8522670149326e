"""A pipeline that plays: one supervised worker."""

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from anabranch.host.process import SYSTEM_PYTHON, Child, ChildSpec
from anabranch.tree.pipelines.counters import Broken, Figures, Playing, read_event
from anabranch.tree.pipelines.definitions import endpoints
from anabranch.tree.soleil.messages import Endpoint

WORKER = Path(__file__).parent / "worker"


class Run:
    """Keeps a pipeline playing until it is stopped.

    Args:
        name: of the child, unique on the node.
        run_id: mark of the child.
        config: asked for what to play at every start.
        on_change: called with None when it plays, with the reason when it has ended.
        silence: seconds after which a worker that says nothing is ended; it speaks every second.
    """

    def __init__(
        self,
        name: str,
        run_id: str,
        netns: str | None,
        config: Callable[[], dict[str, Any]],
        on_change: Callable[[str | None], None],
        silence: float,
    ) -> None:
        self._config = config
        self._silence = silence
        self._watchdog: asyncio.TimerHandle | None = None
        self._on_change = on_change
        self._broken: str | None = None
        self._settled = asyncio.Event()
        self.figures = Figures({}, {})
        self.lives = 0
        self._child = Child(
            ChildSpec(
                name,
                (SYSTEM_PYTHON, str(WORKER)),
                netns=netns,
                env={"PYTHONDONTWRITEBYTECODE": "1", "MALLOC_ARENA_MAX": "2"},
            ),
            run_id,
            on_line=self._on_line,
            on_start=self._on_start,
            on_exit=self._on_exit,
        )

    @property
    def pid(self) -> int | None:
        return self._child.pid

    async def start(self) -> None:
        """Start the worker; return when it plays or has ended.

        Raises:
            ProcessError: there is no Python to run it.
        """
        await self._child.start()
        await self._settled.wait()

    def give_up(self) -> None:
        """Let :meth:`start` return."""
        self._settled.set()

    async def stop(self) -> None:
        """End the worker. Safe to call twice."""
        await self._child.stop()
        self._expect(None)

    def route(self, outlet: str, to: tuple[Endpoint, ...]) -> None:
        """Have an outlet send to exactly ``to``; a later life is told by ``config``."""
        self._tell({"cmd": "route", "outlet": outlet, "to": endpoints(to)})

    def _tell(self, command: dict[str, Any]) -> None:
        self._child.write_line(json.dumps(command))

    def _on_start(self, _pid: int) -> None:
        self.lives += 1
        self._broken = None
        self._expect(self._silence)
        self._tell({"cmd": "play", **self._config()})

    def _on_line(self, stream: str, line: str) -> None:
        event = read_event(line) if stream == "stdout" else None
        if event is not None:
            self._expect(self._silence)
        match event:
            case Playing():
                self._on_change(None)
                self._settled.set()
            case Broken(detail):
                self._broken = detail
            case Figures() as figures:
                self.figures = figures

    def _on_exit(self, code: int) -> None:
        self._expect(None)
        self.figures = Figures({}, {})
        how = f"by signal {-code}" if code < 0 else f"with code {code}"
        last = "" if code < 0 or not self._child.last_lines else f": {self._child.last_lines[-1]}"
        self._on_change(self._broken or f"the worker ended {how}{last}")
        self._settled.set()

    def _expect(self, within: float | None) -> None:
        """End the worker unless it says something ``within`` seconds."""
        if self._watchdog is not None:
            self._watchdog.cancel()
        loop = asyncio.get_running_loop()
        self._watchdog = None if within is None else loop.call_later(within, self._on_silence)

    def _on_silence(self) -> None:
        self._broken = f"the worker said nothing for {self._silence:g} s"
        self._child.kill()
