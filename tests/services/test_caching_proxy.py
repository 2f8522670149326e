"""The caching proxy before a scripted origin: one fetch for many, ranges, what goes wrong."""

import asyncio
import os
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest
from prometheus_client import CollectorRegistry
from tests.services.origin import Asked, Origin, Writer, head, plain, running_origin

from anabranch.services.blocks import web_client, web_server
from anabranch.services.blocks.caching_proxy import CachingProxy
from anabranch.services.blocks.disk_cache import DiskCache
from anabranch.services.blocks.metrics import figures
from anabranch.services.blocks.objects import Objects, OriginOptions
from anabranch.services.blocks.web_server import WebServer

FILM = os.urandom(3_000_000)
NAME = "proxy-under-test"


class Edge:
    """A proxy that runs, and a client of it."""

    def __init__(self, origin: Origin, client: httpx.AsyncClient, registry: CollectorRegistry,
                 place: tuple[str, int]) -> None:  # fmt: skip
        self.origin = origin
        self.client = client
        self.registry = registry
        self.place = place

    async def get(self, target: str, **fields: str) -> httpx.Response:
        headers = {name.replace("_", "-"): value for name, value in fields.items()}
        return await self.client.get(target, headers=headers)

    def figure(self, name: str) -> float:
        return figures(self.registry, 100)[name]

    async def fetched(self, count: int) -> None:
        """Wait until so many bytes have come and are committed."""
        while self.figure("fetched_bytes") < count:
            await asyncio.sleep(0.01)


@asynccontextmanager
async def running_edge(directory: Path, *, quota: int = 64 << 20,
                       **options: object) -> AsyncIterator[Edge]:  # fmt: skip
    async with running_origin() as origin:
        registry = CollectorRegistry()
        cache = DiskCache(directory / "cache", quota)
        objects = Objects(OriginOptions(origin.url, **options), cache, registry)
        proxy = CachingProxy(objects, NAME, registry)
        server = WebServer(proxy, "127.0.0.1", 0, dated=False, inside=objects)
        server.start()
        base = "http://{}:{}".format(*server.place)
        try:
            async with httpx.AsyncClient(base_url=base, trust_env=False, timeout=10) as client:
                yield Edge(origin, client, registry, server.place)
        finally:
            await asyncio.to_thread(server.stop)


@pytest.fixture
async def edge(tmp_path: Path) -> AsyncIterator[Edge]:
    async with running_edge(tmp_path) as made:
        yield made


async def test_many_ask_and_the_origin_is_asked_once(edge: Edge) -> None:
    first_half = asyncio.Event()

    async def slow(asked: Asked, writer: Writer) -> None:
        writer.write(head(len(FILM), cache_control="max-age=100", etag='"1"') + FILM[:1_000_000])
        await writer.drain()
        await first_half.wait()
        writer.write(FILM[1_000_000:])

    edge.origin.answers["/film"] = slow
    async with edge.client.stream("GET", "/film") as response:
        assert response.headers["via"].endswith(NAME)
        parts = response.aiter_raw()
        received = await anext(parts)  # while the rest is not even there
        others = [asyncio.create_task(edge.get("/film")) for _ in range(8)]
        ranged = asyncio.create_task(edge.get("/film", range="bytes=2000000-2000009"))
        await asyncio.sleep(0.1)
        assert not any(other.done() for other in others)
        first_half.set()
        async for part in parts:
            received += part
    assert received == FILM
    for other in others:
        assert (await other).content == FILM
    part = await ranged
    assert (part.status_code, part.content) == (206, FILM[2_000_000:2_000_010])
    assert edge.origin.count("/film") == 1
    again = await edge.get("/film")
    assert again.content == FILM
    assert edge.origin.count("/film") == 1
    assert edge.figure("answers.cache") == 1
    assert edge.figure("answers.fetch") == 10
    assert edge.figure("fetched_bytes") == len(FILM)


async def test_parts_and_conditions_are_answered_from_the_cache(edge: Edge) -> None:
    edge.origin.answers["/a"] = plain(b"0123456789", etag='"1"', content_type="text/x")
    whole = await edge.get("/a")
    assert len(whole.headers.get_list("date")) == 1
    assert whole.headers["content-type"] == "text/x"
    part = await edge.get("/a", range="bytes=-4")
    assert (part.status_code, part.content) == (206, b"6789")
    assert part.headers["content-range"] == "bytes 6-9/10"
    assert (await edge.get("/a", range="bytes=1-2,4-5")).content == b"0123456789"
    none = await edge.get("/a", range="bytes=10-")
    assert (none.status_code, none.headers["content-range"]) == (416, "bytes */10")
    assert (await edge.get("/a", range="bytes=1-2", if_range='"2"')).status_code == 200
    assert (await edge.get("/a", if_none_match='"1"')).status_code == 304
    asked = await edge.client.head("/a")
    assert (asked.status_code, asked.headers["content-length"], asked.content) == (200, "10", b"")
    assert edge.origin.count("/a") == 1
    assert (await edge.client.head("/b")).status_code == 404
    assert edge.origin.asked[-1].method == "HEAD"


async def test_a_far_part_does_not_wait_for_what_is_before_it(edge: Edge) -> None:
    body = bytes(8_000_000)
    stuck = asyncio.Event()

    async def answer(asked: Asked, writer: Writer) -> None:
        if "range" in asked.fields:
            await plain(body)(asked, writer)
            return
        writer.write(head(len(body)) + body[:1000])
        await writer.drain()
        await stuck.wait()

    edge.origin.answers["/film"] = answer
    async with edge.client.stream("GET", "/film"):
        far = await edge.get("/film", range="bytes=7000000-7000003")
        assert (far.status_code, far.content) == (206, bytes(4))
    stuck.set()


async def test_what_is_stale_is_asked_for_and_used_while_the_origin_is_gone(edge: Edge) -> None:
    edge.origin.answers["/a"] = plain(b"one", etag='"1"', cache_control="max-age=0")
    assert (await edge.get("/a")).content == b"one"
    await edge.fetched(3)
    assert (await edge.get("/a")).content == b"one"
    assert edge.origin.asked[-1].fields["if-none-match"] == '"1"'
    edge.origin.answers["/a"] = plain(b"two!", etag='"2"', cache_control="max-age=0")
    assert (await edge.get("/a")).content == b"two!"
    await edge.fetched(7)

    async def broken(asked: Asked, writer: Writer) -> None:
        writer.close()

    edge.origin.answers["/a"] = broken
    assert (await edge.get("/a")).content == b"two!"
    edge.origin.answers["/a"] = plain(b"", status=503)
    assert (await edge.get("/a")).content == b"two!"
    assert edge.figure("answers.stale") == 2
    edge.origin.answers["/b"] = broken
    gone = await edge.get("/b")
    assert (gone.status_code, gone.headers["cache-control"]) == (502, "no-store")


async def test_what_may_not_be_kept_is_passed_through(edge: Edge) -> None:
    edge.origin.answers["/own"] = plain(b"mine", set_cookie="a=b")
    for _ in range(2):
        answer = await edge.get("/own", x_mine="1")
        assert (answer.content, answer.headers["set-cookie"]) == (b"mine", "a=b")
    assert edge.origin.count("/own") == 2
    posted = await edge.client.post("/own", content=b"words")
    assert posted.content == b"mine"
    assert (edge.origin.asked[-1].method, edge.origin.asked[-1].body) == ("POST", b"words")
    assert edge.origin.asked[-1].fields["x-forwarded-for"] == "127.0.0.1"
    edge.origin.answers["/secret"] = plain(b"for one")
    for _ in range(2):
        assert (await edge.get("/secret", authorization="Basic x")).content == b"for one"
    assert edge.origin.asked[-1].fields["authorization"] == "Basic x"
    assert edge.origin.count("/secret") == 2
    assert edge.figure("cache_bytes") == 0
    too_much = await edge.client.post("/own", content=bytes(17 << 20))
    assert too_much.status_code == 413


async def test_an_origin_that_breaks_off_is_asked_for_the_rest(edge: Edge) -> None:
    tries = 0

    async def unsteady(asked: Asked, writer: Writer) -> None:
        nonlocal tries
        tries += 1
        if tries == 1:
            writer.write(head(len(FILM), etag='"1"') + FILM[:500_000])
            await writer.drain()
            writer.close()
        else:
            assert asked.fields["if-range"] == '"1"'
            await plain(FILM, etag='"1"')(asked, writer)

    edge.origin.answers["/film"] = unsteady
    assert (await edge.get("/film")).content == FILM
    assert tries == 2
    assert (await edge.get("/film")).content == FILM


async def test_a_client_is_told_that_an_object_breaks_off(edge: Edge) -> None:
    async def cut(asked: Asked, writer: Writer) -> None:
        writer.write(head(1000) + b"x" * 10)
        await writer.drain()
        writer.close()

    async def changed(asked: Asked, writer: Writer) -> None:
        if "range" in asked.fields:
            writer.write(head(4, 200, etag='"2"') + b"anew")
        else:
            await cut_with_tag(asked, writer)

    async def cut_with_tag(asked: Asked, writer: Writer) -> None:
        writer.write(head(1000, etag='"1"') + b"x" * 10)
        await writer.drain()
        writer.close()

    edge.origin.answers |= {"/cut": cut, "/changed": changed}
    for target in ("/cut", "/changed"):
        with pytest.raises(httpx.RemoteProtocolError):
            await edge.get(target)
    assert edge.figure("cache_bytes") == 0


async def test_a_client_that_goes_is_noticed_and_the_fetch_goes_on(edge: Edge) -> None:
    go_on = asyncio.Event()

    async def slow(asked: Asked, writer: Writer) -> None:
        writer.write(head(len(FILM)) + FILM[:100_000])
        await writer.drain()
        await go_on.wait()
        writer.write(FILM[100_000:])

    edge.origin.answers["/film"] = slow
    async with edge.client.stream("GET", "/film") as response:
        await anext(response.aiter_raw())
    go_on.set()
    await edge.fetched(len(FILM))
    assert (await edge.get("/film")).content == FILM
    assert edge.origin.count("/film") == 1
    assert edge.figure("sent_bytes") < 2 * len(FILM)


async def test_objects_that_do_not_fit_are_passed_through(tmp_path: Path) -> None:
    async with running_edge(tmp_path, quota=1 << 20, object_bytes=2 << 20) as edge:
        edge.origin.answers["/film"] = plain(FILM)
        for _ in range(2):
            assert (await edge.get("/film")).content == FILM
        assert edge.origin.count("/film") == 2

        async def chunked(asked: Asked, writer: Writer) -> None:
            writer.write(head(None, transfer_encoding="chunked"))
            for start in range(0, 2 << 20, 1 << 16):
                writer.write(b"10000\r\n" + FILM[start : start + 65536] + b"\r\n")
                await writer.drain()
            writer.write(b"0\r\n\r\n")

        edge.origin.answers["/endless"] = chunked
        with pytest.raises(httpx.RemoteProtocolError):
            await edge.get("/endless")  # nobody knew before
        assert (await edge.get("/endless")).content == FILM[: 2 << 20]


async def test_a_slow_origin(edge: Edge, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(web_client, "SILENCE_S", 0.2)
    async with running_edge(tmp_path / "2") as hurried:
        never = asyncio.Event()

        async def silent(asked: Asked, writer: Writer) -> None:
            await never.wait()

        hurried.origin.answers["/a"] = silent
        assert (await hurried.get("/a")).status_code == 504
        never.set()


async def raw(edge: Edge, data: bytes) -> bytes:
    reader, writer = await asyncio.open_connection(*edge.place)
    try:
        writer.write(data)
        return await asyncio.wait_for(reader.read(), 5)
    finally:
        writer.close()


async def test_requests_that_are_none_or_lead_elsewhere(edge: Edge) -> None:
    end = b"Host: x\r\nConnection: close\r\n\r\n"
    for target in (b"/../etc/passwd", b"/a/%2e%2e/b", b"//x/y", b"http://x/y", b"/a%0d%0ab"):
        assert (await raw(edge, b"GET " + target + b" HTTP/1.1\r\n" + end)).startswith(
            b"HTTP/1.1 400"
        )
    for data in (b"GARBAGE\r\n\r\n", b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
                 b"GET / HTTP/1.1\r\nHost: a\r\nX\x00: b\r\n\r\n",
                 b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"y" * 40_000):  # fmt: skip
        assert b" 400 " in (await raw(edge, data)).split(b"\r\n")[0]
    smuggled = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n"
    await raw(edge, smuggled + b"Connection: close\r\n\r\n0\r\n\r\nGET /smuggled HTTP/1.1\r\n\r\n")
    assert edge.origin.count("/smuggled") == 0
    looped = await edge.get("/a", via=f"1.1 other, 1.1 {NAME}")
    assert looped.status_code == 508
    assert not [each for each in edge.origin.asked if each.method == "GET"]


async def test_a_head_that_does_not_come(edge: Edge, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(web_server, "HEAD_S", 0.2)
    for data in (b"", b"GET / HTT", b"GET /a HTTP/1.1\r\nHost: x\r\n\r\nGET"):
        await raw(edge, data)  # or it does not return


async def test_a_client_that_takes_nothing_is_cut_off(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(web_server, "_STALLED_S", 0.5)
    async with running_edge(tmp_path) as edge:
        edge.origin.answers["/zeros"] = plain(bytes(30_000_000))
        with socket.socket() as client:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            client.connect(edge.place)
            client.sendall(b"GET /zeros HTTP/1.1\r\nHost: x\r\n\r\n")
            await edge.fetched(30_000_000)
            while connections(edge):
                await asyncio.sleep(0.05)
        assert edge.figure("sent_bytes") < 30_000_000
        assert (await edge.get("/zeros", range="bytes=0-0")).content == b"\0"


def connections(edge: Edge) -> int:
    """Return how many connections the server has, as the kernel says."""
    mine = f":{edge.place[1]:04X} "
    lines = Path("/proc/self/net/tcp").read_text().splitlines()[1:]
    return sum(line.split()[1].endswith(mine.strip()) and line.split()[3] == "01" for line in lines)


async def test_fields_of_an_origin_cannot_make_others(edge: Edge) -> None:
    async def injecting(asked: Asked, writer: Writer) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nX: a\rY: b\x00\r\n\r\nx")

    edge.origin.answers["/a"] = injecting
    assert (await edge.get("/a")).status_code == 502


def test_a_port_that_is_taken(tmp_path: Path) -> None:
    async def application(scope: object, receive: object, send: object) -> None:
        raise NotImplementedError

    with socket.create_server(("127.0.0.1", 0)) as taken:
        server = WebServer(application, *taken.getsockname())
        with pytest.raises(OSError, match="in use"):
            server.start()
        server.stop()


async def test_a_server_whose_inside_fails() -> None:
    @asynccontextmanager
    async def broken() -> AsyncIterator[None]:
        raise ValueError("cannot be")
        yield

    async def application(scope: object, receive: object, send: object) -> None:
        raise NotImplementedError

    server = WebServer(application, "127.0.0.1", 0, inside=broken())
    with pytest.raises(web_server.WebServerError, match="cannot be"):
        await asyncio.to_thread(server.start)
    server.stop()
