"""``anabranch module``: what it says before and without a node; the lab has the nodes."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from anabranch.app.cli import app
from anabranch.services.keys import PrivateKey


@pytest.fixture
def key(tmp_path: Path) -> str:
    PrivateKey.generate().store(tmp_path / "key.pem")
    return str(tmp_path / "key.pem")


def said(*argv: str) -> str:
    """Run a command that fails, and return what it says."""
    done = CliRunner().invoke(app, ["module", *argv])
    assert done.exit_code == 1, done.output
    return done.stderr.replace("\n", " ")


def test_where_no_node_is_the_command_says_so_at_once(key: str, tmp_path: Path) -> None:
    who = ("--user", "jane", "--key", key)
    assert "no node on the path" in said("probe", "127.0.0.1", *who)
    assert "no node on the path" in said("remove", "Mod_1.0", "localhost", *who)
    archive = tmp_path / "archive"
    archive.write_bytes(b"archive")
    install = ("install", "Mod_1.0", "127.0.0.1", "--url", "http://192.0.2.1/a", *who)
    assert "no node on the path" in said(*install, "--archive", str(archive))
    assert "no node on the path" in said(*install, "--archive", str(archive), "--back")


@pytest.mark.parametrize(
    ("more", "complaint"),
    [
        (("--filter", "udp:http"), "is no filter"),
        (("--filter", "pigeon:1"), "filter-proto"),
        (("--filter", "icmp:1"), "needs filter-proto"),
        (("-p", "value"), "NAME=VALUE"),
        (("--ttl", "0"), "ttl"),
        (("--archive", "/absent"), "No such file"),
        (("--source", "nowhere.invalid"), "nowhere.invalid"),
        (("--user", "a b"), "user"),
    ],
)
def test_what_is_wrong_is_said(key: str, tmp_path: Path, more: tuple, complaint: str) -> None:
    archive = tmp_path / "archive"
    archive.write_bytes(b"archive")
    given = ("--url", "http://192.0.2.1/a", "--user", "jane", "--key", key)
    install = ("install", "Mod_1.0", "127.0.0.1", "--archive", str(archive), *given)
    assert complaint in said(*install, *more)


def test_keys_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "key").write_text("no key")
    for path in (tmp_path / "key", tmp_path / "absent"):
        assert str(path.name) in said("probe", "127.0.0.1", "--user", "jane", "--key", str(path))
