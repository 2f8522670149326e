"""The table of rules: it is whole, and every route does to every role as it says."""

import re
from pathlib import Path

import httpx
import pytest
from fastapi import FastAPI
from tests.console.conftest import OFFER, TOKEN, MemoryLeaf
from tests.console.people.conftest import Scene

from anabranch.console.api import make_app
from anabranch.console.people.guard import Gate, UnruledError, keys_of
from anabranch.console.people.node_keys import key_of
from anabranch.console.people.people import People
from anabranch.console.people.rules import RULES
from anabranch.site.site import Site
from anabranch.tree.soleil.messages import Endpoint
from anabranch.tree.transport.tunnels import Tunnels

FOR_ANYBODY = {
    *(f"{method} {page}" for method in ("GET", "HEAD") for page in (
        "/", "/watch/{channel}", "/publish", "/login", "/account", "/people", "/services",
        "/studio", "/studio/{channel}", "/favicon.ico", "/api/openapi.json",
    )),
    *("* /assets", "POST /api/login", "POST /api/logout", "GET /api/me", "GET /api/channels"),
    *("GET /api/channels/{name}", "GET /api/channels/{name}/thumbnail.jpg", "GET /api/events"),
    *("GET /api/time", "GET /metrics", "POST /soleil", "WS /api/fabric/events"),
    *("POST /api/seats", "GET /api/seats/{seat}", "GET /api/seats/{seat}.sdp"),
    *("PATCH /api/seats/{seat}", "DELETE /api/seats/{seat}"),
}  # fmt: skip
"""What nobody need be signed in for, beside WHEP and WHIP. Look twice before adding to this."""
CALLERS = [None, "vera", "paul", "ines", "olga", "anna", "operator token"]
RANKS = {None: -1, "vera": 0, "paul": 1, "ines": 1, "olga": 2, "anna": 3, "operator token": 3}
_ORDER = ["viewer", "producer", "operator", "admin"]
ELSEWHERE = {key for key in RULES if key.endswith("/api/fabric/{path:path}")}
"""Where controllers of their own answer."""
STREAMS = {"GET /api/events"}  # they have no end; see test_channels_api


def test_what_is_for_anybody_is_what_is_written_here() -> None:
    found = {key for key, rule in RULES.items() if rule.least is None}
    ours = {key for key in found if not re.match(r"[A-Z]+ /(whep|whip)", key)}
    assert ours == FOR_ANYBODY


async def test_every_route_has_a_rule_and_every_rule_a_route(site: Site) -> None:
    tunnels = Tunnels(Endpoint("127.0.0.1", 1))
    keys = set(keys_of(make_app(site, token=TOKEN, tunnels=tunnels).routes))
    assert len(keys) > 100
    assert RULES.keys() - keys == ELSEWHERE
    assert not keys - RULES.keys()


async def test_an_application_with_a_route_without_a_rule_cannot_be_made(
    site: Site, people: People
) -> None:
    app = FastAPI(openapi_url=None, docs_url=None, redoc_url=None)

    @app.get("/api/forgotten")
    async def forgotten() -> None: ...

    with pytest.raises(UnruledError, match="GET /api/forgotten"):
        Gate(people, site, RULES).cover(app.routes)


async def test_parameters_that_rules_name_are_in_their_paths() -> None:
    for key, rule in RULES.items():
        for named in filter(None, (rule.sees, rule.manages, rule.node)):
            assert f"{{{named}}}" in key


def request_of(key: str, channel: str) -> tuple[str, str]:
    method, path = key.split(" ", 1)
    if method == "*":
        method, path = "GET", f"{path}/x.js"
    rule = RULES[key]
    named = rule.sees or rule.manages
    path = path.replace(f"{{{named}}}", channel) if named else path
    return method, re.sub(r"\{[^}]+\}", "nothing", path)


async def ask(scene: Scene, key: str, channel: str, who: str | None) -> httpx.Response:
    method, path = request_of(key, channel)
    headers = scene.bearer(who)
    content: bytes | None = None
    if path.startswith(("/whep", "/whip")) and method == "POST":
        headers["Content-Type"], content = "application/sdp", OFFER.encode()
    async with scene.client() as client:
        return await client.request(method, path, headers=headers, content=content)


@pytest.mark.parametrize(
    "key", sorted(RULES.keys() - STREAMS - ELSEWHERE - {"WS /api/fabric/events"})
)
async def test_every_route_with_every_role(scene: Scene, leaf: MemoryLeaf, key: str) -> None:
    rule = RULES[key]
    named = rule.sees or rule.manages
    for who in CALLERS:
        if "hidden" not in [channel.name for channel in scene.site.channels]:
            await scene.channel("hidden", "private", "ines")
        answer = await ask(scene, key, "hidden", who)
        rank = RANKS[who]
        if rule.least is not None and rank < _ORDER.index(rule.least):
            assert answer.status_code == (401 if who is None else 403), who
            assert answer.headers["content-type"] == "application/problem+json"
        elif named and who not in ("ines", "olga", "anna", "operator token"):
            absent = await ask(scene, key, "absent", who)
            assert answer.status_code == absent.status_code == 404
            assert answer.text.replace("hidden", "absent") == absent.text
            assert answer.headers.raw == absent.headers.raw
        else:
            told = "no channel named 'hidden'" in answer.text
            assert answer.status_code != 401 or key.startswith("POST /whip"), who
            assert not named or not told
            assert answer.status_code not in {403, 500}, (who, answer.text)


async def test_a_service_nodes_key_is_good_for_its_own_registration(scene: Scene) -> None:
    async with scene.client() as client:
        for key, rule in RULES.items():
            if rule.least is None or key in ELSEWHERE:
                continue
            method, path = request_of(key, "hidden")
            for node, good in (("nothing", rule.node is not None), ("another", False)):
                shown = {"Authorization": f"Bearer {key_of(TOKEN, node)}"}
                answer = await client.request(method, path, headers=shown)
                assert (answer.status_code != 401) == good, (key, answer.text)


@pytest.mark.parametrize(
    "key", sorted(key for key, rule in RULES.items() if rule.manages is not None)
)
async def test_a_producer_manages_its_own_channels_only(scene: Scene, key: str) -> None:
    assert (await ask(scene, key, "shown", "ines")).status_code == 403
    assert (await ask(scene, key, "byname", "paul")).status_code == 403
    assert (await ask(scene, key, "shown", "paul")).status_code != 403


async def test_what_no_route_is_for_is_answered_as_ever(scene: Scene) -> None:
    async with scene.client() as client:
        for path in ("/nothing", "/api/channels/a/b/c/d", "/api//channels", "/API/accounts"):
            assert (await client.get(path)).status_code == 404
        assert (await client.put("/api/accounts")).status_code == 405
        # Nor is there a way around by another spelling.
        for path in ("/api/accounts/", "//api/accounts", "/api/./accounts", "/api/accounts%2f"):
            answer = await client.get(path, follow_redirects=False)
            assert answer.status_code in (307, 401, 404)


def test_what_the_documentation_asks_for_is_there() -> None:
    text = (Path(__file__).parents[3] / "docs" / "api.md").read_text()
    asked = set()
    for line in re.findall(r"^(?:api|curl) .*$", text, re.MULTILINE):
        path = re.search(r"\$SITE(/[^\s'\"]*)", line)
        method = re.search(r"-X ([A-Z]+)", line)
        has_body = re.search(r" (-d|--data-binary) ", line)
        asked.add((method[1] if method else "POST" if has_body else "GET", path[1]))
    assert len(asked) > 20
    for how, place in asked:
        patterns = (
            re.sub(r"\\{[^}]+\\}", "[^/]+", re.escape(key.split(" ", 1)[1]))
            for key in RULES
            if key.startswith(f"{how} ")
        )
        assert any(re.fullmatch(pattern, place) for pattern in patterns), (how, place)
