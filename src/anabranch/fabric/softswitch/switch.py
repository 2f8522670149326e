"""A whole OpenFlow switch without I/O: ports, tables, groups, meters, and packets through them.

Source: OpenFlow 1.3.5, sections 5 and 6. Times are monotonic seconds that the caller passes in.
"""

import heapq
from collections.abc import Iterable

from anabranch.fabric.openflow.actions import (
    GROUP_ANY,
    PORT_ANY,
    PORT_CONTROLLER,
    PORT_IN_PORT,
    PORT_LOCAL,
    PORT_MAX,
    Action,
    ApplyActions,
    GotoTable,
    Group,
    Instruction,
    Meter,
    OtherAction,
    OtherInstruction,
    Output,
)
from anabranch.fabric.openflow.messages import (
    TABLE_ALL,
    Command,
    FlowMod,
    FlowRemoved,
    GroupCommand,
    GroupMod,
    MeterCommand,
    MeterMod,
    PacketIn,
    PacketOut,
    Port,
    PortStatus,
)
from anabranch.fabric.openflow.oxm import Match
from anabranch.fabric.openflow.refusals import Refusal
from anabranch.fabric.softswitch.flow_table import FlowEntry, FlowTable, terms_of
from anabranch.fabric.softswitch.group_table import GroupTable
from anabranch.fabric.softswitch.meter_table import MeterTable
from anabranch.fabric.softswitch.packet import PORT_ALL, PORT_FLOOD, PORT_TABLE, Packet
from anabranch.fabric.softswitch.ports import Emission as Emission
from anabranch.fabric.softswitch.ports import Ports
from anabranch.fabric.softswitch.refusals import RefusedError
from anabranch.fabric.tables import Tables

SEND_FLOW_REMOVED, CHECK_OVERLAP, RESET_COUNTS = 1, 2, 4
IDLE, HARD, DELETED, GROUP_GONE, METER_GONE = range(5)
_OUTPUTS = frozenset({PORT_IN_PORT, PORT_TABLE, PORT_FLOOD, PORT_ALL, PORT_CONTROLLER, PORT_LOCAL})


News = PacketIn | FlowRemoved | PortStatus


class SoftSwitch:
    """The switch.

    Args:
        dpid: 64-bit datapath id.
        ports: numbers of its ports, or whole descriptions.
        n_tables: how many flow tables there are.
        table_size: how many entries each may have.
    """

    def __init__(
        self,
        dpid: int,
        ports: Iterable[int | Port] = (),
        *,
        n_tables: int = 254,
        table_size: int = 1_000_000,
        now: float = 0.0,
    ) -> None:
        self.dpid = dpid
        self.n_tables = n_tables
        self.ports = Ports()
        self.tables: dict[int, FlowTable] = {}  # made when the first entry comes
        self.groups = GroupTable(self.ports.live, self._check_actions)
        self.meters = MeterTable()
        self._table_size = table_size
        self._news: list[News] = []
        self._timed: list[tuple[float, int, FlowEntry]] = []
        self._sequence = 0
        for port in ports:
            self.add_port(port, now)
        self._news.clear()

    def news(self) -> list[News]:
        """Return, once, what the controllers should hear, in order."""
        news, self._news = self._news, []
        return news

    # ports

    def add_port(self, port: int | Port, now: float) -> None:
        """Add a port, or replace the one with its number."""
        if isinstance(port, int):
            mac = (0x02 << 40 | (self.dpid & 0xFFFFFF) << 16 | port & 0xFFFF).to_bytes(6, "big")
            port = Port(port, mac.hex(":"), f"p{port}")
        self._news.append(self.ports.add(port, now))

    def remove_port(self, port_no: int) -> None:
        """Take a port away."""
        self._news.append(self.ports.remove(port_no))

    def set_port(self, port_no: int, up: bool) -> None:
        """Let the link of a port come up or go down."""
        status = self.ports.turn(port_no, up)
        if status is not None:
            self._news.append(status)

    # packets

    def process(self, in_port: int, frame: bytes, now: float) -> list[Emission]:
        """Take a frame from outside; return what leaves, in order.

        A port that is down, or is none, receives nothing.
        """
        if not self.ports.receive(in_port, frame):
            return []
        packet = Packet(frame, in_port)
        self._pipeline(packet, now)
        return self.ports.send(packet.out)

    def packet_out(self, message: PacketOut, now: float) -> list[Emission]:
        """Do what a controller wants with a packet of its own.

        Raises:
            RefusedError: an action is impossible.
        """
        self._check_actions(message.actions, packet_out=True)
        packet = Packet(message.data, message.in_port)
        self._apply(packet, message.actions, None, now)
        return self.ports.send(packet.out)

    def _pipeline(self, packet: Packet, now: float) -> None:
        number: int | None = 0
        while number is not None:
            table = self.tables.get(number)
            entry = None if table is None else table.lookup(packet.fields)
            if entry is None:
                return
            entry.count(len(packet.frame), now)
            if entry.meter is not None:
                meter = self.meters.get(entry.meter)
                if meter is not None and not meter.passes(len(packet.frame), now):
                    return
            self._apply(packet, entry.actions, entry, now)
            if entry.metadata is not None:
                value, mask = entry.metadata
                packet.set_metadata(packet.metadata & ~mask | value)
            number = entry.goto

    def _apply(
        self, packet: Packet, actions: tuple[Action, ...], entry: FlowEntry | None, now: float
    ) -> None:
        for action in actions:
            if isinstance(action, Output):
                if action.port_no == PORT_TABLE:
                    # What the pipeline rewrites is not seen by the actions that follow.
                    self._pipeline(packet.copy(), now)
                else:
                    self._output(packet, action, entry)
            elif isinstance(action, Group):
                self._through_group(packet, action.group_id, entry, now)
            else:
                packet.change(action)

    def _through_group(
        self, packet: Packet, group_id: int, entry: FlowEntry | None, now: float
    ) -> None:
        group = self.groups.groups.get(group_id)
        if group is None:
            return
        length = len(packet.frame)
        group.packets += 1
        group.bytes += length
        for bucket in self.groups.choose(group, packet.fields):
            bucket.packets += 1
            bucket.bytes += length
            self._apply(packet.copy(), bucket.bucket.actions, entry, now)

    def _output(self, packet: Packet, action: Output, entry: FlowEntry | None) -> None:
        port_no = action.port_no
        if port_no == PORT_CONTROLLER:
            self._news.append(_packet_in(packet, action, entry))
        elif port_no == PORT_IN_PORT:
            packet.emit(packet.in_port)
        elif port_no in (PORT_ALL, PORT_FLOOD):
            for each in self.ports:
                if each not in (packet.in_port, PORT_LOCAL):
                    packet.emit(each)
        elif port_no != packet.in_port:  # back to where it came from only by IN_PORT
            packet.emit(port_no)

    # flows

    def flow_mod(self, mod: FlowMod, now: float) -> None:
        """Do what a flow_mod says.

        Raises:
            RefusedError: it cannot be done; nothing has changed.
        """
        every = mod.table_id == TABLE_ALL
        deleting = mod.command in (Command.DELETE, Command.DELETE_STRICT)
        if (every and not deleting) or (not every and mod.table_id >= self.n_tables):
            raise RefusedError(Refusal.BAD_TABLE)
        terms_of(mod.match)
        if not deleting:
            self._check_instructions(mod.instructions, mod.table_id)
        if mod.command == Command.ADD:
            self._add(mod, now)
            return
        strict = mod.command in (Command.MODIFY_STRICT, Command.DELETE_STRICT)
        for table in self.tables.values() if every else self._table(mod.table_id):
            for entry in table.chosen(
                mod.match,
                strict_priority=mod.priority if strict else None,
                cookie=mod.cookie,
                cookie_mask=mod.cookie_mask,
                out_port=mod.out_port if deleting else PORT_ANY,
                out_group=mod.out_group if deleting else GROUP_ANY,
            ):
                if deleting:
                    self._end(entry, DELETED, now)
                else:
                    entry.set_instructions(mod.instructions)
                    if mod.flags & RESET_COUNTS:
                        entry.packets = entry.bytes = 0

    def _add(self, mod: FlowMod, now: float) -> None:
        table = self.tables.setdefault(mod.table_id, FlowTable())
        if mod.flags & CHECK_OVERLAP and table.overlaps(mod.priority, mod.match):
            raise RefusedError(Refusal.OVERLAP)
        entry = FlowEntry.of(mod, now)
        replaced = table.get(mod.priority, mod.match)
        if replaced is not None:
            if not mod.flags & RESET_COUNTS:
                entry.packets, entry.bytes = replaced.packets, replaced.bytes
            table.remove(replaced)
        elif len(table) >= self._table_size:
            raise RefusedError(Refusal.TABLE_FULL)
        table.add(entry)
        self._watch(entry)

    def _table(self, table_id: int) -> tuple[FlowTable, ...]:
        table = self.tables.get(table_id)
        return () if table is None else (table,)

    def _end(self, entry: FlowEntry, reason: int, now: float) -> None:
        self.tables[entry.table_id].remove(entry)
        if entry.flags & SEND_FLOW_REMOVED:
            self._news.append(
                FlowRemoved(
                    entry.cookie,
                    entry.priority,
                    reason,
                    entry.table_id,
                    now - entry.created,
                    entry.idle_timeout,
                    entry.hard_timeout,
                    entry.packets,
                    entry.bytes,
                    entry.match,
                )
            )

    def _watch(self, entry: FlowEntry) -> None:
        deadline = entry.deadline()
        if deadline is not None:
            self._sequence += 1
            heapq.heappush(self._timed, (deadline[0], self._sequence, entry))

    def next_timer(self) -> float | None:
        """Return when ``handle_timer`` is due at the latest; None for never."""
        return self._timed[0][0] if self._timed else None

    def handle_timer(self, now: float) -> None:
        """End the flows whose time is over."""
        while self._timed and self._timed[0][0] <= now:
            _, _, entry = heapq.heappop(self._timed)
            deadline = entry.deadline()
            if not entry.live or deadline is None:
                continue
            if deadline[0] <= now:
                self._end(entry, deadline[1], now)
            else:  # packets came in the meantime
                self._watch(entry)

    # groups and meters

    def group_mod(self, mod: GroupMod, now: float) -> None:
        """Do what a group_mod says; flows that lead to a deleted group end.

        Raises:
            RefusedError: it cannot be done; nothing has changed.
        """
        for group_id in self.groups.modify(mod, now):
            for table in self.tables.values():
                for entry in [e for e in table if e.forwards_to(PORT_ANY, group_id)]:
                    self._end(entry, GROUP_GONE, now)

    def meter_mod(self, mod: MeterMod, now: float) -> None:
        """Do what a meter_mod says; flows through a deleted meter end.

        Raises:
            RefusedError: it cannot be done; nothing has changed.
        """
        gone = self.meters.modify(mod, now)
        for table in self.tables.values() if gone else ():
            for entry in [e for e in table if e.meter in gone]:
                self._end(entry, METER_GONE, now)

    def load(self, tables: Tables, now: float) -> None:
        """Replace everything installed by ``tables``, as an oracle does.

        Raises:
            RefusedError: a switch would not take them.
        """
        self.tables.clear()
        self._timed.clear()
        self.groups.groups.clear()
        self.meters.clear()
        for meter in tables.meters:
            self.meter_mod(
                MeterMod(MeterCommand.ADD, meter.meter_id, meter.bands, meter.packets), now
            )
        # First all of them empty, so that the order does not matter.
        specs = sorted(tables.groups, key=lambda spec: spec.group_id)
        for spec in specs:
            self.groups.reserve(spec.group_id, now)
        for spec in specs:
            self.group_mod(
                GroupMod(GroupCommand.MODIFY, spec.group_id, spec.type, spec.buckets), now
            )
        for rule in tables.rules:
            self.flow_mod(rule.add(), now)

    # what is refused

    def _check_instructions(self, instructions: tuple[Instruction, ...], table_id: int) -> None:
        for instruction in instructions:
            match instruction:
                case GotoTable(to) if not table_id < to < self.n_tables:
                    raise RefusedError(Refusal.BAD_GOTO)
                case Meter(meter_id) if meter_id not in self.meters:
                    raise RefusedError(Refusal.INVALID_METER)
                case ApplyActions(actions):
                    self._check_actions(actions)
                case OtherInstruction():
                    raise RefusedError(Refusal.UNSUPPORTED_INSTRUCTION)

    def _check_actions(self, actions: tuple[Action, ...], *, packet_out: bool = False) -> None:
        for action in actions:
            match action:
                case Output(port_no) if port_no > PORT_MAX and (
                    port_no not in _OUTPUTS or (port_no == PORT_TABLE and not packet_out)
                ):
                    raise RefusedError(Refusal.BAD_OUT_PORT)
                case Group(group_id) if group_id not in self.groups.groups:
                    raise RefusedError(Refusal.BAD_OUT_GROUP)
                case OtherAction():
                    raise RefusedError(Refusal.BAD_ACTION_TYPE)


def _packet_in(packet: Packet, action: Output, entry: FlowEntry | None) -> PacketIn:
    cookie = 0xFFFFFFFFFFFFFFFF if entry is None else entry.cookie
    reason = 0 if entry is not None and entry.table_miss else 1
    return PacketIn(
        0xFFFFFFFF,
        len(packet.frame),
        reason,
        0 if entry is None else entry.table_id,
        cookie,
        Match(in_port=packet.in_port, metadata=packet.metadata or None),
        packet.frame[: action.max_len],
    )
