"""Service nodes over HTTP: the real node's side, the API, and the fabric over soft switches."""

import asyncio
import socket
from collections.abc import AsyncIterator
from ipaddress import IPv4Address, IPv4Network, IPv6Network
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from hypothesis import given
from hypothesis import strategies as st
from tests.fabric.triangle import S1, World
from tests.waiting import until

from anabranch.app.serving import listen_unix, serve
from anabranch.console import fabric_api, problems
from anabranch.console.fabric_services import ServiceNodeIn
from anabranch.console.people.node_keys import key_of
from anabranch.core.tasks import end_task
from anabranch.fabric.fabric import Fabric
from anabranch.fabric.steering import Filter
from anabranch.services.claim import Claim, ClaimError
from anabranch.services.planes import linux, registration
from anabranch.services.planes.plane import Attachment, PlaneError, Tenant
from anabranch.services.planes.registration import Place, Registration, check, document
from anabranch.services.planes.switch import SwitchPlane

TOKEN = "secret"
JANE = Tenant("jane", 1)
MAC, ADDRESS = "020000000101", IPv4Address("10.0.0.101")
CLAIM = Claim(IPv4Network("10.0.0.2/32"), 17, (5060,))
claims = st.builds(
    Claim,
    st.ip_addresses(v=4).map(IPv4Network),
    st.just(17) | st.just(6),
    st.lists(st.integers(1, 65535), max_size=16).map(tuple),
) | st.builds(Claim, st.ip_addresses(v=4).map(IPv4Network), st.none() | st.integers(1, 255))


@pytest.fixture
async def fabric(tmp_path: Path) -> AsyncIterator[Fabric]:
    world = World(tmp_path)
    await world.farm.start()
    async with world.run() as made:
        await until(lambda: S1 in made.network().ports)
        yield made
    await world.farm.close()


@pytest.fixture
async def served(fabric: Fabric, tmp_path: Path) -> AsyncIterator[tuple[Path, asyncio.Task[None]]]:
    app = FastAPI()
    app.state.fabric = fabric
    problems.install(app)
    app.include_router(fabric_api.make_router(TOKEN))
    path = tmp_path / "api.sock"
    with listen_unix(path) as listener:
        serving = asyncio.create_task(serve(app, listener, None))
        yield path, serving
        await end_task(serving)


@pytest.fixture
def api(served: tuple[Path, asyncio.Task[None]]) -> Path:
    return served[0]


class Node:
    """What a plane tells."""

    def __init__(self, api: Path, name: str = "n1", at: str = "s1:1", token: str = TOKEN) -> None:
        self.place = Place(name, at)
        self.claims: dict[str, tuple[Claim, ...]] = {}
        self.seconds = 1.0
        self.registration = Registration([f"unix:{api}"], token, self.place, self.document)

    def document(self) -> dict[str, Any]:
        return document(self.place, MAC, ADDRESS, self.claims, seconds=self.seconds)


async def ask(
    api: Path, method: str, path: str, *, token: str = TOKEN, **more: Any
) -> httpx.Response:
    transport = httpx.AsyncHTTPTransport(uds=str(api))
    async with httpx.AsyncClient(transport=transport, base_url="http://fabric") as client:
        return await client.request(
            method, f"/api/fabric{path}", headers={"Authorization": f"Bearer {token}"}, **more
        )


async def test_a_node_keeps_itself_registered_and_takes_itself_away(
    fabric: Fabric, api: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registration, "TELL_S", 0.1)
    node = Node(api)
    await node.registration.open()
    node.claims = {"jane": (CLAIM,)}
    await node.registration.tell()
    (listed,) = (await ask(api, "GET", "/service-nodes")).json()
    claimed = {"user": "jane", "destination": "10.0.0.2/32", "protocol": 17, "ports": [5060]}
    assert listed == {
        "name": "n1", "at": "s1:1", "mac": "02:00:00:00:01:01", "address": "10.0.0.101",
        "stage": "", "reached": True, "flows": 0,
        "filters": [claimed],
    }  # fmt: skip
    await asyncio.sleep(1.5)
    assert fabric.service_nodes(), "it is told anew before it is forgotten"
    await node.registration.close()
    assert fabric.service_nodes() == []
    assert (await ask(api, "DELETE", "/service-nodes/n1")).status_code == 404


async def test_a_nodes_own_key_is_all_it_needs(fabric: Fabric, api: Path) -> None:
    told = await ask(api, "GET", "/service-nodes/n1/key")
    assert told.headers["cache-control"] == "no-store"
    key = told.json()["key"]
    node = Node(api, token=key)
    await node.registration.open()
    assert [each.name for each, *_ in fabric.service_nodes()] == ["n1"]
    for method, path in (("GET", ""), ("GET", "/n1/key"), ("PUT", "/n2"), ("DELETE", "/n2")):
        answer = await ask(api, method, f"/service-nodes{path}", token=key, json=node.document())
        assert answer.status_code == 401
    await node.registration.close()
    assert fabric.service_nodes() == []


async def test_a_controller_that_knows_nothing_any_more_is_told_again(
    fabric: Fabric, api: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registration, "TELL_S", 0.1)
    node = Node(api)
    await node.registration.open()
    await fabric.withdraw("n1")
    await until(lambda: fabric.service_nodes(), limit_s=5)
    await node.registration.close()


async def test_what_cannot_be_is_said_clearly(api: Path, tmp_path: Path) -> None:
    first, twin = Node(api), Node(api, "n2")
    await first.registration.open()
    with pytest.raises(PlaneError, match="n1 is at that port"):
        await twin.registration.open()
    await twin.registration.close()
    first.claims = {"": (CLAIM,)}
    with pytest.raises(ClaimError):
        await first.registration.tell()
    await first.registration.close()
    for token in ("guess", key_of(TOKEN, "n2"), key_of("guess", "n1")):
        stranger = Node(api, token=token)
        with pytest.raises(PlaneError, match="token"):
            await stranger.registration.open()
        await stranger.registration.close()
    nobody = Node(tmp_path / "nobody.sock")
    with pytest.raises(PlaneError, match="no controller answers"):
        await nobody.registration.open()
    await nobody.registration.close()
    with pytest.raises(PlaneError):
        await Registration(["http://["], "", first.place, first.document).open()


class Plane(SwitchPlane):
    """A plane whose kernel takes everything; ``rules`` is what it was told."""

    def __init__(self, api: Path) -> None:
        place = Place("n1", "s1:1")
        super().__init__("n1", "svc0", place, controllers=[f"unix:{api}"], token=TOKEN)
        self.rules: list[str] = []
        self._mac, self._address = MAC, ADDRESS
        rings = socket.socket(), socket.socket()
        self._attached = {JANE.number: Attachment(JANE, -1, rings, 128, "", "")}
        self._places = {JANE.number: linux.Place(1, -1, rings, ("", ""))}

    def _nft(self, text: str) -> None:
        self.rules.append(text)

    def claimed(self) -> tuple[Claim, ...]:
        return tuple(self._attached[JANE.number].claims)

    async def open(self) -> None:
        await self._registration.open()

    async def close(self) -> None:
        await self._registration.close()
        for each in self._attached[JANE.number].rings:
            each.close()


def _line(rules: str, begin: str) -> str:
    """Return what of nft's rules is led by such a word, first."""
    return next(line for line in rules.splitlines() if line.startswith(begin))


async def test_claims_hold_at_the_node_and_at_its_switch_or_nowhere(
    fabric: Fabric, served: tuple[Path, asyncio.Task[None]]
) -> None:
    api, serving = served
    plane = Plane(api)
    await plane.open()
    more = Claim(IPv4Network("10.0.0.3/32"))
    await plane.set_claims(JANE, (CLAIM,))
    ((node, _, _),) = fabric.service_nodes()
    assert [each.destination for each in node.filters] == [CLAIM.destination]
    with pytest.raises(ClaimError, match="IPv4 only"):
        await plane.set_claims(JANE, (Claim(IPv6Network("fd00::/64")),))
    assert plane.claimed() == (CLAIM,)
    await end_task(serving)
    api.unlink()
    with pytest.raises(PlaneError, match="no controller answers"):
        await plane.set_claims(JANE, (CLAIM, more))
    assert plane.claimed() == (CLAIM,), "what held before still holds"
    added, taken_away = plane.rules[-2:]
    assert f"{{ {more.destination} : goto" in _line(added, "add element")
    assert f"{{ {more.destination} : goto" in _line(taken_away, "delete element")
    await plane.set_claims(JANE, ())
    assert plane.claimed() == (), "to claim less needs nobody's leave"
    await plane.close()


async def test_one_controller_of_several_is_enough(api: Path, fabric: Fabric) -> None:
    nobody = f"unix:{api}.nobody"
    node = Node(api)
    both = Registration([nobody, f"unix:{api}"], TOKEN, node.place, node.document)
    await both.open()
    node.claims = {"jane": (CLAIM,)}
    await both.tell()
    assert fabric.service_nodes()[0][0].filters
    node.claims = {"": (CLAIM,)}
    with pytest.raises(ClaimError):
        await both.tell()
    await both.close()
    assert fabric.service_nodes() == []


@pytest.mark.parametrize(
    "wrong",
    [
        {"at": "nowhere"},
        {"mac": "xyz"},
        {"address": "fd00::1"},
        {"seconds": 0},
        {"seconds": 1e9},
        {"stage": "two words"},
        {"filters": [{"user": "jane", "destination": "10.0.0.1/8"}]},
        {"filters": [{"user": "jane", "destination": "10.0.0.0/8", "ports": [1]}]},
        {"filters": [{"user": "jane", "destination": "10.0.0.0/8"}] * 2000},
        {"more": 1},
    ],
)
async def test_a_document_that_makes_no_sense_is_refused(api: Path, wrong: dict[str, Any]) -> None:
    good = document(Place("n1", "s1:1"), MAC, ADDRESS, {})
    answer = await ask(api, "PUT", "/service-nodes/n1", json={**good, **wrong})
    assert answer.status_code == 422
    assert (await ask(api, "GET", "/service-nodes")).json() == []


@given(st.dictionaries(st.text("abc", min_size=1, max_size=5), st.lists(claims, max_size=5)))
def test_whatever_a_node_may_claim_the_controller_understands(given_claims) -> None:
    told = document(
        Place("n1", "s1:1"), MAC, ADDRESS, {user: tuple(of) for user, of in given_claims.items()}
    )
    read = ServiceNodeIn.model_validate(told)
    assert len(read.filters) == sum(map(len, given_claims.values()))
    for one in read.filters:
        Filter(one.user, one.destination, one.protocol, tuple(one.ports))


def test_what_a_switch_cannot_tell_is_no_claim() -> None:
    check((CLAIM,))
    for wrong in (Claim(IPv6Network("fd00::/64")), Claim(CLAIM.destination, 132, (5060,))):
        with pytest.raises(ClaimError):
            check((wrong,))
