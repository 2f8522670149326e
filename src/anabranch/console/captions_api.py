"""The route by which producers send captions."""

from typing import Annotated

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field

from anabranch.site.captions import LONGEST_S, MAX_TEXT
from anabranch.site.site import Site


class CaptionIn(BaseModel):
    """What is said now."""

    model_config = ConfigDict(extra="forbid")

    text: Annotated[
        str,
        Field(max_length=2 * MAX_TEXT, description="lines, by line feeds; empty: take it away"),
    ]
    duration_s: Annotated[
        float | None,
        Field(ge=0.2, le=LONGEST_S, description="seconds; null: as long as it takes to read it"),
    ] = None


class CaptionOut(BaseModel):
    """What is shown, and for how long."""

    text: str
    duration_s: float


def make_router(site: Site) -> APIRouter:
    """Return the route ``/api/channels/NAME/captions``."""
    router = APIRouter(prefix="/api", tags=["producers"])

    @router.post(
        "/channels/{name}/captions",
        responses={429: {"description": "More than ten a second; try again after Retry-After."}},
    )
    async def caption(name: str, said: CaptionIn) -> CaptionOut:
        """Show a caption over the picture of all who have captions on."""
        shown = site.captions.show(site.channel(name), said.text, said.duration_s)
        return CaptionOut(text=shown.text, duration_s=shown.duration_s)

    return router
