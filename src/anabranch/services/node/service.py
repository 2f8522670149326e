"""The service node: signalling and service controller of one machine, running."""

import asyncio
import os
import ssl
import time
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import structlog

from anabranch.services.controller.controller import Controller, Outcome
from anabranch.services.controller.runtime import Runtime
from anabranch.services.controller.users import User
from anabranch.services.node.diversion import diverting
from anabranch.services.node.endpoint import Endpoint
from anabranch.services.node.web import Web
from anabranch.services.signalling.gist.associations import HOLD_TIME
from anabranch.services.signalling.gist.objects import Stack, Transport
from anabranch.services.signalling.gist.options import PORT, GistOptions
from anabranch.services.signalling.message import Method
from anabranch.services.signalling.relay import Act, Relay
from anabranch.services.signalling.response import Hop, Status
from anabranch.services.signalling.values import module_name

_MAX_ACTS = 256  # under way at a time
_LOGGED_PER_S = 20
_log = structlog.get_logger("anabranch.services")


@dataclass(frozen=True, slots=True)
class NodeOptions:
    """How a node runs.

    Attributes:
        node_id: 1 to 40 characters, its own for good.
        cache: directory for archives.
        refresh: seconds between looks at the next node of each session.
        connections: take and make TCP connections for large messages.
        server_tls, client_tls: and only over TLS; both or neither.
        divert: by netfilter; False: something else brings queries to UDP port 270.
        routability_port: where addresses are asked for proof.
    """

    node_id: str
    cache: Path
    refresh: float = 120.0
    connections: bool = True
    server_tls: ssl.SSLContext | None = None
    client_tls: ssl.SSLContext | None = None
    divert: bool = True
    routability_port: int = 80


class ServiceNode:
    """One node; made by :func:`running_node`.

    Attributes:
        answered: requests that were acted on, by method and status.
        turned_away: requests refused at first sight, by status.
    """

    def __init__(
        self, options: NodeOptions, users: Mapping[str, User], runtime: Runtime, web: Web
    ) -> None:
        self._endpoint = Endpoint(
            module_name(options.node_id).encode()[:40],
            GistOptions(refresh=options.refresh, stack=_stack(options)),
            responder=True,
            server_tls=options.server_tls,
            client_tls=options.client_tls,
        )
        self.controller = Controller(
            options.node_id,
            users,
            runtime,
            web,
            web,
            clock=time.monotonic,
            wall_clock=time.time,
            address_towards=self._endpoint.addresses.towards,
        )
        self.relay = Relay(self._endpoint.gist, self.controller, os.urandom)
        self.answered: Counter[tuple[str, int]] = Counter()
        self.turned_away: Counter[int] = Counter()
        self._acts: set[asyncio.Task[None]] = set()
        self._expiring: asyncio.Task[None] | None = None
        self._log_second, self._log_left = 0, 0
        self._endpoint.on_event = self._on_event
        self._endpoint.on_timer = self._on_timer
        self._endpoint.next_timer = self._next_timer

    @property
    def sessions(self) -> int:
        """How many sessions this node holds."""
        return len(self._endpoint.gist)

    def figures(self) -> dict[str, tuple[str, float]]:
        """Return what there is to report, by name: in words, and the figure."""
        gist = self._endpoint.gist
        return {
            "gist_sessions": ("Sessions held", len(gist)),
            "gist_sources": ("Addresses that sessions come from", len(gist.shares)),
            "gist_connections": ("Connections of connection mode", len(gist.associations)),
            "gist_refused_total": ("Messages that made no sense here", gist.refused),
            "gist_received_total": ("Datagrams that came", self._endpoint.received),
            "gist_sent_total": ("Datagrams that went out", self._endpoint.sent),
            "service_requests_known": ("Requests under way or answered lately", self.relay.known),
            "service_requests_acting": ("Requests that are acted on now", len(self._acts)),
            "service_modules": ("Modules installed by signalling", len(self.controller.modules)),
        }

    async def open(self, options: NodeOptions) -> None:
        """Open the sockets. Raises PortTakenError or OSError."""
        self._endpoint.open()
        if options.connections:
            await self._endpoint.streams.listen(PORT)

    async def close(self) -> None:
        """Stop; modules stay as they are, they are the runtime's to end."""
        tasks = [*self._acts, *([self._expiring] if self._expiring else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._endpoint.close()

    def _on_event(self, now: float) -> None:
        self.relay.process(now)
        while self.relay.acts:
            act = self.relay.acts.popleft()
            if len(self._acts) >= _MAX_ACTS:
                hop = Hop(self.controller.node_id, Status.BUSY, "too much at a time")
                self.relay.acted(act.transaction, hop, now)
                continue
            task = asyncio.create_task(
                self._act(act), name=f"{act.request.method} {act.request.name}"
            )
            self._acts.add(task)
            task.add_done_callback(self._acts.discard)
        self.relay.process(now)
        self._log_refusals(now)

    def _log_refusals(self, now: float) -> None:
        """Log who was turned away, so many a second: a flood must not fill the disk."""
        refusals = self.relay.refusals
        while refusals:
            one = refusals.popleft()
            self.turned_away[one.hop.status] += 1
            if int(now) != self._log_second:
                self._log_second, self._log_left = int(now), _LOGGED_PER_S
            if self._log_left > 0:
                self._log_left -= 1
                _log.warning(
                    "request refused",
                    user=one.user,
                    module=one.name,
                    origin=str(one.origin),
                    status=one.hop.status,
                    reason=one.hop.reason,
                )

    async def _act(self, act: Act) -> None:
        request = act.request
        who = {"user": request.user, "module": request.name, "method": str(request.method)}
        try:
            outcome = await self.controller.act(request, act.session, act.origin)
        except Exception:
            _log.exception("a request failed", **who)
            outcome = Outcome(Hop(self.controller.node_id, Status.FAILED, "this node failed"))
        self.answered[str(request.method), outcome.hop.status] += 1
        report = _log.debug if request.method is Method.PROBE else _log.info
        report("request", **who, status=outcome.hop.status, reason=outcome.hop.reason)
        now = time.monotonic()
        if outcome.ended is not None:
            self.relay.let_go(outcome.ended, request.user, request.name, now)
        self.relay.acted(act.transaction, outcome.hop, now, ttl=outcome.ttl)
        self._endpoint.pump_soon()

    def _on_timer(self, now: float) -> None:
        self.relay.handle_timer(now)
        due = self.controller.modules.next_expiry()
        if due is not None and due <= now and self._expiring is None:
            self._expiring = asyncio.create_task(self._expire(now), name="expiry of modules")

    async def _expire(self, now: float) -> None:
        try:
            for module in await self.controller.expire(now):
                _log.info("module expired", user=module.user, module=module.name)
                now = time.monotonic()
                self.relay.let_go(module.session, module.user, module.name, now)
        except Exception:
            _log.exception("modules could not be removed")
        finally:
            self._expiring = None
        self._endpoint.pump()

    def _next_timer(self) -> float | None:
        expiry = None if self._expiring else self.controller.modules.next_expiry()
        times = (self.relay.next_timer(), expiry)
        return min((one for one in times if one is not None), default=None)


def _stack(options: NodeOptions) -> Stack | None:
    if not options.connections:
        return None
    transports = (Transport.TCP, Transport.TLS) if options.server_tls else (Transport.TCP,)
    return Stack((transports,), port=PORT, hold_time=int(HOLD_TIME * 1000))


@asynccontextmanager
async def running_node(
    options: NodeOptions, users: Mapping[str, User], runtime: Runtime
) -> AsyncIterator[ServiceNode]:
    """Run a node in this process and network namespace while the block runs.

    Raises:
        NetworkError: packets cannot be diverted: not root, or the kernel cannot.
        PortTakenError: UDP port 270 is taken, or this is not root.
    """
    async with Web(options.cache, routability_port=options.routability_port) as web:
        node = ServiceNode(options, users, runtime, web)
        try:
            await node.open(options)
            if options.divert:
                with diverting():
                    yield node
            else:
                yield node
        finally:
            await node.close()
