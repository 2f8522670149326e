"""Seats: found by their secret and by the leaf's viewing, and free only once."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from anabranch.channels.seats import Seat, Seats
from anabranch.core.errors import NotFoundError


def test_a_seat_is_found_both_ways_until_it_is_free() -> None:
    seats = Seats()
    seat, other = Seat("news", "high", "leaf1", "7"), Seat("news", "low", "leaf2", "7")
    seats.add(seat)
    seats.add(other)
    assert seats.get(seat.id) is seat
    assert seats.at("leaf1", "7") is seat
    assert seats.at("leaf2", "7") is other
    assert (seats.per_leaf()["leaf1"], seats.per_channel()["news"], len(seats)) == (1, 2, 2)
    assert seats.free(seat)
    assert not seats.free(seat)
    assert seats.at("leaf1", "7") is None
    with pytest.raises(NotFoundError):
        seats.get(seat.id)
    assert (list(seats), seats.taken_total) == ([other], 2)
    assert seats.per_leaf()["leaf1"] == 0


def test_seats_may_be_freed_while_they_are_gone_through() -> None:
    seats = Seats()
    for number in range(5):
        seats.add(Seat("news", "high", "leaf1", str(number)))
    for seat in seats:
        seats.free(seat)
    assert len(seats) == 0


def test_an_identifier_cannot_be_guessed_from_another() -> None:
    ids = {Seat("a", "b", "c", "d").id for _ in range(100)}
    assert len(ids) == 100
    assert min(map(len, ids)) >= 16


def test_the_connecting_seats_of_a_client_are_counted() -> None:
    seats = Seats()
    for viewing in ("1", "2"):
        seats.add(Seat("test1", "high", "leaf1", viewing, "192.0.2.1"))
    seats.add(Seat("test1", "high", "leaf1", "3", "192.0.2.2"))
    assert seats.connecting("192.0.2.1") == 2
    one = seats.at("leaf1", "1")
    assert one is not None
    one.state = "watching"
    assert seats.connecting("192.0.2.1") == 1


def test_a_client_by_ipv6_is_its_whole_network() -> None:
    seats = Seats()
    for viewing, client in enumerate(("2001:db8::1", "2001:db8::ffff:0:1", "2001:db8:0:1::1")):
        seats.add(Seat("test1", "high", "leaf1", str(viewing), client))
    assert seats.connecting("2001:db8::2") == 2
    assert seats.connecting("2001:db8:0:1::9") == 1
    assert seats.connecting("192.0.2.1") == seats.connecting("") == 0


@given(st.text(alphabet="0123456789abcdef:.%/ ", max_size=50))
def test_whatever_a_client_calls_itself_it_is_itself(client: str) -> None:
    seats = Seats()
    seats.add(Seat("test1", "high", "leaf1", "1", client))
    assert seats.connecting(client) == 1


def test_a_new_seat_is_to_see_what_it_is_sent_unless_told_otherwise() -> None:
    seat = Seat("news", "low", "leaf1", "7")
    assert (seat.best, seat.allowed, seat.pinned) == ("low", "low", False)
    lowered = Seat("news", "low", "leaf1", "8", best="high")
    assert (lowered.best, lowered.allowed) == ("high", "low")
