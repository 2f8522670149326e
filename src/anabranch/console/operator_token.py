"""Who is the operator: whoever sends the token as a bearer (RFC 6750)."""

import secrets
from collections.abc import Callable
from typing import Annotated

from fastapi import Depends, HTTPException
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer


def is_operator(sent: str, token: str) -> bool:
    """Compare in constant time."""
    return secrets.compare_digest(sent.encode(), token.encode())


def operators_only(token: str) -> Callable[..., None]:
    """Return the dependency that lets only the operator pass; others get 401."""
    bearer = HTTPBearer(auto_error=False, description="the operator's token")

    def authorise(given: Annotated[HTTPAuthorizationCredentials | None, Depends(bearer)]) -> None:
        if not is_operator(given.credentials if given is not None else "", token):
            raise HTTPException(
                401, "this needs the operator's token", {"WWW-Authenticate": "Bearer"}
            )

    return authorise
