"""``anabranch fabric callbacks``: who is told of events by POST."""

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape

from anabranch.app.fabric_commands.showing import ask, quoted, show, show_json
from anabranch.app.terminal import JsonFlag, command, out
from anabranch.core.errors import NotFoundError, UsageError
from anabranch.core.files import write_private

app = typer.Typer(no_args_is_help=True, help="Have somebody told of events by POST.")


@app.command("list")
@command
def list_callbacks(as_json: JsonFlag = False) -> None:
    """Show the callbacks and how they go."""
    answer = ask("GET", "/callbacks")
    rows = [
        (
            callback["id"],
            callback["url"],
            callback["encoding"],
            " ".join(callback["kinds"]) or "all",
            str(callback["delivered"]),
            str(callback["dropped"]),
            callback["last_error"] or "" if callback["failing"] else "",
        )
        for callback in answer
    ]
    head = ("Callback", "URL", "Form", "Events", "Told", "Lost", "")
    show(answer, rows, head, as_json)


@app.command("add")
@command
def add(
    url: Annotated[str, typer.Argument(help="http:// or https://, where events are sent.")],
    kind: Annotated[
        list[str] | None, typer.Option(help="vm.added, link.* ...; may be repeated; none: all.")
    ] = None,
    form: Annotated[bool, typer.Option("--form", help="As the seed's form, not as JSON.")] = False,
    secret_file: Annotated[
        Path | None,
        typer.Option(help="Has the secret that signs; without the file one is drawn into it."),
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Have a URL told of events."""
    given = _secret_in(secret_file) if secret_file is not None else None
    wanted = {
        "url": url,
        "kinds": kind or [],
        "encoding": "form" if form else "json",
        "secret": given,
    }
    answer = ask("POST", "/callbacks", json=wanted)
    if secret_file is not None and given is None:
        _keep(answer, secret_file)
    if as_json:
        show_json(answer)
        return
    out.print(f"{escape(url)} is told, as callback {answer['id']}.", soft_wrap=True)
    if secret_file is None:
        out.print(f"Its secret, shown only now: {answer['secret']}", soft_wrap=True)


def _secret_in(file: Path) -> str | None:
    try:
        return file.read_text("ascii").strip()
    except FileNotFoundError:
        if not file.parent.is_dir():
            raise UsageError(f"{file} cannot be written: no such directory") from None
        return None
    except (OSError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or "it is no secret"
        raise UsageError(f"{file} cannot be read: {reason}") from None


def _keep(made: dict[str, Any], file: Path) -> None:
    """Write the secret; without it the callback would be of no use."""
    try:
        write_private(file, made["secret"].encode() + b"\n")
    except OSError as error:
        ask("DELETE", f"/callbacks/{quoted(made['id'])}")
        raise UsageError(f"{file} cannot be written: {error.strerror}") from None


@app.command("remove")
@command
def remove(callback: Annotated[str, typer.Argument(help="Its name, or its URL.")]) -> None:
    """Tell somebody no more."""
    for known in ask("GET", "/callbacks"):
        if callback in (known["id"], known["url"]):
            ask("DELETE", f"/callbacks/{quoted(known['id'])}")
            out.print(f"{escape(known['url'])} is told no more.", soft_wrap=True)
            return
    raise NotFoundError(f"there is no callback {callback[:100]!r}")
