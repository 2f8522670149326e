"""``anabranch pipeline``: what nodes do to media beside forwarding packets."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import quote

import typer
from rich.markup import escape
from rich.table import Table

from anabranch.app.client import Client
from anabranch.app.config import load_config
from anabranch.app.terminal import JsonFlag, command, out
from anabranch.core.errors import UsageError

pipeline_app = typer.Typer(no_args_is_help=True, help="Media pipelines of the nodes.")

Node = Annotated[str, typer.Argument(metavar="NODE", help="Which node.")]
Pipeline = Annotated[str, typer.Argument(metavar="ID", help="Which pipeline of the node.")]


@pipeline_app.command("list")
@command
def list_pipelines(node: Node, as_json: JsonFlag = False) -> None:
    """Show the pipelines of a node."""
    found = Client(load_config()).request("GET", _path(node))
    if as_json:
        out.print_json(json.dumps(found))
        return
    table = Table("Pipeline", "State", "Restarts", "Outlets", "Error", box=None)
    for each in found:
        table.add_row(
            escape(each["id"]),
            each["state"],
            str(each["restarts"]),
            escape(_outlets(each)),
            escape(each["error"] or ""),
        )
    out.print(table if found else f"{escape(node)} has no pipelines.")


@pipeline_app.command("define")
@command
def define(
    node: Node,
    pipeline: Pipeline,
    description: Annotated[
        str, typer.Argument(help="As in docs/tree.md, or @FILE; its outlets send nowhere yet.")
    ],
) -> None:
    """Define a pipeline, or define it anew."""
    if description.startswith("@"):
        try:
            description = Path(description[1:]).read_text()
        except (OSError, ValueError) as error:
            raise UsageError(f"{description[1:]} cannot be read: {error}") from None
    _change("PUT", node, pipeline, body={"description": description})


@pipeline_app.command("play")
@command
def play(node: Node, pipeline: Pipeline) -> None:
    """Start a pipeline."""
    _change("POST", node, pipeline, "play")


@pipeline_app.command("stop")
@command
def stop(node: Node, pipeline: Pipeline) -> None:
    """Stop a pipeline; it stays defined."""
    _change("POST", node, pipeline, "stop")


@pipeline_app.command("route")
@command
def route(
    node: Node,
    pipeline: Pipeline,
    outlet: Annotated[str, typer.Argument(help="Name of an anabranchsink.")],
    to: Annotated[
        list[str] | None, typer.Argument(help="ADDRESS:PORT on the overlay; none: nowhere.")
    ] = None,
) -> None:
    """Have an outlet send to exactly these addresses."""
    _change("PUT", node, pipeline, "outlets", outlet, body={"to": to or []})


@pipeline_app.command("remove")
@command
def remove(node: Node, pipeline: Pipeline) -> None:
    """Stop and forget a pipeline."""
    Client(load_config()).request("DELETE", _path(node, pipeline))
    out.print(f"{escape(pipeline)} is removed.")


def _change(method: str, node: str, *words: str, body: object = None) -> None:
    found = Client(load_config()).request(method, _path(node, *words), json=body)
    out.print(f"[bold]{escape(found['id'])}[/bold] {found['state']}", soft_wrap=True)
    out.print(escape(found["description"]), soft_wrap=True)
    if outlets := _outlets(found):
        out.print(escape(outlets), soft_wrap=True)
    if found["error"]:
        out.print(f"[yellow]{escape(found['error'])}[/yellow]", soft_wrap=True)


def _outlets(found: Mapping[str, Any]) -> str:
    return ", ".join(
        f"{outlet} to {' '.join(to) or 'nobody'}" for outlet, to in found["outlets"].items()
    )


def _path(node: str, *words: str) -> str:
    parts = (node, "pipelines", *words)
    return "/api/nodes/" + "/".join(quote(part, safe="") for part in parts)
