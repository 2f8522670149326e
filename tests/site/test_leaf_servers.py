"""Which leaf servers a site has, and where, without switches."""

import socket
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
from tests.site.conftest import Make

from anabranch.channels.seats import Seat
from anabranch.core.errors import UnavailableError
from anabranch.host.addresses import free_udp_port, global_addresses_6, is_udp_port_free
from anabranch.media.janus import JanusLeaf
from anabranch.media.leaf import Feed, LeafPlace, Rung
from anabranch.media.native import NativeLeaf
from anabranch.media.rendition import DEFAULT_LADDER
from anabranch.site.leaf_servers import make_leaf, near_rungs, warm_rungs
from anabranch.site.plan import is_access_link
from anabranch.site.settings import LeafSettings, Ports, SeatSettings
from anabranch.site.underlay import DirectUnderlay
from anabranch.site.views import _owner

PLACE = LeafPlace(
    name="leaf1",
    directory=Path("/nowhere"),
    run_id="run",
    netns=None,
    media_addresses=("10.97.0.2",),
    public_addresses=(),
    media_ports=(20000, 20099),
    inlet_interface="10.98.0.3",
    inlet_ports=(21000, 21099),
)


def test_a_leaf_server_is_of_the_kind_that_is_asked_for() -> None:
    assert isinstance(make_leaf(LeafSettings(), PLACE), NativeLeaf)
    assert isinstance(make_leaf(LeafSettings("janus"), PLACE), JanusLeaf)


def test_a_janus_is_told_of_no_ipv6() -> None:
    both = replace(PLACE, public_addresses=("2001:db8::1", "192.0.2.1"))
    janus, own = make_leaf(LeafSettings("janus"), both), make_leaf(LeafSettings(), both)
    assert isinstance(janus, JanusLeaf)
    assert janus._place.public_addresses == ("192.0.2.1",)
    assert isinstance(own, NativeLeaf)
    assert own._place == both


def test_its_process_belongs_to_its_node() -> None:
    assert _owner("janus:leaf1") == _owner("leaf:leaf1") == "leaf1"


def test_every_rendition_of_a_warm_channel_is_kept() -> None:
    channels = ("sport", "news", "films")
    assert warm_rungs(LeafSettings("anabranch"), channels, DEFAULT_LADDER) == []
    some = LeafSettings("anabranch", warm=frozenset({"news", "nosuch"}))
    assert warm_rungs(some, channels, DEFAULT_LADDER) == [
        Rung(Feed("news", "high"), 1000),
        Rung(Feed("news", "low"), 300),
    ]
    every = warm_rungs(LeafSettings("anabranch", warm=None), channels, DEFAULT_LADDER)
    assert {rung.feed.channel for rung in every} == set(channels)


def test_what_is_beside_a_watched_channel_is_kept_as_it_would_be_seen(settings: Make) -> None:
    made = settings(seats=SeatSettings(neighbours=1))
    dial = ["one", "two", "three", "four"]
    watching = [Seat("two", "low", "leaf1", "1"), Seat("two", "high", "leaf1", "2")]
    assert near_rungs(made, dial, watching) == [
        Rung(Feed(channel, rendition), kbps)
        for channel in ("one", "three")
        for rendition, kbps in (("high", 1000), ("low", 300))
    ]
    assert near_rungs(made, dial, []) == []
    assert near_rungs(settings(), dial, watching) == []


def test_without_switches_our_own_takes_a_free_port_at_every_address(settings: Make) -> None:
    with closing(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as taken:
        taken.bind(("0.0.0.0", 0))
        port = taken.getsockname()[1]
        span = (port, port + 30) if port < 65000 else (port - 30, port)
        made = settings(ports=Ports(media=span), leaf=LeafSettings("anabranch"))
        (leaf,) = DirectUnderlay(made, lambda _stream, _targets: None).leaves()
    assert isinstance(leaf, NativeLeaf)
    place = leaf._place
    assert place.media_addresses
    assert place.media_ports[0] != port
    assert span[0] <= place.media_ports[0] <= span[1]
    lasting = global_addresses_6(but=is_access_link)
    assert set(map(str, lasting)) <= set(place.media_addresses)


def test_a_port_that_is_taken_at_one_address_is_not_free() -> None:
    with closing(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        assert not is_udp_port_free(port, "127.0.0.1")
        assert not is_udp_port_free(port)  # at all addresses
        with pytest.raises(UnavailableError, match=f"{port} to {port}"):
            free_udp_port(["127.0.0.2", "127.0.0.1"], range(port, port + 1))
    assert is_udp_port_free(port, "127.0.0.1")
    assert free_udp_port(["127.0.0.1"], range(port, port + 1)) == port
