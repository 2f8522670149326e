"""NetMonitor's other side: what nodes answer, rates, and the page's data."""

import asyncio
from collections.abc import Sequence

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from anabranch.app.provide_monitor_command import Shown, monitor_api
from anabranch.services.errors import ServicesError
from anabranch.services.modules.netmonitor.provider import Counted, Counters, Monitor
from anabranch.services.signalling.response import Hop

FLOW = "10.1.0.1_10.2.0.1_"


def hop(node: str, **details: str) -> Hop:
    return Hop(node, 200, "probed", {"state": "running", "address": "192.0.2.1", **details})


def measured(node: str, packets: int, ttl: int) -> Counted:
    said = {"counted": str(packets), "flows": "1", "lost": "0", f"{FLOW}{ttl}": str(packets)}
    return Counted.of(hop(node, **said))


def test_rates_follow_from_the_counters() -> None:
    counters = Counters()
    for second in range(5):
        counters.put(
            100.0 + second, [measured("a", 100 * second, 63), measured("b", 50 * second, 61)]
        )
    assert counters.rate("a") == pytest.approx(100)
    found = counters.snapshot()
    assert [node["node"] for node in found["nodes"]] == ["a", "b"]
    assert found["nodes"][1]["rate"] == 50
    assert found["nodes"][0]["history"] == [100] * 4
    (flow,) = found["flows"]
    assert (flow["source"], flow["destination"]) == ("10.1.0.1", "10.2.0.1")
    assert flow["seen"][0] == {"node": "a", "ttl": 63, "packets": 400, "rate": 100.0}
    counters.put(105.0, [measured("a", 10, 63)])  # installed anew; and b is gone
    assert counters.rate("a") == 0
    assert counters.rate("b") == 0
    assert counters.history("b")[-1] is None


@given(st.lists(st.dictionaries(
    st.text(max_size=30) | st.sampled_from(["counted", "flows", f"{FLOW}64", f"{FLOW}999"]),
    st.text(max_size=20) | st.sampled_from(["1", "²", "99999999999999999999"]), max_size=8,
), max_size=4))  # fmt: skip
def test_whatever_nodes_answer(answers: list[dict[str, str]]) -> None:
    counters = Counters()
    for second, details in enumerate(answers):
        counters.put(float(second), [Counted.of(Hop("a", 200, "probed", details))])
        counters.snapshot()
        list(counters.collect())


class OnePath:
    def __init__(self) -> None:
        self.installs = self.removals = self.packets = 0
        self.broken = False

    async def install(self) -> None:
        if self.broken:
            raise ServicesError("no node answered")
        self.installs += 1

    async def probe(self) -> Sequence[Hop]:
        if self.broken:
            raise ServicesError("no node answered")
        self.packets += 10
        return [hop("a", counted=str(self.packets), **{f"{FLOW}64": str(self.packets)})]

    async def remove(self) -> None:
        self.removals += 1


async def test_page_json_and_metrics() -> None:
    path = OnePath()
    monitor = Monitor(path, interval=0.01, renewal=0.05)
    running = asyncio.create_task(monitor.run())
    transport = httpx.ASGITransport(monitor_api(monitor, Shown("10.1.0.1", "10.2.0.1", "udp")))
    async with httpx.AsyncClient(transport=transport, base_url="http://x") as client:
        while path.installs < 2:
            await asyncio.sleep(0.01)
        found = (await client.get("/api/monitor")).json()
        assert (found["towards"], found["destination"]) == ("10.1.0.1", "10.2.0.1")
        assert found["trouble"] is None
        assert found["nodes"][0]["packets"] > 0
        text = (await client.get("/metrics")).text
        assert 'anabranch_netmonitor_flow_packets_total{destination="10.2.0.1",node="a"' in text
        path.broken = True
        while monitor.trouble is None:
            await asyncio.sleep(0.01)
        assert (await client.get("/api/monitor")).json()["trouble"] == "no node answered"
        assert found["nodes"]  # what was known stays
        path.broken = False
        while monitor.trouble is not None:
            await asyncio.sleep(0.01)
        assert (await client.get("/")).status_code in {200, 503}
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    assert path.removals == 1
