"""NetServ's layer in a node: acts on requests, hands them on, and gathers the response stack.

Sans-IO, between GIST beneath and the service controller beside it. A request is handed on at once
while this node still acts on it; its response goes back when both this node and those after it
have answered. A request that comes again in the same session, since the sender heard nothing, is
answered again, not acted on again.
"""

import heapq
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import Enum
from hashlib import sha256
from typing import Protocol

from anabranch.services.errors import MessageError
from anabranch.services.signalling import message as text
from anabranch.services.signalling import request as requests
from anabranch.services.signalling import response as responses
from anabranch.services.signalling.gist.events import (
    LastNode,
    PathChanged,
    Received,
    Undeliverable,
)
from anabranch.services.signalling.gist.node import Gist
from anabranch.services.signalling.gist.objects import SID_BYTES, Address, Flow
from anabranch.services.signalling.gist.sessions import key_of
from anabranch.services.signalling.message import Method
from anabranch.services.signalling.request import Request, decode_base64, encode_base64
from anabranch.services.signalling.response import Hop, Response, Status

HOPS = 64
TIMEOUT = 45.0  # seconds for the whole way, the first node's
_PER_HOP = 2.0  # each further node gives up that much earlier, so that its answer still counts
_LEAST_TIMEOUT = 10.0
_DIGEST_BYTES = 32
MAX_TRANSACTIONS = 100_000  # about 1 KiB each; beyond that senders have to repeat
KEEP = 64.0  # seconds for which a request that comes again is known


class Way(Enum):
    """What becomes of a request besides what this node does."""

    ON = "on"
    BACK = "back"


@dataclass(frozen=True, slots=True)
class Admission:
    """What a node has to say of a request at first sight.

    Attributes:
        act: the controller is to act on it, and says later what came of it.
        hop: what this node answers if it does not act; None: it is not in the stack.
        way: whether the request goes on to the next node.
    """

    act: bool
    hop: Hop | None
    way: Way


class Gatekeeper(Protocol):
    """The service controller, as far as it decides at once."""

    @property
    def node_id(self) -> str: ...

    def admit(self, request: Request, session: bytes) -> Admission:
        """Judge a request of a GIST session: signature, replay, user, node."""
        ...


@dataclass(frozen=True, slots=True)
class Act:
    """The controller is to act on a request, then to call :meth:`Relay.acted`.

    Attributes:
        session: GIST's key.
        origin: the flow's source, whom a filter protects that names nobody.
    """

    transaction: bytes
    session: bytes
    request: Request
    origin: Address


@dataclass(frozen=True, slots=True)
class Refused:
    """A request that this node turned away at first sight; ``user`` is what it claims."""

    user: str
    name: str
    origin: Address
    hop: Hop


@dataclass(slots=True)
class Transaction:
    """A request on its way through this node."""

    key: bytes
    session: bytes
    data: bytes
    name: str
    deadline: float
    end: float
    user: str = ""
    hop: Hop | None = None
    acting: bool = False
    forwarded: bool = False
    beyond: Response | None = None  # what the nodes after this one say
    answer: bytes | None = None
    outer: bytes | None = None  # the transaction of the TRIGGER that this is inside of
    trigger: Request | None = None  # it is one

    @property
    def reference(self) -> str:
        return encode_base64(self.key[-_DIGEST_BYTES:])


class Relay:
    """Requests and responses of a node.

    Attributes:
        acts: what the controller is to do, in order.
        refusals: the last requests that were turned away, for the log.
    """

    def __init__(self, gist: Gist, gatekeeper: Gatekeeper, random: Callable[[int], bytes]) -> None:
        self._gist = gist
        self._gatekeeper = gatekeeper
        self._random = random
        self._transactions: dict[bytes, Transaction] = {}
        self._timers: list[tuple[float, bytes]] = []  # a heap; two entries for each transaction
        # by session, then by user and module: the SETUP, and until when the module is here
        self._live: dict[bytes, dict[tuple[str, str], tuple[bytes, float]]] = {}
        self.acts: deque[Act] = deque()
        self.refusals: deque[Refused] = deque(maxlen=64)

    @property
    def known(self) -> int:
        """How many requests are known: under way, or answered within :data:`KEEP`."""
        return len(self._transactions)

    def process(self, now: float) -> None:
        """Take what GIST has to tell."""
        events = self._gist.events
        while events:
            match events.popleft():
                case Received() as received if received.upstream:
                    self._take_response(received, now)
                case Received() as received:
                    self._take_request(received, now)
                case LastNode(key, undelivered):
                    for data in undelivered:
                        self._reached_end(key, data, now)
                case PathChanged(key):
                    self._send_again(key, now)
                case Undeliverable(key, data, _):
                    self._reached_end(key, data, now)

    def acted(self, transaction: bytes, hop: Hop, now: float, *, ttl: float = 0.0) -> None:
        """Say what came of an :class:`Act`.

        ``ttl``: for that many seconds a module is here, and the session is kept up.
        """
        found = self._transactions.get(transaction)
        if found is None:
            return
        found.hop, found.acting = hop, False
        if ttl > 0 and found.data:  # else it was answered before, since it took too long
            modules = self._live.setdefault(found.session, {})
            modules[found.user, found.name] = (found.data, now + ttl)
            self._hold(found.session, now)
        self._finish(found, now)

    def let_go(self, session: bytes, user: str, name: str, now: float) -> None:
        """A module is gone: keep its session only for what else is there, and for answers."""
        modules = self._live.get(session, {})
        if modules.pop((user, name), None) is not None:
            if not modules:
                del self._live[session]
            self._hold(session, now)

    def _hold(self, session: bytes, now: float) -> None:
        modules = self._live.get(session, {}).values()
        self._gist.hold(session, max([now + KEEP, *(until for _, until in modules)]), now)

    def next_timer(self) -> float | None:
        """Return when to call :meth:`handle_timer`."""
        return self._timers[0][0] if self._timers else None

    def handle_timer(self, now: float) -> None:
        """Answer what took too long, forget what is long answered."""
        while self._timers and self._timers[0][0] <= now:
            _, key = heapq.heappop(self._timers)
            one = self._transactions.get(key)
            if one is not None and one.answer is None:
                self._give_up(one, now)
            elif one is not None and one.end <= now:
                del self._transactions[key]

    # Requests

    def _take_request(self, received: Received, now: float) -> None:
        key = _transaction_key(received.key, received.data)
        known = self._transactions.get(key)
        if known is not None:
            if known.answer is not None:
                self._gist.send(known.session, known.answer, now, upstream=True)
            elif known.forwarded and known.beyond is None:
                self._gist.send(known.session, known.data, now, upstream=False, hops=received.hops)
            return
        if len(self._transactions) >= MAX_TRANSACTIONS:
            return
        one = self._begin(key, received.key, received.data, received.hops, now)
        self._judge(one, received.flow.source, received.hops, now)

    def _begin(self, key: bytes, session: bytes, data: bytes, hops: int, now: float) -> Transaction:
        timeout = max(_LEAST_TIMEOUT, TIMEOUT - _PER_HOP * (HOPS - hops))
        one = Transaction(key, session, data, text.ANY_MODULE, now + timeout, now + KEEP)
        self._transactions[key] = one
        heapq.heappush(self._timers, (one.deadline, key))
        heapq.heappush(self._timers, (one.end, key))
        self._hold(session, now)
        return one

    def _judge(self, one: Transaction, origin: Address, hops: int, now: float) -> None:
        """Decide what is done with a request that is new here."""
        try:
            request = requests.parse(one.data)
            if request.method is Method.TRIGGER or one.outer is not None:
                _check_trigger(request, inner=one.outer is not None)
        except MessageError as error:
            one.hop = Hop(self._gatekeeper.node_id, Status.BAD_REQUEST, str(error))
            self.refusals.append(Refused("", one.name, origin, one.hop))
            self._end(one, now)
            return
        one.user, one.name = request.user, request.name
        admission = self._gatekeeper.admit(request, one.session)
        one.hop, one.acting = admission.hop, admission.act
        if admission.hop is not None:
            self.refusals.append(Refused(request.user, request.name, origin, admission.hop))
        if request.method is Method.TRIGGER and admission.act:
            one.trigger, one.acting = request, False
        elif admission.act:
            self.acts.append(Act(one.key, one.session, request, origin))
        if admission.way is Way.ON:
            one.forwarded = True
            self._gist.send(one.session, one.data, now, upstream=False, hops=hops)
            self._hold(one.session, now)  # it may have begun here
        else:
            self._end(one, now)

    # The end of the path, and the way back

    def _reached_end(self, session: bytes, data: bytes, now: float) -> None:
        one = self._transactions.get(_transaction_key(session, data))
        if one is not None and one.beyond is None and one.answer is None:
            self._end(one, now)

    def _end(self, one: Transaction, now: float) -> None:
        """Begin the response: nobody after this node will."""
        one.beyond = Response(one.name, one.reference)
        if one.trigger is not None:
            self._turn_back(one, one.trigger, now)
        else:
            self._finish(one, now)

    def _turn_back(self, outer: Transaction, trigger: Request, now: float) -> None:
        """Send what is inside a TRIGGER towards where that came from (seed 003, section 7.5.1)."""
        flow = Flow.parse(outer.session[SID_BYTES:])
        back = key_of(Flow(flow.destination, flow.source), self._random(SID_BYTES))
        key = _transaction_key(back, trigger.inner)
        outer.acting = True
        inner = self._begin(key, back, trigger.inner, HOPS - 1, now)
        inner.deadline = outer.deadline - _PER_HOP
        inner.outer = outer.key
        self._judge(inner, flow.source, HOPS - 1, now)

    def _take_response(self, received: Received, now: float) -> None:
        try:
            response = responses.read(text.parse(received.data))
            digest = decode_base64(response.request)
        except MessageError:
            return  # nobody could make anything of it; the deadline answers
        one = self._transactions.get(received.key + digest)
        if one is not None and one.beyond is None and one.answer is None:
            one.beyond = response
            self._finish(one, now)

    def _finish(self, one: Transaction, now: float) -> None:
        """Answer if everybody has."""
        if one.answer is not None or one.beyond is None or one.acting:
            return
        beyond = one.beyond
        response = Response(one.name, beyond.request, beyond.hops, beyond.inner)
        if one.hop is not None:
            response = response.pushed(one.hop)
        one.answer = _encoded(response)
        one.data, one.beyond, one.trigger = b"", None, None
        outer = self._transactions.get(one.outer) if one.outer is not None else None
        if outer is None:
            self._gist.send(one.session, one.answer, now, upstream=True)
        elif outer.beyond is not None:
            outer.beyond = replace(outer.beyond, inner=one.answer)
            outer.hop = Hop(self._gatekeeper.node_id, Status.OK, "sent back")
            outer.acting = False
            self._finish(outer, now)

    def _give_up(self, one: Transaction, now: float) -> None:
        node = self._gatekeeper.node_id
        if one.acting or one.hop is None:
            reason = "this node did not finish in time" if one.acting else "no answer from beyond"
            one.hop = Hop(node, Status.TIMEOUT, reason)
        elif one.beyond is None:
            details = {**one.hop.details, "beyond": "no answer"}
            one.hop = replace(one.hop, details=details)
        one.acting = False
        one.beyond = one.beyond or Response(one.name, one.reference)
        self._finish(one, now)

    def _send_again(self, session: bytes, now: float) -> None:
        """Tell a new next node what is installed; too old a SETUP, its sender has to renew."""
        for data, until in self._live.get(session, {}).values():
            if until > now:
                self._gist.send(session, data, now, upstream=False, hops=HOPS)


def _check_trigger(request: Request, *, inner: bool) -> None:
    """Check what a TRIGGER carries, or (``inner``) what was inside of one.

    On the way back the flow's source is the user's end; a filter has to say whom it protects.
    """
    if not inner:
        request = requests.parse(request.inner)
    if request.method is Method.TRIGGER:
        raise MessageError("a TRIGGER within a TRIGGER")
    if request.filter is not None and request.filter.destination is None:
        raise MessageError("a filter within a TRIGGER needs filter-dst")


def _transaction_key(session: bytes, data: bytes) -> bytes:
    return session + sha256(data).digest()


def _encoded(response: Response) -> bytes:
    """Write a response; of one that is too large the far end of the stack gives way."""
    while True:
        try:
            return response.encode()
        except MessageError:
            if response.inner:
                response = replace(response, inner=b"")
            elif len(response.hops) > 1:
                response = replace(response, hops=response.hops[: len(response.hops) // 2])
            else:
                node, status = response.hops[0].node_id, response.hops[0].status
                response = replace(response, hops=(Hop(node, status, "too much to say"),))
