"""Bringing a store forward to what this version needs; the steps are in ``versions``.

Alembic without its command line and configuration files: a site migrates its own store when it
opens it, in one transaction, so that a crash leaves it as it was.
"""

from pathlib import Path
from typing import Any

from sqlalchemy import Connection, inspect, text

# Alembic's imports take a tenth of a second, so only opening a store pays for them.

_HERE = Path(__file__).parent
_UNMARKED = "0001"
"""The revision of stores that were made before there were revisions."""
_LOCK = 0x616E6162  # "anab": two processes of one PostgreSQL store take turns


class NewerStoreError(Exception):
    """A newer version of Anabranch wrote this store; the message says so to its operator."""


def bring_forward(connection: Connection) -> None:
    """Make or change the tables; whoever calls commits.

    Raises:
        NewerStoreError: the store is of a version that this one does not know; it is unchanged.
        sqlalchemy.exc.SQLAlchemyError: it cannot be read or written.
    """
    from alembic.config import Config
    from alembic.runtime.environment import EnvironmentContext
    from alembic.script import ScriptDirectory

    _begin(connection)
    config = Config()
    config.set_main_option("script_location", str(_HERE).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    script = ScriptDirectory.from_config(config)

    if inspect(connection).has_table("alembic_version"):
        # Stores from before revisions once kept the mark 0001 beside that of their newest revision.
        connection.execute(
            text(
                "DELETE FROM alembic_version WHERE version_num <"
                " (SELECT max(version_num) FROM alembic_version)"
            )
        )

    def steps(present: Any, _context: Any) -> Any:
        known = {each.revision for each in script.walk_revisions()}
        (revision,) = present or (None,)
        if revision is not None and revision not in known:
            raise NewerStoreError(
                f"the store is of a newer version of Anabranch (its schema is {revision[:40]}, this"
                f" version knows up to {script.get_current_head()}): use that version, or a copy"
                " of the store from before"
            )
        if revision is None and "channels" in inspect(connection).get_table_names():
            # Both in one walk: who keeps the marks has counted them before.
            marks: list[Any] = script._stamp_revs(_UNMARKED, ())
            return [*marks, *script._upgrade_revs("head", _UNMARKED)]
        return script._upgrade_revs("head", present)

    with EnvironmentContext(config, script, fn=steps) as environment:
        environment.configure(connection=connection, transactional_ddl=True)
        environment.run_migrations()


def _begin(connection: Connection) -> None:
    """Begin the transaction that everything is in, and that nobody else is in."""
    if connection.dialect.name == "sqlite":
        # Python's driver begins by itself only before rows are changed, not before tables are.
        connection.execute(text("BEGIN IMMEDIATE"))
    elif connection.dialect.name == "postgresql":
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _LOCK})
