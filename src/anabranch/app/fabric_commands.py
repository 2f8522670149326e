"""``anabranch fabric``: the network beneath the site, and a controller for any other."""

import asyncio
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import quote

import typer
from rich.markup import escape
from rich.table import Table

from anabranch.app.client import Client
from anabranch.app.config import LogConfig, load_config
from anabranch.app.terminal import JsonFlag, command, out
from anabranch.core.errors import UsageError
from anabranch.core.names import check_name

fabric_app = typer.Typer(
    no_args_is_help=True, help="The network beneath the site, and a controller for any other."
)
path_app = typer.Typer(no_args_is_help=True, help="Ask for paths of your own.")
fabric_app.add_typer(path_app, name="path")
vm_path_app = typer.Typer(no_args_is_help=True, help="Ask for paths past virtual machines.")
fabric_app.add_typer(vm_path_app, name="vm-path")

_FIELD = re.compile(r"([a-z0-9_]+)=(\S+)")


def _get(path: str) -> Any:
    return Client(load_config()).request("GET", f"/api/fabric{path}")


def _quoted(name: str) -> str:
    return quote(name, safe="", errors="surrogateescape")


def _show(
    answer: Any, rows: Sequence[tuple[str, ...]], head: tuple[str, ...], as_json: bool
) -> None:
    if as_json:
        out.print_json(json.dumps(answer))
        return
    table = Table(*head, box=None)
    for row in rows:
        table.add_row(*map(escape, row))
    out.print(table if rows else "None.")


def _mark(up: bool) -> str:
    return "up" if up else "down"


@fabric_app.command("controller")
@command
def controller(
    file: Annotated[
        Path | None, typer.Argument(help="Its switches, links and intents; none: any switch.")
    ] = None,
    listen: Annotated[
        str | None, typer.Option(help="ADDRESS:PORT for OpenFlow, above that of the file.")
    ] = None,
) -> None:
    """Run a controller on its own, as for Mininet: ARP, DHCP and unicast on any topology."""
    from anabranch.app.controller import ControllerProcess
    from anabranch.app.controller_file import listening_at, read_controller_file
    from anabranch.app.logs import set_up_logs

    settings = read_controller_file(file)
    if listen is not None:
        settings = listening_at(settings, listen)
    set_up_logs(LogConfig())

    async def run() -> None:
        await ControllerProcess(settings).run()

    asyncio.run(run())


@fabric_app.command("switches")
@command
def switches(as_json: JsonFlag = False) -> None:
    """Show every switch."""
    answer = _get("/datapaths")
    rows = [
        (s["name"], s["dpid"] or "", _mark(s["connected"]), str(s["ports"]), str(s["rules"] or 0))
        for s in answer
    ]
    _show(answer, rows, ("Switch", "Datapath", "State", "Ports", "Rules"), as_json)


@fabric_app.command("links")
@command
def links(as_json: JsonFlag = False) -> None:
    """Show every link, each direction by itself, with what it carries."""
    answer = _get("/links")["items"]
    rows = [
        (
            link["src"],
            link["dst"],
            _mark(link["up"]),
            f"{link['load_mbit']:.1f}",
            "" if link["capacity_mbit"] is None else f"{link['capacity_mbit']:g}",
            "reserve" if link["redundant"] else "",
        )
        for link in answer
    ]
    _show(answer, rows, ("From", "To", "State", "Mbit/s", "Of", ""), as_json)


@fabric_app.command("hosts")
@command
def hosts(as_json: JsonFlag = False) -> None:
    """Show every host that was seen, and the virtual machines."""
    answer = _get("/hosts")["items"]
    rows = [(h["mac"], h["ipv4"] or "", h["at"], "VM" if h["vm"] else "") for h in answer]
    _show(answer, rows, ("MAC", "IPv4", "At", ""), as_json)


@fabric_app.command("flows")
@command
def flows(
    switch: Annotated[str, typer.Argument(help="Name of the switch.")], as_json: JsonFlag = False
) -> None:
    """Show the flow tables of a switch with their counters."""
    answer = _get(f"/datapaths/{_quoted(switch)}/flows?limit=5000")["items"]
    rows = [
        (
            str(flow["table"]),
            str(flow["priority"]),
            " ".join(f"{name}={value}" for name, value in flow["match"].items()) or "anything",
            _actions(flow),
            str(flow["packets"]),
            flow["owner"],
        )
        for flow in answer
    ]
    head = ("Table", "Priority", "Match", "Actions", "Packets", "Owner")
    _show(answer, rows, head, as_json)


def _actions(flow: dict[str, Any]) -> str:
    words = [
        ",".join(f"{name}:{_plain(value)}" for name, value in action.items())
        for action in flow["actions"]
    ]
    if flow["goto_table"] is not None:
        words.append(f"goto:{flow['goto_table']}")
    return " ".join(words) or "drop"


def _plain(value: Any) -> str:
    if isinstance(value, dict):
        return ",".join(f"{name}={inner}" for name, inner in value.items())
    return str(value)


@fabric_app.command("paths")
@command
def paths(as_json: JsonFlag = False) -> None:
    """Show every flow and the links it takes."""
    answer = _get("/paths?limit=5000")["items"]
    rows = [
        (
            path["name"],
            path["ingress"],
            " ".join(sorted({egress["at"] for egress in path["egresses"]})),
            _links(path),
            "unreachable: " + " ".join(path["unreachable"]) if path["unreachable"] else "",
        )
        for path in answer
    ]
    _show(answer, rows, ("Flow", "From", "To", "Links", ""), as_json)


@path_app.command("add")
@command
def add(
    name: Annotated[str, typer.Argument(help="a-z, 0-9 and '-'.")],
    ingress: Annotated[str, typer.Option("--from", help="SWITCH:PORT where packets enter.")],
    egress: Annotated[list[str], typer.Option("--to", help="SWITCH:PORT; may be repeated.")],
    match: Annotated[
        list[str], typer.Option("--match", help="FIELD=VALUE, as ipv4_dst=239.1.2.3.")
    ],
    policy: Annotated[str, typer.Option(help="shortest or widest.")] = "shortest",
    as_json: JsonFlag = False,
) -> None:
    """Carry what matches from one port to others, one copy per link."""
    wanted = {
        "name": name,
        "ingress": ingress,
        "egresses": [{"at": at} for at in egress],
        "match": dict(map(_field, match)),
        "policy": policy,
    }
    answer = Client(load_config()).request("POST", "/api/fabric/paths", json=wanted)
    if as_json:
        out.print_json(json.dumps(answer))
        return
    _print_carried(name, answer["path"])


def _print_carried(name: str, path: dict[str, Any]) -> None:
    if not path["unreachable"] or path["links"]:
        out.print(f"{name} is carried: {_links(path) or 'within one switch'}", soft_wrap=True)
    for at in path["unreachable"]:
        out.print(f"[yellow]There is no way to {escape(at)} now.[/yellow]")


def _links(path: dict[str, Any]) -> str:
    return " ".join(f"{hop['src']}>{hop['dst']}" for hop in path["links"])


def _field(text: str) -> tuple[str, int | str]:
    found = _FIELD.fullmatch(text)
    if found is None:
        raise UsageError(f"{text!r} is not FIELD=VALUE")
    value = found[2]
    try:
        return found[1], int(value, 0)
    except ValueError:
        return found[1], value


@path_app.command("remove")
@command
def remove(name: str) -> None:
    """Take a path of your own back."""
    _remove("paths", name)


def _remove(what: str, name: str) -> None:
    Client(load_config()).request("DELETE", f"/api/fabric/{what}/{check_name(name)}")
    out.print(f"{name} is gone.")


@vm_path_app.command("add")
@command
def add_vm_path(
    name: Annotated[str, typer.Argument(help="a-z, 0-9 and '-'.")],
    ingress: Annotated[str, typer.Option("--from", help="SWITCH:PORT of the root's VM.")],
    leaf_exit: Annotated[
        str, typer.Option("--to", help="SWITCH:PORT of the leaf, towards the physical network.")
    ],
    external: Annotated[str, typer.Option(help="IPv4 address that the leaf puts in.")],
    external_mac: Annotated[
        str | None, typer.Option(help="Its MAC address; none: the stream's is left.")
    ] = None,
    match: Annotated[
        list[str] | None, typer.Option("--match", help="FIELD=VALUE; may be repeated.")
    ] = None,
    extend_match: Annotated[
        Path | None, typer.Option(help="A file of vpm-extend-match, in place of --match.")
    ] = None,
    role: Annotated[
        list[str] | None, typer.Option("--role", help="SWITCH=root, relay or leaf.")
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Carry what matches through every virtual machine on its way, whichever come and go."""
    from anabranch.app.controller_file import read_extend_match

    wanted: dict[str, Any] = {
        "name": name,
        "ingress": ingress,
        "exit": leaf_exit,
        "external": external,
        "external_mac": external_mac,
        "match": dict(map(_field, match)) if match else None,
        "extend_match": read_extend_match(extend_match) if extend_match is not None else None,
        "roles": dict(map(_role, role or ())),
    }
    answer = Client(load_config()).request("POST", "/api/fabric/vm-paths", json=wanted)
    if as_json:
        out.print_json(json.dumps(answer))
        return
    _print_carried(name, answer["path"])
    for rule in answer["path"]["rules"]:
        out.print(f"  {rule['name']}", soft_wrap=True)


def _role(text: str) -> tuple[str, str]:
    switch, equals, role = text.partition("=")
    if not (switch and equals and role):
        raise UsageError(f"{text!r} is not SWITCH=ROLE")
    return switch, role


@vm_path_app.command("list")
@command
def list_vm_paths(as_json: JsonFlag = False) -> None:
    """Show the paths past virtual machines with their rules."""
    answer = _get("/vm-paths?limit=5000")["items"]
    rows = [
        (
            path["name"],
            path["ingress"],
            path["exit"],
            path["external"],
            " ".join(rule["name"] for rule in path["rules"]),
        )
        for path in answer
    ]
    _show(answer, rows, ("Path", "From", "To", "External", "Rules"), as_json)


@vm_path_app.command("remove")
@command
def remove_vm_path(name: str) -> None:
    """Take a path past virtual machines back."""
    _remove("vm-paths", name)


@fabric_app.command("events")
@command
def events(
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, help="How many lines.")] = 30,
    as_json: JsonFlag = False,
) -> None:
    """Show what happened in the network, newest last."""
    answer = _get(f"/events?limit={limit}")
    rows = [
        (
            event["kind"],
            event["subject"],
            " ".join(f"{k}={v}" for k, v in event["data"].items() if v is not None),
        )
        for event in reversed(answer)
    ]
    _show(answer, rows, ("Event", "About", ""), as_json)
