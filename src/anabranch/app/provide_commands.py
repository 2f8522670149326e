"""``anabranch provide overload|relay|cdn|monitor``: the provider's side of the applications.

Each runs until it is interrupted, and then removes what it had installed.
"""

import asyncio
import socket
import tempfile
import time
from contextlib import AsyncExitStack
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated, Any

import typer
from fastapi import FastAPI, HTTPException

from anabranch.app.module_send_commands import KeyFile, UserName
from anabranch.app.provide_cdn_command import add_cdn_command
from anabranch.app.provide_monitor_command import add_monitor_command
from anabranch.app.providing import (
    ArchiveFile,
    Ttl,
    Url,
    offer_of,
    place_of,
    until_interrupted,
)
from anabranch.app.serving import serve
from anabranch.app.terminal import command
from anabranch.services.keys import PrivateKey
from anabranch.services.modules.mediarelay.provider import RelayProvider
from anabranch.services.modules.mediarelay.provider import SignalledEdge as RelayEdge
from anabranch.services.modules.overload.control import Thresholds
from anabranch.services.modules.overload.kamailio import JsonRpc, Kamailio
from anabranch.services.modules.overload.provider import ReceivingEntity, Settings, SignalledEdge
from anabranch.services.node.sending import signalling
from anabranch.services.signalling.compose import Author

group = typer.Typer(
    help="Have modules where your users are.", no_args_is_help=True, add_completion=False
)
add_cdn_command(group)
add_monitor_command(group)

Rpc = Annotated[Path, typer.Option(help="Kamailio's jsonrpcs dgram_socket.")]
Sip = Annotated[str, typer.Option(help="ADDRESS:PORT of the SIP server.")]


@group.command()
@command
def overload(
    user: UserName,
    key: KeyFile,
    url: Url,
    archive: ArchiveFile,
    rpc: Rpc,
    sip: Sip,
    feedback: Annotated[str, typer.Option(help="ADDRESS:PORT to which modules report, UDP.")],
    delay: Annotated[
        float, typer.Option(min=0.01, help="Seconds that requests wait when control begins.")
    ] = 0.2,
    capacity: Annotated[
        float | None, typer.Option(min=1, help="Requests a second that are too many in any case.")
    ] = None,
    callers: Annotated[int, typer.Option(min=1, help="Towards so many, the busiest.")] = 4,
    ttl: Ttl = 120,
) -> None:
    """Protect a Kamailio: while it is overloaded, the excess is answered at the edge."""
    private = PrivateKey.load(key)
    at, reports = place_of(sip), place_of(feedback)
    target = min(Thresholds().target, delay / 2)
    settings = Settings(
        reports, private, Thresholds(delay=delay, target=target, capacity=capacity),
        callers, ttl / 3,
    )  # fmt: skip
    offer = offer_of(archive, url, ttl, filter_dst=at[0], filter_proto="udp", filter_ports=(at[1],))

    async def run() -> None:
        async with AsyncExitStack() as stack:
            signaller = await stack.enter_async_context(signalling())
            kamailio = _kamailio(stack, rpc, at)
            edge = SignalledEdge(signaller, Author(user, private), offer)
            listener = _udp()
            listener.bind(reports)
            await ReceivingEntity(settings, kamailio, edge, listener).run()

    until_interrupted(run)


@group.command()
@command
def relay(
    user: UserName,
    key: KeyFile,
    url: Url,
    archive: ArchiveFile,
    rpc: Rpc,
    sip: Sip,
    table: Annotated[
        str, typer.Option(help="Kamailio's htable of addresses that have registered.")
    ] = "registered",
    listen: Annotated[
        str, typer.Option(help="ADDRESS:PORT on which credentials are given out, HTTP.")
    ] = "127.0.0.1:8087",
    ttl: Ttl = 120,
) -> None:
    """Have a TURN server near each user agent that registers at a Kamailio.

    GET /credentials?address=ADDRESS&user=NAME gives what such a user agent may use.
    """
    private = PrivateKey.load(key)
    offer = offer_of(archive, url, ttl)
    host, port = place_of(listen)

    async def run() -> None:
        async with AsyncExitStack() as stack:
            signaller = await stack.enter_async_context(signalling())
            kamailio = _kamailio(stack, rpc, place_of(sip), table)
            edge = RelayEdge(signaller, Author(user, private), offer)
            provider = RelayProvider(kamailio, edge, renewal=ttl / 3)
            listener = stack.enter_context(socket.create_server((host, port)))
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(serve(credentials_api(provider), listener, None), name="http")
                tasks.create_task(provider.run(), name="relays")

    until_interrupted(run)


def credentials_api(provider: RelayProvider, ttl: int = 3600) -> FastAPI:
    """Return the service that gives out credentials; who may ask is the listener's affair."""
    app = FastAPI(title="TURN credentials", openapi_url=None)

    @app.get("/credentials")
    def credentials(address: str, user: str) -> dict[str, Any]:
        try:
            where = ip_address(address)
        except ValueError:
            raise HTTPException(422, f"{address[:60]!r} is no address") from None
        found = provider.relays.credentials(where, user[:128], time.time(), ttl)
        if found is None:
            raise HTTPException(404, "there is no relay near that address yet")
        return {
            "username": found.username, "password": found.password, "ttl": found.ttl,
            "uris": list(found.uris),
        }  # fmt: skip

    return app


def _kamailio(
    stack: AsyncExitStack, rpc: Path, at: tuple[str, int], table: str = "callers"
) -> Kamailio:
    directory = stack.enter_context(tempfile.TemporaryDirectory(prefix="ab-provide-"))
    Path(directory).chmod(0o711)  # Kamailio answers to a socket in it, as a user of its own
    probe = _udp()
    probe.connect(at)
    found = Kamailio(JsonRpc(rpc, Path(directory) / "answers"), probe, table)
    stack.callback(found.close)
    return found


def _udp() -> socket.socket:
    made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    made.setblocking(False)
    return made
