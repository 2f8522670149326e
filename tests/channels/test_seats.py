"""Seats: found by their secret and by the leaf's viewing, free only once, found by the next run."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.store.postgresql import postgresql
from tests.waiting import until

from anabranch.channels import seats as seats_module
from anabranch.channels.seats import Seat, Seats, row_of
from anabranch.core.errors import NotFoundError
from anabranch.core.tasks import end_task
from anabranch.store.database import Database, StoreError
from anabranch.store.seats import read_seats, write_seats


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


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.lab)])
async def database(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Database]:
    with ExitStack() as stack:
        url = f"sqlite+aiosqlite:///{tmp_path}/store.db"
        if request.param == "postgresql":
            url = stack.enter_context(postgresql()).store_url
        made = Database(url)
        await made.open()
        yield made
        await made.close()


async def test_another_run_finds_the_seats_of_this_one(database: Database) -> None:
    seats = Seats(database)
    one = Seat("news", "low", "leaf1", "7", "192.0.2.1", best="high", pinned=True)
    other = Seat("news", "high", "leaf2", "7")
    seats.add(one)
    seats.add(other)
    await seats.flush()
    one.channel, one.state = "sports", "watching"
    seats.changed(one)
    seats.free(other)
    await seats.flush()

    later = Seats(database)
    assert await later.recall() == [one]
    later.add(one)
    await later.flush()
    assert await Seats(database).recall() == [one]
    assert await later.recall() == [one]
    later.free(one)
    await later.flush()
    assert await Seats(database).recall() == []


async def test_seats_that_are_not_taken_again_are_forgotten(database: Database) -> None:
    seats = Seats(database)
    for number in range(1200):
        seats.add(Seat("news", "low", "leaf1", str(number)))
    await seats.flush()
    later = Seats(database)
    found = await later.recall()
    assert len(found) == 1200
    later.add(found[5])
    await later.flush()
    assert await Seats(database).recall() == [found[5]]


async def test_seats_are_written_behind_what_happens(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(seats_module, "_GATHER_S", 0.01)
    monkeypatch.setattr(seats_module, "_AGAIN_S", 0.01)
    seats = Seats(database)
    writing = asyncio.create_task(seats.write_behind())
    seat = Seat("news", "low", "leaf1", "7")
    seats.add(seat)
    await until(lambda: _stored(database, [seat]))
    with monkeypatch.context() as broken:
        broken.setattr(database, "transaction", _full)
        seat.rendition = "high"
        seats.changed(seat)
        await until(lambda: _full.asked > 1)
        assert not writing.done()
    await until(lambda: _stored(database, [seat]))
    await end_task(writing)


class _Full:
    """The transaction of a store on a full disk."""

    asked = 0

    def __call__(self):
        self.asked += 1
        raise StoreError("the store cannot be used: database or disk is full")


_full = _Full()


async def _stored(database: Database, seats: list[Seat]) -> bool:
    return await Seats(database).recall() == seats


async def test_what_another_version_wrote_is_no_seat_of_ours(database: Database) -> None:
    rows = [row_of(Seat("news", "low", "leaf1", str(number))) for number in range(3)]
    rows[0].kind = "pigeon"
    rows[1].data = {**rows[1].data, "grain": "wheat"}
    ours = rows[2].id
    await write_seats(database, rows, ())
    seats = Seats(database)
    assert [seat.id for seat in await seats.recall()] == [ours]
    await seats.flush()
    assert await read_seats(database) == []
