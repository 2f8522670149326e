"""Network and paths where controllers of their own know them: asked there, answered here."""

from urllib.parse import quote

from fastapi import APIRouter, Request, Response

from anabranch.console.service_keys import Name
from anabranch.core.errors import NotFoundError
from anabranch.site.separate import SeparateControl


def make_proxy(control: SeparateControl) -> APIRouter:
    """Return routes that the controller at work answers."""
    router = APIRouter(include_in_schema=False)

    # By itself, as its rule is another.
    @router.api_route("/service-nodes/{name}", methods=["PUT", "DELETE"])
    async def service_node(name: Name, request: Request) -> Response:
        return await ask(f"service-nodes/{name}", request)

    @router.api_route("/{path:path}", methods=["GET", "POST", "PUT", "DELETE"])
    async def ask(path: str, request: Request) -> Response:
        if any(part in {"", ".", ".."} for part in path.split("/")):
            raise NotFoundError("there is nothing of that name")
        query = f"?{request.url.query}" if request.url.query else ""
        status, content = await control.ask(
            request.method, f"/api/fabric/{quote(path)}{query}", await request.body()
        )
        kind = "application/json" if status < 400 else "application/problem+json"
        return Response(content, status, media_type=kind)

    return router
