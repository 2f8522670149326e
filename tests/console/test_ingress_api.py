"""The ingress' report where there is none."""

import httpx
from tests.console.conftest import OPERATOR


async def test_without_switches_there_is_no_ingress(client: httpx.AsyncClient) -> None:
    assert (await client.get("/api/ingress")).status_code == 401
    answer = await client.get("/api/ingress", headers=OPERATOR)
    assert answer.status_code == 404
    assert "directly" in answer.json()["detail"]
    metrics = (await client.get("/metrics")).text
    assert "anabranch_channel_live" in metrics
    assert "anabranch_ingress" not in metrics
