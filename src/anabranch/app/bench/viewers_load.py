"""``leaf-load`` (see leaf/load): many scripted viewers in one process, and synthetic streams."""

import asyncio
import itertools
import json
import os
import shutil
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from importlib.resources import files
from typing import Any

from anabranch.app.bench.viewers_sdp import AUDIO, RTX, VIDEO, Credentials, Server
from anabranch.core.errors import AnabranchError, UnavailableError
from anabranch.host.process import end_process

PROGRAM = "leaf-load"
VARIABLE = "ANABRANCH_LEAF_LOAD"
PROTOCOL = 1
_MAX_LINE = 2**24
_TIMEOUT_S = 10.0

Message = dict[str, Any]


class LoadError(AnabranchError):
    """The load client refused a request."""


def find_program() -> str:
    """Return the program: ``$ANABRANCH_LEAF_LOAD``, the package's own, or the one on the PATH.

    Raises:
        UnavailableError: there is none.
    """
    packaged = str(files("anabranch.media").joinpath("bin", PROGRAM))
    for path in (os.environ.get(VARIABLE), packaged, shutil.which(PROGRAM)):
        if path and os.access(path, os.X_OK):
            return path
    raise UnavailableError(f"{PROGRAM} is missing: ./scripts/up builds it")


class Load:
    """A running load client.

    Attributes:
        fingerprint: of the certificate that all its viewers show.
        on_event: gets what it says unasked.
    """

    def __init__(self, process: Process, on_event: Callable[[Message], None]) -> None:
        self.fingerprint = ""
        self.on_event = on_event
        self._process = process
        self._numbers = itertools.count(1)
        self._waiting: dict[int, asyncio.Future[Message]] = {}

    @property
    def pid(self) -> int:
        return self._process.pid

    async def add(self, viewer: str, own: Credentials, server: Server) -> None:
        """Have a viewer connect; whether it does is told by events.

        Raises:
            LoadError: it cannot.
        """
        await self.request(
            "add",
            viewer=viewer,
            remote={
                "address": server.address,
                "ufrag": server.credentials.ufrag,
                "pwd": server.credentials.pwd,
                "fingerprint": server.fingerprint,
            },
            local={"ufrag": own.ufrag, "pwd": own.pwd},
            video={"payload_type": VIDEO, "rtx_payload_type": RTX if server.rtx else None},
            audio={"payload_type": AUDIO},
        )

    async def request(self, do: str, **members: Any) -> Message:
        """Send a request and return what came of it.

        Raises:
            LoadError: it was refused.
            UnavailableError: the client is gone, or does not answer.
        """
        number = next(self._numbers)
        answer: asyncio.Future[Message] = asyncio.get_running_loop().create_future()
        self._waiting[number] = answer
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps({"do": do, "id": number, **members}).encode())
            self._process.stdin.write(b"\n")
            async with asyncio.timeout(_TIMEOUT_S):
                return await answer
        except (TimeoutError, OSError):
            raise UnavailableError(f"{PROGRAM} does not answer") from None
        finally:
            self._waiting.pop(number, None)

    async def greeting(self) -> None:
        """Wait for its first line.

        Raises:
            UnavailableError: it says none, or speaks another protocol.
        """
        assert self._process.stdout is not None
        try:
            async with asyncio.timeout(_TIMEOUT_S):
                hello = json.loads(await self._process.stdout.readline())
        except (TimeoutError, ValueError):
            raise UnavailableError(f"{PROGRAM} does not start") from None
        if hello.get("protocol") != PROTOCOL:
            raise UnavailableError(f"{PROGRAM} speaks another protocol: it has to be built anew")
        self.fingerprint = hello["fingerprint"]

    async def listen(self) -> None:
        """Take what it says until it ends."""
        assert self._process.stdout is not None
        while line := await self._process.stdout.readline():
            message = json.loads(line)
            answer = self._waiting.get(message.get("id", 0))
            if "event" in message:
                self.on_event(message)
            elif answer is not None and not answer.done():
                if "ok" in message:
                    answer.set_result(message["ok"])
                else:
                    answer.set_exception(LoadError(f"{PROGRAM}: {message['error']['detail']}"))
        for answer in self._waiting.values():
            if not answer.done():
                answer.set_exception(UnavailableError(f"{PROGRAM} has ended"))


@asynccontextmanager
async def running_load(
    *arguments: str,
    prefix: Sequence[str] = (),
    on_event: Callable[[Message], None] = lambda _: None,
) -> AsyncIterator[Load]:
    """Give a load client, with ``leaf-load receive``'s arguments; all viewers leave at the end.

    Raises:
        UnavailableError: it is missing, or does not start.
    """
    process = await asyncio.create_subprocess_exec(
        *(*prefix, find_program(), "receive", "--die-with-parent", *arguments),
        stdin=PIPE,
        stdout=PIPE,
        limit=_MAX_LINE,
        start_new_session=True,
    )
    load = Load(process, on_event)
    listening: asyncio.Task[None] | None = None
    try:
        await load.greeting()
        listening = asyncio.create_task(load.listen(), name=PROGRAM)
        yield load
        assert process.stdin is not None
        process.stdin.close()
        with suppress(TimeoutError):
            async with asyncio.timeout(_TIMEOUT_S):
                await process.wait()
    finally:
        if listening is not None:
            listening.cancel()
            await asyncio.gather(listening, return_exceptions=True)
        await end_process(process, 1.0)


@asynccontextmanager
async def running_source(*arguments: str, prefix: Sequence[str] = ()) -> AsyncIterator[float]:
    """Give a synthetic stream, with ``leaf-load source``'s arguments: its packets in a second.

    Raises:
        UnavailableError: it is missing, or does not start.
    """
    process = await asyncio.create_subprocess_exec(
        *(*prefix, find_program(), "source", "--die-with-parent", *arguments),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=PIPE,
        start_new_session=True,
    )
    try:
        assert process.stdout is not None
        try:
            said = json.loads(await process.stdout.readline())
        except ValueError:
            raise UnavailableError(f"{PROGRAM} source does not start") from None
        yield float(said["packets_per_s"])
    finally:
        await end_process(process, 1.0)
