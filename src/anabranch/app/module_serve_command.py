"""``anabranch module serve``: this machine, a router, is a node that modules are installed on."""

import asyncio
import os
import re
import signal
import socket
from contextlib import AsyncExitStack
from dataclasses import dataclass
from functools import partial
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from anabranch.app.config_parts import LogConfig
from anabranch.app.logs import set_up_logs
from anabranch.app.terminal import command, err
from anabranch.core.errors import UsageError
from anabranch.host.process import end_marked
from anabranch.services.controller.users import load
from anabranch.services.node.control import NodeControl, controlled
from anabranch.services.node.metrics import offered
from anabranch.services.node.service import NodeOptions, ServiceNode, running_node
from anabranch.services.planes.linux import LinuxPlane
from anabranch.services.planes.plane import Plane
from anabranch.services.planes.registration import Place
from anabranch.services.planes.switch import SwitchPlane
from anabranch.services.runtime import NodeRuntime, RuntimeSettings, run_id_of
from anabranch.services.tenancy import home_of

_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,31}")
_AT = re.compile(r"[^:\s]{1,64}:[0-9]{1,5}")


def add_serve_command(app: typer.Typer) -> None:
    """Add the command to ``anabranch module``."""
    app.command("serve")(serve)


@command
def serve(
    users: Annotated[
        Path, typer.Option(help="Who may install what: a file, see docs/protocols/services.md.")
    ],
    name: Annotated[
        str | None, typer.Option(help="This node's, unique on the machine; else the machine's.")
    ] = None,
    state: Annotated[Path, typer.Option(help="Where users' code, files and logs are kept.")] = Path(
        "/var/lib/anabranch/services"
    ),
    routability_port: Annotated[
        int, typer.Option(min=1, max=65535, help="Where addresses are asked for proof.")
    ] = 80,
    metrics: Annotated[
        str | None, typer.Option(help="Offer figures for Prometheus at ADDRESS:PORT.")
    ] = None,
    port: Annotated[
        str | None, typer.Option(help="The device that is cabled to a switch; else a router.")
    ] = None,
    at: Annotated[
        str | None, typer.Option(help="Where that is, as its controller says it: SWITCH:NUMBER.")
    ] = None,
    controller: Annotated[
        list[str] | None,
        typer.Option(help="A controller's API, http://ADDRESS:PORT or unix:PATH; once for each."),
    ] = None,
    token: Annotated[
        Path | None, typer.Option(help="File with this node's key; else ANABRANCH_TOKEN has it.")
    ] = None,
    stage: Annotated[
        str, typer.Option(help="Nodes of one stage share flows; stages are passed in turn.")
    ] = "",
    devices: Annotated[
        list[str] | None,
        typer.Option("--device", help="By which packets come; again for more. Without it: by all."),
    ] = None,
    control: Annotated[
        Path | None, typer.Option(help="A socket to make, on which its operator may ask it.")
    ] = None,
) -> None:
    """Take signed messages off the path and run the modules that they ask for, until Ctrl-C.

    On a router, or with --port, --at and --controller beside an OpenFlow switch.
    """
    node = name or re.sub("[^a-z0-9-]", "-", socket.gethostname().split(".")[0].lower())[:20]
    if not _NAME.fullmatch(node):
        raise UsageError(f"{node!r} names no node: up to 32 small letters, digits and hyphens")
    load(users)  # what is wrong with it is said before anything is made
    figures_at = None if metrics is None else _place(metrics)
    beside = Beside(port, at, tuple(controller or ()), token, stage)
    plane = _plane(node, tuple(devices or ()), beside)
    set_up_logs(LogConfig())
    serving = _Serving(node, users, state, routability_port, plane, figures_at, control)
    asyncio.run(serving.run())
    err.print("Every sandbox has ended; nothing is left but users' files.")


def _place(text: str) -> tuple[str, int]:
    """Read ``ADDRESS:PORT``; an IPv6 address stands in brackets."""
    address, _, port = text.rpartition(":")
    try:
        ip_address(address.strip("[]"))
        number = int(port)
    except ValueError:
        number = 0
    if not 0 < number < 65536:
        raise UsageError(f"{text!r} is no ADDRESS:PORT, as 127.0.0.1:9270 or [::1]:9270")
    return address.strip("[]"), number


@dataclass(frozen=True, slots=True)
class Beside:
    """What is said of the switch that a node is beside; nothing: it is a router."""

    port: str | None
    at: str | None
    controllers: tuple[str, ...]
    token: Path | None
    stage: str


def _plane(node: str, devices: tuple[str, ...], beside: Beside) -> Plane:
    if beside.port is None and beside.at is None and not beside.controllers:
        return LinuxPlane(node, devices=devices)
    if beside.port is None or beside.at is None or not beside.controllers:
        raise UsageError("beside a switch a node needs all of --port, --at and --controller")
    if devices:
        raise UsageError("beside a switch packets come by --port, not by --device")
    if not _AT.fullmatch(beside.at):
        raise UsageError(f"{beside.at!r} is no port of a switch: SWITCH:NUMBER, such as s1:7")
    place = Place(node, beside.at, beside.stage)
    return SwitchPlane(
        node, beside.port, place, controllers=beside.controllers, token=_token(beside.token)
    )


def _token(path: Path | None) -> str:
    if path is None:
        return os.environ.get("ANABRANCH_TOKEN", "")
    try:
        return path.read_text("ascii").strip()
    except (OSError, UnicodeError) as error:
        raise UsageError(f"{path}: {getattr(error, 'strerror', None) or error}") from None


@dataclass(frozen=True, slots=True)
class _Serving:
    """One node, from its beginning to its end."""

    name: str
    users: Path
    state: Path
    port: int
    plane: Plane
    figures_at: tuple[str, int] | None
    control: Path | None

    async def run(self) -> None:
        run_id = run_id_of(self.name)
        # One that was killed: its sandboxes end here, its links and rules as the plane opens.
        await asyncio.to_thread(end_marked, run_id)
        stop, loop = asyncio.Event(), asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, stop.set)
        runtime = NodeRuntime(RuntimeSettings(self.state, run_id), self.plane)
        options = NodeOptions(
            node_id=self.name, cache=self.state / "cache", routability_port=self.port
        )
        known = load(self.users)
        async with AsyncExitStack() as stack:
            stack.push_async_callback(runtime.close)
            await runtime.open()
            node = await stack.enter_async_context(running_node(options, known, runtime))
            loop.add_signal_handler(signal.SIGHUP, self._reload, node)
            if self.figures_at is not None:
                stack.enter_context(offered(*self.figures_at, node, runtime))
            if self.control is not None:
                control = NodeControl(node, runtime, partial(self._read_users, node), self._log_of)
                await stack.enter_async_context(controlled(control, self.control))
            err.print(f"Node [bold]{escape(self.name)}[/bold] for {len(known)} users. Stop: Ctrl-C")
            await stop.wait()

    def _read_users(self, node: ServiceNode) -> int:
        known = load(self.users)
        node.controller.set_users(known)
        return len(known)

    def _reload(self, node: ServiceNode) -> None:
        """On SIGHUP: who is in the file now; if that is no good, who was in it before."""
        try:
            err.print(f"There are {self._read_users(node)} users now.")
        except UsageError as error:
            err.print(f"[red]The users stay as they were:[/red] {escape(str(error))}")

    def _log_of(self, user: str) -> Path:
        return home_of(self.state, user).log
