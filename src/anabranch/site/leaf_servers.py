"""Makes the leaf servers that a site is to have."""

from collections.abc import Collection, Iterable
from dataclasses import replace
from functools import partial

from anabranch.host import network
from anabranch.host.forwarding import family_of
from anabranch.media.janus import JanusLeaf
from anabranch.media.leaf import Feed, LeafPlace, LeafServer, Rung
from anabranch.media.native import NativeLeaf
from anabranch.media.rendition import Rendition
from anabranch.site.settings import LeafSettings


def make_leaf(settings: LeafSettings, place: LeafPlace) -> LeafServer:
    """Return a leaf server, to be started.

    One that has a namespace of its own must have :func:`network.watch_ports` there, which is how a
    Janus learns that a viewer has fallen silent.
    """
    if settings.kind == "anabranch":
        return NativeLeaf(place, threads=settings.threads)
    public = tuple(each for each in place.public_addresses if family_of(each) == "ip")
    place = replace(place, public_addresses=public)  # a Janus is at IPv4 addresses alone
    heard = None if place.netns is None else partial(network.heard_ports, place.netns)
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
