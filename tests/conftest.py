"""Nothing may be left behind: a test that leaks a task or a child process fails."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress

import psutil
import pytest
import structlog
from hypothesis import HealthCheck, settings

# How fast a busy machine makes examples, or runs them, says nothing about them.
settings.register_profile(
    "shared", settings.default, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("shared")


if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # So a job in the background is born, and what it starts is deaf to Ctrl-C, too.
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Keep the lab for root; everybody else is told so."""
    if os.geteuid() == 0:
        return
    for item in items:
        if item.get_closest_marker("lab"):
            item.add_marker(pytest.mark.skip(reason="the lab needs root"))


@pytest.fixture(autouse=True)
def logs_as_they_were(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A logger that keeps what one test has configured would escape what another captures."""
    configure = structlog.configure

    def uncached(**how: object) -> None:
        configure(**{**how, "cache_logger_on_first_use": False})  # type: ignore[arg-type]

    monkeypatch.setattr(structlog, "configure", uncached)
    yield
    structlog.reset_defaults()


@pytest.fixture(autouse=True)
def no_child_left() -> Iterator[None]:
    """Fail a test that leaves a child process of its own running."""
    me = psutil.Process()
    mine = {me.pid, *(parent.pid for parent in me.parents())}
    before = {child.pid for child in me.children(recursive=True)}
    yield
    left = [child for child in me.children(recursive=True) if is_new(child, before, mine)]
    _, alive = psutil.wait_procs(left, timeout=1.0)
    names = []
    for child in alive:
        with suppress(psutil.Error):
            names.append(" ".join(child.cmdline())[:80])
            child.kill()
    assert not names, f"left running: {names}"


def is_new(child: psutil.Process, before: set[int], mine: set[int]) -> bool:
    """What a longer-lived fixture starts meanwhile is that fixture's own, not the test's."""
    try:
        family = {child.pid, *(parent.pid for parent in child.parents())} - mine
    except psutil.Error:
        return False
    return before.isdisjoint(family)


@pytest.fixture(autouse=True)
async def no_task_left(request: pytest.FixtureRequest) -> AsyncIterator[None]:
    """Fail a test that leaves a task of its own behind."""
    yield
    await asyncio.sleep(0)
    if ending := asyncio.all_tasks() - {asyncio.current_task()}:
        await asyncio.wait(ending, timeout=1.0)
    left = [str(task.get_coro()) for task in ending if not task.done()]
    assert not left, f"tasks left: {left}"
