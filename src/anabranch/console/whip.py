"""WHIP: WebRTC-HTTP ingestion (RFC 9725). The offer comes by POST, the answer is 201.

The key is the bearer token. As with WHEP the answer is complete and the gate ICE-lite, so a
publisher's candidates are not needed, and an ICE restart is not possible: a publisher that lost its
connection posts a new offer. See docs/protocols/whip.md.
"""

import math
import time
from typing import Annotated, Any

from fastapi import APIRouter, Depends, HTTPException, Request, Response
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from anabranch.console.offers import FRAGMENT, check_fragment, read_offer
from anabranch.console.people.guard import caller_of
from anabranch.console.people.throttle import Throttle
from anabranch.core.errors import AnabranchError, NotFoundError
from anabranch.site.site import Site
from anabranch.site.whip import WhipPublishers, WrongKeyError, unfed

router = APIRouter(prefix="/whip", tags=["WHIP"])
_bearer = HTTPBearer(auto_error=False, scheme_name="PublisherKey", description="the channel's key")
Bearer = Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)]
_ANSWERS: dict[int | str, dict[str, Any]] = {
    201: {"content": {"application/sdp": {}}, "description": "The answer."},
    401: {"description": "No bearer token, or not the channel's key."},
    404: {"description": "No such channel that is fed by WHIP."},
    409: {"description": "The channel has a publisher already."},
    429: {"description": "Too many wrong keys; again after Retry-After seconds."},
    415: {"description": "The body is not application/sdp."},
    422: {"description": "The offer cannot be answered; the detail says why."},
    503: {"description": "The WHIP server is not there just now; try again."},
}
_BODY = {"requestBody": {"content": {"application/sdp": {"schema": {"type": "string"}}}}}


def _publishers(request: Request) -> WhipPublishers:
    site: Site = request.app.state.site
    return site.whip


@router.options("", include_in_schema=False)
@router.options("/{channel}", include_in_schema=False)
@router.options("/{channel}/{publisher}", include_in_schema=False)
async def preflight() -> Response:
    """Let publishers on other sites in."""
    return Response(status_code=204, headers={"Accept-Post": "application/sdp"})


@router.post(
    "",
    status_code=201,
    response_class=Response,
    responses=_ANSWERS,
    openapi_extra=_BODY,
)
async def publish_by_key(request: Request, bearer: Bearer) -> Response:
    """Publish into the channel whose key is sent."""
    return await _publish(None, request, bearer)


@router.post(
    "/{channel}",
    status_code=201,
    response_class=Response,
    responses=_ANSWERS,
    openapi_extra=_BODY,
)
async def publish(channel: str, request: Request, bearer: Bearer) -> Response:
    """Publish into a channel: send an SDP offer, get the answer and the publisher's address."""
    return await _publish(channel, request, bearer)


async def _publish(
    channel: str | None, request: Request, bearer: HTTPAuthorizationCredentials | None
) -> Response:
    if bearer is None:
        raise HTTPException(401, "publishing needs the channel's key as bearer token", _challenge())
    offer = await read_offer(request)
    client = request.client.host if request.client is not None else ""
    throttle: Throttle = request.app.state.people.throttle
    if (wait := throttle.begin(None, client, time.time())) > 0:
        again = {"Retry-After": str(math.ceil(wait))}
        raise HTTPException(429, "too many wrong keys; wait a moment", again)
    try:
        publishing, answer = await _publishers(request).publish(
            channel, bearer.credentials, offer, client=client
        )
    except WrongKeyError as error:
        if channel is not None and not _is_seen(request, channel):
            # Whoever guesses names learns nothing of the channel.
            raise unfed(channel) from error
        raise HTTPException(401, str(error), _challenge("invalid_token")) from error
    except NotFoundError:
        raise
    except AnabranchError:
        throttle.succeeded(None, client, time.time())  # the key was right
        raise
    throttle.succeeded(None, client, time.time())
    headers = {
        "Location": f"/whip/{publishing.channel.name}/{publishing.id}",
        "ETag": _tag(publishing.id),
        "Accept-Patch": FRAGMENT,
        "Cache-Control": "no-store",
    }
    return Response(answer, 201, headers, media_type="application/sdp")


def _is_seen(request: Request, channel: str) -> bool:
    site: Site = request.app.state.site
    return caller_of(request).may_see(site.channel(channel).definition, site.audience)


def _challenge(error: str | None = None) -> dict[str, str]:
    """Return how to authorise (RFC 6750 section 3)."""
    why = f', error="{error}"' if error is not None else ""
    return {"WWW-Authenticate": f'Bearer realm="whip"{why}'}


def _tag(publishing_id: str) -> str:
    return f'"{publishing_id[:8]}"'


@router.patch(
    "/{channel}/{publisher}",
    status_code=204,
    responses={
        412: {"description": "If-Match names another connection."},
        422: {"description": "An ICE restart: post a new offer instead."},
    },
)
async def trickle(channel: str, publisher: str, request: Request) -> Response:
    """Take a publisher's candidates (not needed, see above)."""
    found = _publishers(request).get(publisher)
    check_fragment(request)
    match = request.headers.get("if-match")
    if match is not None and match.strip() == "*":
        raise HTTPException(422, "an ICE restart is not possible: post a new offer")
    if match is not None and _tag(found.id) not in [tag.strip() for tag in match.split(",")]:
        raise HTTPException(412, "this is not the present connection")
    return Response(status_code=204)


@router.delete("/{channel}/{publisher}")
async def leave(channel: str, publisher: str, request: Request) -> Response:
    """End publishing: the channel shows its slate."""
    publishers = _publishers(request)
    await publishers.end(publishers.get(publisher))
    return Response(status_code=200)
