"""What outlives a director: its side of the :mod:`.holder`.

A run's children of :attr:`~anabranch.host.process.ChildSpec.lasting` kind belong to the holder. A
director that comes after one that died takes over those that are exactly what it would start; all
others are ended. What it needs to know and cannot ask anybody is in notes, which live as long as
the holder.
"""

import asyncio
import hashlib
import itertools
import json
import os
import signal
import socket
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import structlog

from anabranch.core.errors import AnabranchError
from anabranch.host.holder import MAX_MESSAGE, enlarge

_MAX_LINE = 64 * 1024
_START_S = 5.0
_TIMEOUT_S = 5.0
_END_S = 8.0
"""Seconds that a holder may take to end what it still has."""
_LINGER_S = 0.5
"""Seconds after the end of a child in which its last lines are read."""
_log = structlog.get_logger("anabranch.host")


class HolderError(AnabranchError):
    """There is no holder, or it does not answer."""


class HeldProcess:
    """A child of the holder, as :class:`asyncio.subprocess.Process` is one of ours.

    Attributes:
        returncode: None while it lives; negative: the signal that ended it.
        adopted: it was started by an earlier director.
    """

    def __init__(self, pid: int, *, adopted: bool) -> None:
        self.pid = pid
        self.adopted = adopted
        self.returncode: int | None = None
        self.stdin: asyncio.WriteTransport | None = None
        self.stdout = asyncio.StreamReader(limit=_MAX_LINE)
        self.stderr = asyncio.StreamReader(limit=_MAX_LINE)
        self._pipes: list[asyncio.BaseTransport] = []
        self._ended = asyncio.Event()

    async def connect(self, ends: Sequence[int], lines: Mapping[str, Sequence[str]]) -> None:
        """Speak to it by the ends of its pipes; ``lines`` are what it has said before."""
        loop = asyncio.get_running_loop()
        for name, reader in (("stdout", self.stdout), ("stderr", self.stderr)):
            for line in lines.get(name, ()):
                reader.feed_data(line.encode() + b"\n")
        if not ends:
            for reader in (self.stdout, self.stderr):
                reader.feed_eof()
            return
        pipes = [os.fdopen(ends[0], "wb", 0), *(os.fdopen(end, "rb", 0) for end in ends[1:])]
        self.stdin, _ = await loop.connect_write_pipe(asyncio.BaseProtocol, pipes[0])
        self._pipes = [self.stdin]
        for reader, pipe in zip((self.stdout, self.stderr), pipes[1:], strict=True):
            transport, _ = await loop.connect_read_pipe(
                lambda reader=reader: asyncio.StreamReaderProtocol(reader),  # type: ignore[misc]
                pipe,
            )
            self._pipes.append(transport)
        if self._ended.is_set():
            self._let_go()

    def end(self, code: int) -> None:
        """Note that it has ended."""
        if self.returncode is None:
            self.returncode = code
            self._ended.set()
            asyncio.get_running_loop().call_later(_LINGER_S, self._let_go)

    def _let_go(self) -> None:
        for pipe in self._pipes:
            pipe.close()

    def kill(self) -> None:
        """Send it SIGKILL."""
        if self.returncode is None:
            with suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)

    async def wait(self) -> int:
        """Return its exit code once it has ended."""
        await self._ended.wait()
        assert self.returncode is not None
        return self.returncode


class Holdings:
    """The children and notes of one run.

    Args:
        path: the holder's socket.
        env: the holder's environment, with the run's mark.

    Attributes:
        notes: what was noted, by key; change it by :meth:`note`.
    """

    def __init__(self, path: Path, env: Mapping[str, str]) -> None:
        self._path = path
        self._env = dict(env)
        self._socket: socket.socket | None = None
        self._own: asyncio.subprocess.Process | None = None
        self._opening = asyncio.Lock()
        self._numbers = itertools.count(1)
        self._waiting: dict[int, asyncio.Future[tuple[dict[str, Any], list[int]]]] = {}
        self._hello: asyncio.Future[dict[str, Any]] | None = None
        self._living: dict[str, HeldProcess] = {}
        self._left: dict[str, dict[str, Any]] = {}
        self.pid: int | None = None
        self.notes: dict[str, Any] = {}

    # --- the holder ---------------------------------------------------------------------------

    async def find(self) -> bool:
        """Connect to the holder of an earlier director; False: there is none that answers."""
        try:
            await self._connect()
        except (OSError, HolderError):
            return False
        return True

    async def _opened(self) -> None:
        """Start a holder unless there is one.

        Raises:
            HolderError: it does not come up.
        """
        async with self._opening:
            if self._socket is not None:
                return
            with self._path.with_suffix(".log").open("ab") as log:
                self._own = await asyncio.create_subprocess_exec(
                    *(sys.executable, "-m", "anabranch.host.holder", str(self._path)),
                    stdin=asyncio.subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,  # not ours: who waits for its end shall not wait for the holder's
                    env=self._env,
                    start_new_session=True,
                )
            try:
                async with asyncio.timeout(_START_S):
                    while self._own.returncode is None:
                        with suppress(OSError):
                            await self._connect()
                            break
                        await asyncio.sleep(0.01)
            except TimeoutError:
                self._own.kill()
            if self.pid is None:
                raise HolderError("the holder of the site's processes does not start")
            for key, value in self.notes.items():
                self._send({"note": key, "value": value})

    async def _connect(self) -> None:
        """Raises OSError or HolderError."""
        loop = asyncio.get_running_loop()
        made = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            made.setblocking(False)
            enlarge(made)
            made.connect(str(self._path))
        except OSError:
            made.close()
            raise
        self._socket, self._hello = made, loop.create_future()
        loop.add_reader(made, self._heard)
        try:
            async with asyncio.timeout(_TIMEOUT_S):
                hello = await self._hello
        except TimeoutError:
            self._lost()
            raise HolderError("the holder of the site's processes does not answer") from None
        self.pid, self._left = hello["pid"], hello["children"]
        self.notes = {**hello["notes"], **self.notes}

    async def close(self) -> None:
        """End the holder, and with it all that it still has."""
        pid = self.pid
        self._lost()
        if pid is not None:
            with suppress(ProcessLookupError):
                await _end(pid)
        if self._own is not None:
            await self._own.wait()

    def _lost(self) -> None:
        made, self._socket, self.pid = self._socket, None, None
        if made is None:
            return
        asyncio.get_running_loop().remove_reader(made)
        made.close()
        error = HolderError("the holder of the site's processes is gone")
        for waiting in (*self._waiting.values(), self._hello):
            if waiting is not None and not waiting.done():
                waiting.set_exception(error)
        self._left.clear()
        for process in list(self._living.values()):
            process.end(-signal.SIGKILL)  # they die with it
        self._living.clear()

    def _heard(self) -> None:
        assert self._socket is not None
        try:
            data, ends, _, _ = socket.recv_fds(
                self._socket, MAX_MESSAGE, 3, socket.MSG_CMSG_CLOEXEC
            )
        except BlockingIOError:
            return
        except OSError:
            data, ends = b"", []
        if not data:
            _log.error("holder.lost")
            self._lost()
            return
        message = json.loads(data)
        if "hello" in message:
            if self._hello is not None and not self._hello.done():
                self._hello.set_result(message["hello"])
        elif "exit" in message:
            self._exited(message["exit"], message["pid"], message["code"])
        elif (waiting := self._waiting.get(message["id"])) is not None and not waiting.done():
            waiting.set_result((message, ends))
        else:
            for end in ends:
                os.close(end)

    def _exited(self, name: str, pid: int, code: int) -> None:
        process = self._living.get(name)
        if process is not None and process.pid == pid:
            del self._living[name]
            process.end(code)
        elif name in self._left:
            self._left[name]["code"] = code

    async def _ask(self, **request: Any) -> tuple[dict[str, Any], list[int]]:
        number = next(self._numbers)
        answer: asyncio.Future[tuple[dict[str, Any], list[int]]]
        answer = asyncio.get_running_loop().create_future()
        self._waiting[number] = answer
        try:
            self._send({"id": number, **request})
            async with asyncio.timeout(_TIMEOUT_S):
                return await answer
        except TimeoutError:
            raise HolderError("the holder of the site's processes does not answer") from None
        finally:
            self._waiting.pop(number, None)

    def _send(self, message: Mapping[str, Any]) -> None:
        if self._socket is None:
            raise HolderError("there is no holder of the site's processes")
        self._socket.send(json.dumps(message).encode())

    # --- children -----------------------------------------------------------------------------

    def left(self) -> Mapping[str, int]:
        """Return the process numbers of what lives on and was not taken over yet, by name."""
        return {name: each["pid"] for name, each in self._left.items() if each["code"] is None}

    def survives(self, name: str, spec: str) -> bool:
        """Say whether a child of exactly this kind lives on and was not taken over yet."""
        left = self._left.get(name)
        return left is not None and left["spec"] == spec and left["code"] is None

    async def run(
        self, name: str, argv: Sequence[str], env: Mapping[str, str], spec: str
    ) -> HeldProcess:
        """Take a child over if it is of exactly this kind, else start it.

        Args:
            env: its whole environment.
            spec: tells its kind, see :func:`kind_of`.

        Raises:
            OSError: it cannot be executed.
        """
        try:
            left = self._left.get(name)
            if left is not None and left["spec"] == spec:
                return await self._take(name)
            await self.abandon(name)
            await self._opened()
            start = {"name": name, "argv": list(argv), "env": dict(env), "spec": spec}
            answer, ends = await self._ask(start=start)
        except HolderError as error:
            raise OSError(0, str(error)) from error
        if "error" in answer:
            raise OSError(0, answer["error"])
        process = HeldProcess(answer["pid"], adopted=False)
        self._living[name] = process
        await process.connect(ends, {})
        return process

    async def _take(self, name: str) -> HeldProcess:
        answer, ends = await self._ask(take=name)
        self._left.pop(name, None)
        if "error" in answer:
            raise HolderError(f"{name}: {answer['error']}")
        process = HeldProcess(answer["pid"], adopted=True)
        code = answer.get("code")
        if code is None:
            self._living[name] = process
        await process.connect(ends, answer["lines"])
        if code is not None:
            process.end(code)
        _log.info("child.adopted", child=name, pid=process.pid, code=code)
        return process

    async def abandon(self, name: str, patience: float = 2.0) -> None:
        """End what lives on under a name and was not taken over; nothing is fine."""
        if name not in self._left:
            return
        with suppress(HolderError):
            process = await self._take(name)
            for number in (signal.SIGTERM, signal.SIGKILL):
                if process.returncode is None:
                    with suppress(ProcessLookupError):
                        os.killpg(process.pid, number)
                    with suppress(TimeoutError):
                        await asyncio.wait_for(process.wait(), patience)

    async def abandon_rest(self) -> None:
        """End all that nobody has taken over."""
        await asyncio.gather(*(self.abandon(name) for name in list(self._left)))

    # --- notes --------------------------------------------------------------------------------

    def note(self, key: str, value: Any) -> None:
        """Leave something for the next director: JSON; None: nothing."""
        if self.notes.get(key) == value:
            return
        if value is None:
            self.notes.pop(key, None)
        else:
            self.notes[key] = value
        if self._socket is not None:
            with suppress(OSError):
                self._send({"note": key, "value": value})


async def _end(pid: int) -> None:
    """End the holder, be it our child or not. Raises ProcessLookupError: it has ended."""
    ended = asyncio.Event()
    loop = asyncio.get_running_loop()
    process = os.pidfd_open(pid)
    loop.add_reader(process, ended.set)
    try:
        signal.pidfd_send_signal(process, signal.SIGTERM)
        with suppress(TimeoutError):
            await asyncio.wait_for(ended.wait(), _END_S)
    finally:
        loop.remove_reader(process)
        os.close(process)


_runs: dict[str, Holdings] = {}


@contextmanager
def keeping(run_id: str, holdings: Holdings) -> Iterator[None]:
    """Have the lasting children of a run kept beyond the end of this process."""
    _runs[run_id] = holdings
    try:
        yield
    finally:
        del _runs[run_id]


def of(run_id: str) -> Holdings | None:
    """Return what is kept of a run; None: all its children end with the director."""
    return _runs.get(run_id)


def left(run_id: str) -> Mapping[str, int]:
    """Return what of a run waits to be taken over, see :meth:`Holdings.left`."""
    holdings = of(run_id)
    return {} if holdings is None else holdings.left()


def noted(run_id: str, key: str) -> Any:
    """Return what an earlier director of a run has noted; None: nothing."""
    holdings = of(run_id)
    return None if holdings is None else holdings.notes.get(key)


def note(run_id: str, key: str, value: Any) -> None:
    """Note something for the next director of a run, if one may follow; None: forget it."""
    holdings = of(run_id)
    if holdings is not None:
        holdings.note(key, value)


def kind_of(argv: Sequence[str], env: Mapping[str, str]) -> str:
    """Return what tells one kind of child from another: a hash of how it is started."""
    text = json.dumps([list(argv), sorted(env.items())])
    return hashlib.sha256(text.encode()).hexdigest()
