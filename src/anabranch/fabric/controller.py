"""The OpenFlow controller: keeps every switch equal to what is wanted of it.

What is wanted is given as a whole by :meth:`Controller.apply`. Until the first call nothing is
changed at any switch, so a director that starts anew disturbs no flow that still runs.
"""

import asyncio
import os
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

import structlog

from anabranch.core.events import Event
from anabranch.fabric.connection import Connection, refusal
from anabranch.fabric.errors import DisconnectedError, FabricError, ProtocolError
from anabranch.fabric.flows import Rule, RuleKey, difference, sending_order
from anabranch.fabric.messages import (
    FlowStats,
    MultipartRequest,
    MultipartType,
    Port,
    PortReason,
    PortStats,
    PortStatus,
)
from anabranch.fabric.session import Refused, SessionEvent, SwitchUp

_MAX_CONNECTIONS = 512
_log = structlog.get_logger("anabranch.fabric")


@dataclass(frozen=True, slots=True)
class SwitchState:
    """What is known of a switch now.

    Attributes:
        connected: its handshake is complete and its connection open.
        dpid: 64-bit datapath id; None before its first connection.
        ports: by port number, as last reported.
        rules: how many rules it is known to hold; None while that has not been read.
    """

    connected: bool
    dpid: int | None
    ports: Mapping[int, Port]
    rules: int | None


@dataclass(slots=True)
class _Switch:
    """The controller's notes on one switch; ``lock`` is held by whoever changes its tables."""

    connection: Connection | None = None
    dpid: int | None = None
    ports: dict[int, Port] = field(default_factory=dict)
    installed: dict[RuleKey, Rule] | None = None
    sent: dict[int, RuleKey] = field(default_factory=dict)
    refused: dict[RuleKey, str] = field(default_factory=dict)
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)


@dataclass(slots=True)
class _Outcome:
    """What an ``apply`` could not do: switches that are away, and what went wrong."""

    pending: set[str] = field(default_factory=set)
    failures: list[str] = field(default_factory=list)


class Controller:
    """Listens for switches and installs rules.

    Args:
        on_event: gets ``switch.connected``, ``switch.lost``, ``switch.error``, ``port.up`` and
            ``port.down``, each about a switch by name; must not block.
        names: datapath id to name of the switches that come in over TCP; others are sent away.
        timeout: seconds within which a switch answers a request.
    """

    def __init__(
        self,
        on_event: Callable[[Event], None],
        *,
        names: Mapping[int, str] | None = None,
        timeout: float = 2.0,
    ) -> None:
        self._on_event = on_event
        self._names = dict(names or {})
        self._timeout = timeout
        self._switches: dict[str, _Switch] = {}
        self._connections: set[Connection] = set()
        self._servers: list[asyncio.Server] = []
        self._sockets: list[tuple[str, int]] = []
        self._wanted: dict[str, frozenset[Rule]] | None = None
        self._applying = asyncio.Lock()
        self._tasks: set[asyncio.Task[None]] = set()
        self._complained: set[str] = set()
        self.protocol_errors: Counter[str] = Counter()

    async def listen_unix(self, path: Path | str, switch_name: str) -> None:
        """Wait for the switch ``switch_name`` at a Unix socket; a stale socket file is replaced.

        Raises:
            FabricError: the path cannot be listened at.
        """
        loop = asyncio.get_running_loop()
        try:
            server = await loop.create_unix_server(lambda: self._accept(switch_name), str(path))
            os.chmod(path, 0o600)
            self._sockets.append((str(path), os.stat(path).st_ino))
        except OSError as error:
            raise FabricError(f"cannot listen at {path}: {error.strerror or error}") from error
        self._servers.append(server)
        self._switches.setdefault(switch_name, _Switch())

    async def listen_tcp(self, host: str, port: int) -> int:
        """Wait for switches at a TCP port (0: any) and return its number.

        A switch says itself who it is: listen only where none but switches can connect.

        Raises:
            FabricError: the address cannot be listened at.
        """
        loop = asyncio.get_running_loop()
        try:
            server = await loop.create_server(lambda: self._accept(None), host, port)
        except OSError as error:
            raise FabricError(f"cannot listen at {host}:{port}: {error}") from error
        self._servers.append(server)
        return int(server.sockets[0].getsockname()[1])

    async def close(self) -> None:
        """Stop listening and end all connections; the switches keep their rules."""
        for server in self._servers:
            server.close()
        self._servers.clear()
        for path, inode in self._sockets:
            with suppress(OSError):
                if os.stat(path).st_ino == inode:
                    os.unlink(path)
        self._sockets.clear()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        connections = list(self._connections)
        for connection in connections:
            connection.close(DisconnectedError("the controller closes"))
        await asyncio.gather(*(connection.closed for connection in connections))

    async def apply(
        self, wanted: Mapping[str, Collection[Rule]], order: Sequence[str] = ()
    ) -> frozenset[str]:
        """Make the switches hold exactly ``wanted``, and remember it for those that are away.

        ``wanted`` is the whole: a switch that is not named shall hold no rule. ``order`` has the
        switches from upstream to downstream. First rules are added and replaced, downstream
        first; when every switch has confirmed that, rules are deleted, upstream first.

        Returns the switches of ``wanted`` that are not connected: they get their rules when they
        come. The barrier speaks of tables: the cache of Open vSwitch's datapath follows within
        milliseconds, and until then a packet may still be treated by the old rules.

        Raises:
            MisuseError: two rules of one switch have the same match and priority.
            FabricError: switches did not answer (they are disconnected) or refused a rule; the
                message names them. All other switches have their rules.
        """
        plan = {name: frozenset(rules) for name, rules in wanted.items()}
        for rules in plan.values():
            difference((), rules)
        outcome = _Outcome()
        async with self._applying:
            self._wanted = plan
            names = sending_order(self._switches.keys() | plan.keys(), order)
            for name in reversed(names):
                await self._step(name, outcome, adding=True)
            for name in names:
                await self._step(name, outcome, adding=False)
        if outcome.failures:
            raise FabricError("; ".join(outcome.failures))
        return frozenset(outcome.pending & plan.keys())

    async def port_stats(self, switch: str) -> list[PortStats]:
        """Return the counters of every port of a switch.

        Raises:
            DisconnectedError: it is not connected.
            FabricError: it does not answer.
        """
        entries = await self._connected(switch).ask(MultipartRequest(MultipartType.PORT_STATS))
        return [entry for entry in entries if isinstance(entry, PortStats)]

    async def flow_stats(self, switch: str) -> list[FlowStats]:
        """Return every flow that a switch holds. Raises as :meth:`port_stats`."""
        return await _flow_stats(self._connected(switch))

    def switches(self) -> Mapping[str, SwitchState]:
        """Return the state of every switch that was listened for or has connected."""
        return {
            name: SwitchState(
                switch.connection is not None,
                switch.dpid,
                MappingProxyType(dict(switch.ports)),
                None if switch.installed is None else len(switch.installed),
            )
            for name, switch in self._switches.items()
        }

    def _connected(self, name: str) -> Connection:
        switch = self._switches.get(name)
        if switch is None or switch.connection is None:
            raise DisconnectedError(f"{name} is not connected")
        return switch.connection

    async def _step(self, name: str, outcome: _Outcome, *, adding: bool) -> None:
        """Do one half of what makes ``name`` equal to what is wanted of it."""
        switch = self._switches.get(name)
        if switch is None:
            outcome.pending.add(name)
            return
        async with switch.lock:
            connection = switch.connection
            if connection is None:
                outcome.pending.add(name)
                return
            try:
                await self._change(name, switch, connection, adding=adding)
            except DisconnectedError:
                outcome.pending.add(name)
            except FabricError as error:
                outcome.failures.append(str(error))

    async def _change(
        self, name: str, switch: _Switch, connection: Connection, *, adding: bool
    ) -> None:
        assert self._wanted is not None
        if switch.installed is None:
            found = map(Rule.installed, await _flow_stats(connection))
            switch.installed = {rule.key: rule for rule in found}
        installed = switch.installed
        change = difference(installed.values(), self._wanted.get(name, frozenset()))
        rules = change.add if adding else change.delete
        if not rules:
            return
        switch.sent.clear()
        switch.refused.clear()
        for rule in rules:
            xid = connection.send(rule.add() if adding else rule.delete(), str(rule))
            switch.sent[xid] = rule.key
        try:
            await connection.barrier()
        except BaseException:  # also when cancelled: nobody knows which rules arrived
            switch.installed = None
            raise
        for rule in rules:
            if rule.key in switch.refused:
                continue
            if adding:
                installed[rule.key] = rule
            else:
                installed.pop(rule.key, None)
        if switch.refused:
            raise FabricError(f"{name} {next(iter(switch.refused.values()))}")

    async def _reconcile(self, name: str) -> None:
        """Make a switch that has just connected equal to what is wanted."""
        outcome = _Outcome()
        for adding in (True, False):
            await self._step(name, outcome, adding=adding)
        for failure in outcome.failures:
            _log.warning("switch.not_reconciled", switch=name, error=failure)

    # what connections report

    def _accept(self, name: str | None) -> asyncio.Protocol:
        if len(self._connections) >= _MAX_CONNECTIONS:
            return _Refusal()
        connection = Connection(name, self._heard, self._closed, self._timeout)
        self._connections.add(connection)
        return connection

    def _heard(self, connection: Connection, event: SessionEvent) -> None:
        if isinstance(event, SwitchUp):
            self._connected_now(connection, event)
            return
        name = connection.name
        switch = self._switches.get(name) if name is not None else None
        if name is None or switch is None or switch.connection is not connection:
            return
        if isinstance(event, PortStatus):
            self._port_changed(name, switch, event)
        elif isinstance(event, Refused):
            if event.xid in switch.sent:
                switch.refused[switch.sent[event.xid]] = refusal(event)
            self._emit("switch.error", name, error=refusal(event))
            _log.warning("switch.error", switch=name, error=refusal(event))

    def _connected_now(self, connection: Connection, up: SwitchUp) -> None:
        name = connection.name or self._names.get(up.dpid)
        if name is None:
            _log.warning("switch.unexpected", dpid=f"{up.dpid:016x}")
            connection.close(FabricError(f"no switch {up.dpid:016x} is expected"))
            return
        connection.name = name
        switch = self._switches.setdefault(name, _Switch())
        older, switch.connection = switch.connection, connection
        if older is not None:
            older.close(DisconnectedError("replaced by a newer connection"))
        known_before = switch.dpid is not None
        before = switch.ports
        switch.dpid = up.dpid
        switch.installed = None
        switch.ports = {port.port_no: port for port in up.ports}
        self._complained.discard(name)
        self._emit("switch.connected", name, dpid=f"{up.dpid:016x}", ports=len(up.ports))
        if known_before:
            self._emit_links(name, before, switch.ports)
        if self._wanted is not None:
            task = asyncio.create_task(self._reconcile(name), name=f"reconcile:{name}")
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    def _port_changed(self, name: str, switch: _Switch, status: PortStatus) -> None:
        ports = dict(switch.ports)
        if status.reason is PortReason.DELETE:
            ports.pop(status.port.port_no, None)
        else:
            ports[status.port.port_no] = status.port
        before, switch.ports = switch.ports, ports
        self._emit_links(name, before, ports)

    def _emit_links(self, name: str, before: Mapping[int, Port], after: Mapping[int, Port]) -> None:
        """Report every port that is up and was not, or was up and is not."""
        for number in sorted(before.keys() | after.keys()):
            old, new = before.get(number), after.get(number)
            was, now = old is not None and old.up, new is not None and new.up
            port = new or old
            if was != now and port is not None:
                kind = "port.up" if now else "port.down"
                self._emit(kind, name, port_no=number, port=port.name)

    def _closed(self, connection: Connection, reason: FabricError) -> None:
        self._connections.discard(connection)
        name = connection.name or "unnamed"
        if isinstance(reason, ProtocolError):
            self.protocol_errors[name] += 1
            if name not in self._complained:
                self._complained.add(name)
                _log.warning("switch.protocol_error", switch=name, error=str(reason))
        switch = self._switches.get(name)
        if switch is not None and switch.connection is connection:
            switch.connection = None
            switch.installed = None
            self._emit("switch.lost", name, reason=str(reason))

    def _emit(self, kind: str, name: str, **data: str | int) -> None:
        self._on_event(Event(kind, name, data))


class _Refusal(asyncio.Protocol):
    """Ends a connection that is one too many."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        transport.close()


async def _flow_stats(connection: Connection) -> list[FlowStats]:
    entries = await connection.ask(MultipartRequest(MultipartType.FLOW))
    return [entry for entry in entries if isinstance(entry, FlowStats)]
