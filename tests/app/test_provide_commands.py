"""``anabranch provide``: what it refuses, and the credentials that it gives out."""

import time
from ipaddress import ip_address
from pathlib import Path

import httpx
import pytest
from typer.testing import CliRunner

from anabranch.app.cli import app
from anabranch.app.provide_commands import credentials_api
from anabranch.services.keys import PrivateKey
from anabranch.services.modules.mediarelay.provider import Relay, RelayProvider


class Nobody:
    async def callers(self, most: int) -> list:
        return []


@pytest.fixture
def client() -> httpx.AsyncClient:
    provider = RelayProvider(Nobody(), edge=None)
    provider.relays.put(ip_address("203.0.113.7"), Relay("10.9.0.1:3478", b"secret"))
    transport = httpx.ASGITransport(credentials_api(provider))
    return httpx.AsyncClient(transport=transport, base_url="http://relay")


async def test_credentials_are_those_of_the_nearest_relay(client: httpx.AsyncClient) -> None:
    answer = await client.get("/credentials?address=203.0.113.99&user=alice")
    said = answer.json()
    assert answer.status_code == 200
    assert said["uris"] == ["turn:10.9.0.1:3478?transport=udp"]
    expires, _, user = said["username"].partition(":")
    assert user == "alice"
    assert abs(int(expires) - time.time() - said["ttl"]) < 5


@pytest.mark.parametrize(
    ("query", "status"),
    [("address=198.51.100.1&user=a", 404), ("address=here&user=a", 422), ("user=a", 422)],
)
async def test_what_has_no_relay(client: httpx.AsyncClient, query: str, status: int) -> None:
    assert (await client.get(f"/credentials?{query}")).status_code == status


@pytest.mark.parametrize(
    ("sip", "word"), [("192.0.2.1:5060", "No such file"), ("nowhere", "no ADDRESS:PORT"),
                      ("192.0.2.1:99999", "ADDRESS:PORT"), ("[2001:db8::1]:1", "ADDRESS:PORT")],
)  # fmt: skip
def test_bad_options_are_refused(tmp_path: Path, sip: str, word: str) -> None:
    key = tmp_path / "key.pem"
    PrivateKey.generate().store(key)
    arguments = [
        "provide", "overload", "--user", "itsp", "--key", str(key), "--url", "http://h/a.abm",
        "--archive", str(tmp_path / "none.abm"), "--rpc", str(tmp_path / "rpc"),
        "--sip", sip, "--feedback", "127.0.0.1:5066",
    ]  # fmt: skip
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 1
    assert word in result.output
