"""What the director answers, as a table or as JSON."""

import json
from collections.abc import Sequence
from typing import Any
from urllib.parse import quote

from rich.markup import escape
from rich.table import Table

from anabranch.app.client import Client
from anabranch.app.config import load_config
from anabranch.app.terminal import out


def ask(method: str, path: str, *, json: object = None) -> Any:
    """Ask the director about its network. Raises as :meth:`Client.request`."""
    return Client(load_config()).request(method, f"/api/fabric{path}", json=json)


def quoted(name: str) -> str:
    """Return a name as a part of a path."""
    return quote(name, safe="", errors="surrogateescape")


def show(
    answer: Any, rows: Sequence[tuple[str, ...]], head: tuple[str, ...], as_json: bool
) -> None:
    """Print ``rows``, or the answer itself."""
    if as_json:
        show_json(answer)
        return
    table = Table(*head, box=None)
    for row in rows:
        table.add_row(*map(escape, row))
    out.print(table if rows else "None.")


def show_json(answer: Any) -> None:
    """Print the answer itself."""
    out.print_json(json.dumps(answer))
