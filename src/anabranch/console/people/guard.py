"""The guard before all routes: it finds out who calls and applies the rules.

It stands before the application reads a body or looks at anything else of a request. The routes
that it knows are the application's own, in the same order, so that what it judges is what is done;
what no route is for passes, to be answered that there is nothing.
"""

import re
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from fastapi.routing import APIWebSocketRoute, iter_route_contexts
from starlette.datastructures import Headers
from starlette.requests import HTTPConnection
from starlette.responses import Response
from starlette.routing import BaseRoute, Mount, compile_path
from starlette.types import ASGIApp, Receive, Scope, Send

from anabranch.console.people import credentials
from anabranch.console.people.caller import Caller
from anabranch.console.people.people import People
from anabranch.console.people.roles import Role
from anabranch.console.people.rules import Rule
from anabranch.console.problems import problem, status_of
from anabranch.core.errors import NotFoundError
from anabranch.site.site import Site
from anabranch.store.database import StoreError

_KEY = "anabranch.caller"
_SHOWN = "anabranch.credentials"
_NOTE_S = 60.0
_NOTES = 10_000


class UnruledError(ValueError):
    """A route is in the application and not in the table of rules."""


def caller_of(connection: HTTPConnection) -> Caller:
    """Return who sends a request, as it was when the request came."""
    caller: Caller = connection.scope[_KEY]
    return caller


def credentials_of(connection: HTTPConnection) -> credentials.Credentials:
    """Return what a request shows, to ask anew who that is."""
    shown: credentials.Credentials = connection.scope[_SHOWN]
    return shown


def operators_of(people: People) -> Callable[[HTTPConnection, str | None], bool]:
    """Return what says whether who asks for a connection, or sent a token on it, is an operator."""

    def admits(connection: HTTPConnection, token: str | None) -> bool:
        if token is None:
            return caller_of(connection).reaches(Role.OPERATOR)
        return people.caller(credentials.Credentials(bearer=token)).reaches(Role.OPERATOR)

    return admits


@dataclass(frozen=True, slots=True)
class _Line:
    method: str
    pattern: re.Pattern[str]
    rule: Rule


class Gate:
    """The rules, made ready for the routes of one application."""

    def __init__(self, people: People, site: Site, rules: dict[str, Rule]) -> None:
        self.people = people
        self.site = site
        self._rules = rules
        self._lines: list[_Line] = []
        self._noted: OrderedDict[str, float] = OrderedDict()

    def cover(self, routes: Iterable[BaseRoute]) -> None:
        """Take in the routes that there are.

        Raises:
            UnruledError: one of them has no rule.
        """
        for key in keys_of(routes):
            if key not in self._rules:
                raise UnruledError(f"no rule says who may {key}: see console/people/rules.py")
            method, path = key.split(" ", 1)
            # A mount has all below it.
            pattern, _, _ = compile_path(path if method != "*" else f"{path}/{{rest:path}}")
            self._lines.append(_Line(method, pattern, self._rules[key]))

    def find(self, method: str, path: str) -> tuple[Rule, dict[str, str]] | None:
        """Return the rule for a request and the path's parameters; None: there is no route."""
        for line in self._lines:
            if line.method in (method, "*") and (found := line.pattern.match(path)):
                return line.rule, found.groupdict()
        return None

    def is_node(
        self, rule: Rule, parameters: dict[str, str], shown: credentials.Credentials
    ) -> bool:
        """Say whether a service node asks, with its key, for what is its own."""
        return (
            rule.node is not None
            and shown.bearer is not None
            and self.people.is_service_node(shown.bearer, parameters[rule.node])
        )

    def refusal(self, rule: Rule, parameters: dict[str, str], caller: Caller) -> Response | None:
        """Return the answer to somebody who may not; None: it may."""
        if rule.least is not None and not caller.reaches(rule.least):
            if caller.role is not None:
                return problem(403, f"this is for a role of {rule.least} or above")
            if caller.cross_site:
                return problem(403, "this request was made by a page of another site")
            detail = "this needs the operator's token, an API token or a login"
            return problem(401, detail, headers={"WWW-Authenticate": "Bearer"})
        named = rule.sees or rule.manages
        if named is None:
            return None
        name = parameters[named]
        try:
            channel = self.site.channel(name).definition
        except NotFoundError as error:
            # One that is defined and could not be put on the air is the operators' business.
            return None if caller.reaches(Role.OPERATOR) else problem(404, str(error))
        if not caller.may_see(channel, self.site.audience):
            return problem(404, str(absence(name)))
        if rule.manages is not None and not caller.may_manage(channel):
            return problem(403, "this channel is somebody else's")
        return None

    async def note(self, caller: Caller) -> None:
        """Note now and then that what a caller shows is in use."""
        now = time.monotonic()
        if not caller.holder or now - self._noted.get(caller.holder, -_NOTE_S) < _NOTE_S:
            return
        self._noted[caller.holder] = now
        self._noted.move_to_end(caller.holder)
        if len(self._noted) > _NOTES:
            self._noted.popitem(last=False)
        await self.people.note_use(caller)


def check_sees(connection: HTTPConnection, site: Site, name: str) -> Caller:
    """Return who sends a request, who sees a channel that is named in its body.

    Raises:
        NotFoundError: there is none of this name, or none for the caller: the same words.
    """
    caller = caller_of(connection)
    if not caller.may_see(site.channel(name).definition, site.audience):
        raise absence(name)
    return caller


def absence(name: str) -> NotFoundError:
    """Return what is said of a channel that is not there, or not for the caller."""
    return NotFoundError(f"there is no channel named {name[:60]!r}")


def keys_of(routes: Iterable[BaseRoute]) -> list[str]:
    """Return routes as the table of rules names them: in the order in which they are tried."""
    keys = []
    for context in iter_route_contexts(list(routes)):
        route: Any = context.original_route
        if isinstance(route, Mount):
            keys.append(f"* {route.path}")
        elif isinstance(route, APIWebSocketRoute):
            keys.append(f"WS {context.path}")
        else:
            keys += [f"{method} {context.path}" for method in sorted(context.methods or ["*"])]
    return keys


class Guard:
    """Lets a request pass, with who sent it, or answers that it may not."""

    def __init__(self, app: ASGIApp, gate: Gate) -> None:
        self._app = app
        self._gate = gate

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        try:
            await self._gate.people.load()
        except StoreError as error:
            await problem(status_of(error), str(error))(scope, receive, send)
            return
        websocket = scope["type"] == "websocket"
        method = "WS" if websocket else scope["method"]
        shown = credentials.read(
            method,
            Headers(scope=scope),
            secure=scope["scheme"] in ("https", "wss"),
            websocket=websocket,
        )
        caller = self._gate.people.caller(shown)
        found = self._gate.find(method, scope["path"])
        free = found is None or self._gate.is_node(*found, shown)
        refused = None if found is None or free else self._gate.refusal(*found, caller)
        if refused is not None:
            await refused(scope, receive, send)
            return
        await self._gate.note(caller)
        scope[_KEY], scope[_SHOWN] = caller, shown
        await self._app(scope, receive, send)
