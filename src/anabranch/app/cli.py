"""The command line: ``anabranch``."""

import asyncio
import json
import os
import signal
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from importlib.resources import files
from typing import Annotated, Any

import psutil
import typer
from rich.markup import escape
from rich.table import Table

from anabranch import __version__
from anabranch.app import tree_figures
from anabranch.app.channel_commands import channel_app
from anabranch.app.channel_tables import duration, print_channels
from anabranch.app.client import ROOT_HINT, Client, runs_as_root
from anabranch.app.config import Config, load_config
from anabranch.app.config_parts import LogConfig
from anabranch.app.fabric_commands import fabric_app
from anabranch.app.later import LaterGroup
from anabranch.app.logs import set_up_logs
from anabranch.app.node_commands import node_app
from anabranch.app.people_commands import token_app, user_app
from anabranch.app.pipeline_commands import pipeline_app
from anabranch.app.public import in_url
from anabranch.app.seat_commands import seat_app
from anabranch.app.service_commands import service_app
from anabranch.app.settings import check_run_dir, site_settings
from anabranch.app.terminal import JsonFlag, command, err, out
from anabranch.app.tree_commands import tree_app
from anabranch.core.errors import AnabranchError, UnavailableError, UsageError
from anabranch.host.journal import Journal, holder
from anabranch.site.plan import make_plan

_RESTART_S = 90.0

app = typer.Typer(
    cls=LaterGroup,
    help="A programmable edge for live media: one command, and a channel plays in a browser.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(channel_app, name="channel")
app.add_typer(fabric_app, name="fabric")
app.add_typer(tree_app, name="tree")
app.add_typer(node_app, name="node")
app.add_typer(seat_app, name="seat")
app.add_typer(pipeline_app, name="pipeline")
app.add_typer(user_app, name="user")
app.add_typer(token_app, name="token")
app.add_typer(service_app, name="service")
tree_app.command("stats")(tree_figures.show_statistics)
tree_app.command("explain")(tree_figures.explain)


@app.callback(invoke_without_command=True)
def top(
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    """See `anabranch COMMAND --help`."""
    if version:
        out.print(__version__)
        raise typer.Exit


@app.command()
@command
def up(
    tls: Annotated[
        bool, typer.Option("--tls", help="Serve HTTPS (see `tls` in the YAML).")
    ] = False,
    listen: Annotated[str | None, typer.Option(help="ADDRESS:PORT of the console.")] = None,
    direct: Annotated[
        bool, typer.Option("--direct", help="No switches: straight to one leaf server.")
    ] = False,
) -> None:
    """Bring a whole site up and run it until Ctrl-C."""
    from anabranch.app.director import Steps
    from anabranch.app.director import direct as run_director
    from anabranch.app.doctor import check_essentials
    from anabranch.app.logs import set_up_logs

    overrides: dict[str, Any] = {"listen": listen}
    if direct:
        overrides["carriage"] = "direct"
    config = load_config(**overrides)
    if tls and not config.tls.enabled:
        config = load_config(**overrides, tls={**config.tls.model_dump(), "enabled": True})
    check_essentials(config)
    set_up_logs(config.log)
    if not config.switches:
        why = "as asked" if direct or os.geteuid() == 0 else "not root"
        err.print(
            f"[yellow]Without switches ({why}):[/yellow] channels go straight to one leaf server."
            " Run with sudo for the tree of switches.",
            soft_wrap=True,
        )

    def show(text: str, took: float | None) -> None:
        if took is not None:
            err.print(f"  [green]✓[/green] {text} [dim]{took:.1f} s[/dim]")

    steps = Steps(show)
    began = time.monotonic()

    def on_air(site: Any) -> None:
        steps.finish()
        _greet(config, [channel.name for channel in site.channels], time.monotonic() - began)
        for note in site.notes:
            err.print(f"[yellow]Note:[/yellow] {escape(note)}")

    try:
        asyncio.run(run_director(config, progress=steps, on_air=on_air))
    except AnabranchError as error:
        if not isinstance(error, UsageError):
            err.print("`anabranch doctor` says what this machine lacks, and how to get it.")
        raise
    steps.finish()
    err.print("Off the air; nothing is left.")


def _greet(config: Config, channels: list[str], took: float) -> None:
    err.print(f"\n[bold green]On the air[/bold green] after {took:.1f} s.\n")
    scheme = "https" if config.tls.enabled else "http"
    err.print(f"  Watch    {scheme}://localhost:{config.port}/")
    everywhere = config.host in {"0.0.0.0", "::"}
    for address in config.public_addresses() if everywhere else ():
        url = f"{scheme}://{in_url(address)}:{config.port}/"
        err.print(f"           {url}  (from another computer)", markup=False)
    if channels:
        err.print(f"  Playing  {', '.join(channels[:8])}{' ...' if len(channels) > 8 else ''}")
    err.print("  Feed     anabranch channel add NAME --from SOURCE")
    err.print("  Look     anabranch status")
    err.print("  Stop     Ctrl-C, or anabranch down\n")


@app.command()
@command
def down() -> None:
    """End the site and remove everything it made, also after a crash."""
    try:
        config = load_config()
    except UsageError as error:
        config = load_config(with_file=False)
        err.print(
            f"[yellow]{escape(str(error))}[/yellow]\nLooking in {escape(str(config.run))},"
            " without the file.",
            soft_wrap=True,
        )
    check_run_dir(config)
    pid = holder(config.run)
    if pid is not None:
        try:
            os.kill(pid, signal.SIGTERM)
        except PermissionError:
            raise UsageError(f"process {pid} belongs to another user: run this with sudo") from None
        for _ in range(200):
            if holder(config.run) is None:
                break
            time.sleep(0.1)
        else:
            err.print(f"[yellow]process {pid} does not end by itself: killed[/yellow]")
            os.kill(pid, signal.SIGKILL)
            time.sleep(0.2)
    removed = Journal(config.run).undo()
    if pid is None and not removed and runs_as_root(config):
        raise UsageError(ROOT_HINT)
    if pid is None and not removed:
        out.print("Nothing was up.")
    else:
        out.print("Everything is removed.")


@app.command()
@command
def restart() -> None:
    """Begin the director anew, with the configuration as it is now, while viewers play on.

    What is to be other than it was, is made anew: all of it where nodes, addresses or the program
    have changed.
    """
    config = load_config()
    check_run_dir(config)
    pid = holder(config.run)
    if pid is None:
        raise UsageError(ROOT_HINT if runs_as_root(config) else "nothing is up: `anabranch up`")
    client = Client(config)
    client.request("GET", "/api/site")  # it is on the air, and would understand
    began = time.monotonic()
    try:
        os.kill(pid, signal.SIGUSR2)
    except PermissionError:
        raise UsageError(f"process {pid} belongs to another user: run this with sudo") from None
    while (took := time.monotonic() - began) < _RESTART_S:
        time.sleep(0.1)
        with suppress(UnavailableError):
            if client.request("GET", "/api/site", timeout_s=5.0)["uptime_s"] < took:
                out.print(f"On the air again after {took:.1f} s.")
                return
        if not psutil.pid_exists(pid):
            break
    raise UnavailableError("the director did not come back: its own output says why")


@app.command()
@command
def status(as_json: JsonFlag = False) -> None:
    """Show nodes, channels and viewers."""
    site = Client(load_config()).request("GET", "/api/site")
    if as_json:
        out.print_json(json.dumps(site))
        return
    out.print(
        f"[bold]{site['name']}[/bold]  Anabranch {site['version']}, {site['carriage']},"
        f" up {duration(site['uptime_s'])}, {site['seats']} viewers"
    )
    repairs = site["repairs"]
    columns = ("Repaired", "Lost") if repairs else ()
    nodes = Table("Node", "Role", "Parent", "Address", "State", "Viewers", *columns, box=None)
    for node in site["nodes"]:
        nodes.add_row(
            node["name"],
            node["role"],
            node["parent"] or "",
            node["address"] or "",
            _state(node),
            "" if node["viewers"] is None else str(node["viewers"]),
            *_repaired(repairs.get(node["name"])) if columns else (),
        )
    out.print(nodes)
    print_channels(site["channels"])
    restarts = {name: c["restarts"] for name, c in site["children"].items() if c["restarts"]}
    for name, count in restarts.items():
        out.print(f"[yellow]{name} was restarted {count} times[/yellow]")
    for note in site["notes"]:
        out.print(f"[yellow]{escape(note)}[/yellow]")


def _repaired(found: dict[str, int] | None) -> tuple[str, str]:
    """Return what was lost on the way to a node and came after all, and what did not."""
    return ("", "") if found is None else (str(found["repaired"]), str(found["given_up"]))


def _state(node: dict[str, Any]) -> str:
    if node["state"] in {"up", "down"}:
        well = node["state"] == "up" and node["connected"]
        return "[green]up[/green]" if well else "[red]down[/red]"
    return str(node["state"])


@app.command()
@command
def viewers(as_json: JsonFlag = False) -> None:
    """Show every viewer with its figures."""
    seats = Client(load_config()).request("GET", "/api/seats")
    if as_json:
        out.print_json(json.dumps(seats))
        return
    table = Table("Channel", "Rendition", "Leaf", "State", "For", "Sent", "Lost", "RTT", box=None)
    for seat in seats:
        sent, rtt = seat["bytes_sent"], seat["rtt_ms"]
        table.add_row(
            seat["channel"],
            seat["rendition"],
            seat["leaf"],
            seat["state"],
            duration(seat["seconds"]),
            "" if sent is None else f"{sent / 1e6:.1f} MB",
            "" if seat["packets_lost"] is None else str(seat["packets_lost"]),
            "" if rtt is None else f"{rtt:.0f} ms",
        )
    out.print(table if seats else "Nobody watches.")


@app.command()
@command
def log(
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, help="How many lines.")] = 30,
    as_json: JsonFlag = False,
) -> None:
    """Show what happened, newest last."""
    events = Client(load_config()).request("GET", f"/api/log?limit={limit}")
    if as_json:
        out.print_json(json.dumps(events))
        return
    for event in reversed(events):
        when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(event["time"]))
        data = " ".join(f"{k}={v}" for k, v in event["data"].items() if v is not None)
        line = f"{when}  {event['kind']:<20} {event['subject']:<12} {data}"
        # One line an event, also where another machine's node wrote the reason.
        line = "".join(each if each.isprintable() else " " for each in line)
        out.print(escape(line), soft_wrap=True)


@app.command()
@command
def doctor(as_json: JsonFlag = False) -> None:
    """Say what this machine has and lacks, each with its remedy."""
    from anabranch.app.doctor import examine

    findings = examine(load_config())
    if as_json:
        out.print_json(json.dumps([finding.as_dict() for finding in findings]))
    else:
        marks = {"ok": "[green]✓[/green]", "lacks": "[yellow]![/yellow]", "fails": "[red]✗[/red]"}
        for finding in findings:
            out.print(f"{marks[finding.state]} {escape(finding.what)}", soft_wrap=True)
            if finding.remedy and finding.state != "ok":
                out.print(f"    {escape(finding.remedy)}", soft_wrap=True)
    if any(finding.state == "fails" for finding in findings):
        raise typer.Exit(1)


@app.command("config")
@command
def show_config(
    check: Annotated[bool, typer.Option("--check", help="Only check the present one.")] = False,
) -> None:
    """Print a commented anabranch.yaml with every default, to start from."""
    if check:
        make_plan(site_settings(load_config()))
        out.print("The configuration is right.")
        return
    sys.stdout.write(files("anabranch.app").joinpath("anabranch.yaml").read_text())


@app.command()
@command
def bench(
    name: Annotated[str, typer.Argument(help="What to measure; see docs/benchmarks.md.")],
    samples: Annotated[int | None, typer.Option("-n", help="How many samples.")] = None,
    leaf: Annotated[
        str | None,
        typer.Option(help="zap, join, viewers: the leaf server; without it, each in turn."),
    ] = None,
    crowd: Annotated[
        int, typer.Option(min=0, help="zap: others who change channels once a second.")
    ] = 0,
    steps: Annotated[
        list[int] | None, typer.Option("--viewers", min=1, help="viewers: numbers of viewers.")
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Measure, on a site of its own, beside a peer in the same run."""
    from anabranch.app.bench import (
        cdn,
        channels,
        fabric,
        failover,
        first_frame,
        idle,
        ingress,
        join,
        latency,
        modules,
        overload,
        recovery,
        relay,
        signalling,
        takeover,
        tree,
        viewers,
        zap,
    )
    from anabranch.app.bench.leaf_kinds import kinds_of
    from anabranch.app.bench.report import Result, report

    kinds = kinds_of(leaf)
    benches: dict[str, tuple[Callable[[int], list[Result]], int]] = {
        "first-frame": (first_frame.measure, 30),
        "latency": (latency.measure, 500),
        "idle": (idle.measure, 20),
        "recovery": (recovery.measure, 5),
        "overload": (overload.measure, 1),
        "relay": (relay.measure, 1),
        "cdn": (cdn.measure, 5),
        "ingress": (ingress.measure, 5),
        "failover": (failover.measure, 5),
        "zap": (partial(zap.measure, kinds=kinds, viewers=crowd), 100),
        "join": (partial(join.measure, kinds=kinds), 50),
        "takeover": (takeover.measure, 50),
        "viewers": (partial(viewers.measure, kinds=kinds, steps=steps or ()), 10),
        **{f"modules-{part}": each for part, each in modules.parts().items()},
        **{f"signalling-{part}": each for part, each in signalling.parts().items()},
        **{f"fabric-{part}": each for part, each in fabric.parts().items()},
        **{f"tree-{part}": each for part, each in tree.parts().items()},
        **{f"channels-{part}": each for part, each in channels.parts().items()},
    }
    whole = {
        "fabric": fabric.measure,
        "tree": tree.measure,
        "channels": channels.measure,
        "modules": modules.measure,
        "signalling": signalling.measure,
    }
    if name not in whole and name not in benches:
        known = ", ".join([*benches, *(f"{each} (all of its parts)" for each in whole)])
        raise UsageError(f"there is no benchmark {name!r}; there are {known}")
    if samples is not None and samples < 1:
        raise UsageError("at least one sample")
    # Standard output is the result's. And what was made is removed after SIGTERM, too.
    set_up_logs(LogConfig(level="error"))
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    if name in whole:
        results = whole[name](samples)
    else:
        measure, usual = benches[name]
        results = measure(samples or usual)
    result = report(name, results)
    if as_json:
        out.print_json(json.dumps(result))
        return
    machine = result["machine"]
    out.print(f"{name}, {result['date']}, {machine['cores']} cores, {machine['cpu']}")
    for row in result["results"]:
        shown = ("value", "p50", "p95", "p99", "max")
        figures = "  ".join(f"{k} {row[k]}" for k in shown if k in row)
        out.print(f"  {row['metric']} ({row['unit']}, n={row['n']}): [bold]{figures}[/bold]")
        out.print(f"    target {row.get('target', '-')}", soft_wrap=True)
        if "peer" in row:
            out.print(f"    peer {row['peer']['value']}: {row['peer']['name']}", soft_wrap=True)


def main() -> None:
    """Entry point."""
    app()
