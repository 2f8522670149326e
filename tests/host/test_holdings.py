"""Children that outlive a director which is killed, and the next one that takes them over."""

import asyncio
import os
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.waiting import until

from anabranch.core.names import new_id
from anabranch.host import holdings
from anabranch.host.holder import Tail
from anabranch.host.holdings import Holdings
from anabranch.host.process import RUN_MARK, Child, ChildSpec, ProcessError, end_marked, find_marked

ECHO = "import sys\nfor line in sys.stdin: print(line.strip()[::-1], flush=True)"
CHATTER = "import time\nwhile True: print('x' * 1000, flush=True); time.sleep(0.0005)"
SLEEP = "import time; time.sleep(60)"

FIRST = """
import asyncio, os, sys
from pathlib import Path
from anabranch.host import holdings
from anabranch.host.holdings import Holdings
from anabranch.host.process import RUN_MARK, Child, ChildSpec

async def main(run_id, path, code):
    kept = Holdings(Path(path), {**os.environ, RUN_MARK: run_id})
    with holdings.keeping(run_id, kept):
        child = Child(ChildSpec("it", (sys.executable, "-c", code), lasting=True), run_id)
        await child.start()
        holdings.note(run_id, "it", {"port": 5})
        print(child.pid, flush=True)
        await asyncio.sleep(0.1)
        os.kill(os.getpid(), 9)

asyncio.run(main(*sys.argv[1:]))
"""


class Run:
    """A run of directors, one after the other."""

    def __init__(self, directory: Path) -> None:
        self.id = new_id()
        self.path = directory / "holder.sock"

    def first_director(self, code: str) -> int:
        """Have a director start a child and be killed; return the child's process number."""
        words = (sys.executable, "-c", FIRST, self.id, str(self.path), code)
        done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=20)
        assert done.returncode == -signal.SIGKILL, done.stderr
        return int(done.stdout.split()[0])

    @asynccontextmanager
    async def next_director(self, *, finds: bool = True) -> AsyncIterator[Holdings]:
        made = Holdings(self.path, {**os.environ, RUN_MARK: self.id})
        assert await made.find() is finds
        with holdings.keeping(self.id, made):
            yield made
            await made.close()

    def child(self, code: str, lines: list[str] | None = None, *, restart: bool = True) -> Child:
        spec = ChildSpec("it", (sys.executable, "-c", code), restart=restart, lasting=True)
        heard = lines if lines is not None else []
        return Child(spec, self.id, on_line=lambda _stream, line: heard.append(line))


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Run]:
    made = Run(tmp_path)
    yield made
    left = end_marked(made.id)
    assert left == 0, f"{left} processes were left running"


async def test_a_child_is_taken_over_with_its_pipes_and_notes(run: Run) -> None:
    pid = run.first_director(ECHO)
    async with run.next_director() as kept:
        assert (kept.notes, kept.left()) == ({"it": {"port": 5}}, {"it": pid})
        lines: list[str] = []
        child = run.child(ECHO, lines)
        assert child.survives
        await child.start()
        assert (child.pid, child.adopted, child.survives) == (pid, True, False)
        assert child.write_line("abc")
        await until(lambda: "cba" in lines)
        child.kill()
        await until(lambda: child.pid not in (None, pid))
        assert not child.adopted
        await child.stop()
        assert len(find_marked(run.id)) == 1  # the holder


async def test_one_that_nobody_reads_is_not_held_up(run: Run) -> None:
    pid = run.first_director(CHATTER)
    process = psutil.Process(pid)
    before = process.num_ctx_switches().voluntary
    await asyncio.sleep(0.5)  # a pipe that nobody reads is full after 64 lines
    assert process.num_ctx_switches().voluntary > before + 100
    async with run.next_director():
        lines: list[str] = []
        child = run.child(CHATTER, lines)
        await child.start()
        await until(lambda: len(lines) > 200)
        assert set(lines[1:]) == {"x" * 1000}
        await child.stop()


async def test_another_kind_is_started_anew(run: Run) -> None:
    pid = run.first_director(SLEEP)
    async with run.next_director():
        child = run.child(ECHO)
        assert not child.survives
        await child.start()
        assert child.pid != pid
        assert not child.adopted
        assert not psutil.pid_exists(pid)
        await child.stop()


async def test_what_nobody_takes_over_is_ended(run: Run) -> None:
    pid = run.first_director(SLEEP)
    async with run.next_director() as kept:
        await kept.abandon_rest()
        assert not psutil.pid_exists(pid)
        assert kept.left() == {}


async def test_an_end_between_two_directors_is_told_with_its_last_words(run: Run) -> None:
    run.first_director("import time; time.sleep(0.5); print('bye'); exit(3)")
    await until(lambda: len(find_marked(run.id)) == 1)
    async with run.next_director():
        lines: list[str] = []
        codes: list[int] = []
        child = run.child(
            "import time; time.sleep(0.5); print('bye'); exit(3)", lines, restart=False
        )
        child._on_exit = codes.append
        await child.start()
        await child.wait()
        assert (lines, codes) == (["bye"], [3])


async def test_children_end_with_their_holder_and_come_back_with_another(run: Run) -> None:
    async with run.next_director(finds=False) as kept:
        child = run.child(SLEEP)
        await child.start()
        pid, holder = child.pid, kept.pid
        kept.note("key", [1])
        assert pid
        assert holder
        os.kill(holder, signal.SIGKILL)
        await until(lambda: child.pid not in (None, pid))
        assert {each.pid for each in find_marked(run.id)} == {child.pid, kept.pid}
        assert kept.pid not in (None, holder)
        await child.stop()
    assert find_marked(run.id) == []


async def test_a_command_that_does_not_exist_is_said(run: Run) -> None:
    async with run.next_director(finds=False):
        child = Child(ChildSpec("ghost", ("no-such-command",), lasting=True), run.id)
        with pytest.raises(ProcessError, match="no-such-command: No such file"):
            await child.start()


async def test_without_holdings_a_lasting_child_is_one_like_others(run: Run) -> None:
    child = run.child(SLEEP)
    assert not child.survives
    await child.start()
    assert not child.adopted
    assert len(find_marked(run.id)) == 1
    await child.stop()


async def test_a_socket_that_nobody_is_behind_is_no_holder(run: Run) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as stale:
        stale.bind(str(run.path))
    async with run.next_director(finds=False):
        child = run.child(SLEEP)
        await child.start()  # in its place
        await child.stop()


@given(st.lists(st.binary(max_size=50)))
def test_a_tail_has_the_last_whole_lines(chunks: list[bytes]) -> None:
    tail = Tail()
    for chunk in chunks:
        tail.feed(chunk)
    whole = b"".join(chunks).split(b"\n")[:-1]
    assert tail.take() == [line.decode(errors="replace") for line in whole][-40:]
    assert tail.take() == []
