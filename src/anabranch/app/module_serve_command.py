"""``anabranch module serve``: this machine, a router, is a node that modules are installed on."""

import asyncio
import re
import signal
import socket
from contextlib import AsyncExitStack
from dataclasses import dataclass
from functools import partial
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
from anabranch.services.node.service import NodeOptions, ServiceNode, running_node
from anabranch.services.planes.linux import LinuxPlane
from anabranch.services.runtime import NodeRuntime, RuntimeSettings
from anabranch.services.tenancy import home_of

_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,31}")


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
    devices: Annotated[
        list[str] | None,
        typer.Option("--device", help="By which packets come; again for more. Without it: by all."),
    ] = None,
    control: Annotated[
        Path | None, typer.Option(help="A socket to make, on which its operator may ask it.")
    ] = None,
) -> None:
    """Take signed messages off the path and run the modules that they ask for, until Ctrl-C."""
    node = name or re.sub("[^a-z0-9-]", "-", socket.gethostname().split(".")[0].lower())[:20]
    if not _NAME.fullmatch(node):
        raise UsageError(f"{node!r} names no node: up to 32 small letters, digits and hyphens")
    load(users)  # what is wrong with it is said before anything is made
    set_up_logs(LogConfig())
    serving = _Serving(node, users, state, routability_port, tuple(devices or ()), control)
    asyncio.run(serving.run())
    err.print("Every sandbox has ended; nothing is left but users' files.")


@dataclass(frozen=True, slots=True)
class _Serving:
    """One node, from its beginning to its end."""

    name: str
    users: Path
    state: Path
    port: int
    devices: tuple[str, ...]
    control: Path | None

    async def run(self) -> None:
        run_id = f"services-{self.name}"
        # One that was killed: its sandboxes end here, its links and rules as the plane opens.
        await asyncio.to_thread(end_marked, run_id)
        stop, loop = asyncio.Event(), asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, stop.set)
        plane = LinuxPlane(self.name, devices=self.devices)
        runtime = NodeRuntime(RuntimeSettings(self.state, run_id), plane)
        options = NodeOptions(
            node_id=self.name, cache=self.state / "cache", routability_port=self.port
        )
        known = load(self.users)
        async with AsyncExitStack() as stack:
            stack.push_async_callback(runtime.close)
            await runtime.open()
            node = await stack.enter_async_context(running_node(options, known, runtime))
            loop.add_signal_handler(signal.SIGHUP, self._reload, node)
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
