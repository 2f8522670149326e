"""Ending tasks."""

import asyncio
from typing import Any


async def end_task(task: asyncio.Task[Any]) -> None:
    """Cancel a task and wait until it has ended; may be called again after it was cancelled itself.

    ``suppress(CancelledError)`` around ``await task`` would take the caller's own cancellation for
    the task's, and the caller would run on. And a task that cleans up is not cancelled twice.

    Raises:
        Exception: what the task ended with, if not with its cancellation.
    """
    if not task.cancelling():
        task.cancel()
    await asyncio.wait([task])
    if not task.cancelled():
        task.result()
