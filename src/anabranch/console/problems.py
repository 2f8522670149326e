"""Errors as problem details (RFC 9457): one line for a person, a status for a program."""

from collections.abc import Awaitable, Callable
from typing import Any

import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from anabranch.core.errors import (
    AnabranchError,
    ConflictError,
    ForbiddenError,
    NotFoundError,
    TooManyError,
    UnavailableError,
    UsageError,
)
from anabranch.store.database import StoreError

Answers = dict[int | str, dict[str, Any]]
"""What the document of the API says of answers, by status."""
_log = structlog.get_logger("anabranch.console")

_TITLES = {
    400: "Bad request",
    401: "Not authorised",
    403: "Forbidden",
    404: "Not found",
    405: "Method not allowed",
    409: "Conflict",
    413: "Too large",
    415: "Unsupported media type",
    422: "Not acceptable as sent",
    429: "Too many requests",
    500: "Internal error",
    503: "Not available now",
    507: "The store cannot be written",
}


def problem(status: int, detail: str, *, headers: dict[str, str] | None = None) -> JSONResponse:
    """Return a problem answer."""
    return JSONResponse(
        {
            "type": "about:blank",
            "title": _TITLES.get(status, "Error"),
            "status": status,
            "detail": detail,
        },
        status,
        headers,
        media_type="application/problem+json",
    )


def status_of(error: AnabranchError) -> int:
    """Return the HTTP status of an error of ours."""
    for kind, status in (
        (StoreError, 507),
        (NotFoundError, 404),
        (ConflictError, 409),
        (UsageError, 422),
        (ForbiddenError, 403),
        (TooManyError, 429),
        (UnavailableError, 503),
    ):
        if isinstance(error, kind):
            return status
    return 500


def install(app: FastAPI) -> None:
    """Make every error of ``app`` a problem answer."""

    async def ours(_request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, AnabranchError)
        status = status_of(error)
        headers = {"Retry-After": "1"} if status in {429, 503} else None
        return problem(status, str(error), headers=headers)

    async def of_http(_request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, HTTPException)
        headers = dict(error.headers or {})
        return problem(error.status_code, str(error.detail), headers=headers)

    async def of_validation(_request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, RequestValidationError)
        first = error.errors()[0]
        # A number is a place in the text, of no use to a person.
        where = ".".join(part for part in first["loc"] if isinstance(part, str) and part != "body")
        return problem(422, f"{where}: {first['msg']}" if where else str(first["msg"]))

    async def of_absence(_request: Request, _error: Exception) -> JSONResponse:
        return problem(400, "the request ends before its body does")  # nobody reads this

    async def unexpected(request: Request, error: Exception) -> JSONResponse:
        _log.error("request.failed", path=request.url.path, exc_info=error)
        # Answered outside of all middleware; the fixed text may be read from anywhere.
        anywhere = {"Access-Control-Allow-Origin": "*"}
        return problem(500, "something went wrong here; the log has it", headers=anywhere)

    handler = Callable[[Request, Exception], Awaitable[JSONResponse]]
    handlers: dict[type[Exception], handler] = {
        AnabranchError: ours,
        HTTPException: of_http,
        RequestValidationError: of_validation,
        ClientDisconnect: of_absence,
        Exception: unexpected,
    }
    for kind, function in handlers.items():
        app.add_exception_handler(kind, function)
