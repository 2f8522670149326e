"""Seats over HTTP: taken for receivers without a browser, changed, left and listed.

A seat's identifier is a secret: whoever knows it may look at the seat, change and end it.
"""

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from anabranch.channels.seats import PlainSeat
from anabranch.console.people.guard import check_sees
from anabranch.console.people.roles import Role
from anabranch.console.session_description import describe
from anabranch.core.errors import NotFoundError, UsageError
from anabranch.site import reports
from anabranch.site.seating import Wish
from anabranch.site.site import Site

Name = Annotated[str, Field(max_length=200)]
_SECRET: dict[int | str, dict[str, Any]] = {404: {"description": "No such seat, or no longer."}}


class SeatIn(BaseModel):
    """A seat for a receiver that takes what it is sent."""

    model_config = ConfigDict(extra="forbid")

    channel: Name
    to: Annotated[
        str,
        Field(
            max_length=200,
            description="udp://ADDRESS:PORT, or rtp://ADDRESS:PORT; IPv6 in brackets",
        ),
    ]
    format: Annotated[
        Literal["ts", "rtp"] | None,
        Field(description="MPEG-TS over udp, or RTP with the sound at PORT + 2; the URL tells"),
    ] = None
    rendition: Annotated[str | None, Field(max_length=40, description="null: the best")] = None
    leaf: Annotated[str | None, Field(max_length=40, description="null: the emptiest")] = None
    ttl_s: Annotated[
        float | None,
        Field(
            ge=5,
            le=86400,
            description="seconds after which it ends unless it is changed; null: when the"
            " receiver's machine refuses what it is sent",
        ),
    ] = None


class SeatChangeIn(BaseModel):
    """What a receiver is to see from now on; nothing of it: the lease is renewed."""

    model_config = ConfigDict(extra="forbid")

    channel: Name | None = None
    rendition: Annotated[str | None, Field(max_length=40)] = None


class PlainSeatOut(BaseModel):
    """A receiver's seat. Its identifier is a secret."""

    id: str
    kind: Literal["plain"]
    channel: str
    rendition: str
    leaf: str
    state: str
    seconds: float
    to: str
    format: Literal["ts", "rtp"]
    ttl_s: float | None
    url: str = Field(description="where it is looked at, changed (PATCH) and left (DELETE)")


class SeatOut(BaseModel):
    """A viewer's seat. A browser's identifier is its own secret and is not shown."""

    kind: Literal["webrtc", "plain"]
    channel: str
    rendition: str
    leaf: str
    state: str
    seconds: float
    bytes_sent: int | None = None
    packets_lost: int | None = None
    nacks: int | None = None
    jitter_ms: float | None = None
    rtt_ms: float | None = None
    id: str | None = Field(None, description="of a plain seat")
    to: str | None = Field(None, description="where a plain seat sends")


def make_router(site: Site) -> APIRouter:
    """Return the routes under ``/api/seats``."""
    router = APIRouter(prefix="/api/seats")

    @router.get("", tags=["operator"])
    async def seats() -> list[SeatOut]:
        """List the viewers, browsers with their figures and plain seats."""
        return [SeatOut(**fields) for fields in await site.seat_reports()]

    @router.post(
        "",
        status_code=201,
        tags=["viewers"],
        responses={
            403: {"description": "The receiver is not the caller, who is no operator."},
            404: {"description": "No such channel, or none for who asks; rendition; leaf."},
            409: {"description": "The receiver has a seat that somebody else has taken."},
            429: {"description": "The caller has as many seats as one may have."},
            503: {"description": "The sort switches are full, or it cannot be carried now."},
        },
    )
    async def take(wanted: SeatIn, request: Request, response: Response) -> PlainSeatOut:
        """Have a channel sent to a receiver: a set-top box, a player, another network.

        Whoever sees the channel may name the address that the request comes from; an operator, any
        other. When the caller may see the channel no longer, the seat ends.
        """
        caller = check_sees(request, site, wanted.channel)
        seat = await site.seating.take(
            Wish(
                wanted.channel,
                wanted.to,
                wanted.format,
                wanted.rendition,
                wanted.leaf,
                wanted.ttl_s,
                client=request.client.host if request.client is not None else "",
                operator=caller.reaches(Role.OPERATOR),
                holder=caller.holder,
            )
        )
        response.headers["Location"] = f"/api/seats/{seat.id}"
        response.headers["Cache-Control"] = "no-store"
        return _out(seat)

    @router.get(
        "/{seat}.sdp",
        tags=["viewers"],
        response_class=Response,
        responses={**_SECRET, 200: {"content": {"application/sdp": {}}}},
    )
    async def session(seat: str) -> Response:
        """Describe what an RTP seat is sent (SDP, RFC 8866), for the receiver to open."""
        found = _plain(seat)
        if found.form != "rtp":
            raise UsageError("the seat is sent a transport stream, which describes itself")
        text = describe(found, site.settings.format)
        return Response(text, media_type="application/sdp", headers={"Cache-Control": "no-store"})

    @router.get("/{seat}", tags=["viewers"], responses=_SECRET)
    async def show(seat: str, response: Response) -> PlainSeatOut:
        """Show a receiver's seat."""
        response.headers["Cache-Control"] = "no-store"
        return _out(_plain(seat))

    @router.patch(
        "/{seat}",
        tags=["viewers"],
        responses={**_SECRET, 429: {"description": "Too many changes; try again."}},
    )
    async def change(seat: str, wanted: SeatChangeIn, request: Request) -> SeatOut:
        """Change the channel or the rendition of a seat; nothing is set up or torn down.

        Another channel is one that the caller sees: a seat's identifier is for what it shows.
        """
        found = site.seats.any(seat)
        holder = found.holder
        if wanted.channel is not None and wanted.channel != found.channel:
            holder = check_sees(request, site, wanted.channel).holder
        if isinstance(found, PlainSeat):
            await site.seating.change(found, wanted.channel, wanted.rendition, holder=holder)
            return SeatOut(**reports.plain_seat(found))
        await site.changes.change(found, wanted.channel or found.channel, wanted.rendition)
        site.seats.hold(found, holder)
        return SeatOut(**reports.browser_seat(found))

    @router.delete("/{seat}", status_code=204, tags=["viewers"], responses=_SECRET)
    async def leave(seat: str) -> None:
        """Leave: the seat is free at once."""
        await site.leave(seat)

    def _plain(seat_id: str) -> PlainSeat:
        found = site.seats.any(seat_id)
        if not isinstance(found, PlainSeat):
            raise NotFoundError("there is no such seat")  # a browser's is described by its page
        return found

    return router


def _out(seat: PlainSeat) -> PlainSeatOut:
    return PlainSeatOut(**reports.plain_seat(seat), url=f"/api/seats/{seat.id}")
