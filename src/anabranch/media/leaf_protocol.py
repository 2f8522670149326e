"""The leaf server's control protocol (docs/protocols/leaf.md): lines to and from it, as values."""

import binascii
import json
from base64 import b64decode
from dataclasses import dataclass
from typing import Any

from anabranch.media.leaf import KeyFrame, LeafError

PROTOCOL = 1
MAX_REQUEST = 2**20
"""Bytes of a line to the server."""
MAX_LINE = 2**24
"""Bytes of a line from it: the figures of all viewers are one."""

Message = dict[str, Any]


class LeafProtocolError(LeafError):
    """What came is not of this protocol."""


class RefusedError(LeafError):
    """The server refused a request: its code and words."""

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(f"the leaf server: {detail or code}")
        self.code = code


@dataclass(frozen=True, slots=True)
class Reply:
    """The end of a request: what came of it, or why it was refused."""

    id: int
    ok: Message
    refusal: RefusedError | None = None


@dataclass(frozen=True, slots=True)
class LeafEvent:
    """Something that happened at the server."""

    kind: str
    fields: Message


@dataclass(frozen=True, slots=True)
class Hello:
    """Who the server is.

    Attributes:
        fingerprint: of its certificate, with the name of the hash.
        threads: how many carry packets.
    """

    version: str
    pid: int
    fingerprint: str
    threads: int


@dataclass(frozen=True, slots=True)
class Added:
    """The server's end of a viewer's connection."""

    ufrag: str
    pwd: str
    video_ssrc: int
    rtx_ssrc: int | None
    audio_ssrc: int | None


def write_request(number: int, do: str, members: Message) -> bytes:
    """Return a request's line.

    Raises:
        LeafProtocolError: it is too long.
    """
    line = json.dumps({"do": do, "id": number, **members}, separators=(",", ":")).encode() + b"\n"
    if len(line) > MAX_REQUEST:
        raise LeafProtocolError(f"a request of {len(line)} bytes")
    return line


def read_line(line: bytes) -> Reply | LeafEvent:
    """Understand a line of the server.

    Raises:
        LeafProtocolError: it is neither a reply nor an event.
    """
    try:
        message = json.loads(line)
    except (ValueError, RecursionError):
        raise LeafProtocolError("a line that is no JSON") from None
    if not isinstance(message, dict):
        raise LeafProtocolError("a line that is no object")
    if isinstance(kind := message.get("event"), str):
        return LeafEvent(kind, message)
    number = integer(message, "id")
    error = message.get("error")
    if isinstance(error, dict):
        code, detail = str(error.get("code", "failed")), str(error.get("detail", ""))
        return Reply(number, {}, RefusedError(code, detail[:300]))
    ok = message.get("ok", {})
    if ok is None:
        ok = {}
    if "ok" not in message or not isinstance(ok, dict):
        raise LeafProtocolError("a reply that says nothing")
    return Reply(number, ok)


def read_hello(event: LeafEvent) -> Hello:
    """Understand a server's greeting.

    Raises:
        LeafProtocolError: it is none, or of another protocol.
    """
    if event.kind != "hello":
        raise LeafProtocolError(f"{event.kind!r} in place of a greeting")
    if (spoken := integer(event.fields, "protocol")) != PROTOCOL:
        raise LeafProtocolError(f"it speaks protocol {spoken}, not {PROTOCOL}")
    return Hello(
        text(event.fields, "version"),
        integer(event.fields, "pid"),
        text(event.fields, "fingerprint"),
        integer(event.fields, "threads"),
    )


def read_added(reply: Message) -> Added:
    """Understand the reply to ``viewer.add``. Raises LeafProtocolError."""
    return Added(
        text(reply, "ufrag"),
        text(reply, "pwd"),
        integer(reply, "video_ssrc"),
        integer(reply, "rtx_ssrc") if reply.get("rtx_ssrc") is not None else None,
        integer(reply, "audio_ssrc") if reply.get("audio_ssrc") is not None else None,
    )


def read_key_frame(reply: Message) -> KeyFrame | None:
    """Understand the reply to ``stream.key_frame``. Raises LeafProtocolError."""
    if not reply:
        return None
    age_ms = integer(reply, "age_ms")
    try:
        annex_b = b64decode(text(reply, "annex_b"), validate=True)
    except (binascii.Error, ValueError):
        raise LeafProtocolError("a key frame that is no base64") from None
    if not annex_b or not 0 <= age_ms < 2**53:
        raise LeafProtocolError("a key frame that cannot be")
    return KeyFrame(annex_b, age_ms / 1000)


def integer(message: Message, name: str) -> int:
    """Return a member that is an integer. Raises LeafProtocolError."""
    value = message.get(name)
    if not isinstance(value, int) or isinstance(value, bool):
        raise LeafProtocolError(f"a message without the number {name!r}")
    return value


def text(message: Message, name: str) -> str:
    """Return a member that is a text of one line. Raises LeafProtocolError."""
    value = message.get(name)
    if not isinstance(value, str) or not value.isprintable():
        raise LeafProtocolError(f"a message without the text {name!r}")
    return value


def members(message: Message, name: str) -> list[Message]:
    """Return the objects of a list; what is none is left out."""
    value = message.get(name)
    return [each for each in value if isinstance(each, dict)] if isinstance(value, list) else []
