"""The command line: whatever is wrong is one line on standard error and exit code 1."""

import fcntl
import json
import os
import socket
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from rich.console import Console
from typer.testing import CliRunner, Result

from anabranch.app import channel_commands, cli, people_commands, terminal
from anabranch.core.errors import UnavailableError, UsageError
from anabranch.host.journal import hold


def run(*arguments: str) -> Result:
    return CliRunner().invoke(cli.app, list(arguments))


@pytest.fixture(autouse=True)
def plain(monkeypatch: pytest.MonkeyPatch) -> None:
    """Consoles that write where the runner looks."""
    out = Console(highlight=False, width=200)
    err = Console(stderr=True, highlight=False, width=200)
    for module in (cli, channel_commands, people_commands, terminal):
        monkeypatch.setattr(module, "out", out)
    for module in (cli, terminal):
        monkeypatch.setattr(module, "err", err)
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
    ["channel", "set", "news", "--title", "News"],
    ["channel", "share", "news"],
    ["channel", "unshare", "news", "x"],
    ["user", "list"],
    ["user", "remove", "vera"],
    ["token", "list", "--json"],
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


@pytest.mark.parametrize("arguments", [*ASKING, ["up"], ["doctor"], ["config", "--check"]])
@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("site: [a", "cannot be read"),
        ("sit: main", "sit: there is no such setting"),
        ("ports: {srt: 2-1}", "ports.srt: a range of ports"),
        ("video: {ladder: []}", "a channel needs at least one rendition"),
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
    monkeypatch.setattr("anabranch.app.doctor.check_essentials", lambda _config: None)
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
    assert cli.duration(seconds) == words


@pytest.mark.parametrize("name", ["", "..", "a/../b", "News", "a?b", "\udcff"])
@pytest.mark.parametrize("what", ["show", "remove"])
@pytest.mark.usefixtures("nobody")
def test_a_channel_that_cannot_be_is_not_asked_for(what: str, name: str) -> None:
    fails(run("channel", what, name), "is not allowed")


class Director(BaseHTTPRequestHandler):
    """Answers everything with ``answer``, and keeps what was asked."""

    answer: tuple[int, object] = 200, {}
    asked: list[object]

    def do_POST(self) -> None:
        self.asked.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
        self.do_GET()

    def do_GET(self) -> None:
        status, content = self.answer
        body = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_DELETE = do_GET  # noqa: N815

    def log_message(self, *_arguments: object) -> None:
        pass


@pytest.fixture
def director(monkeypatch: pytest.MonkeyPatch, here: Path) -> Iterator[type[Director]]:
    """A director that answers as it is told."""
    handler = type("Handler", (Director,), {"asked": []})
    (here / "state").mkdir()
    (here / "state" / "token").write_text("secret\n")
    with HTTPServer(("127.0.0.1", 0), handler) as server:
        monkeypatch.setenv("ANABRANCH_LISTEN", f"127.0.0.1:{server.server_port}")
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        yield handler
        server.shutdown()
        thread.join()


@pytest.mark.parametrize("status", [307, 404, 500])
@pytest.mark.parametrize(
    ("content", "words"), [({"detail": "so it is"}, "so it is"), ([], "the director answered")]
)
def test_any_answer_but_a_success_is_a_refusal(
    director: type[Director], status: int, content: object, words: str
) -> None:
    director.answer = status, content
    fails(run("channel", "remove", "news"), words)


@pytest.mark.parametrize("source", ["x" * 5000, "~nobody-of-this-name/film.mp4", "a\0b"])
def test_a_source_that_can_be_no_path_is_left_to_the_director(
    director: type[Director], source: str
) -> None:
    director.answer = 422, {"detail": "that is no source"}
    fails(run("channel", "add", "news", "--from", source), "that is no source")
    (asked,) = director.asked
    assert isinstance(asked, dict)
    assert asked["source"] == source


def test_a_file_is_named_in_full(director: type[Director], here: Path) -> None:
    director.answer = 409, {"detail": "taken"}
    (here / "film.mp4").write_text("x")
    fails(run("channel", "add", "news", "--from", "film.mp4"), "taken")
    (asked,) = director.asked
    assert isinstance(asked, dict)
    assert asked["source"] == str(here / "film.mp4")


def test_at_least_one_line_of_the_log() -> None:
    for number in ("0", "-1"):
        assert run("log", "-n", number).exit_code == 2


@pytest.mark.parametrize(
    ("error", "lines"),
    [
        (UsageError("one"), ["one"]),
        (ExceptionGroup("x", [UsageError("one"), UnavailableError("two")]), ["one", "two"]),
        (
            BaseExceptionGroup("x", [ExceptionGroup("y", [UsageError("one")]), UsageError("two")]),
            ["one", "two"],
        ),
    ],
)
def test_errors_of_several_tasks_are_a_line_each(
    capsys: pytest.CaptureFixture[str], error: BaseException, lines: list[str]
) -> None:
    terminal.err.file = None

    @cli.command
    def fail() -> None:
        raise error

    with pytest.raises(cli.typer.Exit):
        fail()
    assert capsys.readouterr().err.splitlines() == [f"anabranch: {line}" for line in lines]


def test_a_group_with_a_bug_in_it_is_not_hidden() -> None:
    @cli.command
    def fail() -> None:
        raise ExceptionGroup("x", [UsageError("one"), ZeroDivisionError()])

    with pytest.raises(ExceptionGroup):
        fail()


def test_down_goes_by_the_environment_if_the_file_is_broken(here: Path) -> None:
    (here / "run").mkdir()
    (here / "run" / "journal.jsonl").write_text('{"kind": "link", "name": "none0"}\n')
    (here / "anabranch.yaml").write_text("site: [a")
    result = run("down")
    assert (result.exit_code, result.stdout) == (0, "Everything is removed.\n")
    assert "cannot be read" in result.stderr
    assert f"Looking in {here}/run, without the file." in result.stderr
    assert not (here / "run").exists()


def test_down_touches_no_run_directory_that_others_may_write_to(here: Path) -> None:
    (here / "run").mkdir()
    (here / "run").chmod(0o777)
    fails(run("down"), "nobody else may write to")
    assert (here / "run").exists()


@pytest.fixture
def roots_site(monkeypatch: pytest.MonkeyPatch, here: Path) -> Iterator[Callable[[], None]]:
    """A site of root's, and a user who is root until the fixture is called."""
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr("anabranch.app.client.ROOT_RUN", here / "roots")

    def become() -> None:
        monkeypatch.setattr(os, "geteuid", lambda: 1000)

    with hold(here / "roots" / "main", "the site"):
        yield become


def test_a_site_of_roots_is_named_to_others(
    roots_site: Callable[[], None], director: type[Director], here: Path
) -> None:
    director.answer = 401, {"detail": "this needs the operator's token"}
    fails(run("status"), "operator's token")
    roots_site()
    fails(run("status"), "the site runs as root: use sudo")
    (here / "state" / "token").unlink()
    for arguments in (["status"], ["down"], ["channel", "list"]):
        fails(run(*arguments), "the site runs as root: use sudo")


def test_a_lock_that_root_does_not_hold_any_more_says_nothing(
    monkeypatch: pytest.MonkeyPatch, here: Path
) -> None:
    monkeypatch.setattr("anabranch.app.client.ROOT_RUN", here)
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    (here / "main.lock").write_text("1")
    fails(run("status"), "has this site ever been up?")
    assert run("down").stdout == "Nothing was up.\n"
    with (here / "main.lock").open() as other:  # somebody else who only looks
        fcntl.flock(other, fcntl.LOCK_SH)
        assert run("down").stdout == "Nothing was up.\n"


def test_up_names_every_missing_program_before_anything_is_made(
    monkeypatch: pytest.MonkeyPatch, here: Path
) -> None:
    monkeypatch.setenv("ANABRANCH_LEAF", "janus")
    monkeypatch.setattr("shutil.which", lambda *_args, **_kwargs: None)
    monkeypatch.setattr("subprocess.run", None)
    fails(run("up", "--direct"), "ffmpeg, janus are missing: apt-get install ffmpeg janus")
    monkeypatch.setenv("ANABRANCH_CARRIAGE", "switches")
    fails(run("up"), "ffmpeg, janus, ovs-vswitchd, ovsdb-tool, nft, ethtool, nsenter are missing")
    monkeypatch.setattr("shutil.which", lambda name, **_: None if name == "janus" else name)
    fails(run("up"), "janus is missing: apt-get install janus")
    monkeypatch.setattr("shutil.which", lambda name, **_: name)
    monkeypatch.setenv("ANABRANCH_LEAF", "anabranch")
    monkeypatch.setenv("ANABRANCH_LEAF_SERVER", str(here / "none"))
    fails(run("up"), "$ANABRANCH_LEAF_SERVER")
    assert list(here.iterdir()) == []


@pytest.mark.parametrize(
    "pair",
    [
        {"CERTIFICATE": "a.pem"},
        {"KEY": "a.key"},
        {"CERTIFICATE": "a.pem", "KEY": "a.key"},
    ],
)
def test_a_bad_pair_is_a_line_before_anything_is_made(
    monkeypatch: pytest.MonkeyPatch, here: Path, pair: dict[str, str]
) -> None:
    monkeypatch.setattr("anabranch.app.doctor.check_essentials", lambda _config: None)
    monkeypatch.setattr("anabranch.app.director.Site", None)
    monkeypatch.setenv("ANABRANCH_CARRIAGE", "switches")
    for name, path in pair.items():
        monkeypatch.setenv(f"ANABRANCH_TLS__{name}", path)
    fails(run("up", "--tls"), "certificate")
    assert list(here.iterdir()) == []
