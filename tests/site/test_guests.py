"""Guests: their numbers, their terms, and from whom they may hang."""

from contextlib import suppress
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Interface, IPv4Network
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from anabranch.core.errors import ConflictError, NotFoundError, UsageError
from anabranch.fabric.bridges import Bridge, Device
from anabranch.site.guests import (
    Guest,
    GuestBook,
    Terms,
    Way,
    digest_of,
    guest_address,
    hub_address,
    key_of,
    parents_of,
    read_features,
    room_for_guests,
    to_features,
    ways_of,
)
from anabranch.tree.model import Role
from anabranch.tree.soleil.codec import decode, encode
from anabranch.tree.soleil.messages import Hello, Message

TUNNELS = IPv4Network("10.96.0.0/24")
OVERLAY = IPv4Network("10.98.0.0/24")
KEY = "A" * 43 + "="
ROOM = range(4, 8)
TERMS = Terms(
    site="main",
    address=IPv4Interface("10.96.0.9/24"),
    hub_key=KEY,
    hub_port=7443,
    hub_life="abc",
    controller="ssl:10.96.0.1:6653",
    dpid=0xAB0000000001,
    host=IPv4Interface("10.98.0.8/24"),
    host_mac="02:ab:00:00:00:07",
)
ways = st.lists(
    st.builds(
        Way,
        device=st.integers(0, 899).map(lambda number: f"to{number}"),
        port_no=st.integers(100, 999),
        remote=st.ip_addresses(network=TUNNELS),
        key=st.integers(0, 2**24 - 1),
        rate_mbit=st.floats(0.1, 1e5),
        bfd_ms=st.integers(0, 1000),
    ),
    max_size=120,
).map(tuple)


def test_a_guest_keeps_its_number_over_restarts(tmp_path: Path) -> None:
    book = GuestBook(tmp_path / "guests.json", ROOM)
    first = book.invite("far", Role.LEAF)
    other = book.invite("farther", Role.RELAY, parents=("relay",), rate_mbit=5, capacity=None)
    assert (first.index, other.index) == (7, 6)
    assert book.invite("far", Role.LEAF, capacity=3).index == 7
    again = GuestBook(tmp_path / "guests.json", ROOM)
    assert list(again) == list(book)
    assert again["farther"] == other
    assert (tmp_path / "guests.json").stat().st_mode & 0o777 == 0o600
    again.remove("far")
    assert again.invite("new", Role.LEAF).index == 7


def test_a_book_that_is_full_or_wrong_says_so(tmp_path: Path) -> None:
    file = tmp_path / "guests.json"
    book = GuestBook(file, ROOM)
    for number in range(4):
        book.invite(f"far{number}", Role.LEAF)
    with pytest.raises(ConflictError, match="room"):
        book.invite("far5", Role.LEAF)
    with pytest.raises(ConflictError, match="leaf"):
        book.invite("far1", Role.RELAY)
    with pytest.raises(UsageError, match="one root"):
        book.invite("far1", Role.ROOT)
    with pytest.raises(UsageError, match="rate"):
        book.invite("far1", Role.LEAF, rate_mbit=0)
    with pytest.raises(NotFoundError):
        book.remove("nobody")
    with pytest.raises(UsageError, match="too many nodes"):
        GuestBook(file, range(5, 8))
    file.write_text("[{}]")
    with pytest.raises(UsageError, match="no list of guests"):
        GuestBook(file, ROOM)


@given(ways)
def test_terms_pass_through_the_codec_unchanged(links: tuple[Way, ...]) -> None:
    terms = replace(TERMS, ways=links)
    hello = Hello("root", Role.ROOT, features=to_features(terms))
    body = decode(encode(Message(hello, 0))).body
    assert isinstance(body, Hello)
    read = read_features(body.features)
    assert read == terms
    assert digest_of(read) == digest_of(terms)


def test_terms_that_differ_have_another_digest() -> None:
    assert digest_of(TERMS) != digest_of(replace(TERMS, hub_life="other"))
    assert TERMS.same_but_ways(replace(TERMS, hub_life="other", ways=()))
    assert not TERMS.same_but_ways(replace(TERMS, dpid=1))
    assert TERMS.hub == IPv4Address("10.96.0.1")


@given(st.dictionaries(st.sampled_from(["terms0", "terms1", "wireguard"]), st.text()))
def test_whatever_is_in_features_is_terms_or_refused(features: dict[str, str]) -> None:
    with suppress(UsageError):
        read_features(features)


@pytest.mark.parametrize("wrong", [{"hub_key": "x"}, {"site": "../x"}])
def test_terms_that_would_end_up_in_a_file_name_or_command_are_checked(
    wrong: dict[str, str],
) -> None:
    with pytest.raises(UsageError):
        read_features(to_features(replace(TERMS, **wrong)))  # type: ignore[arg-type]


def test_addresses_and_numbers() -> None:
    assert hub_address(TUNNELS) == IPv4Interface("10.96.0.1/24")
    assert guest_address(TUNNELS, 0) == IPv4Interface("10.96.0.2/24")
    room = room_for_guests(4, OVERLAY, TUNNELS)
    assert room == range(4, 127)
    assert OVERLAY[room[-1] + 1] == IPv4Address("10.98.0.127")  # the last of the lower half
    small = room_for_guests(4, OVERLAY, IPv4Network("10.96.0.0/29"))
    assert guest_address(IPv4Network("10.96.0.0/29"), small[-1]).ip == IPv4Address("10.96.0.6")
    assert len(room_for_guests(300, OVERLAY, TUNNELS)) == 0


@given(st.integers(0, 898), st.integers(0, 898), st.integers(0, 898), st.integers(0, 898))
def test_two_links_never_have_one_key(a: int, b: int, c: int, d: int) -> None:
    assert (key_of(a, b) == key_of(c, d)) == ({a, b} == {c, d})
    assert 0 <= key_of(a, b) < 1 << 24


def test_a_guests_links_are_those_of_its_bridge() -> None:
    bridge = Bridge(
        "overlay",
        (
            Device(name="sw-host", ofport=1),
            Device(name="to1", ofport=101),
            Device(name="to6", ofport=106),
            Device(name="reserve0", ofport=1000),
        ),
    )
    hub, other = IPv4Address("10.96.0.1"), IPv4Address("10.96.0.8")
    found = ways_of(Guest("far", Role.LEAF, 7), bridge, {1: hub, 6: other}, bfd_ms=50)
    assert found == (
        Way("to1", 101, hub, key_of(1, 7), 100.0, 50),
        Way("to6", 106, other, key_of(6, 7), 100.0, 50),
    )


def test_from_whom_a_guest_may_hang() -> None:
    roles = {"root": Role.ROOT, "relay": Role.RELAY, "leaf": Role.LEAF, "far": Role.RELAY}
    free, bound = Guest("far", Role.RELAY, 7), Guest("far", Role.RELAY, 7, ("root", "gone"))
    assert list(parents_of(free, roles)) == ["relay"]
    assert list(parents_of(bound, roles)) == ["root"]
    assert list(parents_of(free, {"root": Role.ROOT, "leaf": Role.LEAF})) == ["root"]
