"""``anabranch tree stats`` and ``explain``: what the tree reports, and what was done about it."""

import json
import time
from typing import Annotated, Any
from urllib.parse import quote

import typer
from rich.console import Group, RenderableType
from rich.live import Live
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from anabranch.app.client import Client
from anabranch.app.config import load_config
from anabranch.app.terminal import JsonFlag, command, out

_LEVELS = {
    "cpu": "CPU %",
    "injitter": "Jitter ms",
    "rtt": "RTT ms",
    "loss": "Loss %",
    "linkloss": "Link loss %",
}


@command
def show_statistics(
    watch: Annotated[bool, typer.Option("--watch", help="Go on, every two seconds.")] = False,
    as_json: JsonFlag = False,
) -> None:
    """Show the figures of the last round, and where there is trouble."""
    client = Client(load_config())
    found = client.request("GET", "/api/tree/statistics")
    if as_json:
        out.print_json(json.dumps(found))
        return
    if not watch:
        out.print(_drawn(found))
        return
    with Live(_drawn(found), console=out) as live:
        while True:
            time.sleep(2.0)
            live.update(_drawn(client.request("GET", "/api/tree/statistics")))


@command
def explain(
    node: Annotated[str, typer.Argument(help="A node.")],
    as_json: JsonFlag = False,
) -> None:
    """Say what was done with a node, and why, newest last."""
    path = f"/api/tree/history?node={quote(node, safe='')}"
    deeds = Client(load_config()).request("GET", path)
    if as_json:
        out.print_json(json.dumps(deeds))
        return
    for deed in deeds:
        when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(deed["time"]))
        data = dict(deed["data"])
        reason = data.pop("reason", "")
        details = " ".join(f"{name}={value}" for name, value in data.items())
        line = f"{when}  {deed['action']} {deed['node']}: {reason} ({deed['outcome']}) {details}"
        out.print(escape(line.rstrip()), soft_wrap=True)
    if not deeds:
        out.print(f"Nothing was done with {escape(node)} but by operators.")


def _drawn(found: dict[str, Any]) -> RenderableType:
    table = Table("", "Stream", "Of", *_LEVELS.values(), "Lost", box=None)
    _add(table, "[bold]all[/bold]", found["whole"])
    for child in found["children"]:
        _add(table, f"below {child['node']}", child["streams"])
    for node in found["nodes"]:
        _add(table, node["node"], node["streams"])
    lines: list[RenderableType] = [table]
    for each in found["diagnoses"]:
        text = (
            f"{each['severity']}: {each['metric']} of {each['stream']} at {each['node']}"
            f" ({each['suffer']}, {each['share']:.0%})"
        )
        lines.append(Text(text, "red" if each["severity"] == "danger" else "yellow"))
    lines += [
        Text(f"lower rendition of {each['stream']} below {each['node']}", "yellow")
        for each in found["lowered"]
    ]
    if not found["acting"]:
        lines.append(Text("tree.act is false: what would be done is only told"))
    return Group(*lines)


def _add(table: Table, name: str, streams: list[dict[str, Any]]) -> None:
    for stream in streams:
        values = stream["values"]
        levels = (f"{values[level]:.1f}" if level in values else "" for level in _LEVELS)
        lost = values.get("cumpktlost")
        row = (stream["stream"], f"{stream['weight']:.0f}", *levels)
        table.add_row(name, *row, "" if lost is None else f"{lost:.0f}")
        name = ""
