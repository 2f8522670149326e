"""Two connections, one datapath id: a second switch, or the same one back from a broken network?"""

import asyncio
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field

from anabranch.fabric.errors import FabricError
from anabranch.fabric.openflow.connection import Connection
from anabranch.fabric.openflow.messages import PortStatus
from anabranch.fabric.openflow.session import SessionEvent, SwitchUp
from anabranch.fabric.reports import Reports
from anabranch.fabric.switches import Switch

_ALIVE = 1.0  # seconds that an older connection has to show that it lives
_MAX_KEPT = 1000


@dataclass(slots=True)
class _Claim:
    """What is known of a newcomer, and the news of its ports since."""

    up: SwitchUp
    since: list[SessionEvent] = field(default_factory=list)


class Claims:
    """Newcomers whose name another connection has: that one is asked whether it lives.

    If it answers, the newcomer is another switch and is sent away; else it takes the name over.

    Args:
        take_in: called with the switch, the newcomer, how it presented itself, and its news since.

    Attributes:
        duplicates: connections sent away, by switch.
    """

    def __init__(
        self,
        take_in: Callable[[Switch, Connection, SwitchUp, list[SessionEvent]], None],
        reports: Reports,
    ) -> None:
        self._take_in = take_in
        self._reports = reports
        self._claims: dict[Connection, _Claim] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self.duplicates: Counter[str] = Counter()

    def add(self, switch: Switch, newcomer: Connection, up: SwitchUp) -> None:
        """Find out, in a task, who ``newcomer`` is."""
        self._claims[newcomer] = _Claim(up)
        task = asyncio.create_task(self._compare(switch, newcomer), name=f"compare:{switch.name}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def heard(self, connection: Connection, event: SessionEvent) -> bool:
        """Keep an event of a newcomer for later; False: it is none."""
        claim = self._claims.get(connection)
        if claim is None:
            return False
        if isinstance(event, PortStatus) and len(claim.since) < _MAX_KEPT:
            claim.since.append(event)
        return True

    def closed(self, connection: Connection) -> None:
        """Forget a newcomer that has gone."""
        self._claims.pop(connection, None)

    async def close(self) -> None:
        """Stop asking."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _compare(self, switch: Switch, newcomer: Connection) -> None:
        older, alive = None, False
        while older is not switch.connection:  # another newcomer may have been quicker
            older, alive = switch.connection, False
            with suppress(TimeoutError, FabricError):
                async with asyncio.timeout(_ALIVE):
                    if older is not None:
                        await older.barrier()
                        alive = True
        claim = self._claims.pop(newcomer, None)
        if claim is None:  # it has gone meanwhile
            return
        if not alive:
            self._take_in(switch, newcomer, claim.up, claim.since)
            return
        name, dpid = switch.name, f"{claim.up.dpid:016x}"
        self.duplicates[name] += 1
        if self._reports.complain("switch.duplicate", name, f"another switch has the dpid {dpid}"):
            self._reports.emit("switch.duplicate", name, dpid=dpid)
        newcomer.close(FabricError(f"another switch has the datapath id {dpid}"))
