"""How a Kamailio fares: its own counters by JSON-RPC, its delay by a request that waits in line.

Its configuration needs ``loadmodule "jsonrpcs.so"`` with a ``dgram_socket``, an answer to
OPTIONS, and, so that its callers are known, a table of them: README.md shows the lines.
"""

import asyncio
import itertools
import json
import os
import secrets
import socket
import time
from collections import deque
from collections.abc import Mapping
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from anabranch.services.errors import ServicesError
from anabranch.services.modules.overload.control import Load
from anabranch.services.signalling.gist.objects import Address

CALLERS = "callers"
_METHODS = (
    "bye", "info", "invite", "message", "notify", "options", "prack", "publish", "refer",
    "register", "subscribe", "update",
)  # fmt: skip
_COUNTERS = [f"core.rcv_requests_{method}" for method in _METHODS]
_PATIENCE_S = 2.0
_LOST_S = 4.0  # a probe that is out so long was dropped: a full queue
_MAX_ANSWER = 65_535


class KamailioError(ServicesError):
    """Kamailio does not answer, or not as it should."""


class JsonRpc:
    """Kamailio's JSON-RPC over a datagram socket of the file system.

    Args:
        path: its ``dgram_socket``.
        own: where this end's socket is made; removed by :meth:`close`.
    """

    def __init__(self, path: Path, own: Path) -> None:
        self._path = str(path)
        self._own = own
        self._numbers = itertools.count(1)
        own.unlink(missing_ok=True)
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.setblocking(False)
        self._socket.bind(str(own))
        os.chmod(own, 0o666)  # noqa: S103 - Kamailio answers as a user of its own

    async def call(self, method: str, parameters: list[Any]) -> Any:
        """Return the result of a call.

        Raises:
            KamailioError: there is none.
        """
        number = next(self._numbers)
        request = {"jsonrpc": "2.0", "method": method, "params": parameters, "id": number}
        loop = asyncio.get_running_loop()
        try:
            self._socket.sendto(json.dumps(request).encode(), self._path)
            async with asyncio.timeout(_PATIENCE_S):
                while True:
                    answer = json.loads(await loop.sock_recv(self._socket, _MAX_ANSWER))
                    if answer.get("id") == number:
                        break
        except (OSError, ValueError, AttributeError) as error:
            raise KamailioError(f"{method}: {error or 'no answer'}") from error
        if "result" not in answer:
            raise KamailioError(f"{method}: {answer.get('error')}")
        return answer["result"]

    def close(self) -> None:
        self._socket.close()
        self._own.unlink(missing_ok=True)


class Kamailio:
    """A Kamailio that is watched; made in the event loop that runs.

    Args:
        rpc: to its counters.
        probe: a UDP socket, connected to its SIP port; closed by :meth:`close`.
        table: the ``htable`` with a counter for each source address.
    """

    def __init__(self, rpc: JsonRpc, probe: socket.socket, table: str = CALLERS) -> None:
        self._table = table
        self._rpc = rpc
        self._probe = probe
        self._probe.setblocking(False)
        self._out: deque[tuple[bytes, float]] = deque()
        self._delay = 0.0
        self._before: tuple[float, float] | None = None
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(probe, self._hear)

    async def measure(self) -> Load:
        """Return its load since the last call. Raises KamailioError."""
        counters = await self._rpc.call("stats.fetch", _COUNTERS)
        total, now = count_of(counters), time.monotonic()
        served = 0.0
        if self._before is not None and now > self._before[1]:
            served = max(0.0, (total - self._before[0]) / (now - self._before[1]))
        self._before = total, now
        self._send_probe(now)
        waiting = now - self._out[0][1] if self._out else 0.0
        return Load(served, max(self._delay, waiting))

    async def callers(self, most: int) -> list[Address]:
        """Return those that send the most requests, the busiest first. Raises KamailioError."""
        return callers_of(await self._rpc.call("htable.dump", [self._table]))[:most]

    def close(self) -> None:
        self._loop.remove_reader(self._probe)
        self._rpc.close()
        self._probe.close()

    def _send_probe(self, now: float) -> None:
        while self._out and now - self._out[0][1] > _LOST_S:
            self._out.popleft()
            self._delay = _LOST_S
        name = secrets.token_hex(8).encode()
        host, port = self._probe.getsockname()[:2]
        try:
            self._probe.send(_options(name, host, port))
        except OSError:  # nobody listens, a full queue: the probes that are out show it
            return
        self._out.append((name, now))

    def _hear(self) -> None:
        try:
            answer = self._probe.recv(_MAX_ANSWER)
        except OSError:  # such as: nobody listens there
            return
        for name, sent in list(self._out):
            if name in answer:
                self._delay = time.monotonic() - sent
                while self._out and self._out[0][1] <= sent:
                    self._out.popleft()
                return


def _options(name: bytes, host: str, port: int) -> bytes:
    shown = f"[{host}]" if ":" in host else host
    own = f"{shown}:{port}".encode()
    return b"\r\n".join((
        b"OPTIONS sip:ping@localhost SIP/2.0",
        b"Via: SIP/2.0/UDP %s;branch=z9hG4bK%s;rport" % (own, name),
        b"From: <sip:ping@%s>;tag=%s" % (own, name[:8]),
        b"To: <sip:ping@localhost>",
        b"Call-ID: " + name,
        b"CSeq: 1 OPTIONS",
        b"Max-Forwards: 1",
        b"Content-Length: 0\r\n\r\n",
    ))  # fmt: skip


def count_of(counters: object) -> float:
    """Add up what ``stats.fetch`` returned. Raises KamailioError."""
    if not isinstance(counters, Mapping):
        raise KamailioError("stats.fetch gave no counters")
    try:
        return sum(float(value) for value in counters.values())
    except (TypeError, ValueError) as error:
        raise KamailioError(f"stats.fetch: {error}") from error


def callers_of(dump: object) -> list[Address]:
    """Read what ``htable.dump`` returned: the busiest first. Raises KamailioError."""
    counts: dict[Address, int] = {}
    try:
        for entry in dump or []:  # type: ignore[attr-defined]
            for slot in entry["slot"]:
                counts[ip_address(slot["name"])] = int(slot["value"])
    except (TypeError, KeyError, ValueError) as error:
        raise KamailioError(f"htable.dump: {error!r}") from error
    return sorted(counts, key=lambda address: -counts[address])
