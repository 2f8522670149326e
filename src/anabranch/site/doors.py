"""Who may feed the site by which port, and whether they still do. Pure: time is passed in.

A *producer* feeds one channel. It comes by one or two ways of its own (SRT; RTP: picture and
sound), or by one that it shares with others (RTMP, WHIP). Its *sessions* are let in

- by the first packet, where nobody can tell who it is (RTP), but only from the registered address
  if there is one;
- when the listener answers that it is let in (SRT);
- when the server that it speaks to says so (RTMP, WHIP).

A producer whose sessions have brought next to nothing for SILENCE_S is *lost*: its rules and meter
are given back, and its door is open. It is *back* with the next session that is let in. A sender
that a listener or server still knows is let in again by its first packet.
"""

from collections import deque
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from enum import Enum, auto

from anabranch.core.errors import TooManyError
from anabranch.core.events import Event
from anabranch.fabric.ingress import MAX_DOORS, MAX_SOURCES, Address, Door, Session, Shown
from anabranch.host.gateway import Way
from anabranch.media import srt

SILENCE_S = 1.0
"""Together with the switch's counters, which are up to half a second old, and a look every
0.2 s a producer is lost within 2 s."""
LEAST_BYTES = 1000
"""In SILENCE_S. Less is no media: keep-alives of SRT, RTCP, checks of ICE."""
EXPECT_S = 15.0
"""Seconds for which a meter is kept apart for an address that somebody is to come from."""


class Entry(Enum):
    """How somebody gets in by a way."""

    FIRST_PACKET = auto()
    LISTENER = auto()
    SERVER = auto()


class State(Enum):
    """How a producer is doing."""

    AWAY = "away"
    ADMITTED = "admitted"
    """It was let in, and nothing to speak of has come yet."""
    LIVE = "live"
    LOST = "lost"


@dataclass(frozen=True, slots=True)
class Entrance:
    """How a channel's producer comes in.

    Attributes:
        ways: where media comes.
        reports: where its RTCP comes, if it has ports of its own; from where the media does.
        only: from where alone; empty: from anywhere.
    """

    entry: Entry
    ways: tuple[Way, ...]
    reports: tuple[Way, ...] = ()
    only: frozenset[Address] = frozenset()


@dataclass(slots=True)
class _Passing:
    """A session that passes: the bytes that its rule had counted, and when there were more."""

    heard: float
    bytes: int = 0


@dataclass(slots=True)
class Producer:
    """Whoever feeds a channel.

    Attributes:
        number: of its meter.
        sessions: what passes.
        known: the sessions of a lost one that its listener or server still knows.
        since: when the last state was entered.
        bytes: of media, since the start.
    """

    name: str
    entrance: Entrance
    number: int
    sessions: dict[Session, _Passing] = field(default_factory=dict)
    known: frozenset[Session] = frozenset()
    state: State = State.AWAY
    since: float = 0.0
    bytes: int = 0
    calling: bool = False
    """Somebody else wishes in by a listener that is still with a lost one, which has been told."""
    _history: deque[tuple[float, int]] = field(default_factory=deque)

    @property
    def addresses(self) -> frozenset[Address]:
        return frozenset(session.source for session in self.sessions)

    def enter(self, state: State, now: float) -> None:
        self.state, self.since = state, now

    def count(self, counts: Mapping[Session, int], now: float) -> None:
        """Take in what the rules of its sessions have counted."""
        for session, passing in self.sessions.items():
            if session not in counts:
                continue  # its rule is not there yet
            # A rule that is new, or one of a switch that has restarted, counts from nought.
            before = passing.bytes if counts[session] >= passing.bytes else 0
            if grown := counts[session] - before:
                passing.heard = now
                self.bytes += grown
            passing.bytes = counts[session]
        self._history.append((now, self.bytes))
        while len(self._history) > 1 and self._history[1][0] <= now - SILENCE_S:
            self._history.popleft()

    def forget_counts(self) -> None:
        """Have the silence that is found later begin now."""
        self._history.clear()

    @property
    def recent(self) -> int:
        """Bytes in the last SILENCE_S, or since there is a history."""
        return self.bytes - self._history[0][1] if self._history else 0

    def listened(self, now: float) -> bool:
        """Whether there is a history of SILENCE_S."""
        return bool(self._history) and now - self._history[0][0] >= SILENCE_S


class Doors:
    """The doors of a site.

    Args:
        on_event: gets ``producer.came``, ``producer.lost`` and ``producer.back``, about channels.
        restart: told of a channel whose source must be read anew: what is read is over.

    Attributes:
        edition: changes whenever :meth:`doors` would.
    """

    def __init__(self, on_event: Callable[[Event], None], restart: Callable[[str], None]) -> None:
        self._on_event = on_event
        self._restart = restart
        self._producers: dict[str, Producer] = {}
        self._numbers: dict[Way, int] = {}
        self._owners: dict[Way, str] = {}
        self._servers: dict[Way, bool] = {}
        self._expected: dict[tuple[Way, Address], float] = {}
        self.edition = 0

    # --- what there is ------------------------------------------------------------------------

    @property
    def ways(self) -> frozenset[Way]:
        return frozenset(self._numbers)

    @property
    def producers(self) -> Mapping[str, Producer]:
        return self._producers

    @property
    def watching(self) -> bool:
        """Whether there is anybody who could be lost, or time out."""
        return bool(self._expected) or any(each.sessions for each in self._producers.values())

    def doors(self) -> list[Door]:
        """Return the doors as the switch shall have them."""
        passing: dict[Way, dict[Session, int]] = {way: {} for way in self._numbers}
        for producer in self._producers.values():
            for session in producer.sessions:
                passing[session.way][session] = producer.number
        return [
            self._door(way, tuple(sorted(found.items(), key=str))) for way, found in passing.items()
        ]

    def _door(self, way: Way, sessions: tuple[tuple[Session, int], ...]) -> Door:
        number = self._numbers[way]
        expected = frozenset(address for at, address in self._expected if at == way)
        if way in self._servers:  # others may come at any time
            by_6 = self._servers[way]
            return Door(way, number, sessions, open=True, expected=expected, by_6=by_6)
        owner = self._producers[self._owners[way]]
        entrance = owner.entrance
        waits = not sessions and way not in entrance.reports
        return Door(
            way,
            number,
            sessions,
            open=waits,
            only=entrance.only or owner.addresses,  # sound comes from where the picture does
            answers=waits and entrance.entry is Entry.LISTENER,
        )

    # --- channels and servers -----------------------------------------------------------------

    def serve(self, way: Way, *, by_6: bool = False) -> None:
        """Have a door at which a server of the site meets the producers of many channels.

        ``by_6``: by IPv6, too.

        Raises:
            TooManyError: there can be no more doors.
        """
        self._servers[way] = by_6
        self._open(way)

    def add(self, name: str, entrance: Entrance) -> None:
        """Have a channel that is fed so. Ways at which no server is are its own.

        Raises:
            TooManyError: there can be no more producers or doors.
        """
        taken = {producer.number for producer in self._producers.values()}
        self._producers[name] = Producer(name, entrance, _free(taken, MAX_SOURCES))
        for way in (*entrance.ways, *entrance.reports):
            if way not in self._servers:
                self._owners[way] = name
                self._open(way)

    def remove(self, name: str) -> None:
        """Have a channel no longer; unknown ones are ignored."""
        producer = self._producers.pop(name, None)
        if producer is None:
            return
        for way in (*producer.entrance.ways, *producer.entrance.reports):
            if self._owners.get(way) == name:
                del self._owners[way], self._numbers[way]
        self.edition += 1

    def _open(self, way: Way) -> None:
        if way not in self._numbers:
            self._numbers[way] = _free(set(self._numbers.values()), MAX_DOORS)
        self.edition += 1

    # --- who comes and goes -------------------------------------------------------------------

    def expect(self, way: Way, address: Address, now: float) -> None:
        """Keep a meter apart for an address for a while: somebody there is about to come."""
        if way in self._numbers:
            self._expected[way, address] = now + EXPECT_S
            self.edition += 1

    def shown(self, shown: Shown, now: float) -> None:
        """Look at a packet that the switch has shown."""
        session = shown.session
        for producer in self._producers.values():
            if session.way in producer.entrance.ways:
                if shown.answer:
                    self._answered(producer, session, shown.payload, now)
                else:
                    self._knocked(producer, session, shown.payload, now)

    def _answered(self, producer: Producer, to: Session, payload: bytes, now: float) -> None:
        # To one that is lost a listener goes on sending keep-alives.
        if producer.sessions or to in producer.known:
            return
        if producer.entrance.entry is Entry.LISTENER and srt.lets_in(payload):
            self._let_in(producer, {to}, now)

    def _knocked(self, producer: Producer, session: Session, payload: bytes, now: float) -> None:
        if any(_includes(known, session) for known in producer.known):
            self._let_in(producer, producer.known, now)
            return
        match producer.entrance.entry:
            case Entry.FIRST_PACKET:
                if all(session.way != passing.way for passing in producer.sessions):
                    self._first_packet(producer, session, now)
            case Entry.LISTENER:
                # It is with the lost one until it finds that out by itself, or is begun anew.
                if producer.known and not producer.calling and srt.calls(payload):
                    producer.calling = True
                    self._restart(producer.name)
            case Entry.SERVER:
                pass  # the server will say

    def _first_packet(self, producer: Producer, session: Session, now: float) -> None:
        entrance = producer.entrance
        allowed = entrance.only or producer.addresses
        if not allowed or session.source in allowed:
            reports = {Session(way, session.source) for way in entrance.reports}
            self._let_in(producer, {*producer.sessions, session, *reports}, now)

    def let_in(self, name: str, sessions: Collection[Session], now: float) -> None:
        """Let a channel's producer in by exactly these sessions, as its server says."""
        producer, wanted = self._producers.get(name), frozenset(sessions)
        if producer is not None and wanted not in (producer.sessions.keys(), producer.known):
            self._let_in(producer, wanted, now)

    def _let_in(self, producer: Producer, sessions: Collection[Session], now: float) -> None:
        if not producer.sessions:
            producer.forget_counts()
        passing = producer.sessions
        producer.sessions = {each: passing.get(each) or _Passing(now) for each in sessions}
        producer.known = frozenset()
        for session in sessions:
            self._expected.pop((session.way, session.source), None)
        self.edition += 1
        match producer.state:
            case State.AWAY:
                producer.enter(State.ADMITTED, now)
            case State.LOST:
                producer.enter(State.LIVE, now)
                self._tell("producer.back", producer, producer.addresses)
            case _:
                pass

    def gone(self, name: str, now: float) -> None:
        """Note that a channel's producer has left, as its server says."""
        producer = self._producers.get(name)
        if producer is not None:
            self._shut(producer)
            producer.known = frozenset()
            producer.enter(State.AWAY, now)

    def listens(self, name: str, now: float) -> None:
        """Note that a channel's listener has begun anew, and knows nobody."""
        producer = self._producers.get(name)
        if producer is None or producer.entrance.entry is not Entry.LISTENER:
            return
        if producer.sessions:
            self._lose(producer, now)
        producer.known, producer.calling = frozenset(), False

    def _shut(self, producer: Producer) -> None:
        if producer.sessions:
            producer.sessions = {}
            self.edition += 1

    # --- whether they still send --------------------------------------------------------------

    def counted(self, counts: Mapping[Session, int], now: float) -> None:
        """Take in how many bytes the rule of each session has counted until ``now``."""
        for producer in [*self._producers.values()]:
            if producer.sessions:
                producer.count(counts, now)
                self._judge(producer, now)
        for key in [key for key, until in self._expected.items() if until <= now]:
            del self._expected[key]
            self.edition += 1

    def uncounted(self) -> None:
        """Note that the switch could not be asked: silence counts from its next answer."""
        for producer in self._producers.values():
            producer.forget_counts()

    def _judge(self, producer: Producer, now: float) -> None:
        if producer.recent >= LEAST_BYTES:
            if producer.state is State.ADMITTED:
                producer.enter(State.LIVE, now)
                self._tell("producer.came", producer, producer.addresses)
            self._release(producer, now)
        elif producer.listened(now):
            if producer.state is State.LIVE:
                self._lose(producer, now)
            elif producer.entrance.entry is not Entry.SERVER:
                # A server knows better for how long it waits.
                self._shut(producer)
                producer.enter(State.AWAY, now)

    def _release(self, producer: Producer, now: float) -> None:
        """Let go of picture or sound alone, so that it may come from another port."""
        entrance = producer.entrance
        if entrance.entry is not Entry.FIRST_PACKET:
            return
        for session, passing in [*producer.sessions.items()]:
            if session.way in entrance.ways and now - passing.heard >= 2 * SILENCE_S:
                del producer.sessions[session]
                self.edition += 1

    def _lose(self, producer: Producer, now: float) -> None:
        entry, came = producer.entrance.entry, producer.state is State.LIVE
        sessions, addresses = frozenset(producer.sessions), producer.addresses
        self._shut(producer)
        producer.enter(State.LOST if came else State.AWAY, now)
        if came:
            self._tell("producer.lost", producer, addresses)
        if entry is Entry.FIRST_PACKET:
            self._restart(producer.name)  # whoever comes next has other timestamps
        else:
            producer.known = sessions

    def _tell(self, kind: str, producer: Producer, addresses: Collection[Address]) -> None:
        named = ", ".join(sorted(map(str, addresses)))
        self._on_event(Event(kind, producer.name, {"address": named}))


def _includes(known: Session, session: Session) -> bool:
    return (known.way, known.source) == (session.way, session.source) and (
        known.source_port in (None, session.source_port)
    )


def _free(taken: Collection[int], limit: int) -> int:
    for number in range(limit):
        if number not in taken:
            return number
    raise TooManyError(f"there can be no more than {limit} ways in")
