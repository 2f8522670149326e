"""The zygote as its node sees it, and what its sandboxes print."""

import asyncio
import os
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import structlog

from anabranch.host.process import RUN_MARK
from anabranch.services.sandbox.container import Sandbox, SandboxError
from anabranch.services.sandbox.spec import MAX_MESSAGE, SandboxSpec, decode, encode

READY_S = 30.0
_MODULE = "anabranch.services.sandbox.zygote"
_log = structlog.get_logger("anabranch.services")


class Nursery:
    """Starts the zygote, forks sandboxes from it, and starts it anew when it dies.

    Args:
        run_id: marks the processes, for who cleans up after a node that was killed.
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
        self._made = 0
        self._starting = asyncio.Lock()

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
                await self.close()
                raise SandboxError("the zygote does not come up") from None

    async def fork(
        self, spec: SandboxSpec, netns: int, log: int, rings: tuple[socket.socket, ...] = ()
    ) -> Sandbox:
        """Make a sandbox; it is shut in when this returns.

        Args:
            netns: descriptor of its network namespace; stays open here.
            log: descriptor that it prints to; stays open here.
            rings: the ring socket and the transmit socket of its packet link, if it has one.

        Raises:
            SandboxError: it could not be made.
        """
        await self.start()
        assert self._socket is not None
        self._made += 1
        number = self._made
        ours, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        sandbox = Sandbox(spec.user, ours, self._on_end)
        pid: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._sandboxes[number], self._pids[number] = sandbox, pid
        descriptors = [its.fileno(), log, netns, *(each.fileno() for each in rings)]
        request = encode({"sandbox": number, "spec": spec.to_message()})
        try:
            with its:
                socket.send_fds(self._socket, [request], descriptors)
            sandbox.pid = await asyncio.wait_for(pid, READY_S)
        except (OSError, TimeoutError) as error:
            self._forget(number, -1)
            raise SandboxError(f"no sandbox for {spec.user}: {error}") from error
        finally:
            self._pids.pop(number, None)
        await sandbox.up()
        return sandbox

    async def close(self) -> None:
        """End the zygote, and with it every sandbox that is left."""
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

    def _forget(self, number: int, code: int) -> None:
        sandbox = self._sandboxes.pop(number, None)
        if sandbox is not None:
            sandbox.note_end(code)
