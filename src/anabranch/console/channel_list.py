"""The list of channels, which every page asks for every few seconds: put into words once."""

import hashlib

from fastapi import Response

from anabranch.console import models
from anabranch.console.channel_views import listing, look
from anabranch.console.entity_tags import is_among
from anabranch.console.people.caller import NOBODY, Caller
from anabranch.console.people.people import People
from anabranch.site.publisher_reports import PATIENCE_S
from anabranch.site.site import Site


class ChannelList:
    """Answers with the list of whoever asks.

    That of everybody who is not signed in is the same, and is made anew only if something in it is
    not as it was. Those of others are made for each, since they may differ in every channel.
    """

    def __init__(self, site: Site, people: People) -> None:
        self._site = site
        self._people = people
        self._key: object = None
        self._body = b""
        self._tag = ""

    async def answer(self, caller: Caller, known: str | None) -> Response:
        """Return a caller's list, or 304 if it has it (RFC 9110 section 13.1.2).

        Args:
            caller: who asks.
            known: ``If-None-Match``.
        """
        await self._site.publisher_reports.look(patience=PATIENCE_S)
        if caller.role is None:
            body, tag = self._for_everybody()
        else:
            body = self._made_for(caller)
            tag = _tag_of(body)
        headers = {
            "ETag": tag,
            # What only some may see no shared cache keeps, nor gives to others what it kept.
            "Cache-Control": "no-cache" if caller.role is None else "private, no-cache",
            "Vary": "Authorization, Cookie",
        }
        if known is not None and is_among(tag, known):
            return Response(status_code=304, headers=headers)
        return Response(body, headers=headers, media_type="application/json")

    def _for_everybody(self) -> tuple[bytes, str]:
        key = look(self._site, NOBODY)
        if key != self._key:
            self._body = self._made_for(NOBODY)
            self._key, self._tag = key, _tag_of(self._body)
        return self._body, self._tag

    def _made_for(self, caller: Caller) -> bytes:
        made = models.ChannelsOut(channels=listing(self._site, self._people, caller))
        return made.model_dump_json().encode()


def _tag_of(body: bytes) -> str:
    return f'"{hashlib.sha256(body).hexdigest()[:16]}"'
