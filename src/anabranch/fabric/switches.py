"""One switch as the controller knows it: what it holds, and how that is changed and confirmed."""

import asyncio
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from anabranch.fabric.errors import DisconnectedError, FabricError, MisuseError
from anabranch.fabric.failures import Failure
from anabranch.fabric.groups import same
from anabranch.fabric.openflow.connection import Connection, refusal
from anabranch.fabric.openflow.messages import (
    AggregateStats,
    BarrierRequest,
    BundleAdd,
    BundleControl,
    BundleType,
    Entry,
    FlowMod,
    FlowRemoved,
    FlowStats,
    GroupDesc,
    GroupMod,
    GroupStats,
    MeterConfig,
    MeterMod,
    MultipartRequest,
    MultipartType,
    Port,
)
from anabranch.fabric.openflow.session import Refused
from anabranch.fabric.packet_gate import SwitchGates
from anabranch.fabric.reconcile import Batch, Change, Changes, Held, HeldGroup, plan_changes
from anabranch.fabric.tables import (
    COOKIE_MASK,
    REACTIVE_COOKIE,
    GroupSpec,
    MeterSpec,
    Rule,
    RuleKey,
    Tables,
)

_GLANCES = 9  # looks at the count of flows alone, before everything is read again
_AT_ONCE = 1000  # messages between two barriers that are waited for
_ATOMIC_AND_ORDERED = 3
_IDLE, _HARD = 0, 1  # ofp_flow_removed_reason


@dataclass(frozen=True, slots=True)
class SwitchState:
    """What is known of a switch now.

    Attributes:
        connected: its handshake is complete and its connection open.
        dpid: 64-bit datapath id; None before its first connection.
        ports: by port number, as last reported.
        rules: how many rules it is known to hold; None while that has not been read.
        version: wire version of its session, None while it is away.
    """

    connected: bool
    dpid: int | None
    ports: Mapping[int, Port]
    rules: int | None
    version: int | None = None


class Switch:
    """The controller's notes on one switch.

    Attributes:
        connection: None while it is away.
        gates: let its packets through to the controller.
        held: what it is known to hold; None: that is to be read first.
        deleted: the last change deleted something.
        lock: held by whoever changes its tables.
        role: edition of the controller's role that was told on this connection.
    """

    def __init__(self, name: str, gates: SwitchGates) -> None:
        self.name = name
        self.connection: Connection | None = None
        self.dpid: int | None = None
        self.ports: dict[int, Port] = {}
        self.held: Held | None = None
        self.lock = asyncio.Lock()
        self.gates = gates
        self.role: int | None = None
        self.deleted = False
        self._planned: Changes | None = None
        self._sent: dict[int, Change | None] = {}
        self._refused: dict[int, str] = {}
        self._deleting: set[RuleKey] = set()
        self._added: Tables | None = None  # of what the first half is done
        self._bundle = 0
        self._describing = False
        self._undescribable = False
        self._split: tuple[GroupSpec, ...] = ()
        self._told: frozenset[int] = frozenset()
        self._has_bundles = True
        self._glances = 0

    def state(self) -> SwitchState:
        """Return what others may know of it."""
        connection = self.connection
        return SwitchState(
            connection is not None,
            self.dpid,
            MappingProxyType(dict(self.ports)),
            None if self.held is None else len(self.held.rules),
            None if connection is None else connection.version,
        )

    def connected(self, connection: Connection, dpid: int, ports: Iterable[Port]) -> None:
        """Begin anew on a connection: what the switch holds is not known."""
        self.connection = connection
        self.dpid = dpid
        self.ports = {port.port_no: port for port in ports}
        self.role = None
        self._has_bundles = True
        self.forget()

    def lost(self, *, broke_protocol: bool) -> None:
        """Note that the connection has ended."""
        # A description of more than 64 KiB comes with wrong lengths (Open vSwitch 3.1, groups of
        # some 800 buckets): do not ask for it a second time.
        if broke_protocol and self._describing:
            self._undescribable = True
        self.connection = None
        self.forget()

    def forget(self) -> None:
        """Read what the switch holds before the next change."""
        self.held = None
        self._planned = None
        self._added = None

    def in_sync(self, wanted: Tables) -> bool:
        """Say whether it is known to hold exactly ``wanted``."""
        return self.held is not None and self.held.synced is wanted

    def newly_split(self) -> list[GroupSpec]:
        """Return, once, the groups that had to be put in parts and were not before."""
        new = [group for group in self._split if group.group_id not in self._told]
        self._told = frozenset(group.group_id for group in self._split)
        return new

    async def change(self, wanted: Tables, *, adding: bool) -> list[Failure]:
        """Do one half of what makes the switch hold ``wanted``; return what it refused.

        Call it with the lock held, first to add, then to delete.

        Raises:
            DisconnectedError: the switch is not connected, or went away.
            FabricError: it did not answer.
        """
        connection = self._open()
        if self.held is None:
            self.held = await self._read(connection)
        half_done = not adding and self._added is wanted
        if self._planned is None or not half_done:
            self._planned = plan_changes(self.held, wanted, connection.version)
        plan = self._planned
        self._split = plan.split
        held, batches = self.held, plan.add if adding else plan.delete
        failures: list[Failure] = []
        self.deleted = bool(plan.delete) and not adding
        if batches:
            held.synced = None
            try:
                failures = await self._send(connection, held, batches)
            except BaseException:  # also when cancelled: nobody knows what arrived
                self.forget()
                raise
        if failures:
            self._planned = None
        undisturbed = self._planned is not None
        self._added = wanted if adding and undisturbed else None
        if half_done and undisturbed:
            held.synced = wanted
            self._undescribable = False
        return failures

    async def look(self) -> bool:
        """Read what the switch holds; say whether that is not what was known.

        Call it with the lock held. Raises as :meth:`change`.
        """
        known = self.held
        found = await self._read(self._open())
        if known is not None and known is self.held and _equal(found, known):
            return False
        self.forget()
        self.held = found
        return known is not None

    async def glance(self) -> bool:
        """Count the flows of the switch; :meth:`look` only if they are more or fewer than known.

        What somebody has changed without changing the count is seen by every tenth glance, which
        looks in any case. Call it with the lock held. Raises as :meth:`change`.
        """
        held = self.held
        if held is None or self._glances >= _GLANCES:
            return await self.look()
        self._glances += 1
        if await self._flow_count(self._open()) == len(held.rules) and held is self.held:
            return False
        return await self.look()

    def refused_bundle(self, event: Refused) -> bool:
        """Take the refusal of a bundle; say if it is one. Its changes are sent one by one then."""
        if event.xid in self._sent and self._sent[event.xid] is None:
            self._refused[event.xid] = "refused a bundle"
            return True
        return False

    def refused(self, event: Refused) -> str | None:
        """Take the refusal of a change to the tables and return it in words; None: of no change."""
        change = self._sent.get(event.xid)
        if change is None:
            return None
        words = refusal(Refused(event.xid, event.type, event.code, str(change)))
        self._refused[event.xid] = words
        return words

    def removed(self, message: FlowRemoved) -> bool:
        """Take note of a rule's end; say whether it is to be repaired: somebody else deleted it."""
        key = message.table_id, message.priority, message.match
        held = self.held
        if held is None or key in self._deleting:
            return False
        rule = held.rules.get(key)
        if rule is None or rule.cookie != message.cookie:
            return False
        del held.rules[key]
        held.synced = None
        self._planned = None
        self._added = None
        return message.reason not in (_IDLE, _HARD)

    def _open(self) -> Connection:
        if self.connection is None:
            raise DisconnectedError(f"{self.name} is not connected")
        return self.connection

    # reading

    async def _flow_count(self, connection: Connection) -> int | None:
        """Return how many flows there are, reactive ones apart; None if the switch cannot tell."""
        requests = (
            MultipartRequest(MultipartType.AGGREGATE),
            MultipartRequest(
                MultipartType.AGGREGATE, cookie=REACTIVE_COOKIE, cookie_mask=COOKIE_MASK
            ),
        )
        answers = await asyncio.gather(*map(connection.ask, requests), return_exceptions=True)
        counts = [
            entry.flow_count
            for answer in answers
            for entry in _entries(answer) or ()
            if isinstance(entry, AggregateStats)
        ]
        return counts[0] - counts[1] if len(counts) == len(requests) else None

    async def _read(self, connection: Connection) -> Held:
        self._glances = 0
        self._describing = not self._undescribable
        kind = MultipartType.GROUP_DESC if self._describing else MultipartType.GROUP_STATS
        kinds = (MultipartType.FLOW, kind, MultipartType.METER_CONFIG)
        answers = await asyncio.gather(
            *(connection.ask(MultipartRequest(kind)) for kind in kinds), return_exceptions=True
        )
        self._describing = False
        if self.connection is not connection:
            raise DisconnectedError(f"{self.name} was replaced by a newer connection")
        flows, groups, meters = (_entries(answer) for answer in answers)
        if flows is None:
            raise FabricError(f"{self.name} does not tell its flows")
        # A switch without groups or meters refuses to tell them: it has none, then.
        return Held.found(
            (Rule.installed(entry) for entry in flows if isinstance(entry, FlowStats)),
            dict(filter(None, map(_group, groups or ()))),
            {
                entry.meter_id: MeterSpec(entry.meter_id, entry.bands, entry.packets)
                for entry in meters or ()
                if isinstance(entry, MeterConfig)
            },
        )

    # sending

    async def _send(
        self, connection: Connection, held: Held, batches: tuple[Batch, ...]
    ) -> list[Failure]:
        """Send batches with barriers between them; write down what was done, return the rest."""
        failures: list[Failure] = []
        under_way: list[tuple[int, Change]] = []
        self._deleting = set(_deleted(batches))
        try:
            for batch in batches:
                if batch.atomic and self._has_bundles:
                    failures += await self._settle(connection, held, under_way)
                    if await self._send_bundle(connection, held, batch.changes):
                        continue
                elif under_way:
                    connection.send(BarrierRequest(), "barrier")
                for change in batch.changes:
                    try:
                        xid = connection.send(change.message, "change")
                    except MisuseError as error:
                        reason = f"{self.name}: {change}: {error}"
                        failures.append(Failure(self.name, reason, change))
                        continue
                    self._sent[xid] = change
                    under_way.append((xid, change))
                    if len(under_way) >= _AT_ONCE:
                        failures += await self._settle(connection, held, under_way)
            failures += await self._settle(connection, held, under_way)
        finally:
            self._deleting = set()
            self._sent.clear()
            self._refused.clear()
        return failures

    async def _settle(
        self, connection: Connection, held: Held, under_way: list[tuple[int, Change]]
    ) -> list[Failure]:
        """Wait until the switch has done everything, and write it down."""
        if not under_way:
            return []
        await connection.barrier()
        failures = []
        for xid, change in under_way:
            if xid in self._refused:
                reason = f"{self.name} {self._refused[xid]}"
                failures.append(Failure(self.name, reason, change))
            else:
                change.apply(held)
        under_way.clear()
        return failures

    async def _send_bundle(
        self, connection: Connection, held: Held, changes: tuple[Change, ...]
    ) -> bool:
        """Do changes all at once or not at all; say which."""
        self._bundle = self._bundle % 0xFFFFFFFF + 1
        bundle, flags = self._bundle, _ATOMIC_AND_ORDERED
        requests: list[BundleControl | BundleAdd] = [
            BundleControl(bundle, BundleType.OPEN_REQUEST, flags),
            *(BundleAdd(bundle, flags, _bundled(change)) for change in changes),
            BundleControl(bundle, BundleType.COMMIT_REQUEST, flags),
        ]
        xids = set()
        try:
            for request in requests:
                xids.add(connection.send(request, "bundle"))
        except MisuseError:  # one cannot be encoded: the switch forgets a bundle never committed
            connection.send(BundleControl(bundle, BundleType.DISCARD_REQUEST, flags), "bundle")
            return False
        self._sent.update(dict.fromkeys(xids))
        await connection.barrier()
        if xids & self._refused.keys():
            self._has_bundles = False  # perhaps not its fault, but sure to be slower
            return False
        for change in changes:
            change.apply(held)
        return True


def _bundled(change: Change) -> FlowMod | GroupMod:
    """Return a message that a bundle can hold: those of meters have no place in one."""
    assert not isinstance(change.message, MeterMod)
    return change.message


def _deleted(batches: Iterable[Batch]) -> Iterator[RuleKey]:
    for batch in batches:
        for change in batch.changes:
            if change.result is None and isinstance(change.key, tuple):
                yield change.key


def _entries(answer: tuple[Entry, ...] | BaseException) -> tuple[Entry, ...] | None:
    """Return an answer, None if the request was refused; raise what is worse."""
    if isinstance(answer, DisconnectedError) or (
        isinstance(answer, BaseException) and not isinstance(answer, FabricError)
    ):
        raise answer
    return None if isinstance(answer, BaseException) else answer


def _group(entry: Entry) -> tuple[int, GroupSpec | None] | None:
    match entry:
        case GroupDesc(number, kind, buckets):
            return number, GroupSpec(number, kind, buckets)
        case GroupStats(group_id=number):
            return number, None
        case bytes() if len(entry) >= 8:  # it is there, but no record can express it
            return int.from_bytes(entry[4:8]), None
    return None


def _equal(found: Held, held: Held) -> bool:
    """Say whether two states do the same; bucket ids are names only."""
    return (
        found.rules == held.rules
        and found.meters == held.meters
        and found.groups.keys() == held.groups.keys()
        and all(_same(group, held.groups[number]) for number, group in found.groups.items())
    )


def _same(found: HeldGroup | None, held: HeldGroup | None) -> bool:
    return found is not None and held is not None and same(found.spec, held.spec)
