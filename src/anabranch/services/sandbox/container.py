"""A sandbox as its node sees it: a process that is asked for things, and may end at any time.

What comes from it comes from a tenant: answers are bounded, and one that is none of ours, or comes
too late, is the end of the sandbox.
"""

import asyncio
import os
import signal
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import structlog

from anabranch.services.errors import ServicesError
from anabranch.services.sandbox.spec import MAX_MESSAGE, decode, encode

ANSWER_S = 5.0
"""So long may an answer take; loading a module may take longer."""
LOADING_S = 30.0
_log = structlog.get_logger("anabranch.services")


class SandboxError(ServicesError):
    """A sandbox could not be made, has ended, or did not do what it was asked."""


class Sandbox:
    """One tenant's process.

    Args:
        on_end: called once, with the exit code (negative: the signal), when the process is gone.
    """

    def __init__(
        self, user: str, control: socket.socket, on_end: Callable[["Sandbox", int], None]
    ) -> None:
        self.user = user
        self.pid: int | None = None
        self.ended: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self.started_at = time.monotonic()
        self._control = control
        self._on_end = on_end
        self._answers: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._up: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._asked = 0
        self._unheard: set[int] = set()  # questions whose askers have gone
        control.setblocking(False)
        asyncio.get_running_loop().add_reader(control, self._read)

    @property
    def running(self) -> bool:
        return self.pid is not None and not self.ended.done()

    async def up(self) -> None:
        """Return when its process is shut in and waits for orders.

        Raises:
            SandboxError: it ended before, or takes too long.
        """
        either: set[asyncio.Future[Any]] = {self._up, self.ended}
        await asyncio.wait(either, timeout=ANSWER_S, return_when=asyncio.FIRST_COMPLETED)
        if not self._up.done():
            why = f"exit code {self.ended.result()}" if self.ended.done() else f"{ANSWER_S:.0f} s"
            self.kill()
            raise SandboxError(
                f"the sandbox of {self.user} could not be shut in ({why}): see its log"
            )

    async def ask(self, do: str, *, patience: float = ANSWER_S, **what: Any) -> dict[str, Any]:
        """Ask for something and return the answer; one who does not answer in time is killed.

        Raises:
            SandboxError: the sandbox has ended, or refuses; the message has its reason.
        """
        if not self.running:
            raise SandboxError(f"the sandbox of {self.user} is not running")
        self._asked += 1
        number = self._asked
        answer = asyncio.get_running_loop().create_future()
        self._answers[number] = answer
        try:
            self._control.send(encode({"do": do, "id": number, **what}))
            # Not wait_for: it swallows a cancellation that comes with the answer (Python 3.11).
            async with asyncio.timeout(patience):
                found: dict[str, Any] = await answer
        except (TimeoutError, BlockingIOError) as error:
            _log.warning("sandbox.hangs", user=self.user, asked=do, after_s=patience)
            self.kill()
            raise SandboxError(f"the sandbox of {self.user} hangs: it is ended") from error
        except OSError as error:
            raise SandboxError(f"the sandbox of {self.user} has ended") from error
        except asyncio.CancelledError:
            self._unheard.add(number)
            raise
        finally:
            self._answers.pop(number, None)
        if "error" in found:
            raise SandboxError(str(found["error"])[:500])
        return found

    async def stop(self, patience: float = 1.0) -> None:
        """Have its modules stop and end it; what is not gone in time is killed."""
        if self.running:
            with suppress(SandboxError):
                await self.ask("stop", patience=patience, module="")
            await asyncio.wait({self.ended}, timeout=patience)
            self.kill()
            await self.ended

    def kill(self) -> None:
        """End it at once; its process namespace goes with its first process, and all in it."""
        if self.running:
            assert self.pid is not None
            with suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)

    def note_end(self, code: int) -> None:
        """Take notice that the process is gone (the zygote says so)."""
        if self.ended.done():
            return
        asyncio.get_running_loop().remove_reader(self._control)
        self._control.close()
        self.ended.set_result(code)
        for answer in self._answers.values():
            if not answer.done():
                answer.set_result({"error": f"the sandbox of {self.user} has ended ({code})"})
        self._on_end(self, code)

    def _read(self) -> None:
        try:
            data = self._control.recv(MAX_MESSAGE)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:  # it closed its end: the zygote will tell of the process
            asyncio.get_running_loop().remove_reader(self._control)
            self.kill()
            return
        try:
            message = decode(data)
            if message.get("up") is True and not self._up.done():
                self._up.set_result(None)
                return
            if message["id"] in self._unheard:
                self._unheard.remove(message["id"])
                return
            answer = self._answers[message["id"]]
            if answer.done():
                raise ValueError("answered twice")
        except (ValueError, KeyError, TypeError) as error:
            _log.warning("sandbox.babbles", user=self.user, error=repr(error))
            self.kill()
            return
        answer.set_result(message)
