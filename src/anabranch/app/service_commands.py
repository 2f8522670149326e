"""``anabranch service``: the site's nodes as service nodes, and who may install modules there."""

import json
from pathlib import Path
from typing import Annotated
from urllib.parse import quote

import typer
from rich.markup import escape
from rich.table import Table

from anabranch.app.client import Client
from anabranch.app.config import load_config
from anabranch.app.terminal import JsonFlag, command, out
from anabranch.core.errors import UsageError

service_app = typer.Typer(no_args_is_help=True, help="Nodes on which others install modules.")
_USERS = "/api/services/users"

Name = Annotated[str, typer.Argument(metavar="USER")]


@service_app.command("list")
@command
def list_modules(as_json: JsonFlag = False) -> None:
    """Show the service nodes and the modules on them."""
    found = Client(load_config()).request("GET", "/api/services")
    if as_json:
        out.print_json(json.dumps(found))
        return
    if not found["enabled"]:
        out.print("No node runs services: set services.enabled.")
        return
    table = Table("Node", "Address", "User", "Module", "State", "Packets", "Left", box=None)
    for node in found["nodes"]:
        place = escape(node["name"]), node["address"] or ""
        if not node["modules"]:
            table.add_row(*place, "", "[dim]none[/dim]" if node["answers"] else "[red]away[/red]")
        for each in node["modules"]:
            colour = "green" if each["state"] == "running" else "red"
            table.add_row(
                *place, escape(each["user"]), escape(each["name"]),
                f"[{colour}]{escape(each['state'])}[/{colour}]",
                escape(each["figures"].get("packets", "")), f"{each['expires_s']} s",
            )  # fmt: skip
    out.print(table)


@service_app.command("remove")
@command
def remove_module(
    node: str, user: str, module: Annotated[str, typer.Argument(help="NetMonitor_1.0.0")]
) -> None:
    """Remove a module from a node; its user can install it again."""
    Client(load_config()).request("DELETE", _path("nodes", node, "modules", user, module))
    out.print(f"{escape(module)} is removed from {escape(node)}.")


@service_app.command("log")
@command
def show_log(
    node: str, user: str,
    lines: Annotated[int, typer.Option("-n", min=1, max=500, help="Of the last, so many.")] = 50,
) -> None:  # fmt: skip
    """Show what a user's modules printed on a node."""
    path = f"{_path('nodes', node, 'log', user)}?lines={lines}"
    for line in Client(load_config()).request("GET", path)["lines"]:
        out.print(line, markup=False, soft_wrap=True)


@service_app.command("users")
@command
def list_users(as_json: JsonFlag = False) -> None:
    """Show who may install modules."""
    found = Client(load_config()).request("GET", _USERS)
    if as_json:
        out.print_json(json.dumps(found))
        return
    table = Table("User", "Addresses", "Ports", "May claim", "Written in", box=None)
    for each in found:
        addresses = " ".join(filter(None, (each["address"], each["address6"])))
        table.add_row(
            escape(each["name"]), addresses, " ".join(each["listen_ports"]),
            " ".join(each["filter_prefixes"]), "the file" if each["in_file"] else "the store",
        )  # fmt: skip
    out.print(table if found else "Nobody may: anabranch service allow USER --key FILE")


@service_app.command("allow")
@command
def allow(
    name: Name,
    key: Annotated[Path, typer.Option(help="The user's public key: a file, OpenSSH's or PEM.")],
    address: Annotated[str | None, typer.Option(help="Of the user's sandboxes, IPv4.")] = None,
    address6: Annotated[str | None, typer.Option(help="Another one, IPv6.")] = None,
    ports: Annotated[
        list[str] | None, typer.Option("--port", help="To listen on, 80 or 5060-5070; again.")
    ] = None,
    prefixes: Annotated[
        list[str] | None, typer.Option("--prefix", help="Whose packets may be claimed; again.")
    ] = None,
) -> None:
    """Let somebody install modules on the site's nodes, or change what they may."""
    try:
        text = key.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{key}: {error}") from error
    body = {
        "public_key": text.strip(), "address": address, "address6": address6,
        "listen_ports": ports or [], "filter_prefixes": prefixes or [],
    }  # fmt: skip
    Client(load_config()).request("PUT", _path("users", name), json=body)
    out.print(f"{escape(name)} may install modules.")


@service_app.command("forbid")
@command
def forbid(name: Name) -> None:
    """Let a user install nothing more; modules that are there stay until their time is over."""
    Client(load_config()).request("DELETE", _path("users", name))
    out.print(f"{escape(name)} may install nothing more.")


def _path(*parts: str) -> str:
    return "/".join(["/api/services", *(quote(part, safe="") for part in parts)])
