"""The pages, built from ``web/`` and shipped inside the package."""

import base64
import hashlib
import re
from functools import lru_cache
from pathlib import Path

from fastapi import FastAPI
from fastapi.responses import HTMLResponse, RedirectResponse, Response
from starlette.staticfiles import StaticFiles
from starlette.types import Receive, Scope, Send

STATIC = Path(__file__).parent / "static"
_INLINE = re.compile(rb"<script>(.*?)</script>", re.DOTALL)
_CSP = (
    "default-src 'self'; media-src 'self' blob:; style-src 'self'; script-src {scripts};"
    " connect-src 'self'; img-src 'self' data:; object-src 'none'; base-uri 'none';"
    " form-action 'self'"
)
_UNFRAMED = "frame-ancestors 'none'"
"""Nobody else's page may lay itself over one that does more than show a channel."""
_PAGE_HEADERS = {
    "Cache-Control": "no-cache",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
}


class _Assets(StaticFiles):
    """Built files have their hash in their name, so a browser may keep them."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def cached(message: dict[str, object]) -> None:
            if message["type"] == "http.response.start" and message["status"] == 200:
                headers = message["headers"]
                assert isinstance(headers, list)
                headers.append((b"cache-control", b"public, max-age=31536000, immutable"))
            await send(message)

        await super().__call__(scope, receive, cached)  # type: ignore[arg-type]


def install(app: FastAPI) -> None:
    """Add the pages to ``app``; a checkout whose pages are not built says how to build them."""

    methods = ["GET", "HEAD"]

    @app.api_route("/", methods=methods, include_in_schema=False)
    async def index() -> Response:
        return _page("index.html")

    @app.api_route("/watch/{channel}", methods=methods, include_in_schema=False)
    async def watch(channel: str) -> Response:
        return _page("watch.html")

    @app.api_route("/publish", methods=methods, include_in_schema=False)
    async def publish() -> Response:
        return _page("publish.html", framed=False)

    @app.api_route("/studio", methods=methods, include_in_schema=False)
    async def studio() -> Response:
        return _page("studio.html", framed=False)

    @app.api_route("/studio/{channel}", methods=methods, include_in_schema=False)
    async def manage(channel: str) -> Response:
        return _page("channel.html", framed=False)

    @app.api_route("/login", methods=methods, include_in_schema=False)
    async def login() -> Response:
        return _page("login.html", framed=False)

    @app.api_route("/account", methods=methods, include_in_schema=False)
    async def account() -> Response:
        return _page("account.html", framed=False)

    @app.api_route("/people", methods=methods, include_in_schema=False)
    async def people() -> Response:
        return _page("people.html", framed=False)

    @app.api_route("/services", methods=methods, include_in_schema=False)
    async def services() -> Response:
        return _page("services.html", framed=False)

    @app.api_route("/favicon.ico", methods=methods, include_in_schema=False)
    async def icon() -> Response:
        # Browsers ask for it here whatever a page says.
        for path in sorted((STATIC / "assets").glob("favicon-*.svg")):
            return RedirectResponse(f"/assets/{path.name}")
        return Response(status_code=204)

    app.mount("/assets", _Assets(directory=STATIC / "assets", check_dir=False))


def install_one(app: FastAPI, path: str, name: str) -> None:
    """Add a single page, and what all pages have, to an ``app`` that is no director's."""

    @app.api_route(path, methods=["GET", "HEAD"], include_in_schema=False)
    async def page() -> Response:
        return _page(name, framed=False)

    app.mount("/assets", _Assets(directory=STATIC / "assets", check_dir=False))


def _page(name: str, *, framed: bool = True) -> Response:
    path = STATIC / name
    try:
        text, policy = _read(path, path.stat().st_mtime_ns)
    except FileNotFoundError:
        missing = "<p>The pages are not built yet: run <code>./scripts/build</code>.</p>"
        return HTMLResponse(missing, 503)
    if not framed:
        policy = f"{policy}; {_UNFRAMED}"
    return HTMLResponse(text, headers={**_PAGE_HEADERS, "Content-Security-Policy": policy})


@lru_cache(maxsize=32)
def _read(path: Path, _changed_ns: int) -> tuple[bytes, str]:
    """Return a built page and its policy: what stands in it runs by its hash, see CSP level 3."""
    text = path.read_bytes()
    hashes = (base64.b64encode(hashlib.sha256(it).digest()) for it in _INLINE.findall(text))
    scripts = ["'self'", *(f"'sha256-{it.decode()}'" for it in hashes)]
    return text, _CSP.format(scripts=" ".join(scripts))
