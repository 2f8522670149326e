"""``/api/fabric``: the network for its operator. Switches, what they hold, paths, events."""

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterable, Callable, Collection, Mapping
from contextlib import aclosing, suppress
from typing import Annotated, Any, Protocol, TypeVar

from fastapi import APIRouter, Depends, Path, Query, WebSocket
from fastapi.sse import EventSourceResponse, ServerSentEvent
from starlette.requests import HTTPConnection
from starlette.websockets import WebSocketDisconnect

from anabranch.console import fabric_json as convert
from anabranch.console import fabric_models as models
from anabranch.console.models import EventOut
from anabranch.console.operator_token import is_operator, operators_only
from anabranch.core.errors import ConflictError, NotFoundError, UnavailableError
from anabranch.core.events import Event
from anabranch.core.names import check_name
from anabranch.fabric.controller import SwitchState
from anabranch.fabric.intents import Egress, Flow, Intents
from anabranch.fabric.model import Link, LinkInfo, Network
from anabranch.fabric.notices import kind_wanted
from anabranch.fabric.notify import Notifier, SubscriptionState
from anabranch.fabric.openflow.messages import (
    FlowStats,
    GroupDesc,
    GroupStats,
    MeterConfig,
    MeterStats,
    PortStats,
)

OWNER = "operator"
"""Whose intents the paths are that are asked for here."""
FAMILIES = frozenset(
    ("switch", "port", "link", "host", "vm", "topology", "flow", "callback", "controller")
)
_HELLO_LIMIT = 4096
_HELLO_TIMEOUT = 5.0
_POLICY_VIOLATION = 1008
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

    def intents(self, owner: str | None = None) -> Intents:
        """Return what ``owner`` wants, or what all want together."""

    def plan(self) -> PlanView: ...

    async def put(self, intents: Intents, owner: str = ...) -> frozenset[str]:
        """Want exactly ``intents`` for ``owner``; return the switches that are not connected."""

    def declare(self, links: Mapping[Link, LinkInfo]) -> None: ...

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
Datapath = Annotated[str, Path(max_length=64, examples=["relay"])]
KindsQuery = Annotated[models.Kinds, Query(description="vm.added, link.* ...; none: all")]


def make_router(token: str, *, elsewhere: APIRouter | None = None) -> APIRouter:
    """Make the routes; only whoever sends ``token`` may use them.

    ``elsewhere`` answers for network and paths where these are known in another process.
    """
    router = APIRouter(prefix="/api/fabric")
    only = [Depends(operators_only(token))]
    known = (_network(), _paths()) if elsewhere is None else (elsewhere,)
    for part in (_callbacks(), _events(), *known):
        router.include_router(part, dependencies=only, tags=["fabric"])
    router.include_router(_socket(token))
    return router


def _network() -> APIRouter:
    router = APIRouter()

    @router.get("/datapaths")
    async def datapaths(fabric: TheFabric) -> list[models.DatapathOut]:
        """List the switches."""
        return [datapath_out(name, state) for name, state in sorted(fabric.switches().items())]

    @router.get("/datapaths/{name}")
    async def datapath(name: Datapath, fabric: TheFabric) -> models.DatapathOut:
        """Show one switch."""
        return datapath_out(name, switch_of(fabric, name))

    @router.get("/datapaths/{name}/counters")
    async def counters(name: Datapath, fabric: TheFabric) -> list[models.PortCountersOut]:
        """Read the counters of a switch's ports."""
        switch_of(fabric, name)
        return [convert.port_counters_out(name, s) for s in await fabric.port_stats(name)]

    @router.get("/datapaths/{name}/flows")
    async def flows(
        name: Datapath,
        fabric: TheFabric,
        table: Annotated[int | None, Query(ge=0, le=254)] = None,
        limit: Limit = 500,
        offset: Offset = 0,
    ) -> models.Page[models.FlowOut]:
        """Read the flow tables of a switch, by table and falling priority."""
        switch_of(fabric, name)
        found = [f for f in await fabric.flows(name) if table is None or f.table_id == table]
        found.sort(key=lambda f: (f.table_id, -f.priority, str(f.match)))
        return _page(found, offset, limit, convert.flow_out)

    @router.get("/datapaths/{name}/groups")
    async def groups(
        name: Datapath, fabric: TheFabric, limit: Limit = 500, offset: Offset = 0
    ) -> models.Page[models.GroupOut]:
        """Read the groups of a switch."""
        switch_of(fabric, name)
        found = sorted(await fabric.groups(name), key=lambda pair: pair[0].group_id)
        return _page(found, offset, limit, lambda pair: convert.group_out(*pair))

    @router.get("/datapaths/{name}/meters")
    async def meters(
        name: Datapath, fabric: TheFabric, limit: Limit = 500, offset: Offset = 0
    ) -> models.Page[models.MeterOut]:
        """Read the meters of a switch."""
        switch_of(fabric, name)
        found = sorted(await fabric.meters(name), key=lambda pair: pair[0].meter_id)
        return _page(found, offset, limit, lambda pair: convert.meter_out(*pair))

    @router.get("/ports")
    async def ports(
        fabric: TheFabric,
        datapath: Annotated[str | None, Query(max_length=64)] = None,
        limit: Limit = 1000,
        offset: Offset = 0,
    ) -> models.Page[models.PortOut]:
        """List the ports, with what is at their other end."""
        if datapath is not None:
            switch_of(fabric, datapath)
        return models.Page.of(convert.ports_out(fabric.network(), datapath), offset, limit)

    @router.get("/links")
    async def links(
        fabric: TheFabric, limit: Limit = 1000, offset: Offset = 0
    ) -> models.Page[models.LinkOut]:
        """List the links, each direction as an entry of its own."""
        found = sorted(fabric.network().links.items(), key=lambda item: item[0])
        return _page(found, offset, limit, lambda item: convert.link_out(*item))

    @router.put("/links", status_code=204)
    async def declare(wanted: models.LinksIn, fabric: TheFabric) -> None:
        """Take these as all the links that are known without discovery; some may be reserve.

        Those of the site's own plan are to be among them.
        """
        fabric.declare(convert.links_of(wanted))

    @router.get("/hosts")
    async def hosts(
        fabric: TheFabric, limit: Limit = 1000, offset: Offset = 0
    ) -> models.Page[models.HostOut]:
        """List what has a MAC address at the edge, by address."""
        found = sorted(fabric.network().hosts.values(), key=lambda host: host.mac)
        return _page(found, offset, limit, convert.host_out)

    return router


def _paths() -> APIRouter:
    router = APIRouter()
    changing = asyncio.Lock()  # what is wanted is read, changed and put back

    async def want(fabric: FabricView, flows: list[Flow]) -> frozenset[str]:
        taps = fabric.intents(OWNER).taps
        return await fabric.put(Intents(tuple(flows), taps), OWNER)

    def others(fabric: FabricView, name: str) -> list[Flow]:
        return [flow for flow in fabric.intents(OWNER).flows if flow.name != name]

    @router.get("/paths")
    async def paths(
        fabric: TheFabric, limit: Limit = 500, offset: Offset = 0
    ) -> models.Page[models.PathOut]:
        """List every flow with the way it takes now."""
        found = sorted(fabric.intents().flows, key=lambda flow: flow.name)
        own = fabric.intents(OWNER).names
        return _page(found, offset, limit, lambda f: path_out(fabric.plan(), f, f.name in own))

    @router.get("/paths/{name}")
    async def path(name: str, fabric: TheFabric) -> models.PathOut:
        """Show one flow."""
        return _path_named(fabric, name)

    @router.post("/paths", status_code=201)
    async def add(wanted: models.PathIn, fabric: TheFabric) -> models.PathMadeOut:
        """Ask for a path; the answer comes when the switches have confirmed their rules."""
        flow = convert.flow_of(check_name(wanted.name), wanted)
        async with changing:
            if flow.name in fabric.intents().names:
                raise ConflictError(f"the name {flow.name} is taken")
            pending = await want(fabric, [*others(fabric, flow.name), flow])
            return _made(fabric, flow.name, pending)

    @router.put("/paths/{name}")
    async def change(name: str, wanted: models.PathChange, fabric: TheFabric) -> models.PathMadeOut:
        """Change a path that was asked for here; what stays the same goes on uninterrupted."""
        flow = convert.flow_of(name, wanted)
        async with changing:
            _check_own(fabric, name)
            pending = await want(fabric, [*others(fabric, name), flow])
            return _made(fabric, name, pending)

    @router.delete("/paths/{name}", status_code=204)
    async def remove(name: str, fabric: TheFabric) -> None:
        """Take back a path that was asked for here."""
        async with changing:
            _check_own(fabric, name)
            await want(fabric, others(fabric, name))

    @router.get("/intents")
    async def intents(fabric: TheFabric) -> models.IntentsOut:
        """Show what is wanted of the fabric as a whole, and what cannot be had now."""
        unreachable = {
            name: sorted({str(egress.at) for egress in egresses})
            for name, egresses in fabric.plan().unreachable.items()
            if egresses
        }
        return convert.intents_out(fabric.intents(), unreachable)

    return router


def _callbacks() -> APIRouter:
    router = APIRouter(prefix="/callbacks")

    @router.get("")
    async def callbacks(fabric: TheFabric) -> list[models.CallbackOut]:
        """List the callbacks."""
        return [convert.callback_out(state) for state in fabric.notifier.subscriptions()]

    @router.post("", status_code=201)
    async def add(wanted: models.CallbackIn, fabric: TheFabric) -> models.CallbackMadeOut:
        """Ask to be told of events by POST; see docs/protocols/callbacks.md."""
        made = await fabric.notifier.subscribe(
            wanted.url,
            encoding=wanted.encoding,
            kinds=frozenset(wanted.kinds),
            secret=wanted.secret,
        )
        out = convert.callback_out(fabric.notifier.subscription(made.id))
        return models.CallbackMadeOut(**out.model_dump(), secret=made.secret)

    @router.get("/{callback}")
    async def callback(callback: str, fabric: TheFabric) -> models.CallbackOut:
        """Show one callback and how it goes."""
        return convert.callback_out(fabric.notifier.subscription(callback))

    @router.put("/{callback}")
    async def change(
        callback: str, wanted: models.CallbackChange, fabric: TheFabric
    ) -> models.CallbackOut:
        """Change what a callback is told, and how."""
        state: SubscriptionState = await fabric.notifier.change(
            callback, encoding=wanted.encoding, kinds=frozenset(wanted.kinds)
        )
        return convert.callback_out(state)

    @router.delete("/{callback}", status_code=204)
    async def remove(callback: str, fabric: TheFabric) -> None:
        """End a callback."""
        await fabric.notifier.unsubscribe(callback)

    return router


def _events() -> APIRouter:
    router = APIRouter(prefix="/events")

    @router.get("")
    async def recent(
        fabric: TheFabric,
        kinds: KindsQuery = [],  # noqa: B006  # FastAPI copies it
        limit: Annotated[int, Query(ge=1, le=1000)] = 100,
    ) -> list[EventOut]:
        """Read the newest events of the network, newest first."""
        return [event_out(e) for e in await fabric.recent_events(1000) if told(e, kinds)][:limit]

    @router.get("/stream", response_class=EventSourceResponse)
    async def stream(
        fabric: TheFabric,
        kinds: KindsQuery = [],  # noqa: B006
    ) -> AsyncIterable[ServerSentEvent]:
        """Stream events of the network, as server-sent events."""
        async with aclosing(fabric.subscribe()) as happening:
            async for event in happening:
                if told(event, kinds):
                    yield ServerSentEvent(data=event_out(event).model_dump())

    return router


def _socket(token: str) -> APIRouter:
    router = APIRouter()

    @router.websocket("/events")
    async def events(socket: WebSocket) -> None:
        """Send events as they happen, one JSON text each.

        The operator's token comes in the header, or with the first message from a page:
        ``{"token": "...", "kinds": ["vm.*"]}``; ``kinds`` may be in the query instead.
        """
        await socket.accept()
        kinds = socket.query_params.getlist("kinds")
        given = socket.headers.get("authorization", "")
        if not is_operator(given.removeprefix("Bearer "), token):
            hello = await _hello(socket)
            if hello is None or not is_operator(str(hello.get("token", "")), token):
                await socket.close(_POLICY_VIOLATION, "this needs the operator's token")
                return
            asked = hello.get("kinds", [])
            kinds = [str(kind) for kind in asked] if isinstance(asked, list) else []
        try:
            fabric = fabric_of(socket)
        except UnavailableError as error:
            await socket.close(1011, str(error))
            return
        await _pump(socket, fabric, kinds)

    return router


async def _hello(socket: WebSocket) -> dict[str, Any] | None:
    with suppress(TimeoutError, ValueError, KeyError, WebSocketDisconnect):
        async with asyncio.timeout(_HELLO_TIMEOUT):
            text = await socket.receive_text()
        hello = json.loads(text) if len(text) <= _HELLO_LIMIT else None
        return hello if isinstance(hello, dict) else None
    return None


async def _pump(socket: WebSocket, fabric: FabricView, kinds: Collection[str]) -> None:
    """Send until the other side closes."""

    async def send() -> None:
        async with aclosing(fabric.subscribe()) as happening:
            first = asyncio.ensure_future(anext(happening))
            try:
                await asyncio.sleep(0)  # from here on nothing is missed
                await socket.send_json({"kind": "subscribed"})
                event = await first
            finally:
                first.cancel()
            while True:
                if told(event, kinds):
                    await socket.send_text(event_out(event).model_dump_json())
                event = await anext(happening)

    sending = asyncio.create_task(send(), name="fabric-events")
    try:
        while (await socket.receive())["type"] != "websocket.disconnect":
            pass
    finally:
        sending.cancel()
        with suppress(asyncio.CancelledError, WebSocketDisconnect, RuntimeError):
            await sending


def switch_of(fabric: FabricView, name: str) -> SwitchState:
    """Return a switch's state.

    Raises:
        NotFoundError: there is none of this name.
    """
    try:
        return fabric.switches()[name]
    except KeyError:
        raise NotFoundError(f"there is no datapath {name[:64]!r}") from None


def datapath_out(name: str, state: SwitchState) -> models.DatapathOut:
    """Return a switch as its operator sees it."""
    return models.DatapathOut(
        name=name,
        dpid=None if state.dpid is None else f"{state.dpid:016x}",
        connected=state.connected,
        ports=len(state.ports),
        rules=state.rules,
    )


def path_out(plan: PlanView, flow: Flow, own: bool) -> models.PathOut:
    """Return a flow and the way it takes."""
    tree = plan.trees.get(flow.name)
    links = sorted(tree.links) if tree is not None else []
    hops = []
    for link in links:
        bypass = plan.bypasses.get(link) if flow.protected else None
        around = None if bypass is None else [str(step.src) for step in bypass]
        hops.append(models.HopOut(src=str(link.src), dst=str(link.dst), bypass=around))
    return models.PathOut(
        name=flow.name,
        match=convert.match_out(flow.match),
        ingress=str(flow.ingress),
        egresses=[convert.egress_out(egress) for egress in sorted(flow.egress, key=repr)],
        through=[models.ServiceIO(to=str(s.to), back=str(s.back)) for s in flow.through],
        policy=flow.policy,
        protected=flow.protected,
        rate_kbps=flow.rate_kbps,
        priority=flow.priority,
        links=hops,
        unreachable=sorted({str(e.at) for e in plan.unreachable.get(flow.name, ())}),
        own=own,
    )


def told(event: Event, kinds: Collection[str]) -> bool:
    """Say whether an event is one of the network and of a kind that was asked for."""
    return event.kind.partition(".")[0] in FAMILIES and kind_wanted(event.kind, kinds)


def event_out(event: Event) -> EventOut:
    """Return an event."""
    return EventOut(kind=event.kind, subject=event.subject, time=event.time, data=dict(event.data))


def _path_named(fabric: FabricView, name: str) -> models.PathOut:
    for flow in fabric.intents().flows:
        if flow.name == name:
            return path_out(fabric.plan(), flow, name in fabric.intents(OWNER).names)
    raise NotFoundError(f"there is no path {name[:40]!r}")


def _made(fabric: FabricView, name: str, pending: Collection[str]) -> models.PathMadeOut:
    return models.PathMadeOut(path=_path_named(fabric, name), pending=sorted(pending))


def _check_own(fabric: FabricView, name: str) -> None:
    if name in fabric.intents(OWNER).names:
        return
    if name in fabric.intents().names:
        raise ConflictError(f"the path {name} is the site's own")
    raise NotFoundError(f"there is no path {name[:40]!r}")


def _page(
    entries: list[Any], offset: int, limit: int, convert_one: Callable[[Any], _Made]
) -> models.Page[_Made]:
    """Convert only what is shown."""
    shown = [convert_one(entry) for entry in entries[offset : offset + limit]]
    return models.Page(total=len(entries), offset=offset, items=shown)
