"""What the agent of a guest answers to the root: its leaf server, over HTTP.

Nobody is asked who they are here: only the root gets to the socket (:mod:`anabranch.site.splice`).
"""

import json
from base64 import b64encode
from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import asdict
from typing import Any

from fastapi import FastAPI
from fastapi.responses import StreamingResponse
from pydantic import BaseModel

from anabranch.console import problems
from anabranch.console.limits import LimitBody
from anabranch.core.errors import NotFoundError
from anabranch.media.leaf import Feed, LeafServer, LeafUnavailableError, Rung
from anabranch.site.leaf_news import LeafNews

_MAX_BODY = 128 * 1024


class FeedIn(BaseModel):
    """What a viewer is to see."""

    channel: str
    rendition: str

    @property
    def feed(self) -> Feed:
        return Feed(self.channel, self.rendition)


class RungIn(FeedIn):
    """A rung of a ladder."""

    kbps: int

    @property
    def rung(self) -> Rung:
        return Rung(self.feed, self.kbps)


class LadderIn(BaseModel):
    """What may be shown, or is to be kept at hand."""

    ladder: list[RungIn] = []

    @property
    def rungs(self) -> list[Rung]:
        return [each.rung for each in self.ladder]


class ShowIn(FeedIn, LadderIn):
    """What a viewer is to see, and what may take its place."""

    pinned: bool = False


class OfferIn(ShowIn):
    """A viewer's offer."""

    offer: str


class ChangeOut(BaseModel):
    """Whether a viewer waits for a key frame now."""

    waits: bool


class KeyFrameOut(BaseModel):
    """A key frame: Annex B in base64, and its age in seconds."""

    annex_b: str
    age_s: float


class ViewingOut(BaseModel):
    """The answer to it."""

    id: str
    answer: str


def make_leaf_api(news: LeafNews) -> FastAPI:
    """Return the application over the leaf server that ``news`` follows."""
    app = FastAPI(title="A leaf of Anabranch", openapi_url=None)
    app.add_middleware(LimitBody, limit=_MAX_BODY)
    problems.install(app)

    def leaf() -> LeafServer:
        if news.leaf is None:
            raise LeafUnavailableError("there is no leaf server yet")
        return news.leaf

    @app.post("/viewings", status_code=201)
    async def watch(wanted: OfferIn) -> ViewingOut:
        viewing = await leaf().watch(
            wanted.feed, wanted.offer, ladder=wanted.rungs, pinned=wanted.pinned
        )
        news.seated(viewing)
        return ViewingOut(id=viewing.id, answer=viewing.answer)

    @app.put("/viewings/{viewing}")
    async def change(viewing: str, wanted: ShowIn) -> ChangeOut:
        waits = await leaf().change(viewing, wanted.feed, ladder=wanted.rungs, pinned=wanted.pinned)
        news.changed(viewing, wanted.feed)
        return ChangeOut(waits=waits)

    @app.put("/warm", status_code=204)
    async def keep_warm(wanted: LadderIn) -> None:
        news.keep_warm(wanted.rungs)

    @app.get("/viewings/{viewing}")
    async def statistics(viewing: str) -> dict[str, Any]:
        found = await leaf().statistics(viewing)
        if found is None:
            raise NotFoundError("there is no such viewing")
        return asdict(found)

    @app.get("/key_frames/{channel}/{rendition}")
    async def key_frame(channel: str, rendition: str) -> KeyFrameOut:
        found = await leaf().key_frame(Feed(channel, rendition))
        if found is None:
            raise NotFoundError("no key frame is at hand")
        return KeyFrameOut(annex_b=b64encode(found.annex_b).decode(), age_s=found.age_s)

    @app.delete("/viewings/{viewing}", status_code=204)
    async def close(viewing: str) -> None:
        await leaf().close(viewing)

    @app.get("/news")
    async def tell() -> StreamingResponse:
        return StreamingResponse(lines(), media_type="application/x-ndjson")

    async def lines() -> AsyncIterator[bytes]:
        async with aclosing(news.listen()) as happening:
            async for each in happening:
                yield json.dumps(each).encode() + b"\n"

    return app
