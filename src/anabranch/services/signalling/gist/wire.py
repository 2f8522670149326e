"""GIST's messages (RFC 5971, sections 5.1 and 5.2, appendix A.1)."""

from dataclasses import dataclass
from enum import IntEnum
from struct import Struct

from anabranch.services.signalling.gist.objects import (
    FORWARD,
    IGNORE,
    SID_BYTES,
    Flow,
    GistError,
    ObjectType,
    PeerInfo,
    Stack,
    split,
    write,
)

VERSION = 1
MAGIC = 0x4E04BDA5.to_bytes(4, "big")  # before a message in UDP (section 5.3.1)
NSLP_ID = 0x7E5E  # of IANA's range for private use; NetServ was never given a number
MAX_MESSAGE = 4 * 0xFFFF + 8

_HEADER = Struct("!BBHHBB")
HEADER_BYTES = _HEADER.size
_CONTEXT_FREE = 0x80  # beside the type
_SOURCE, _REPLY, _EXPLICIT = 0x80, 0x40, 0x20
_ERROR = Struct("!BHBBxBB")


class MessageType(IntEnum):
    """What a message is for."""

    QUERY = 0
    RESPONSE = 1
    CONFIRM = 2
    DATA = 3
    ERROR = 4
    HELLO = 5


class ErrorCode(IntEnum):
    """RFC 5971, appendix A.4.4."""

    HEADER = 1
    HOP_LIMIT = 2
    ENCAPSULATION = 3
    MISDELIVERED = 4
    NO_ROUTING_STATE = 5
    UNKNOWN_NSLP = 6
    ENDPOINT_FOUND = 7
    TOO_LARGE = 8
    OBJECT_TYPE = 9
    OBJECT_VALUE = 10
    TTL = 11
    ROUTING_INFORMATION = 12


@dataclass(slots=True)
class GistMessage:
    """One message; which parts it has is its type's affair.

    Attributes:
        hops: how many more nodes may handle it.
        reply: a Response, Confirm or Hello is asked for.
        source: the IP source address is the sender's own.
        data: the NSLP's message; padded by up to 3 zero bytes when it was read.
        error: a code of :class:`ErrorCode`; the session is in ``sid`` and ``flow`` if known.
    """

    type: MessageType
    flow: Flow | None = None
    sid: bytes = b""
    info: PeerInfo | None = None
    query_cookie: bytes = b""
    responder_cookie: bytes = b""
    stack: Stack | None = None
    data: bytes = b""
    error: int = 0
    hello_id: bytes = b""
    hops: int = 64
    reply: bool = False
    source: bool = True
    nslp_id: int = NSLP_ID

    def encode(self) -> bytes:
        """Write it, without the magic number. Raises GistError if it is too large."""
        objects = b"".join(write(kind, value) for kind, value in self._objects())
        if len(objects) // 4 > 0xFFFF:
            raise GistError("the message is too large", ErrorCode.TOO_LARGE)
        kind = self.type | (0 if self.type in (MessageType.DATA, MessageType.HELLO) else 0x80)
        flags = (_SOURCE if self.source else 0) | (_REPLY if self.reply else 0)
        return (
            _HEADER.pack(VERSION, self.hops, len(objects) // 4, self.nslp_id, kind, flags) + objects
        )

    def _objects(self) -> list[tuple[ObjectType, bytes]]:
        if self.type is MessageType.HELLO:
            return [(ObjectType.HELLO_ID, self.hello_id)] if self.hello_id else []
        if self.type is MessageType.ERROR:
            return [(ObjectType.ERROR, self._error())]
        assert self.flow is not None
        found = [(ObjectType.MRI, self.flow.encode()), (ObjectType.SESSION_ID, self.sid)]
        if self.info is not None:
            found.append((ObjectType.NLI, self.info.encode()))
        if self.query_cookie:
            found.append((ObjectType.QUERY_COOKIE, self.query_cookie))
        if self.responder_cookie:
            found.append((ObjectType.RESPONDER_COOKIE, self.responder_cookie))
        if self.stack is not None:
            proposal, configuration = self.stack.encode()
            found.append((ObjectType.STACK_PROPOSAL, proposal))
            found.append((ObjectType.STACK_CONFIGURATION, configuration))
        if self.data:
            found.append((ObjectType.NSLP_DATA, self.data))
        return found

    def _error(self) -> bytes:
        flow = write(ObjectType.MRI, self.flow.encode())[4:] if self.flow else b""
        original = _HEADER.pack(VERSION, 0, 0, self.nslp_id, 0, 0)
        sid = self.sid
        flags = (0x80 if sid else 0) | (0x40 if flow else 0)  # S and M: what is inside
        head = _ERROR.pack(2, self.error, 0, flags, len(flow) // 4, 0)
        return head + original + sid + flow


_COMMON = (ObjectType.MRI, ObjectType.SESSION_ID)
_NEEDED = {
    MessageType.QUERY: (*_COMMON, ObjectType.NLI, ObjectType.QUERY_COOKIE),
    MessageType.RESPONSE: (*_COMMON, ObjectType.NLI, ObjectType.QUERY_COOKIE),
    MessageType.CONFIRM: (*_COMMON, ObjectType.NLI),
    MessageType.DATA: (*_COMMON, ObjectType.NSLP_DATA),
    MessageType.ERROR: (ObjectType.ERROR,),
    MessageType.HELLO: (),
}


def length_of(header: bytes) -> int:
    """Return how long the message is whose first 8 bytes are given. Raises GistError."""
    version, _hops, words, *_ = _HEADER.unpack_from(header)
    if version != VERSION:
        raise GistError(f"version {version} of GIST", ErrorCode.HEADER, 0)
    return HEADER_BYTES + 4 * int(words)


def parse(data: bytes) -> GistMessage:
    """Read one message, without the magic number.

    Raises:
        GistError: whatever is wrong with it.
    """
    if len(data) < HEADER_BYTES or length_of(data) != len(data):
        raise GistError("the message is not as long as its header says", ErrorCode.HEADER, 3)
    _version, hops, _words, nslp_id, kind, flags = _HEADER.unpack_from(data)
    try:
        message_type = MessageType(kind & 0x7F)
    except ValueError as error:
        raise GistError("an unknown type of message", ErrorCode.HEADER, 1) from error
    found: dict[int, bytes] = {}
    for object_type, extend, value in split(data, HEADER_BYTES):
        if object_type > ObjectType.HELLO_ID:
            if extend not in (IGNORE, FORWARD):
                raise GistError(f"unknown object {object_type}", ErrorCode.OBJECT_TYPE, 1)
            continue
        if object_type in found:
            raise GistError(f"object {object_type} comes twice", ErrorCode.OBJECT_TYPE, 0)
        found[object_type] = value
    for needed in _NEEDED[message_type]:
        if needed not in found:
            raise GistError(f"object {needed.name} is missing", ErrorCode.OBJECT_TYPE, 2)
    message = GistMessage(
        message_type,
        hops=hops,
        nslp_id=nslp_id,
        reply=bool(flags & _REPLY),
        source=bool(flags & _SOURCE),
    )
    _fill(message, found)
    return message


def _fill(message: GistMessage, found: dict[int, bytes]) -> None:
    get = found.get
    if (value := get(ObjectType.MRI)) is not None:
        message.flow = Flow.parse(value)
    if (value := get(ObjectType.SESSION_ID)) is not None:
        if len(value) != SID_BYTES:
            raise GistError("a session's identifier has 16 bytes", ErrorCode.OBJECT_VALUE, 0)
        message.sid = value
    if (value := get(ObjectType.NLI)) is not None:
        message.info = PeerInfo.parse(value)
    message.query_cookie = get(ObjectType.QUERY_COOKIE, b"")
    message.responder_cookie = get(ObjectType.RESPONDER_COOKIE, b"")
    message.hello_id = get(ObjectType.HELLO_ID, b"")
    message.data = get(ObjectType.NSLP_DATA, b"")
    proposal = get(ObjectType.STACK_PROPOSAL)
    configuration = get(ObjectType.STACK_CONFIGURATION)
    if proposal is not None and configuration is not None:
        message.stack = Stack.parse(proposal, configuration)
    if (value := get(ObjectType.ERROR)) is not None:
        _fill_error(message, value)


def _fill_error(message: GistMessage, value: bytes) -> None:
    if len(value) < _ERROR.size + HEADER_BYTES:
        raise GistError("an error without its header", ErrorCode.OBJECT_VALUE, 0)
    _class, message.error, _sub, flags, words, _count = _ERROR.unpack_from(value)
    offset = _ERROR.size + HEADER_BYTES
    if flags & 0x80:
        message.sid = value[offset : offset + SID_BYTES]
        offset += SID_BYTES
    if flags & 0x40:
        message.flow = Flow.parse(value[offset : offset + 4 * words])


def quoted_query(data: bytes) -> tuple[Flow, bytes] | None:
    """Return flow and session of the beginning of a Query, as an ICMP error quotes it.

    Args:
        data: the UDP payload, cut off anywhere.
    """
    flow: Flow | None = None
    sid = b""
    if not data.startswith(MAGIC) or len(data) < 4 + HEADER_BYTES:
        return None
    try:
        for object_type, _, value in split(data, 4 + HEADER_BYTES):
            if object_type == ObjectType.MRI:
                flow = Flow.parse(value)
            elif object_type == ObjectType.SESSION_ID:
                sid = value
            if flow is not None and len(sid) == SID_BYTES:
                return flow, sid
    except GistError:
        return None
    return None
