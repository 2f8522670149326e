"""``anabranch fabric``: switches, what they hold, and what is between and behind them."""

from collections.abc import Sequence
from typing import Annotated, Any

import typer
from rich.markup import escape

from anabranch.app.client import Client
from anabranch.app.config import load_config
from anabranch.app.fabric_commands.showing import ask, quoted, show
from anabranch.app.terminal import JsonFlag, command, out

app = typer.Typer()
Switch = Annotated[str, typer.Argument(help="Name of the switch.")]


def _mark(up: bool) -> str:
    return "up" if up else "down"


@app.command("switches")
@command
def switches(as_json: JsonFlag = False) -> None:
    """Show every switch."""
    answer = ask("GET", "/datapaths")
    rows = [
        (s["name"], s["dpid"] or "", _mark(s["connected"]), str(s["ports"]), str(s["rules"] or 0))
        for s in answer
    ]
    show(answer, rows, ("Switch", "Datapath", "State", "Ports", "Rules"), as_json)


@app.command("links")
@command
def links(as_json: JsonFlag = False) -> None:
    """Show every link, each direction by itself, with what it carries."""
    answer = ask("GET", "/links")["items"]
    rows = [
        (
            link["src"],
            link["dst"],
            "last resort" if link["last_resort"] else _mark(link["up"]),
            f"{link['load_mbit']:.1f}",
            "" if link["capacity_mbit"] is None else f"{link['capacity_mbit']:g}",
            "reserve" if link["redundant"] else "",
        )
        for link in answer
    ]
    show(answer, rows, ("From", "To", "State", "Mbit/s", "Of", ""), as_json)


@app.command("hosts")
@command
def hosts(as_json: JsonFlag = False) -> None:
    """Show every host that was seen, and the virtual machines."""
    answer = ask("GET", "/hosts")["items"]
    rows = [(h["mac"], h["ipv4"] or "", h["at"], "VM" if h["vm"] else "") for h in answer]
    show(answer, rows, ("MAC", "IPv4", "At", ""), as_json)


@app.command("service-nodes")
@command
def service_nodes(as_json: JsonFlag = False) -> None:
    """Show the nodes that run modules on packets, in the order in which packets pass them."""
    answer = ask("GET", "/service-nodes")
    rows = [
        (
            node["name"],
            node["at"],
            node["stage"],
            _mark(node["reached"]),
            str(node["flows"]),
            str(len(node["filters"])),
        )
        for node in answer
    ]
    show(answer, rows, ("Node", "At", "Stage", "State", "Flows", "Filters"), as_json)


@app.command("service-node-key")
@command
def service_node_key(
    name: Annotated[str, typer.Argument(help="The node's --name.")],
) -> None:
    """Print what a service node needs as its --token; it is good for that name alone."""
    out.print(ask("GET", f"/service-nodes/{quoted(name)}/key")["key"], soft_wrap=True)


@app.command("flows")
@command
def flows(switch: Switch, as_json: JsonFlag = False) -> None:
    """Show the flow tables of a switch with their counters."""
    answer = ask("GET", f"/datapaths/{quoted(switch)}/flows?limit=5000")["items"]
    rows = [
        (
            str(flow["table"]),
            str(flow["priority"]),
            " ".join(f"{name}={value}" for name, value in flow["match"].items()) or "anything",
            _of_flow(flow),
            str(flow["packets"]),
            flow["owner"],
        )
        for flow in answer
    ]
    head = ("Table", "Priority", "Match", "Actions", "Packets", "Owner")
    show(answer, rows, head, as_json)


def _of_flow(flow: dict[str, Any]) -> str:
    words = [_actions(flow["actions"])] if flow["actions"] else []
    if flow["goto_table"] is not None:
        words.append(f"goto:{flow['goto_table']}")
    return " ".join(words) or "drop"


def _actions(actions: Sequence[dict[str, Any]]) -> str:
    return " ".join(
        ",".join(f"{name}:{_plain(value)}" for name, value in action.items()) for action in actions
    )


def _plain(value: Any) -> str:
    if isinstance(value, dict):
        return ",".join(f"{name}={inner}" for name, inner in value.items())
    return str(value)


@app.command("ingress")
@command
def ingress(as_json: JsonFlag = False) -> None:
    """Show the doors for producers: who passes, and what was dropped."""
    answer = Client(load_config()).request("GET", "/api/ingress")
    rows = [
        (
            f"{door['protocol']}/{door['port']}",
            "waits" if door["open"] else "shut",
            " ".join(door["sessions"]),
            *(str(door[what]) for what in ("passed", "strangers", "dropped", "metered")),
        )
        for door in answer["doors"]
    ]
    head = ("Door", "Strangers", "Let in", "Passed", "Of strangers", "Dropped", "Over the rate")
    show(answer, rows, head, as_json)
    if answer["past"] and not as_json:
        out.print(escape(f"Not by the ingress: {', '.join(answer['past'])}"))


@app.command("groups")
@command
def groups(switch: Switch, as_json: JsonFlag = False) -> None:
    """Show the groups of a switch with their buckets and counters."""
    answer = ask("GET", f"/datapaths/{quoted(switch)}/groups?limit=5000")["items"]
    rows = [
        (
            f"{group['group']:#x}",
            group["type"],
            " | ".join(map(_bucket, group["buckets"])),
            _count(group["flows"]),
            _count(group["packets"]),
        )
        for group in answer
    ]
    show(answer, rows, ("Group", "Type", "Buckets", "Used by", "Packets"), as_json)


def _bucket(bucket: dict[str, Any]) -> str:
    watched = bucket["watch_port"]
    words = [] if watched is None else [f"while {watched} is live:"]
    return " ".join([*words, _actions(bucket["actions"]) or "drop"])


def _count(number: int | None) -> str:
    return "" if number is None else str(number)


@app.command("meters")
@command
def meters(switch: Switch, as_json: JsonFlag = False) -> None:
    """Show the meters of a switch with their limits and counters."""
    answer = ask("GET", f"/datapaths/{quoted(switch)}/meters?limit=5000")["items"]
    rows = [
        (
            str(meter["meter"]),
            " ".join(f"{band['rate']} {meter['unit']}" for band in meter["bands"]),
            _count(meter["flows"]),
            _count(meter["packets"]),
            " ".join(_count(band["packets"]) for band in meter["bands"]),
        )
        for meter in answer
    ]
    show(answer, rows, ("Meter", "Limit", "Used by", "Packets", "Dropped"), as_json)


@app.command("events")
@command
def events(
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, help="How many lines.")] = 30,
    as_json: JsonFlag = False,
) -> None:
    """Show what happened in the network, newest last."""
    answer = ask("GET", f"/events?limit={limit}")
    rows = [
        (
            event["kind"],
            event["subject"],
            " ".join(f"{k}={v}" for k, v in event["data"].items() if v is not None),
        )
        for event in reversed(answer)
    ]
    show(answer, rows, ("Event", "About", ""), as_json)
