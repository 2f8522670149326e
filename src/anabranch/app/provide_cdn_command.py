"""``anabranch provide cdn``: ActiveCDN's provider's side, beside nginx.

nginx asks this program about every request, and this answers with a redirect to a node, or with
the path from which nginx is to serve it itself (X-Accel-Redirect).
"""

import asyncio
from contextlib import AsyncExitStack
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated, Any

import typer
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from anabranch.app.module_send_commands import KeyFile, UserName
from anabranch.app.providing import (
    ArchiveFile,
    Ttl,
    Url,
    offer_of,
    place_of,
    until_interrupted,
)
from anabranch.app.serving import listen, serve
from anabranch.app.terminal import command
from anabranch.core.errors import UsageError
from anabranch.services.blocks.http_target import TargetError, checked_target
from anabranch.services.blocks.web_client import checked_origin
from anabranch.services.keys import PrivateKey
from anabranch.services.modules.activecdn.locations import Locations
from anabranch.services.modules.activecdn.provider import CdnProvider, SignalledEdge
from anabranch.services.node.sending import signalling
from anabranch.services.signalling.compose import Author

CLIENT_FIELD = "x-real-ip"


def add_cdn_command(app: typer.Typer) -> None:
    """Add the command to ``anabranch provide``."""
    app.command("cdn")(cdn)


@command
def cdn(
    user: UserName,
    key: KeyFile,
    url: Url,
    archive: ArchiveFile,
    origin: Annotated[str, typer.Option(help="http://ADDRESS[:PORT] that nodes fetch from.")],
    locations: Annotated[
        Path, typer.Option(help="Where addresses are: CSV of prefix, latitude, longitude, name.")
    ],
    listen_at: Annotated[
        str, typer.Option("--listen", help="ADDRESS:PORT at which nginx asks.")
    ] = "127.0.0.1:8088",
    internal: Annotated[
        str, typer.Option(help="nginx's internal location from which it serves by itself.")
    ] = "/origin",
    host: Annotated[str | None, typer.Option(help="Host field of nodes' requests.")] = None,
    radius: Annotated[float, typer.Option(min=0, help="Kilometres within which is near.")] = 500,
    fresh: Annotated[
        int, typer.Option(min=0, help="Seconds, for objects of which the origin says nothing.")
    ] = 60,
    clip: Annotated[str | None, typer.Option(help="Path of a clip for videos.")] = None,
    videos: Annotated[str, typer.Option(help="Pattern of the paths that get it.")] = "*.mp4",
    at: Annotated[float, typer.Option(min=0, help="Second of a video before which it comes.")] = 0,
    wait: Annotated[float, typer.Option(min=0, help="Seconds that users wait for it.")] = 0,
    transparent: Annotated[
        str | None,
        typer.Option(help="The site's address: nodes answer connections to its port 80, too."),
    ] = None,
    ttl: Ttl = 120,
) -> None:
    """Serve a site from nodes near its users, as its origin's nginx asks."""
    private = PrivateKey.load(key)
    try:
        properties = {"origin": checked_origin(origin), "fresh": str(fresh)}
    except ValueError as error:
        raise UsageError(f"--origin: {error}") from None
    if host is not None:
        properties["host"] = host
    if clip is not None:
        properties |= {"clip": clip, "videos": videos, "at": f"{at:g}", "wait": f"{wait:g}"}
    packets: dict[str, Any] = {}
    if transparent is not None:
        address, _ = place_of(f"{transparent}:80")
        packets = {"filter_dst": address, "filter_proto": "tcp", "filter_ports": (80,)}
    offer = offer_of(archive, url, ttl, **packets)
    table = Locations.load(locations)
    place = place_of(listen_at)

    async def run() -> None:
        async with AsyncExitStack() as stack:
            signaller = await stack.enter_async_context(signalling())
            edge = SignalledEdge(signaller, Author(user, private), offer, properties)
            provider = CdnProvider(table, edge, ttl=ttl, radius_km=radius)
            listener = stack.enter_context(listen(*place))
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(serve(routing_api(provider, internal), listener, None))
                tasks.create_task(provider.run(), name="cdn")

    until_interrupted(run)


def routing_api(provider: CdnProvider, internal: str = "/origin") -> Starlette:
    """Return what nginx asks. Asked without its X-Real-IP, it tells what stands where (JSON)."""

    async def route(request: Request) -> Response:
        client = request.headers.get(CLIENT_FIELD)
        if client is None:
            return JSONResponse(provider.status())
        try:
            address = ip_address(client)
            path, query = request.scope["raw_path"], request.scope["query_string"]
            target = checked_target(path, query)
        except (TargetError, ValueError) as error:
            return PlainTextResponse(f"{error}\n", 400)
        node = provider.route(address)
        if node is None:
            return Response(headers={"X-Accel-Redirect": f"{internal}{target}"})
        where = {
            "Location": f"http://{node.removesuffix(':80')}{target}",
            "Cache-Control": "no-store",
        }
        return Response(status_code=302, headers=where)

    return Starlette(routes=[Route("/{path:path}", route, methods=["GET", "HEAD"])])
