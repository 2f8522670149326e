"""Migrations: every older store is brought forward whole, a newer one is left alone."""

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import Connection, create_engine, inspect, select, text
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool
from tests.store.postgresql import postgresql

from anabranch.core.events import Event
from anabranch.store import migrations
from anabranch.store.database import Base, ChannelRow, Database, StoreError

FIRST = [
    """CREATE TABLE channels (name VARCHAR(40) NOT NULL, title VARCHAR(120) NOT NULL,
        source VARCHAR(2000) NOT NULL, once BOOLEAN NOT NULL, key VARCHAR(80) NOT NULL,
        slot INTEGER NOT NULL, created {double} NOT NULL, PRIMARY KEY (name), UNIQUE (slot))""",
    """CREATE TABLE events (id {serial}, time {double} NOT NULL,
        kind VARCHAR(80) NOT NULL, subject VARCHAR(120) NOT NULL, data JSON NOT NULL,
        PRIMARY KEY (id))""",
    "CREATE INDEX ix_events_time ON events (time)",
    "CREATE INDEX ix_events_kind ON events (kind)",
    """CREATE TABLE callbacks (id VARCHAR(40) NOT NULL, url VARCHAR(2000) NOT NULL,
        secret VARCHAR(120) NOT NULL, encoding VARCHAR(10) NOT NULL, kinds JSON NOT NULL,
        created {double} NOT NULL, PRIMARY KEY (id), UNIQUE (url))""",
    """CREATE TABLE wishes (name VARCHAR(60) NOT NULL, document TEXT NOT NULL,
        written {double} NOT NULL, PRIMARY KEY (name))""",
    """INSERT INTO channels VALUES ('news', 'The news', 'rtmp', {false}, 'k1234567890', 1, 5.0)""",
    """INSERT INTO wishes VALUES ('operator', '{{}}', 6.0)""",
]
"""The schema of the version before there were migrations, as it made it, and something in it."""


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.lab)])
async def url(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[str]:
    if request.param == "sqlite":
        yield f"sqlite+aiosqlite:///{tmp_path}/store.db"
        return
    with postgresql() as server:
        yield server.store_url


async def run(url: str, *statements: str) -> None:
    engine = create_async_engine(url)
    async with engine.begin() as connection:
        for statement in statements:
            await connection.execute(text(statement))
    await engine.dispose()


async def make_first(url: str) -> None:
    is_sqlite = url.startswith("sqlite")
    how = {
        "serial": "INTEGER NOT NULL" if is_sqlite else "SERIAL NOT NULL",
        "double": "DOUBLE" if is_sqlite else "DOUBLE PRECISION",
        "false": "0" if is_sqlite else "false",
    }
    await run(url, *(statement.format(**how) for statement in FIRST))


async def differences(database: Database) -> list[object]:
    """Return how the store differs from what the program's tables say."""

    def compare(connection: Connection) -> list[object]:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        return list(compare_metadata(context, Base.metadata))

    async with database._engine.connect() as connection:
        return await connection.run_sync(compare)


async def revision(database: Database) -> str:
    async with database.transaction() as session:
        found: str = await session.scalar(text("SELECT version_num FROM alembic_version"))
        return found


async def test_a_new_store_has_the_tables_that_the_program_has(url: str) -> None:
    database = Database(url)
    await database.open()
    assert await differences(database) == []
    newest = await revision(database)
    await database.open()  # once more does nothing
    assert await revision(database) == newest
    await database.close()


async def test_a_store_from_before_migrations_is_brought_forward_with_all_in_it(url: str) -> None:
    await make_first(url)
    database = Database(url)
    await database.open()
    assert await differences(database) == []
    async with database.transaction() as session:
        (row,) = await session.scalars(select(ChannelRow))
        found = (row.name, row.key, row.slot, row.visibility, row.owner, row.once)
        assert found == ("news", "k1234567890", 1, "public", None, False)
        assert (await session.scalar(text("SELECT document FROM wishes"))) == "{}"
    await database.append_events([Event("a", "x")])
    await database.close()


async def test_a_store_from_before_migrations_is_opened_again_and_again(url: str) -> None:
    await make_first(url)
    for mark in ("", "0001"):  # as it was once left beside that of the newest revision
        if mark:
            await run(url, f"INSERT INTO alembic_version VALUES ('{mark}')")
        for _ in range(2):
            database = Database(url)
            await database.open()
            async with database._engine.connect() as connection:
                marks = await connection.execute(text("SELECT version_num FROM alembic_version"))
                assert len(marks.fetchall()) == 1
            await database.close()


async def test_a_store_of_a_newer_version_is_refused_and_left_alone(url: str) -> None:
    database = Database(url)
    await database.open()
    await database.close()
    await run(url, "UPDATE alembic_version SET version_num = '9999'", "DROP TABLE shares")
    database = Database(url)
    with pytest.raises(StoreError, match=r"newer version of Anabranch \(its schema is 9999"):
        await database.open()
    async with database._engine.connect() as connection:
        tables = await connection.run_sync(lambda c: inspect(c).get_table_names())
    assert "shares" not in tables
    assert await revision(database) == "9999"
    await database.close()


async def test_a_migration_that_fails_leaves_the_store_as_it_was(
    url: str,
) -> None:
    await make_first(url)
    # The second step makes this table: it fails after it has changed others.
    await run(url, "CREATE TABLE shares (x INTEGER)")
    database = Database(url)
    with pytest.raises(StoreError, match="shares"):
        await database.open()
    async with database._engine.connect() as connection:
        tables = await connection.run_sync(lambda c: inspect(c).get_table_names())
        columns = await connection.run_sync(lambda c: inspect(c).get_columns("channels"))
    assert sorted(tables) == ["callbacks", "channels", "events", "shares", "wishes"]
    assert "visibility" not in [column["name"] for column in columns]
    await run(url, "DROP TABLE shares")
    await database.open()
    assert await differences(database) == []
    await database.close()


async def test_two_that_open_a_new_store_at_once_both_have_it(url: str) -> None:
    both = [Database(url), Database(url)]
    await asyncio.gather(*(database.open() for database in both))
    assert await differences(both[0]) == []
    for database in both:
        await database.close()


def test_a_place_with_odd_signs_is_no_template(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    odd = tmp_path / "a%(b)s%d"
    odd.symlink_to(Path(migrations.__file__).parent)
    monkeypatch.setattr(migrations, "_HERE", odd)
    engine = create_engine(f"sqlite:///{tmp_path}/store.db", poolclass=NullPool)
    with engine.connect() as connection:
        migrations.bring_forward(connection)
        connection.commit()
    with closing(sqlite3.connect(tmp_path / "store.db")) as store:
        assert store.execute("SELECT * FROM channels").fetchall() == []
