"""Asks a service node what its operator wants to know: the other end is in ``control.py``."""

import asyncio
import json
from pathlib import Path
from typing import Any

from anabranch.core.errors import UnavailableError
from anabranch.services.errors import ServicesError

MAX_LINE = 1 << 20
PATIENCE_S = 10.0
Message = dict[str, Any]


class ControlError(ServicesError, UnavailableError):
    """A node does not answer on its control socket, or refuses."""


async def ask(path: Path, do: str, **what: Any) -> Message:
    """Ask a node something.

    Raises:
        ControlError: it does not answer, or refuses.
    """
    try:
        async with asyncio.timeout(PATIENCE_S):
            reader, writer = await asyncio.open_unix_connection(path, limit=MAX_LINE)
            try:
                writer.write(json.dumps({"do": do, **what}).encode() + b"\n")
                line = await reader.readline()
            finally:
                writer.close()
        answer = json.loads(line)
    except (OSError, ValueError, TimeoutError) as error:
        raise ControlError(f"the service node does not answer: {error or 'too late'}") from error
    if not isinstance(answer, dict):
        raise ControlError("the service node talks nonsense")
    if "error" in answer:
        raise ControlError(str(answer["error"]))
    return answer
