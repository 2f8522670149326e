"""What a controller in a process of its own answers to its director, over a Unix socket.

The socket is the director's alone (mode 0600), so nobody is asked who they are.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing, suppress
from dataclasses import asdict
from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.responses import StreamingResponse

from anabranch.core.events import Event
from anabranch.fabric import intents_json
from anabranch.fabric.fabric import Fabric
from anabranch.fabric.intents_json import Wanted


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
        }

    @router.get("/wanted")
    async def wanted() -> Response:
        everything = Wanted(fabric.owners(), tuple(fabric.followed().values()))
        return Response(intents_json.dump_wanted(everything), media_type="application/json")

    @router.put("/wanted")
    async def restore(request: Request) -> dict[str, list[str]]:
        everything = intents_json.load_wanted(await request.body())
        pending = await fabric.restore(everything.intents, everything.paths)
        return {"pending": sorted(pending)}

    @router.put("/intents/{owner}")
    async def put(owner: str, request: Request) -> dict[str, list[str]]:
        intents = intents_json.loads(await request.body())
        return {"pending": sorted(await fabric.put(intents, owner))}

    @router.get("/ports/{switch}")
    async def ports(switch: str) -> list[dict[str, Any]]:
        return [asdict(stats) for stats in await fabric.controller.port_stats(switch)]

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
