"""``anabranch fabric``: the network beneath the site, and a controller for any other."""

import asyncio
from pathlib import Path
from typing import Annotated

import typer

from anabranch.app.config_parts import LogConfig
from anabranch.app.fabric_commands import callbacks, network, paths
from anabranch.app.terminal import command

fabric_app = typer.Typer(
    no_args_is_help=True, help="The network beneath the site, and a controller for any other."
)
for part in (network.app, paths.app):
    fabric_app.add_typer(part)
fabric_app.add_typer(callbacks.app, name="callbacks")


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
