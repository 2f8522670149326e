"""Network and paths where controllers of their own know them: asked there, answered here."""

from fastapi import APIRouter, Request, Response

from anabranch.site.control import SeparateControl


def make_proxy(control: SeparateControl) -> APIRouter:
    """Return routes that the controller at work answers."""
    router = APIRouter(include_in_schema=False)

    @router.api_route("/{path:path}", methods=["GET", "POST", "PUT", "DELETE"])
    async def ask(path: str, request: Request) -> Response:
        query = f"?{request.url.query}" if request.url.query else ""
        status, content = await control.ask(
            request.method, f"/api/fabric/{path}{query}", await request.body()
        )
        kind = "application/json" if status < 400 else "application/problem+json"
        return Response(content, status, media_type=kind)

    return router
