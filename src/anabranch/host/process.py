"""Supervised child processes: started, watched, restarted, and always removed again.

Every child carries ``ANABRANCH_RUN=<run id>`` in its environment. That mark, not a list of
process numbers, is how ``anabranch down`` finds the children of a director that was killed:
no moment exists in which a child lives unrecorded.
"""

import asyncio
import os
import signal
import time
from collections import deque
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import structlog

from anabranch.core.errors import AnabranchError
from anabranch.core.tasks import end_task
from anabranch.host import holdings
from anabranch.host.holdings import HeldProcess

RUN_MARK = "ANABRANCH_RUN"
SYSTEM_PYTHON = "/usr/bin/python3"
"""The distribution's Python: it has GStreamer's bindings, a virtual environment has not."""
_MAX_LINE = 64 * 1024
_log = structlog.get_logger("anabranch.host")


class ProcessError(AnabranchError):
    """A child could not be started, or ended when it should not have."""


@dataclass(frozen=True, slots=True)
class ChildSpec:
    """What to run and how.

    Attributes:
        name: unique within the site; names its log lines and events.
        argv: the command; ``argv[0]`` is looked up on PATH.
        netns: named network namespace to run in, or None for the director's own.
        env: additions to the director's environment.
        secrets: strings that must never reach a log; replaced by ``***`` in every line.
        stop_timeout: seconds between SIGTERM and SIGKILL.
        restart: start it again whenever it ends.
        healthy_after: seconds of life after which the back-off begins anew.
        first_delay: seconds before the first restart.
        max_delay: the longest pause between two starts, in seconds.
        lasting: it outlives a director that dies, and is taken over by the next one; see
            :mod:`anabranch.host.holdings`.
    """

    name: str
    argv: tuple[str, ...]
    netns: str | None = None
    env: Mapping[str, str] = field(default_factory=dict)
    secrets: tuple[str, ...] = ()
    stop_timeout: float = 3.0
    restart: bool = True
    healthy_after: float = 5.0
    first_delay: float = 0.05
    max_delay: float = 5.0
    lasting: bool = False


Process = asyncio.subprocess.Process | HeldProcess


@dataclass(slots=True)
class Backoff:
    """The pause before each restart: doubling from ``first`` to ``longest``, reset by health."""

    first: float
    longest: float
    healthy_after: float
    _next: float = 0.0

    def delay(self, lived: float) -> float:
        """Return seconds to wait before the next start of a child that lived ``lived`` seconds."""
        if lived >= self.healthy_after or self._next == 0.0:
            self._next = self.first
        delay = self._next
        self._next = min(self._next * 2, self.longest)
        return delay


class Child:
    """One supervised process and the task that keeps it running.

    ``on_line(stream, line)`` is called for every line the child prints (``stream`` is
    ``"stdout"`` or ``"stderr"``), ``on_start(pid)`` after every start, ``on_exit(code)`` after
    every end; a negative code is the signal that ended it. Callbacks must not block.
    """

    def __init__(
        self,
        spec: ChildSpec,
        run_id: str,
        *,
        on_line: Callable[[str, str], None] | None = None,
        on_start: Callable[[int], None] | None = None,
        on_exit: Callable[[int], None] | None = None,
    ) -> None:
        self.spec = spec
        self._run_id = run_id
        self._on_line = on_line
        self._on_start = on_start
        self._on_exit = on_exit
        self._process: Process | None = None
        self._task: asyncio.Task[None] | None = None
        self._started = asyncio.Event()
        self._first_error: ProcessError | None = None
        self._retired = False
        self.restarts = 0
        self.last_lines: deque[str] = deque(maxlen=20)

    @property
    def pid(self) -> int | None:
        """Process number of the running child, or None between two lives."""
        return self._process.pid if self._process and self._process.returncode is None else None

    @property
    def running(self) -> bool:
        return self.pid is not None

    @property
    def survives(self) -> bool:
        """Whether exactly this child lives on from an earlier director, to be taken over."""
        kept = self._holdings
        return kept is not None and kept.survives(self.spec.name, self._kind)

    @property
    def adopted(self) -> bool:
        """Whether the present life was begun by an earlier director."""
        return isinstance(self._process, HeldProcess) and self._process.adopted

    async def abandon(self) -> None:
        """End what lives on from an earlier director, so that it is started anew."""
        if self._holdings is not None:
            await self._holdings.abandon(self.spec.name, self.spec.stop_timeout)

    async def start(self) -> None:
        """Start the child and its supervision.

        Raises:
            ProcessError: the command does not exist or cannot be executed.
        """
        if self._task is not None:
            raise ProcessError(f"{self.spec.name} was started already")
        self._retired = False
        self._task = asyncio.create_task(self._supervise(), name=f"child:{self.spec.name}")
        await self._started.wait()
        if self._first_error is not None:
            await self.stop()
            raise self._first_error

    async def stop(self) -> None:
        """End the child (SIGTERM, then SIGKILL) and its supervision. Safe to call twice."""
        task = self._task
        if task is not None:
            await end_task(task)
            if self._task is task:
                self._task = None

    def retire(self) -> None:
        """Take the next end of the child for granted: it is about to be told to exit."""
        self._retired = True

    async def wait(self) -> None:
        """Return when the supervision has ended: only a child with ``restart=False`` ends so."""
        if self._task is not None:
            await asyncio.shield(self._task)

    def write_line(self, line: str) -> bool:
        """Send one line to the child's standard input; False if it is not running."""
        process = self._process
        if process is None or process.returncode is not None or process.stdin is None:
            return False
        if process.stdin.is_closing():
            return False
        process.stdin.write(line.encode() + b"\n")
        return True

    def kill(self) -> None:
        """Send SIGKILL to the present life; supervision then starts the next one."""
        if self._process is not None and self._process.returncode is None:
            self._process.kill()

    async def _supervise(self) -> None:
        spec = self.spec
        backoff = Backoff(spec.first_delay, spec.max_delay, spec.healthy_after)
        while True:
            began = time.monotonic()
            try:
                process = await self._spawn()
            except OSError as error:
                self._first_error = ProcessError(
                    f"cannot start {spec.name}: {spec.argv[0]}: {error.strerror or error}"
                )
                if not self._started.is_set():
                    self._started.set()
                    return
                _log.error("child.spawn_failed", child=spec.name, error=str(error))
                await asyncio.sleep(spec.max_delay)
                continue
            self._process = process
            code = await self._live(process)
            lived = time.monotonic() - began
            if self._on_exit is not None:
                self._on_exit(code)
            if not spec.restart or self._retired:
                return
            delay = backoff.delay(lived)
            self.restarts += 1
            _log.warning(
                "child.exited",
                child=spec.name,
                code=code,
                lived_s=round(lived, 2),
                restart_in_s=round(delay, 2),
                last=self.last_lines[-1] if self.last_lines else None,
            )
            await asyncio.sleep(delay)

    @property
    def _holdings(self) -> holdings.Holdings | None:
        return holdings.of(self._run_id) if self.spec.lasting else None

    @property
    def _argv(self) -> tuple[str, ...]:
        if self.spec.netns is None:
            return self.spec.argv
        # nsenter executes the command in its own place, so the child's pid stays ours;
        # `ip netns exec` would also remount /sys and hide the control groups.
        return ("nsenter", f"--net=/run/netns/{self.spec.netns}", "--", *self.spec.argv)

    @property
    def _kind(self) -> str:
        return holdings.kind_of(self._argv, self.spec.env)

    async def _spawn(self) -> Process:
        spec = self.spec
        env = {**os.environ, **spec.env, RUN_MARK: self._run_id}
        if (kept := self._holdings) is not None:
            return await kept.run(spec.name, self._argv, env, self._kind)
        return await asyncio.create_subprocess_exec(
            *self._argv,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env=env,
            limit=_MAX_LINE,
            start_new_session=True,  # Ctrl-C is for the director, which then ends its children
        )

    async def _live(self, process: Process) -> int:
        """Follow one life of the child; on cancellation end it first."""
        assert process.stdout is not None
        assert process.stderr is not None
        readers = [
            asyncio.create_task(self._read("stdout", process.stdout)),
            asyncio.create_task(self._read("stderr", process.stderr)),
        ]
        if self._on_start is not None:
            self._on_start(process.pid)
        self._started.set()
        try:
            code = await process.wait()
        except asyncio.CancelledError:
            await end_process(process, self.spec.stop_timeout)
            raise
        finally:
            # A grandchild may hold the pipe open: what is not read by now is not waited for.
            _, pending = await asyncio.wait(readers, timeout=0.2)
            for reader in pending:
                reader.cancel()
            if process.stdin is not None:
                process.stdin.close()
        return code

    async def _read(self, stream: str, reader: asyncio.StreamReader) -> None:
        while True:
            try:
                raw = await reader.readline()
            except ValueError:  # a line longer than the limit: its beginning is dropped
                continue
            if not raw:
                return
            line = redact(raw.decode(errors="replace").rstrip(), self.spec.secrets)
            if stream == "stderr" or self._on_line is None:
                self.last_lines.append(line)
            if self._on_line is not None:
                self._on_line(stream, line)
            elif line:
                _log.debug("child.line", child=self.spec.name, stream=stream, line=line)


def redact(line: str, secrets: tuple[str, ...]) -> str:
    """Return ``line`` with every secret replaced by ``***``."""
    for secret in secrets:
        if secret:
            line = line.replace(secret, "***")
    return line


async def end_process(process: Process, patience: float) -> None:
    """End a child's whole session: SIGTERM, ``patience`` seconds, SIGKILL."""
    for number, wait in ((signal.SIGTERM, patience), (signal.SIGKILL, 5.0)):
        if process.returncode is not None:
            return
        with suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        with suppress(TimeoutError):
            await asyncio.wait_for(asyncio.shield(process.wait()), wait)


async def run_command(*argv: str, netns: str | None = None, stdin: str | None = None) -> str:
    """Run a short command to its end and return what it printed.

    Raises:
        ProcessError: it failed; the message has the command and the last line it printed.
    """
    if netns is not None:
        argv = ("nsenter", f"--net=/run/netns/{netns}", "--", *argv)
    try:
        process = await asyncio.create_subprocess_exec(
            *argv,
            stdin=asyncio.subprocess.PIPE if stdin is not None else asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
    except OSError as error:
        raise ProcessError(f"cannot run {argv[0]}: {error.strerror or error}") from error
    out, err = await process.communicate(stdin.encode() if stdin is not None else None)
    if process.returncode != 0:
        lines = (err or out).decode(errors="replace").strip().splitlines()
        raise ProcessError(f"{' '.join(argv[:6])}: {lines[-1] if lines else process.returncode}")
    return out.decode(errors="replace")


def find_marked(run_id: str) -> list[psutil.Process]:
    """Return every process of this machine that carries the mark of ``run_id``, but this one."""
    mark = f"{RUN_MARK}={run_id}".encode()
    found = []
    for path in Path("/proc").glob("[0-9]*/environ"):
        with suppress(OSError, psutil.Error):
            if mark in path.read_bytes().split(b"\0"):
                process = psutil.Process(int(path.parent.name))
                if process.pid != os.getpid():
                    found.append(process)
    return found


def end_marked(run_id: str, *, patience: float = 2.0, but: Collection[int] = ()) -> int:
    """End every process that carries the mark of ``run_id``; return how many there were.

    ``but``: process numbers of those that live on.
    """
    processes = [process for process in find_marked(run_id) if process.pid not in but]
    for process in processes:
        with suppress(psutil.Error):
            process.terminate()
    _, alive = psutil.wait_procs(processes, timeout=patience)
    for process in alive:
        with suppress(psutil.Error):
            process.kill()
    psutil.wait_procs(alive, timeout=2.0)
    return len(processes)
