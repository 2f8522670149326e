"""The overlay multicast addresses of a channel's streams. Pure."""

from collections.abc import Sequence

from anabranch.channels.channel import Channel
from anabranch.media.rendition import AUDIO, transport_of
from anabranch.site.carriage import STREAMS, StreamId, group_address
from anabranch.site.settings import SiteSettings


def of_media(settings: SiteSettings, channel: Channel) -> dict[StreamId, str]:
    """Return those of the sound and of the renditions, which are RTP."""
    return _numbered(settings, channel, [AUDIO, *_renditions(settings)], 0)


def of_transport(settings: SiteSettings, channel: Channel) -> dict[StreamId, str]:
    """Return those of the transport streams, as many as there are addresses for.

    Of a ladder of more than seven renditions the lower ones have none.
    """
    names = [transport_of(name) for name in _renditions(settings)]
    first = 1 + len(names)
    return _numbered(settings, channel, names[: max(0, STREAMS - first)], first)


def _renditions(settings: SiteSettings) -> list[str]:
    return [rendition.name for rendition in settings.ladder]


def _numbered(
    settings: SiteSettings, channel: Channel, names: Sequence[str], first: int
) -> dict[StreamId, str]:
    groups, slot = settings.addresses.groups, channel.definition.slot
    return {
        StreamId(channel.name, name): group_address(groups, slot, index)
        for index, name in enumerate(names, first)
    }
