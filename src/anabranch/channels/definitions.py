"""Channel definitions: what an operator said of a channel, kept in the store."""

import time
from collections.abc import Callable, Collection
from dataclasses import dataclass

from sqlalchemy import delete, select

from anabranch.core.errors import ConflictError, NotFoundError, UsageError
from anabranch.core.names import check_name, new_key
from anabranch.store.database import ChannelRow, Database

MAX_CHANNELS = 1000
_MAX_TITLE = 120


@dataclass(frozen=True, slots=True)
class Definition:
    """A channel as defined.

    Attributes:
        name: its name in URLs.
        title: for people.
        source: where it comes from, as the operator wrote it, with a port filled in if it had
            none.
        once: a file plays once, not in a loop.
        key: the publisher's secret, for ways in that have one.
        slot: number that fixes its overlay addresses; unique in the site.
    """

    name: str
    title: str
    source: str
    once: bool
    key: str
    slot: int


class Definitions:
    """The channel definitions of a site, in the store."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def all(self) -> list[Definition]:
        """Return every definition, oldest first."""
        async with self._database.transaction() as session:
            rows = await session.scalars(select(ChannelRow).order_by(ChannelRow.slot))
            return [_definition(row) for row in rows]

    async def add(
        self,
        name: str,
        *,
        title: str | None,
        once: bool,
        key: str | None,
        settle: Callable[[Collection[Definition]], str],
    ) -> Definition:
        """Define a channel.

        ``settle(others)`` returns the source's final text once it knows the other channels
        (whose ports are taken); it may raise UsageError.

        Raises:
            UsageError: name, title, key or source are not allowed.
            ConflictError: the name is taken.
            StoreError: the store cannot be written; nothing has changed.
        """
        check_name(name)
        title = check_title(title or name)
        if key is not None and not (10 <= len(key) <= 79 and key.isascii() and key.isalnum()):
            raise UsageError("a key is 10 to 79 letters and digits")
        async with self._database.transaction() as session:
            rows = list(await session.scalars(select(ChannelRow)))
            if any(row.name == name for row in rows):
                raise ConflictError(f"there is a channel named {name} already")
            if len(rows) >= MAX_CHANNELS:
                raise UsageError(f"a site has at most {MAX_CHANNELS} channels")
            if key is not None and any(row.key == key for row in rows):
                raise ConflictError("another channel has this key")
            taken = {row.slot for row in rows}
            row = ChannelRow(
                name=name,
                title=title,
                source=settle([_definition(other) for other in rows]),
                once=once,
                key=key or new_key(),
                slot=next(slot for slot in range(1, MAX_CHANNELS + 1) if slot not in taken),
                created=time.time(),
            )
            session.add(row)
        return _definition(row)

    async def remove(self, name: str) -> None:
        """Remove a definition.

        Raises:
            NotFoundError: there is none of this name.
        """
        async with self._database.transaction() as session:
            done = await session.execute(
                delete(ChannelRow).where(ChannelRow.name == name).returning(ChannelRow.name)
            )
            if done.first() is None:
                raise NotFoundError(f"there is no channel named {name[:60]}")


def check_title(title: str) -> str:
    """Return ``title`` stripped.

    Raises:
        UsageError: it is empty, too long, or has control characters.
    """
    title = title.strip()
    if not title or len(title) > _MAX_TITLE or not title.isprintable():
        raise UsageError(f"a title is 1 to {_MAX_TITLE} printable characters")
    return title


def _definition(row: ChannelRow) -> Definition:
    return Definition(row.name, row.title, row.source, row.once, row.key, row.slot)
