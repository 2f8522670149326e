"""The lease between real processes, one of which is killed; and numbers that wrap around."""

import asyncio
import signal
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from anabranch.fabric.errors import FabricError, MisuseError
from anabranch.fabric.lease import FileLease, distance

NUMBERS = st.integers(0, 2**64 - 1)


@given(NUMBERS, st.integers(1, 2**63 - 1))
def test_later_is_ahead_also_where_numbers_wrap_around(generation: int, steps: int) -> None:
    later = (generation + steps) % 2**64
    assert distance(later, generation) == steps
    assert distance(generation, later) == -steps
    assert distance(generation, generation) == 0


@pytest.mark.parametrize(
    ("generation", "since", "ahead"),
    [(0, 2**64 - 1, 1), (2**63, 0, -(2**63)), (2**63 - 1, 0, 2**63 - 1), (5, 7, -2)],
)
def test_distance_is_that_of_the_specification(generation: int, since: int, ahead: int) -> None:
    assert distance(generation, since) == ahead


async def test_generations_only_grow(tmp_path: Path) -> None:
    path = tmp_path / "lease"
    for generation in (1, 2, 3):
        lease = FileLease(path)
        assert not lease.held
        assert await lease.acquire() == generation
        assert lease.held
        assert int(path.read_text()) == generation  # on disk before anybody is told
        lease.release()
        lease.release()
        assert not lease.held


async def test_a_check_changes_nothing_and_waits_for_nobody(tmp_path: Path) -> None:
    path = tmp_path / "lease"
    await FileLease(path).check()
    holder = FileLease(path)
    assert await holder.acquire() == 1
    await FileLease(path).check()
    assert int(path.read_text()) == 1
    holder.release()
    path.write_text("a letter")
    with pytest.raises(FabricError, match="is no lease: it holds 'a letter'"):
        await FileLease(path).check()
    with pytest.raises(FabricError, match="cannot use the lease"):
        await FileLease(tmp_path).check()


async def test_one_waits_for_the_other(tmp_path: Path) -> None:
    first, second = FileLease(tmp_path / "lease"), FileLease(tmp_path / "lease")
    assert await first.acquire() == 1
    with pytest.raises(MisuseError, match="held already"):
        await first.acquire()
    waiting = asyncio.create_task(second.acquire())
    await asyncio.sleep(0.12)
    assert not waiting.done()
    first.release()
    assert await asyncio.wait_for(waiting, 2) == 2
    second.release()


async def test_who_gives_up_waiting_leaves_no_trace(tmp_path: Path) -> None:
    first, second, third = (FileLease(tmp_path / "lease") for _ in range(3))
    await first.acquire()
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(second.acquire(), 0.1)
    first.release()
    assert await asyncio.wait_for(third.acquire(), 2) == 2
    third.release()


HOLDER = """
import asyncio, sys
from pathlib import Path
from anabranch.fabric.lease import FileLease

async def main():
    lease = FileLease(Path(sys.argv[1]))
    print(await lease.acquire(), flush=True)
    await asyncio.sleep(60)

asyncio.run(main())
"""


async def test_the_lease_of_a_killed_process_is_free(tmp_path: Path) -> None:
    path = tmp_path / "lease"
    holder = await asyncio.create_subprocess_exec(
        sys.executable, "-c", HOLDER, str(path), stdout=asyncio.subprocess.PIPE
    )
    try:
        assert holder.stdout is not None
        assert await asyncio.wait_for(holder.stdout.readline(), 10) == b"1\n"
        lease = FileLease(path)
        waiting = asyncio.create_task(lease.acquire())
        await asyncio.sleep(0.12)
        assert not waiting.done()
    finally:
        holder.send_signal(signal.SIGKILL)
        await holder.wait()
    assert await asyncio.wait_for(waiting, 2) == 2
    lease.release()


async def test_the_last_generation_is_followed_by_the_first(tmp_path: Path) -> None:
    path = tmp_path / "lease"
    path.write_text(str(2**64 - 1))
    lease = FileLease(path)
    assert await lease.acquire() == 0
    lease.release()
    assert await lease.acquire() == 1
    lease.release()


@pytest.mark.parametrize("content", [b"me", b"-1", b"1 2", b"\xff\xfe", b"9" * 21, "²".encode()])
async def test_a_file_of_something_else_is_left_alone(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "lease"
    path.write_bytes(content)
    lease = FileLease(path)
    with pytest.raises(FabricError, match="is no lease"):
        await lease.acquire()
    assert path.read_bytes() == content
    assert not lease.held


async def test_a_place_that_cannot_be_is_reported(tmp_path: Path) -> None:
    with pytest.raises(FabricError, match="cannot use the lease"):
        await FileLease(tmp_path / "no" / "where").acquire()
