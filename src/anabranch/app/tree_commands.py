"""``anabranch tree``: plan a delivery tree, see whether a plan still fits; the running one."""

import json
import re
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import quote

import typer
import yaml
from rich.tree import Tree as Drawing

from anabranch.app.client import Client
from anabranch.app.config import load_config
from anabranch.app.terminal import JsonFlag, command, out
from anabranch.core.errors import UsageError
from anabranch.tree.description import Description
from anabranch.tree.model import Node, Tree
from anabranch.tree.plan_file import (
    MAX_BYTES,
    check,
    read_description,
    read_plan,
    to_description,
    to_json,
    to_xml,
)
from anabranch.tree.planning import Plan, plan

tree_app = typer.Typer(no_args_is_help=True, help="The delivery tree: plan, show, change it.")


@tree_app.command("plan")
@command
def plan_tree(
    file: Annotated[Path, typer.Argument(help="Nodes and links: YAML, JSON or XML.")],
    present: Annotated[
        Path | None, typer.Option(help="A plan to keep to where another is no better.")
    ] = None,
    as_json: JsonFlag = False,
    as_xml: Annotated[bool, typer.Option("--xml", help="Print XML.")] = False,
) -> None:
    """Plan the tree of least weight over the nodes and links of a file (see docs/tree.md)."""
    if as_json and as_xml:
        raise UsageError("either --json or --xml")
    planned = plan(_description(file), _plan(present) if present is not None else None)
    if as_json or as_xml:
        typer.echo(to_json(planned) if as_json else to_xml(planned), nl=False)
        return
    out.print(_drawing(planned.tree, planned.tree.root))
    for link in planned.redundancy:
        out.print(f"redundancy link {link}, {link.rate_mbit:g} Mbit/s", soft_wrap=True)
    for name, reason in planned.pruned.items():
        out.print(f"[yellow]pruned: {name} {reason.text}[/yellow]", soft_wrap=True)


@tree_app.command("check")
@command
def check_plan(
    plan_file: Annotated[Path, typer.Argument(metavar="PLAN", help="A plan: JSON or XML.")],
    description: Annotated[Path, typer.Argument(help="What there is now: YAML, JSON or XML.")],
    as_json: JsonFlag = False,
) -> None:
    """Say where a plan does not fit any more; exit code 1 if the tree cannot be as planned."""
    now = _description(description)
    problems = check(_plan(plan_file), now.nodes, now.links)
    if as_json:
        out.print_json(json.dumps([asdict(problem) for problem in problems]))
    else:
        for problem in problems:
            mark = "[red]✗[/red]" if problem.breaks else "[yellow]![/yellow]"
            out.print(f"{mark} {problem.text}", soft_wrap=True)
        if not problems:
            out.print("The plan fits.")
    if any(problem.breaks for problem in problems):
        raise typer.Exit(1)


NodeArgument = Annotated[str, typer.Argument(metavar="NODE")]


@tree_app.command("show")
@command
def show_tree(as_json: JsonFlag = False) -> None:
    """Show the tree of the running site, and the nodes that are not in it."""
    client = Client(load_config())
    found, nodes = client.request("GET", "/api/tree"), client.request("GET", "/api/nodes")
    if as_json:
        out.print_json(json.dumps({**found, "states": nodes}))
        return
    told = {node["name"]: _told(node) for node in nodes}
    drawings: dict[str, Drawing] = {}
    for node in found["nodes"]:
        above = drawings.get(node["parent"])
        text = told.pop(node["name"])
        drawings[node["name"]] = Drawing(text) if above is None else above.add(text)
    out.print(drawings[found["nodes"][0]["name"]])
    for link in found["reserve"]:
        one, other = link["between"]
        out.print(f"reserve link {one} - {other}, {link['rate_mbit']:g} Mbit/s", soft_wrap=True)
    for text in told.values():
        out.print(f"not in the tree: {text}", soft_wrap=True)


@tree_app.command("start")
@command
def start_node(
    node: NodeArgument,
    below: Annotated[
        str | None, typer.Option(help="A relay takes half of this node's children.")
    ] = None,
) -> None:
    """Bring a node of the pool up."""
    _change(node, "start", {"below": below})


@tree_app.command("drain")
@command
def drain_node(node: NodeArgument) -> None:
    """Have a leaf take nobody new; those who watch stay."""
    _change(node, "drain")


@tree_app.command("undrain")
@command
def undrain_node(node: NodeArgument) -> None:
    """Have a leaf take viewers again."""
    _change(node, "undrain")


@tree_app.command("stop")
@command
def stop_node(
    node: NodeArgument,
    patience: Annotated[
        float, typer.Option(min=0, max=300, help="Seconds that viewers have to leave.")
    ] = 10.0,
) -> None:
    """Switch a node off: its children hang elsewhere before, its viewers' seats end."""
    _change(node, "stop", {"patience_s": patience}, wait_s=patience)


def _change(node: str, what: str, body: object = None, *, wait_s: float = 0.0) -> None:
    path = f"/api/nodes/{quote(node, safe='')}/{what}"
    client = Client(load_config())
    out.print(_told(client.request("POST", path, json=body, timeout_s=30.0 + wait_s)))


def _told(node: Mapping[str, Any]) -> str:
    text = f"[bold]{node['name']}[/bold] [dim]{node['role']}[/dim] {_STATES[node['state']]}"
    if node["viewers"] is not None and node["state"] != "idle":
        most = "" if node["capacity"] is None else f" of {node['capacity']}"
        text += f", {node['viewers']}{most} viewers"
    return text


_STATES = {
    "up": "[green]up[/green]",
    "idle": "idle",
    "starting": "[yellow]starting[/yellow]",
    "draining": "[yellow]draining[/yellow]",
    "down": "[red]down[/red]",
}


def _drawing(tree: Tree, node: Node) -> Drawing:
    drawings = {node.name: Drawing(f"[bold]{node.name}[/bold] [dim]{node.role}[/dim]")}
    for each in tree:
        if each.parent is not None:
            text = f"{each.name} [dim]{each.role}, {each.rate_mbit:g} Mbit/s[/dim]"
            drawings[each.name] = drawings[each.parent].add(text)
    return drawings[node.name]


def _description(path: Path) -> Description:
    data = _content(path)
    try:
        if data.lstrip()[:1] in (b"<", b"{"):
            return read_description(data)
        return to_description(yaml.safe_load(data))
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # ValueError: a date, a number
        text = re.sub(r"\s+", " ", str(error))[:300]
        raise UsageError(f"{path} cannot be read: {text}") from None
    except UsageError as error:
        raise UsageError(f"{path} is wrong: {error}") from None


def _plan(path: Path) -> Plan:
    try:
        return read_plan(_content(path))
    except UsageError as error:
        raise UsageError(f"{path} is wrong: {error}") from None


def _content(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
    except (OSError, ValueError) as error:  # ValueError: a name that can be none
        reason = getattr(error, "strerror", None) or error
        raise UsageError(f"{path} cannot be read: {reason}") from None
    if len(content) > MAX_BYTES:
        raise UsageError(f"{path} is larger than {MAX_BYTES} bytes")
    return content
