"""What the sort switches do: one stream for each seat, brought before it is needed."""

from hypothesis import given
from hypothesis import strategies as st

from anabranch.channels.seats import PlainSeat
from anabranch.site.carriage import Brought, Bucket, Sorting, StreamId
from anabranch.site.sorting import Hold, neighbours, sorting_of, streams_of

DIAL = ["one", "two", "three", "four"]
TS = PlainSeat("two", "high", "leaf1", "192.0.2.7", 6000)
RTP = PlainSeat("two", "low", "leaf2", "192.0.2.8", 6000, "rtp")
NEWS, SPORTS = Brought(StreamId("news", "high.ts"), "leaf1"), Brought(
    StreamId("sports", "high.ts"), "leaf1"
)  # fmt: skip


def sorting(*seats: PlainSeat, beside: int = 0) -> Sorting:
    return sorting_of(seats, DIAL, beside, lambda seat: seat.address)


def test_a_seat_is_a_bucket_or_one_for_the_picture_and_one_for_the_sound() -> None:
    found = sorting(TS, RTP)
    assert found.buckets == {
        Bucket(StreamId("two", "high.ts"), "leaf1", ("192.0.2.7", 6000)),
        Bucket(StreamId("two", "low"), "leaf2", ("192.0.2.8", 6000)),
        Bucket(StreamId("two", "audio"), "leaf2", ("192.0.2.8", 6002)),
    }
    assert found.brought == {Brought(each.stream, each.leaf) for each in found.buckets}


def test_who_takes_ipv6_has_the_stream_brought_as_such() -> None:
    six = PlainSeat("two", "high", "leaf1", "2001:db8::7", 6000)
    found = sorting(TS, six, beside=1)
    high = StreamId("two", "high.ts")
    assert Bucket(high, "leaf1", ("2001:db8::7", 6000)) in found.buckets
    assert {each for each in found.brought if each.stream == high} == {
        Brought(high, "leaf1"),
        Brought(high, "leaf1", by_6=True),
    }
    assert Brought(StreamId("one", "high.ts"), "leaf1", by_6=True) in found.brought


def test_the_dial_has_no_end() -> None:
    assert neighbours(DIAL, "one", 1) == {"two", "four"}
    assert neighbours(DIAL, "two", 2) == {"one", "three", "four"}
    assert neighbours(DIAL, "two", 9) == {"one", "three", "four"}
    assert neighbours(["one"], "one", 2) == set()
    assert neighbours(DIAL, "gone", 1) == set()


def test_neighbours_are_brought_and_go_nowhere() -> None:
    found = sorting(TS, beside=1)
    assert {bucket.stream.channel for bucket in found.buckets} == {"two"}
    assert {(each.stream, each.leaf) for each in found.brought} == {
        (StreamId(channel, "high.ts"), "leaf1") for channel in ("one", "two", "three")
    }


SEATS = st.builds(
    PlainSeat,
    st.sampled_from(DIAL),
    st.sampled_from(["high", "low"]),
    st.sampled_from(["leaf1", "leaf2"]),
    st.just("192.0.2.7"),
    st.integers(1024, 65533),
    st.sampled_from(["ts", "rtp"]),
)


@given(st.lists(SEATS, unique_by=lambda seat: seat.port // 4, max_size=5), st.integers(0, 3))
def test_every_seat_has_its_own_buckets_and_what_they_need_is_brought(
    seats: list[PlainSeat], beside: int
) -> None:
    found = sorting(*seats, beside=beside)
    assert len(found.buckets) == sum(len(seat.ports) for seat in seats)
    for seat in seats:
        for stream, port in streams_of(seat, seat.channel):
            assert Bucket(stream, seat.leaf, (seat.address, port)) in found.buckets
    assert {Brought(bucket.stream, bucket.leaf) for bucket in found.buckets} <= found.brought


def test_what_was_left_is_held_for_a_while() -> None:
    hold, busy, idle = Hold(3.0), Sorting(brought=frozenset({NEWS})), Sorting()
    assert hold.extended(busy, 0.0).brought == {NEWS}
    assert hold.due() is None
    assert hold.extended(idle, 100.0).brought == {NEWS}  # however long it was watched
    assert hold.due() == 103.0
    assert hold.extended(idle, 102.9).brought == {NEWS}
    assert hold.extended(idle, 103.0).brought == frozenset()
    assert hold.due() is None


def test_who_comes_back_ends_the_hold_and_a_later_leave_begins_it_anew() -> None:
    hold, busy, other = Hold(3.0), Sorting(brought=frozenset({NEWS})), Sorting(
        brought=frozenset({SPORTS})
    )  # fmt: skip
    hold.extended(busy, 0.0)
    assert hold.extended(other, 1.0).brought == {NEWS, SPORTS}
    assert hold.extended(busy, 2.0).brought == {NEWS, SPORTS}
    assert hold.due() == 5.0
    assert hold.extended(Sorting(), 10.0).brought == {NEWS}
    assert hold.due() == 13.0


def test_a_move_is_another_stream_for_a_receiver_of_the_same_leaf() -> None:
    place = ("192.0.2.7", 6000)
    before = Sorting(frozenset({Bucket(NEWS.stream, "leaf1", place)}))
    assert before.moved(Sorting(frozenset({Bucket(SPORTS.stream, "leaf1", place)})))
    assert not before.moved(before)
    assert not before.moved(Sorting())
    assert not before.moved(Sorting(frozenset({Bucket(SPORTS.stream, "leaf2", place)})))
    assert not Sorting().moved(before)
