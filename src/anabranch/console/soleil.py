"""``POST /soleil``: the tree for nodes that have nothing but HTTP (docs/protocols/soleil.md).

Whoever posts is authenticated by the TLS connection that the bodies carry, at the root's listener.
"""

import math

from fastapi import APIRouter, Request, Response

from anabranch.tree.transport.segments import SESSION, WAIT, SegmentError, segment_of
from anabranch.tree.transport.tunnels import Tunnels


def make_router(tunnels: Tunnels) -> APIRouter:
    """Return the route, which leads to ``tunnels``."""
    router = APIRouter(tags=["nodes"])

    @router.post("/soleil", include_in_schema=False)
    async def exchange(request: Request) -> Response:
        segment = segment_of(request.headers, await request.body())
        name = request.headers.get(SESSION, "")
        answer = await tunnels.exchange(name, segment, _wait(request))
        headers = {**answer.headers(), "cache-control": "no-store"}
        return Response(answer.data, headers=headers, media_type="application/octet-stream")

    return router


def _wait(request: Request) -> float:
    try:
        wait = float(request.headers.get(WAIT, "0"))
    except ValueError:
        wait = math.nan
    if not math.isfinite(wait):
        raise SegmentError(f"{WAIT} is not a number of seconds")
    return wait
