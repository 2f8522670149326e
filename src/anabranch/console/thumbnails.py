"""Pictures of the channels, for pages that list them."""

from functools import partial
from typing import Annotated

from fastapi import APIRouter, Header, Response

from anabranch.console.entity_tags import is_among
from anabranch.media.thumbnail import jpeg_of
from anabranch.site.site import Site
from anabranch.site.thumbnails import FRESH_S, Thumbnails


def make_router(site: Site) -> APIRouter:
    """Return the route of the channels' pictures."""
    decode = partial(jpeg_of, run_id=site.settings.run_id)
    thumbnails = Thumbnails(site, site.settings.ladder, decode)
    router = APIRouter(prefix="/api", tags=["viewers"])

    @router.get(
        "/channels/{name}/thumbnail.jpg",
        response_class=Response,
        responses={
            200: {"content": {"image/jpeg": {}}, "description": "A JPEG, at most 320 wide."},
            304: {"description": "It is the one that `If-None-Match` names."},
            404: {"description": "No such channel, or no picture of it at present."},
        },
    )
    async def thumbnail(
        name: str, if_none_match: Annotated[str | None, Header(max_length=2000)] = None
    ) -> Response:
        """Show what a channel looks like now: a key frame that a leaf server holds.

        At most one in five seconds is made. Janus keeps no key frames, so there is none with
        `leaf: janus`. A channel that no leaf has any more shows its last one for ten minutes.
        """
        found = await thumbnails.of(name)
        # What only some may see no shared cache keeps (RFC 9111 section 5.2.2.7).
        everybodys = site.channel(name).definition.visibility == "public"
        tag = f'"{found.tag}"'
        headers = {
            "ETag": tag,
            "Cache-Control": f"{'public' if everybodys else 'private'}, max-age={FRESH_S:.0f}",
            "X-Content-Type-Options": "nosniff",
        }
        if if_none_match is not None and is_among(tag, if_none_match):
            return Response(status_code=304, headers=headers)
        return Response(found.jpeg, headers=headers, media_type="image/jpeg")

    return router
