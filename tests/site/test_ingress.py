"""The ingress' plan, and which sources come by it."""

from collections.abc import Callable
from ipaddress import IPv4Network

import pytest

from anabranch.core.errors import UsageError
from anabranch.core.events import Event
from anabranch.host.gateway import Protocol, Way
from anabranch.host.journal import Journal
from anabranch.media.source import RtpSource
from anabranch.media.source_text import parse_source
from anabranch.site.doors import Entry
from anabranch.site.ingress import (
    Ingress,
    goes_by_ingress,
    make_ingress,
    make_ingress_plan,
    unguarded,
)
from anabranch.site.plan import is_access_link, make_plan
from anabranch.site.settings import ACCESS_6, Addresses, IngressSettings, SiteSettings

Make = Callable[..., SiteSettings]


def ingress_of(settings: SiteSettings) -> Ingress:
    def on_event(_event: Event) -> None:
        pass

    plan = make_plan(settings)
    return make_ingress(settings, plan, Journal(settings.run_dir), on_event)


def test_the_ingress_has_addresses_and_names_of_its_own(settings: Make) -> None:
    plan = make_plan(settings())
    mine = make_ingress_plan(settings(), plan.root, len(plan.leaves))
    assert (str(mine.ends.outer), str(mine.ends.inner)) == ("10.97.0.253", "10.97.0.254")
    ends = {leaf.access.address for leaf in plan.leaves if leaf.access is not None}
    assert not {mine.outer.address, mine.inner.address} & ends
    assert mine.dpid not in {node.dpid for node in plan.nodes.values()}
    assert mine.namespace not in {node.namespace for node in plan.nodes.values()}
    assert mine.table != plan.table
    assert is_access_link(mine.outer.device)
    assert len(mine.outer.device) <= 15


def test_an_access_network_that_the_leaves_fill_is_told(settings: Make) -> None:
    tight = settings(addresses=Addresses(access=IPv4Network("10.97.0.0/29")))
    plan = make_plan(tight)
    with pytest.raises(UsageError, match=r"access network 10\.97\.0\.0/29 has no room"):
        make_ingress_plan(tight, plan.root, len(plan.leaves))


@pytest.mark.parametrize(
    ("source", "goes"),
    [
        ("rtmp", True),
        ("whip", True),
        ("srt:9000", True),
        ("rtp:5004", True),
        ("rtp://0.0.0.0:5004", True),
        ("rtp://192.0.2.1:5004", False),
        ("rtp://239.1.2.3:5004", False),
        ("srt://[::]:9000", False),
        ("udp://:5000", False),
        ("srt://192.0.2.1:9000", False),
        ("/film.mp4", False),
        ("test", False),
    ],
)
def test_what_producers_send_to_any_address_goes_by_the_ingress(source: str, goes: bool) -> None:
    assert goes_by_ingress(parse_source(source)) is goes


async def test_where_others_come_by_ipv6_the_cable_has_addresses_for_them(settings: Make) -> None:
    by_4 = ingress_of(settings(public_addresses=("192.0.2.1",)))
    assert (by_4.by_6, by_4.plan.ends.inner_6, len(by_4.addresses)) == (False, (), 1)
    both = ingress_of(settings(public_addresses=("192.0.2.1", "2001:db8::1")))
    ends = both.plan.ends
    assert both.addresses == (str(ends.inner), str(ends.inner_6[0]))
    assert all(each in ACCESS_6 for each in (ends.inner_6[0], ends.outer_6[0]))
    assert all(each.is_link_local for each in (ends.inner_6[1], ends.outer_6[1]))
    assert len({*ends.inner_6, *ends.outer_6}) == 4


def test_who_does_not_come_by_it_is_told(settings: Make) -> None:
    on = IngressSettings(enabled=True)
    both = ("192.0.2.1", "2001:db8::1")
    assert unguarded(settings(ingress=on, switches=True, public_addresses=both)) == []
    (note,) = unguarded(settings(ingress=on, switches=False))
    assert "no switches" in note
    assert unguarded(settings(switches=False, public_addresses=both)) == []


async def test_how_each_kind_comes_in(settings: Make) -> None:
    ingress = ingress_of(settings())
    outer = ingress.plan.ends.outer

    def entrance(text: str) -> tuple[Entry, list[int], list[int]]:
        found = ingress._entrance(parse_source(text))
        return (
            found.entry,
            [way.port for way in found.ways],
            [way.port for way in found.reports],
        )

    assert entrance("rtmp") == (Entry.SERVER, [1935], [])
    assert entrance("whip") == (Entry.SERVER, [8189], [])
    assert entrance("srt:9000") == (Entry.LISTENER, [9000], [])
    assert entrance("rtp:5004") == (Entry.FIRST_PACKET, [5004], [5005])
    sound = "rtp://:5004?audio_port=5006"
    assert entrance(sound) == (Entry.FIRST_PACKET, [5004, 5006], [5005, 5007])
    assert ingress._entrance(parse_source("rtmp")).ways == (Way(Protocol.TCP, 1935),)
    here = ingress._entrance(RtpSource(5004, sender="127.0.0.1"))
    assert here.only == {outer}  # as which the switch sees programs of this machine
    with pytest.raises(UsageError, match="does not come by the ingress"):
        ingress._entrance(parse_source("test"))
