"""Reads what WHEP and WHIP requests bring."""

from fastapi import HTTPException, Request

from anabranch.media.leaf import OfferError
from anabranch.media.sdp import MAX_SDP

FRAGMENT = "application/trickle-ice-sdpfrag"


async def read_offer(request: Request) -> str:
    """Return the offer in a request's body.

    Raises:
        HTTPException: it is of another type (415) or too large (413).
        OfferError: it is no text.
    """
    if _type_of(request) != "application/sdp":
        raise HTTPException(415, "the offer must come as application/sdp")
    body = await request.body()
    if len(body) > MAX_SDP:
        raise HTTPException(413, f"an offer has at most {MAX_SDP} bytes")
    try:
        return body.decode()
    except UnicodeDecodeError as error:
        raise OfferError("the offer is not UTF-8 text") from error


def check_fragment(request: Request) -> None:
    """See that a PATCH brings candidates (RFC 8840). Raises HTTPException (415)."""
    if _type_of(request) != FRAGMENT:
        raise HTTPException(415, f"a patch must be {FRAGMENT}")


def _type_of(request: Request) -> str:
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()
