"""A stream of octets over requests that may be lost, doubled or overtaken; without any I/O.

What TCP does (RFC 9293) as far as requests with answers need it: octets are numbered, and kept
until the other side has acknowledged them (docs/protocols/soleil.md, *HTTP*).
"""

from collections.abc import Mapping
from dataclasses import dataclass

from anabranch.core.errors import UsageError

MAX_SEGMENT = 64 * 1024
"""Octets of one segment."""
MAX_UNACKNOWLEDGED = 1024 * 1024
"""Octets after which a writer should wait."""
MAX_WAIT_S = 25.0
"""Seconds that an answer may be held back: proxies hang up after 30."""
SESSION = "soleil-session"
"""Header field: names the stream; drawn by the client."""
WAIT = "soleil-wait"
"""Header field: seconds that the answer may be held back."""
_SEQUENCE = "soleil-sequence"
_ACKNOWLEDGMENT = "soleil-acknowledgment"
_END = "soleil-end"
_MOST_DIGITS = 15


class SegmentError(UsageError):
    """A segment is malformed, or contradicts what was said before."""


@dataclass(frozen=True, slots=True)
class Segment:
    """Octets on their way.

    Attributes:
        sequence: how many octets were sent before these.
        acknowledgment: how many the sender has received.
        end: none come after these.
    """

    sequence: int
    acknowledgment: int
    data: bytes = b""
    end: bool = False

    def headers(self) -> dict[str, str]:
        """Return the header fields of a request or answer whose body is ``data``."""
        fields = {_SEQUENCE: str(self.sequence), _ACKNOWLEDGMENT: str(self.acknowledgment)}
        return fields | ({_END: "1"} if self.end else {})


def segment_of(headers: Mapping[str, str], body: bytes) -> Segment:
    """Return what :meth:`Segment.headers` and a body mean; names of fields in lower case.

    Raises:
        SegmentError: they are no segment.
    """
    if len(body) > MAX_SEGMENT:
        raise SegmentError(f"a body of {len(body)} bytes; {MAX_SEGMENT} are allowed")
    sequence, acknowledgment = (_number(headers, name) for name in (_SEQUENCE, _ACKNOWLEDGMENT))
    return Segment(sequence, acknowledgment, body, headers.get(_END) == "1")


def _number(headers: Mapping[str, str], name: str) -> int:
    text = headers.get(name, "")
    if not (text.isascii() and text.isdecimal() and len(text) <= _MOST_DIGITS):
        raise SegmentError(f"{name} is not a whole number")
    return int(text)


class Stream:
    """One end: octets written here come out of the other end once each, in order."""

    def __init__(self) -> None:
        self._unacknowledged = bytearray()
        self._acknowledged = 0
        self._received = 0
        self._ended = False
        self._peer_ended = False

    @property
    def unacknowledged(self) -> int:
        """How many octets the other end may not have yet."""
        return len(self._unacknowledged)

    @property
    def peer_ended(self) -> bool:
        """Whether everything that the other end will ever write has been received."""
        return self._peer_ended

    @property
    def has_news(self) -> bool:
        """Whether :meth:`segment` has something to tell."""
        return bool(self._unacknowledged) or self._ended

    def write(self, data: bytes) -> None:
        """Queue octets."""
        self._unacknowledged += data

    def end(self) -> None:
        """Say that nothing more will be written."""
        self._ended = True

    def segment(self) -> Segment:
        """Return the first octets that are not acknowledged, and what was received."""
        data = bytes(self._unacknowledged[:MAX_SEGMENT])
        last = len(data) == len(self._unacknowledged)
        return Segment(self._acknowledged, self._received, data, self._ended and last)

    def acknowledgment(self) -> Segment:
        """Return what was received, alone."""
        return Segment(self._acknowledged, self._received)

    def receive(self, segment: Segment) -> bytes:
        """Take a segment of the other end's and return the octets that are new.

        Raises:
            SegmentError: octets are missing before it, or it acknowledges what was not sent.
        """
        sent = self._acknowledged + len(self._unacknowledged)
        if segment.acknowledgment > sent or segment.sequence > self._received:
            raise SegmentError("the two ends do not agree on what was sent")
        if segment.acknowledgment > self._acknowledged:
            del self._unacknowledged[: segment.acknowledgment - self._acknowledged]
            self._acknowledged = segment.acknowledgment
        new = segment.data[self._received - segment.sequence :]
        if new and self._peer_ended:
            raise SegmentError("octets after the end")
        self._received += len(new)
        end_at = segment.sequence + len(segment.data)
        self._peer_ended = self._peer_ended or (segment.end and end_at == self._received)
        return new
