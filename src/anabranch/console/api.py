"""The application: routes over a :class:`~anabranch.site.site.Site`."""

import time
from typing import Annotated

from fastapi import APIRouter, Depends, FastAPI, Request, Response

import anabranch
from anabranch.console import (
    audience_api,
    captions_api,
    channels_api,
    fabric_api,
    ingress_api,
    invitations,
    models,
    nodes_api,
    pages,
    pipelines_api,
    problems,
    seats_api,
    services_api,
    soleil,
    statistics_api,
    thumbnails,
    whep,
    whep_events,
    whip,
)
from anabranch.console.channel_views import channels_out, names_listed
from anabranch.console.fabric_proxy import make_proxy
from anabranch.console.limits import LimitBody
from anabranch.console.metrics import render_metrics
from anabranch.console.open_to_others import OpenToOthers
from anabranch.console.people import api as people_api
from anabranch.console.people.caller import Caller
from anabranch.console.people.doors import Doors
from anabranch.console.people.guard import Gate, Guard, caller_of, operators_of
from anabranch.console.people.openapi import describe
from anabranch.console.people.people import People
from anabranch.console.people.rules import RULES
from anabranch.site.control import InsideControl
from anabranch.site.separate import SeparateControl
from anabranch.site.site import Site
from anabranch.tree.transport.tunnels import Tunnels


def make_app(
    site: Site, *, token: str, people: People | None = None, tunnels: Tunnels | None = None
) -> FastAPI:
    """Make the web application.

    Args:
        site: what it serves; its store is open when the first request comes.
        token: the operator's secret; whoever sends it as a bearer may do everything.
        people: the site's; None: they are read from its store with the first request.
        tunnels: for nodes that have nothing but HTTP; None: there are no such nodes.

    Raises:
        ValueError: the token is empty: everybody would know it; or a route has no rule.
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
    people = people or People(site.database, site.audience, token)
    app.state.people = people
    doors = Doors(site, people)
    gate = Gate(people, site, RULES)
    problems.install(app)
    app.add_middleware(Guard, gate=gate)
    app.add_middleware(LimitBody, limit=128 * 1024)
    app.add_middleware(OpenToOthers)
    app.include_router(people_api.make_router(site, people, doors))
    app.include_router(channels_api.make_router(site, people, doors))
    app.include_router(captions_api.make_router(site))
    app.include_router(audience_api.make_router(site, people, doors))
    app.include_router(_time())
    app.include_router(thumbnails.make_router(site))
    app.include_router(_operator(people))
    app.include_router(seats_api.make_router(site))
    app.include_router(
        fabric_api.make_router(
            token, admits=operators_of(people), wishes=wishes, elsewhere=elsewhere
        )
    )
    app.include_router(ingress_api.make_router())
    app.include_router(nodes_api.make_router())
    app.include_router(pipelines_api.make_router())
    app.include_router(services_api.make_router())
    app.include_router(invitations.make_router())
    app.include_router(statistics_api.make_router())
    app.include_router(whep.router)
    app.include_router(whip.router)
    app.include_router(whep_events.make_router(site))
    app.include_router(_metrics())
    if tunnels is not None:
        app.include_router(soleil.make_router(tunnels))
    pages.install(app)
    gate.cover(app.routes)
    describe(app, RULES)
    return app


def site_of(request: Request) -> Site:
    """Return the site that a request is about."""
    site: Site = request.app.state.site
    return site


TheSite = Annotated[Site, Depends(site_of)]


def _time() -> APIRouter:
    router = APIRouter(prefix="/api", tags=["viewers"])

    @router.get("/time")
    async def clock(response: Response) -> models.TimeOut:
        """Tell the director's clock."""
        response.headers["Cache-Control"] = "no-store"
        return models.TimeOut(epoch_ms=time.time() * 1000)

    return router


def _operator(people: People) -> APIRouter:
    router = APIRouter(prefix="/api", tags=["operator"])

    @router.get("/site")
    async def overview(
        site: TheSite, caller: Annotated[Caller, Depends(caller_of)]
    ) -> models.SiteOut:
        """Show the whole site."""
        return models.SiteOut(
            **(await site.overview()),
            channels=await channels_out(site, people, caller),
        )

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
    async def metrics(site: TheSite, caller: Annotated[Caller, Depends(caller_of)]) -> Response:
        return await render_metrics(site, names_listed(site, caller))

    return router
