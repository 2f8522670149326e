"""Invitations where a site takes no nodes of other machines in; tests/lab has one that does."""

import httpx
import pytest
from tests.console.conftest import OPERATOR


@pytest.mark.parametrize(
    ("method", "path"),
    [("GET", ""), ("POST", ""), ("DELETE", "/far")],
)
async def test_only_the_operator_asks_and_is_told_what_is_missing(
    client: httpx.AsyncClient, method: str, path: str
) -> None:
    url = f"/api/nodes/invitations{path}"
    body = {"name": "far"} if method == "POST" else None
    assert (await client.request(method, url, json=body)).status_code == 401
    answer = await client.request(method, url, json=body, headers=OPERATOR)
    assert answer.status_code == 409
    assert "remote.listen" in answer.json()["detail"]


@pytest.mark.parametrize(
    "wrong", [{"role": "king"}, {"rate_mbit": 0}, {"capacity": 0}, {"lifetime_s": -1}]
)
async def test_what_cannot_be_is_refused(
    client: httpx.AsyncClient, wrong: dict[str, object]
) -> None:
    body = {"name": "far", **wrong}
    answer = await client.post("/api/nodes/invitations", json=body, headers=OPERATOR)
    assert answer.status_code in {409, 422}
