"""HTTP as it comes: heads without an end are ended, trailers are no headers, the rest is served."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, StreamingResponse
from starlette.routing import Route

from anabranch.app.http_protocol import MAX_HEAD
from anabranch.app.serving import listen, serve
from anabranch.core.tasks import end_task

GOOD = b"GET / HTTP/1.1\r\nHost: site\r\n\r\n"
CHUNKED = b"POST / HTTP/1.1\r\nHost: site\r\nTransfer-Encoding: chunked\r\n\r\n"


async def told(request: Request) -> JSONResponse:
    body = await request.body()
    return JSONResponse({"length": len(body), "headers": dict(request.headers)})


async def endless(_request: Request) -> StreamingResponse:
    async def words() -> AsyncIterator[bytes]:
        while True:
            yield b"word "
            await asyncio.sleep(0.01)

    return StreamingResponse(words())


@pytest.fixture
async def port() -> AsyncIterator[int]:
    app = Starlette(routes=[Route("/", told, methods=["GET", "POST"]), Route("/endless", endless)])
    with listen("127.0.0.1", 0) as listener:
        serving = asyncio.create_task(serve(app, listener, None))
        yield listener.getsockname()[1]
        await end_task(serving)


async def ask(port: int, *parts: bytes) -> bytes:
    """Send these parts, and return all that comes until the connection ends."""
    async with asyncio.timeout(10):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        try:
            for part in parts:
                writer.write(part)
                await writer.drain()
            return await reader.read()
        except ConnectionError:  # it was ended while there was still something to send
            return b""
        finally:
            writer.close()


def closing(request: bytes) -> bytes:
    return request.replace(b"Host: site", b"Host: site\r\nConnection: close", 1)


ENDLESS = [b"a" * 16 * 1024] * 28
"""More than the limit and what asyncio reads at once: what came with a good head is not counted."""


@pytest.mark.parametrize(
    "before",
    [
        b"GET /",
        b"GET / HTTP/1.1\r\nHost: site\r\nX-Long: ",
        b"GET / HTTP/1.1\r\nHost: site\r\n",
        CHUNKED + b"5;x=",
        CHUNKED + b"1\r\nx\r\n0\r\nX-Long: ",
    ],
    ids=["target", "header", "name", "chunk extension", "trailer"],
)
async def test_what_has_no_end_is_ended(port: int, before: bytes) -> None:
    answer = await ask(port, before, *ENDLESS)
    assert b"200 OK" not in answer
    assert not answer or answer.startswith(b"HTTP/1.1 400")


async def test_many_headers_without_an_end_are_ended(port: int) -> None:
    lines = b"".join(b"X-%d: %s\r\n" % (number, b"a" * 100) for number in range(1000))
    answer = await ask(port, GOOD[:-2], lines, lines)
    assert not answer or b"head is too large" in answer


async def test_nothing_is_said_within_an_answer_that_is_under_way(port: int) -> None:
    answer = await ask(
        port,
        GOOD.replace(b"/ ", b"/endless ", 1),
        b"GET /",
        *ENDLESS,
    )
    assert answer.count(b"HTTP/1.1") <= 1


async def test_a_large_body_and_many_requests_are_no_heads(port: int) -> None:
    body = b"x" * 1_000_000
    request = b"POST / HTTP/1.1\r\nHost: site\r\nContent-Length: %d\r\n\r\n" % len(body)
    assert b'"length":1000000' in await ask(port, closing(request) + body)
    chunks = b"".join(b"1\r\nx\r\n" for _ in range(15_000))
    assert b'"length":15000' in await ask(port, closing(CHUNKED) + chunks + b"0\r\n\r\n")
    long = GOOD[:-2] + b"X-Long: " + b"a" * 8000 + b"\r\n\r\n"
    answer = await ask(port, long * 50 + closing(GOOD))
    assert answer.count(b"HTTP/1.1 200") == 51


async def test_a_head_may_be_long(port: int) -> None:
    long = b"GET / HTTP/1.1\r\nHost: site\r\nX-Long: %s\r\n\r\n" % (b"a" * (MAX_HEAD - 2000))
    assert b"HTTP/1.1 200" in await ask(port, closing(long))


async def test_a_trailer_is_no_header(port: int) -> None:
    trailer = b"1\r\nx\r\n0\r\nAuthorization: Bearer x\r\n\r\n"
    answer = await ask(port, closing(CHUNKED) + trailer)
    assert b'"length":1' in answer
    assert b"authorization" not in answer


@settings(max_examples=5, deadline=None)
@given(st.lists(st.tuples(st.integers(0, len(GOOD)), st.binary(max_size=200)), max_size=40))
def test_noise_ends_no_more_than_its_connection(noises: list[tuple[int, bytes]]) -> None:
    async def run() -> None:
        app = Starlette(routes=[Route("/", told)])
        with listen("127.0.0.1", 0) as listener:
            port = listener.getsockname()[1]
            serving = asyncio.create_task(serve(app, listener, None))
            for kept, noise in noises:
                _, writer = await asyncio.open_connection("127.0.0.1", port)
                writer.write(GOOD[:kept] + noise)
                writer.close()
            assert b"HTTP/1.1 200" in await ask(port, closing(GOOD))
            await end_task(serving)

    asyncio.run(run())
