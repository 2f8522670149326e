"""The site's bus: what is written for its server, and what is refused."""

import json
import sys
from pathlib import Path

import pytest

from anabranch.core.errors import UsageError
from anabranch.site.bus import make_bus, write_configuration
from anabranch.tree.certificates import Authority, Credentials
from anabranch.tree.model import Role
from anabranch.tree.peering import Identity

NODES = {"root": Role.ROOT, "paris": Role.LEAF}
ROOT = Identity("root", Role.ROOT)


@pytest.mark.parametrize(
    ("url", "host", "port"),
    [
        ("tls://192.0.2.1:4443", "192.0.2.1", 4443),
        ("tls://nats.example", "nats.example", 4222),
        ("tls://[2001:db8::1]:4443", "2001:db8::1", 4443),
    ],
)
def test_the_server_listens_where_the_root_finds_it(
    tmp_path: Path, url: str, host: str, port: int
) -> None:
    file = tmp_path / "nats-server.conf"
    for nodes in (NODES, {"root": Role.ROOT}):
        write_configuration(file, url, "main", nodes, Credentials(tmp_path))
        made = json.loads(file.read_text())
        assert (made["host"], made["port"]) == (host, port)
        assert [user["user"] for user in made["authorization"]["users"]] == list(nodes)
        assert made["tls"]["verify_and_map"]
    assert file.stat().st_mode & 0o777 == 0o600


def test_users_with_passwords_are_the_operators(tmp_path: Path) -> None:
    file = tmp_path / "nats-server.conf"
    write_configuration(file, "nats://a:b@192.0.2.1", "main", NODES, Credentials(tmp_path))
    assert not file.exists()


@pytest.mark.parametrize("url", ["", "root.example", "http://a", "tls://", "tls://a:x", "tls://[a"])
def test_what_is_no_bus_is_refused(tmp_path: Path, url: str) -> None:
    with pytest.raises(UsageError, match="a bus is tls://"):
        make_bus(url, "main", ROOT, Credentials(tmp_path))


def test_a_password_is_not_repeated(tmp_path: Path) -> None:
    with pytest.raises(UsageError) as raised:
        make_bus("nats://root:secret@a:x", "main", ROOT, Credentials(tmp_path))
    assert "secret" not in str(raised.value)


def test_without_its_client_there_is_no_bus(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(sys.modules, "anabranch.tree.transport.nats", raising=False)
    monkeypatch.setitem(sys.modules, "nats.aio.client", None)
    Authority.open(tmp_path / "authority.pem").provide(Credentials(tmp_path), "root", Role.ROOT)
    with pytest.raises(UsageError, match=r"anabranch\[nats\]"):
        make_bus("tls://192.0.2.1", "main", ROOT, Credentials(tmp_path))
