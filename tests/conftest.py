"""Nothing may be left behind: a test that leaks a task or a child process fails."""

import asyncio
import os
from collections.abc import AsyncIterator, Iterator

import psutil
import pytest


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Keep the lab for root; everybody else is told so."""
    if os.geteuid() == 0:
        return
    for item in items:
        if item.get_closest_marker("lab"):
            item.add_marker(pytest.mark.skip(reason="the lab needs root"))


@pytest.fixture(autouse=True)
def no_child_left() -> Iterator[None]:
    """Fail a test that leaves a child process of its own running."""
    me = psutil.Process()
    before = {child.pid for child in me.children(recursive=True)}
    yield
    left = [child for child in me.children(recursive=True) if child.pid not in before]
    _, alive = psutil.wait_procs(left, timeout=1.0)
    # Helpers of libraries that end with the interpreter: pyroute2 and multiprocessing.
    alive = [child for child in alive if "resource_tracker" not in " ".join(child.cmdline())]
    names = [" ".join(child.cmdline())[:80] for child in alive]
    for child in alive:
        child.kill()
    assert not names, f"left running: {names}"


@pytest.fixture(autouse=True)
async def no_task_left(request: pytest.FixtureRequest) -> AsyncIterator[None]:
    """Fail a test that leaves a task of its own behind."""
    yield
    await asyncio.sleep(0)
    left = [
        task.get_name()
        for task in asyncio.all_tasks()
        if task is not asyncio.current_task() and not task.done()
    ]
    assert not left, f"tasks left: {left}"
