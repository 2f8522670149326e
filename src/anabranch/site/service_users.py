"""Who may install modules on the site's nodes: users in the store, and those of a file."""

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sqlalchemy import delete, select

from anabranch.core.errors import ConflictError, NotFoundError
from anabranch.services.controller.users import User, load, parse_document
from anabranch.store.database import Database
from anabranch.store.rows import ServiceUserRow


class ServiceUsers:
    """The users.

    Args:
        file: users that an operator wrote down (docs/protocols/services.md); None: there is none.
            Those of the file cannot be changed here, and come before those of the store.
    """

    def __init__(self, database: Database, file: Path | None = None) -> None:
        self._database = database
        self._file = file
        self._of_file: dict[str, User] = {}
        self._of_store: dict[str, User] = {}

    async def load(self) -> None:
        """Read them.

        Raises:
            UsersError: there is something wrong with the file.
            StoreError: the store cannot be read.
        """
        self._of_file = {} if self._file is None else load(self._file)
        async with self._database.transaction() as session:
            rows = await session.scalars(select(ServiceUserRow))
            documents = [{"name": row.name, **row.document} for row in rows]
        self._of_store = parse_document({"users": documents})

    @property
    def all(self) -> Mapping[str, User]:
        """Every user by name."""
        return dict(sorted({**self._of_store, **self._of_file}.items()))

    def in_file(self, name: str) -> bool:
        """Whether a user is of the file, and so not to be changed here."""
        return name in self._of_file

    async def put(self, name: str, document: Mapping[str, Any]) -> User:
        """Add a user, or replace one.

        Raises:
            UsersError: something about it cannot be.
            ConflictError: there is one of that name in the file, or two would have one address.
            StoreError: it cannot be kept.
        """
        user = parse_document({"users": [{**document, "name": name}]})[name]
        if self.in_file(name):
            raise ConflictError(f"{name} is written in {self._file}: change it there")
        for other in self.all.values():
            shared = {other.address, other.address6} & {user.address, user.address6} - {None}
            if other.name != name and shared:
                raise ConflictError(f"{other.name} has the address {shared.pop()} already")
        kept = user.document()
        kept.pop("name")
        async with self._database.transaction() as session:
            await session.execute(delete(ServiceUserRow).where(ServiceUserRow.name == name))
            session.add(ServiceUserRow(name=name, document=kept, created=time.time()))
        self._of_store[name] = user
        return user

    async def remove(self, name: str) -> None:
        """Remove a user; its modules stay until their time is over.

        Raises:
            ConflictError: it is one of the file's.
            NotFoundError: there is none of that name.
            StoreError: it cannot be removed.
        """
        if self.in_file(name):
            raise ConflictError(f"{name} is written in {self._file}: remove it there")
        if name not in self._of_store:
            raise NotFoundError(f"there is no user of services named {name[:60]!r}")
        async with self._database.transaction() as session:
            await session.execute(delete(ServiceUserRow).where(ServiceUserRow.name == name))
        del self._of_store[name]
