"""The store: whole transactions, plain errors, SQLite and a real PostgreSQL alike."""

import os
import shutil
import stat
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from sqlalchemy import select
from tests.store.postgresql import postgresql

from anabranch.core.errors import ConflictError
from anabranch.core.events import Event
from anabranch.store.database import ChannelRow, Database, StoreError


def row(name: str, slot: int, title: str = "") -> ChannelRow:
    return ChannelRow(
        name=name, title=title, source="test", once=False, key="k", slot=slot, created=0.0
    )


async def write(database: Database, *rows: ChannelRow) -> None:
    async with database.transaction() as session:
        session.add_all(rows)


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.lab)])
async def database(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Database]:
    if request.param == "sqlite":
        made = Database(f"sqlite+aiosqlite:///{tmp_path}/store.db")
        await made.open()
        yield made
        await made.close()
        return
    with postgresql() as server:
        made = Database(server.store_url)
        await made.open()
        yield made
        await made.close()


async def test_what_is_written_is_read_and_conflicts_change_nothing(database: Database) -> None:
    async with database.transaction() as session:
        session.add(row("one", 1))
    with pytest.raises(ConflictError):
        await write(database, row("two", 2), row("three", 1))  # taken: neither may stay
    async with database.transaction() as session:
        names = list(await session.scalars(select(ChannelRow.name)))
    assert names == ["one"]


async def test_events_come_back_newest_first_and_are_forgotten(database: Database) -> None:
    await database.append_events([Event("a", "x", {"n": 1}, 5.0), Event("b", "y")])
    assert [event.kind for event in await database.recent_events()] == ["b", "a"]
    assert (await database.recent_events())[1].data == {"n": 1}
    await database.forget_events(older_than_s=1000)
    assert [event.kind for event in await database.recent_events()] == ["b"]


async def test_a_store_that_cannot_be_opened_says_why(tmp_path: Path) -> None:
    database = Database(f"sqlite+aiosqlite:///{tmp_path}/no/such/place.db")
    with pytest.raises(StoreError, match="unable to open"):
        await database.open()
    await database.close()


@pytest.mark.parametrize("umask", [0o022, 0o000])
async def test_a_file_is_its_owners_alone_whatever_was_before(tmp_path: Path, umask: int) -> None:
    file = tmp_path / "store.db"
    before = os.umask(umask)
    try:
        for _ in range(2):
            database = Database(f"sqlite+aiosqlite:///{file}")
            await database.open()
            await write(database, row(f"c{_}", _))
            modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()}
            assert modes == dict.fromkeys(("store.db", "store.db-wal", "store.db-shm"), 0o600)
            await database.close()
            file.chmod(0o644)  # as one that an earlier version made
    finally:
        os.umask(before)


@pytest.mark.lab
async def test_a_full_disk_is_an_error_and_loses_nothing(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "none", str(disk)], check=True)
    try:
        database = Database(f"sqlite+aiosqlite:///{disk}/store.db")
        await database.open()
        async with database.transaction() as session:
            session.add(row("kept", 1))
        many = [row(f"c{slot}", slot, title="x" * 100) for slot in range(2, 5000)]
        with pytest.raises(StoreError, match=r"full|I/O"):
            await write(database, *many)
        async with database.transaction() as session:
            names = set(await session.scalars(select(ChannelRow.name)))
        assert names == {"kept"}
        await database.close()
        check = shutil.which("sqlite3")
        if check:
            out = subprocess.run(
                [check, str(disk / "store.db"), "pragma integrity_check"],
                capture_output=True,
                text=True,
                check=True,
            ).stdout
            assert out.strip() == "ok"
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=True)


def test_the_lab_runs_as_root() -> None:
    """CI runs as root: there the lab tests must not be skipped silently."""
    assert os.environ.get("CI") != "true" or os.geteuid() == 0
