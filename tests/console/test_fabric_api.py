"""``/api/fabric`` over records in memory: what is read, what may be asked for, who may ask."""

import asyncio
import json
import socket
from collections.abc import (
    AsyncGenerator,
    AsyncIterator,
    Collection,
    Iterable,
    Mapping,
    Sequence,
)
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from anabranch.app.serving import serve
from anabranch.console import fabric_api, problems
from anabranch.console.fabric_json import action_out, match_of, match_out
from anabranch.console.fabric_paths import from_root
from anabranch.console.limits import LimitBody
from anabranch.core.events import Event, EventBus
from anabranch.fabric.errors import DisconnectedError, MisuseError
from anabranch.fabric.failures import Failure, NotDoneError
from anabranch.fabric.intents import Egress, Flow, Intents, Policy, Tap
from anabranch.fabric.model import Host, Link, LinkInfo, Network, PortInfo, PortRef
from anabranch.fabric.notify import Notifier
from anabranch.fabric.openflow.actions import (
    PORT_CONTROLLER,
    PORT_IN_PORT,
    ApplyActions,
    GotoTable,
    Group,
    Meter,
    OtherAction,
    OtherInstruction,
    Output,
    PopVlan,
    PushVlan,
    SetField,
    WriteMetadata,
)
from anabranch.fabric.openflow.messages import (
    Bucket,
    FlowStats,
    GroupDesc,
    GroupStats,
    GroupType,
    MeterBand,
    MeterConfig,
    MeterStats,
    Port,
    PortStats,
)
from anabranch.fabric.openflow.oxm import Match
from anabranch.fabric.pathlogic.logic import NamedRule, Path, Role
from anabranch.fabric.switches import SwitchState
from anabranch.fabric.wishes import OPERATOR as OWNER

TOKEN = "the-operators-secret"
OPERATOR = {"Authorization": f"Bearer {TOKEN}"}
A1, A2, A3, B1, B2 = (PortRef(s, n) for s, n in (("a", 1), ("a", 2), ("a", 3), ("b", 1), ("b", 2)))
LINK = Link(A2, B1)
SPARE = Link(A3, B2)
SITES = Flow("site-news", Match(eth_type=0x0800, ipv4_dst="239.0.0.1"), A1, frozenset({Egress(B2)}))
WANTED = {
    "name": "lecture",
    "match": {"eth_type": 2048, "ip_proto": 17, "ipv4_dst": "239.1.2.3", "udp_dst": 5004},
    "ingress": "a:1",
    "egresses": [{"at": "b:2", "ipv4_dst": "192.168.1.181"}, {"at": "c:9"}],
    "policy": "widest",
    "rate_kbps": 5000,
}


VM_PATH = {
    "name": "stream",
    "ingress": "a:1",
    "exit": "b:2",
    "external": "192.168.1.181",
    "extend_match": {"dataLayerType": "0x0800", "networkDestination": "10.0.0.255"},
    "roles": {"a": "root", "b": "leaf"},
}


class Tree:
    links = frozenset({LINK})


class Plan:
    bypasses: Mapping[Link, tuple[Link, ...]] = {LINK: (SPARE,)}

    def __init__(self, intents: Intents, followed: Iterable[str]) -> None:
        self.trees = {name: Tree() for name in (*intents.names, *followed)}
        self.unreachable = {
            flow.name: frozenset(e for e in flow.egress if e.at.switch == "c")
            for flow in intents.flows
        }


class MemoryFabric:
    """Two switches that are known, and the intents of two owners."""

    def __init__(self) -> None:
        self.events = EventBus()
        self.notifier = Notifier(self.events.publish)
        self.wanted = {"site": Intents((SITES,)), OWNER: Intents()}
        self.given: dict[Link, LinkInfo] = {}
        self.log: list[Event] = []
        self.stats: list[FlowStats] = []
        self.paths: dict[str, Path] = {}
        self.refused: list[Failure] = []

    def network(self) -> Network:
        ports = {port: PortInfo(f"eth{port.port_no}") for port in (A1, A2, A3, B1, B2)}
        back = LinkInfo(up=False, last_resort=True)
        links = {LINK: LinkInfo(load_mbit=1.5), LINK.reverse: back, **self.given}
        host = Host("02:00:00:00:00:01", A1, "10.0.0.1")
        return Network({"a": 10, "b": 11}, ports, links, {host.mac: host})

    def switches(self) -> Mapping[str, SwitchState]:
        port = Port(1, "02:00:00:00:00:00", "eth1")
        return {"a": _state(True, 10, {1: port}, 3), "b": _state(False, None, {}, None)}

    def intents(self, owner: str | None = None) -> Intents:
        if owner is not None:
            return self.wanted[owner]
        tap = Tap("handshakes", Match(eth_type=0x0800, ip_proto=6, tcp_flags=(2, 2)), to=None)
        flows = [flow for intents in self.wanted.values() for flow in intents.flows]
        return Intents(tuple(flows), (tap,))

    def plan(self) -> Plan:
        return Plan(self.intents(), self.paths)

    def failures(self) -> Sequence[Failure]:
        return self.refused

    def _done(self, names: Collection[str]) -> frozenset[str]:
        pending = frozenset({"b"}) if names else frozenset[str]()
        if failures := [failure for failure in self.refused if failure.hit & set(names)]:
            raise NotDoneError(failures, pending)
        return pending

    async def put(self, intents: Intents, owner: str = "site") -> frozenset[str]:
        self.wanted[owner] = intents
        return self._done(intents.names)

    async def follow(self, paths: Collection[Path]) -> frozenset[str]:
        self.paths = {path.name: path for path in paths}
        return self._done(self.paths.keys())

    def followed(self) -> Mapping[str, Path]:
        return dict(self.paths)

    def named_rules(self, name: str) -> tuple[NamedRule, ...]:
        exit_port = self.paths[name].exit
        through = NamedRule("RTP_PASSTHROUGH000000000000000a", "a", 1, 2)
        return through, NamedRule("RTP_TOVNET2_000000000000000b", "b", None, exit_port.port_no)

    def declare(self, links: Mapping[Link, LinkInfo]) -> None:
        self.given = dict(links)

    def declared(self) -> Mapping[Link, LinkInfo]:
        return dict(self.given)

    def _connected(self, switch: str) -> None:
        if switch != "a":
            raise DisconnectedError(f"{switch} is not connected")

    async def port_stats(self, switch: str) -> list[PortStats]:
        self._connected(switch)
        return [PortStats(1, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 60.0)]

    async def flows(self, switch: str) -> list[FlowStats]:
        self._connected(switch)
        return self.stats

    async def groups(self, switch: str) -> list[tuple[GroupDesc, GroupStats | None]]:
        self._connected(switch)
        buckets = (Bucket((Output(2),), watch_port=2), Bucket((Output(3),), watch_port=3))
        counts = GroupStats(7, 1, 50, 500, 9.5, ((50, 500),))
        return [
            (GroupDesc(9, GroupType.ALL, (Bucket((Output(1),)),)), None),
            (GroupDesc(7, GroupType.FAST_FAILOVER, buckets), counts),
        ]

    async def meters(self, switch: str) -> list[tuple[MeterConfig, MeterStats | None]]:
        self._connected(switch)
        config = MeterConfig(1, (MeterBand(5000, 500),))
        return [(config, MeterStats(1, 2, 30, 300, 9.5, ((3, 30),)))]

    def subscribe(self) -> AsyncGenerator[Event, None]:
        return self.events.subscribe()

    async def recent_events(self, limit: int) -> list[Event]:
        return self.log[:limit]


def _state(
    connected: bool, dpid: int | None, ports: dict[int, Port], rules: int | None
) -> SwitchState:
    return SwitchState(connected=connected, dpid=dpid, ports=ports, rules=rules)


def make_app(fabric: MemoryFabric | None) -> FastAPI:
    app = FastAPI(openapi_url="/api/openapi.json")
    app.state.fabric = fabric
    problems.install(app)
    app.add_middleware(LimitBody, limit=128 * 1024)
    app.include_router(fabric_api.make_router(TOKEN))
    return app


@pytest.fixture
async def fabric() -> AsyncIterator[MemoryFabric]:
    made = MemoryFabric()
    await made.notifier.open()
    yield made
    await made.notifier.close()


@pytest.fixture
async def client(fabric: MemoryFabric) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(make_app(fabric), raise_app_exceptions=False)
    async with httpx.AsyncClient(
        transport=transport, base_url="http://site/api/fabric", headers=OPERATOR
    ) as made:
        yield made


async def read(client: httpx.AsyncClient, path: str) -> Any:
    answer = await client.get(path)
    assert answer.status_code == 200, answer.text
    return answer.json()


def is_problem(answer: httpx.Response, status: int) -> str:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    return str(answer.json()["detail"])


# --- who may -----------------------------------------------------------------------------------


def test_every_route_is_in_the_document_with_words_and_a_lock() -> None:
    document = make_app(None).openapi()
    operations = [
        (method, path, operation)
        for path, item in document["paths"].items()
        for method, operation in item.items()
    ]
    assert len(operations) >= 20
    for method, path, operation in operations:
        assert operation["security"], (method, path)
        assert operation["description"], (method, path)
    assert document["components"]["schemas"]["PathIn"]["examples"][0]["name"] == "lecture"
    assert document["components"]["schemas"]["VmPathIn"]["examples"][0]["name"] == "stream"


async def test_without_the_token_nothing_is_answered(client: httpx.AsyncClient) -> None:
    paths = make_app(None).openapi()["paths"]
    for path, item in paths.items():
        url = "http://site" + path.replace("{name}", "a").replace("{callback}", "x")
        for method in item:
            answer = await client.request(method, url, headers={"Authorization": "Bearer wrong"})
            is_problem(answer, 401)


async def test_a_site_without_switches_says_so() -> None:
    transport = httpx.ASGITransport(make_app(None), raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://site") as client:
        answer = await client.get("/api/fabric/datapaths", headers=OPERATOR)
    assert "no fabric" in is_problem(answer, 503)


async def test_a_large_body_is_not_read(client: httpx.AsyncClient) -> None:
    is_problem(await client.post("/paths", content=b"[" * 200_000), 413)


# --- the network -------------------------------------------------------------------------------


async def test_datapaths(client: httpx.AsyncClient) -> None:
    known = {"name": "a", "dpid": "000000000000000a", "connected": True, "ports": 1, "rules": 3}
    away = {"name": "b", "dpid": None, "connected": False, "ports": 0, "rules": None}
    assert await read(client, "/datapaths") == [known, away]
    assert await read(client, "/datapaths/a") == known
    is_problem(await client.get("/datapaths/c"), 404)


@pytest.mark.parametrize("what", ["counters", "flows", "groups", "meters"])
async def test_a_switch_that_is_away_cannot_be_read(client: httpx.AsyncClient, what: str) -> None:
    assert is_problem(await client.get(f"/datapaths/b/{what}"), 503) == "b is not connected"
    is_problem(await client.get(f"/datapaths/c/{what}"), 404)


async def test_ports_know_what_is_at_their_other_end(client: httpx.AsyncClient) -> None:
    found = await read(client, "/ports")
    assert found["total"] == 5
    by_port = {port["port"]: port for port in found["items"]}
    assert by_port["a:1"]["hosts"] == ["02:00:00:00:00:01"]
    assert by_port["a:2"]["link"] == "b:1"
    assert by_port["a:3"]["link"] is None
    only = await read(client, "/ports?datapath=b&limit=1&offset=1")
    assert (only["total"], only["offset"]) == (2, 1)
    assert [port["port"] for port in only["items"]] == ["b:2"]
    counters = await read(client, "/datapaths/a/counters")
    assert counters[0]["port"] == "a:1"
    assert (counters[0]["counters"]["rx_packets"], counters[0]["counters"]["tx_errors"]) == (1, 8)


async def test_links_are_listed_and_declared(
    client: httpx.AsyncClient, fabric: MemoryFabric
) -> None:
    found = await read(client, "/links")
    assert [(link["src"], link["dst"]) for link in found["items"]] == [
        ("a:2", "b:1"),
        ("b:1", "a:2"),
    ]
    assert found["items"][0]["load_mbit"] == 1.5
    assert [link["last_resort"] for link in found["items"]] == [False, True]
    body = {
        "links": [
            {"src": "a:3", "dst": "b:2", "redundant": True, "capacity_mbit": 100},
            {"src": "a:2", "dst": "b:1", "both": False},
        ]
    }
    answer = await client.put("/links", json=body)
    assert answer.status_code == 204
    spare = LinkInfo(capacity_mbit=100, redundant=True)
    assert fabric.given == {SPARE: spare, SPARE.reverse: spare, LINK: LinkInfo()}


@pytest.mark.parametrize(
    "link",
    [
        {"src": "a:3"},
        {"src": "a", "dst": "b:1"},
        {"src": "a:x", "dst": "b:1"},
        {"src": "a:1", "dst": "b:1", "colour": "red"},
        {"src": "a:1", "dst": "b:1", "capacity_mbit": -1},
        {"src": "a:1", "dst": "b:1", "capacity_mbit": True},
    ],
)
async def test_what_is_no_link_is_refused(
    client: httpx.AsyncClient, fabric: MemoryFabric, link: dict[str, Any]
) -> None:
    is_problem(await client.put("/links", json={"links": [link]}), 422)
    assert fabric.given == {}


async def test_hosts(client: httpx.AsyncClient) -> None:
    host = {"mac": "02:00:00:00:00:01", "at": "a:1", "ipv4": "10.0.0.1", "vm": False}
    assert (await read(client, "/hosts"))["items"] == [host]


# --- what a switch holds -----------------------------------------------------------------------


def entry(table: int, priority: int, cookie: int = 0, **match: Any) -> FlowStats:
    actions = ApplyActions((SetField("ipv4_dst", "10.0.0.9"), Output(3)))
    return FlowStats(
        table, 5.5, priority, 10, 0, 0, cookie, 7, 700, Match(**match), (actions, GotoTable(4))
    )


async def test_flows_are_readable_and_in_order(
    client: httpx.AsyncClient, fabric: MemoryFabric
) -> None:
    fabric.stats = [
        entry(3, 5, 0xAB << 56 | 1, in_port=1, metadata=(1, 1)),
        entry(3, 9, 0xAC << 56, eth_type=0x0800, ipv4_dst="10.0.0.0/8"),
        entry(0, 1),
    ]
    found = await read(client, "/datapaths/a/flows")
    assert [(f["table"], f["priority"], f["owner"]) for f in found["items"]] == [
        (0, 1, "other"),
        (3, 9, "reactive"),
        (3, 5, "intent"),
    ]
    assert found["items"][2] == {
        "table": 3,
        "priority": 5,
        "match": {"in_port": 1, "metadata": "0x1/0x1"},
        "actions": [{"set_field": {"ipv4_dst": "10.0.0.9"}}, {"output": 3}],
        "meter": None,
        "metadata": None,
        "goto_table": 4,
        "cookie": "0xab00000000000001",
        "owner": "intent",
        "packets": 7,
        "bytes": 700,
        "duration_s": 5.5,
        "idle_timeout_s": 10,
        "hard_timeout_s": 0,
    }
    table = await read(client, "/datapaths/a/flows?table=3&limit=1&offset=1")
    assert (table["total"], [f["priority"] for f in table["items"]]) == (2, [5])
    for query in ("limit=0", "limit=5001", "offset=-1", "table=255", "table=x"):
        is_problem(await client.get(f"/datapaths/a/flows?{query}"), 422)


async def test_every_instruction_is_shown(client: httpx.AsyncClient, fabric: MemoryFabric) -> None:
    instructions = (Meter(4), WriteMetadata(0x100, 0xFFFF00), OtherInstruction(b"\xff\xff\x00\x08"))
    fabric.stats = [FlowStats(0, 1, 1, 0, 0, 0, 0, 0, 0, Match(), instructions)]
    (flow,) = (await read(client, "/datapaths/a/flows"))["items"]
    assert (flow["meter"], flow["metadata"]) == (4, "0x100/0xffff00")
    assert flow["actions"] == [{"other": "ffff0008"}]


@pytest.mark.parametrize(
    ("action", "expected"),
    [
        (Output(PORT_CONTROLLER, 0xFFFF), {"output": "controller"}),
        (Output(PORT_IN_PORT), {"output": "in_port"}),
        (Group(5), {"group": 5}),
        (PushVlan(), {"push_vlan": 0x8100}),
        (PopVlan(), {"pop_vlan": {}}),
        (OtherAction(b"\x01\x02"), {"other": "0102"}),
    ],
)
def test_every_action_is_shown(action: Any, expected: dict[str, Any]) -> None:
    assert action_out(action) == expected


async def test_groups_and_meters(client: httpx.AsyncClient) -> None:
    first, second = (await read(client, "/datapaths/a/groups"))["items"]
    assert (first["group"], first["type"], first["packets"]) == (7, "fast_failover", 50)
    assert [(b["watch_port"], b["packets"]) for b in first["buckets"]] == [(2, 50), (3, None)]
    assert (second["type"], second["packets"]) == ("all", None)
    assert second["buckets"][0]["watch_port"] is None
    (meter,) = (await read(client, "/datapaths/a/meters"))["items"]
    assert (meter["unit"], meter["flows"]) == ("kbit/s", 2)
    assert meter["bands"] == [{"rate": 5000, "burst_size": 500, "packets": 3, "bytes": 30}]


@pytest.mark.parametrize(
    "match",
    [
        Match(),
        Match(eth_type=0x0800, ip_proto=17, ipv4_dst="239.1.2.3", udp_dst=5004),
        Match(eth_dst="01:00:00:00:00:00/01:00:00:00:00:00"),
        Match(vlan_vid=(0x1000, 0x1000), ipv4_src="10.0.0.0/8", eth_type=0x0800),
        Match(eth_type=0x0800, ip_proto=6, tcp_flags=(2, 0x12)),
    ],
)
def test_a_match_is_itself_again(match: Match) -> None:
    assert match_of(json.loads(json.dumps(match_out(match)))) == match


def test_unknown_fields_are_not_taken() -> None:
    for name in ("other", "fields", "colour", "__class__"):
        with pytest.raises(MisuseError, match="no match field"):
            match_of({name: 1})


# --- paths -------------------------------------------------------------------------------------


async def test_a_path_is_asked_for_shown_changed_and_taken_back(
    client: httpx.AsyncClient, fabric: MemoryFabric
) -> None:
    answer = await client.post("/paths", json=WANTED)
    assert answer.status_code == 201, answer.text
    made = answer.json()
    assert made["pending"] == ["b"]
    (flow,) = fabric.wanted[OWNER].flows
    assert (flow.ingress, flow.policy, flow.rate_kbps) == (A1, Policy.WIDEST, 5000)
    assert flow.egress == {Egress(B2, ipv4_dst="192.168.1.181"), Egress(PortRef("c", 9))}
    path = await read(client, "/paths/lecture")
    assert path == made["path"]
    assert path["match"] == WANTED["match"]
    assert path["links"] == [{"src": "a:2", "dst": "b:1", "bypass": ["a:3"]}]
    assert (path["unreachable"], path["own"]) == (["c:9"], True)
    change = {name: value for name, value in WANTED.items() if name != "name"}
    answer = await client.put("/paths/lecture", json={**change, "egresses": [{"at": "b:2"}]})
    assert answer.status_code == 200, answer.text
    assert answer.json()["path"]["unreachable"] == []
    both = await read(client, "/paths")
    assert [(p["name"], p["own"]) for p in both["items"]] == [
        ("lecture", True),
        ("site-news", False),
    ]
    assert (await client.delete("/paths/lecture")).status_code == 204
    assert fabric.wanted == {"site": Intents((SITES,)), OWNER: Intents()}
    is_problem(await client.delete("/paths/lecture"), 404)
    is_problem(await client.get("/paths/lecture"), 404)


@pytest.mark.parametrize(("where", "wanted"), [("paths", WANTED), ("vm-paths", VM_PATH)])
async def test_a_path_that_a_switch_refuses_is_told_and_wanted_all_the_same(
    client: httpx.AsyncClient, fabric: MemoryFabric, where: str, wanted: dict[str, Any]
) -> None:
    name = str(wanted["name"])
    why = {"switch": "a", "reason": "a refused rule: table full"}
    fabric.refused = [
        Failure(**why, hit=frozenset({name})),
        Failure("b", "b refused group 7", hit=frozenset({"site-news"})),
    ]
    answer = await client.post(f"/{where}", json=wanted)
    assert is_problem(answer, 503) == "a refused rule: table full", "the other is not its concern"
    assert answer.json()["title"] == "Not available now"
    assert answer.headers["retry-after"] == "1"
    assert (await read(client, f"/{where}/{name}"))["refused"] == [why]
    (item,) = [item for item in (await read(client, f"/{where}"))["items"] if item["name"] == name]
    assert item["refused"] == [why]
    assert (await read(client, "/paths/site-news"))["refused"] == [
        {"switch": "b", "reason": "b refused group 7"}
    ]
    assert [refused["hit"] for refused in (await read(client, "/intents"))["refused"]] == [
        [name],
        ["site-news"],
    ]
    other = await client.post(f"/{where}", json={**wanted, "name": "other"})
    assert other.status_code == 201, "it does not suffer from its neighbour"
    assert other.json()["path"]["refused"] == []
    assert other.json()["pending"] == ["b"]
    assert (await client.delete(f"/{where}/other")).status_code == 204
    assert (await client.delete(f"/{where}/{name}")).status_code == 204


async def test_names_are_taken_once_and_the_sites_own_paths_stay(
    client: httpx.AsyncClient, fabric: MemoryFabric
) -> None:
    assert (await client.post("/paths", json=WANTED)).status_code == 201
    is_problem(await client.post("/paths", json=WANTED), 409)
    is_problem(await client.post("/paths", json={**WANTED, "name": "site-news"}), 409)
    is_problem(await client.delete("/paths/site-news"), 409)
    change = {name: value for name, value in WANTED.items() if name != "name"}
    is_problem(await client.put("/paths/site-news", json=change), 409)
    is_problem(await client.put("/paths/other", json=change), 404)
    assert len(fabric.intents().flows) == 2


async def test_many_asking_at_once_lose_nobody(
    client: httpx.AsyncClient, fabric: MemoryFabric
) -> None:
    bodies = [{**WANTED, "name": f"n{number}"} for number in range(20)]
    answers = await asyncio.gather(*(client.post("/paths", json=body) for body in bodies))
    assert {answer.status_code for answer in answers} == {201}
    assert fabric.intents(OWNER).names == {f"n{number}" for number in range(20)}


@pytest.mark.parametrize(
    "change",
    [
        {"name": "Not a name"},
        {"match": {"colour": 1}},
        {"match": {"in_port": 1}},
        {"match": {"udp_dst": 70000}},
        {"match": {"udp_dst": 1 << 65}},
        {"match": {"ipv4_dst": "somewhere"}},
        {"match": {"udp_dst": [1]}},
        {"ingress": "a"},
        {"egresses": [{"at": "b:2", "udp_dst": 0}]},
        {"egresses": [{"at": "b:2"}] * 1001},
        {"policy": "scenic"},
        {"priority": 0},
        {"rate_kbps": 0},
        {"match": {"eth_type": True}},
        {"egresses": [{"at": "b:2", "udp_dst": True}]},
        {"priority": True},
        {"rate_kbps": True},
        {"colour": "red"},
    ],
)
async def test_what_is_no_path_is_refused(
    client: httpx.AsyncClient, fabric: MemoryFabric, change: dict[str, Any]
) -> None:
    is_problem(await client.post("/paths", json={**WANTED, **change}), 422)
    assert fabric.intents(OWNER).flows == ()


def chain(*ends: str) -> list[Link]:
    """``a1 b2`` is a link from a's port 1 to b's port 2."""
    ports = [[PortRef(end[0], int(end[1])) for end in pair.split()] for pair in ends]
    return [Link(src, dst) for src, dst in ports]


@pytest.mark.parametrize(
    "links",
    [
        chain(),
        chain("z1 y1", "y2 x1", "x2 a1"),
        chain("z1 m1", "z2 a1", "m2 b1", "a2 c1", "b2 d1"),
        chain("z1 y1", "y1 z1", "y2 a1"),  # to a service and back
        chain("z1 y1", "b1 a1", "c1 b2"),  # the last two cannot be come by
    ],
)
def test_links_are_shown_from_the_ingress_on(links: list[Link]) -> None:
    assert from_root(frozenset(links), "z") == links


async def test_a_path_past_machines_is_asked_for_shown_and_taken_back(
    client: httpx.AsyncClient, fabric: MemoryFabric
) -> None:
    answer = await client.post("/vm-paths", json=VM_PATH)
    assert answer.status_code == 201, answer.text
    made = answer.json()
    assert made["pending"] == ["b"]
    roles = {"a": Role.ROOT, "b": Role.LEAF}
    match = Match(eth_type=0x0800, ipv4_dst="10.0.0.255")
    wanted = Path("stream", A1, B2, "192.168.1.181", match, roles=roles)
    assert fabric.paths == {"stream": wanted}
    assert made["path"] == {
        **{name: value for name, value in VM_PATH.items() if name != "extend_match"},
        "external_mac": None,
        "match": {"eth_type": 2048, "ipv4_dst": "10.0.0.255"},
        "rules": [
            {
                "name": "RTP_PASSTHROUGH000000000000000a",
                "switch": "a",
                "in_port": 1,
                "out_port": 2,
            },
            {"name": "RTP_TOVNET2_000000000000000b", "switch": "b", "in_port": None, "out_port": 2},
        ],
        "links": [{"src": "a:2", "dst": "b:1", "bypass": ["a:3"]}],
        "unreachable": [],
        "refused": [],
    }
    assert await read(client, "/vm-paths/stream") == made["path"]
    second = {name: value for name, value in VM_PATH.items() if name != "extend_match"}
    fields = {"eth_type": 2048, "ip_proto": 17}
    second |= {"name": "more", "match": fields, "external_mac": "02:00:00:00:00:AB"}
    assert (await client.post("/vm-paths", json=second)).status_code == 201
    assert fabric.paths["stream"] == wanted
    assert fabric.paths["more"].external_mac == "02:00:00:00:00:ab"
    both = await read(client, "/vm-paths")
    assert (both["total"], [path["name"] for path in both["items"]]) == (2, ["more", "stream"])
    assert [p["name"] for p in (await read(client, "/vm-paths?offset=1"))["items"]] == ["stream"]
    assert (await client.delete("/vm-paths/more")).status_code == 204
    assert fabric.paths == {"stream": wanted}
    is_problem(await client.delete("/vm-paths/more"), 404)
    is_problem(await client.get("/vm-paths/more"), 404)


async def test_all_paths_have_one_name_each(
    client: httpx.AsyncClient, fabric: MemoryFabric
) -> None:
    assert (await client.post("/vm-paths", json=VM_PATH)).status_code == 201
    is_problem(await client.post("/vm-paths", json=VM_PATH), 409)
    is_problem(await client.post("/vm-paths", json={**VM_PATH, "name": "site-news"}), 409)
    is_problem(await client.post("/paths", json={**WANTED, "name": "stream"}), 409)
    bodies = [{**VM_PATH, "name": f"n{number}"} for number in range(9)]
    await asyncio.gather(*(client.post("/vm-paths", json=body) for body in bodies))
    assert fabric.paths.keys() == {"stream", *(body["name"] for body in bodies)}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"name": "Not a name"}, "is not allowed"),
        ({"ingress": "a"}, "ingress"),
        ({"exit": "b:x"}, "exit"),
        ({"external": "192.168.1"}, "'192.168.1' is not"),
        ({"external": 5}, "external"),
        ({"external_mac": "02:00"}, "'02:00' is not a MAC address"),
        ({"extend_match": None}, "either match or extend_match"),
        ({"match": {"eth_type": 2048}}, "either match or extend_match"),
        ({"extend_match": {"colour": 1}}, "vpm-extend-match: 'colour'"),
        ({"extend_match": {"dataLayerType": [[]]}}, "dataLayerType [[]]"),
        ({"extend_match": None, "match": {"colour": 1}}, "no match field 'colour'"),
        ({"roles": {"a": "king"}}, "roles.a"),
        ({"colour": "red"}, "colour"),
    ],
)
async def test_what_is_no_path_past_machines_is_refused(
    client: httpx.AsyncClient, fabric: MemoryFabric, change: dict[str, Any], words: str
) -> None:
    answer = await client.post("/vm-paths", json={**VM_PATH, **change})
    assert words in is_problem(answer, 422)
    assert fabric.paths == {}


async def test_intents(client: httpx.AsyncClient) -> None:
    await client.post("/paths", json=WANTED)
    found = await read(client, "/intents")
    assert (found["flows"], found["unreachable"]) == (2, {"lecture": ["c:9"]})
    assert found["taps"][0]["match"] == {"eth_type": 2048, "ip_proto": 6, "tcp_flags": "0x2/0x2"}


# --- callbacks ---------------------------------------------------------------------------------


async def test_a_callback_shows_its_secret_once(client: httpx.AsyncClient) -> None:
    body = {"url": "http://127.0.0.1:9/VPM", "encoding": "form", "kinds": ["vm.*"]}
    answer = await client.post("/callbacks", json=body)
    assert answer.status_code == 201, answer.text
    made = answer.json()
    assert made["secret"].startswith("whsec_")
    shown = await read(client, f"/callbacks/{made['id']}")
    assert shown == {name: value for name, value in made.items() if name != "secret"}
    assert await read(client, "/callbacks") == [shown]
    answer = await client.put(f"/callbacks/{made['id']}", json={"encoding": "json", "kinds": []})
    assert (answer.json()["encoding"], answer.json()["kinds"]) == ("json", [])
    is_problem(await client.post("/callbacks", json=body), 409)
    assert (await client.delete(f"/callbacks/{made['id']}")).status_code == 204
    assert await read(client, "/callbacks") == []
    is_problem(await client.get(f"/callbacks/{made['id']}"), 404)


@pytest.mark.parametrize(
    "change",
    [
        {"url": "file:///etc/passwd"},
        {"url": "http://user:word@host/"},
        {"encoding": "xml"},
        {"kinds": ["*"]},
        {"kinds": ["vm.added "]},
        {"kinds": ["vm.added"] * 41},
        {"secret": "whsec_short"},
    ],
)
async def test_what_is_no_callback_is_refused(
    client: httpx.AsyncClient, change: dict[str, Any]
) -> None:
    detail = is_problem(
        await client.post("/callbacks", json={"url": "http://127.0.0.1:9/", **change}), 422
    )
    assert "whsec_short" not in detail
    assert await read(client, "/callbacks") == []


# --- events ------------------------------------------------------------------------------------


async def test_recent_events_of_the_network(
    client: httpx.AsyncClient, fabric: MemoryFabric
) -> None:
    kinds = ("vm.added", "channel.live", "link.up", "vm.removed", "seat.opened")
    fabric.log = [Event(kind, "x", {"n": 1}, 5.0) for kind in kinds]
    found = await read(client, "/events")
    assert [event["kind"] for event in found] == ["vm.added", "link.up", "vm.removed"]
    assert found[0] == {"kind": "vm.added", "subject": "x", "time": 5.0, "data": {"n": 1}}
    found = await read(client, "/events?kinds=vm.*&limit=1")
    assert [event["kind"] for event in found] == ["vm.added"]
    is_problem(await client.get("/events?kinds=*"), 422)


class Served:
    """The application on a port of its own."""

    def __init__(self, fabric: MemoryFabric) -> None:
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.authority = f"127.0.0.1:{self.listener.getsockname()[1]}"
        self.task = asyncio.create_task(serve(make_app(fabric), self.listener, None))

    async def stop(self) -> None:
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)
        self.listener.close()


@pytest.fixture
async def served(fabric: MemoryFabric) -> AsyncIterator[Served]:
    made = Served(fabric)
    yield made
    await made.stop()


async def told(events: ClientConnection) -> dict[str, Any]:
    async with asyncio.timeout(5):
        found: dict[str, Any] = json.loads(await events.recv())
        return found


async def subscribers(fabric: MemoryFabric, count: int) -> None:
    async with asyncio.timeout(5):
        while len(fabric.events._queues) != count:
            await asyncio.sleep(0.01)


async def test_a_websocket_tells_events_as_they_happen(
    served: Served, fabric: MemoryFabric
) -> None:
    url = f"ws://{served.authority}/api/fabric/events?kinds=vm.*&kinds=link.up"
    async with connect(url, additional_headers=OPERATOR) as events:
        assert await told(events) == {"kind": "subscribed"}
        for kind in ("channel.live", "link.down", "link.up", "vm.added"):
            fabric.events.publish(Event(kind, "x"))
        assert [(await told(events))["kind"] for _ in range(2)] == ["link.up", "vm.added"]
    await subscribers(fabric, 0)


async def test_a_page_brings_the_token_with_its_first_message(
    served: Served, fabric: MemoryFabric
) -> None:
    async with connect(f"ws://{served.authority}/api/fabric/events") as events:
        await events.send(json.dumps({"token": TOKEN, "kinds": ["vm.*"]}))
        assert await told(events) == {"kind": "subscribed"}
        fabric.events.publish(Event("link.up", "x"))
        fabric.events.publish(Event("vm.added", "x"))
        assert (await told(events))["kind"] == "vm.added"
    await subscribers(fabric, 0)


@pytest.mark.parametrize(
    "first", ["", "nonsense", "[]", '{"token": "wrong"}', '{"token": 5}', "[" * 5000, b"\x00\xff"]
)
async def test_a_websocket_without_the_token_is_closed(
    served: Served, fabric: MemoryFabric, first: str | bytes
) -> None:
    async with connect(f"ws://{served.authority}/api/fabric/events") as events:
        await events.send(first)
        with pytest.raises(ConnectionClosed) as closed:
            await told(events)
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 1008
    await subscribers(fabric, 0)


async def test_server_sent_events(served: Served, fabric: MemoryFabric) -> None:
    url = f"http://{served.authority}/api/fabric/events/stream?kinds=vm.*"
    async with (
        httpx.AsyncClient(headers=OPERATOR, timeout=5) as client,
        client.stream("GET", url) as answer,
    ):
        await subscribers(fabric, 1)
        fabric.events.publish(Event("link.up", "x"))
        fabric.events.publish(Event("vm.added", "x"))
        async for line in answer.aiter_lines():
            if line.startswith("data:"):
                assert json.loads(line[5:])["kind"] == "vm.added"
                break
    await subscribers(fabric, 0)
