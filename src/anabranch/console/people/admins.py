"""What admins do to accounts, one change after another, so that an admin is left whoever acts."""

import asyncio

from anabranch.console.people.caller import Caller
from anabranch.console.people.passwords import check_password
from anabranch.console.people.people import People
from anabranch.console.people.records import Account
from anabranch.console.people.roles import Role
from anabranch.core.errors import ConflictError


class Admins:
    """Changes and removes accounts.

    No account may take the last admin's role, its own included: two admins who remove each other at
    once would leave none. Whoever shows the operator's token may; that stays an admin itself.
    """

    def __init__(self, people: People) -> None:
        self._people = people
        self._turn = asyncio.Lock()

    async def change(
        self, caller: Caller, name: str, *, role: Role | None, password: str | None
    ) -> Account:
        """Give an account another role or password, or both; with None it keeps what it has.

        Raises:
            NotFoundError: there is no such account.
            ConflictError: it is the last admin.
            UsageError: the password is not good enough.
            StoreError: it cannot be kept.
        """
        async with self._turn:
            found = self._people.account(name)
            # All that may be refused comes before anything is changed.
            if password is not None:
                check_password(password, found.name)
            if role is not None and role is not Role.ADMIN:
                self._check_others(caller, found)
            if password is not None:
                found = await self._people.set_password(found, password)
            if role is not None:
                found = await self._people.set_role(found, role)
            return found

    async def remove(self, caller: Caller, name: str) -> None:
        """Remove an account; see :meth:`People.remove`.

        Raises:
            NotFoundError: there is no such account.
            ConflictError: it is the last admin.
            StoreError: it cannot be kept; nothing has changed.
        """
        async with self._turn:
            found = self._people.account(name)
            self._check_others(caller, found)
            await self._people.remove(found)

    def _check_others(self, caller: Caller, account: Account) -> None:
        if caller.account is None or account.role is not Role.ADMIN:
            return
        if not any(a.role is Role.ADMIN and a.id != account.id for a in self._people.accounts):
            raise ConflictError("the last admin stays one: make another first")
