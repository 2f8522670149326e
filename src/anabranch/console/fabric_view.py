"""What the routes of ``/api/fabric`` need of a fabric, and how they come by it."""

from collections.abc import AsyncGenerator, Callable, Collection, Mapping, Sequence
from typing import Annotated, Any, Protocol, TypeVar

from fastapi import Depends, Query
from starlette.requests import HTTPConnection

from anabranch.console.fabric_models import Page
from anabranch.core.errors import UnavailableError
from anabranch.core.events import Event
from anabranch.fabric.failures import Failure
from anabranch.fabric.intents import Egress, Intents
from anabranch.fabric.model import Link, LinkInfo, Network
from anabranch.fabric.notify import Notifier
from anabranch.fabric.openflow.messages import (
    FlowStats,
    GroupDesc,
    GroupStats,
    MeterConfig,
    MeterStats,
    PortStats,
)
from anabranch.fabric.pathlogic.logic import NamedRule
from anabranch.fabric.pathlogic.logic import Path as VmPath
from anabranch.fabric.steering import ServiceNode
from anabranch.fabric.switches import SwitchState

_Made = TypeVar("_Made")


class TreeView(Protocol):
    """The way a flow takes."""

    @property
    def links(self) -> Collection[Link]: ...


class PlanView(Protocol):
    """What follows from intents and network."""

    @property
    def trees(self) -> Mapping[str, TreeView]: ...

    @property
    def unreachable(self) -> Mapping[str, frozenset[Egress]]: ...

    @property
    def bypasses(self) -> Mapping[Link, tuple[Link, ...]]: ...


class FabricView(Protocol):
    """What is served here. Awaited methods raise ``FabricError``, disconnected or not answering."""

    @property
    def notifier(self) -> Notifier: ...

    def network(self) -> Network: ...

    def switches(self) -> Mapping[str, SwitchState]: ...

    def counters(self) -> Mapping[str, int]:
        """Return what was done for hosts and what was contained, by name."""

    def intents(self, owner: str | None = None) -> Intents:
        """Return what ``owner`` wants, or what all want together."""

    def plan(self) -> PlanView: ...

    def failures(self) -> Sequence[Failure]:
        """Return what switches refuse now, and which flows and taps that hits."""

    async def put(self, intents: Intents, owner: str = ...) -> frozenset[str]:
        """Want exactly ``intents`` for ``owner``; return the switches that are not connected.

        Raises ``NotDoneError``: a switch refuses what they need. They are wanted all the same.
        """

    async def follow(self, paths: Collection[VmPath]) -> frozenset[str]:
        """Want exactly these paths past virtual machines; returns and raises as :meth:`put`."""

    def followed(self) -> Mapping[str, VmPath]: ...

    def named_rules(self, name: str) -> tuple[NamedRule, ...]:
        """Return the rules of such a path. Raises ``NoPathError``: there is none."""

    def declare(self, links: Mapping[Link, LinkInfo]) -> None: ...

    def declared(self) -> Mapping[Link, LinkInfo]: ...

    async def register(self, node: ServiceNode, seconds: float) -> bool:
        """Have a service node there for so long; return whether packets can be led to it."""

    async def withdraw(self, name: str) -> bool:
        """Forget a service node; return whether there was one."""

    def service_nodes(self) -> Sequence[tuple[ServiceNode, bool, int]]:
        """Return each with whether it can be reached, and how many flows it has."""

    async def port_stats(self, switch: str) -> list[PortStats]: ...

    async def flows(self, switch: str) -> list[FlowStats]: ...

    async def groups(self, switch: str) -> list[tuple[GroupDesc, GroupStats | None]]: ...

    async def meters(self, switch: str) -> list[tuple[MeterConfig, MeterStats | None]]: ...

    def subscribe(self) -> AsyncGenerator[Event, None]: ...

    async def recent_events(self, limit: int) -> list[Event]: ...


def fabric_of(connection: HTTPConnection) -> FabricView:
    """Return the fabric that a request is about: ``app.state.fabric``.

    Raises:
        UnavailableError: this site has none.
    """
    fabric: FabricView | None = getattr(connection.app.state, "fabric", None)
    if fabric is None:
        raise UnavailableError("this site has no fabric: it carries without switches")
    return fabric


TheFabric = Annotated[FabricView, Depends(fabric_of)]
Limit = Annotated[int, Query(ge=1, le=5000, description="entries of this answer, at most")]
Offset = Annotated[int, Query(ge=0, description="entries to leave out first")]


def page(
    entries: list[Any], offset: int, limit: int, convert_one: Callable[[Any], _Made]
) -> Page[_Made]:
    """Convert only what is shown."""
    shown = [convert_one(entry) for entry in entries[offset : offset + limit]]
    return Page(total=len(entries), offset=offset, items=shown)
