"""``anabranch module serve``: this machine, a router, is a node that modules are installed on."""

import asyncio
import re
import signal
import socket
from collections.abc import Mapping
from contextlib import AsyncExitStack
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
from anabranch.services.controller.users import User, load
from anabranch.services.node.metrics import offered
from anabranch.services.node.service import NodeOptions, running_node
from anabranch.services.planes.linux import LinuxPlane
from anabranch.services.runtime import NodeRuntime, RuntimeSettings

_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,19}")


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
) -> None:
    """Take signed messages off the path and run the modules that they ask for, until Ctrl-C."""
    node = name or re.sub("[^a-z0-9-]", "-", socket.gethostname().split(".")[0].lower())[:20]
    if not _NAME.fullmatch(node):
        raise UsageError(f"{node!r} names no node: up to 20 small letters, digits and hyphens")
    known = load(users)
    figures_at = None if metrics is None else _place(metrics)
    set_up_logs(LogConfig())
    asyncio.run(_serve(node, known, state, routability_port, figures_at))
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


async def _serve(
    node: str, known: Mapping[str, User], state: Path, port: int, figures_at: tuple[str, int] | None
) -> None:
    run_id = f"services-{node}"
    # One that was killed: its sandboxes end here, its links and rules as the plane opens.
    await asyncio.to_thread(end_marked, run_id)
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    runtime = NodeRuntime(RuntimeSettings(state, run_id), LinuxPlane(node))
    options = NodeOptions(node_id=node, cache=state / "cache", routability_port=port)
    try:
        await runtime.open()
        async with AsyncExitStack() as stack:
            running = await stack.enter_async_context(running_node(options, known, runtime))
            if figures_at is not None:
                stack.enter_context(offered(*figures_at, running, runtime))
            err.print(f"Node [bold]{escape(node)}[/bold] for {len(known)} users. Stop: Ctrl-C")
            await stop.wait()
    finally:
        await runtime.close()
