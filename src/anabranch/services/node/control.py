"""A service node's control socket: its operator asks, by one line of JSON a connection.

    {"do": "status"}                                  -> {"node_id": ..., "modules": [...], ...}
    {"do": "remove", "user": "jane", "module": "M_1"} -> {}
    {"do": "log", "user": "jane", "lines": 50}        -> {"lines": [...]}
    {"do": "reload"}                                  -> {"users": 3}; also SIGHUP

What cannot be is answered ``{"error": ...}``. The socket is its owner's alone.
"""

import asyncio
import json
import os
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path

from anabranch.core.errors import AnabranchError, NotFoundError
from anabranch.services.claim import Claim
from anabranch.services.controller.runtime import Runtime, RuntimeRefusedError
from anabranch.services.node.control_client import MAX_LINE, PATIENCE_S, Message
from anabranch.services.node.service import ServiceNode
from anabranch.services.signalling.values import Filter

_MAX_LOG_LINES = 500


class NodeControl:
    """Answers what is asked.

    Args:
        reload: reads the users anew and returns how many there are; may raise an AnabranchError.
        log_of: the file with what a user's modules printed.
    """

    def __init__(
        self, node: ServiceNode, runtime: Runtime, reload: Callable[[], int],
        log_of: Callable[[str], Path],
    ) -> None:  # fmt: skip
        self._node = node
        self._runtime = runtime
        self._reload = reload
        self._log_of = log_of

    async def answer(self, line: bytes) -> Message:
        """Return the answer to a line, whatever is in it."""
        try:
            asked = json.loads(line)
            if not isinstance(asked, dict):
                return {"error": "a JSON object is asked for"}
            match asked.get("do"):
                case "status":
                    return await self._status()
                case "remove":
                    return await self._remove(str(asked["user"]), str(asked["module"]))
                case "log":
                    most = min(int(asked.get("lines", 50)), _MAX_LOG_LINES)
                    return {"lines": await asyncio.to_thread(self._log, str(asked["user"]), most)}
                case "reload":
                    return {"users": self._reload()}
                case other:
                    return {"error": f"{str(other)[:40]!r} cannot be asked for"}
        except AnabranchError as error:
            return {"error": str(error)}
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            return {"error": f"that is no question: {error!r}"[:200]}

    async def _status(self) -> Message:
        now = time.monotonic()
        modules = []
        for module in self._node.controller.modules:
            status = dict(await self._runtime.status(module.owner, module.name))
            modules.append({
                "user": module.user,
                "name": module.name,
                "filter": _written(module.filter),
                "expires_s": round(max(module.expires - now, 0)),
                "state": status.pop("state", "gone"),
                "figures": status,
            })  # fmt: skip
        return {
            "node_id": self._node.controller.node_id,
            "sessions": self._node.sessions,
            "capabilities": dict(self._runtime.capabilities),
            "building_blocks": dict(self._runtime.building_blocks),
            "modules": modules,
        }

    async def _remove(self, user: str, name: str) -> Message:
        try:
            module = await self._node.controller.dismiss(user, name)
        except RuntimeRefusedError as error:
            return {"error": str(error)}
        if module is None:
            raise NotFoundError(f"{user[:60]} has no module {name[:100]} here")
        self._node.relay.let_go(module.session, user, name, time.monotonic())
        return {}

    def _log(self, user: str, most: int) -> list[str]:
        with suppress(OSError), self._log_of(user).open(errors="replace") as file:
            return [line.rstrip("\n") for line in file.readlines()[-most:]] if most > 0 else []
        return []


def _written(wanted: Filter | None) -> str | None:
    if wanted is None or wanted.destination is None:
        return None
    return str(Claim(wanted.destination, wanted.protocol, wanted.ports))


@asynccontextmanager
async def controlled(control: NodeControl, path: Path) -> AsyncIterator[None]:
    """Listen on a socket of mode 0600 while the block runs.

    Raises:
        OSError: it cannot be had.
    """

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError, ValueError, TimeoutError):
            async with asyncio.timeout(PATIENCE_S):
                line = await reader.readline()
                if line:
                    answer = await control.answer(line)
                    writer.write(json.dumps(answer).encode() + b"\n")
                    await writer.drain()
        writer.close()

    with suppress(FileNotFoundError):
        os.unlink(path)
    before = os.umask(0o177)
    try:
        server = await asyncio.start_unix_server(serve, path, limit=MAX_LINE)
    finally:
        os.umask(before)
    try:
        yield
    finally:
        server.close()
        with suppress(FileNotFoundError):
            os.unlink(path)
