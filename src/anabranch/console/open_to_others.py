"""Lets pages of other sites use WHEP and WHIP (CORS)."""

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

_CORS = {
    "Access-Control-Allow-Origin": "*",
    "Access-Control-Allow-Methods": "POST, GET, DELETE, PATCH, OPTIONS",
    "Access-Control-Allow-Headers": "Content-Type, Authorization, If-Match",
    "Access-Control-Expose-Headers": "Location, ETag, Link, Accept-Patch, Retry-After",
    "Access-Control-Max-Age": "86400",
}


class OpenToOthers:
    """Lets players and publishers on other sites read every answer, the errors too."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def opened(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(_CORS)
            await send(message)

        is_open = scope["type"] == "http" and _is_open(scope["path"])
        await self._app(scope, receive, opened if is_open else send)


def _is_open(path: str) -> bool:
    return path == "/whip" or path.startswith(("/whep/", "/whip/"))
