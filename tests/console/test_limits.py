"""The limit on bodies: announced or streamed, whatever the application does with the error."""

from collections.abc import AsyncIterator

import httpx
import pytest
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.types import Receive, Scope, Send
from tests.console.conftest import OPERATOR

from anabranch.console.limits import LimitBody

LIMIT = 1000


async def echo(scope: Scope, receive: Receive, send: Send) -> None:
    body = await Request(scope, receive).body()
    await PlainTextResponse(str(len(body)))(scope, receive, send)


async def swallowing(scope: Scope, receive: Receive, send: Send) -> None:
    """Takes any error of reading for a bad request, as frameworks do."""
    try:
        await echo(scope, receive, send)
    except Exception:
        await PlainTextResponse("bad", 400)(scope, receive, send)


async def hasty(scope: Scope, receive: Receive, send: Send) -> None:
    """Answers before it has read."""
    await PlainTextResponse("early")(scope, receive, send)
    await Request(scope, receive).body()


async def pieces(size: int, count: int) -> AsyncIterator[bytes]:
    for _ in range(count):
        yield b"x" * size


async def post(app: object, content: bytes | AsyncIterator[bytes]) -> httpx.Response:
    transport = httpx.ASGITransport(LimitBody(app, LIMIT))  # type: ignore[arg-type]
    async with httpx.AsyncClient(transport=transport, base_url="http://site") as client:
        return await client.post("/", content=content)


@pytest.mark.parametrize("app", [echo, swallowing])
async def test_a_body_at_the_limit_passes_and_one_above_is_413(app: object) -> None:
    assert (await post(app, b"x" * LIMIT)).text == "1000"
    assert (await post(app, pieces(100, 10))).text == "1000"
    for body in (b"x" * (LIMIT + 1), pieces(100, 11), pieces(LIMIT + 1, 1)):
        answer = await post(app, body)
        assert answer.status_code == 413
        assert answer.headers["content-type"] == "application/problem+json"
        assert "1000 bytes" in answer.json()["detail"]


async def test_an_answer_under_way_is_left_as_it_is() -> None:
    answer = await post(hasty, pieces(100, 11))
    assert (answer.status_code, answer.text) == (200, "early")


@pytest.mark.parametrize("path", ["/api/channels", "/whep/news"])
async def test_every_way_in_has_the_limit(client: httpx.AsyncClient, path: str) -> None:
    kind = "application/sdp" if "whep" in path else "application/json"
    headers = {**OPERATOR, "Content-Type": kind}
    for body in (b" " * 200_000, pieces(10_000, 20)):
        answer = await client.post(path, content=body, headers=headers)
        assert answer.status_code == 413
        assert answer.json()["status"] == 413
