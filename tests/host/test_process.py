"""Supervised children: restart, redaction, and no child left behind."""

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.waiting import until

from anabranch.core.names import new_id
from anabranch.host.process import (
    Backoff,
    Child,
    ChildSpec,
    ProcessError,
    end_marked,
    find_marked,
    redact,
    run_command,
)


@asynccontextmanager
async def child(code: str, **options: object) -> AsyncIterator[tuple[Child, list[str]]]:
    lines: list[str] = []
    spec = ChildSpec("test", (sys.executable, "-c", code), **options)  # type: ignore[arg-type]
    made = Child(spec, new_id(), on_line=lambda _stream, line: lines.append(line))
    await made.start()
    try:
        yield made, lines
    finally:
        await made.stop()
        assert not made.running


async def test_a_killed_child_comes_back() -> None:
    async with child("import time; time.sleep(60)") as (made, _):
        first = made.pid
        made.kill()
        await until(lambda: made.pid not in (None, first))
        assert made.restarts == 1


async def test_secrets_never_show() -> None:
    async with child("print('key is hunter2!')", secrets=("hunter2",), restart=False) as (made, ls):
        await made.wait()
        assert ls == ["key is ***!"]


async def test_lines_go_in_and_out() -> None:
    async with child("print(input()[::-1])", restart=False) as (made, lines):
        assert made.write_line("abc")
        await made.wait()
        assert lines == ["cba"]
        assert not made.write_line("too late")


async def test_a_flood_without_line_ends_is_survived() -> None:
    code = "import sys; sys.stdout.write('x' * 300_000 + '\\nend\\n')"
    async with child(code, restart=False) as (made, lines):
        await made.wait()
        assert lines[-1] == "end"


async def test_a_command_that_does_not_exist_is_said() -> None:
    made = Child(ChildSpec("ghost", ("no-such-command",)), new_id())
    with pytest.raises(ProcessError, match="no-such-command"):
        await made.start()


async def test_a_child_that_ignores_sigterm_is_killed() -> None:
    code = "import signal, time; signal.signal(15, signal.SIG_IGN); print(1, flush=True);"
    async with child(code + "time.sleep(60)", stop_timeout=0.2) as (made, lines):
        await until(lambda: lines)
        await made.stop()
        assert not made.running


async def test_who_is_cancelled_while_a_child_stops_ends_and_the_child_too() -> None:
    code = "import signal, time; signal.signal(15, signal.SIG_IGN); print(1, flush=True);"
    async with child(code + "time.sleep(60)", stop_timeout=0.5) as (made, lines):
        await until(lambda: lines)
        pid = made.pid
        stopping = asyncio.create_task(made.stop())
        await asyncio.sleep(0.1)
        stopping.cancel()
        with pytest.raises(asyncio.CancelledError):
            await stopping
        await made.stop()
        assert made.pid is None
        assert not psutil.pid_exists(pid)


async def test_children_are_found_by_their_mark_alone() -> None:
    run_id = new_id()
    made = Child(ChildSpec("orphan", ("sleep", "60"), restart=False), run_id)
    await made.start()
    assert [process.pid for process in find_marked(run_id)] == [made.pid]
    assert await asyncio.to_thread(end_marked, run_id) == 1
    await made.wait()
    assert find_marked(run_id) == []
    await made.stop()


async def test_a_failing_command_tells_its_last_line() -> None:
    with pytest.raises(ProcessError, match="no such thing"):
        await run_command("sh", "-c", "echo first >&2; echo no such thing >&2; exit 3")


@given(st.lists(st.floats(0, 20), min_size=1, max_size=30))
def test_backoff_stays_within_its_bounds(lives: list[float]) -> None:
    backoff = Backoff(0.05, 5.0, 10.0)
    for lived in lives:
        assert 0.05 <= backoff.delay(lived) <= 5.0
    assert backoff.delay(10.0) == 0.05


@given(st.text(), st.text(min_size=1).filter(lambda secret: "\0" not in secret))
def test_redaction_leaves_no_secret(text: str, secret: str) -> None:
    if secret not in "***":
        assert secret not in redact(text + secret + text, (secret,)).replace("***", "\0")
