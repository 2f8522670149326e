"""The lease in a real PostgreSQL: between sessions, processes, and across a wire that is cut."""

import asyncio
import signal
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import psycopg
import pytest
from structlog.testing import capture_logs
from tests.store.postgresql import PASSWORD, Server, postgresql

from anabranch.core.errors import UsageError
from anabranch.store.database import StoreError
from anabranch.store.lease import SILENCE_S, DatabaseLease

pytestmark = pytest.mark.lab
PATIENCE = 30


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with postgresql() as made:
        yield made


@pytest.fixture
def name(request: pytest.FixtureRequest) -> str:
    """A lease of each test's own."""
    return str(abs(hash(request.node.name)))[:12]


class Wire:
    """A TCP wire to the server that can be cut without either end hearing of it."""

    def __init__(self, port: int) -> None:
        self._target = port
        self._tasks: set[asyncio.Task[None]] = set()
        self.whole = asyncio.Event()
        self.whole.set()

    async def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._target)
        for source, sink in ((reader, far_writer), (far_reader, writer)):
            self._tasks.add(asyncio.create_task(self._carry(source, sink)))

    async def _carry(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        try:
            while data := await source.read(65536):
                await self.whole.wait()
                sink.write(data)
        except OSError:
            pass
        finally:
            sink.close()

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


@asynccontextmanager
async def wire_to(server: Server) -> AsyncIterator[tuple[Wire, int]]:
    wire = Wire(server.port)
    listener = await asyncio.start_server(wire.accept, "127.0.0.1", 0)
    try:
        yield wire, listener.sockets[0].getsockname()[1]
    finally:
        listener.close()
        await wire.close()


async def test_generations_only_grow_and_leases_of_other_names_are_others(
    server: Server, name: str
) -> None:
    for generation in (1, 2, 3):
        lease, other = DatabaseLease(server.url(), name), DatabaseLease(server.url(), name + "b")
        await lease.check()
        assert not lease.held
        assert await lease.acquire() == generation
        assert await other.acquire() == generation
        assert lease.held
        for each in (lease, other, lease):
            each.release()
        assert not lease.held
    with psycopg.connect(server.url()) as connection:
        rows = connection.execute(
            "SELECT generation FROM controller_leases WHERE name = %s", [name]
        )
        assert rows.fetchall() == [(3,)]


async def test_the_second_waits_for_the_first(server: Server, name: str) -> None:
    first, second = DatabaseLease(server.url(), name), DatabaseLease(server.url(), name)
    assert await first.acquire() == 1
    keeping = asyncio.create_task(first.keep())
    await second.check()  # waits for nobody
    waiting = asyncio.create_task(second.acquire())
    await asyncio.sleep(SILENCE_S + 0.5)
    assert first.held, "it is kept for longer than any term"
    assert not waiting.done()
    keeping.cancel()
    with pytest.raises(asyncio.CancelledError):
        await keeping
    assert await asyncio.wait_for(waiting, PATIENCE) == 2
    second.release()


HOLDER = """
import asyncio, sys
from anabranch.store.lease import DatabaseLease
async def main():
    lease = DatabaseLease(sys.argv[1], sys.argv[2])
    print(await lease.acquire(), flush=True)
    await lease.keep()
asyncio.run(main())
"""


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP])
async def test_whoever_dies_or_hangs_gives_it_up(
    server: Server, name: str, how: signal.Signals
) -> None:
    holder = await asyncio.create_subprocess_exec(
        sys.executable, "-c", HOLDER, server.url(), name, stdout=asyncio.subprocess.PIPE
    )
    lease = DatabaseLease(server.url(), name)
    try:
        assert holder.stdout is not None
        assert await asyncio.wait_for(holder.stdout.readline(), PATIENCE) == b"1\n"
        holder.send_signal(how)
        assert await asyncio.wait_for(lease.acquire(), PATIENCE) == 2
    finally:
        lease.release()
        if holder.returncode is None:
            holder.kill()
        await holder.wait()


async def test_whoever_is_cut_off_steps_down_before_another_can_have_it(
    server: Server, name: str
) -> None:
    async with wire_to(server) as (wire, port):
        first, second = DatabaseLease(server.url(port), name), DatabaseLease(server.url(), name)
        assert await first.acquire() == 1
        keeping = asyncio.create_task(first.keep())

        async def take_over() -> tuple[int, bool]:
            return await second.acquire(), first.held

        waiting = asyncio.create_task(take_over())
        await asyncio.sleep(1)
        assert not waiting.done()
        wire.whole.clear()
        assert await asyncio.wait_for(keeping, PATIENCE) == "the database does not answer"
        assert await asyncio.wait_for(waiting, PATIENCE) == (2, False)
        again = asyncio.create_task(first.acquire())
        wire.whole.set()
        await asyncio.sleep(0.5)
        assert not again.done()
        second.release()
        assert await asyncio.wait_for(again, PATIENCE) == 3
        first.release()


async def test_a_server_that_restarts_is_waited_for() -> None:
    with postgresql() as server:
        lease = DatabaseLease(server.url(), "main")
        assert await lease.acquire() == 1
        keeping = asyncio.create_task(lease.keep())
        server.stop()
        assert "clos" in await asyncio.wait_for(keeping, PATIENCE)
        with capture_logs() as logs:
            again = asyncio.create_task(lease.acquire())
            await asyncio.sleep(1.2)
            server.start()
            assert await asyncio.wait_for(again, PATIENCE) == 2
        lease.release()
        assert [entry["event"] for entry in logs] == ["lease.unreachable"], "told once"
        assert PASSWORD not in str(logs)


async def test_what_cannot_be_is_said_without_the_password(server: Server) -> None:
    wrong = server.url().replace("s3cret", "wrong")
    with pytest.raises(
        StoreError, match=r"cannot use the lease: .*authentication failed"
    ) as caught:
        await DatabaseLease(wrong, "main").check()
    assert "wrong" not in str(caught.value)
    closed = f"postgresql://me:{'hush' * 3}@127.0.0.1:1/none"
    with pytest.raises(StoreError, match="cannot use the lease") as caught:
        await DatabaseLease(closed, "main").check()
    assert "hush" not in str(caught.value)
    with pytest.raises(UsageError, match="a lease is a file or postgresql://") as misuse:
        DatabaseLease("postgresql://me:hush@host:port/none?colour=red", "main")
    assert "hush" not in str(misuse.value)
    assert misuse.value.__cause__ is None
    assert misuse.value.__suppress_context__


async def test_a_table_that_may_not_be_written_is_said_at_once() -> None:
    with postgresql() as server:
        with psycopg.connect(server.url(), autocommit=True) as connection:
            connection.execute("CREATE ROLE guest LOGIN PASSWORD 'guest'")
        guest = f"postgresql://guest:guest@127.0.0.1:{server.port}/postgres"
        with pytest.raises(StoreError, match="the table controller_leases may not be written"):
            await DatabaseLease(guest, "main").check()
