"""Ports as operators and manifests write them: numbers, and ranges with a hyphen."""

from collections.abc import Iterable
from typing import Any


def port_range(value: Any) -> range:
    """Read ``80``, ``"80"`` or ``"5060-5070"``.

    Raises:
        ValueError: it is none of these, or not from 1 to 65535.
    """
    if isinstance(value, range):
        return value
    first, _, last = str(value).partition("-")
    try:
        found = range(int(first), int(last or first) + 1)
    except ValueError:
        raise ValueError(f"{value!r} is no port or FIRST-LAST") from None
    if not found or found[0] < 1 or found[-1] > 65535:
        raise ValueError(f"{value!r} is no port or FIRST-LAST from 1 to 65535")
    return found


def written(ports: Iterable[int]) -> list[str]:
    """Write ports as briefly as can be: ``["80", "5060-5070"]``."""
    runs: list[list[int]] = []
    for port in sorted(set(ports)):
        if runs and runs[-1][1] == port - 1:
            runs[-1][1] = port
        else:
            runs.append([port, port])
    return [f"{first}-{last}" if last > first else str(first) for first, last in runs]
