"""``anabranch provide monitor``: NetMonitor on the nodes along a path, with a live page."""

import asyncio
from contextlib import AsyncExitStack
from dataclasses import asdict, dataclass
from typing import Annotated, Any

import typer
from fastapi import FastAPI, Response
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

from anabranch.app.module_send_commands import KeyFile, Towards, UserName
from anabranch.app.providing import (
    ArchiveFile,
    Ttl,
    Url,
    offer_of,
    place_of,
    until_interrupted,
)
from anabranch.app.serving import listen, serve
from anabranch.app.terminal import command, err
from anabranch.console import pages
from anabranch.core.errors import UsageError
from anabranch.services.keys import PrivateKey
from anabranch.services.modules.netmonitor.provider import Monitor, SignalledEdge
from anabranch.services.node.sending import resolve, signalling
from anabranch.services.signalling.compose import Author


def add_monitor_command(app: typer.Typer) -> None:
    """Add the command to ``anabranch provide``."""
    app.command("monitor")(monitor)


@command
def monitor(
    towards: Towards,
    user: UserName,
    key: KeyFile,
    url: Url,
    archive: ArchiveFile,
    packets: Annotated[
        str, typer.Option("--filter", help="Which packets: udp, tcp, or udp:PORT,PORT.")
    ] = "udp",
    filter_dst: Annotated[
        str | None, typer.Option(help="Where they go to; without it, your own address.")
    ] = None,
    listen_at: Annotated[
        str, typer.Option("--listen", help="ADDRESS:PORT of page, JSON and metrics.")
    ] = "127.0.0.1:8089",
    interval: Annotated[float, typer.Option(min=0.2, help="Seconds between questions.")] = 1.0,
    ttl: Ttl = 120,
) -> None:
    """Show live which packets pass the nodes on the way to a host: by source, destination, TTL."""
    private = PrivateKey.load(key)
    protocol, _, ports = packets.partition(":")
    if ports and not all(port.isdecimal() and 0 < int(port) < 65536 for port in ports.split(",")):
        raise UsageError(f"--filter: {packets!r} is no PROTOCOL:PORT,PORT")
    numbers = tuple(map(int, ports.split(","))) if ports else ()
    place = place_of(listen_at)

    async def run() -> None:
        async with AsyncExitStack() as stack:
            destination = await resolve(towards)
            signaller = await stack.enter_async_context(signalling())
            # Who is protected is always written down: addresses of a flow are not signed.
            meant = filter_dst or str(signaller.source_towards(destination))
            offer = offer_of(
                archive, url, ttl,
                filter_proto=protocol, filter_ports=numbers, filter_dst=meant,
            )  # fmt: skip
            edge = SignalledEdge(signaller, Author(user, private), destination, offer)
            made = Monitor(edge, interval=interval, renewal=ttl / 3)
            listener = stack.enter_context(listen(*place))
            app = monitor_api(made, Shown(towards, meant, packets))
            err.print(f"http://{place[0]}:{place[1]}/")
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(serve(app, listener, None), name="http")
                tasks.create_task(made.run(), name="monitor")

    until_interrupted(run)


@dataclass(frozen=True, slots=True)
class Shown:
    """What is looked at: nodes on the way to a host, and packets to an address or prefix."""

    towards: str
    destination: str
    packets: str


def monitor_api(made: Monitor, shown: Shown) -> FastAPI:
    """Return page, ``/api/monitor`` and ``/metrics`` of a monitor."""
    app = FastAPI(title="NetMonitor", openapi_url=None)
    registry = CollectorRegistry()
    registry.register(made.counters)

    @app.get("/api/monitor")
    async def snapshot() -> dict[str, Any]:
        return {**asdict(shown), "trouble": made.trouble, **made.counters.snapshot()}

    @app.get("/metrics")
    async def metrics() -> Response:
        return Response(generate_latest(registry), media_type=CONTENT_TYPE_LATEST)

    pages.install_one(app, "/", "monitor.html")
    return app
