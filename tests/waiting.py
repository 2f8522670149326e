"""Waiting for what happens elsewhere: in another task, thread, process or machine."""

import asyncio
import inspect
import time
from collections.abc import Awaitable, Callable

_WHAT = "it did not happen in time"


async def until(
    condition: Callable[[], object | Awaitable[object]],
    what: str = _WHAT,
    *,
    limit_s: float = 60.0,
    every_s: float = 0.005,
) -> float:
    """Wait until a condition is true; return the seconds that it took."""
    began = time.monotonic()
    while True:
        found = condition()
        if inspect.isawaitable(found):
            found = await found
        waited = time.monotonic() - began
        if found:
            return waited
        assert waited < limit_s, what
        await asyncio.sleep(every_s)


def wait_until(
    condition: Callable[[], object], what: str = _WHAT, *, limit_s: float = 60.0
) -> float:
    """Block until a condition is true; return the seconds that it took."""
    began = time.monotonic()
    while not condition():
        assert time.monotonic() - began < limit_s, what
        time.sleep(0.05)
    return time.monotonic() - began
