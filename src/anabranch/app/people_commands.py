"""``anabranch user`` and ``anabranch token``: who may do what, and what programs show."""

import json
import sys
from typing import Annotated, Any
from urllib.parse import quote

import typer
from rich.markup import escape
from rich.table import Table

from anabranch.app.client import Client
from anabranch.app.config import load_config
from anabranch.app.terminal import JsonFlag, command, out, when
from anabranch.core.errors import UsageError
from anabranch.core.names import check_name

user_app = typer.Typer(no_args_is_help=True, help="Accounts: add, list, change, remove.")
token_app = typer.Typer(no_args_is_help=True, help="API tokens: add, list, revoke.")
Name = Annotated[str, typer.Argument(metavar="NAME", help="a-z, 0-9 and '-'.")]
Role = Annotated[str, typer.Option("--role", metavar="viewer|producer|operator|admin")]


@user_app.command("add")
@command
def add_user(name: Name, role: Role = "viewer") -> None:
    """Make an account; its password is asked for, or read from standard input."""
    check_name(name)
    body = {"name": name, "role": role, "password": _password()}
    made = Client(load_config()).request("POST", "/api/accounts", json=body)
    out.print(f"{made['name']} has the role {made['role']} now.")


@user_app.command("list")
@command
def list_users(as_json: JsonFlag = False) -> None:
    """Show the accounts."""
    accounts = Client(load_config()).request("GET", "/api/accounts")["accounts"]
    if as_json:
        out.print_json(json.dumps(accounts))
        return
    table = Table("Account", "Role", "Last login", "Channels", box=None)
    for each in accounts:
        channels = ", ".join(each["channels"])
        table.add_row(each["name"], each["role"], when(each["seen"]) or "never", channels)
    hint = "There are no accounts: anabranch user add NAME --role ROLE"
    out.print(table if accounts else hint)


@user_app.command("remove")
@command
def remove_user(name: Name) -> None:
    """Remove an account with its sessions and tokens; its channels stay."""
    check_name(name)
    Client(load_config()).request("DELETE", f"/api/accounts/{name}")
    out.print(f"{name} is removed.")


@user_app.command("password")
@command
def set_password(name: Name) -> None:
    """Give an account another password, asked for as with `add`; its sessions end."""
    check_name(name)
    _change(name, {"password": _password()})
    out.print(f"{name} has another password, and is signed in nowhere.")


@user_app.command("role")
@command
def set_role(
    name: Name, role: Annotated[str, typer.Argument(metavar="viewer|producer|operator|admin")]
) -> None:
    """Give an account another role."""
    check_name(name)
    changed = _change(name, {"role": role})
    out.print(f"{name} has the role {changed['role']} now.")


@token_app.command("add")
@command
def add_token(
    name: Annotated[str, typer.Argument(metavar="NAME", help="What it is for, in your words.")],
    account: Annotated[
        str | None, typer.Option("--for", metavar="ACCOUNT", help="Whose it is to be.")
    ] = None,
    role: Annotated[
        str | None, typer.Option("--role", help="Default: its account's; never higher.")
    ] = None,
    days: Annotated[
        float | None, typer.Option(min=0.001, max=366, help="Default: for ever.")
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Draw an API token; it is told once."""
    body: dict[str, Any] = {"name": name, "role": role, "account": account}
    body["expires_in_s"] = None if days is None else days * 86400
    made = Client(load_config()).request("POST", "/api/tokens", json=body)
    out.print_json(json.dumps(made)) if as_json else out.print(made["secret"], soft_wrap=True)


@token_app.command("list")
@command
def list_tokens(
    account: Annotated[str | None, typer.Option("--for", metavar="ACCOUNT")] = None,
    as_json: JsonFlag = False,
) -> None:
    """Show the API tokens that are good now."""
    query = "" if account is None else f"?account={quote(account, safe='')}"
    tokens = Client(load_config()).request("GET", f"/api/tokens{query}")["tokens"]
    if as_json:
        out.print_json(json.dumps(tokens))
        return
    table = Table("Token", "Name", "Account", "Role", "Expires", "Used", box=None)
    for each in tokens:
        table.add_row(
            each["id"],
            escape(each["name"]),
            each["account"],
            each["role"],
            when(each["expires"]) or "never",
            when(each["used"]) or "never",
        )
    out.print(table if tokens else "There are no tokens.")


@token_app.command("revoke")
@command
def revoke_token(token: Annotated[str, typer.Argument(metavar="ID")]) -> None:
    """Revoke an API token."""
    Client(load_config()).request("DELETE", f"/api/tokens/{quote(token, safe='')}")
    out.print("Revoked.")


def _change(name: str, body: dict[str, Any]) -> dict[str, Any]:
    changed: dict[str, Any] = Client(load_config()).request(
        "PATCH", f"/api/accounts/{name}", json=body
    )
    return changed


def _password() -> str:
    """Ask for a password twice; or read one line where nobody can be asked.

    It is never an argument: every user of a machine reads the arguments of all programs.

    Raises:
        UsageError: standard input has none.
    """
    if sys.stdin.isatty():
        prompted: str = typer.prompt("Password", hide_input=True, confirmation_prompt=True)
        return prompted
    line = sys.stdin.readline(4096).removesuffix("\n").removesuffix("\r")
    if not line:
        raise UsageError("standard input has no password")
    return line
