"""Channel definitions: what was said of a channel, kept in the store."""

import time
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from enum import Enum
from typing import Literal, cast

from sqlalchemy import delete, select

from anabranch.core.errors import ConflictError, NotFoundError, UsageError
from anabranch.core.names import check_name, new_key
from anabranch.store.database import ChannelRow, Database
from anabranch.store.people_rows import GrantRow, ShareRow

Visibility = Literal["public", "unlisted", "private"]
MAX_CHANNELS = 1000
_MAX_TITLE = 120
_MAX_NOW = 160


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
        visibility: whether it is listed and watched by everybody, watched by whoever knows its
            name, or there for its audience only.
        owner: identifier of the account that it belongs to, if any.
        now: what is on, for people; may be empty.
    """

    name: str
    title: str
    source: str
    once: bool
    key: str
    slot: int
    visibility: Visibility = "public"
    owner: str | None = None
    now: str = ""


class Same(Enum):
    """What stays as it is, where None is a value."""

    SAME = "same"


SAME = Same.SAME


@dataclass(frozen=True, slots=True)
class Change:
    """What is to be otherwise about a channel; None, or SAME: it stays as it is."""

    title: str | None = None
    source: str | None = None
    once: bool | None = None
    key: str | None = None
    visibility: Visibility | None = None
    owner: str | Same | None = SAME
    now: str | None = None

    def of(self, before: Definition) -> Definition:
        """Return the definition as it becomes, but for its source, which is to be settled.

        Raises:
            UsageError: the title, or what is on, is not allowed.
        """
        return replace(
            before,
            title=before.title if self.title is None else check_title(self.title),
            once=before.once if self.once is None else self.once,
            key=self.key or before.key,
            visibility=self.visibility or before.visibility,
            owner=before.owner if self.owner is SAME else self.owner,
            now=before.now if self.now is None else check_now(self.now),
        )


Settle = Callable[[Collection[Definition]], str]
"""Returns a source's final text once it is told of the other channels, whose ports are taken."""


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
        settle: Settle,
        visibility: Visibility = "public",
        owner: str | None = None,
        most: int | None = None,
    ) -> Definition:
        """Define a channel.

        ``settle`` may raise UsageError. ``most`` is how many channels the owner may have.

        Raises:
            UsageError: name, title, key or source are not allowed.
            ConflictError: the name is taken, or the owner has as many channels as it may.
            StoreError: the store cannot be written; nothing has changed.
        """
        check_name(name)
        title = check_title(title or name)
        if key is not None:
            check_key(key)
        async with self._database.transaction() as session:
            rows = list(await session.scalars(select(ChannelRow)))
            if any(row.name == name for row in rows):
                raise ConflictError(f"there is a channel named {name} already")
            if len(rows) >= MAX_CHANNELS:
                raise UsageError(f"a site has at most {MAX_CHANNELS} channels")
            if key is not None and any(row.key == key for row in rows):
                raise ConflictError("another channel has this key")
            if most is not None and sum(row.owner == owner for row in rows) >= most:
                raise ConflictError(f"an account has at most {most} channels")
            taken = {row.slot for row in rows}
            row = ChannelRow(
                name=name,
                title=title,
                source=settle([_definition(other) for other in rows]),
                once=once,
                key=key or new_key(),
                slot=next(slot for slot in range(1, MAX_CHANNELS + 1) if slot not in taken),
                created=time.time(),
                visibility=visibility,
                owner=owner,
            )
            session.add(row)
        return _definition(row)

    async def change(
        self, name: str, change: Change, settle: Settle | None = None
    ) -> tuple[Definition, Definition]:
        """Change a definition, whole or not at all; return what it was and what it is.

        ``settle`` is for another source than before; None: it stays what it is.

        Raises:
            NotFoundError: there is none of this name.
            UsageError: title, key or source are not allowed.
            ConflictError: another channel has the key.
            StoreError: the store cannot be written; nothing has changed.
        """
        if change.key is not None:
            check_key(change.key)
        async with self._database.transaction() as session:
            rows = {row.name: row for row in await session.scalars(select(ChannelRow))}
            row = rows.pop(name, None)
            if row is None:
                raise NotFoundError(f"there is no channel named {name[:60]!r}")
            if change.key is not None and any(other.key == change.key for other in rows.values()):
                raise ConflictError("another channel has this key")
            before = _definition(row)
            after = change.of(before)
            if settle is not None:
                others = [_definition(other) for other in rows.values()]
                after = replace(after, source=settle(others))
            _write(row, after)
        return before, after

    async def put_back(self, definition: Definition) -> None:
        """Have a channel be defined as it was before :meth:`change`.

        Raises:
            StoreError: the store cannot be written.
        """
        async with self._database.transaction() as session:
            row = await session.get(ChannelRow, definition.name)
            if row is not None:
                _write(row, definition)

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
            # Whoever was let in to this channel is not let in to the next one of its name.
            await session.execute(delete(GrantRow).where(GrantRow.channel == name))
            await session.execute(delete(ShareRow).where(ShareRow.channel == name))


def check_key(key: str) -> str:
    """Return ``key`` if it may be a publisher's.

    Raises:
        UsageError: it may not.
    """
    if not (10 <= len(key) <= 79 and key.isascii() and key.isalnum()):
        raise UsageError("a key is 10 to 79 letters and digits")
    return key


def check_now(text: str) -> str:
    """Return what is on, stripped.

    Raises:
        UsageError: it is too long, or has control characters.
    """
    text = text.strip()
    if len(text) > _MAX_NOW or not text.isprintable():
        raise UsageError(f"what is on is told in at most {_MAX_NOW} printable characters")
    return text


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
    return Definition(
        row.name,
        row.title,
        row.source,
        row.once,
        row.key,
        row.slot,
        cast(Visibility, row.visibility),
        row.owner,
        row.now,
    )


def _write(row: ChannelRow, definition: Definition) -> None:
    row.title, row.source, row.once = definition.title, definition.source, definition.once
    row.key, row.visibility, row.owner = definition.key, definition.visibility, definition.owner
    row.now = definition.now
