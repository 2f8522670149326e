"""The OpenFlow controller: keeps every switch equal to what is wanted of it.

What is wanted is given as a whole by :meth:`Controller.apply`. Until the first call nothing is
changed at any switch, so a director that starts anew disturbs no flow that still runs.
"""

import asyncio
import ssl
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from itertools import chain
from pathlib import Path

import structlog

from anabranch.core.events import Event
from anabranch.fabric.claims import Claims
from anabranch.fabric.doors import Doors
from anabranch.fabric.errors import DisconnectedError, FabricError, MisuseError, ProtocolError
from anabranch.fabric.failures import Failure, NotDoneError
from anabranch.fabric.openflow.actions import PORT_ANY, PORT_CONTROLLER, Action
from anabranch.fabric.openflow.connection import Connection, refusal
from anabranch.fabric.openflow.messages import (
    TABLE_ALL,
    Command,
    ControllerRole,
    FlowMod,
    FlowRemoved,
    PacketIn,
    PacketOut,
    Port,
    PortReason,
    PortStatus,
    RoleStatus,
)
from anabranch.fabric.openflow.oxm import EVERYTHING, Match
from anabranch.fabric.openflow.session import Refused, SessionEvent, SwitchUp
from anabranch.fabric.packet_gate import SwitchGates, discovery_port
from anabranch.fabric.readings import Readings
from anabranch.fabric.reconcile import check_sizes
from anabranch.fabric.reconciler import Reconciler
from anabranch.fabric.reports import Reports
from anabranch.fabric.roles import Roles, took_role
from anabranch.fabric.switches import Switch, SwitchState
from anabranch.fabric.tables import (
    COOKIE_MASK,
    REACTIVE_COOKIE,
    Rule,
    Tables,
    check,
)

FORGET_S = 60.0
"""Seconds after which a lost switch is forgotten that nobody has named, only adopted."""
_REACTIVE = "reactive rule"
# A switch without groups, meters or sums refuses these: there is nothing to complain of.
_OPTIONAL = (
    "aggregate request",
    "group desc request",
    "group stats request",
    "meter config request",
)
_log = structlog.get_logger("anabranch.fabric")


class Controller:
    """Waits for switches, keeps their tables, and passes packets on.

    Callbacks must not block; an exception in one is logged and goes no further.

    Args:
        on_event: gets ``switch.connected``, ``switch.lost``, ``switch.error``,
            ``switch.duplicate``, ``group.split``, ``port.up`` and ``port.down``, each about a
            switch by name, and ``controller.role_lost``.
        names: datapath id to name of the switches that come in over TCP.
        timeout: seconds within which a switch answers a request.
        adopt: names a switch that came in over TCP and is none of ``names``, or sends it away.
            Such a switch is forgotten FORGET_S after it was lost.
        on_packet_in: gets what no ``hot`` hook has dealt with.
        on_flow_removed: gets the end of every rule that asked for notice.
        on_switch: gets a switch's state when it has connected or a port has changed; None: lost.
        hot: gets every PACKET_IN as it came; returns bytes that are sent to the switch, or None.
        packet_in_rate: how many packets/s a switch may hand to ``on_packet_in``, and how many at
            once after a pause; the others are dropped. Frames of the discovery have a rate of
            their own for each port, so that a host that floods does not hide the links.

    Attributes:
        readings: what switches tell when they are asked.
        protocol_errors: connections ended because their switch broke the protocol, by switch.
        refusals: requests that a switch refused, by switch.
        packet_ins_dropped: packets held back because there were too many, by switch.
        duplicates: connections sent away because their datapath id was taken, by switch.
        callbacks_failed: exceptions in callbacks.
        tls_refused: connections that did not get through the TLS handshake.
    """

    def __init__(
        self,
        on_event: Callable[[Event], None],
        *,
        names: Mapping[int, str] | None = None,
        timeout: float = 2.0,
        adopt: Callable[[int], str | None] | None = None,
        on_packet_in: Callable[[str, PacketIn], None] | None = None,
        on_flow_removed: Callable[[str, FlowRemoved], None] | None = None,
        on_switch: Callable[[str, SwitchState | None], None] | None = None,
        hot: Callable[[str, bytes], bytes | None] | None = None,
        packet_in_rate: float = 1000.0,
    ) -> None:
        self._packet_in_rate = packet_in_rate
        self._names = dict(names or {})
        self._adopt = adopt
        self._on_packet_in = on_packet_in
        self._on_flow_removed = on_flow_removed
        self._on_switch = on_switch
        self._hot = hot
        self._doors = Doors(self._heard, self._closed, timeout)
        self._roles = Roles()
        self._switches: dict[str, Switch] = {}
        self._adopted: set[str] = set()
        self._forgetting: dict[str, asyncio.TimerHandle] = {}
        self._reports = Reports(on_event)
        self._reconciler = Reconciler(self._switches, self._roles, self._reports)
        self._claims = Claims(self._take_in, self._reports)
        self.readings = Readings(self._connected)
        self.protocol_errors: Counter[str] = Counter()
        self.refusals: Counter[str] = Counter()
        self.packet_ins_dropped: Counter[str] = Counter()

    # doors

    async def listen_unix(self, path: Path | str, switch_name: str) -> None:
        """Wait for the switch ``switch_name`` at a Unix socket; a stale socket file is replaced.

        Raises:
            FabricError: the path cannot be listened at.
        """
        await self._doors.listen_unix(path, switch_name)
        self._adopted.discard(switch_name)
        self._switch(switch_name)

    async def listen_tcp(self, host: str, port: int, *, tls: ssl.SSLContext | None = None) -> int:
        """Wait for switches at a TCP port (0: any) and return its number.

        A switch says itself who it is: without ``tls`` (see :func:`doors.server_context`) listen
        only where none but switches can connect.

        Raises:
            MisuseError: ``tls`` asks for no certificate.
            FabricError: the address cannot be listened at.
        """
        return await self._doors.listen_tcp(host, port, tls)

    async def connect_unix(self, path: Path | str, name: str) -> None:
        """Call the switch ``name`` at its own socket, and again whenever it is lost.

        Open vSwitch listens at ``<bridge>.mgmt``; roles work there as on any connection.
        """
        self._doors.connect_unix(path, name)
        self._adopted.discard(name)
        self._switch(name)

    def expect(self, dpid: int, name: str) -> None:
        """Take the switch ``dpid`` in under this name when it comes over TCP."""
        self._names[dpid] = name

    async def dismiss(self, name: str) -> None:
        """Expect a switch no longer, and forget it; it keeps its tables."""
        self._names = {dpid: each for dpid, each in self._names.items() if each != name}
        await self._doors.forget(name)
        self._reconciler.failures.pop(name, None)
        if name in self._switches:
            self._forget(name)

    async def close(self) -> None:
        """Stop listening and end all connections; the switches keep their tables."""
        await self._claims.close()
        await self._reconciler.close()
        await self._doors.close()
        for timer in self._forgetting.values():
            timer.cancel()

    @property
    def tls_refused(self) -> int:
        return self._doors.tls_refused

    @property
    def duplicates(self) -> Counter[str]:
        return self._claims.duplicates

    @property
    def callbacks_failed(self) -> int:
        return self._reports.callbacks_failed

    # tables

    async def apply(
        self, wanted: Mapping[str, Tables], order: Sequence[str] = ()
    ) -> frozenset[str]:
        """Make the switches hold exactly ``wanted``, and remember it for those that are away.

        ``wanted`` is the whole: a switch that is not named shall hold nothing; only reactive rules
        are left alone. ``order`` has the switches from upstream to downstream. First everything is
        added and replaced, downstream first; when every switch has confirmed that, the rest is
        deleted, upstream first. Switches that are not in ``order`` are served at the same time.

        Returns the switches of ``wanted`` that are not connected, or all while this controller is
        a slave: they get their tables when they come, or when it becomes master. The barrier
        speaks of tables: the cache of Open vSwitch's datapath follows within milliseconds, and
        until then a packet may still be treated by the old rules.

        Raises:
            MisuseError: no switch can hold such tables.
            NotDoneError: switches did not answer (they are disconnected) or refused something, of
                which they are told again and again. All the rest is installed.
        """
        before = self._reconciler.wanted or {}
        for name, tables in wanted.items():
            if before.get(name) is not tables:
                check(tables)
                check_sizes(tables)
        outcome = await self._reconciler.apply(dict(wanted), order)
        pending = frozenset(outcome.pending & wanted.keys())
        if outcome.failures:
            raise NotDoneError([*chain.from_iterable(outcome.failures.values())], pending)
        return pending

    def failures(self) -> list[Failure]:
        """Return what switches that are there have not done of what is wanted of them."""
        return [*chain.from_iterable(self._reconciler.failures.values())]

    async def audit(self, *, whole: bool = True) -> frozenset[str]:
        """Read what every connected switch holds, repair it, and return who had to be repaired.

        Not ``whole``: as it is done every half minute. Flows are counted, and what a switch holds
        is read only if that count is wrong, or every tenth time.
        """
        return await self._reconciler.audit(whole=whole)

    async def take_role(self, role: ControllerRole, generation_id: int) -> None:
        """Have ``role`` at every switch that is there or comes.

        A slave reads and remembers, and writes nothing. Who becomes master or equal reads every
        switch and makes it hold what is wanted.

        Raises:
            MisuseError: NOCHANGE is no role.
            FabricError: a switch refused; another controller is master, then.
        """
        if role is ControllerRole.NOCHANGE:
            raise MisuseError("NOCHANGE is no role to take")
        self._roles.take(role, generation_id)
        if failures := await self._reconciler.tell_roles():
            raise FabricError("; ".join(failures))
        for name in self._switches:
            self._reconciler.settle(name)

    # packets

    def packet_out(
        self,
        switch: str,
        data: bytes,
        actions: Sequence[Action],
        in_port: int = PORT_CONTROLLER,
    ) -> None:
        """Have a switch treat ``data`` as a packet that came in by ``in_port``.

        Raises:
            DisconnectedError: it is not connected, or this controller is its slave.
            MisuseError: the message cannot be encoded.
        """
        connection = self._writable(switch)
        connection.send(PacketOut(data, tuple(actions), in_port), "packet_out")
        connection.flush()

    def install(self, switch: str, rules: Sequence[Rule]) -> None:
        """Add reactive rules and do not wait; what the switch refuses is counted.

        Raises:
            DisconnectedError: it is not connected, or this controller is its slave.
            MisuseError: a rule's cookie is not of REACTIVE_COOKIE's, so it would be removed again.
        """
        if any(rule.cookie & COOKIE_MASK != REACTIVE_COOKIE for rule in rules):
            raise MisuseError("a rule that is installed by itself needs REACTIVE_COOKIE")
        connection = self._writable(switch)
        for rule in rules:
            connection.send(rule.add(), _REACTIVE)
        connection.flush()

    def remove_reactive(
        self, switch: str, match: Match | None = None, out_port: int = PORT_ANY
    ) -> None:
        """Delete the reactive rules that ``match`` includes (None: all) and do not wait.

        ``out_port``: only those that send something out by this port.

        Raises:
            DisconnectedError: it is not connected.
        """
        connection = self._writable(switch)
        connection.send(
            FlowMod(
                Command.DELETE,
                match or EVERYTHING,
                table_id=TABLE_ALL,
                cookie=REACTIVE_COOKIE,
                cookie_mask=COOKIE_MASK,
                out_port=out_port,
            ),
            _REACTIVE,
        )
        connection.flush()

    def switches(self) -> Mapping[str, SwitchState]:
        """Return the state of every switch that was listened for or has connected."""
        return {name: switch.state() for name, switch in self._switches.items()}

    def _connected(self, name: str) -> Connection:
        switch = self._switches.get(name)
        if switch is None or switch.connection is None:
            raise DisconnectedError(f"{name} is not connected")
        return switch.connection

    def _writable(self, name: str) -> Connection:
        if not self._roles.may_write:
            raise DisconnectedError(f"{name} has another controller for its master")
        return self._connected(name)

    def _switch(self, name: str) -> Switch:
        if name not in self._switches:
            now = asyncio.get_running_loop().time()
            self._switches[name] = Switch(name, SwitchGates(now, self._packet_in_rate))
        return self._switches[name]

    def _role_lost(self, name: str, reason: str) -> None:
        if self._roles.lose():
            self._reports.emit("controller.role_lost", "controller", switch=name, reason=reason)
            _log.warning("controller.role_lost", switch=name, reason=reason)
            self._reconciler.failures.clear()
            for switch in self._switches.values():
                switch.forget()

    # what connections report

    def _heard(self, connection: Connection, event: SessionEvent) -> None:
        if isinstance(event, SwitchUp):
            self._arrived(connection, event)
            return
        if self._claims.heard(connection, event):
            return
        name = connection.name
        switch = self._switches.get(name) if name is not None else None
        if switch is None or switch.connection is not connection:
            return
        match event:
            case PacketIn():
                self._reports.call(self._on_packet_in, switch.name, event)
            case PortStatus():
                self._port_changed(switch, event)
            case FlowRemoved():
                if switch.removed(event):
                    _log.warning("switch.rule_deleted", switch=switch.name, cookie=event.cookie)
                    self._reconciler.settle(switch.name)
                self._reports.call(self._on_flow_removed, switch.name, event)
            case RoleStatus(role=ControllerRole.SLAVE):
                self._role_lost(switch.name, "another controller is master")
            case Refused():
                self._refused(switch, event)

    def _refused(self, switch: Switch, event: Refused) -> None:
        name, words = switch.name, refusal(event)
        if switch.refused_bundle(event) or event.request in _OPTIONAL:
            return
        words = switch.refused(event) or words
        if took_role(event):
            self._role_lost(name, words)
            return
        self.refusals[name] += 1
        if self._reports.complain("switch.error", name, words, str(event.type), str(event.code)):
            self._reports.emit("switch.error", name, error=words)

    def _arrived(self, connection: Connection, up: SwitchUp) -> None:
        """Take a switch in; if another connection has its name, find out first who lives."""
        name = connection.name or self._names.get(up.dpid)
        if name is None:
            name = self._reports.call(self._adopt, up.dpid)
            if name is not None and name not in self._switches:
                self._adopted.add(name)
        if name is None:
            self._reports.complain("switch.unexpected", f"{up.dpid:016x}", "nobody expects it")
            connection.close(FabricError(f"no switch {up.dpid:016x} is expected"))
            return
        switch = self._switch(name)
        if connection.name is None and switch.connection is not None:
            self._claims.add(switch, connection, up)
        else:
            self._take_in(switch, connection, up, [])

    def _take_in(
        self, switch: Switch, connection: Connection, up: SwitchUp, since: Sequence[SessionEvent]
    ) -> None:
        """Let a connection be the switch's from now on, in place of an older one."""
        connection.name = name = switch.name
        older = switch.connection
        known_before, before = switch.dpid is not None, switch.ports
        switch.connected(connection, up.dpid, up.ports)
        if name in self._forgetting:
            self._forgetting.pop(name).cancel()
        connection.hot = self._hook(switch)
        if older is not None:
            older.close(DisconnectedError("replaced by a newer connection"))
        self._reports.forgive(name)
        self._reports.emit("switch.connected", name, dpid=f"{up.dpid:016x}", ports=len(up.ports))
        if known_before:
            self._emit_links(name, before, switch.ports)
        self._reports.call(self._on_switch, name, switch.state())
        for event in since:
            self._heard(connection, event)
        self._reconciler.settle(name)

    def _hook(self, switch: Switch) -> Callable[[bytes], bytes | None]:
        """Return what a connection does with each PACKET_IN before anybody reads it."""
        name, hot = switch.name, self._hot
        now = asyncio.get_running_loop().time

        def hook(raw: bytes) -> bytes | None:
            if hot is not None:
                try:
                    reply = hot(name, raw)
                except Exception:
                    self._reports.failed("hot")
                    return b""
                if reply is not None:
                    return reply
            if self._on_packet_in is None:
                return b""
            at, port_no = now(), discovery_port(raw)
            gate = switch.gates.gate(port_no, switch.ports, at)
            if gate.admits(at):
                return None
            self.packet_ins_dropped[name] += 1
            if gate.outbreak():
                _log.warning("switch.packet_in_flood", switch=name, port_no=port_no)
            return b""

        return hook

    def _port_changed(self, switch: Switch, status: PortStatus) -> None:
        ports = dict(switch.ports)
        if status.reason is PortReason.DELETE:
            ports.pop(status.port.port_no, None)
        else:
            ports[status.port.port_no] = status.port
        before, switch.ports = switch.ports, ports
        self._emit_links(switch.name, before, ports)
        self._reports.call(self._on_switch, switch.name, switch.state())

    def _emit_links(self, name: str, before: Mapping[int, Port], after: Mapping[int, Port]) -> None:
        """Report every port that is up and was not, or was up and is not."""
        for number in sorted(before.keys() | after.keys()):
            old, new = before.get(number), after.get(number)
            was, now = old is not None and old.up, new is not None and new.up
            port = new or old
            if was != now and port is not None:
                kind = "port.up" if now else "port.down"
                self._reports.emit(kind, name, port_no=number, port=port.name)

    def _closed(self, connection: Connection, reason: FabricError) -> None:
        self._claims.closed(connection)
        name = connection.name or "unnamed"
        broke_protocol = isinstance(reason, ProtocolError)
        if broke_protocol:
            self.protocol_errors[name] += 1
            self._reports.complain("switch.protocol_error", name, str(reason))
        switch = self._switches.get(name)
        if switch is not None and switch.connection is connection:
            switch.lost(broke_protocol=broke_protocol)
            self._reports.emit("switch.lost", name, reason=str(reason))
            self._reports.call(self._on_switch, name, None)
            if name in self._adopted:
                loop = asyncio.get_running_loop()
                self._forgetting[name] = loop.call_later(FORGET_S, self._forget_adopted, name)

    def _forget_adopted(self, name: str) -> None:
        """Forget an adopted switch: else those that never were, only claimed to be, pile up."""
        if name in self._adopted:
            self._forget(name)
        else:
            del self._forgetting[name]

    def _forget(self, name: str) -> None:
        if name in self._forgetting:
            self._forgetting.pop(name).cancel()
        self._adopted.discard(name)
        del self._switches[name]
        self._reports.forgive(name)
        for counts in (self.protocol_errors, self.refusals, self.packet_ins_dropped):
            counts.pop(name, None)
