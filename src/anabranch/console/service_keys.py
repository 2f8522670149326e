"""Service nodes' keys at the API: who may show one, and who is told it."""

from collections.abc import Callable
from typing import Annotated

from fastapi import APIRouter, Depends, HTTPException, Path, Response
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from pydantic import BaseModel

from anabranch.console.operator_token import is_operator
from anabranch.console.people.node_keys import is_key, key_of

Name = Annotated[str, Path(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,39}$", examples=["s1-a"])]


class KeyOut(BaseModel):
    """What a service node shows as its bearer."""

    key: str


def node_or_operator(token: str) -> Callable[..., None]:
    """Return the dependency that lets the operator pass, and the node that the path names."""
    bearer = HTTPBearer(auto_error=False, description="the node's key, or the operator's token")

    def authorise(
        name: Name, given: Annotated[HTTPAuthorizationCredentials | None, Depends(bearer)]
    ) -> None:
        sent = given.credentials if given is not None else ""
        if not (is_operator(sent, token) or is_key(sent, token, name)):
            raise HTTPException(
                401, "this needs the node's key or the operator's token",
                {"WWW-Authenticate": "Bearer"},
            )  # fmt: skip

    return authorise


def make_keys(token: str) -> APIRouter:
    """Return the route that tells operators the keys."""
    router = APIRouter(prefix="/service-nodes")

    @router.get("/{name}/key")
    async def key(name: Name, response: Response) -> KeyOut:
        """Tell the key of the node of this name, whether or not it has registered."""
        response.headers["Cache-Control"] = "no-store"
        return KeyOut(key=key_of(token, name))

    return router
