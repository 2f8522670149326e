"""``/api/fabric``: the network for its operator. Switches, what they hold, paths, events."""

import asyncio
import json
from collections.abc import AsyncIterable, Callable, Collection
from contextlib import aclosing, suppress
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Path, Query, WebSocket
from fastapi.sse import EventSourceResponse, ServerSentEvent
from starlette.websockets import WebSocketDisconnect

from anabranch.console import fabric_json as convert
from anabranch.console import fabric_models as models
from anabranch.console.fabric_paths import make_paths
from anabranch.console.fabric_services import make_services
from anabranch.console.fabric_view import FabricView, Limit, Offset, TheFabric, fabric_of, page
from anabranch.console.models import EventOut
from anabranch.console.operator_token import is_operator, operators_only
from anabranch.console.service_keys import make_keys, node_or_operator
from anabranch.core.errors import NotFoundError, UnavailableError
from anabranch.core.events import Event
from anabranch.fabric.notices import kind_wanted
from anabranch.fabric.notify import SubscriptionState
from anabranch.fabric.switches import SwitchState
from anabranch.fabric.wishes import Wishes

FAMILIES = frozenset(
    (
        *("switch", "port", "link", "host", "vm", "topology", "flow", "path", "callback"),
        *("controller", "service_node"),
    )
)
_HELLO_LIMIT = 4096
_HELLO_TIMEOUT = 5.0
_POLICY_VIOLATION = 1008
Datapath = Annotated[str, Path(max_length=64, examples=["relay"])]
KindsQuery = Annotated[models.Kinds, Query(description="vm.added, link.* ...; none: all")]


Admits = Callable[[WebSocket, str | None], bool]
"""Says whether a socket may be had by who asks for it, or by who sent this as a token on it."""


def make_router(
    token: str,
    *,
    admits: Admits | None = None,
    wishes: Wishes | None = None,
    elsewhere: APIRouter | None = None,
) -> APIRouter:
    """Make the routes.

    Args:
        token: the operator's: only whoever sends it may use them, or, what is a service node's,
            that node's key.
        admits: says who may have the socket, where all else is guarded already.
        wishes: keeps what operators ask for; None: it ends with the fabric.
        elsewhere: answers for network and paths where these are known in another process.
    """
    router = APIRouter(prefix="/api/fabric")
    operators = [Depends(operators_only(token))] if admits is None else []
    nodes = [Depends(node_or_operator(token))] if admits is None else []
    kept = wishes or Wishes()
    here = (_network(kept), make_paths(kept))
    known = here if elsewhere is None else (elsewhere,)
    for part in (_callbacks(), _events(), make_keys(token), *known):
        router.include_router(part, dependencies=operators, tags=["fabric"])
    if elsewhere is None:
        router.include_router(make_services(operators, nodes), tags=["fabric"])
    router.include_router(_socket(admits or _has_token(token)))
    return router


def _has_token(token: str) -> Admits:
    def admits(socket: WebSocket, sent: str | None) -> bool:
        header = socket.headers.get("authorization", "").removeprefix("Bearer ")
        return is_operator(header if sent is None else sent, token)

    return admits


def _network(wishes: Wishes) -> APIRouter:
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
        return page(found, offset, limit, convert.flow_out)

    @router.get("/datapaths/{name}/groups")
    async def groups(
        name: Datapath, fabric: TheFabric, limit: Limit = 500, offset: Offset = 0
    ) -> models.Page[models.GroupOut]:
        """Read the groups of a switch."""
        switch_of(fabric, name)
        found = sorted(await fabric.groups(name), key=lambda pair: pair[0].group_id)
        return page(found, offset, limit, lambda pair: convert.group_out(*pair))

    @router.get("/datapaths/{name}/meters")
    async def meters(
        name: Datapath, fabric: TheFabric, limit: Limit = 500, offset: Offset = 0
    ) -> models.Page[models.MeterOut]:
        """Read the meters of a switch."""
        switch_of(fabric, name)
        found = sorted(await fabric.meters(name), key=lambda pair: pair[0].meter_id)
        return page(found, offset, limit, lambda pair: convert.meter_out(*pair))

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
        return page(found, offset, limit, lambda item: convert.link_out(*item))

    @router.get("/counters")
    async def sums(fabric: TheFabric) -> dict[str, int]:
        """Read what was done for hosts and service nodes, and what was contained, by name."""
        return dict(fabric.counters())

    @router.put("/links", status_code=204)
    async def declare(wanted: models.LinksIn, fabric: TheFabric) -> None:
        """Take these as the links that are known without discovery; some may be reserve.

        Those that the network was started with stay, named or not: here they can only be given
        another capacity, or be made reserve or not. All others that were declared are replaced.
        """
        async with wishes.changing(fabric):
            fabric.declare(convert.links_of(wanted.links))

    @router.get("/hosts")
    async def hosts(
        fabric: TheFabric, limit: Limit = 1000, offset: Offset = 0
    ) -> models.Page[models.HostOut]:
        """List what has a MAC address at the edge, by address."""
        found = sorted(fabric.network().hosts.values(), key=lambda host: host.mac)
        return page(found, offset, limit, convert.host_out)

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


def _socket(admits: Admits) -> APIRouter:
    router = APIRouter()

    @router.websocket("/events")
    async def events(socket: WebSocket) -> None:
        """Send events as they happen, one JSON text each.

        A token comes in the header, or with the first message from a page:
        ``{"token": "...", "kinds": ["vm.*"]}``; ``kinds`` may be in the query instead.
        """
        await socket.accept()
        kinds = socket.query_params.getlist("kinds")
        if not admits(socket, None):
            hello = await _hello(socket)
            if hello is None or not admits(socket, str(hello.get("token", ""))):
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


def told(event: Event, kinds: Collection[str]) -> bool:
    """Say whether an event is one of the network and of a kind that was asked for."""
    return event.kind.partition(".")[0] in FAMILIES and kind_wanted(event.kind, kinds)


def event_out(event: Event) -> EventOut:
    """Return an event."""
    return EventOut(kind=event.kind, subject=event.subject, time=event.time, data=dict(event.data))
