"""``/api/fabric`` over a real fabric and soft switches: what is asked for is carried.

s1 -- s2 -- s3, and s1 -- s3: a triangle, a host at port 1 of each.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import dataclass, field

import httpx
import pytest
from fastapi import FastAPI
from tests.waiting import until

from anabranch.console import fabric_api, problems
from anabranch.fabric.fabric import Fabric
from anabranch.fabric.frames import ipv4_udp
from anabranch.fabric.model import Link, LinkInfo, PortRef
from anabranch.fabric.options import Options
from anabranch.fabric.softswitch.farm import Farm
from anabranch.fabric.softswitch.network import graph

TOKEN = "the-operators-secret"
S1, S3 = PortRef("s1", 1), PortRef("s3", 1)
FRAME = ipv4_udp(
    "01:00:5e:01:02:03", "02:00:00:00:00:01", "10.0.0.1", "239.1.2.3", 4000, 5004, b"news"
)
WANTED = {
    "name": "lecture",
    "match": {"eth_type": 2048, "ip_proto": 17, "ipv4_dst": "239.1.2.3", "udp_dst": 5004},
    "ingress": "s1:1",
    "egresses": [{"at": "s3:1", "ipv4_dst": "192.168.1.181"}],
}


@dataclass
class Live:
    fabric: Fabric
    farm: Farm
    client: httpx.AsyncClient
    left: list[tuple[PortRef, bytes]] = field(default_factory=list)

    def send(self) -> list[PortRef]:
        self.left.clear()
        self.farm.send(S1, FRAME)
        return [port for port, _ in self.left]

    async def read(self, path: str) -> dict[str, object] | list[dict[str, object]]:
        answer = await self.client.get(path)
        assert answer.status_code == 200, answer.text
        found: dict[str, object] | list[dict[str, object]] = answer.json()
        return found


@pytest.fixture
async def live() -> AsyncIterator[Live]:
    network = graph([(1, 2), (2, 3), (1, 3)])
    links = {Link(a, b): LinkInfo() for a, b in network.peers.items()}
    names = {switch.dpid: name for name, switch in network.switches.items()}
    fabric = Fabric(Options(names=names, links=links, counters_s=0), lambda _: None)
    app = FastAPI()
    app.state.fabric = fabric
    problems.install(app)
    app.include_router(fabric_api.make_router(TOKEN))
    port = await fabric.controller.listen_tcp("127.0.0.1", 0)
    left: list[tuple[PortRef, bytes]] = []
    farm = Farm(
        network, f"tcp:127.0.0.1:{port}", on_frame=lambda ref, frame: left.append((ref, frame))
    )
    running = asyncio.create_task(fabric.run())
    await farm.start()
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    headers = {"Authorization": f"Bearer {TOKEN}"}
    try:
        await until(lambda: len(fabric.network().links) == len(links))
        async with httpx.AsyncClient(
            transport=transport, base_url="http://site/api/fabric", headers=headers
        ) as client:
            yield Live(fabric, farm, client, left)
    finally:
        running.cancel()
        with suppress(asyncio.CancelledError):
            await running
        await fabric.close()
        await farm.close()


async def test_a_path_that_is_asked_for_is_carried_and_shown(live: Live) -> None:
    assert live.send() == []  # sink or swim
    answer = await live.client.post("/paths", json=WANTED)
    assert answer.status_code == 201, answer.text
    made = answer.json()
    assert made["pending"] == []
    (hop,) = made["path"]["links"]
    assert (hop["src"][:3], hop["dst"][:3]) == ("s1:", "s3:")
    assert [port[:2] for port in hop["bypass"]] == ["s1", "s2"]
    assert live.send() == [S3]
    (_, frame) = live.left[0]
    assert frame[30:34] == bytes((192, 168, 1, 181))

    flows = await live.read("/datapaths/s1/flows?table=3")
    assert isinstance(flows, dict)
    mine = [f for f in flows["items"] if f["match"].get("udp_dst") == 5004]  # type: ignore[attr-defined]
    assert [(f["match"]["in_port"], f["owner"], f["packets"]) for f in mine] == [(1, "intent", 1)]
    groups = await live.read("/datapaths/s1/groups")
    assert isinstance(groups, dict)
    assert [g["type"] for g in groups["items"]] == ["fast_failover"]  # type: ignore[attr-defined]

    assert (await live.client.delete("/paths/lecture")).status_code == 204
    assert live.send() == []


async def test_a_link_at_a_port_that_no_switch_can_have_is_refused(live: Live) -> None:
    link = {"src": "s1:65279", "dst": "s2:65279"}
    assert (await live.client.put("/links", json={"links": [link]})).status_code == 204
    declared = live.fabric.declared()
    for port in ("s1:65280", "s1:70000", "s1:0"):
        answer = await live.client.put("/links", json={"links": [{**link, "src": port}]})
        assert (answer.status_code, port in answer.json()["detail"]) == (422, True)
    assert live.fabric.declared() == declared


async def test_it_shows_how_a_path_moves_when_a_link_fails(live: Live) -> None:
    assert (await live.client.post("/paths", json=WANTED)).status_code == 201
    (link,) = live.fabric.plan().trees["lecture"].links
    live.farm.set_link(link.src, False)
    assert live.send() == [S3]  # by itself, before the controller has heard of it
    await until(lambda: len(live.fabric.plan().trees["lecture"].links) == 2)
    path = await live.read("/paths/lecture")
    assert isinstance(path, dict)
    assert len(path["links"]) == 2  # type: ignore[arg-type]
    links = await live.read("/links")
    assert isinstance(links, dict)
    assert sum(not known["up"] for known in links["items"]) == 2  # type: ignore[attr-defined]
    events = await live.read("/events?kinds=link.down")
    assert isinstance(events, list)
    assert len(events) == 1


async def test_what_cannot_be_compiled_is_refused_and_forgotten(live: Live) -> None:
    wrong = {**WANTED, "egresses": [{"at": "s3:1", "eth_dst": "no address"}]}
    answer = await live.client.post("/paths", json=wrong)
    assert answer.status_code == 422, answer.text
    paths = await live.read("/paths")
    assert isinstance(paths, dict)
    assert paths["total"] == 0
    assert (await live.client.post("/paths", json=WANTED)).status_code == 201


async def test_an_egress_that_nothing_leads_to_is_named(live: Live) -> None:
    wanted = {**WANTED, "egresses": [*WANTED["egresses"], {"at": "s9:1"}]}
    answer = await live.client.post("/paths", json=wanted)
    assert answer.status_code == 201, answer.text
    assert answer.json()["path"]["unreachable"] == ["s9:1"]
    intents = await live.read("/intents")
    assert isinstance(intents, dict)
    assert intents["unreachable"] == {"lecture": ["s9:1"]}
    assert live.send() == [S3]


async def test_links_that_cannot_be_are_refused(live: Live) -> None:
    twice = {"links": [{"src": "s1:2", "dst": "s2:2"}, {"src": "s1:2", "dst": "s3:2"}]}
    assert (await live.client.put("/links", json=twice)).status_code == 422
    assert len(live.fabric.network().links) == 6


async def test_a_path_past_machines_is_carried(live: Live) -> None:
    wanted = {
        "name": "stream",
        "ingress": "s1:1",
        "exit": "s3:1",
        "external": "192.168.1.181",
        "extend_match": {"dataLayerType": "0x0800", "networkDestination": "239.1.2.3"},
        "roles": {"s1": "root", "s3": "leaf"},
    }
    for wrong in (
        {"extend_match": {"dataLayerType": "0x0806"}},
        {"match": {"in_port": 1, "eth_type": 2048}, "extend_match": None},
        {"roles": {"s1": "leaf"}},
    ):
        answer = await live.client.post("/vm-paths", json={**wanted, **wrong})
        assert answer.status_code == 422, answer.text
    answer = await live.client.post("/vm-paths", json=wanted)
    assert answer.status_code == 201, answer.text
    rules = [rule["name"] for rule in answer.json()["path"]["rules"]]
    assert rules == [f"RTP_PASSTHROUGH{number:016x}" for number in (1, 3)]
    assert len(answer.json()["path"]["links"]) == 1
    assert live.send() == [S3]
    (link,) = live.fabric.plan().trees["stream"].links
    live.farm.set_link(link.src, False)
    await until(lambda: len(live.fabric.named_rules("stream")) == 3)
    path = await live.read("/vm-paths/stream")
    assert isinstance(path, dict)
    assert [hop["src"][:2] for hop in path["links"]] == ["s1", "s2"]  # type: ignore[attr-defined]
    assert (await live.client.delete("/vm-paths/stream")).status_code == 204
    assert live.send() == []
    assert (await live.client.get("/vm-paths/stream")).status_code == 404
