"""``anabranch module``: to write, sign, send and look after modules."""

import typer

from anabranch.app.module_commands import add_module_commands
from anabranch.app.module_send_commands import add_send_commands
from anabranch.app.module_serve_command import add_serve_command

group = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    help="Services in the network: modules on the nodes along a path.",
)
add_module_commands(group)
add_send_commands(group)
add_serve_command(group)
