"""Whom channels that are not for everybody are for: accounts that were let in, and share links.

All of it is in memory, too, so that every request can be judged without the store: one process
serves a site. A change is in the store before it counts.
"""

import time
from collections.abc import Collection
from dataclasses import dataclass, replace

from sqlalchemy import delete, select, update

from anabranch.core.errors import ConflictError, NotFoundError, UsageError
from anabranch.core.names import new_id
from anabranch.core.secret_tokens import draw, hash_of
from anabranch.store.database import Database
from anabranch.store.people_rows import GrantRow, ShareRow

PREFIX = "abs_"
MAX_SHARES = 100
MAX_GRANTS = 10_000
_MAX_NAME = 60
_NOTE_S = 300.0
"""Seconds between two notes in the store that something is in use."""


@dataclass(frozen=True, slots=True)
class Share:
    """A link by which anybody may watch one channel.

    Attributes:
        secret: SHA-256 of what the link holds.
        created, expires, used: seconds since the epoch; None: never.
    """

    id: str
    channel: str
    name: str
    secret: str
    created: float
    expires: float | None
    used: float | None = None

    def is_over(self, now: float) -> bool:
        return self.expires is not None and self.expires <= now


class Audience:
    """Who was let in to which channel."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._grants: dict[str, set[str]] = {}
        self._shares: dict[str, Share] = {}

    async def load(self) -> None:
        """Read what the store has.

        Raises:
            StoreError: it cannot be read.
        """
        async with self._database.transaction() as session:
            grants = list(await session.scalars(select(GrantRow)))
            shares = list(await session.scalars(select(ShareRow)))
        self._grants = {}
        for grant in grants:
            self._grants.setdefault(grant.channel, set()).add(grant.account)
        self._shares = {
            row.secret: Share(
                row.id, row.channel, row.name, row.secret, row.created, row.expires, row.used
            )
            for row in shares
        }

    # --- accounts -----------------------------------------------------------------------------

    def has(self, channel: str, account: str) -> bool:
        """Say whether an account was let in."""
        return account in self._grants.get(channel, ())

    def accounts(self, channel: str) -> Collection[str]:
        """Return the accounts that were let in, by identifier."""
        return frozenset(self._grants.get(channel, ()))

    async def let_in(self, channel: str, account: str) -> None:
        """Let an account watch a channel; once more changes nothing.

        Raises:
            ConflictError: that many were let in.
            StoreError: it cannot be kept; nothing has changed.
        """
        if self.has(channel, account):
            return
        if len(self._grants.get(channel, ())) >= MAX_GRANTS:
            raise ConflictError(f"at most {MAX_GRANTS} accounts are let in to a channel")
        async with self._database.transaction() as session:
            await session.merge(GrantRow(channel=channel, account=account))
        self._grants.setdefault(channel, set()).add(account)

    async def put_out(self, channel: str, account: str) -> None:
        """Take back what :meth:`let_in` gave.

        Raises:
            NotFoundError: it was not let in.
            StoreError: it cannot be kept; nothing has changed.
        """
        if not self.has(channel, account):
            raise NotFoundError("this account was not let in")
        async with self._database.transaction() as session:
            await session.execute(
                delete(GrantRow).where(GrantRow.channel == channel, GrantRow.account == account)
            )
        self._grants[channel].discard(account)

    # --- links --------------------------------------------------------------------------------

    def shares(self, channel: str) -> list[Share]:
        """Return the links to a channel that are good now, oldest first."""
        now = time.time()
        found = [s for s in self._shares.values() if s.channel == channel and not s.is_over(now)]
        return sorted(found, key=lambda share: (share.created, share.id))

    async def share(
        self, channel: str, *, name_of_link: str = "", lifetime_s: float | None
    ) -> tuple[Share, str]:
        """Draw a link; return it with its secret, which is told once.

        Raises:
            UsageError: the name is not allowed.
            ConflictError: the channel has as many links as it may.
            StoreError: it cannot be kept; there is no link.
        """
        name = name_of_link.strip()
        if len(name) > _MAX_NAME or not name.isprintable():
            raise UsageError(f"a link's name is at most {_MAX_NAME} printable characters")
        await self._forget_old()
        if len(self.shares(channel)) >= MAX_SHARES:
            raise ConflictError(f"a channel has at most {MAX_SHARES} share links: revoke some")
        now = time.time()
        secret = draw(PREFIX)
        expires = None if lifetime_s is None else now + lifetime_s
        share = Share(new_id(), channel, name, hash_of(secret), now, expires)
        async with self._database.transaction() as session:
            session.add(
                ShareRow(
                    id=share.id,
                    channel=channel,
                    name=name,
                    secret=share.secret,
                    created=now,
                    expires=expires,
                    used=None,
                )
            )
        self._shares[share.secret] = share
        return share, secret

    async def unshare(self, channel: str, share_id: str) -> None:
        """Revoke a link.

        Raises:
            NotFoundError: the channel has no such link.
            StoreError: it cannot be kept; the link is still good.
        """
        found = next((s for s in self.shares(channel) if s.id == share_id), None)
        if found is None:
            raise NotFoundError("there is no such share link, or no longer")
        async with self._database.transaction() as session:
            await session.execute(delete(ShareRow).where(ShareRow.id == share_id))
        self._shares.pop(found.secret, None)

    def by_secret(self, secret: str) -> Share | None:
        """Return the link of a secret if it is good now."""
        share = self._shares.get(hash_of(secret))
        return None if share is None or share.is_over(time.time()) else share

    def by_id(self, share_id: str) -> Share | None:
        """Return a link by its identifier if it is good now."""
        now = time.time()
        found = (s for s in self._shares.values() if s.id == share_id and not s.is_over(now))
        return next(found, None)

    async def note_use(self, share: Share) -> None:
        """Note that a link is used, at most every five minutes.

        Raises:
            StoreError: it cannot be noted.
        """
        now = time.time()
        if share.used is not None and now - share.used < _NOTE_S:
            return
        self._shares[share.secret] = replace(share, used=now)
        async with self._database.transaction() as session:
            await session.execute(update(ShareRow).where(ShareRow.id == share.id).values(used=now))

    def next_end(self) -> float | None:
        """Return when the next link expires, in seconds since the epoch."""
        now = time.time()
        ends = [s.expires for s in self._shares.values() if s.expires is not None]
        return min((end for end in ends if end > now), default=None)

    async def _forget_old(self) -> None:
        now = time.time()
        async with self._database.transaction() as session:
            await session.execute(delete(ShareRow).where(ShareRow.expires <= now))
        self._shares = {s.secret: s for s in self._shares.values() if not s.is_over(now)}

    # --- ends ---------------------------------------------------------------------------------

    def forget_channel(self, channel: str) -> None:
        """Forget a channel whose definition, and all of this with it, has left the store."""
        self._grants.pop(channel, None)
        self._shares = {k: s for k, s in self._shares.items() if s.channel != channel}

    def forget_account(self, account: str) -> None:
        """Forget an account that, and all that it was given, has left the store."""
        for accounts in self._grants.values():
            accounts.discard(account)
