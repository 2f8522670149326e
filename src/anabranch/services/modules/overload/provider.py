"""Overload Control, the receiving entity beside a SIP server (seed 003, 7.4).

It watches the server's load. When that is too high it has the module installed on the node nearest
to those that send the most, and tells each instance that reports, how much it may send. When all is
calm again, the modules are removed.
"""

import asyncio
import secrets
import socket
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Protocol

import structlog

from anabranch.services.errors import ServicesError
from anabranch.services.keys import PrivateKey
from anabranch.services.modules.overload.control import Entities, Load, RateController, Thresholds
from anabranch.services.modules.overload.overload import Report
from anabranch.services.node.sending import Signaller
from anabranch.services.provider import NotInstalledError, Offer, Path
from anabranch.services.signalling.compose import Author
from anabranch.services.signalling.gist.objects import Address

INTERVAL_S = 0.25
"""How often the load is measured; feedback goes out whenever a report comes."""
VALIDITY_S = 2.0
_log = structlog.get_logger("anabranch.services.overload")


class Server(Protocol):
    """The SIP server, as :class:`~anabranch.services.modules.overload.kamailio.Kamailio` is."""

    async def measure(self) -> Load:
        """Return its load since the last call. Raises ServicesError."""
        ...

    async def callers(self, most: int) -> list[Address]:
        """Return who sends the most requests. Raises ServicesError."""
        ...


class Edge(Protocol):
    """Where modules can be had."""

    async def install(self, towards: Address, properties: Mapping[str, str]) -> None:
        """Have the module on the node nearest to a caller, or renew it. Raises ServicesError."""
        ...

    async def remove(self, towards: Address) -> None:
        """Have it no longer. Raises ServicesError."""
        ...


class SignalledEdge:
    """Implements :class:`Edge` by messages along the path."""

    def __init__(self, signaller: Signaller, author: Author, offer: Offer) -> None:
        self._signaller = signaller
        self._author = author
        self._offer = offer
        self._paths: dict[Address, tuple[Path, str]] = {}

    async def install(self, towards: Address, properties: Mapping[str, str]) -> None:
        known = self._paths.get(towards)
        if known is None:
            path = Path(self._signaller, self._author, towards)
            known = path, (await path.probe())[-1].node_id
        path, node_id = known
        try:
            await path.install(self._offer, properties=properties, node_id=node_id)
        except NotInstalledError:
            self._paths.pop(towards, None)  # the path may be another by now
            raise
        self._paths[towards] = known

    async def remove(self, towards: Address) -> None:
        known = self._paths.pop(towards, None)
        if known is not None:
            await known[0].remove(self._offer, node_id=known[1])


@dataclass(frozen=True, slots=True)
class Settings:
    """How a receiving entity works.

    Attributes:
        feedback: address and port that modules are told for their reports.
        key: signs the feedback.
        thresholds: when the server is overloaded.
        callers: towards so many callers modules are had, the busiest.
        renewal: seconds after which the module is asked for anew; less than its ttl.
    """

    feedback: tuple[str, int]
    key: PrivateKey
    thresholds: Thresholds = field(default_factory=Thresholds)
    callers: int = 4
    renewal: float = 30.0


@dataclass(slots=True)
class _Signalled:
    """A caller towards whom the module is had."""

    properties: Mapping[str, str]
    at: float = float("-inf")


class ReceivingEntity:
    """Runs the control loop. Attributes ``controller`` and ``entities`` show how it stands.

    ``listener``: a UDP socket, bound to where reports go; closed when :meth:`run` ends.
    """

    def __init__(
        self, settings: Settings, server: Server, edge: Edge, listener: socket.socket
    ) -> None:
        self._settings = settings
        self._listener = listener
        self._server = server
        self._edge = edge
        self.controller = RateController(settings.thresholds)
        self._token = secrets.token_urlsafe(12)
        self.entities = Entities(secrets.token_bytes(16), self._token)
        self._signalled: dict[Address, _Signalled] = {}
        self._signalling: asyncio.Task[None] | None = None
        self._transport: asyncio.DatagramTransport | None = None
        self._seq = time.time_ns() // 1_000_000  # grows over a restart, too

    async def run(self) -> None:
        """Run until it is cancelled; then remove the modules."""
        loop = asyncio.get_running_loop()
        self._transport, _ = await loop.create_datagram_endpoint(
            lambda: _Reports(self), sock=self._listener
        )
        try:
            while True:
                await self._turn()
                await asyncio.sleep(INTERVAL_S)
        finally:
            self._transport.close()
            if self._signalling is not None:
                self._signalling.cancel()
                with suppress(asyncio.CancelledError):
                    await self._signalling
            await self._remove_all()

    async def _turn(self) -> None:
        now = time.monotonic()
        try:
            load = await self._server.measure()
        except ServicesError as error:
            _log.warning("server.silent", error=str(error))
            return
        before = self.controller.rate
        self.entities.forget_silent(now)
        self.controller.update(load, shedding=self.entities.took_shed(), now=now)
        if (before is None) != (self.controller.rate is None):
            _log.info("overload", begins=before is None, delay=load.delay, served=load.served)
        if self._signalling is None or self._signalling.done():
            self._signalling = asyncio.create_task(self._signal(), name="overload:signal")

    async def _signal(self) -> None:
        """Have modules where they are needed, and nowhere else."""
        if self.controller.rate is None:
            await self._remove_all()
            return
        now = time.monotonic()
        with suppress(ServicesError):
            for caller in await self._server.callers(self._settings.callers):
                self._signalled.setdefault(caller, _Signalled(self._properties()))
        due = [c for c, s in self._signalled.items() if now - s.at >= self._settings.renewal]
        await asyncio.gather(*(self._install(caller) for caller in due))

    def _properties(self) -> dict[str, str]:
        """Return what an instance is told; a renewal says the same, so nothing is replaced."""
        rate = self.controller.rate
        host, port = self._settings.feedback
        return {
            "feedback": f"{host}:{port}",
            "key": str(self._settings.key.public),
            "token": self._token,
            "rate": f"{rate if rate is not None else 0:.1f}",
        }

    async def _install(self, caller: Address) -> None:
        signalled = self._signalled[caller]
        try:
            await self._edge.install(caller, signalled.properties)
        except ServicesError as error:
            _log.warning("edge.refused", caller=str(caller), error=str(error))
        # Also after a refusal: what is refused now will be for a while.
        signalled.at = time.monotonic()

    async def _remove_all(self) -> None:
        callers, self._signalled = list(self._signalled), {}
        for caller in callers:
            with suppress(ServicesError):
                await self._edge.remove(caller)

    def take(self, data: bytes, source: tuple[str, int]) -> None:
        """Take a report and answer it."""
        try:
            report = Report.parse(data)
        except ValueError:
            return
        if not self.entities.knows(report):
            return  # not even an answer
        self.entities.take(report, source, time.monotonic())
        self._seq += 1
        rate = self.controller.rate
        feedback = self.entities.answer(report, source, rate, self._seq, VALIDITY_S)
        if self._transport is not None:
            self._transport.sendto(feedback.encode(self._settings.key.sign), source)


class _Reports(asyncio.DatagramProtocol):
    def __init__(self, entity: ReceivingEntity) -> None:
        self._entity = entity

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        self._entity.take(data, (addr[0], addr[1]))
