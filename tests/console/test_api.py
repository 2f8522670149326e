"""The API: who may do what, errors for programs and people, and a document that is true."""

import asyncio
import json
import re
import socket
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from tests.console.conftest import KEY, OPERATOR, TOKEN, MemoryLeaf

from anabranch.app.serving import serve
from anabranch.channels.seats import Seat
from anabranch.console.api import make_app
from anabranch.core.events import Event
from anabranch.site.site import Site

OPERATOR_ROUTES = [
    ("POST", "/api/channels"),
    ("GET", "/api/channels/news/detail"),
    ("DELETE", "/api/channels/news"),
    *(("GET", f"/api/{name}") for name in ("site", "seats", "ports", "log")),
]


def is_problem(answer: httpx.Response, status: int) -> dict[str, Any]:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    found: dict[str, Any] = answer.json()
    assert found["status"] == status
    assert len(found["detail"].splitlines()) == 1
    return found


@pytest.mark.parametrize(("method", "path"), OPERATOR_ROUTES)
@pytest.mark.parametrize(
    "given",
    [None, "", "Bearer", "Bearer ", "Bearer wrong", f"Basic {TOKEN}", TOKEN, f"Bearer {TOKEN}x",
     f"Bearer {TOKEN[:-1]}", "Bearer \xe9"],
)  # fmt: skip
async def test_an_operators_route_needs_the_token(
    client: httpx.AsyncClient, site: Site, method: str, path: str, given: str | None
) -> None:
    headers = {"Authorization": given.encode("latin-1")} if given is not None else {}
    body = {"name": "other", "source": "test"}
    answer = await client.request(
        method, path, headers=headers, json=body if method == "POST" else None
    )
    is_problem(answer, 401)
    assert answer.headers["www-authenticate"] == "Bearer"
    assert [channel.name for channel in site.channels] == ["news"]


def test_an_empty_token_opens_nothing(site: Site) -> None:
    with pytest.raises(ValueError, match="empty"):
        make_app(site, token="")


async def test_anybody_sees_the_channels_and_no_secret(client: httpx.AsyncClient) -> None:
    answer = await client.get("/api/channels")
    (channel,) = answer.json()["channels"]
    assert (channel["name"], channel["title"], channel["state"]) == (
        "news",
        "The <b>news</b>",
        "starting",
    )
    assert [r["name"] for r in channel["renditions"]] == ["high", "low"]
    assert channel == (await client.get("/api/channels/news")).json()
    assert KEY not in answer.text
    clock = await client.get("/api/time")
    assert clock.headers["cache-control"] == "no-store"
    assert clock.json()["epoch_ms"] > 1.7e12


async def test_the_operator_sees_the_way_in(client: httpx.AsyncClient) -> None:
    detail = (await client.get("/api/channels/news/detail", headers=OPERATOR)).json()
    assert (detail["source"], detail["key"], detail["once"]) == ("rtmp", KEY, False)
    assert detail["publish"]["OBS stream key"] == KEY


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/api/channels/other"),
        ("GET", "/api/channels/other/detail"),
        ("DELETE", "/api/channels/other"),
        ("GET", "/api/channels/%00%ff"),
        ("DELETE", "/api/channels/..%2Fseats"),
        ("GET", "/api/nothing"),
        ("GET", "/nothing"),
    ],
)
async def test_what_is_not_there_is_404(client: httpx.AsyncClient, method: str, path: str) -> None:
    is_problem(await client.request(method, path, headers=OPERATOR), 404)


@pytest.mark.parametrize(
    "body",
    [
        b"", b"{", b"[]", b"null", b"\xff\xfe", b"{}", b'{"name": "a"}',
        b'{"name": 1, "source": "test"}',
        b'{"name": "a", "source": "test", "extra": 1}', b'{"name": "a", "source": "gopher://x"}',
        b'{"name": "A b", "source": "test"}', b'{"name": "a", "source": "\\ud800"}',
        b'{"name": "a", "source": "rtp:65535"}', b'{"name": "a", "source": "rtmp", "once": true}',
        b'{"name": "a", "source": "test", "key": "short"}',
        b'{"name": "a", "source": "test", "title": "\\u0000"}',
    ],
)  # fmt: skip
async def test_a_bad_channel_is_422_in_one_line(
    client: httpx.AsyncClient, site: Site, body: bytes
) -> None:
    headers = {**OPERATOR, "Content-Type": "application/json"}
    is_problem(await client.post("/api/channels", content=body, headers=headers), 422)
    assert [channel.name for channel in site.channels] == ["news"]
    assert await site.lineup.definitions.all() == []


async def test_a_wrong_method_and_an_unexpected_error_are_problems_too(
    client: httpx.AsyncClient, site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    is_problem(await client.put("/api/channels"), 405)
    monkeypatch.setattr(site, "overview", lambda: 1 // 0)
    found = is_problem(await client.get("/api/site", headers=OPERATOR), 500)
    assert "zero" not in found["detail"]


async def test_the_site_its_seats_and_its_log(
    client: httpx.AsyncClient, site: Site, leaf: MemoryLeaf
) -> None:
    seat = Seat("news", "high", "leaf1", "1")
    site.seats.add(seat)
    await site.database.append_events([Event("seat.taken", "news", {"leaf": "leaf1"})])
    overview = await client.get("/api/site", headers=OPERATOR)
    assert (overview.json()["carriage"], overview.json()["seats"]) == ("direct", 1)
    seats = await client.get("/api/seats", headers=OPERATOR)
    assert seats.json()[0]["bytes_sent"] is None  # the leaf does not know it
    assert seat.id not in seats.text + overview.text
    assert (await client.get("/api/ports", headers=OPERATOR)).json() == []
    for limit in ("1", "0", "-5", "99999"):
        log = await client.get(f"/api/log?limit={limit}", headers=OPERATOR)
        assert [event["kind"] for event in log.json()] == ["seat.taken"]
    is_problem(await client.get("/api/log?limit=many", headers=OPERATOR), 422)


async def test_no_page_loads_scripts_of_others(client: httpx.AsyncClient) -> None:
    assert (await client.get("/api/docs")).status_code == 404
    assert (await client.get("/api/openapi.json")).status_code == 200


def test_the_openapi_document_holds_together(site: Site) -> None:
    document = make_app(site, token=TOKEN).openapi()
    assert document["openapi"].startswith("3.1.")
    assert {"title", "version", "summary"} <= document["info"].keys()
    operations = [o for item in document["paths"].values() for o in item.values()]
    assert all(o["summary"] and o["responses"] and o["description"] for o in operations)
    ids = [o["operationId"] for o in operations]
    assert len(ids) == len(set(ids))
    for path, item in document["paths"].items():
        for operation in item.values():
            named = {p["name"] for p in operation.get("parameters", []) if p["in"] == "path"}
            assert named == set(re.findall(r"{(\w+)}", path))
            if not {"operator", "fabric", "nodes"}.isdisjoint(operation["tags"]):
                assert operation["security"] == [{"bearer": []}, {"session": []}]
                assert operation["x-role"] == "operator"
            elif "WHIP" in operation["tags"] and "requestBody" in operation:
                assert operation["security"] == [{"PublisherKey": []}]
    for reference in references(document):
        at: Any = document
        for step in reference.removeprefix("#/").split("/"):
            at = at[step]
    assert "schemes" not in document["components"]
    assert document["components"]["securitySchemes"]["bearer"]["scheme"] == "bearer"


def references(node: object) -> list[str]:
    if isinstance(node, dict):
        own = [node["$ref"]] if isinstance(node.get("$ref"), str) else []
        return own + [r for value in node.values() for r in references(value)]
    return [r for value in node for r in references(value)] if isinstance(node, list) else []


# --- server-sent events, over a real connection: in memory a client cannot go away -------------


class Served:
    """The application on a port of its own."""

    def __init__(self, app: FastAPI) -> None:
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self.listener.getsockname()[1]}"
        self.task = asyncio.create_task(serve(app, self.listener, None))

    async def stop(self) -> None:
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)
        self.listener.close()


async def subscribers(site: Site, count: int) -> None:
    async with asyncio.timeout(5):
        while len(site.events._queues) != count:
            await asyncio.sleep(0.01)


async def next_event(lines: Any) -> dict[str, Any]:
    async with asyncio.timeout(5):
        async for line in lines:
            if line.startswith("data:"):
                found: dict[str, Any] = json.loads(line[5:])
                return found
    raise AssertionError("the stream ended")


async def test_an_event_arrives_and_whoever_leaves_is_forgotten(site: Site) -> None:
    served = Served(make_app(site, token=TOKEN))
    try:
        async with httpx.AsyncClient(base_url=served.url) as client:
            async with client.stream("GET", "/api/events") as answer:
                assert answer.headers["content-type"].startswith("text/event-stream")
                await subscribers(site, 1)
                site.events.publish(Event("switch.connected", "root"))  # nobody's business
                site.events.publish(Event("seat.taken", "news", {"leaf": "leaf1"}))
                event = await next_event(answer.aiter_lines())
                assert (event["kind"], event["subject"]) == ("seat.taken", "news")
                assert event["data"] == {}
            await subscribers(site, 0)
    finally:
        await served.stop()


async def test_a_site_that_stops_ends_its_event_streams(site: Site) -> None:
    served = Served(make_app(site, token=TOKEN))
    async with (
        httpx.AsyncClient(base_url=served.url) as client,
        client.stream("GET", "/api/events"),
        client.stream("GET", "/api/events"),
    ):
        await subscribers(site, 2)
        async with asyncio.timeout(3):
            await served.stop()
        await subscribers(site, 0)
