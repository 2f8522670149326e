"""The transcoder of one sandbox: takes jobs from its socket and has ffmpeg do them.

Everything that comes over the socket comes from a tenant. ffmpeg reads and writes the descriptors
of regular files that came with a job, and is shut in by :mod:`~.launcher`.
"""

import asyncio
import fcntl
import math
import os
import signal
import socket
import stat
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial

import structlog

from anabranch.core.tasks import end_task
from anabranch.host.cgroups import ControlGroup, ControlGroupError, Limits, make_group
from anabranch.host.process import end_process
from anabranch.services.transcoding import command
from anabranch.services.transcoding.launcher import Launch
from anabranch.services.transcoding.request import (
    MAX_DESCRIPTORS,
    MAX_MESSAGE,
    Answer,
    Facts,
    Request,
    TranscodingError,
    Verb,
)

_LAUNCHER = "anabranch.services.transcoding.launcher"
_MAX_SAID = 64 * 1024
_ADDRESS_SPACE = 4 << 30
_TASKS = 64
_FAR = 1 << 62
_log = structlog.get_logger("anabranch.services")


@dataclass(frozen=True, slots=True)
class TranscodingLimits:
    """What the jobs of one sandbox may take.

    Attributes:
        jobs: at a time; others wait.
        waiting: so many; further ones are refused.
        seconds: of one job, by the clock.
        input_mb, output_mb: of one job.
        memory_mb, cpu_percent: of all that run.
    """

    jobs: int = 1
    waiting: int = 4
    seconds: float = 300.0
    input_mb: int = 1024
    output_mb: int = 1024
    memory_mb: int = 768
    cpu_percent: int = 100


class TranscodingService:
    """Serves one sandbox while it lives.

    Args:
        user: for the log.
        uid: user number of ffmpeg's process; None: this process's own.
        group: name of the control group; None: without.
    """

    def __init__(
        self,
        user: str,
        limits: TranscodingLimits,
        *,
        uid: int | None = None,
        group: str | None = None,
    ) -> None:
        self._user = user
        self._limits = limits
        self._uid = uid
        self._group_name = group
        self._group: ControlGroup | None = None
        self._socket: socket.socket | None = None
        self._jobs: dict[int, asyncio.Task[None]] = {}
        self._turn = asyncio.Semaphore(limits.jobs)

    def open(self) -> socket.socket:
        """Begin, and return the sandbox's end of the socket; the caller closes its copy."""
        ours, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.setblocking(False)
        self._socket = ours
        asyncio.get_running_loop().add_reader(ours, self._read)
        return its

    async def close(self) -> None:
        """End every job; none of the sandbox's files is open here when this returns."""
        self._hang_up()
        for job in list(self._jobs.values()):
            await end_task(job)
        if self._group is not None:
            group, self._group = self._group, None
            with suppress(ControlGroupError):
                await asyncio.to_thread(group.remove)

    def _hang_up(self) -> None:
        if self._socket is not None:
            asyncio.get_running_loop().remove_reader(self._socket)
            self._socket.close()
            self._socket = None
        for job in self._jobs.values():
            job.cancel()

    # What comes

    def _read(self) -> None:
        assert self._socket is not None
        try:
            data, descriptors, flags, _ = socket.recv_fds(
                self._socket, MAX_MESSAGE, MAX_DESCRIPTORS, socket.MSG_CMSG_CLOEXEC
            )
        except BlockingIOError:
            return
        except OSError:
            data, descriptors, flags = b"", [], 0
        if not data:
            _close_all(descriptors)
            self._hang_up()
            return
        try:
            if flags & (socket.MSG_TRUNC | socket.MSG_CTRUNC):
                raise TranscodingError("too long, or too many descriptors")
            request = Request.parse(data)
        except TranscodingError as error:
            # One who does not keep to this has none of our code: there is nobody to answer.
            _log.warning("transcoder.babble", user=self._user, error=str(error))
            _close_all(descriptors)
            self._hang_up()
            return
        self._take(request, descriptors)

    def _take(self, request: Request, descriptors: list[int]) -> None:
        if request.verb is Verb.CANCEL:
            _close_all(descriptors)
            if request.number in self._jobs:
                self._jobs[request.number].cancel()
            return
        refusal = ""
        if len(descriptors) != request.descriptors:
            refusal = f"{request.verb} takes {request.descriptors} descriptors"
        elif request.number in self._jobs:
            refusal = "that number is another job's"
        elif len(self._jobs) >= self._limits.jobs + self._limits.waiting:
            refusal = f"{len(self._jobs)} jobs wait or run already: try later"
        if refusal:
            _close_all(descriptors)
            self._answer(Answer(request.number, refusal))
            return
        job = asyncio.create_task(self._job(request, descriptors), name=f"transcode:{self._user}")
        self._jobs[request.number] = job
        # Also for a job that is cancelled before it begins.
        job.add_done_callback(partial(self._note_end, request.number, descriptors))

    def _note_end(self, number: int, descriptors: list[int], _job: asyncio.Task[None]) -> None:
        _close_all(descriptors)
        self._jobs.pop(number, None)

    def _answer(self, answer: Answer) -> None:
        if self._socket is not None:
            with suppress(OSError):  # one who does not read its answers gets none
                self._socket.send(answer.encode())

    # What is done

    async def _job(self, request: Request, descriptors: Sequence[int]) -> None:
        began = time.monotonic()
        facts, error = None, ""
        try:
            async with self._turn:
                began = time.monotonic()
                async with asyncio.timeout(self._limits.seconds):
                    facts = await self._do(request, descriptors)
        except TimeoutError:
            error = f"it took more than {self._limits.seconds:g} s"
        except TranscodingError as refused:
            error = str(refused)
        except asyncio.CancelledError:
            self._answer(Answer(request.number, "cancelled"))
            raise
        seconds = time.monotonic() - began
        _log.info("transcoded", user=self._user, what=request.verb.value, seconds=round(seconds, 2),
                  error=error or None)  # fmt: skip
        self._answer(Answer(request.number, error, seconds, facts))

    async def _do(self, request: Request, descriptors: Sequence[int]) -> Facts | None:
        inputs = descriptors[: request.verb.inputs]
        self._check(inputs, descriptors[request.verb.inputs :])
        starts = [os.lseek(each, 0, os.SEEK_CUR) for each in descriptors]
        sources = [await self._look_at(*each) for each in zip(inputs, starts, strict=False)]
        match request.verb:
            case Verb.DESCRIBE:
                return sources[0].facts
            case Verb.CONVERT:
                argv = command.converting(sources[0], request.container)
            case _:
                argv = command.inserting(sources[0], sources[1], request.at, request.container)
        await self._run(argv, descriptors, starts)
        return None

    def _check(self, inputs: Sequence[int], outputs: Sequence[int]) -> None:
        for each in (*inputs, *outputs):
            if not stat.S_ISREG(os.fstat(each).st_mode):
                raise TranscodingError("only regular files are read and written")
        for each in inputs:
            if fcntl.fcntl(each, fcntl.F_GETFL) & os.O_ACCMODE == os.O_WRONLY:
                raise TranscodingError("an input that cannot be read")
        for each in outputs:
            if fcntl.fcntl(each, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDONLY:
                raise TranscodingError("an output that cannot be written")
        if sum(os.fstat(each).st_size for each in inputs) > self._limits.input_mb << 20:
            raise TranscodingError(f"more than {self._limits.input_mb} MiB")

    async def _look_at(self, descriptor: int, start: int) -> command.Source:
        def read(offset: int, count: int) -> bytes:
            return os.pread(descriptor, count, start + offset) if offset < _FAR else b""

        kind = command.kind_of(read)
        said = await self._run(command.describing(kind), [descriptor], [start])
        return command.Source(kind, command.facts_of(kind, said))

    async def _run(
        self, argv: list[str], descriptors: Sequence[int], starts: Sequence[int]
    ) -> bytes:
        """Run one command to its end and return what it printed. Raises TranscodingError."""
        for descriptor, start in zip(descriptors, starts, strict=True):
            os.lseek(descriptor, start, os.SEEK_SET)
        launch = Launch(
            tuple(argv), tuple(descriptors), self._uid, await self._groups(),
            self._limits.output_mb << 20, math.ceil(self._limits.seconds) * 2, _ADDRESS_SPACE,
        )  # fmt: skip
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", _LAUNCHER, launch.encode(),
            pass_fds=tuple(descriptors), stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
            start_new_session=True,
        )  # fmt: skip
        assert process.stdout is not None
        assert process.stderr is not None
        try:
            said, complaints = await asyncio.gather(_some(process.stdout), _some(process.stderr))
            code = await process.wait()
        finally:
            await end_process(process, 0.0)
        if code < 0:
            name = signal.Signals(-code).name
            raise TranscodingError(f"{argv[0]} was ended by {name}: too much memory or time")
        if code:
            raise TranscodingError(_last_line(complaints) or f"{argv[0]} ended with {code}")
        return said

    async def _groups(self) -> tuple[str, ...]:
        if self._group_name is None:
            return ()
        if self._group is None:
            limits = Limits(self._limits.memory_mb << 20, self._limits.cpu_percent, _TASKS)
            try:
                self._group = await asyncio.to_thread(make_group, self._group_name, limits)
            except ControlGroupError as error:
                raise TranscodingError(f"no limits to be had: {error}") from error
        return tuple(str(each / "cgroup.procs") for each in self._group.directories)


async def _some(stream: asyncio.StreamReader) -> bytes:
    """Read to the end, and return the last :data:`_MAX_SAID` bytes."""
    kept = b""
    while part := await stream.read(_MAX_SAID):
        kept = (kept + part)[-_MAX_SAID:]
    return kept


def _last_line(said: bytes) -> str:
    lines = [line.strip() for line in said.decode(errors="replace").splitlines() if line.strip()]
    return "".join(c if c.isprintable() else "?" for c in lines[-1])[:300] if lines else ""


def _close_all(descriptors: Sequence[int]) -> None:
    for each in descriptors:
        with suppress(OSError):
            os.close(each)
