"""A channel as the API shows it: to anybody, and to its operator."""

from typing import Any

from anabranch.console import models
from anabranch.media.publisher_figures import Reception
from anabranch.media.source import WhipSource
from anabranch.site.publisher_reports import PATIENCE_S, PublisherReport
from anabranch.site.site import Site

_NOTHING = Reception(octets=0)


async def channel_out(site: Site, name: str) -> models.ChannelOut:
    """Return a channel as anybody may see it. Raises NotFoundError: there is none of this name."""
    await site.publisher_reports.look(patience=PATIENCE_S)
    return _public(site, name)


async def channels_out(site: Site) -> list[models.ChannelOut]:
    """Return all channels as anybody may see them."""
    await site.publisher_reports.look(patience=PATIENCE_S)
    return [_public(site, channel.name) for channel in site.channels]


async def detail_out(site: Site, name: str) -> models.ChannelDetailOut:
    """Return a channel as its operator sees it. Raises NotFoundError: there is none."""
    await site.publisher_reports.look(patience=PATIENCE_S)
    channel = site.channel(name)
    report = site.publisher_reports.of(name)
    return models.ChannelDetailOut(
        **_common(site, name),
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


def _public(site: Site, name: str) -> models.ChannelOut:
    report = site.publisher_reports.of(name)
    return models.ChannelOut(
        **_common(site, name),
        publisher=models.PublisherOut(**_figures(report)) if report is not None else None,
    )


def _common(site: Site, name: str) -> dict[str, Any]:
    channel = site.channel(name)
    return {
        "name": channel.name,
        "title": channel.title,
        "state": channel.state,
        "detail": channel.detail,
        "viewers": site.seats.per_channel()[name],
        "whip": isinstance(channel.source, WhipSource),
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
