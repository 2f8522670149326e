"""What a leaf server must be given: by who uses it, who is about to, and who may come."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from anabranch.media.inlets import HOLD_S, RESTORED_S, TRIAL_S, UNKNOWN_KBPS, Inlets, Stream
from anabranch.media.leaf import Feed, LeafUnavailableError, Rung
from anabranch.media.rendition import AUDIO

HIGH, LOW, OTHER = Feed("test1", "high"), Feed("test1", "low"), Feed("test2", "high")
SOUND = Feed("test1", AUDIO)


def feeds(inlets: Inlets) -> set[Feed]:
    return {inlet.feed for inlet in inlets.inlets()}


def test_a_feed_is_open_while_it_is_used_and_a_moment_longer() -> None:
    inlets = Inlets(range(5000, 5010))
    inlets.use(HIGH, "a")
    inlets.use(HIGH, "b")
    inlets.leave(HIGH, "a", 10)
    assert inlets.due() is None
    inlets.leave(HIGH, "b", 20)
    inlets.leave(HIGH, "b", 99)  # once is enough
    assert inlets.due() == 20 + HOLD_S
    inlets.expire(20 + HOLD_S - 0.01)
    assert feeds(inlets) == {HIGH}
    inlets.use(HIGH, "c")  # back in time
    inlets.expire(100)
    assert feeds(inlets) == {HIGH}
    inlets.leave(HIGH, "c", 100)
    inlets.expire(100 + HOLD_S)
    assert feeds(inlets) == set()
    assert inlets.streams() == {}


def test_the_feeds_of_a_channel_share_its_sound() -> None:
    inlets = Inlets(range(5000, 5010))
    inlets.learn([Rung(HIGH, 1000)])
    for feed in (HIGH, LOW, OTHER):
        inlets.use(feed, "a")
    ports = {inlet.feed: inlet.audio_port for inlet in inlets.inlets()}
    assert ports[HIGH] == ports[LOW] != ports[OTHER]
    streams = inlets.streams()
    assert len(streams) == len({stream.port for stream in streams.values()}) == 5
    high, sound = streams[inlets.number(HIGH)], streams[inlets.number(SOUND)]
    assert (high.kind, high.name, high.channel, high.kbps) == ("video", "high@test1", "test1", 1000)
    assert (sound.kind, sound.name, sound.kbps) == ("audio", "audio@test1", UNKNOWN_KBPS)
    inlets.leave(HIGH, "a", 0)
    inlets.expire(HOLD_S)
    assert inlets.number(SOUND) in inlets.streams()  # of the other rendition
    inlets.leave(LOW, "a", 0)
    inlets.expire(HOLD_S)
    assert {stream.channel for stream in inlets.streams().values()} == {"test2"}


def test_numbers_stay_and_are_pictures_or_sounds() -> None:
    inlets = Inlets(range(5000, 5010))
    number, sound = inlets.number(HIGH), inlets.number(SOUND)
    inlets.use(HIGH, "a")
    assert inlets.number(HIGH) == number
    assert inlets.feed(number) == HIGH
    assert inlets.feed(sound) is None
    assert inlets.feed(4711) is None


def test_a_feed_on_trial_stays_until_somebody_takes_it_or_time_is_up() -> None:
    inlets = Inlets(range(5000, 5010))
    inlets.try_out(LOW, 0)
    inlets.expire(TRIAL_S - 0.01)
    assert feeds(inlets) == {LOW}
    inlets.use(LOW, "a")
    inlets.expire(100)
    assert feeds(inlets) == {LOW}
    inlets.try_out(HIGH, 100)
    inlets.expire(100 + TRIAL_S)
    assert feeds(inlets) == {LOW}


def test_warm_feeds_are_there_without_viewers() -> None:
    inlets = Inlets(range(5000, 5010))
    inlets.keep_warm([Rung(HIGH, 1000), Rung(LOW, 300)])
    inlets.use(HIGH, "a")
    inlets.leave(HIGH, "a", 0)
    inlets.expire(1000)
    assert feeds(inlets) == {HIGH, LOW}
    assert inlets.due() is None
    assert {stream.kbps for stream in inlets.streams().values()} == {1000, 300, UNKNOWN_KBPS}
    inlets.use(OTHER, "b")
    inlets.leave_all()  # the server has gone with all viewers
    assert feeds(inlets) == {HIGH, LOW}
    inlets.keep_warm([Rung(LOW, 300)])
    inlets.expire(1000)
    assert feeds(inlets) == {LOW}


def test_a_port_is_not_given_out_again_at_once() -> None:
    """What was sent to it may still be on its way."""
    inlets = Inlets(range(5000, 5005))
    inlets.use(HIGH, "a")
    before = {stream.port for stream in inlets.streams().values()}
    inlets.leave_all()
    inlets.use(OTHER, "a")
    after = {stream.port for stream in inlets.streams().values()}
    assert before.isdisjoint(after)


def test_ports_may_run_out_and_come_back() -> None:
    inlets = Inlets(range(5000, 5003))
    inlets.use(HIGH, "a")
    inlets.use(LOW, "a")
    with pytest.raises(LeafUnavailableError, match="5000 to 5002"):
        inlets.use(OTHER, "a")
    with pytest.raises(LeafUnavailableError):
        inlets.try_out(OTHER, 0)
    inlets.keep_warm([Rung(OTHER, 1000)])  # as far as there are ports
    assert feeds(inlets) == {HIGH, LOW}
    with pytest.raises(LeafUnavailableError):
        inlets.move(inlets.number(HIGH))
    inlets.leave_all()
    inlets.use(OTHER, "a")
    assert feeds(inlets) == {OTHER}


def test_a_stream_whose_port_is_taken_moves() -> None:
    inlets = Inlets(range(5000, 5010))
    inlets.use(HIGH, "a")
    before = inlets.streams()
    for number, stream in before.items():
        inlets.move(number)
        assert inlets.streams()[number].port not in {each.port for each in before.values()}
        assert stream.port in range(5000, 5010)
    inlets.move(inlets.number(OTHER))  # of what is not open
    assert feeds(inlets) == {HIGH}


FEEDS = st.sampled_from([HIGH, LOW, OTHER, Feed("test2", "low"), Feed("test3", "high")])


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["use", "leave", "try", "warm", "expire", "lose"]),
            FEEDS,
            st.sampled_from("abc"),
        ),
        max_size=40,
    )
)
def test_whatever_happens_what_is_used_is_open_and_ports_are_apart(
    steps: list[tuple[str, Feed, str]],
) -> None:
    inlets, now = Inlets(range(5000, 5006)), 0.0
    used: set[tuple[Feed, str]] = set()
    for step, feed, user in steps:
        now += 1.5
        try:
            match step:
                case "use":
                    inlets.use(feed, user)
                    used.add((feed, user))
                case "leave":
                    inlets.leave(feed, user, now)
                    used.discard((feed, user))
                case "try":
                    inlets.try_out(feed, now)
                case "warm":
                    inlets.keep_warm([Rung(feed, 1)])
                case "expire":
                    inlets.expire(now)
                case "lose":
                    inlets.leave_all()
                    used.clear()
        except LeafUnavailableError:
            pass
        ports = [stream.port for stream in inlets.streams().values()]
        assert len(ports) == len(set(ports))
        assert {feed for feed, _ in used} <= feeds(inlets)
        assert {inlet.feed for inlet in inlets.inlets()} <= {
            found for number in inlets.streams() if (found := inlets.feed(number)) is not None
        }
    inlets.keep_warm(())
    inlets.leave_all()
    assert inlets.streams() == {}


def test_what_a_server_has_already_is_gone_on_with() -> None:
    before = Inlets(range(5000, 5010))
    before.learn([Rung(HIGH, 1000)])
    for feed in (OTHER, HIGH):
        before.use(feed, "a")
    streams = before.streams()
    after = Inlets(range(5000, 5010))
    after.restore(streams.values(), 0)
    assert after.streams() == streams
    assert after.inlets() == before.inlets()
    after.use(HIGH, "a")
    after.use(LOW, "b")
    fresh = after.streams()[after.number(LOW)]
    assert fresh.number not in streams
    assert fresh.port not in {stream.port for stream in streams.values()}
    after.expire(RESTORED_S)  # nobody uses the other
    assert feeds(after) == {HIGH, LOW}


def test_a_picture_whose_sound_is_missing_gets_one() -> None:
    inlets = Inlets(range(5000, 5010))
    inlets.restore([Stream(7, "video", 5000, "high@test1", "test1")], 0)
    (inlet,) = inlets.inlets()
    assert inlet.video_port == 5000 != inlet.audio_port
    assert inlets.number(SOUND) == 8
