"""What a controller in a process of its own answers to its director, over a Unix socket.

The socket is the director's alone (mode 0600), so nobody is asked who they are.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing, suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.responses import StreamingResponse
from pydantic import BaseModel

from anabranch.console import fabric_json
from anabranch.console.fabric_models import LinkIn
from anabranch.core.events import Event
from anabranch.fabric import intents_json, wishes
from anabranch.fabric.fabric import Fabric
from anabranch.fabric.intents_json import Wanted
from anabranch.fabric.wishes import OPERATOR


class SwitchIn(BaseModel):
    """A switch that is dialled at its management socket."""

    name: str
    dpid: int
    connect: Path


class NetworkIn(BaseModel):
    """All switches and links that there are to be."""

    switches: list[SwitchIn]
    links: list[LinkIn]


def make_control(fabric: Fabric, is_active: Callable[[], bool]) -> APIRouter:
    """Return the routes under ``/control``.

    Args:
        fabric: what is controlled.
        is_active: says whether this controller is the one at work.
    """
    router = APIRouter(prefix="/control", include_in_schema=False)

    @router.get("/state")
    async def state() -> dict[str, Any]:
        return {
            "active": is_active(),
            "wanted": sorted(fabric.owners()),
            "switches": {
                name: {"connected": known.connected, "dpid": known.dpid, "rules": known.rules}
                for name, known in fabric.switches().items()
            },
            "links": [
                ((link.src.switch, link.src.port_no), (link.dst.switch, link.dst.port_no), info.up)
                for link, info in fabric.network().links.items()
            ],
        }

    @router.put("/network")
    async def network(given: NetworkIn) -> dict[str, list[str]]:
        known = fabric.switches().keys()
        for switch in given.switches:
            if switch.name not in known:
                fabric.expect(switch.name, switch.dpid)
                await fabric.controller.connect_unix(switch.connect, switch.name)
        fabric.wire(fabric_json.links_of(given.links))
        for name in known - {switch.name for switch in given.switches}:
            await fabric.dismiss(name)
        return {"pending": []}

    @router.get("/wanted")
    async def wanted() -> Response:
        links = intents_json.declared_links(fabric.declared())
        everything = Wanted(fabric.owners(), tuple(fabric.followed().values()), links)
        return Response(intents_json.dump_wanted(everything), media_type="application/json")

    @router.put("/wanted")
    async def restore(request: Request) -> dict[str, Any]:
        everything = intents_json.load_wanted(await request.body())
        others = dict(everything.intents)
        operators = {OPERATOR: others.pop(OPERATOR)} if OPERATOR in others else {}
        kept = Wanted(operators, everything.paths, everything.links)
        pending, refused = await wishes.restore(fabric, kept, Wanted(others))
        return {"pending": sorted(pending), "refused": refused}

    @router.put("/intents/{owner}")
    async def put(owner: str, request: Request) -> dict[str, list[str]]:
        intents = intents_json.loads(await request.body())
        return {"pending": sorted(await fabric.put(intents, owner))}

    @router.get("/ports/{switch}")
    async def ports(switch: str) -> list[dict[str, Any]]:
        return [asdict(stats) for stats in await fabric.port_stats(switch)]

    @router.get("/events")
    async def events() -> StreamingResponse:
        return StreamingResponse(_lines(), media_type="application/x-ndjson")

    async def _lines() -> AsyncIterator[bytes]:
        async with aclosing(fabric.subscribe()) as happening:
            first = asyncio.ensure_future(anext(happening))
            try:
                await asyncio.sleep(0)  # from here on nothing is missed
                # At once, so that the reader knows that the stream is open.
                yield json.dumps({"active": is_active()}).encode() + b"\n"
                yield _line(await first, active=is_active())
            finally:
                first.cancel()
                with suppress(asyncio.CancelledError):
                    await first
            async for event in happening:
                yield _line(event, active=is_active())

    return router


def _line(event: Event, *, active: bool) -> bytes:
    record = {
        "kind": event.kind,
        "subject": event.subject,
        "data": dict(event.data),
        "time": event.time,
        "active": active,
    }
    return json.dumps(record).encode() + b"\n"
