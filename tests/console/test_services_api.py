"""Users of services, and what is said of nodes where there are none. The nodes are in the lab."""

import httpx
import pytest
from tests.console.conftest import OPERATOR

from anabranch.services.keys import PrivateKey
from anabranch.site.site import Site

KEY = str(PrivateKey.generate().public)
JANE = {
    "public_key": KEY, "address": "10.0.3.2", "address6": "2001:db8::2",
    "listen_ports": [80, "5060-5062"], "filter_prefixes": ["192.0.2.0/24"],
}  # fmt: skip
USERS = "/api/services/users"


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/api/services"),
        ("GET", USERS),
        ("PUT", f"{USERS}/jane"),
        ("DELETE", f"{USERS}/jane"),
        ("DELETE", "/api/services/nodes/leaf1/modules/jane/M_1"),
        ("GET", "/api/services/nodes/leaf1/log/jane"),
    ],
)
async def test_only_operators_see_and_change_them(
    client: httpx.AsyncClient, method: str, path: str
) -> None:
    assert (await client.request(method, path)).status_code == 401


async def test_users_are_added_changed_and_removed(client: httpx.AsyncClient, site: Site) -> None:
    client.headers.update(OPERATOR)
    made = await client.put(f"{USERS}/jane", json=JANE)
    assert made.status_code == 200, made.text
    assert made.json()["listen_ports"] == ["80", "5060-5062"]
    assert made.json()["in_file"] is False
    await client.put(f"{USERS}/jane", json={"public_key": KEY, "max_modules": 2})
    await site.services.users.load()  # as after a restart: what is in the store
    (jane,) = (await client.get(USERS)).json()
    assert (jane["max_modules"], jane["address"], jane["public_key"]) == (2, None, KEY)
    assert (await client.delete(f"{USERS}/jane")).status_code == 204
    assert (await client.delete(f"{USERS}/jane")).status_code == 404
    await site.services.users.load()
    assert (await client.get(USERS)).json() == []


async def test_two_users_cannot_have_one_address(client: httpx.AsyncClient) -> None:
    client.headers.update(OPERATOR)
    await client.put(f"{USERS}/jane", json=JANE)
    taken = await client.put(f"{USERS}/joe", json={"public_key": KEY, "address": "10.0.3.2"})
    assert taken.status_code == 409
    assert "jane has the address 10.0.3.2" in taken.json()["detail"]


@pytest.mark.parametrize(
    ("name", "change", "words"),
    [
        ("jane", {"public_key": "ssh-rsa AAAA"}, "public_key"),
        ("jane", {"address": "x"}, "address"),
        ("jane", {"address": None}, "address6 needs"),
        ("jane", {"listen_ports": ["9-8"]}, "9-8"),
        ("jane", {"filter_prefixes": ["192.0.2.1/24"]}, "filter_prefixes"),
        ("ja%20ne", {}, "no name"),
        ("jane", {"sandbox": "/etc"}, "sandbox"),
        ("jane", {"max_modules": 0}, "max_modules"),
    ],
)
async def test_bad_users_are_refused(
    client: httpx.AsyncClient, name: str, change: dict, words: str
) -> None:
    answer = await client.put(f"{USERS}/{name}", json=JANE | change, headers=OPERATOR)
    assert 400 <= answer.status_code < 500, answer.text
    assert words in answer.text


async def test_a_site_without_service_nodes_says_so(client: httpx.AsyncClient) -> None:
    client.headers.update(OPERATOR)
    assert (await client.get("/api/services")).json() == {"enabled": False, "nodes": []}
    gone = await client.get("/api/services/nodes/leaf1/log/jane")
    assert gone.status_code == 409
    assert "no service nodes" in gone.json()["detail"]
    assert (await client.get("/api/services/nodes/leaf1/log/jane?lines=0")).status_code == 422
