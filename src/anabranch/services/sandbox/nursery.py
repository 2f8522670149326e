"""The zygote as its node sees it, and what its sandboxes print."""

import asyncio
import os
import socket
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import structlog

from anabranch.host.cgroups import ControlGroup, ControlGroupError, Limits, make_group
from anabranch.host.process import RUN_MARK
from anabranch.services.sandbox.container import Sandbox, SandboxError
from anabranch.services.sandbox.spec import MAX_MESSAGE, SandboxSpec, decode, encode

READY_S = 30.0
_REST_S = 0.1
_WAITING = Limits(256 * 1024**2, 100, 64)
"""Of a child that has no tenant yet."""
_MODULE = "anabranch.services.sandbox.zygote"
_log = structlog.get_logger("anabranch.services")


class Nursery:
    """Starts the zygote, forks sandboxes from it, and starts it anew when it dies.

    Args:
        run_id: marks processes and names control groups, for who cleans up after a node that was
            killed.
        root: an empty directory of the node's, made if need be: sandboxes build over it.
        on_end: called when a sandbox has ended, with its exit code.
    """

    def __init__(self, run_id: str, root: Path, on_end: Callable[[Sandbox, int], None]) -> None:
        self._run_id = run_id
        self._root = root
        self._on_end = on_end
        self._process: asyncio.subprocess.Process | None = None
        self._socket: socket.socket | None = None
        self._ready = asyncio.Event()
        self._sandboxes: dict[int, Sandbox] = {}
        self._pids: dict[int, asyncio.Future[int]] = {}
        self._groups: dict[int, ControlGroup] = {}
        self._ahead: ControlGroup | None = None  # of the child that waits
        self._planned: asyncio.Task[None] | None = None
        self._removals: set[asyncio.Task[None]] = set()
        self._made = self._grouped = 0
        self._starting = asyncio.Lock()
        self._turn = asyncio.Lock()
        self._closing = asyncio.Event()

    async def start(self) -> None:
        """Start the zygote, unless it is there.

        Raises:
            SandboxError: it does not come up.
        """
        async with self._starting:
            if self._process is not None and self._process.returncode is None and self._socket:
                return
            ours, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            ours.setblocking(False)
            environment = {
                **os.environ, RUN_MARK: self._run_id, "OPENBLAS_NUM_THREADS": "1",
                "OMP_NUM_THREADS": "1", "NUMBA_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "1",
            }  # fmt: skip
            self._ready.clear()
            self._root.mkdir(mode=0o755, parents=True, exist_ok=True)
            with its:
                self._process = await asyncio.create_subprocess_exec(
                    sys.executable, "-m", _MODULE, str(its.fileno()), str(self._root),
                    pass_fds=(its.fileno(),), env=environment, start_new_session=True,
                    stdin=asyncio.subprocess.DEVNULL,
                )  # fmt: skip
            self._socket = ours
            asyncio.get_running_loop().add_reader(ours, self._read, ours)
            try:
                await asyncio.wait_for(self._ready.wait(), READY_S)
            except TimeoutError:
                await self._end_zygote()
                raise SandboxError("the zygote does not come up") from None
            self._plan()

    async def fork(
        self, spec: SandboxSpec, limits: Limits, netns: int, log: int,
        rings: tuple[socket.socket, ...] = (),
    ) -> Sandbox:  # fmt: skip
        """Make a sandbox; it is shut in when this returns.

        Args:
            limits: of its control group.
            netns: descriptor of its network namespace; stays open here.
            log: descriptor that it prints to; stays open here.
            rings: the ring socket and the transmit socket of its packet link, if it has one.

        Raises:
            SandboxError: it could not be made.
        """
        pid: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        async with self._turn:
            group = await self._group_of_next(spec.user, limits)
            self._made += 1
            number = self._made
            ours, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            sandbox = Sandbox(spec.user, ours, self._on_end)
            self._ahead = None
            self._sandboxes[number], self._pids[number] = sandbox, pid
            self._groups[number] = group
            descriptors = [its.fileno(), log, netns, *(each.fileno() for each in rings)]
            request = encode({"sandbox": number, "spec": spec.to_message()})
            try:
                with its:
                    if self._socket is None:
                        raise BrokenPipeError("the zygote has died")
                    socket.send_fds(self._socket, [request], descriptors)
            except OSError as error:
                pid.set_exception(error)
        try:
            async with asyncio.timeout(READY_S):
                sandbox.pid = await pid
        except (OSError, TimeoutError) as error:
            self._forget(number, -1)
            raise SandboxError(f"no sandbox for {spec.user}: {error}") from error
        finally:
            self._pids.pop(number, None)
        await sandbox.up()
        self._plan()
        return sandbox

    async def _group_of_next(self, user: str, limits: Limits) -> ControlGroup:
        """Have a child that waits, in a group with these limits; return the group."""
        await self.start()
        try:
            self._ahead = group = self._ahead or await self._fork_ahead()
            await asyncio.to_thread(group.limit, limits)
        except (OSError, ControlGroupError) as error:
            raise SandboxError(f"no sandbox for {user}: {error}") from error
        return group

    async def _fork_ahead(self) -> ControlGroup:
        """Have a child that waits for its tenant, and return its control group.

        Raises:
            ControlGroupError: there is none on this machine.
            OSError: the zygote is gone.
        """
        self._grouped += 1
        group = await asyncio.to_thread(make_group, f"{self._run_id}-{self._grouped}", _WAITING)
        if self._socket is None:
            self._remove(group)
            raise BrokenPipeError("the zygote has died")
        self._socket.send(encode({"ahead": group.lists}))
        return group

    def _plan(self) -> None:
        """Have the next child forked in a moment: the sandbox that was asked for goes first."""
        if self._planned is None or self._planned.done():
            self._planned = asyncio.create_task(self._fork_later(), name="next sandbox")

    async def _fork_later(self) -> None:
        with suppress(TimeoutError):
            await asyncio.wait_for(self._closing.wait(), _REST_S)
        async with self._turn:
            if self._ahead is None and self._socket is not None and not self._closing.is_set():
                try:
                    self._ahead = await self._fork_ahead()
                except (OSError, ControlGroupError) as error:
                    _log.warning("no sandbox ahead", error=str(error))

    async def close(self) -> None:
        """End the zygote, and with it every sandbox that is left."""
        self._closing.set()
        if self._planned is not None:
            await self._planned
        await self._end_zygote()
        await asyncio.gather(*self._removals)

    async def _end_zygote(self) -> None:
        if self._socket is not None:
            asyncio.get_running_loop().remove_reader(self._socket)
            self._socket.close()
            self._socket = None
        if self._process is not None:
            try:
                await asyncio.wait_for(self._process.wait(), 5.0)
            except TimeoutError:
                self._process.kill()
                await self._process.wait()
        for number in list(self._sandboxes):
            self._forget(number, -9)
        self._forget_ahead()

    def _read(self, source: socket.socket) -> None:
        try:
            data = source.recv(MAX_MESSAGE)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._lost(source)
            return
        message = decode(data)
        if message.get("ready"):
            self._ready.set()
            return
        number = message["sandbox"]
        if "ended" in message:
            self._forget(number, message["ended"])
        elif number in self._pids and not self._pids[number].done():
            self._settle(self._pids[number], message)

    def _settle(self, pid: asyncio.Future[int], message: dict[str, Any]) -> None:
        if "error" in message:
            pid.set_exception(OSError(message["error"]))
        else:
            pid.set_result(message["pid"])

    def _lost(self, source: socket.socket) -> None:
        """Take notice that the zygote has died: its sandboxes have, too."""
        _log.error("zygote.lost", sandboxes=len(self._sandboxes))
        asyncio.get_running_loop().remove_reader(source)
        source.close()
        self._socket = None
        for number in list(self._sandboxes):
            self._forget(number, -9)
        self._forget_ahead()

    def _forget_ahead(self) -> None:
        group, self._ahead = self._ahead, None
        if group is not None:
            self._remove(group)

    def _forget(self, number: int, code: int) -> None:
        sandbox = self._sandboxes.pop(number, None)
        if sandbox is not None:
            sandbox.note_end(code)
        group = self._groups.pop(number, None)
        if group is not None:
            self._remove(group)

    def _remove(self, group: ControlGroup) -> None:
        """Remove a control group, once the last process in it is gone."""
        task = asyncio.create_task(self._removed(group), name="remove control group")
        self._removals.add(task)
        task.add_done_callback(self._removals.discard)

    async def _removed(self, group: ControlGroup) -> None:
        try:
            await asyncio.to_thread(group.remove)
        except ControlGroupError as error:
            _log.warning("control group left over", error=str(error))
