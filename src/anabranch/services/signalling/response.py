"""Responses: the stack that the nodes gather on the way back, the node nearest the sender on top.

::

    RESPONSE NetServ.apps.NetMonitor_1.0.0 NETSERV/0.1
    request:uQ0mG...
    hop:node-id=a,status=200,reason=installed,address=192.0.2.1
    hop:node-id=b,status=200,reason=installed,address=198.51.100.9
    <empty line>
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Self

from anabranch.services.errors import MessageError
from anabranch.services.signalling import values
from anabranch.services.signalling.message import Message, Method
from anabranch.services.signalling.request import decode_base64, encode_base64

MAX_HOPS = 48
_ALLOWED = {"request", "hop", "response"}


class Status:
    """What a node says of a request; the numbers have the meaning that HTTP gives them."""

    OK = 200
    BAD_REQUEST = 400
    BAD_SIGNATURE = 401
    FORBIDDEN = 403
    NOT_FOUND = 404
    REPLAYED = 409
    TOO_LARGE = 413
    FAILED_DEPENDENCY = 424
    TOO_MANY = 429
    FAILED = 500
    NO_ARCHIVE = 502
    BUSY = 503
    TIMEOUT = 504


@dataclass(frozen=True, slots=True)
class Hop:
    """What one node answers.

    Attributes:
        status: see :class:`Status`.
        reason: for a person.
        details: what was probed, by name.
    """

    node_id: str
    status: int
    reason: str
    details: Mapping[str, str] = field(default_factory=dict)

    @property
    def ok(self) -> bool:
        return self.status < 300

    def encode(self) -> str:
        head = {"node-id": self.node_id, "status": str(self.status), "reason": self.reason}
        return values.write_pairs(head | dict(self.details))

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read the value of a ``hop`` header. Raises :class:`MessageError`."""
        details = values.pairs(text)
        try:
            node_id, status = details.pop("node-id"), details.pop("status")
            reason = details.pop("reason")
        except KeyError as error:
            raise MessageError(f"a hop without {error}") from error
        return cls(node_id, values.number(status, 100, 599), reason, details)


@dataclass(frozen=True, slots=True)
class Response:
    """The answer of all nodes passed.

    Attributes:
        name: the module of the request.
        request: :func:`reference_of` what it answers.
        hops: the node nearest the sender first.
        inner: the response to what a TRIGGER had sent back, if one came.
    """

    name: str
    request: str
    hops: tuple[Hop, ...] = ()
    inner: bytes = b""

    def pushed(self, hop: Hop) -> Self:
        """Return it with ``hop`` on top of the stack; the far end gives way beyond 48 hops."""
        return type(self)(self.name, self.request, (hop, *self.hops)[:MAX_HOPS], self.inner)

    def encode(self) -> bytes:
        """Write it. Raises :class:`MessageError` if it is too large."""
        headers = [("request", self.request)]
        headers += [("hop", hop.encode()) for hop in self.hops]
        if self.inner:
            headers.append(("response", encode_base64(self.inner)))
        return Message(Method.RESPONSE, self.name, tuple(headers)).encode()


def read(message: Message) -> Response:
    """Read the response that ``message`` is.

    Raises:
        MessageError: it is another kind, or a header is missing, unknown or malformed.
    """
    if message.method is not Method.RESPONSE:
        raise MessageError(f"a {message.method} is no response")
    unknown = {name for name, _ in message.headers} - _ALLOWED
    reference = message.get("request")
    if reference is None or unknown:
        raise MessageError("a response has the headers request, hop and response only")
    hops = tuple(map(Hop.parse, message.all("hop")))
    if len(hops) > MAX_HOPS:
        raise MessageError(f"a response has at most {MAX_HOPS} hops")
    return Response(message.name, reference, hops, decode_base64(message.get("response") or ""))
