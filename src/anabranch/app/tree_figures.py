"""``anabranch tree stats`` and ``explain``: what the tree reports, and what was done about it."""

import json
import time
from collections.abc import Mapping
from typing import Annotated, Any
from urllib.parse import quote

import typer
from rich.console import Group, RenderableType
from rich.live import Live
from rich.markup import escape
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from anabranch.app.client import Client
from anabranch.app.config import load_config
from anabranch.app.terminal import JsonFlag, command, out

_WIDEST = 1000
_LOST = "cumpktlost"
_FIGURES = {
    "cpu": "CPU\n%",
    "injitter": "Jitter\nms",
    "rtt": "RTT\nms",
    "loss": "Loss\n%",
    "linkloss": "Link\nloss %",
    _LOST: "Lost",
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
    lines = _figures(found)
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


def _figures(found: dict[str, Any]) -> list[RenderableType]:
    """Return the figures as a table, or one below the other where that is too wide."""
    parts = [
        ("all", found["whole"]),
        *((f"below {child['node']}", child["streams"]) for child in found["children"]),
        *((node["node"], node["streams"]) for node in found["nodes"]),
    ]
    headings = ("", "Stream", "Of", *_FIGURES.values())
    rows: list[tuple[str, ...]] = []
    listed: list[RenderableType] = []
    for who, streams in parts:
        name = who
        if streams:
            listed.append(Text(who, "bold"))
        for stream in streams:
            told = {figure: _told(figure, stream["values"]) for figure in _FIGURES}
            of = f"{stream['weight']:.0f}"
            rows.append((name, stream["stream"], of, *told.values()))
            name = ""
            words = ", ".join(f"{_FIGURES[figure]} {text}" for figure, text in told.items() if text)
            line = f"  {stream['stream']} of {of}: {words or 'nothing'}"
            listed.append(Text(line.replace("\n", " ")))
    table = Table(box=None)
    for heading in headings:
        table.add_column(heading, no_wrap=True)
    for row in rows:
        table.add_row(*map(Text, row))
    # rich cuts what does not fit: a figure cut short would be another one.
    needed = Measurement.get(out, out.options.update(max_width=_WIDEST), table).maximum
    return [table] if needed <= out.width else listed


def _told(figure: str, values: Mapping[str, float]) -> str:
    if figure not in values:
        return ""
    return f"{values[figure]:.0f}" if figure == _LOST else f"{values[figure]:.1f}"
