"""SIP messages in datagrams, as far as what stands on the way has to read them (RFC 3261).

Values stay the bytes that came: a response repeats them as they were, and nothing is parsed that
nobody asks for. :func:`parse` is strict where two readers could differ (line ends, mandatory
headers, lengths), since a module decides about what a server behind it reads again.
"""

import hmac
import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

from anabranch.services.errors import ServicesError

MAX_HEADERS = 256
"""More than any real message has; every one costs who reads it."""
COMPACT = {
    b"a": b"accept-contact", b"b": b"referred-by", b"c": b"content-type",
    b"d": b"request-disposition", b"e": b"content-encoding",
    b"f": b"from", b"i": b"call-id", b"j": b"reject-contact", b"k": b"supported",
    b"l": b"content-length", b"m": b"contact", b"o": b"event", b"r": b"refer-to", b"s": b"subject",
    b"t": b"to", b"u": b"allow-events", b"v": b"via", b"x": b"session-expires",
    b"y": b"identity",
}  # fmt: skip
"""Short names and what they stand for (RFC 3261, 7.3.3; the registry of header fields)."""

_TOKEN = rb"[A-Za-z0-9\-.!%*_+`'~]+"
_REQUEST = re.compile(rb"(" + _TOKEN + rb") ([^\s\x00-\x1f]+) SIP/2\.0")
_STATUS = re.compile(rb"SIP/2\.0 ([1-6][0-9][0-9]) ([^\x00-\x08\x0a-\x1f\x7f]*)")
_NAME = re.compile(_TOKEN)
_CSEQ = re.compile(rb"([0-9]{1,10})[ \t]+(" + _TOKEN + rb")")
_VIA = re.compile(
    rb"SIP[ \t]*/[ \t]*2\.0[ \t]*/[ \t]*(" + _TOKEN + rb")[ \t]+"
    rb"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9.\-_]+)(?:[ \t]*:[ \t]*([0-9]{1,5}))?[ \t]*(;.*)?",
    re.DOTALL,
)
# A quoted string, an angle-bracketed part, or anything that is neither: none runs into another.
_PIECES = re.compile(rb'"(?:[^"\\]|\\.)*"|<[^>]*>|[^"<,;]+|[,;"<]', re.DOTALL)
_RPORT = re.compile(rb";[ \t]*rport[ \t]*=?[ \t]*(?=;|$)", re.IGNORECASE)
_MANDATORY = (b"via", b"from", b"to", b"call-id", b"cseq")


class SipError(ServicesError):
    """Bytes that are no SIP message, or one that breaks the rules."""


@dataclass(frozen=True, slots=True)
class Via:
    """One hop that a request took (RFC 3261, 20.42).

    Attributes:
        transport: in upper case.
        host: as it was sent; IPv6 in brackets.
        port: ``sent-by``'s, or None.
        parameters: names in lower case; empty values for those without one.
    """

    transport: bytes
    host: bytes
    port: int | None
    parameters: dict[bytes, bytes]

    @property
    def branch(self) -> bytes:
        return self.parameters.get(b"branch", b"")


@dataclass(frozen=True)
class Message:
    """A request or a response.

    Attributes:
        method: of a request; empty in a response.
        uri: the Request-URI.
        status: of a response; 0 in a request.
        headers: in their order; names in lower case and long, values without folds.
        body: as long as Content-Length says.
    """

    method: bytes
    uri: bytes
    status: int
    headers: tuple[tuple[bytes, bytes], ...]
    body: bytes

    def values(self, name: bytes) -> list[bytes]:
        """Return the values of a header, by its long name in lower case; unsplit."""
        return [value for each, value in self.headers if each == name]

    def get(self, name: bytes) -> bytes | None:
        """Return the first value of a header, or None."""
        return next((value for each, value in self.headers if each == name), None)

    def _one(self, name: bytes) -> bytes:
        value = self.get(name)
        assert value is not None  # parse() has looked
        return value

    @property
    def call_id(self) -> bytes:
        return self._one(b"call-id")

    @cached_property
    def cseq(self) -> tuple[int, bytes]:
        """Number and method. Checked when it was parsed."""
        found = _CSEQ.fullmatch(self._one(b"cseq"))
        assert found is not None
        return int(found[1]), found[2]

    @cached_property
    def from_tag(self) -> bytes:
        return tag_of(self._one(b"from"))

    @cached_property
    def to_tag(self) -> bytes:
        """Empty: the request is outside of any dialog."""
        return tag_of(self._one(b"to"))

    @cached_property
    def via(self) -> Via:
        """The hop before. Raises SipError."""
        return parse_via(first_of(self._one(b"via")))

    @property
    def transaction(self) -> bytes:
        """What the retransmissions of a request share (RFC 3261, 17.2.3), with its method."""
        via, (number, method) = self.via, self.cseq
        port = b"" if via.port is None else b"%d" % via.port
        return b"\0".join((via.branch, via.host, port, self.call_id, b"%d" % number, method))


def parse(data: bytes) -> Message:
    """Read the message in a datagram (RFC 3261, 7 and 18.3).

    Raises:
        SipError: it is none; the message says why.
    """
    end = data.find(b"\r\n\r\n")
    if end < 0:
        raise SipError("no empty line ends the headers")
    lines = _unfolded(data[:end])
    if len(lines) > MAX_HEADERS:
        raise SipError(f"more than {MAX_HEADERS} headers")
    method, uri, status = _start(lines[0])
    headers = tuple(map(_header, lines[1:]))
    message = Message(method, uri, status, headers, _body(headers, data[end + 4 :]))
    _check(message)
    return message


def _unfolded(head: bytes) -> list[bytes]:
    lines = head.split(b"\r\n")
    if b"\n" in head or b"\r" in head:
        joined: list[bytes] = []
        for line in lines:
            if b"\r" in line or b"\n" in line:
                raise SipError("a line ends with half a line end")
            if line[:1] in (b" ", b"\t"):
                if len(joined) < 2:
                    raise SipError("the first line cannot be folded")
                joined[-1] += b" " + line.strip(b" \t")
            else:
                joined.append(line)
        return joined
    return lines


def _start(line: bytes) -> tuple[bytes, bytes, int]:
    request = _REQUEST.fullmatch(line)
    if request is not None:
        return request[1], request[2], 0
    status = _STATUS.fullmatch(line)
    if status is None:
        raise SipError("the first line is that of no request or response of SIP/2.0")
    return b"", b"", int(status[1])


def _header(line: bytes) -> tuple[bytes, bytes]:
    name, colon, value = line.partition(b":")
    name = name.rstrip(b" \t").lower()
    if not colon or _NAME.fullmatch(name) is None:
        raise SipError("a header is no name and value")
    return COMPACT.get(name, name), value.strip(b" \t")


def _body(headers: Iterable[tuple[bytes, bytes]], rest: bytes) -> bytes:
    lengths = {value for name, value in headers if name == b"content-length"}
    if not lengths:
        return rest
    if len(lengths) > 1:
        raise SipError("two lengths")
    text = lengths.pop()
    if not text.isdigit() or len(text) > 10:
        raise SipError("Content-Length is no number")
    length = int(text)
    if length > len(rest):
        raise SipError("the body is shorter than Content-Length")
    return rest[:length]


def _check(message: Message) -> None:
    counts = dict.fromkeys(_MANDATORY, 0)
    for name, value in message.headers:
        if name in counts:
            counts[name] += 1
            if not value:
                raise SipError(f"{name.decode()} is empty")
    for name, count in counts.items():
        if count != 1 and (count == 0 or name != b"via"):
            raise SipError(f"{name.decode()} has to be there once, not {count} times")
    found = _CSEQ.fullmatch(message.get(b"cseq") or b"")
    if found is None or int(found[1]) >= 2**31:
        raise SipError("CSeq is no number and method")
    if message.method and found[2] != message.method:
        raise SipError("CSeq names another method than the request")
    _ = message.via


def first_of(value: bytes) -> bytes:
    """Return the first of several values that commas separate."""
    return next(iter(_split(value, b",")))


def tag_of(value: bytes) -> bytes:
    """Return the tag of a From or To header; empty if it has none."""
    for parameter in _split(value, b";")[1:]:
        name, _, tag = parameter.partition(b"=")
        if name.strip(b" \t").lower() == b"tag":
            return tag.strip(b" \t")
    return b""


def parse_via(value: bytes) -> Via:
    """Read one value of a Via header. Raises SipError."""
    found = _VIA.fullmatch(value.strip(b" \t"))
    if found is None:
        raise SipError("Via is no hop")
    parameters = {}
    for part in _split(found[4] or b"", b";")[1:]:
        name, _, given = part.partition(b"=")
        parameters[name.strip(b" \t").lower()] = given.strip(b" \t")
    port = int(found[3]) if found[3] else None
    if port is not None and not 0 < port < 65536:
        raise SipError("Via has no such port")
    return Via(found[1].upper(), found[2], port, parameters)


def _split(value: bytes, at: bytes) -> list[bytes]:
    """Split at commas or semicolons, but not within quotes and angle brackets."""
    if b'"' not in value and b"<" not in value:
        return value.split(at)
    parts: list[bytes] = [b""]
    for piece in _PIECES.findall(value):
        if piece == at:
            parts.append(b"")
        else:
            parts[-1] += piece
    return parts


def respond(
    request: Message,
    status: int,
    reason: bytes,
    *,
    to_tag: bytes,
    source: tuple[bytes, int] | None = None,
    headers: Iterable[tuple[bytes, bytes]] = (),
) -> bytes:
    """Return a response to a request (RFC 3261, 8.2.6), without a body.

    Args:
        request: what is answered; its Via, From, To, Call-ID and CSeq are repeated.
        status: 100 to 699.
        reason: for people.
        to_tag: added to To where that has none; see :func:`stateless_tag`.
        source: address and port from which the request came: noted in the topmost Via where that
            is asked for or differs (RFC 3261, 18.2.1; RFC 3581, 4).
        headers: more, as they are to be written.
    """
    lines = [b"SIP/2.0 %d %s" % (status, reason)]
    noted = source is None
    for name, value in request.headers:
        if name == b"via":
            if not noted and source is not None:
                value = _with_source(request.via, value, source)
                noted = True
            lines.append(b"Via: " + value)
        elif name == b"to":
            tagged = value if request.to_tag else value + b";tag=" + to_tag
            lines.append(b"To: " + tagged)
        elif name in _REPEATED:
            lines.append(_REPEATED[name] + value)
    lines += [name + b": " + value for name, value in headers]
    lines.append(b"Content-Length: 0\r\n\r\n")
    return b"\r\n".join(lines)


_REPEATED = {b"from": b"From: ", b"call-id": b"Call-ID: ", b"cseq": b"CSeq: "}


def _with_source(via: Via, value: bytes, source: tuple[bytes, int]) -> bytes:
    first = first_of(value)
    rest = value[len(first) :]
    wants_port = via.parameters.get(b"rport") == b""
    if wants_port:
        first = _RPORT.sub(b";rport=%d" % source[1], first, count=1)
    if wants_port or via.host.strip(b"[]") != source[0]:
        first += b";received=" + source[0]
    return first + rest


def response_port(request: Message, source_port: int) -> int:
    """Return the UDP port to which a response goes (RFC 3261, 18.2.2; RFC 3581, 4)."""
    if b"rport" in request.via.parameters:
        return source_port
    return request.via.port or 5060


def stateless_tag(request: Message, key: bytes) -> bytes:
    """Return a To tag that is the same for each retransmission (RFC 3261, 8.2.7).

    The ACK to such a response is told by it: see :func:`is_ack_to`.
    """
    via = request.via
    text = b"\0".join((via.branch, via.host, request.call_id, request.from_tag))
    return hmac.digest(key, text, "sha256")[:8].hex().encode()


def is_ack_to(request: Message, key: bytes) -> bool:
    """Say whether a request is the ACK to a response with a :func:`stateless_tag`."""
    return request.method == b"ACK" and hmac.compare_digest(
        request.to_tag, stateless_tag(request, key)
    )
