"""What a node keeps of a session, and of a peer; 50,000 sessions are the measure here."""

import heapq
import itertools
from collections import Counter
from enum import IntEnum
from ipaddress import IPv6Address

from anabranch.services.signalling.gist.objects import Address, Flow, Stack


class Peer:
    """A node next to us on some path; one object for all sessions with it.

    Attributes:
        identity: its own name for itself.
        address, port: where its datagrams come from and ours go to.
        stack: how it takes connections, if it said so.
        association: the open connection to it, the adapter's number for it.
        waiting: messages for a connection that is being opened.
    """

    __slots__ = (
        "__weakref__",
        "address",
        "association",
        "identity",
        "port",
        "stack",
        "waiting",
    )

    def __init__(self, identity: bytes, address: Address, port: int) -> None:
        self.identity = identity
        self.address = address
        self.port = port
        self.stack: Stack | None = None
        self.association: int | None = None
        self.waiting: list[bytes] = []

    def is_at(self, identity: bytes, source: tuple[Address, int]) -> bool:
        """Return whether it is the node of that name, there."""
        return self.identity == identity and (self.address, self.port) == source


class Downstream(IntEnum):
    """What is known of the next node down the path."""

    UNKNOWN = 0
    FOUND = 1
    LAST = 2  # there is none


class Session:
    """Routing state of one session and flow (RFC 5971, section 4.2.1), both directions.

    Attributes:
        key: see :func:`key_of`.
        upstream: the node before us; None: the session begins here, or it is not confirmed.
        upstream_until: when that expires.
        state, downstream: the node after us.
        cookie: of the Query under way.
        tries: how often that was sent.
        hold_until: until when what is above GIST needs the session.
        timer: when to look at it again; the only valid one of its entries in :class:`Timers`.
        pending: payloads that wait for the next node, each with its hop count.
    """

    __slots__ = (
        "cookie",
        "downstream",
        "hold_until",
        "key",
        "pending",
        "state",
        "timer",
        "tries",
        "upstream",
        "upstream_until",
    )

    def __init__(self, key: bytes) -> None:
        self.key = key
        self.upstream: Peer | None = None
        self.upstream_until = 0.0
        self.downstream: Peer | None = None
        self.state = Downstream.UNKNOWN
        self.cookie: bytes | None = None
        self.tries = 0
        self.hold_until = 0.0
        self.timer = 0.0
        self.pending: list[tuple[bytes, int]] | None = None

    @property
    def sid(self) -> bytes:
        return self.key[:16]

    @property
    def flow(self) -> Flow:
        """The flow, in its own direction."""
        return Flow.parse(self.key[16:])

    def expires(self) -> float:
        """Return when neither side needs it any more."""
        return max(self.hold_until, self.upstream_until)


def key_of(flow: Flow, sid: bytes) -> bytes:
    """Return what names a session of a flow: its identifier and the flow, downstream."""
    return sid + (Flow(flow.source, flow.destination) if flow.upstream else flow).encode()


class Shares:
    """How many sessions each node before us has here, by its address: none may take all the room.

    Addresses were proved by a cookie. One who has an IPv6 address mostly has all of a /64, so
    those of one /64 are counted together.
    """

    def __init__(self, most: int, most_of_one: int) -> None:
        self._most = most
        self._most_of_one = most_of_one
        self._counts: Counter[int] = Counter()

    def has_room(self, address: Address, held: int) -> bool:
        """Return whether there may be one more from ``address`` beside ``held`` in all."""
        return held < self._most and self._counts[_source(address)] < self._most_of_one

    def move(self, before: Peer | None, after: Peer | None) -> None:
        """Count a session that came, went, or goes on from another node."""
        if after is not None:
            self._counts[_source(after.address)] += 1
        if before is not None:
            source = _source(before.address)
            self._counts[source] -= 1
            if not self._counts[source]:
                del self._counts[source]

    def __len__(self) -> int:
        """Return how many sources there are."""
        return len(self._counts)


def _source(address: Address) -> int:
    return int(address) >> 64 << 64 if isinstance(address, IPv6Address) else int(address)


class Timers:
    """A heap of sessions by the time of their next timer; moved timers leave old entries behind."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, Session]] = []
        self._count = itertools.count()

    def set(self, session: Session, when: float) -> None:
        """Look at ``session`` at ``when``, and not at the time set before."""
        if session.timer != when:
            session.timer = when
            heapq.heappush(self._heap, (when, next(self._count), session))

    def next(self) -> float | None:
        """Return when the next one is due; it may turn out to be moved."""
        return self._heap[0][0] if self._heap else None

    def due(self, now: float) -> list[Session]:
        """Take out the sessions whose time has come."""
        found = []
        while self._heap and self._heap[0][0] <= now:
            when, _, session = heapq.heappop(self._heap)
            if session.timer == when:
                session.timer = 0.0
                found.append(session)
        return found
