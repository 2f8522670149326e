"""``anabranch user``, ``token`` and ``channel set|share|unshare`` against a real director's API."""

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
import structlog
from rich.console import Console
from tests.console.conftest import TOKEN
from tests.console.people.conftest import PASSWORD, Scene
from tests.console.test_api import Served
from typer.testing import CliRunner, Result

from anabranch.app import channel_commands, cli, people_commands
from anabranch.console.people.credentials import Credentials
from anabranch.console.people.people import WrongPasswordError
from anabranch.console.people.roles import Role

Run = Callable[..., Awaitable[Result]]


@pytest.fixture
async def run(scene: Scene, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> AsyncIterator[Run]:
    """Runs a command as the operator; ``stdin`` is what it reads."""
    served = Served(scene.app)
    # What the director says is not what the command says.
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ANABRANCH_URL", served.url)
    monkeypatch.setenv("ANABRANCH_TOKEN", TOKEN)
    for module in (people_commands, channel_commands):
        monkeypatch.setattr(module, "out", Console(highlight=False, width=200))

    async def run(*arguments: str, stdin: str = "") -> Result:
        return await asyncio.to_thread(CliRunner().invoke, cli.app, arguments, stdin)

    yield run
    await served.stop()


async def test_an_account_from_its_first_to_its_last(run: Run, scene: Scene) -> None:
    people = scene.people
    made = await run("user", "add", "nina", "--role", "producer", stdin=f"{PASSWORD}\n")
    assert made.exit_code == 0, made.output
    assert PASSWORD not in made.output
    caller, _ = await people.sign_in("nina", PASSWORD, "192.0.2.1")
    assert caller.role is Role.PRODUCER
    assert (await run("user", "role", "nina", "viewer")).exit_code == 0
    assert people.account("nina").role is Role.VIEWER
    assert "nina" in (await run("user", "list")).stdout
    done = await run("user", "password", "nina", stdin="another long sentence")
    assert done.exit_code == 0
    with pytest.raises(WrongPasswordError):
        await people.sign_in("nina", PASSWORD, "192.0.2.1")
    assert (await run("user", "remove", "nina")).exit_code == 0
    assert people.named("nina") is None


@pytest.mark.parametrize(
    ("arguments", "stdin", "words"),
    [
        (["user", "add", "nina"], "", "no password"),
        (["user", "add", "nina"], "short\n", "10 to 200"),
        (["user", "add", "vera"], PASSWORD, "already"),
        (["user", "add", "<b>"], PASSWORD, "not allowed"),
        (["user", "add", "nina", "--role", "king"], PASSWORD, "role"),
        (["user", "remove", "nobody"], "", "no account"),
        (["token", "add", "x"], "", "has no account"),
        (["token", "add", "x", "--for", "vera", "--role", "admin"], "", "no token of it is more"),
        (["token", "revoke", "nothing"], "", "no such token"),
        (["channel", "set", "news"], "", "nothing is to be otherwise"),
        (["channel", "set", "hidden", "--visibility", "secret"], "", "visibility"),
        (["channel", "share", "absent"], "", "no channel"),
        (["channel", "share", "hidden", "--to", "nobody"], "", "no account"),
        (["channel", "unshare", "hidden", "x"], "", "no such share link"),
    ],
)
async def test_what_is_refused_is_one_line(
    run: Run, arguments: list[str], stdin: str, words: str
) -> None:
    done = await run(*arguments, stdin=stdin)
    assert done.exit_code == 1
    assert words in done.stderr
    assert len(done.stderr.splitlines()) == 1


async def test_a_token_is_printed_alone_and_is_good_until_it_is_revoked(
    run: Run, scene: Scene
) -> None:
    made = await run("token", "add", "for [bold]CI[/bold]", "--for", "paul", "--days", "1")
    secret = made.stdout.strip()
    assert scene.people.caller(Credentials(bearer=secret)).role is Role.PRODUCER
    assert "for [bold]CI[/bold]" in (await run("token", "list", "--for", "paul")).stdout
    listed = json.loads((await run("token", "list", "--for", "paul", "--json")).stdout)
    (token,) = (each for each in listed if each["name"].startswith("for"))
    assert (await run("token", "revoke", token["id"])).exit_code == 0
    assert scene.people.caller(Credentials(bearer=secret)).role is None


async def test_a_channel_is_changed_shared_and_closed_again(run: Run, scene: Scene) -> None:
    changed = await run("channel", "set", "shown", "--title", "New", "--visibility", "private",
                        "--owner", "ines", "--new-key", "--json")  # fmt: skip
    found = json.loads(changed.stdout)
    assert (found["title"], found["visibility"], found["owner"]) == ("New", "private", "ines")
    assert (await run("channel", "set", "shown", "--owner", "")).exit_code == 0
    assert scene.site.channel("shown").definition.owner is None
    url = (await run("channel", "share", "shown", "--name", "press", "--days", "2")).stdout.strip()
    assert scene.site.audience.by_secret(url.partition("#share=")[2]) is not None
    assert (await run("channel", "share", "shown", "--to", "vera")).exit_code == 0
    listed = (await run("channel", "share", "shown", "--list")).stdout
    assert "press" in listed
    assert "vera" in listed
    (share,) = scene.site.audience.shares("shown")
    for link in (share.id, "vera"):
        assert (await run("channel", "unshare", "shown", link)).exit_code == 0
    assert scene.site.audience.shares("shown") == []
    assert not scene.site.audience.accounts("shown")
