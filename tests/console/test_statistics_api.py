"""The tree's figures and history, asked for by HTTP."""

import asyncio

import httpx
from tests.console.conftest import OPERATOR

from anabranch.core.events import Event
from anabranch.site.reaction import Deed
from anabranch.site.site import Site


async def test_only_the_operator_may_look(client: httpx.AsyncClient) -> None:
    for path in ("/api/tree/statistics", "/api/tree/history"):
        assert (await client.get(path)).status_code == 401
    assert (await client.post("/api/tree/restart")).status_code == 401


async def test_a_site_without_switches_has_a_root_and_a_leaf(
    client: httpx.AsyncClient, site: Site
) -> None:
    while not site.steward.agents.registry.nodes:
        await asyncio.sleep(0.01)
    found = (await client.get("/api/tree/statistics", headers=OPERATOR)).json()
    assert found["present"] == {"leaf1": "root"}
    assert found["diagnoses"] == found["lowered"] == []
    assert found["acting"] is True


async def test_the_history_is_told_as_a_whole_and_of_one_node(
    client: httpx.AsyncClient, site: Site
) -> None:
    event = Event("tree.leaf-draining", "leaf1", {"reason": "cpu is in danger"}, 7.0)
    site.steward.reaction.history.append(Deed(event, "done"))
    expected = {
        "time": 7.0,
        "action": "leaf-draining",
        "node": "leaf1",
        "outcome": "done",
        "data": {"reason": "cpu is in danger"},
    }
    for query, found in (("", [expected]), ("?node=leaf1", [expected]), ("?node=root", [])):
        answer = await client.get(f"/api/tree/history{query}", headers=OPERATOR)
        assert answer.json() == found
    answer = await client.get("/api/tree/history?node=nobody", headers=OPERATOR)
    assert answer.status_code == 404


async def test_the_root_begins_anew_when_told(client: httpx.AsyncClient, site: Site) -> None:
    before = site.steward.agents.root
    assert (await client.post("/api/tree/restart", headers=OPERATOR)).status_code == 204
    assert site.steward.agents.root is not before
