"""Requests: which header may stand where and what it means (seed 003, table 6.1, completed)."""

from base64 import b64decode, b64encode
from binascii import Error as Base64Error
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from hashlib import sha256
from typing import Any

from anabranch.services.errors import MessageError, SignatureError
from anabranch.services.keys import PrivateKey, PublicKey
from anabranch.services.signalling import values
from anabranch.services.signalling.message import ANY_MODULE, VERSION, Message, Method, lines
from anabranch.services.signalling.message import parse as parse_message
from anabranch.services.signalling.values import MAX_TTL, Dependency, Filter

PURPOSE = "netserv-message"
MAX_TIME = 2**40
_NONCE_BYTES = range(12, 33)
_WITH_PORTS = [values.PROTOCOLS[name] for name in ("udp", "tcp", "sctp")]

S, R, P, T = Method.SETUP, Method.REMOVE, Method.PROBE, Method.TRIGGER

# Where a header may stand, and where it must.
ALLOWED: dict[str, frozenset[Method]] = {
    "dependencies": frozenset({S}),
    "digest": frozenset({S}),
    "filter-dst": frozenset({S}),
    "filter-port": frozenset({S}),
    "filter-proto": frozenset({S}),
    "message": frozenset({T}),
    "node-id": frozenset({S, R, P, T}),
    "nonce": frozenset({S, R, P, T}),
    "notification": frozenset({S, R}),
    "password": frozenset({S}),
    "probe": frozenset({P}),
    "properties": frozenset({S}),
    "signature": frozenset({S, R, P, T}),
    "time": frozenset({S, R, P, T}),
    "ttl": frozenset({S}),
    "url": frozenset({S}),
    "user": frozenset({S, R, P, T}),
}
MANDATORY: dict[Method, tuple[str, ...]] = {
    S: ("user", "time", "nonce", "url", "digest", "ttl", "signature"),
    R: ("user", "time", "nonce", "signature"),
    P: ("user", "time", "nonce", "probe", "signature"),
    T: ("user", "time", "nonce", "message", "signature"),
}


class Probed(StrEnum):
    """What a PROBE can ask for."""

    NODE_ID = "node-id"
    ADDRESS = "address"
    CAPABILITIES = "capabilities"
    BUILDING_BLOCKS = "building-blocks"
    STATUS = "status"
    POLICY = "policy"


@dataclass(frozen=True, slots=True)
class Request:
    """A request whose headers are well-formed; nothing is said of its signature yet.

    Attributes:
        name: the module and its version, or ``*`` in a PROBE or TRIGGER.
        time: when it was made, seconds since the epoch.
        nonce: 12 to 32 bytes that were drawn for it.
        signature: over :attr:`signed`.
        digest: SHA-256 of the archive at :attr:`url`.
        ttl: seconds after which the module is removed.
        node_id: the only node that is meant.
        password: one-time password for the routability check of the filter's destination.
        inner: what a TRIGGER has the last node send back.
        signed: the bytes that the signature covers.
        encoded: the message as it was sent.
    """

    method: Method
    name: str
    user: str
    time: int
    nonce: bytes
    signature: bytes
    signed: bytes
    encoded: bytes
    url: str = ""
    digest: bytes = b""
    ttl: int = 0
    filter: Filter | None = None
    dependencies: tuple[Dependency, ...] = ()
    properties: dict[str, str] = field(default_factory=dict)
    node_id: str | None = None
    notification: str | None = None
    password: str | None = None
    probed: tuple[Probed, ...] = ()
    inner: bytes = b""

    def verify(self, key: PublicKey) -> None:
        """Check the signature.

        Raises:
            SignatureError: it does not fit.
        """
        try:
            key.verify(PURPOSE, self.signed, self.signature)
        except SignatureError as error:
            raise SignatureError(f"the signature is not that of user {self.user}") from error


def sign(message: Message, key: PrivateKey) -> bytes:
    """Add the signature as the last header and return the message as bytes.

    Raises:
        MessageError: it is no request that a node would read.
    """
    headers = tuple(header for header in message.headers if header[0] != "signature")
    bare = Message(message.method, message.name, headers)
    signature = key.sign(PURPOSE, _signed(bare))
    whole = Message(bare.method, bare.name, (*headers, ("signature", encode_base64(signature))))
    encoded = whole.encode()
    parse(encoded)
    return encoded


def parse(data: bytes) -> Request:
    """Read a request. Raises :class:`MessageError`."""
    return read(parse_message(data), data)


def read(message: Message, data: bytes) -> Request:
    """Read the request that ``message``, parsed from ``data``, is.

    Raises:
        MessageError: a header is missing, malformed, unknown, or of another kind of request.
    """
    method = message.method
    if method not in MANDATORY:
        raise MessageError(f"a {method} is no request")
    _check_places(message)
    if message.name == ANY_MODULE and method in (S, R):
        raise MessageError(f"a {method} names a module")
    given: dict[str, Any] = {}
    for name, text in message.headers:
        if name in _READERS:
            attribute, reader = _READERS[name]
            try:
                given[attribute] = reader(text)
            except MessageError as error:
                raise MessageError(f"{name}: {error}") from error
    given["filter"] = _filter(given)
    return Request(
        method=method,
        name=message.name,
        signed=_signed(message),
        encoded=data,
        **given,
    )


def _check_places(message: Message) -> None:
    for name, _ in message.headers:
        if name.startswith("x-"):
            continue  # signed and carried, of no meaning here
        if name not in ALLOWED:
            raise MessageError(f"the header {name} is unknown")
        if message.method not in ALLOWED[name]:
            raise MessageError(f"the header {name} does not belong into a {message.method}")
    there = {name for name, _ in message.headers}
    for name in MANDATORY[message.method]:
        if name not in there:
            raise MessageError(f"a {message.method} needs the header {name}")


def _filter(given: dict[str, Any]) -> Filter | None:
    """Take the parts of a filter out of what was read and put them together."""
    parts = [given.pop(name, None) for name in ("filter_dst", "filter_proto", "filter_ports")]
    if parts == [None, None, None]:
        return None
    found = Filter(parts[0], parts[1], parts[2] or ())
    if found.ports and found.protocol not in _WITH_PORTS:
        raise MessageError("filter-port: needs filter-proto:udp, tcp or sctp")
    return found


def _signed(message: Message) -> bytes:
    headers = (header for header in message.headers if header[0] != "signature")
    return (f"{message.method} {message.name} {VERSION}\n" + lines(headers)).encode()


def reference_of(data: bytes) -> str:
    """Return what a response calls a request by: SHA-256 of the whole message, base64."""
    return encode_base64(sha256(data).digest())


def encode_base64(data: bytes) -> str:
    return b64encode(data).decode()


def decode_base64(text: str) -> bytes:
    """Read base64 (RFC 4648, section 4). Raises MessageError."""
    try:
        return b64decode(text, validate=True)
    except (Base64Error, ValueError) as error:
        raise MessageError("no base64") from error


def _nonce(text: str) -> bytes:
    nonce = decode_base64(text)
    if len(nonce) not in _NONCE_BYTES:
        raise MessageError("a nonce has 12 to 32 bytes")
    return nonce


def _digest(text: str) -> bytes:
    kind, _, digest = text.partition("=")
    found = decode_base64(digest) if kind == "sha-256" else b""
    if len(found) != sha256().digest_size:
        raise MessageError("a digest is sha-256= and 32 bytes in base64 (RFC 9530)")
    return found


def _probed(text: str) -> tuple[Probed, ...]:
    try:
        return tuple(dict.fromkeys(Probed(part.strip()) for part in text.split(",")))
    except ValueError as error:
        raise MessageError(f"a node can be asked for {', '.join(Probed)}") from error


def _user(text: str) -> str:
    return values.module_name(text)


def _password(text: str) -> str:
    if not 16 <= len(text) <= 128:
        raise MessageError("a one-time password has 16 to 128 characters")
    return text


_READERS: dict[str, tuple[str, Callable[[str], object]]] = {
    "dependencies": ("dependencies", values.dependencies),
    "digest": ("digest", _digest),
    "filter-dst": ("filter_dst", values.network),
    "filter-port": ("filter_ports", values.ports),
    "filter-proto": ("filter_proto", values.protocol),
    "message": ("inner", decode_base64),
    "node-id": ("node_id", values.module_name),
    "nonce": ("nonce", _nonce),
    "notification": ("notification", values.url),
    "password": ("password", _password),
    "probe": ("probed", _probed),
    "properties": ("properties", values.pairs),
    "signature": ("signature", decode_base64),
    "time": ("time", lambda text: values.number(text, 0, MAX_TIME)),
    "ttl": ("ttl", lambda text: values.number(text, 1, MAX_TTL)),
    "url": ("url", values.url),
    "user": ("user", _user),
}
