"""Who is let in, when a producer is lost, and when it is back; time stepped by hand."""

import struct
from ipaddress import IPv4Address

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from anabranch.core.errors import TooManyError
from anabranch.core.events import Event
from anabranch.fabric import ingress
from anabranch.fabric.ingress import Door, Session, Shown
from anabranch.fabric.tables import check
from anabranch.host.gateway import Protocol, Way
from anabranch.site import doors as doors_module
from anabranch.site.doors import EXPECT_S, SILENCE_S, Doors, Entrance, Entry, State

STUDIO, OTHER = IPv4Address("192.0.2.10"), IPv4Address("198.51.100.7")
SRT, RTP, RTCP, SOUND = (Way(Protocol.UDP, port) for port in (9000, 5004, 5005, 5006))
RTMP, WHIP = Way(Protocol.TCP, 1935), Way(Protocol.UDP, 8189)
LOOK_S = 0.2


def _control(kind: int, *fixed: int) -> bytes:
    header = struct.pack("!HHIII", kind, 0, 0, 0, 1)
    return header + (struct.pack("!IHHIIIII", *fixed) if fixed else b"")


CALL = _control(0x8000, 4, 0, 2, 1, 1500, 8192, 1, 5)
WELCOME = _control(0x8000, 5, 0, 1, 1, 1500, 8192, 0xFFFFFFFF, 5)
REFUSAL = _control(0x8000, 5, 0, 1, 1, 1500, 8192, 1010, 5)
KEEPALIVE = _control(0x8001)


class World:
    """Doors, a clock, and what the rules have counted."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.restarted: list[str] = []
        self.doors = Doors(self.events.append, self.restarted.append)
        self.now = 100.0
        self.counts: dict[Session, int] = {}

    @property
    def kinds(self) -> list[str]:
        return [event.kind.removeprefix("producer.") for event in self.events]

    def door(self, way: Way) -> Door:
        (found,) = (door for door in self.doors.doors() if door.way == way)
        return found

    def state(self, name: str = "film") -> State:
        return self.doors.producers[name].state

    def knock(self, session: Session, payload: bytes = b"media") -> None:
        self.doors.shown(Shown(session, False, payload), self.now)

    def answer(self, session: Session, payload: bytes) -> None:
        self.doors.shown(Shown(session, True, payload), self.now)

    def look(self, seconds: float = LOOK_S, **sending: Session) -> None:
        """Let time pass; each of ``sending`` sends 100 kB/s."""
        until = self.now + seconds
        while self.now < until - 1e-9:
            self.now += LOOK_S
            for session in sending.values():
                self.counts[session] = self.counts.get(session, 0) + round(100_000 * LOOK_S)
            passing = {each for door in self.doors.doors() for each, _ in door.sessions}
            # The rule of a session that has gone is no more; a new one counts from nought.
            self.counts = {each: self.counts.get(each, 0) for each in passing}
            self.doors.counted(self.counts, self.now)


@pytest.fixture
def world() -> World:
    return World()


def srt(world: World) -> Session:
    world.doors.add("film", Entrance(Entry.LISTENER, (SRT,)))
    return Session(SRT, STUDIO, 5000)


def rtp(world: World, *only: IPv4Address) -> Session:
    world.doors.add("film", Entrance(Entry.FIRST_PACKET, (RTP, SOUND), (RTCP,), frozenset(only)))
    return Session(RTP, STUDIO, 5000)


def rtmp(world: World) -> Session:
    world.doors.serve(RTMP)
    world.doors.add("film", Entrance(Entry.SERVER, (RTMP,)))
    return Session(RTMP, STUDIO, 5000)


def test_srt_is_let_in_by_its_listeners_answer_alone(world: World) -> None:
    caller = srt(world)
    assert (world.door(SRT).open, world.door(SRT).answers) == (True, True)
    world.knock(caller, CALL)
    world.answer(caller, REFUSAL)
    assert world.door(SRT).sessions == ()
    edition = world.doors.edition
    world.answer(caller, WELCOME)
    door = world.door(SRT)
    assert [session for session, _ in door.sessions] == [caller]
    assert not door.open
    assert not door.answers
    assert world.doors.edition > edition
    world.look(1.0, film=caller)
    assert world.kinds == ["came"]
    assert world.events[0].subject == "film"
    assert world.events[0].data == {"address": str(STUDIO)}


def test_a_silent_producer_is_lost_within_two_seconds_and_its_meter_given_back(
    world: World,
) -> None:
    caller = srt(world)
    world.answer(caller, WELCOME)
    world.look(5.0, film=caller)
    silent_since = world.now
    while world.kinds != ["came", "lost"]:
        world.look()
    assert world.now - silent_since <= SILENCE_S + 2 * LOOK_S
    assert world.state() is State.LOST
    assert world.door(SRT) == Door(SRT, 0, open=True, answers=True)
    tables = ingress.ingress_tables(ingress.Ends(STUDIO, OTHER), world.doors.doors(), 20_000)
    assert all(meter.meter_id < 1 << 17 for meter in tables.meters)


def test_keep_alives_are_no_media(world: World) -> None:
    caller = srt(world)
    world.answer(caller, WELCOME)
    world.look(2.0, film=caller)
    for _ in range(10):
        world.counts[caller] = world.counts.get(caller, 0) + 60
        world.look()
    assert world.kinds == ["came", "lost"]


def test_a_lost_caller_that_goes_on_is_back_at_once(world: World) -> None:
    caller = srt(world)
    world.answer(caller, WELCOME)
    world.look(2.0, film=caller)
    world.look(3.0)
    world.answer(caller, KEEPALIVE)  # its listener goes on, which says nothing
    assert world.state() is State.LOST
    world.knock(caller)
    assert world.kinds == ["came", "lost", "back"]
    assert world.restarted == []
    world.look(3.0, film=caller)
    assert world.kinds == ["came", "lost", "back"]


def test_a_new_caller_has_the_listener_of_a_lost_one_begin_anew(world: World) -> None:
    old, new = srt(world), Session(SRT, STUDIO, 6000)
    world.answer(old, WELCOME)
    world.look(2.0, film=old)
    world.look(3.0)
    world.knock(new, b"no handshake")
    assert world.restarted == []
    world.knock(new, CALL)
    world.knock(new, CALL)
    assert world.restarted == ["film"]
    world.doors.listens("film", world.now)
    world.knock(old)  # of which nobody knows any more
    world.answer(new, WELCOME)
    assert world.kinds == ["came", "lost", "back"]
    assert [session for session, _ in world.door(SRT).sessions] == [new]


def test_a_caller_that_hangs_up_is_lost_at_once(world: World) -> None:
    caller = srt(world)
    world.answer(caller, WELCOME)
    world.look(2.0, film=caller)
    world.doors.listens("film", world.now)
    assert world.kinds == ["came", "lost"]
    assert world.door(SRT).open


def test_rtp_locks_its_first_sender_in(world: World) -> None:
    sender = rtp(world)
    assert world.door(RTP).open
    assert not world.door(RTCP).open
    world.knock(sender)
    world.knock(Session(RTP, OTHER, 5000))  # shown before the door was shut
    door = world.door(RTP)
    assert ([each for each, _ in door.sessions], door.open) == ([sender], False)
    assert world.door(RTCP).sessions == ((Session(RTCP, STUDIO), 0),)
    assert world.door(SOUND).open
    assert world.door(SOUND).only == {STUDIO}
    world.knock(Session(SOUND, OTHER, 7))
    assert world.door(SOUND).sessions == ()
    world.knock(Session(SOUND, STUDIO, 7))
    assert not world.door(SOUND).open


def test_rtp_from_a_registered_address(world: World) -> None:
    sender = rtp(world, STUDIO)
    assert world.door(RTP).only == {STUDIO}
    world.knock(Session(RTP, OTHER, 5000))
    assert world.door(RTP).open
    world.knock(sender)
    assert not world.door(RTP).open


def test_lost_rtp_is_read_anew_and_the_next_sender_is_it(world: World) -> None:
    world.knock(rtp(world))
    world.look(2.0, film=Session(RTP, STUDIO, 5000))
    world.look(3.0)
    assert world.restarted == ["film"]
    world.knock(Session(RTP, OTHER, 5000))
    assert world.kinds == ["came", "lost", "back"]
    assert world.events[-1].data == {"address": str(OTHER)}


def test_one_packet_does_not_lock_a_door_for_long(world: World) -> None:
    world.knock(rtp(world))
    world.look(SILENCE_S + 2 * LOOK_S)
    assert world.door(RTP).open
    assert world.kinds == []


def test_sound_that_comes_from_another_port_is_let_in_while_the_picture_goes_on(
    world: World,
) -> None:
    picture, sound = rtp(world), Session(SOUND, STUDIO, 7)
    world.knock(picture)
    world.knock(sound)
    world.look(2.0, picture=picture, sound=sound)
    world.look(2.0 + 2 * LOOK_S, picture=picture)
    assert world.door(SOUND).open
    world.knock(Session(SOUND, STUDIO, 8))
    assert [each for each, _ in world.door(SOUND).sessions] == [Session(SOUND, STUDIO, 8)]
    assert world.kinds == ["came"]


def test_rtmp_is_let_in_by_its_server_and_others_may_still_knock(world: World) -> None:
    publisher = rtmp(world)
    world.knock(publisher)
    assert world.door(RTMP).sessions == ()
    world.doors.let_in("film", [publisher], world.now)
    assert world.door(RTMP).open
    world.look(2.0, film=publisher)
    world.look(3.0)
    assert world.kinds == ["came", "lost"]
    world.doors.let_in("film", [publisher], world.now)  # the server has not noticed
    assert world.state() is State.LOST
    world.knock(publisher)
    assert world.kinds == ["came", "lost", "back"]
    world.doors.gone("film", world.now)
    assert world.door(RTMP).sessions == ()
    assert world.state() is State.AWAY
    assert world.kinds == ["came", "lost", "back"]


def test_a_server_waits_for_media_as_long_as_it_likes(world: World) -> None:
    publisher = rtmp(world)
    world.doors.let_in("film", [publisher], world.now)
    world.look(30.0)
    assert (world.state(), world.kinds) == (State.ADMITTED, [])
    world.look(1.0, film=publisher)
    assert world.kinds == ["came"]


def test_two_behind_one_address_each_have_their_own(world: World) -> None:
    first = rtmp(world)
    world.doors.add("news", Entrance(Entry.SERVER, (RTMP,)))
    world.doors.let_in("film", [first], world.now)
    second = Session(RTMP, STUDIO, 5001)
    world.doors.let_in("news", [second], world.now)
    world.look(2.0, film=first, news=second)
    world.look(2.0, film=first)
    assert [(event.kind, event.subject) for event in world.events] == [
        ("producer.came", "film"),
        ("producer.came", "news"),
        ("producer.lost", "news"),
    ]


def test_a_whip_publisher_that_moves_is_followed(world: World) -> None:
    world.doors.serve(WHIP)
    world.doors.add("film", Entrance(Entry.SERVER, (WHIP,)))
    home, away = Session(WHIP, STUDIO, 5000), Session(WHIP, OTHER, 5001)
    world.doors.let_in("film", [home], world.now)
    world.look(1.0, film=home)
    world.doors.let_in("film", [away], world.now)
    world.look(3.0, film=away)
    assert [each for each, _ in world.door(WHIP).sessions] == [away]
    assert world.kinds == ["came"]


def test_who_is_expected_has_a_meter_until_it_comes_or_is_overdue(world: World) -> None:
    world.doors.serve(WHIP)
    world.doors.add("film", Entrance(Entry.SERVER, (WHIP,)))
    world.doors.expect(WHIP, STUDIO, world.now)
    world.doors.expect(WHIP, OTHER, world.now)
    world.doors.expect(RTMP, OTHER, world.now)  # no such door
    assert world.door(WHIP).expected == {STUDIO, OTHER}
    assert world.doors.watching
    world.doors.let_in("film", [Session(WHIP, STUDIO, 5000)], world.now)
    assert world.door(WHIP).expected == {OTHER}
    world.look(EXPECT_S + LOOK_S)
    assert world.door(WHIP).expected == frozenset()


def test_a_switch_that_restarts_loses_nobody(world: World) -> None:
    caller = srt(world)
    world.answer(caller, WELCOME)
    world.look(3.0, film=caller)
    before = world.doors.producers["film"].bytes
    world.now += 3.0
    world.doors.uncounted()
    world.counts[caller] = 0
    world.look(3.0, film=caller)
    assert world.kinds == ["came"]
    assert world.doors.producers["film"].bytes > before


def test_a_channel_that_goes_gives_its_doors_and_numbers_back(world: World) -> None:
    srt(world)
    world.doors.add("news", Entrance(Entry.FIRST_PACKET, (RTP,), (RTCP,)))
    world.doors.remove("film")
    world.doors.remove("film")
    assert world.doors.ways == {RTP, RTCP}
    world.doors.add("film", Entrance(Entry.LISTENER, (SRT,)))
    assert world.doors.producers["film"].number == 0
    assert {door.number for door in world.doors.doors()} == {0, 1, 2}


def test_there_are_only_so_many_doors(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doors_module, "MAX_DOORS", 1)
    srt(world)
    with pytest.raises(TooManyError):
        world.doors.serve(RTMP)


SESSIONS = st.builds(
    Session,
    st.sampled_from([SRT, RTP, RTCP, SOUND, RTMP]),
    st.sampled_from([STUDIO, OTHER]),
    st.integers(1, 3),
)
STEPS = st.one_of(
    st.tuples(st.just("knock"), SESSIONS, st.sampled_from([CALL, b"", b"media"])),
    st.tuples(st.just("answer"), SESSIONS, st.sampled_from([WELCOME, REFUSAL, KEEPALIVE])),
    st.tuples(st.just("let_in"), SESSIONS),
    st.tuples(st.just("gone")),
    st.tuples(st.just("listens")),
    st.tuples(st.just("look"), st.booleans()),
    st.tuples(st.just("uncounted")),
)


@settings(deadline=None)
@given(st.lists(STEPS, max_size=60))
def test_whatever_happens_the_tables_can_be_held(steps: list[tuple[object, ...]]) -> None:
    world = World()
    world.doors.serve(RTMP)
    world.doors.add("srt", Entrance(Entry.LISTENER, (SRT,)))
    world.doors.add("rtp", Entrance(Entry.FIRST_PACKET, (RTP, SOUND), (RTCP,)))
    world.doors.add("rtmp", Entrance(Entry.SERVER, (RTMP,)))
    for step in steps:
        match step:
            case "knock", Session() as session, bytes(payload):
                world.knock(session, payload)
            case "answer", Session() as session, bytes(payload):
                world.answer(session, payload)
            case "let_in", Session(way=way) as session if way == RTMP:
                world.doors.let_in("rtmp", [session], world.now)
            case "gone", *_:
                world.doors.gone("rtmp", world.now)
            case "listens", *_:
                world.doors.listens("srt", world.now)
            case "look", bool(sending):
                passing = {each for door in world.doors.doors() for each, _ in door.sessions}
                world.look(**{str(n): each for n, each in enumerate(passing if sending else ())})
            case "uncounted", *_:
                world.doors.uncounted()
        ends = ingress.Ends(IPv4Address("10.0.0.1"), IPv4Address("10.0.0.2"))
        doors = world.doors.doors()
        check(ingress.ingress_tables(ends, doors, 20_000))
        for door in doors:
            assert door.way == RTMP or not (door.open and door.sessions)
    came = [kind for kind in world.kinds if kind == "came"]
    assert len(came) >= world.kinds.count("lost") - world.kinds.count("back")
