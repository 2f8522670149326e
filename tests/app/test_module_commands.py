"""From nothing to a signed archive, by the command line alone."""

import json
from pathlib import Path

import pytest
from tests.services.packets import udp
from typer.testing import CliRunner

from anabranch.app.cli import app
from anabranch.services.archive import Archive
from anabranch.services.keys import PublicKey
from anabranch.services.testkit import read_capture, write_capture


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    runner = CliRunner()
    return lambda *words: runner.invoke(app, ["module", *words])


def test_new_test_pack_sign(run, tmp_path: Path) -> None:
    assert run("new", "ttl-guard").exit_code == 0
    write_capture(
        Path("in.pcap"), [udp(b"a", ttl=t) for t in (3, 3, 64)] + [udp(b"", ports=(1, 2))]
    )
    said = run("test", "ttl-guard", "in.pcap", "-p", "lowest=5", "-w", "out.pcap", "--json")
    assert said.exit_code == 0, said.output
    report = json.loads(said.output)
    assert (report["given"], report["passed"]) == (3, 1)
    assert (report["forwarded"], report["dropped"]) == (1, 2)
    assert report["status"] == {"ttl.3": 2, "ttl.64": 1}
    assert list(read_capture(Path("out.pcap"))) == [udp(b"a", ttl=64)]
    assert run("pack", "ttl-guard").exit_code == 0
    signed = run("sign", "TtlGuard_1.0.0.abm", "--user", "jane", "--key", "jane.pem", "--make")
    assert signed.exit_code == 0, signed.output
    public = next(line for line in signed.output.splitlines() if line.startswith("ssh-ed25519"))
    archive = Archive.parse(Path("TtlGuard_1.0.0.abm").read_bytes())
    archive.verify("jane", PublicKey.parse(public))
    assert archive.manifest().identity == "TtlGuard_1.0.0"
    assert (tmp_path / "jane.pem").stat().st_mode & 0o777 == 0o600


def test_what_goes_wrong_is_said_in_a_line(run) -> None:
    run("new", "one")
    for words, complaint in (
        (("new", "one"), "File exists"),
        (("new", "7 up"), "no name of a class"),
        (("test", "one", "nowhere.pcap"), "nowhere.pcap: No such file"),
        (("test", "two", "nowhere.pcap"), "module.toml: No such file"),
        (("pack", "two"), "no module.toml"),
        (("sign", "nothing.abm", "--user", "a", "--key", "b"), "No such file"),
        (("logs", "alice", "--state", "."), "no log of alice"),
    ):
        said = run(*words)
        assert said.exit_code == 1, words
        assert complaint in " ".join(said.output.split()), said.output
    Path("one/one.py").write_text("syntax error")
    Path("empty.pcap").write_bytes(
        b"\xd4\xc3\xb2\xa1\2\0\4\0" + bytes(8) + b"\xff\xff\0\0\x65\0\0\0"
    )
    assert "SyntaxError" in run("test", "one", "empty.pcap").output


def test_logs(run) -> None:
    Path("alice").mkdir()
    Path("alice/log").write_text("".join(f"line {i}\n" for i in range(9)))
    assert run("logs", "alice", "--state", ".", "-n", "2").output.split() == [
        "line",
        "7",
        "line",
        "8",
    ]


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--port", "svc0"), "needs all of --port, --at and --controller"),
        (("--at", "s1:7", "--controller", "unix:/nowhere"), "needs all of"),
        (("--port", "svc0", "--at", "s1", "--controller", "unix:/nowhere"), "no port of a switch"),
        (
            ("--port", "svc0", "--at", "s1:7", "--controller", "unix:/nowhere", "--token", "none"),
            "none: No such file",
        ),
    ],
)
def test_a_node_beside_a_switch_needs_to_know_which(run, words: tuple[str, ...], says: str) -> None:
    Path("users.yaml").write_text("users: []")
    said = run("serve", "--users", "users.yaml", "--name", "n1", *words)
    assert said.exit_code != 0
    assert says in f"{said.output} {said.exception}"
