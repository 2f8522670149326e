"""Publishers by WHIP: where the gate listens, and which ports are given out."""

import socket
from contextlib import closing
from ipaddress import IPv4Address
from pathlib import Path

import pytest

from anabranch.core.errors import UnavailableError
from anabranch.host import addresses
from anabranch.site.plan import is_access_link
from anabranch.site.settings import Ports, SiteSettings
from anabranch.site.whip import WhipPublishers


def publishers(ports: Ports, *public: str) -> WhipPublishers:
    settings = SiteSettings(
        "main", "run", Path("/run/x"), "sqlite://", ports=ports, public_addresses=public
    )
    return WhipPublishers(settings, {}, lambda work: work.close(), lambda _event: None)


def free_pair() -> int:
    """An even port that is free, as is the one above it."""
    return next(
        port
        for port in range(24000, 25000, 2)
        if addresses.is_udp_port_free(port) and addresses.is_udp_port_free(port + 1)
    )


def test_each_address_is_listened_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    twice = [IPv4Address("127.0.0.2"), IPv4Address("127.0.0.2")]
    monkeypatch.setattr(addresses, "local_addresses", lambda but: twice)
    monkeypatch.setattr(addresses, "global_addresses_6", lambda but: [])
    place = publishers(Ports(whip=free_pair()), "203.0.113.1", "127.0.0.2")._place()
    assert place.media_addresses == ("127.0.0.2", "127.0.0.1")
    assert place.public_addresses == ("203.0.113.1",)  # the others are told anyhow


def test_links_to_leaves_are_not_listened_at() -> None:
    assert is_access_link("ab28a4-2")
    assert is_access_link("ab28a4-in")
    assert is_access_link("aba0123abcd")  # of a node of another machine's site
    others = ("eth0", "ab", "ab28a4-", "ab28a4-2x", "aba0123abc", "abv0123abcd", "wlan0")
    assert not any(map(is_access_link, others))


async def test_a_taken_port_is_told_by_its_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(addresses, "local_addresses", lambda but: [])
    with closing(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as other:
        other.bind(("127.0.0.1", 0))
        made = publishers(Ports(whip=other.getsockname()[1]))
        with pytest.raises(UnavailableError, match=r"ports\.whip"):
            await made.prepare_for("whip")
        await made.prepare_for("rtmp")  # which needs no gate
        (note,) = await made.start(["test", "whip"])
        assert note.startswith("no WHIP: ")
        assert await made.start(["test", "/film.mp4"]) == []
        assert made.child is None


def test_ports_are_given_out_in_turn_and_taken_ones_passed_over() -> None:
    first = free_pair()
    made = publishers(Ports(handover=(first, first + 5)))
    taken = [port for port in range(first, first + 6) if not addresses.is_udp_port_free(port)]
    if taken:
        pytest.skip(f"other programs have {taken}")
    drawn = [made._draw_port() for _ in range(6)]
    assert sorted(drawn[:3]) == [first, first + 2, first + 4]
    assert drawn[:3] == drawn[3:]
    with closing(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as other:
        other.bind(("0.0.0.0", first + 3))  # the RTCP of the second
        assert {made._draw_port() for _ in range(4)} == {first, first + 4}
    narrow = publishers(Ports(handover=(first, first)))
    with pytest.raises(UnavailableError, match=r"ports\.handover"):
        narrow._draw_port()
