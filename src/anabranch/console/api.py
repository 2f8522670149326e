"""The application: routes over a :class:`~anabranch.site.site.Site`."""

import time
from collections.abc import AsyncIterable
from contextlib import aclosing
from typing import Annotated

from fastapi import APIRouter, Depends, FastAPI, Request, Response
from fastapi.sse import EventSourceResponse, ServerSentEvent

import anabranch
from anabranch.console import (
    fabric_api,
    models,
    nodes_api,
    pages,
    pipelines_api,
    problems,
    soleil,
    statistics_api,
    thumbnails,
    whep,
    whep_events,
    whip,
)
from anabranch.console.channel_views import channel_out, channels_out, detail_out
from anabranch.console.fabric_proxy import make_proxy
from anabranch.console.invitations import make_invitations
from anabranch.console.limits import LimitBody
from anabranch.console.metrics import render_metrics
from anabranch.console.open_to_others import OpenToOthers
from anabranch.console.operator_token import operators_only
from anabranch.site.control import InsideControl
from anabranch.site.separate import SeparateControl
from anabranch.site.site import Site
from anabranch.tree.transport.tunnels import Tunnels


def make_app(site: Site, *, token: str, tunnels: Tunnels | None = None) -> FastAPI:
    """Make the web application.

    Args:
        site: what it serves.
        token: the operator's secret; whoever sends it as a bearer may change the site.
        tunnels: for nodes that have nothing but HTTP; None: there are no such nodes.

    Raises:
        ValueError: the token is empty: everybody would know it.
    """
    if not token:
        raise ValueError("the operator's token is empty")
    app = FastAPI(
        title="Anabranch",
        version=anabranch.__version__,
        summary="A programmable edge for live media: channels, seats and the tree beneath them.",
        docs_url=None,  # its page would load scripts from other people's servers
        redoc_url=None,
        openapi_url="/api/openapi.json",
    )
    app.state.site = site
    control = site.underlay.control
    elsewhere = wishes = None
    if isinstance(control, SeparateControl):
        app.state.fabric = control.announcements
        elsewhere = make_proxy(control)
    elif isinstance(control, InsideControl):
        app.state.fabric, wishes = control.fabric, control.wishes
    problems.install(app)
    app.add_middleware(LimitBody, limit=128 * 1024)
    app.add_middleware(OpenToOthers)
    app.include_router(_public())
    app.include_router(thumbnails.make_router(site))
    app.include_router(_operator(token))
    app.include_router(fabric_api.make_router(token, wishes=wishes, elsewhere=elsewhere))
    app.include_router(nodes_api.make_router(token))
    app.include_router(pipelines_api.make_router(token))
    app.include_router(make_invitations(token))
    app.include_router(statistics_api.make_router(token))
    app.include_router(whep.router)
    app.include_router(whip.router)
    app.include_router(whep_events.make_router(site))
    app.include_router(_metrics())
    if tunnels is not None:
        app.include_router(soleil.make_router(tunnels))
    pages.install(app)
    return app


def site_of(request: Request) -> Site:
    """Return the site that a request is about."""
    site: Site = request.app.state.site
    return site


TheSite = Annotated[Site, Depends(site_of)]


def _public() -> APIRouter:
    router = APIRouter(prefix="/api", tags=["viewers"])

    @router.get("/channels")
    async def channels(site: TheSite) -> models.ChannelsOut:
        """List the channels."""
        return models.ChannelsOut(channels=await channels_out(site))

    @router.get("/channels/{name}")
    async def channel(name: str, site: TheSite) -> models.ChannelOut:
        """Show one channel."""
        return await channel_out(site, name)

    @router.get("/time")
    async def clock(response: Response) -> models.TimeOut:
        """Tell the director's clock."""
        response.headers["Cache-Control"] = "no-store"
        return models.TimeOut(epoch_ms=time.time() * 1000)

    @router.get("/events", response_class=EventSourceResponse)
    async def events(site: TheSite) -> AsyncIterable[ServerSentEvent]:
        """Stream what changes, as server-sent events."""
        async with aclosing(site.events.subscribe()) as happening:
            async for event in happening:
                if event.kind.startswith(("channel.", "seat.", "leaf.")):
                    out = models.EventOut(
                        kind=event.kind, subject=event.subject, time=event.time, data={}
                    )
                    yield ServerSentEvent(data=out.model_dump())

    return router


def _operator(token: str) -> APIRouter:
    router = APIRouter(
        prefix="/api", tags=["operator"], dependencies=[Depends(operators_only(token))]
    )

    @router.post("/channels", status_code=201)
    async def add(wanted: models.ChannelIn, site: TheSite) -> models.ChannelDetailOut:
        """Add a channel and put it on the air."""
        await site.lineup.add(
            wanted.name,
            wanted.source,
            title=wanted.title,
            once=wanted.once,
            key=wanted.key,
        )
        return await detail_out(site, wanted.name)

    @router.get("/channels/{name}/detail")
    async def detail(name: str, site: TheSite) -> models.ChannelDetailOut:
        """Show a channel with its way in and its key."""
        return await detail_out(site, name)

    @router.delete("/channels/{name}", status_code=204)
    async def remove(name: str, site: TheSite) -> None:
        """Take a channel off the air; its viewers' seats end."""
        await site.remove_channel(name)

    @router.get("/site")
    async def overview(site: TheSite) -> models.SiteOut:
        """Show the whole site."""
        return models.SiteOut(**(await site.overview()), channels=await channels_out(site))

    @router.get("/seats")
    async def seats(site: TheSite) -> list[models.SeatOut]:
        """List the viewers with their figures."""
        return [models.SeatOut(**fields) for fields in await site.seat_reports()]

    @router.get("/ports")
    async def ports(site: TheSite) -> list[models.PortOut]:
        """Read the counters of every switch port: what flows where."""
        return [models.PortOut(**fields) for fields in await site.port_counters()]

    @router.get("/log")
    async def log(site: TheSite, limit: int = 100) -> list[models.EventOut]:
        """Read the newest lines of the event log."""
        return [
            models.EventOut(kind=e.kind, subject=e.subject, time=e.time, data=dict(e.data))
            for e in await site.log.recent(min(max(limit, 1), 1000))
        ]

    return router


def _metrics() -> APIRouter:
    router = APIRouter(include_in_schema=False)

    @router.get("/metrics")
    async def metrics(site: TheSite) -> Response:
        return await render_metrics(site)

    return router
