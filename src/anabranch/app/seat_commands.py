"""``anabranch seat``: seats of receivers without a browser."""

import json
from typing import Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from anabranch.app.client import Client
from anabranch.app.config import load_config
from anabranch.app.terminal import JsonFlag, command, out
from anabranch.core.names import check_name

seat_app = typer.Typer(
    no_args_is_help=True, help="Send channels to set-top boxes, players and other networks."
)
Identifier = Annotated[str, typer.Argument(help="What `seat add` and `seat list` print.")]


@seat_app.command("add")
@command
def add_seat(
    channel: Annotated[str, typer.Argument(help="What is sent.")],
    to: Annotated[str, typer.Argument(help="udp://ADDRESS:PORT (MPEG-TS) or rtp://ADDRESS:PORT.")],
    rendition: Annotated[str | None, typer.Option(help="Without it, the best.")] = None,
    leaf: Annotated[str | None, typer.Option(help="Without it, the emptiest.")] = None,
    ttl: Annotated[
        float | None, typer.Option(help="Seconds until it ends, unless it is changed.")
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Send a channel to a receiver."""
    body = {"channel": channel, "to": to, "rendition": rendition, "leaf": leaf, "ttl_s": ttl}
    config = load_config()
    seat = Client(config).request("POST", "/api/seats", json=body)
    if as_json:
        out.print_json(json.dumps(seat))
        return
    out.print(seat["id"], highlight=False)
    if seat["format"] == "rtp":
        out.print(f"for the receiver: {config.local_url}{seat['url']}.sdp", soft_wrap=True)


@seat_app.command("change")
@command
def change_seat(
    seat: Identifier,
    channel: Annotated[str, typer.Argument(help="What is sent from now on.")],
    rendition: Annotated[str | None, typer.Option(help="Without it, as before.")] = None,
) -> None:
    """Send another channel to a receiver."""
    body = {"channel": channel, "rendition": rendition}
    changed = Client(load_config()).request("PATCH", _path(seat), json=body)
    out.print(f"{changed['channel']}, {changed['rendition']}")


@seat_app.command("leave")
@command
def leave_seat(seat: Identifier) -> None:
    """Send to a receiver no longer."""
    Client(load_config()).request("DELETE", _path(seat))
    out.print("The seat is free.")


@seat_app.command("list")
@command
def list_seats(as_json: JsonFlag = False) -> None:
    """List the receivers that are sent channels; browsers are in `anabranch viewers`."""
    seats: list[dict[str, Any]] = Client(load_config()).request("GET", "/api/seats")
    plain = [seat for seat in seats if seat["kind"] == "plain"]
    if as_json:
        out.print_json(json.dumps(plain))
        return
    table = Table("Seat", "Channel", "Rendition", "Leaf", "To", box=None)
    for seat in plain:
        place = (seat["id"], seat["channel"], seat["rendition"], seat["leaf"], seat["to"])
        table.add_row(*map(escape, place))
    out.print(table if plain else "There is no such seat: anabranch seat add CHANNEL udp://...")


def _path(seat: str) -> str:
    # Drawn of letters, digits, '-' and '_'; a path could mean something else.
    if not seat.replace("-", "").replace("_", "").isalnum():
        check_name(seat)
    return f"/api/seats/{seat}"
