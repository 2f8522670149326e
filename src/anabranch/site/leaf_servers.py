"""Makes the leaf servers that a site is to have."""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace
from functools import partial

from anabranch.channels.seats import Seat
from anabranch.host import packet_rules
from anabranch.host.forwarding import family_of
from anabranch.media.janus import JanusLeaf
from anabranch.media.leaf import Feed, LeafPlace, LeafServer, Rung
from anabranch.media.native import NativeLeaf
from anabranch.media.rendition import Rendition
from anabranch.site.settings import LeafSettings, SiteSettings
from anabranch.site.sorting import neighbours


def make_leaf(settings: LeafSettings, place: LeafPlace) -> LeafServer:
    """Return a leaf server, to be started.

    One that has a namespace of its own must have :func:`packet_rules.watch_ports` there,
    which is how a Janus learns that a viewer has fallen silent.
    """
    if settings.kind == "anabranch":
        return NativeLeaf(place, threads=settings.threads)
    public = tuple(each for each in place.public_addresses if family_of(each) == "ip")
    place = replace(place, public_addresses=public)  # a Janus is at IPv4 addresses alone
    heard = None if place.netns is None else partial(packet_rules.heard_ports, place.netns)
    return JanusLeaf(place, heard=heard)


def warm_rungs(
    settings: LeafSettings, channels: Collection[str], ladder: Iterable[Rendition]
) -> list[Rung]:
    """Return what leaves keep at hand of these channels: every rendition of those that are warm."""
    renditions = list(ladder)
    return [
        Rung(Feed(channel, each.name), each.bitrate_kbps)
        for channel in sorted(channels)
        if settings.warm is None or channel in settings.warm
        for each in renditions
    ]


def keep_warm(
    leaves: Iterable[LeafServer],
    settings: SiteSettings,
    channels: Collection[str],
    seats: Iterable[Seat],
) -> None:
    """Have each leaf keep at hand what it is to: what is always warm, and what is near by.

    Args:
        channels: all, in the order of the dial.
        seats: of browsers; where they watch a channel, those beside it are kept, as many as the
            settings say.
    """
    always = warm_rungs(settings.leaf, channels, settings.ladder)
    watched = list(seats) if settings.seats.neighbours else []
    for leaf in leaves:
        near = near_rungs(settings, list(channels), [s for s in watched if s.leaf == leaf.name])
        leaf.keep_warm([*always, *(rung for rung in near if rung not in always)])


def near_rungs(settings: SiteSettings, dial: Sequence[str], watching: Iterable[Seat]) -> list[Rung]:
    """Return the channels beside those that are watched, as they would be seen after a change."""
    kbps = {each.name: each.bitrate_kbps for each in settings.ladder}
    feeds = {
        Feed(channel, seat.rendition)
        for seat in watching
        for channel in neighbours(dial, seat.channel, settings.seats.neighbours)
    }
    return [Rung(feed, kbps[feed.rendition]) for feed in sorted(feeds) if feed.rendition in kbps]
