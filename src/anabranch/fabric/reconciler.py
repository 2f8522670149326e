"""Keeps all switches equal to what is wanted: now, when one comes back, and every half minute."""

import asyncio
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import structlog

from anabranch.fabric.errors import DisconnectedError, FabricError
from anabranch.fabric.failures import Failure
from anabranch.fabric.openflow.connection import Connection
from anabranch.fabric.reports import Reports
from anabranch.fabric.roles import Roles
from anabranch.fabric.switches import Switch
from anabranch.fabric.tables import NOTHING, Tables

AUDIT_S = 30.0
AGAIN_S, AGAIN_MOST_S = 1.0, 30.0
"""Seconds after which a switch is told again what it has refused: at first, doubled each time that
it refuses the same, and at most."""
_AT_ONCE = 64
"""Switches that are asked at the same time: of a thousand the last would wait for this process to
read the others' answers, and look as if it were silent."""
_PATIENCE = 0.3
"""Seconds without any answer after which an apply goes on without those that are still silent."""
_AUDIT_SHARE = 50  # an audit rests so many times as long as it took
_log = structlog.get_logger("anabranch.fabric")


def sending_order(names: Iterable[str], order: Sequence[str]) -> list[str]:
    """Return ``names`` from upstream to downstream: as in ``order``, then the others by name.

    Additions are sent in reverse and deletions as it is, so that a flow reaches a switch only
    while that switch has a rule for it.
    """
    place = {name: number for number, name in enumerate(order)}
    return sorted(names, key=lambda name: (place.get(name, len(place)), name))


@dataclass(slots=True)
class Outcome:
    """What could not be done: switches that are away, and what went wrong where.

    ``deleted``: the switches where something was deleted.
    """

    pending: set[str] = field(default_factory=set)
    failures: dict[str, list[Failure]] = field(default_factory=dict)
    deleted: set[str] = field(default_factory=set)

    def fail(self, failure: Failure) -> None:
        self.failures.setdefault(failure.switch, []).append(failure)


@dataclass(slots=True)
class _Retry:
    """A switch is told again ``pause`` seconds after it has refused ``wanted``.

    ``timer`` is None while it is told.
    """

    wanted: Tables
    connection: Connection | None
    pause: float
    timer: asyncio.TimerHandle | None = None


class Reconciler:
    """Changes the tables of ``switches``, which others add to, as far as ``roles`` allows.

    Attributes:
        wanted: the tables of every switch; None: nobody has said yet, so nothing is touched.
        failures: by switch, what it has not done although it is there.
    """

    def __init__(self, switches: Mapping[str, Switch], roles: Roles, reports: Reports) -> None:
        self._switches = switches
        self._roles = roles
        self._reports = reports
        self._slots = asyncio.Semaphore(_AT_ONCE)
        self._applying = asyncio.Lock()
        self._settling: dict[str, asyncio.Task[None]] = {}
        self._again: set[str] = set()
        self._reading: dict[str, asyncio.Task[None]] = {}
        self._late: set[str] = set()
        self._auditing: asyncio.Task[None] | None = None
        self._retries: dict[str, _Retry] = {}
        self._closing = False
        self.wanted: Mapping[str, Tables] | None = None
        self.failures: dict[str, tuple[Failure, ...]] = {}

    async def apply(self, wanted: Mapping[str, Tables], order: Sequence[str]) -> Outcome:
        """Have ``wanted`` from now on, and change every switch that differs.

        A switch that is to be read first and is silent holds up no other: it is changed as soon
        as it answers, and pending until then. One that refuses something is told again after
        AGAIN_S, and ever more seldom as long as it refuses the same: there may be room by then.
        """
        outcome = Outcome()
        async with self._applying:
            self.wanted = wanted
            if self._auditing is None and not self._closing:
                self._auditing = asyncio.create_task(self._audit_all(), name="audit")
            if self._roles.may_write:
                late = await self._read_all(outcome)
                outcome.pending |= late
                names = self._switches.keys() | wanted.keys()
                await self._walk(names - late, order, outcome)
            else:
                outcome.pending.update(wanted)
                self.failures.clear()
        return outcome

    def settle(self, name: str) -> None:
        """Have a switch know the controller's role and hold what is wanted, in a task."""
        if name in self._settling:
            self._again.add(name)
            return
        task = asyncio.create_task(self._settle(name), name=f"settle:{name}")
        self._settling[name] = task
        task.add_done_callback(lambda _: self._settled(name))

    async def audit(self, *, whole: bool) -> frozenset[str]:
        """Look at every connected switch, repair it, and return who had to be repaired.

        ``whole``: read all that they hold, not only where :meth:`Switch.glance` sees a difference.
        """
        names = [name for name, switch in self._switches.items() if switch.connection is not None]
        repaired = await asyncio.gather(*(self._audit(name, whole=whole) for name in names))
        return frozenset(name for name, did in zip(names, repaired, strict=True) if did)

    async def tell_roles(self) -> list[str]:
        """Tell every switch the controller's role; return what went wrong, in words."""
        switches = list(self._switches.values())
        failures = await asyncio.gather(*map(self._tell, switches))
        return [failure for failure in failures if failure]

    async def close(self) -> None:
        """Leave everything as it is."""
        self._closing = True
        for name in [*self._retries]:
            self._drop_retry(name)
        tasks = [*self._settling.values(), *self._reading.values()]
        if self._auditing is not None:
            tasks.append(self._auditing)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    # one switch after the other

    async def _walk(self, names: Collection[str], order: Sequence[str], outcome: Outcome) -> None:
        """Add at every switch that differs, downstream first; then delete, upstream first.

        Those without a place in ``order`` are served beside the others, but delete nothing before
        these have added: a flow may just be leaving them.
        """
        assert self.wanted is not None
        differing = []
        for name in names:
            switch = self._switches.get(name)
            if switch is None or switch.connection is None:
                outcome.pending.add(name)
            elif not switch.in_sync(self.wanted.get(name, NOTHING)):
                differing.append(name)
        placed = frozenset(order)
        at_once = [name for name in differing if name not in placed]
        one_by_one = sending_order(placed.intersection(differing), order)
        added = asyncio.Event()

        async def in_order() -> None:
            for name in reversed(one_by_one):
                await self._step(name, outcome, adding=True)
            added.set()
            for name in one_by_one:
                await self._step(name, outcome, adding=False)

        async def beside() -> None:
            await asyncio.gather(*(self._step(name, outcome, adding=True) for name in at_once))
            await added.wait()
            await asyncio.gather(*(self._step(name, outcome, adding=False) for name in at_once))

        async with asyncio.TaskGroup() as group:
            group.create_task(in_order())
            group.create_task(beside())
        # What was refused for want of room may fit where something has been deleted.
        for name in outcome.deleted & outcome.failures.keys():
            del outcome.failures[name]
            await self._step(name, outcome, adding=True)
        for name in names:
            self._remember(name, outcome)

    def _remember(self, name: str, outcome: Outcome) -> None:
        failures = outcome.failures.get(name)
        if failures:
            self.failures[name] = tuple(failures)
            self._retry_later(name)
        else:
            self.failures.pop(name, None)
            self._drop_retry(name)

    def _retry_later(self, name: str) -> None:
        if self._closing:
            return
        assert self.wanted is not None
        wanted, switch = self.wanted.get(name, NOTHING), self._switches.get(name)
        connection = None if switch is None else switch.connection
        pause, retry = AGAIN_S, self._retries.get(name)
        if retry is not None and retry.wanted is wanted and retry.connection is connection:
            if retry.timer is not None:
                return
            pause = min(2 * retry.pause, AGAIN_MOST_S)
        self._drop_retry(name)
        self._retries[name] = retry = _Retry(wanted, connection, pause)
        self._retry_in(pause, name, retry)

    def _retry_in(self, seconds: float, name: str, retry: _Retry) -> None:
        loop = asyncio.get_running_loop()
        retry.timer = loop.call_later(seconds, self._tell_again, name, retry)

    def _tell_again(self, name: str, retry: _Retry) -> None:
        if self._applying.locked():  # not between the halves of an apply
            self._retry_in(AGAIN_S, name, retry)
            return
        retry.timer = None
        self.settle(name)

    def _drop_retry(self, name: str) -> None:
        retry = self._retries.pop(name, None)
        if retry is not None and retry.timer is not None:
            retry.timer.cancel()

    async def _read_all(self, outcome: Outcome) -> frozenset[str]:
        """Read every switch that is to be read first; return those that are silent.

        They are settled as soon as they answer.
        """
        waiting: set[asyncio.Task[None]] = set()
        for name, switch in self._switches.items():
            if switch.connection is None or switch.held is not None or name in self._reading:
                continue
            task = asyncio.create_task(self._read(switch, outcome), name=f"read:{name}")
            self._reading[name] = task
            task.add_done_callback(lambda _, name=name: self._was_read(name))  # type: ignore[misc]
            waiting.add(task)
        done = waiting
        while done and waiting:
            done, waiting = await asyncio.wait(waiting, timeout=_PATIENCE)
        late = frozenset(name for name, task in self._reading.items() if not task.done())
        self._late |= late
        return late

    def _was_read(self, name: str) -> None:
        del self._reading[name]
        if name in self._late:
            self._late.discard(name)
            if not self._closing:
                self.settle(name)

    async def _read(self, switch: Switch, outcome: Outcome) -> None:
        """Read what a switch holds, if that is not known by now."""

        async def look() -> None:
            if switch.held is None:
                await switch.look()

        await self._guarded(switch, outcome, look)

    async def _step(self, name: str, outcome: Outcome, *, adding: bool) -> None:
        """Do one half of what makes ``name`` equal to what is wanted of it."""
        assert self.wanted is not None
        switch = self._switches.get(name)
        if switch is None:  # forgotten meanwhile
            outcome.pending.add(name)
            return
        wanted = self.wanted.get(name, NOTHING)

        async def change() -> None:
            failures = await switch.change(wanted, adding=adding)
            self._tell_split(switch)
            for failure in failures:
                outcome.fail(failure)
            if not adding and switch.deleted:
                outcome.deleted.add(name)

        await self._guarded(switch, outcome, change)

    def _tell_split(self, switch: Switch) -> None:
        for group in switch.newly_split():
            size, number = len(group.buckets), group.group_id
            self._reports.emit("group.split", switch.name, group=number, buckets=size)
            _log.info("group.split", switch=switch.name, group=number, buckets=size)

    async def _guarded(
        self, switch: Switch, outcome: Outcome, act: Callable[[], Awaitable[object]]
    ) -> None:
        """Do something with a switch under its lock, if this controller may write there."""
        name = switch.name
        async with switch.lock, self._slots:
            try:
                if await self._tell_role(switch):
                    await act()
                else:
                    outcome.pending.add(name)
            except DisconnectedError:
                outcome.pending.add(name)
            except FabricError as error:
                outcome.fail(Failure(name, str(error)))

    async def _tell_role(self, switch: Switch) -> bool:
        """Have a switch know the role, if it does not; say whether its tables may be changed.

        Call it with the lock held.
        """
        if switch.connection is None:
            raise DisconnectedError(f"{switch.name} is not connected")
        edition = self._roles.edition
        if switch.role != edition:
            await self._roles.tell(switch.connection)
            switch.role = edition  # not the present one: it may have changed meanwhile
            switch.forget()  # until now another may have written
        return self._roles.may_write

    async def _tell(self, switch: Switch) -> str | None:
        async with switch.lock:
            try:
                await self._tell_role(switch)
            except DisconnectedError:
                pass  # it is told when it comes
            except FabricError as error:
                return str(error)
        return None

    # again and again

    async def _settle(self, name: str) -> None:
        outcome = Outcome()
        if self.wanted is not None and self._roles.may_write:
            await self._walk((name,), (), outcome)
        elif (switch := self._switches.get(name)) and (failure := await self._tell(switch)):
            outcome.fail(Failure(name, failure))
        self._complain(name, outcome)

    def _settled(self, name: str) -> None:
        del self._settling[name]
        if name in self._again and not self._closing:
            self._again.discard(name)
            self.settle(name)

    async def _audit(self, name: str, *, whole: bool) -> bool:
        """Look at what a switch holds, and repair it if that is not what is wanted."""
        if self.wanted is None or not self._roles.may_write:
            return False
        switch, outcome, changed = self._switches.get(name), Outcome(), False
        if switch is None:  # forgotten meanwhile
            return False

        async def look() -> None:
            nonlocal changed
            changed = await (switch.look() if whole else switch.glance())

        await self._guarded(switch, outcome, look)
        if not outcome.failures:
            async with self._applying:  # not between the halves of an apply
                await self._walk((name,), (), outcome)
        self._complain(name, outcome)
        return changed

    async def _audit_all(self) -> None:
        """Look at one switch after the other, all within AUDIT_S if that costs little."""
        loop = asyncio.get_running_loop()
        while True:
            names = [name for name, it in self._switches.items() if it.connection is not None]
            pause = AUDIT_S / max(1, len(names))
            await asyncio.sleep(pause)
            for name in names:
                began = loop.time()
                if await self._audit(name, whole=False):
                    _log.warning("switch.repaired", switch=name)
                await asyncio.sleep(max(pause, _AUDIT_SHARE * (loop.time() - began)))

    def _complain(self, name: str, outcome: Outcome) -> None:
        for failure in outcome.failures.get(name, ()):
            self._reports.complain("switch.not_reconciled", name, failure.reason)
