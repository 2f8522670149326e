"""One connection between two nodes, without any I/O: frames, HELLO first, liveness, bad input.

The adapter hands in bytes and the time (monotonic seconds) and sends what ``data_to_send`` gives.
A frame is a length of four bytes, big-endian, and one XML document (docs/protocols/soleil.md).
"""

import secrets
import time
from dataclasses import dataclass
from enum import Enum, auto

from anabranch.tree.model import Role
from anabranch.tree.soleil.codec import MAX_BYTES, CodecError, decode, encode
from anabranch.tree.soleil.messages import (
    Body,
    Error,
    Fault,
    Hello,
    Message,
    Ping,
    Pong,
    Redirect,
)

MAX_GREETING = 32 * 1024
"""Bytes of a frame from somebody who has not been taken in."""
LOST_AFTER_S = 9.0
"""Seconds of silence after which a peer counts as lost."""
_MAX_FAULTS = 8
_FORGIVE_S = 60.0
_HEADER = 4


@dataclass(frozen=True, slots=True)
class Identity:
    """Who the peer is, as its certificate says; ``key``: the SHA-256 of its public key."""

    name: str
    role: Role
    key: str = ""


@dataclass(frozen=True, slots=True)
class Lost:
    """Nothing more comes by this connection: send what is left and close it."""

    reason: str


PeeringEvent = Message | Lost


class TooLongError(Exception):
    """The peer announces a frame longer than allowed."""


class Framer:
    """Cuts a stream into frames of at most ``limit`` bytes."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._buffer = bytearray()

    def feed(self, data: bytes) -> None:
        """Take what has arrived."""
        self._buffer += data

    def next(self) -> bytes | None:
        """Return the next whole frame, or None until there is one.

        Raises:
            TooLongError: its length is above the limit; nothing after it can be read.
        """
        if len(self._buffer) < _HEADER:
            return None
        length = int.from_bytes(self._buffer[:_HEADER], "big")
        if length > self.limit:
            raise TooLongError(f"a message of {length} bytes; {self.limit} are allowed")
        end = _HEADER + length
        if len(self._buffer) < end:
            return None
        frame = bytes(self._buffer[_HEADER:end])
        del self._buffer[:end]
        return frame


class _State(Enum):
    GREETING = auto()
    UP = auto()
    CLOSED = auto()


class Peering:
    """One connection from its first byte to its last.

    Until :meth:`establish`, only HELLO, REDIRECT and ERROR pass, in few bytes and little time.

    Args:
        now: monotonic seconds.
        greeting: seconds until it must be established.
        silence: seconds without a message after which a PING is sent, again and again.
        lost_after: seconds without a message after which the peer counts as lost. A frame that
            arrives byte by byte is none until it is whole.
    """

    def __init__(
        self,
        now: float,
        *,
        greeting: float = 10.0,
        silence: float = 3.0,
        lost_after: float = LOST_AFTER_S,
    ) -> None:
        self._silence = silence
        self._lost_after = lost_after
        self._deadline = now + greeting
        self._heard = now
        self._pinged = now
        self._state = _State.GREETING
        self._framer = Framer(MAX_GREETING)
        self._out: list[bytes] = []
        self._faults = 0
        self._forgiven = now

    @property
    def established(self) -> bool:
        """Whether both sides have taken each other."""
        return self._state is _State.UP

    def establish(self, now: float) -> None:
        """Lift the limits of the greeting: both sides know each other now."""
        if self._state is _State.GREETING:
            self._state = _State.UP
            self._framer.limit = MAX_BYTES
            self._heard = self._pinged = now

    def send(self, document: bytes) -> None:
        """Queue an encoded message."""
        if self._state is not _State.CLOSED:
            self._out.append(document)

    def documents_to_send(self) -> list[bytes]:
        """Return, once, what is to be sent now, for transports that keep messages apart."""
        documents, self._out = self._out, []
        return documents

    def data_to_send(self) -> bytes:
        """Return, once, the bytes to be sent now."""
        return b"".join(
            len(document).to_bytes(_HEADER, "big") + document
            for document in self.documents_to_send()
        )

    def receive(self, data: bytes, now: float) -> list[PeeringEvent]:
        """Take bytes from the peer and return what they mean."""
        events: list[PeeringEvent] = []
        self._framer.feed(data)
        while self._state is not _State.CLOSED:
            try:
                frame = self._framer.next()
            except TooLongError as error:
                self._say(Error(Fault.TOO_LARGE, str(error)))
                events.append(self._lose(str(error)))
                break
            if frame is None:
                break
            events += self.receive_document(frame, now)
        return events

    def receive_document(self, document: bytes, now: float) -> list[PeeringEvent]:
        """Take one whole document, from a transport that keeps messages apart."""
        if self._state is _State.CLOSED:
            return []
        self._heard = now
        try:
            message = decode(document)
        except CodecError as error:
            self._say(Error(error.fault, str(error), error.type, error.id))
            return self._blame(str(error), now)
        match message.body:
            case Ping(nonce) if message.to is None:
                self._say(Pong(nonce))
            case Pong() if message.to is None:
                pass  # heard from it, which is what counts
            case Hello() | Redirect() | Error():
                return [message]
            case _ if self._state is _State.GREETING:
                text = f"{type(message.body).__name__} before HELLO"
                self._say(Error(Fault.FORBIDDEN, text, answers=message.id))
                return [self._lose(text)]
            case _:
                return [message]
        return []

    def blame(self, reason: str, now: float) -> list[PeeringEvent]:
        """Count an offence against the rules of the tree; too many, and the peer is lost."""
        return [] if self._state is _State.CLOSED else self._blame(reason, now)

    def next_timer(self) -> float | None:
        """Return when ``handle_timer`` is due, in monotonic seconds; None for never."""
        match self._state:
            case _State.GREETING:
                return self._deadline
            case _State.UP:
                lost = self._heard + self._lost_after
                return min(max(self._heard, self._pinged) + self._silence, lost)
            case _State.CLOSED:
                return None

    def handle_timer(self, now: float) -> list[PeeringEvent]:
        """Do what is due at ``now``: send a PING or give the peer up."""
        due = self.next_timer()
        if due is None or now < due:
            return []
        if self._state is _State.GREETING:
            return [self._lose("no HELLO in time")]
        if now - self._heard >= self._lost_after:
            return [self._lose(f"nothing heard for {now - self._heard:.1f} s")]
        self._pinged = now
        self._say(Ping(secrets.token_hex(4)))
        return []

    def _blame(self, reason: str, now: float) -> list[PeeringEvent]:
        if now - self._forgiven >= _FORGIVE_S:
            self._forgiven = now
            self._faults = 0
        self._faults += 1
        if self._state is _State.GREETING or self._faults > _MAX_FAULTS:
            return [self._lose(reason)]
        return []

    def _lose(self, reason: str) -> Lost:
        self._state = _State.CLOSED
        return Lost(reason)

    def _say(self, body: Body) -> None:
        """Tell the neighbour itself something."""
        self.send(encode(Message(body, wall_ms())))


def wall_ms() -> int:
    """Return the time for an envelope; nothing is decided by it."""
    return time.time_ns() // 1_000_000
