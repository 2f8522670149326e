"""The sender's side: a request towards a destination, repeated until it is answered. Sans-IO."""

from collections.abc import Callable
from dataclasses import dataclass

from anabranch.services.errors import MessageError
from anabranch.services.signalling import message as text
from anabranch.services.signalling import response as responses
from anabranch.services.signalling.gist.events import LastNode, Received, Undeliverable
from anabranch.services.signalling.gist.node import Gist
from anabranch.services.signalling.gist.objects import SID_BYTES, Address, Flow
from anabranch.services.signalling.gist.sessions import key_of
from anabranch.services.signalling.relay import KEEP, TIMEOUT
from anabranch.services.signalling.request import reference_of
from anabranch.services.signalling.response import Response

_FIRST_REPETITION = 2.0  # seconds, then doubled; GIST repeats its queries faster by itself


@dataclass(frozen=True, slots=True)
class Result:
    """How a request ended.

    Attributes:
        session: where it was sent; a renewal goes there, too.
        response: None: nobody answered.
        reason: why not.
    """

    session: bytes
    response: Response | None
    reason: str = ""


@dataclass(slots=True)
class _Exchange:
    session: bytes
    data: bytes
    deadline: float
    repeat_at: float
    interval: float


class Sender:
    """Requests under way from one end.

    Attributes:
        results: by the reference of the request; the caller takes them out.
    """

    def __init__(self, gist: Gist, random: Callable[[int], bytes]) -> None:
        self._gist = gist
        self._random = random
        self._exchanges: dict[str, _Exchange] = {}
        self.results: dict[str, Result] = {}

    @property
    def busy(self) -> bool:
        """Whether a request is under way."""
        return bool(self._exchanges)

    def open(self, source: Address, destination: Address) -> bytes:
        """Return a new session towards ``destination``."""
        return key_of(Flow(source, destination), self._random(SID_BYTES))

    def send(self, session: bytes, data: bytes, now: float, *, timeout: float = TIMEOUT + 5) -> str:
        """Send a signed request in a session, and return its reference.

        Its :class:`Result` comes within ``timeout`` seconds.
        """
        reference = reference_of(data)
        interval = _FIRST_REPETITION
        one = _Exchange(session, data, now + timeout, now + interval, interval)
        self._exchanges[reference] = one
        self._gist.send(session, data, now, upstream=False)
        self._gist.hold(session, now + timeout + KEEP, now)
        return reference

    def hold(self, session: bytes, seconds: float, now: float) -> None:
        """Keep a session up for that long, since something is to be renewed in it."""
        self._gist.hold(session, now + seconds, now)

    def process(self, now: float) -> None:
        """Take what GIST has to tell."""
        events = self._gist.events
        while events:
            match events.popleft():
                case Received() as received if received.upstream:
                    self._take(received)
                case LastNode(_, undelivered):
                    for data in undelivered:
                        self._end(reference_of(data), "no node on the path")
                case Undeliverable(_, data, reason):
                    self._end(reference_of(data), reason)
                case _:
                    pass  # a path that changes is the nodes' affair

    def next_timer(self) -> float | None:
        """Return when to call :meth:`handle_timer`."""
        times = (min(one.repeat_at, one.deadline) for one in self._exchanges.values())
        return min(times, default=None)

    def handle_timer(self, now: float) -> None:
        """Repeat what was not answered, give up what took too long."""
        for reference, one in list(self._exchanges.items()):
            if one.deadline <= now:
                self._end(reference, "no answer in time")
            elif one.repeat_at <= now:
                one.interval *= 2
                one.repeat_at = now + one.interval
                self._gist.send(one.session, one.data, now, upstream=False)

    def _take(self, received: Received) -> None:
        try:
            response = responses.read(text.parse(received.data))
        except MessageError:
            return
        one = self._exchanges.get(response.request)
        if one is not None and one.session == received.key:
            del self._exchanges[response.request]
            self.results[response.request] = Result(one.session, response)

    def _end(self, reference: str, reason: str) -> None:
        one = self._exchanges.pop(reference, None)
        if one is not None:
            self.results[reference] = Result(one.session, None, reason)
