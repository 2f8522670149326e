"""``anabranch node``: nodes on other machines."""

import asyncio
import json
import time
from ipaddress import IPv4Network
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table

from anabranch.app.client import Client
from anabranch.app.config import load_config
from anabranch.app.config_parts import span
from anabranch.app.public import check_public_address, public_addresses
from anabranch.app.settings import nodes_directory
from anabranch.app.terminal import JsonFlag, command, err, out
from anabranch.core.errors import UsageError
from anabranch.core.names import check_name
from anabranch.site.bus import CONFIGURATION
from anabranch.tree.model import Role

_MAX_HOURS = 366 * 24
node_app = typer.Typer(no_args_is_help=True, help="Nodes on other machines.")


@node_app.command("join")
@command
def join_node(
    root: Annotated[
        str,
        typer.Argument(help="Where the root takes nodes in: HOST[:PORT], or the URL of its pages."),
    ],
    token: Annotated[
        str | None,
        typer.Option(
            envvar="ANABRANCH_JOIN_TOKEN",
            help="What `anabranch node invite` printed, or @FILE; once is enough.",
        ),
    ] = None,
    name: Annotated[
        str | None, typer.Option(help="Which node, if this machine has joined as several.")
    ] = None,
    bus: Annotated[
        str | None,
        typer.Option(
            envvar="ANABRANCH_JOIN_BUS", help="The site's NATS server: tls://HOST[:PORT]."
        ),
    ] = None,
    site: Annotated[str | None, typer.Option(help="The site's name on the bus.")] = None,
    media: Annotated[
        str, typer.Option(help="UDP ports of this machine for viewers.")
    ] = "20000-20999",
    public_address: Annotated[
        str, typer.Option(help="By which viewers reach this machine; comma-separated, or none.")
    ] = "auto",
    access: Annotated[
        str, typer.Option(help="Four addresses for the link between leaf and machine.")
    ] = "10.97.255.0/30",
    state_dir: Annotated[Path | None, typer.Option(help="For key and certificate.")] = None,
    run_dir: Annotated[Path | None, typer.Option(help="For sockets; removed at the end.")] = None,
) -> None:
    """Make this machine a node of a site, until Ctrl-C; also behind NAT."""
    from anabranch.app.logs import set_up_logs
    from anabranch.app.node import (
        RUN,
        STATE,
        NodeOptions,
        name_of,
        read_token,
        root_place,
        run_node,
    )

    config = load_config()
    given = read_token(token)
    who = name_of(name, given)
    try:
        ports, network = span(media), IPv4Network(access)
    except ValueError as error:
        raise UsageError(f"this cannot be: {error}") from None
    if network.prefixlen != 30:
        raise UsageError(f"--access is a network of four addresses, such as {access}")
    options = NodeOptions(
        name=who,
        root=root_place(root),
        bus=bus,
        site=check_name(site or config.site),
        token=given,
        state=state_dir or STATE / who,
        run_dir=run_dir or RUN / f"node-{who}",
        media_ports=ports,
        public_addresses=tuple(map(check_public_address, public_addresses(public_address))),
        access=network,
    )
    set_up_logs(config.log)
    asyncio.run(run_node(options, lambda text: err.print(f"  {escape(text)}", soft_wrap=True)))
    err.print("This machine is no node any more; nothing is left.")


@node_app.command("invite")
@command
def invite_node(
    name: Annotated[str, typer.Argument(help="What it will be called.")],
    role: Annotated[Role, typer.Option(help="leaf or relay.")] = Role.LEAF,
    parent: Annotated[
        list[str] | None,
        typer.Option(help="From which nodes it may hang; without: any relay."),
    ] = None,
    rate_mbit: Annotated[float, typer.Option(help="What its links carry, Mbit/s.")] = 100.0,
    capacity: Annotated[int | None, typer.Option(help="Viewers of a leaf at most.")] = None,
    hours: Annotated[float, typer.Option(help="How long the token is good, up to a year.")] = 24.0,
    as_json: JsonFlag = False,
) -> None:
    """Print the token with which another machine joins as this node."""
    if not 0 < hours <= _MAX_HOURS:
        raise UsageError(f"--hours is more than 0 and at most {_MAX_HOURS}, not {hours:g}")
    wanted = {
        "name": name,
        "role": str(role),
        "parents": parent or [],
        "rate_mbit": rate_mbit,
        "capacity": capacity,
        "lifetime_s": hours * 3600,
    }
    answer = Client(load_config()).request("POST", "/api/nodes/invitations", json=wanted)
    if as_json:
        out.print_json(json.dumps(answer))
        return
    err.print("On the other machine, within the time that the token is good:")
    out.print(
        f"anabranch node join ROOT:{answer['port']} --token {answer['token']}", soft_wrap=True
    )


@node_app.command("list")
@command
def list_nodes(as_json: JsonFlag = False) -> None:
    """Show the nodes on other machines."""
    guests = Client(load_config()).request("GET", "/api/nodes/invitations")
    if as_json:
        out.print_json(json.dumps(guests))
        return
    table = Table("Node", "Role", "State", "Parent", "Tunnel", "From", "Heard", box=None)
    for guest in guests:
        heard = guest["heard_at"]
        table.add_row(
            guest["name"],
            guest["role"],
            guest["state"],
            guest["parent"] or "",
            guest["address"],
            guest["endpoint"] or "",
            "" if heard is None else f"{max(0, time.time() - heard):.0f} s ago",
        )
    out.print(table if guests else "Nobody is invited: anabranch node invite NAME")


@node_app.command("remove")
@command
def remove_node(name: Annotated[str, typer.Argument(help="Which node.")]) -> None:
    """End a node on another machine and bar it; its viewers go elsewhere."""
    Client(load_config()).request("DELETE", f"/api/nodes/invitations/{name}")
    out.print(f"{name} is removed.")


@node_app.command("bus-config")
@command
def show_bus_configuration() -> None:
    """Print where the configuration is with which to run the bus: nats-server -c FILE."""
    path = nodes_directory(load_config()) / CONFIGURATION
    if not path.is_file():
        raise UsageError(f"there is no {path}: set remote.bus to tls://HOST[:PORT], and start")
    out.print(str(path), soft_wrap=True)
