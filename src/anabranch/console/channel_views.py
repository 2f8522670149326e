"""A channel as the API shows it: to whoever sees it, and to who manages it."""

from collections import Counter
from typing import Any

from anabranch.channels.channel import Channel
from anabranch.console import models
from anabranch.console.people.caller import Caller
from anabranch.console.people.people import People
from anabranch.core.errors import NotFoundError
from anabranch.media.publisher_figures import Reception
from anabranch.media.source import WhipSource
from anabranch.site.publisher_reports import PATIENCE_S, PublisherReport
from anabranch.site.site import Site

_NOTHING = Reception(octets=0)


def listed(site: Site, caller: Caller) -> list[Channel]:
    """Return the channels in a caller's list."""
    return [c for c in site.channels if caller.is_listed(c.definition, site.audience)]


def names_listed(site: Site, caller: Caller) -> set[str]:
    """Return the names of the channels in a caller's list."""
    return {channel.name for channel in listed(site, caller)}


def is_listed(site: Site, caller: Caller, name: str) -> bool:
    """Say whether there is a channel of a name in a caller's list."""
    try:
        return caller.is_listed(site.channel(name).definition, site.audience)
    except NotFoundError:
        return False


async def channel_out(site: Site, people: People, caller: Caller, name: str) -> models.ChannelOut:
    """Return a channel as a caller sees it. Raises NotFoundError: there is none of this name."""
    await site.publisher_reports.look(patience=PATIENCE_S)
    return _public(site, site.channel(name), people, caller, site.seats.per_channel())


async def channels_out(site: Site, people: People, caller: Caller) -> list[models.ChannelOut]:
    """Return the channels in a caller's list."""
    await site.publisher_reports.look(patience=PATIENCE_S)
    return listing(site, people, caller)


def listing(site: Site, people: People, caller: Caller) -> list[models.ChannelOut]:
    """Return the channels in a caller's list, with what is known of publishers by now."""
    viewers = site.seats.per_channel()
    return [_public(site, channel, people, caller, viewers) for channel in listed(site, caller)]


def look(site: Site, caller: Caller) -> object:
    """Return what :func:`listing` is made of, unless the caller manages some of it.

    While it is equal to what it was, so is the list: what is added to the one belongs here, too.
    """
    return site.seats.version, [
        (
            channel.definition,
            channel.state,
            channel.public_detail,
            site.captions.are_made(channel),
            site.publisher_reports.of(channel.name),
        )
        for channel in listed(site, caller)
    ]


async def detail_out(
    site: Site, people: People, caller: Caller, name: str
) -> models.ChannelDetailOut:
    """Return a channel as who manages it sees it. Raises NotFoundError: there is none."""
    await site.publisher_reports.look(patience=PATIENCE_S)
    channel = site.channel(name)
    report = site.publisher_reports.of(name)
    return models.ChannelDetailOut(
        **_common(site, channel, people, caller, site.seats.per_channel()),
        publisher=models.PublisherDetailOut(**_figures(report), address=report.address)
        if report is not None
        else None,
        source=channel.described,
        once=channel.definition.once,
        key=channel.definition.key if channel.has_key else None,
        publish=site.lineup.publish_hints(name),
        mode=channel.mode,
        layers=site.whip.layers(channel),
    )


def _public(
    site: Site, channel: Channel, people: People, caller: Caller, viewers: Counter[str]
) -> models.ChannelOut:
    report = site.publisher_reports.of(channel.name)
    return models.ChannelOut(
        **_common(site, channel, people, caller, viewers),
        publisher=models.PublisherOut(**_figures(report)) if report is not None else None,
    )


def _common(
    site: Site, channel: Channel, people: People, caller: Caller, viewers: Counter[str]
) -> dict[str, Any]:
    definition = channel.definition
    manages = caller.may_manage(definition)
    return {
        "name": channel.name,
        "title": channel.title,
        "state": channel.state,
        "detail": channel.detail if manages else channel.public_detail,
        "viewers": viewers[channel.name],
        "whip": isinstance(channel.source, WhipSource),
        "now": definition.now,
        "captions": site.captions.are_made(channel),
        "visibility": definition.visibility,
        "owner": people.name_of(definition.owner) if manages else None,
        "may_manage": manages,
        "renditions": [
            models.RenditionOut(
                name=r.name, width=r.width, height=r.height, bitrate_kbps=r.bitrate_kbps
            )
            for r in site.settings.ladder
        ],
    }


def _figures(report: PublisherReport) -> dict[str, Any]:
    """Return the members of :class:`~anabranch.console.models.PublisherOut`: no address."""
    received, picture = report.received or _NOTHING, report.picture
    return {
        "way": report.way,
        "since": report.since,
        "bitrate_kbps": report.bitrate_kbps,
        "loss": report.loss,
        "jitter_ms": received.jitter_ms,
        "rtt_ms": received.rtt_ms,
        "allowed_kbps": received.allowed_kbps,
        "bytes_received": report.received.octets if report.received is not None else None,
        "packets_received": received.packets,
        "packets_lost": received.lost,
        "packets_repaired": received.repaired,
        "nacks": received.nacks,
        "plis": received.plis,
        "codec": picture.codec,
        "width": picture.width,
        "height": picture.height,
        "framerate": picture.framerate,
        "reconnects": report.reconnects,
    }
