"""Nodes and tree of a site without switches: one leaf, which stays. The others are in the lab."""

import httpx
import pytest
from tests.console.conftest import OPERATOR

from anabranch.channels.seats import Seat
from anabranch.site.site import Site


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/api/nodes"),
        ("GET", "/api/tree"),
        *(("POST", f"/api/nodes/leaf1/{what}") for what in ("start", "drain", "undrain", "stop")),
        ("GET", "/api/nodes/leaf1/pipelines"),
        *(("POST", f"/api/nodes/leaf1/pipelines/x/{what}") for what in ("play", "stop")),
        *(("PUT", f"/api/nodes/leaf1/pipelines/{what}") for what in ("x", "x/outlets/y")),
        ("DELETE", "/api/nodes/leaf1/pipelines/x"),
    ],
)
async def test_only_the_operator_sees_and_changes_nodes(
    client: httpx.AsyncClient, method: str, path: str
) -> None:
    assert (await client.request(method, path)).status_code == 401


async def test_the_one_leaf_is_listed_with_its_viewers(
    client: httpx.AsyncClient, site: Site
) -> None:
    site.seats.add(Seat("news", "high", "leaf1", "1"))
    (node,) = (await client.get("/api/nodes", headers=OPERATOR)).json()
    assert (node["name"], node["state"], node["viewers"]) == ("leaf1", "up", 1)
    metrics = (await client.get("/metrics", headers=OPERATOR)).text
    assert 'anabranch_node_up{node="leaf1",role="leaf"} 1.0' in metrics
    assert "anabranch_nodes_idle 0.0" in metrics


async def test_without_switches_no_node_comes_or_goes(client: httpx.AsyncClient) -> None:
    for what in ("start", "drain", "undrain", "stop"):
        answer = await client.post(f"/api/nodes/leaf1/{what}", headers=OPERATOR)
        assert answer.status_code == 409, answer.text
        assert "without switches" in answer.json()["detail"]
    assert (await client.get("/api/tree", headers=OPERATOR)).status_code == 404


@pytest.mark.parametrize(
    ("what", "body"),
    [
        ("start", {"below": 7}),
        ("start", {"beneath": "root"}),
        ("start", {"below": "x" * 41}),
        ("stop", {"patience_s": -1}),
        ("stop", {"patience_s": 1e9}),
        ("stop", {"patience_s": "soon"}),
    ],
)
async def test_bad_input_is_refused(
    client: httpx.AsyncClient, what: str, body: dict[str, object]
) -> None:
    answer = await client.post(f"/api/nodes/leaf1/{what}", headers=OPERATOR, json=body)
    assert answer.status_code == 422, answer.text
