"""Groups of commands that are imported when they are asked for.

What they need (NumPy, an HTTP server) would cost every other command a fifth of its time.
"""

from importlib import import_module
from typing import Any

import typer
from typer.core import TyperGroup

_LATER = {
    "module": "anabranch.app.module_group",
    "provide": "anabranch.app.provide_commands",
}
"""By name the module that has it as ``group``."""


class LaterGroup(TyperGroup):
    """A group that knows further ones by their names alone."""

    def list_commands(self, ctx: Any) -> list[str]:
        return [*super().list_commands(ctx), *_LATER]

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        if cmd_name not in _LATER:
            return super().get_command(ctx, cmd_name)
        found = typer.main.get_command(import_module(_LATER[cmd_name]).group)
        found.name = cmd_name
        return found
