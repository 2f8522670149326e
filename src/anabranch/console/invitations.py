"""Nodes on other machines: invited, listed, removed."""

from typing import Annotated

from fastapi import APIRouter, Depends, Request
from pydantic import BaseModel, Field

from anabranch.core.errors import ConflictError
from anabranch.site.remote import Remote
from anabranch.site.site import Site
from anabranch.tree.admission import TOKEN_LIFETIME_S
from anabranch.tree.model import Role


class InvitationIn(BaseModel):
    """Who may join."""

    name: str
    role: Role = Role.LEAF
    parents: list[str] = Field(default_factory=list, max_length=100)
    rate_mbit: float = Field(default=100.0, gt=0, le=1e6)
    capacity: int | None = Field(default=None, ge=1)
    lifetime_s: float = Field(default=TOKEN_LIFETIME_S, gt=0, le=366 * 86400)


class InvitationOut(BaseModel):
    """With what it joins: the token is told once."""

    name: str
    token: str
    port: int


class GuestOut(BaseModel):
    """A node on another machine."""

    name: str
    role: Role
    state: str
    parent: str | None
    address: str
    endpoint: str | None
    heard_at: float | None


def _guests(request: Request) -> Remote:
    site: Site = request.app.state.site
    if site.remote is None:
        raise ConflictError("this site takes no nodes in: set remote.listen in anabranch.yaml")
    return site.remote


Guests = Annotated[Remote, Depends(_guests)]


def make_router() -> APIRouter:
    """Return the routes under ``/api/nodes/invitations``."""
    router = APIRouter(
        prefix="/api/nodes/invitations",
        tags=["nodes"],
    )

    @router.post("", status_code=201)
    async def invite(wanted: InvitationIn, guests: Guests) -> InvitationOut:
        """Draw a token for a node on another machine."""
        drawn = guests.invite(
            wanted.name,
            wanted.role,
            parents=tuple(wanted.parents),
            rate_mbit=wanted.rate_mbit,
            capacity=wanted.capacity,
            lifetime_s=wanted.lifetime_s,
        )
        return InvitationOut(name=wanted.name, token=drawn, port=guests.port)

    @router.get("")
    async def invited(guests: Guests) -> list[GuestOut]:
        """List the nodes on other machines."""
        return [GuestOut(**fields) for fields in guests.report()]

    @router.delete("/{name}", status_code=204)
    async def remove(name: str, guests: Guests) -> None:
        """End a node on another machine and bar it; its viewers go elsewhere."""
        await guests.remove(name)

    return router
