"""The command line: whatever is wrong is one line on standard error and exit code 1."""

import socket
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from anabranch.app import cli


def run(*arguments: str) -> Result:
    return CliRunner().invoke(cli.app, list(arguments))


@pytest.fixture(autouse=True)
def plain(monkeypatch: pytest.MonkeyPatch) -> None:
    """Consoles that write where the runner looks."""
    monkeypatch.setattr(cli, "out", cli.Console(highlight=False, width=200))
    monkeypatch.setattr(cli, "err", cli.Console(stderr=True, highlight=False, width=200))
    # Loggers are kept for good, and would outlive the runner's standard error.
    monkeypatch.setattr("anabranch.app.logs.set_up_logs", lambda _config: None)


def fails(result: Result, words: str) -> None:
    assert result.exit_code == 1, result.output
    assert isinstance(result.exception, SystemExit), repr(result.exception)
    assert words in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert result.stdout == ""


@pytest.fixture
def nobody(monkeypatch: pytest.MonkeyPatch, here: Path) -> None:
    """A token, and a port where no director listens."""
    (here / "state").mkdir()
    (here / "state" / "token").write_text("secret\n")
    with socket.create_server(("127.0.0.1", 0)) as free:
        monkeypatch.setenv("ANABRANCH_LISTEN", f"127.0.0.1:{free.getsockname()[1]}")


ASKING = [
    ["status"],
    ["viewers", "--json"],
    ["log"],
    ["channel", "list"],
    ["channel", "show", "news"],
    ["channel", "remove", "news"],
    ["channel", "add", "news", "--from", "test"],
]


@pytest.mark.parametrize("arguments", ASKING)
@pytest.mark.usefixtures("nobody")
def test_no_director(arguments: list[str]) -> None:
    fails(run(*arguments), "is `anabranch up` running?")


def test_a_site_that_was_never_up() -> None:
    fails(run("status"), "has this site ever been up?")


@pytest.mark.parametrize(
    ("content", "words"), [(b"\xff\xff", "no operator's token"), (None, "no operator's token")]
)
def test_a_token_that_is_none(here: Path, content: bytes | None, words: str) -> None:
    (here / "state").mkdir()
    token = here / "state" / "token"
    token.mkdir() if content is None else token.write_bytes(content)
    fails(run("status"), words)


@pytest.mark.parametrize(
    ("url", "words"),
    [("http://a:b", "cannot be sent"), ("gopher://x", "no director"), ("nonsense", "no director")],
)
@pytest.mark.usefixtures("nobody")
def test_an_address_that_is_none(monkeypatch: pytest.MonkeyPatch, url: str, words: str) -> None:
    monkeypatch.setenv("ANABRANCH_URL", url)
    fails(run("status"), words)


@pytest.mark.usefixtures("nobody")
def test_words_that_cannot_be_sent() -> None:
    fails(run("channel", "add", "news", "--from", "test", "--title", "\udcff"), "cannot be sent")


@pytest.mark.parametrize(
    "arguments", [*ASKING, ["up"], ["down"], ["doctor"], ["config", "--check"]]
)
@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("site: [a", "cannot be read"),
        ("sit: main", "sit: Extra"),
        ("ports: {srt: 2-1}", "ports.srt"),
    ],
)
def test_a_configuration_that_is_wrong(
    here: Path, arguments: list[str], text: str, words: str
) -> None:
    (here / "anabranch.yaml").write_text(text)
    fails(run(*arguments), words)


@pytest.mark.parametrize(
    "text",
    ["addresses: {overlay: 10.98.0.0/30}", "nodes: []", "video: {gop_s: 7}", "ports: {media: 1-9}"],
)
def test_check_sees_what_does_not_fit_together(here: Path, text: str) -> None:
    assert run("config", "--check").stdout == "The configuration is right.\n"
    (here / "anabranch.yaml").write_text(text)
    result = run("config", "--check")
    assert result.exit_code == 1
    assert len(result.stderr.splitlines()) == 1


def test_up_where_nothing_can_be_made(monkeypatch: pytest.MonkeyPatch, here: Path) -> None:
    (here / "file").write_text("no directory")
    monkeypatch.setenv("ANABRANCH_CARRIAGE", "direct")
    monkeypatch.setenv("ANABRANCH_RUN_DIR", str(here / "file" / "run"))
    result = run("up", "--direct")
    assert result.exit_code == 1
    assert isinstance(result.exception, SystemExit)
    assert "file" in result.stderr.splitlines()[-1]


def test_benchmarks_that_are_none() -> None:
    fails(run("bench", "speed"), "there is no benchmark 'speed'; there are first-frame, latency")
    fails(run("bench", "idle", "-n", "0"), "at least one sample")


def test_down_where_nothing_was_up() -> None:
    result = run("down")
    assert (result.exit_code, result.stdout) == (0, "Nothing was up.\n")


def test_a_typing_slip_is_shown_the_way() -> None:
    assert run("chanel").exit_code == 2
    assert run("channel", "add", "news").exit_code == 2
    assert run("--version").exit_code == 0
    assert "site:" in run("config").stdout


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0, "0 s"), (59.9, "59 s"), (60, "1 min 0 s"), (3599, "59 min 59 s"), (7260, "2 h 1 min")],
)
def test_a_duration_is_for_people(seconds: float, words: str) -> None:
    assert cli._duration(seconds) == words
