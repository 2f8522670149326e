"""Routes of people: who one is, accounts, API tokens. Who may use them is in the rules."""

import math
from typing import Annotated

from fastapi import APIRouter, Depends, HTTPException, Query, Request, Response

from anabranch.console.people import models
from anabranch.console.people.admins import Admins
from anabranch.console.people.caller import Caller
from anabranch.console.people.credentials import cookie_name, is_foreign
from anabranch.console.people.doors import Doors
from anabranch.console.people.guard import caller_of
from anabranch.console.people.people import People, TooOftenError, WrongPasswordError
from anabranch.console.people.records import SESSION_LIFE_S, Account, Token
from anabranch.console.people.roles import Role
from anabranch.console.problems import Answers
from anabranch.core.errors import NotFoundError
from anabranch.site.site import Site

TheCaller = Annotated[Caller, Depends(caller_of)]
_NO_STORE = {"Cache-Control": "no-store"}
_TOO_OFTEN: Answers = {
    429: {"description": "Too many tries; again after Retry-After seconds."},
}


def make_router(site: Site, people: People, doors: Doors) -> APIRouter:
    """Return the routes ``/api/login``, ``logout``, ``me``, ``accounts`` and ``tokens``."""
    router = APIRouter(prefix="/api", tags=["people"])
    router.include_router(_sessions(people, doors))
    router.include_router(_accounts(site, people, doors))
    router.include_router(_tokens(people, doors))
    return router


def _sessions(people: People, doors: Doors) -> APIRouter:
    router = APIRouter()

    @router.post(
        "/login", responses={401: {"description": "Name or password are wrong."}, **_TOO_OFTEN}
    )
    async def login(sent: models.LoginIn, request: Request, response: Response) -> models.MeOut:
        """Sign in: the answer sets the session's cookie."""
        if is_foreign(request.headers):
            raise HTTPException(403, "this request was made by a page of another site")
        try:
            caller, secret = await people.sign_in(
                sent.name, sent.password.get_secret_value(), _client(request)
            )
        except WrongPasswordError as error:
            raise HTTPException(401, str(error)) from error
        except TooOftenError as error:
            raise _too_often(error) from error
        response.headers.update(_NO_STORE)
        secure = _is_secure(request)
        response.set_cookie(
            cookie_name(secure=secure),
            secret,
            max_age=int(SESSION_LIFE_S),
            path="/",
            secure=secure,
            httponly=True,
            samesite="lax",
        )
        return me_out(caller, people)

    @router.post("/logout", status_code=204)
    async def logout(
        request: Request, caller: TheCaller, sent: models.LogoutIn | None = None
    ) -> Response:
        """Sign out, here or everywhere."""
        await people.sign_out(caller, everywhere=sent is not None and sent.everywhere)
        await doors.look()
        response = Response(status_code=204, headers=_NO_STORE)
        if caller.cross_site:
            return response
        secure = _is_secure(request)
        response.delete_cookie(
            cookie_name(secure=secure), path="/", secure=secure, httponly=True, samesite="lax"
        )
        return response

    @router.get("/me")
    async def me(caller: TheCaller, response: Response) -> models.MeOut:
        """Tell who one is, also nobody."""
        response.headers.update(_NO_STORE)
        return me_out(caller, people)

    @router.put(
        "/me/password",
        status_code=204,
        responses={409: {"description": "The operator's token has no password."}, **_TOO_OFTEN},
    )
    async def password(sent: models.PasswordIn, request: Request, caller: TheCaller) -> None:
        """Change one's own password; all other sessions end."""
        old, new = sent.old.get_secret_value(), sent.new.get_secret_value()
        try:
            await people.change_password(caller, old, new, _client(request))
        except WrongPasswordError as error:
            raise HTTPException(401, str(error)) from error
        except TooOftenError as error:
            raise _too_often(error) from error
        await doors.look()

    return router


def _accounts(site: Site, people: People, doors: Doors) -> APIRouter:
    router = APIRouter(prefix="/accounts")
    admins = Admins(people)
    absent: Answers = {404: {"description": "No such account."}}
    kept: Answers = {**absent, 409: {"description": "It is the last admin."}}

    def account_out(account: Account) -> models.AccountOut:
        owned = sorted(c.name for c in site.channels if c.definition.owner == account.id)
        return models.AccountOut(
            name=account.name,
            role=account.role,
            created=account.created,
            seen=account.seen,
            channels=owned,
        )

    @router.get("")
    async def accounts() -> models.AccountsOut:
        """List the accounts."""
        return models.AccountsOut(accounts=[account_out(each) for each in people.accounts])

    @router.post("", status_code=201, responses={409: {"description": "The name is taken."}})
    async def add(sent: models.AccountIn) -> models.AccountOut:
        """Make an account."""
        return account_out(await people.add(sent.name, sent.role, sent.password.get_secret_value()))

    @router.get("/{name}", responses=absent)
    async def account(name: str) -> models.AccountOut:
        """Show an account."""
        return account_out(people.account(name))

    @router.patch("/{name}", responses=kept)
    async def change(name: str, sent: models.AccountPatch, caller: TheCaller) -> models.AccountOut:
        """Give an account another role or password; a new password ends its sessions.

        The last admin stays one, unless the operator's token is shown.
        """
        password = None if sent.password is None else sent.password.get_secret_value()
        found = await admins.change(caller, name, role=sent.role, password=password)
        await doors.look()
        return account_out(found)

    @router.delete("/{name}", status_code=204, responses=kept)
    async def remove(name: str, caller: TheCaller) -> None:
        """Remove an account; its channels stay, without owner.

        The last admin stays, unless the operator's token is shown.
        """
        await admins.remove(caller, name)
        await doors.look()

    return router


def _tokens(people: People, doors: Doors) -> APIRouter:
    router = APIRouter(prefix="/tokens")

    def token_out(token: Token) -> models.TokenOut:
        return models.TokenOut(
            id=token.id,
            name=token.name,
            role=token.role,
            account=people.name_of(token.account) or "",
            created=token.created,
            expires=token.expires,
            used=token.used,
        )

    @router.get("")
    async def tokens(
        caller: TheCaller, account: Annotated[str | None, Query(max_length=200)] = None
    ) -> models.TokensOut:
        """List one's own API tokens; for an admin all, or those of an account."""
        if caller.reaches(Role.ADMIN):
            whose = None if account is None else people.account(account)
        else:
            whose = _own(caller, account)
        return models.TokensOut(tokens=[token_out(each) for each in people.tokens(whose)])

    @router.post(
        "",
        status_code=201,
        responses={409: {"description": "There are too many, or nobody whose it would be."}},
    )
    async def add(sent: models.TokenIn, caller: TheCaller) -> models.NewTokenOut:
        """Draw an API token; its secret is told once."""
        if caller.reaches(Role.ADMIN) and sent.account is not None:
            whose = people.account(sent.account)
        else:
            whose = _own(caller, sent.account)
        if caller.by == "token" and not caller.reaches(Role.ADMIN):
            # One that leaked would outlive its revocation in those that it had made.
            raise HTTPException(403, "an API token makes no tokens: sign in")
        role = sent.role or whose.role
        token, secret = await people.add_token(whose, sent.name, role, sent.expires_in_s)
        return models.NewTokenOut(**token_out(token).model_dump(), secret=secret)

    @router.delete("/{token}", status_code=204, responses={404: {"description": "No such token."}})
    async def revoke(token: str, caller: TheCaller) -> None:
        """Revoke an API token."""
        whose = None if caller.reaches(Role.ADMIN) else _own(caller, None)
        await people.revoke_token(token, whose)
        await doors.look()

    return router


def _own(caller: Caller, named: str | None) -> Account:
    """Return the caller's account, which is the one that was named, if one was."""
    if caller.account is None:
        raise HTTPException(409, "the operator's token has no account: say whose it is to be")
    if named is not None and named != caller.account.name:
        # Who is not an admin does not learn which accounts there are.
        raise NotFoundError(f"there is no account named {named[:60]!r}")
    return caller.account


def me_out(caller: Caller, people: People) -> models.MeOut:
    """Return who a caller is."""
    return models.MeOut(
        signed_in=caller.role is not None,
        name=caller.account.name if caller.account is not None else None,
        role=caller.role,
        by=caller.by,
        may=models.MayOut(
            add_channels=caller.reaches(Role.PRODUCER),
            pull_sources=caller.reaches(Role.OPERATOR),
            operate=caller.reaches(Role.OPERATOR),
            accounts=caller.reaches(Role.ADMIN),
            tokens=caller.reaches(Role.ADMIN) or caller.by == "session",
        ),
        expires=caller.expires,
        accounts=bool(people.accounts),
    )


def _too_often(error: TooOftenError) -> HTTPException:
    return HTTPException(429, str(error), {"Retry-After": str(math.ceil(error.wait_s))})


def _client(request: Request) -> str:
    return request.client.host if request.client is not None else ""


def _is_secure(request: Request) -> bool:
    return request.url.scheme == "https"
