"""WHEP: WebRTC-HTTP egress (draft-ietf-wish-whep). The offer comes by POST, the answer is 201.

The answer is complete and the leaves are ICE-lite, so a viewer's own candidates are not needed:
a PATCH that trickles them is accepted and changes nothing. An ICE restart is not possible;
a viewer that lost its connection posts a new offer. An extension of ours changes the channel over
the connection that there is; another, of the draft's, tells of what happens
(:mod:`anabranch.console.whep_events`). See docs/protocols/whep.md.
"""

from typing import Annotated

from fastapi import APIRouter, Query, Request, Response
from pydantic import BaseModel, Field

from anabranch.console import whep_events
from anabranch.console.hints import bandwidth_of, device_of
from anabranch.console.offers import check_fragment, read_offer
from anabranch.console.people.guard import caller_of, check_sees
from anabranch.site.site import Site

CHANGE = "urn:anabranch:whep:ext:change"
"""The relation (RFC 8288) between a seat and where its channel is changed."""
router = APIRouter(prefix="/whep", tags=["WHEP"])


class ChangeIn(BaseModel):
    """What a viewer wants to see from now on."""

    channel: Annotated[str, Field(max_length=200)]
    rendition: Annotated[
        str | None, Field(max_length=40, description="to stay at; null: the best that fits")
    ] = None


class ChangeOut(BaseModel):
    """What it is shown."""

    channel: str
    rendition: str
    waits: bool = Field(description="whether its picture waits for the next key frame")


def _site(request: Request) -> Site:
    site: Site = request.app.state.site
    return site


@router.options("/{channel}", include_in_schema=False)
@router.options("/{channel}/{seat}", include_in_schema=False)
@router.options("/{channel}/{seat}/change", include_in_schema=False)
@router.options("/{channel}/{seat}/sse", include_in_schema=False)
@router.options("/{channel}/{seat}/sse/{stream}", include_in_schema=False)
async def preflight() -> Response:
    """Let players on other sites in."""
    return Response(status_code=204, headers={"Accept-Post": "application/sdp"})


@router.post(
    "/{channel}",
    status_code=201,
    response_class=Response,
    responses={
        201: {"content": {"application/sdp": {}}, "description": "The answer."},
        404: {"description": "No such channel or rendition."},
        415: {"description": "The body is not application/sdp."},
        422: {"description": "The offer cannot be answered; the detail says why."},
        503: {"description": "No leaf is ready; try again."},
    },
    openapi_extra={"requestBody": {"content": {"application/sdp": {"schema": {"type": "string"}}}}},
)
async def watch(
    channel: str,
    request: Request,
    rendition: Annotated[str | None, Query(max_length=40)] = None,
) -> Response:
    """Watch a channel: send an SDP offer, get the answer and the seat's address."""
    offer = await read_offer(request)
    client = request.client.host if request.client is not None else ""
    seat, answer = await _site(request).watch(
        channel,
        rendition,
        offer,
        client=client,
        device=device_of(request.headers),
        bandwidth_kbps=bandwidth_of(request.headers),
        holder=caller_of(request).holder,
    )
    headers = {
        "Location": f"/whep/{channel}/{seat.id}",
        "ETag": f'"{seat.id[:8]}"',
        "Accept-Patch": "application/trickle-ice-sdpfrag",
        "Cache-Control": "no-store",
        "Link": ", ".join(_links(f"/whep/{channel}/{seat.id}", offer)),
    }
    return Response(answer, 201, headers, media_type="application/sdp")


def _links(place: str, offer: str) -> list[str]:
    names = ",".join(whep_events.EVENTS)
    section = whep_events.video_section(offer)
    return [
        f'<{place}/change>; rel="{CHANGE}"',
        f'<{place}/sse?section={section}>; rel="{whep_events.RELATION}"; events="{names}"',
    ]


@router.post(
    "/{channel}/{seat}/change",
    responses={
        404: {"description": "No such seat, channel or rendition."},
        409: {"description": "A newer change has taken its place."},
        429: {"description": "Too many changes; try again after Retry-After seconds."},
        503: {"description": "The leaf is not there; post a new offer."},
    },
)
async def change(channel: str, seat: str, wanted: ChangeIn, request: Request) -> ChangeOut:
    """Change the channel, or the rendition, over the connection that there is."""
    site = _site(request)
    found = site.seats.get(seat)
    caller = check_sees(request, site, wanted.channel)
    done = await site.changes.change(found, wanted.channel, wanted.rendition)
    site.seats.hold(found, caller.holder)
    return ChangeOut(channel=done.channel, rendition=done.rendition, waits=done.waits)


@router.patch("/{channel}/{seat}", status_code=204)
async def trickle(channel: str, seat: str, request: Request) -> Response:
    """Take a viewer's candidates (not needed, see above)."""
    _site(request).seats.get(seat)
    check_fragment(request)
    return Response(status_code=204)


@router.delete("/{channel}/{seat}")
async def leave(channel: str, seat: str, request: Request) -> Response:
    """Leave: the seat is free at once."""
    await _site(request).leave(seat)
    return Response(status_code=200)
