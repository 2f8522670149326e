"""Channels: listed, added, changed, removed; and what happens to them, as a stream."""

from collections.abc import AsyncIterable
from contextlib import aclosing
from typing import Annotated

from fastapi import APIRouter, Depends, Header, HTTPException, Response
from fastapi.sse import EventSourceResponse, ServerSentEvent

from anabranch.channels.channel import Channel
from anabranch.channels.definitions import SAME, Change
from anabranch.console import models
from anabranch.console.channel_list import ChannelList
from anabranch.console.channel_views import (
    channel_out,
    detail_out,
    is_listed,
    names_listed,
)
from anabranch.console.people.caller import Caller
from anabranch.console.people.credentials import Credentials
from anabranch.console.people.doors import Doors
from anabranch.console.people.guard import caller_of, credentials_of
from anabranch.console.people.people import People
from anabranch.console.people.roles import Role
from anabranch.console.problems import Answers
from anabranch.core.events import Event
from anabranch.core.names import new_key
from anabranch.media.source import RtmpSource, RtpSource, SrtSource, TestSource, WhipSource
from anabranch.media.source_text import parse_source
from anabranch.site.site import Site

MAX_OWNED = 20
"""Channels that one producer may own: each costs an encoder."""
TheCaller = Annotated[Caller, Depends(caller_of)]


def make_router(site: Site, people: People, doors: Doors) -> APIRouter:
    """Return the routes under ``/api/channels`` and ``/api/events``."""
    router = APIRouter(prefix="/api", tags=["channels"])
    absent: Answers = {404: {"description": "No such channel, or none for who asks."}}
    taken: Answers = {
        409: {"description": "Name, key or port are another's, or there are too many."}
    }

    lists = ChannelList(site, people)

    @router.get(
        "/channels",
        response_model=models.ChannelsOut,
        responses={304: {"description": "It is the one that `If-None-Match` names."}},
    )
    async def channels(
        caller: TheCaller,
        if_none_match: Annotated[str | None, Header(max_length=2000)] = None,
    ) -> Response:
        """List the channels that are public, and those that are for whoever asks."""
        return await lists.answer(caller, if_none_match)

    @router.get("/channels/{name}", responses=absent)
    async def channel(name: str, caller: TheCaller) -> models.ChannelOut:
        """Show one channel."""
        return await channel_out(site, people, caller, name)

    @router.post("/channels", status_code=201, responses=taken)
    async def add(wanted: models.ChannelIn, caller: TheCaller) -> models.ChannelDetailOut:
        """Add a channel and put it on the air; a producer owns what it adds."""
        _check_source(wanted.source, caller)
        await site.lineup.add(
            wanted.name,
            wanted.source,
            title=wanted.title,
            once=wanted.once,
            key=wanted.key,
            visibility=wanted.visibility,
            owner=_owner(wanted.owner, caller, people),
            most=None if caller.reaches(Role.OPERATOR) else MAX_OWNED,
        )
        return await detail_out(site, people, caller, wanted.name)

    @router.get("/channels/{name}/detail", responses=absent)
    async def detail(name: str, caller: TheCaller) -> models.ChannelDetailOut:
        """Show a channel with its way in and its key."""
        return await detail_out(site, people, caller, name)

    @router.patch("/channels/{name}", responses={**absent, **taken})
    async def change(
        name: str, wanted: models.ChannelPatch, caller: TheCaller
    ) -> models.ChannelDetailOut:
        """Change a channel, whole or not at all; its viewers stay.

        Another title, visibility or owner does not touch the picture. With another source the slate
        is shown until it is there; with another key whoever publishes now is ended.
        """
        if wanted.source is not None:
            _check_source(wanted.source, caller, site.channel(name))
        owner = SAME if "owner" not in wanted.model_fields_set else wanted.owner
        if owner is not SAME and not caller.reaches(Role.OPERATOR):
            raise HTTPException(403, "only operators give channels away")
        if wanted.new_key and wanted.key is not None:
            raise HTTPException(422, "either a key, or a new one that is drawn")
        await site.change_channel(
            name,
            Change(
                title=wanted.title,
                now=wanted.now,
                source=wanted.source,
                once=wanted.once,
                key=new_key() if wanted.new_key else wanted.key,
                visibility=wanted.visibility,
                owner=people.account(owner).id if isinstance(owner, str) else owner,
            ),
        )
        await doors.look()
        return await detail_out(site, people, caller, name)

    @router.delete("/channels/{name}", status_code=204, responses=absent)
    async def remove(name: str) -> None:
        """Take a channel off the air; its viewers' seats end."""
        await site.remove_channel(name)

    @router.get("/events", response_class=EventSourceResponse)
    async def events(
        shown: Annotated[Credentials, Depends(credentials_of)],
    ) -> AsyncIterable[ServerSentEvent]:
        """Stream what changes, as server-sent events.

        What is told of channels is told of those in the list of whoever asks. One that leaves the
        list is `channel.removed`, one that enters it `channel.added`.
        """
        told = names_listed(site, people.caller(shown))
        async with aclosing(site.events.subscribe()) as happening:
            async for event in happening:
                # Of all channels one is looked at: there may be many, and many who listen.
                there = is_listed(site, people.caller(shown), event.subject)
                kind = kind_told(event, told, there=there)
                if kind is not None:
                    out = models.EventOut(
                        kind=kind, subject=event.subject, time=event.time, data={}
                    )
                    yield ServerSentEvent(data=out.model_dump())

    return router


def kind_told(event: Event, told: set[str], *, there: bool) -> str | None:
    """Return as what an event is told to somebody, or None if not at all.

    Args:
        event: what happened.
        told: the channels that this one was told of, by name; what is told is noted in it.
        there: whether the channel that the event is about is in its list now.
    """
    name = event.subject
    match event.kind.partition(".")[0]:
        case "leaf":
            return event.kind
        case "seat":
            return event.kind if there and name in told else None
        case "channel" if there:
            new = name not in told
            told.add(name)
            return "channel.added" if new else event.kind
        case "channel" if name in told:
            told.discard(name)
            return "channel.removed"
    return None


def _owner(named: str | None, caller: Caller, people: People) -> str | None:
    """Return whose a new channel is to be."""
    if caller.reaches(Role.OPERATOR):
        if named is not None:
            return people.account(named).id
        return None if caller.account is None else caller.account.id
    assert caller.account is not None
    if named is not None and named != caller.account.name:
        raise HTTPException(403, "only operators add channels for others")
    return caller.account.id


def _check_source(text: str, caller: Caller, channel: Channel | None = None) -> None:
    """See that a caller may have the director read a source.

    Files and URLs are read by the director's machine, with what it may read and reach: that is an
    operator's to say. Producers send to the site.

    Raises:
        HTTPException: it may not.
        SourceError: it is no source.
    """
    if caller.reaches(Role.OPERATOR):
        return
    if channel is not None and text.strip() == channel.definition.source:
        return
    source = parse_source(text)
    sent = isinstance(source, (TestSource, RtmpSource, WhipSource)) or (
        isinstance(source, (SrtSource, RtpSource)) and not source.host
    )
    if not sent:
        raise HTTPException(
            403, "only operators name files and URLs: use test, rtmp, srt, rtp or whip"
        )
