"""The accounts of a site, and what shows that somebody is one of them.

All of it is in memory, too: one process serves a site, and every request is judged without the
store. A change is in the store before it counts. What only tells when something was last used may
get lost.
"""

import asyncio
import secrets
import time
from collections.abc import Callable
from dataclasses import replace

import structlog
from sqlalchemy import delete, or_, select, update

from anabranch.channels.audience import Audience
from anabranch.console.people.caller import Caller
from anabranch.console.people.credentials import SESSION, TOKEN, Credentials
from anabranch.console.people.node_keys import is_key
from anabranch.console.people.passwords import Hasher, check_password
from anabranch.console.people.records import (
    SESSION_IDLE_S,
    SESSION_LIFE_S,
    Account,
    Session,
    Token,
)
from anabranch.console.people.roles import Role, lower
from anabranch.console.people.throttle import Throttle
from anabranch.core.errors import AnabranchError, ConflictError, NotFoundError, UsageError
from anabranch.core.names import check_name, new_id
from anabranch.core.secret_tokens import draw, hash_of
from anabranch.store.database import Database, StoreError
from anabranch.store.people_rows import AccountRow, GrantRow, SessionRow, TokenRow
from anabranch.store.rows import ChannelRow

MAX_ACCOUNTS = 10_000
MAX_TOKENS = 100
MAX_SESSIONS = 50
_MAX_TOKEN_NAME = 60
_NOTE_S = 300.0
"""Seconds between two notes in the store that something is in use."""
OPERATOR = "operator"
"""Who shows the operator's token, as a holder."""
_log = structlog.get_logger("anabranch.people")


class WrongPasswordError(AnabranchError):
    """The name or the password is wrong; it is not said which."""


class TooOftenError(AnabranchError):
    """Too many tries; ``wait_s`` seconds until the next."""

    def __init__(self, wait_s: float) -> None:
        super().__init__("too many tries; wait a moment")
        self.wait_s = wait_s


class People:
    """The people of a site.

    Args:
        database: where they are kept; opened.
        audience: of the site's channels.
        operator_token: whoever has it is an admin; empty: nobody has it.
        hasher: other than the usual one, for tests.
        clock: seconds since the epoch.
    """

    def __init__(
        self,
        database: Database,
        audience: Audience,
        operator_token: str,
        *,
        hasher: Hasher | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._database = database
        self._audience = audience
        self._operator = operator_token.encode()
        self._hasher = hasher or Hasher()
        self._clock = clock
        self.throttle = Throttle()
        self._loading = asyncio.Lock()
        self._loaded = False
        self._accounts: dict[str, Account] = {}
        self._sessions: dict[str, Session] = {}
        self._tokens: dict[str, Token] = {}

    async def load(self) -> None:
        """Read what the store has, once.

        Raises:
            StoreError: it cannot be read.
        """
        if self._loaded:
            return
        async with self._loading:
            if self._is_loaded():  # by another request meanwhile
                return
            now = self._clock()
            async with self._database.transaction() as session:
                await session.execute(
                    delete(SessionRow).where(
                        or_(
                            SessionRow.used < now - SESSION_IDLE_S,
                            SessionRow.created < now - SESSION_LIFE_S,
                        )
                    )
                )
                accounts = list(await session.scalars(select(AccountRow)))
                sessions = list(await session.scalars(select(SessionRow)))
                tokens = list(await session.scalars(select(TokenRow)))
            self._accounts = {
                r.id: Account(r.id, r.name, Role(r.role), r.password, r.created, r.seen)
                for r in accounts
            }
            self._sessions = {
                r.secret: Session(r.id, r.account, r.secret, r.created, r.used)
                for r in sessions
                if r.account in self._accounts  # not of one that was removed in that moment
            }
            self._tokens = {
                r.secret: Token(
                    r.id, r.account, r.name, Role(r.role), r.secret, r.created, r.expires, r.used
                )
                for r in tokens
                if r.account in self._accounts
            }
            self._loaded = True

    def _is_loaded(self) -> bool:
        return self._loaded

    # --- who is it ----------------------------------------------------------------------------

    def is_operator(self, sent: str) -> bool:
        """Say whether this is the operator's token, in constant time."""
        given = sent.encode("utf-8", "surrogatepass")
        return bool(self._operator) and secrets.compare_digest(given, self._operator)

    def is_service_node(self, sent: str, name: str) -> bool:
        """Say whether this is the key of the service node of this name."""
        return is_key(sent, self._operator.decode(), name)

    def caller(self, shown: Credentials) -> Caller:
        """Return who shows these credentials; whoever shows nothing that counts is nobody."""
        share = self._audience.by_secret(shown.share) if shown.share is not None else None
        if shown.bearer is not None and share is None:
            if self.is_operator(shown.bearer):
                return Caller(Role.ADMIN, None, "operator_token", OPERATOR)
            return self._by_token(shown.token)
        caller = self._by_session(shown.session)
        if share is None:
            return replace(caller, cross_site=shown.cross_site)
        holder = "+".join(filter(None, (caller.holder, f"share:{share.id}")))
        return replace(caller, share=share, holder=holder, cross_site=shown.cross_site)

    def _by_token(self, secret: str | None) -> Caller:
        token = None if secret is None else self._tokens.get(hash_of(secret))
        good = token is not None and not token.is_over(self._clock())
        return self._of_token(token) if token is not None and good else Caller()

    def _of_token(self, token: Token) -> Caller:
        account = self._accounts[token.account]
        return Caller(lower(token.role, account.role), account, "token", f"token:{token.id}")

    def _by_session(self, secret: str | None) -> Caller:
        session = None if secret is None else self._sessions.get(hash_of(secret))
        good = session is not None and not session.is_over(self._clock())
        return self._of_session(session) if session is not None and good else Caller()

    def _of_session(self, session: Session) -> Caller:
        account = self._accounts[session.account]
        holder = f"session:{session.id}"
        return Caller(account.role, account, "session", holder, expires=session.expires)

    def holding(self, holder: str) -> Caller:
        """Return who a seat's :attr:`~anabranch.console.people.caller.Caller.holder` is now."""
        shown = dict(part.split(":", 1) for part in holder.split("+") if ":" in part)
        share = self._audience.by_id(shown["share"]) if "share" in shown else None
        if holder == OPERATOR:
            return Caller(Role.ADMIN, None, "operator_token", OPERATOR)
        caller = Caller()
        session = self._session(shown.get("session"))
        token = self._token(shown.get("token"))
        if session is not None and not session.is_over(self._clock()):
            caller = self._of_session(session)
        elif token is not None and not token.is_over(self._clock()):
            caller = self._of_token(token)
        return replace(caller, holder=holder, share=share)

    def _session(self, session_id: str | None) -> Session | None:
        return next((s for s in self._sessions.values() if s.id == session_id), None)

    def _token(self, token_id: str | None) -> Token | None:
        return next((t for t in self._tokens.values() if t.id == token_id), None)

    async def note_use(self, caller: Caller) -> None:
        """Note that what a caller shows is in use, in the store at most every five minutes."""
        now = self._clock()
        try:
            session, token = self._session(caller.session), self._token(caller.token)
            if session is not None and now - session.used >= _NOTE_S:
                self._sessions[session.secret] = replace(session, used=now)
                await self._set(SessionRow, session.id, used=now)
            if token is not None and (token.used is None or now - token.used >= _NOTE_S):
                self._tokens[token.secret] = replace(token, used=now)
                await self._set(TokenRow, token.id, used=now)
            if caller.share is not None:
                await self._audience.note_use(caller.share)
        except StoreError as error:
            _log.warning("people.use-not-noted", error=str(error))

    # --- sessions -----------------------------------------------------------------------------

    async def sign_in(self, name: str, password: str, client: str) -> tuple[Caller, str]:
        """Begin a session; return who it is, and what the cookie is to hold.

        It takes as long, and says the same, whether there is no such account or the password is
        another's.

        Raises:
            WrongPasswordError: name or password are wrong.
            TooOftenError: this account or client has failed too often.
            StoreError: the session cannot be kept.
        """
        account = await self._prove(name, password, client)
        now = self._clock()
        if self._hasher.is_outdated(account.password):
            account = replace(account, password=await self._hasher.hash(password))
        account = replace(account, seen=now)
        secret = draw(SESSION)
        session = Session(new_id(), account.id, hash_of(secret), now, now)
        mine = sorted(
            (s for s in self._sessions.values() if s.account == account.id), key=lambda s: s.used
        )
        gone = [s for s in mine if s.is_over(now)] or mine[: len(mine) - MAX_SESSIONS + 1]
        async with self._database.transaction() as store:
            await store.execute(delete(SessionRow).where(SessionRow.id.in_([s.id for s in gone])))
            store.add(
                SessionRow(
                    id=session.id,
                    account=account.id,
                    secret=session.secret,
                    created=now,
                    used=now,
                )
            )
            await store.execute(
                update(AccountRow)
                .where(AccountRow.id == account.id)
                .values(seen=now, password=account.password)
            )
        if account.id not in self._accounts:  # removed meanwhile
            raise WrongPasswordError("the name or the password is wrong")
        for each in gone:
            self._sessions.pop(each.secret, None)
        self._sessions[session.secret] = session
        self._accounts[account.id] = account
        return self._by_session(secret), secret

    async def _prove(self, name: str, password: str, client: str) -> Account:
        key = name.casefold()[:64]
        wait = self.throttle.begin(key, client, self._clock())
        if wait > 0:
            raise TooOftenError(wait)
        account = self.named(name)
        kept = None if account is None else account.password
        if not await self._hasher.verify(kept, password) or account is None:
            raise WrongPasswordError("the name or the password is wrong")
        now = self._accounts.get(account.id)
        if now is None or now.password != account.password:  # changed while it was tried
            raise WrongPasswordError("the name or the password is wrong")
        self.throttle.succeeded(key, client, self._clock())
        return now

    async def sign_out(self, caller: Caller, *, everywhere: bool = False) -> None:
        """End a caller's session, or all of its account; without a session nothing is done.

        Raises:
            StoreError: it cannot be kept; the sessions are still good.
        """
        if caller.by != "session" or caller.account is None:
            return
        if everywhere:
            await self._end_sessions(caller.account.id)
        else:
            await self._end_sessions(caller.account.id, only=caller.session)

    async def _end_sessions(self, account: str, *, but: str = "", only: str = "") -> None:
        ended = {
            s.id
            for s in self._sessions.values()
            if s.account == account and s.id != but and (not only or s.id == only)
        }
        async with self._database.transaction() as store:
            await store.execute(delete(SessionRow).where(SessionRow.id.in_(ended)))
        self._sessions = {k: s for k, s in self._sessions.items() if s.id not in ended}

    # --- accounts -----------------------------------------------------------------------------

    @property
    def accounts(self) -> list[Account]:
        return sorted(self._accounts.values(), key=lambda account: account.name)

    def named(self, name: str) -> Account | None:
        """Return the account of a name, if there is one."""
        return next((a for a in self._accounts.values() if a.name == name), None)

    def account(self, name: str) -> Account:
        """Return the account of a name.

        Raises:
            NotFoundError: there is none.
        """
        found = self.named(name)
        if found is None:
            raise NotFoundError(f"there is no account named {name[:60]!r}")
        return found

    def name_of(self, account_id: str | None) -> str | None:
        """Return the name of an account, if there is one."""
        found = self._accounts.get(account_id or "")
        return None if found is None else found.name

    async def add(self, name: str, role: Role, password: str) -> Account:
        """Make an account.

        Raises:
            UsageError: the name is not allowed, or the password not good enough.
            ConflictError: the name is taken, or there are as many accounts as may be.
            StoreError: it cannot be kept; there is no account.
        """
        check_name(name)
        password = check_password(password, name)
        if self.named(name) is not None:
            raise ConflictError(f"there is an account named {name} already")
        if len(self._accounts) >= MAX_ACCOUNTS:
            raise ConflictError(f"a site has at most {MAX_ACCOUNTS} accounts")
        kept = await self._hasher.hash(password)
        account = Account(new_id(), name, role, kept, self._clock())
        try:
            async with self._database.transaction() as store:
                store.add(
                    AccountRow(
                        id=account.id,
                        name=name,
                        role=role.value,
                        password=kept,
                        created=account.created,
                        seen=None,
                    )
                )
        except ConflictError:  # two at once
            raise ConflictError(f"there is an account named {name} already") from None
        self._accounts[account.id] = account
        return account

    async def set_role(self, account: Account, role: Role) -> Account:
        """Give an account another role; its sessions and tokens have it at once.

        Raises:
            StoreError: it cannot be kept; nothing has changed.
        """
        await self._set(AccountRow, account.id, role=role.value)
        return self._changed(account, role=role)

    async def set_password(self, account: Account, password: str, *, but: str = "") -> Account:
        """Give an account another password; its sessions end, except ``but``'s.

        Raises:
            UsageError: it is not good enough.
            StoreError: it cannot be kept; nothing has changed.
        """
        kept = await self._hasher.hash(check_password(password, account.name))
        await self._set(AccountRow, account.id, password=kept)
        account = self._changed(account, password=kept)
        self.throttle.forget(account.name)
        await self._end_sessions(account.id, but=but)
        return account

    async def change_password(self, caller: Caller, old: str, new: str, client: str) -> None:
        """Change one's own password; all other sessions of the account end.

        Raises:
            ConflictError: the caller has no account.
            WrongPasswordError: ``old`` is not the present one.
            TooOftenError: this was tried too often.
            UsageError: ``new`` is not good enough.
            StoreError: it cannot be kept; nothing has changed.
        """
        if caller.account is None:
            raise ConflictError("the operator's token has no account, and so no password")
        check_password(new, caller.account.name)
        try:
            account = await self._prove(caller.account.name, old, client)
        except WrongPasswordError:
            raise WrongPasswordError("the old password is wrong") from None
        await self.set_password(account, new, but=caller.session)

    async def remove(self, account: Account) -> None:
        """Remove an account, with its sessions, tokens and grants; its channels stay.

        Raises:
            StoreError: it cannot be kept; nothing has changed.
        """
        async with self._database.transaction() as store:
            for table in (SessionRow, TokenRow, GrantRow):
                await store.execute(delete(table).where(table.account == account.id))
            await store.execute(
                update(ChannelRow).where(ChannelRow.owner == account.id).values(owner=None)
            )
            await store.execute(delete(AccountRow).where(AccountRow.id == account.id))
        self._accounts.pop(account.id, None)
        self._sessions = {k: s for k, s in self._sessions.items() if s.account != account.id}
        self._tokens = {k: t for k, t in self._tokens.items() if t.account != account.id}
        self._audience.forget_account(account.id)
        self.throttle.forget(account.name)

    # --- tokens -------------------------------------------------------------------------------

    def tokens(self, account: Account | None = None) -> list[Token]:
        """Return the API tokens that are good now, of an account or of all."""
        now = self._clock()
        found = [
            token
            for token in self._tokens.values()
            if not token.is_over(now) and (account is None or token.account == account.id)
        ]
        return sorted(found, key=lambda token: (token.created, token.id))

    async def add_token(
        self, account: Account, name: str, role: Role, lifetime_s: float | None
    ) -> tuple[Token, str]:
        """Draw an API token; return it with its secret, which is told once.

        Raises:
            UsageError: the name is not allowed, or the role is higher than the account's.
            ConflictError: the account has as many tokens as it may.
            StoreError: it cannot be kept; there is no token.
        """
        name = name.strip()
        if not name or len(name) > _MAX_TOKEN_NAME or not name.isprintable():
            raise UsageError(f"a token's name is 1 to {_MAX_TOKEN_NAME} printable characters")
        if not account.role.reaches(role):
            raise UsageError(f"{account.name} is a {account.role}: no token of it is more")
        if len(self.tokens(account)) >= MAX_TOKENS:
            raise ConflictError(f"an account has at most {MAX_TOKENS} tokens: revoke some")
        now = self._clock()
        secret = draw(TOKEN)
        expires = None if lifetime_s is None else now + lifetime_s
        token = Token(new_id(), account.id, name, role, hash_of(secret), now, expires)
        async with self._database.transaction() as store:
            await store.execute(delete(TokenRow).where(TokenRow.expires <= now))
            store.add(
                TokenRow(
                    id=token.id,
                    account=account.id,
                    name=name,
                    role=role.value,
                    secret=token.secret,
                    created=now,
                    expires=expires,
                    used=None,
                )
            )
        self._tokens = {k: t for k, t in self._tokens.items() if not t.is_over(now)}
        if account.id in self._accounts:  # not removed meanwhile
            self._tokens[token.secret] = token
        return token, secret

    async def revoke_token(self, token_id: str, account: Account | None) -> None:
        """Revoke a token of an account, or of anybody with None.

        Raises:
            NotFoundError: there is none.
            StoreError: it cannot be kept; the token is still good.
        """
        found = next((each for each in self.tokens(account) if each.id == token_id), None)
        if found is None:
            raise NotFoundError("there is no such token, or no longer")
        async with self._database.transaction() as store:
            await store.execute(delete(TokenRow).where(TokenRow.id == token_id))
        self._tokens.pop(found.secret, None)

    # --- inside -------------------------------------------------------------------------------

    async def _set(
        self, table: type[AccountRow | SessionRow | TokenRow], row_id: str, **values: object
    ) -> None:
        async with self._database.transaction() as store:
            await store.execute(update(table).where(table.id == row_id).values(**values))

    def _changed(self, account: Account, **fields: object) -> Account:
        present = self._accounts.get(account.id)
        if present is None:  # removed meanwhile
            raise NotFoundError(f"there is no account named {account.name}")
        changed = replace(present, **fields)  # type: ignore[arg-type]
        self._accounts[account.id] = changed
        return changed
