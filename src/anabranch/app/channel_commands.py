"""``anabranch channel``: what is on the air, where it comes from and whom it is for."""

import json
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import quote

import typer
from rich.markup import escape
from rich.table import Table

from anabranch.app.channel_tables import print_channel, print_channels
from anabranch.app.client import Client
from anabranch.app.config import load_config
from anabranch.app.terminal import JsonFlag, command, out, when
from anabranch.core.errors import UsageError
from anabranch.core.names import check_name

channel_app = typer.Typer(
    help="Add, list, change, share and remove channels.", no_args_is_help=True
)
VisibilityOption = Annotated[
    str | None,
    typer.Option(metavar="public|unlisted|private", help="For all; by name; by invitation."),
]


@channel_app.command("add")
@command
def channel_add(
    name: Annotated[str, typer.Argument(help="Name in the URL: a-z, 0-9 and '-'.")],
    source: Annotated[
        str,
        typer.Option(
            "--from", help="A file, any URL, rtp[:PORT], srt[:PORT], rtmp, whip, or test."
        ),
    ],
    title: Annotated[str | None, typer.Option(help="Title for people.")] = None,
    once: Annotated[bool, typer.Option("--once", help="Play a file once, not in a loop.")] = False,
    key: Annotated[str | None, typer.Option(help="Publisher's key (default: drawn).")] = None,
    visibility: VisibilityOption = None,
    owner: Annotated[str | None, typer.Option(help="Account that it belongs to.")] = None,
    as_json: JsonFlag = False,
) -> None:
    """Add a channel and put it on the air."""
    config = load_config()
    source = _whole_path(source)
    body = {"name": name, "source": source, "title": title, "once": once, "key": key}
    body |= {"visibility": visibility or "public"} | ({"owner": owner} if owner else {})
    channel = Client(config).request("POST", "/api/channels", json=body)
    print_channel(config, channel, as_json=as_json)


@channel_app.command("show")
@command
def channel_show(name: str, as_json: JsonFlag = False) -> None:
    """Show a channel with its way in and its key."""
    check_name(name)
    config = load_config()
    channel = Client(config).request("GET", f"/api/channels/{name}/detail")
    print_channel(config, channel, as_json=as_json)


@channel_app.command("list")
@command
def channel_list(as_json: JsonFlag = False) -> None:
    """List the channels."""
    channels = Client(load_config()).request("GET", "/api/channels")["channels"]
    if as_json:
        out.print_json(json.dumps(channels))
    else:
        print_channels(channels)


@channel_app.command("remove")
@command
def channel_remove(name: str) -> None:
    """Take a channel off the air and forget it."""
    check_name(name)
    Client(load_config()).request("DELETE", f"/api/channels/{name}")
    out.print(f"{name} is off the air.")


@channel_app.command("set")
@command
def channel_set(
    name: str,
    title: Annotated[str | None, typer.Option(help="Title for people.")] = None,
    now: Annotated[str | None, typer.Option(help="What is on; '' for nothing.")] = None,
    visibility: VisibilityOption = None,
    source: Annotated[str | None, typer.Option("--from", help="As with `channel add`.")] = None,
    key: Annotated[str | None, typer.Option(help="Another publisher's key.")] = None,
    new_key: Annotated[bool, typer.Option("--new-key", help="Have a key drawn.")] = False,
    owner: Annotated[
        str | None, typer.Option(help="Account that it belongs to; '' for nobody.")
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Change a channel, whole or not at all; its viewers stay."""
    check_name(name)
    config = load_config()
    body: dict[str, Any] = {
        "title": title,
        "now": now,
        "visibility": visibility,
        "source": None if source is None else _whole_path(source),
        "key": key,
        "new_key": new_key or None,
    }
    body = {field: value for field, value in body.items() if value is not None}
    if owner is not None:
        body["owner"] = owner or None
    if not body:
        raise UsageError("nothing is to be otherwise: see anabranch channel set --help")
    channel = Client(config).request("PATCH", f"/api/channels/{name}", json=body)
    print_channel(config, channel, as_json=as_json)


@channel_app.command("share")
@command
def channel_share(
    name: str,
    label: Annotated[str, typer.Option("--name", help="For whom it is, in your words.")] = "",
    days: Annotated[float, typer.Option(min=0.001, max=366, help="How long it is good.")] = 7,
    to: Annotated[
        str | None, typer.Option("--to", help="No link: let this account watch it.")
    ] = None,
    as_list: Annotated[bool, typer.Option("--list", help="Show whom it is for.")] = False,
    as_json: JsonFlag = False,
) -> None:
    """Make a link by which anybody watches a private channel, or let an account in."""
    check_name(name)
    client, path = Client(load_config()), f"/api/channels/{name}"
    if as_list:
        found = client.request("GET", f"{path}/shares") | client.request("GET", f"{path}/viewers")
        if as_json:
            out.print_json(json.dumps(found))
            return
        table = Table("Link or account", "Name", "Expires", "Used", box=None)
        for each in found["shares"]:
            ends, used = when(each["expires"]), when(each["used"])
            table.add_row(each["id"], escape(each["name"]), ends or "never", used or "never")
        for account in found["accounts"]:
            table.add_row(account, "", "", "")
        out.print(table)
    elif to is not None:
        check_name(to)
        client.request("PUT", f"{path}/viewers/{to}")
        out.print(f"{to} may watch {name}.")
    else:
        body = {"name": label, "expires_in_s": days * 86400}
        made = client.request("POST", f"{path}/shares", json=body)
        out.print_json(json.dumps(made)) if as_json else out.print(made["url"], soft_wrap=True)


@channel_app.command("unshare")
@command
def channel_unshare(
    name: str,
    link: Annotated[str, typer.Argument(metavar="ID|ACCOUNT", help="See `share NAME --list`.")],
) -> None:
    """Revoke a link, or take back that an account may watch; seats that came by it end."""
    check_name(name)
    client, path = Client(load_config()), f"/api/channels/{name}"
    if link in client.request("GET", f"{path}/viewers")["accounts"]:
        client.request("DELETE", f"{path}/viewers/{quote(link, safe='')}")
    else:
        client.request("DELETE", f"{path}/shares/{quote(link, safe='')}")
    out.print("Revoked.")


def _whole_path(source: str) -> str:
    """Return a path that exists in full, for the director has another working directory."""
    try:
        path = Path(source).expanduser()
        return str(path.resolve()) if "://" not in source and path.exists() else source
    except (OSError, RuntimeError):  # too long for a name; ~ of nobody
        return source
