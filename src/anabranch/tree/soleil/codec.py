"""SOLEIL messages to XML and back (docs/protocols/soleil.md; seed 000, section 3.1).

Whatever the bytes, ``decode`` returns a message or raises CodecError. Whatever ``encode`` returns
is decoded to an equal message, but for texts for people that had to be made legible, and for times
finer than a millisecond.
"""

from xml.etree.ElementTree import Element

from anabranch.tree.soleil.bodies import FORMATS
from anabranch.tree.soleil.document import MAX_BYTES, parse
from anabranch.tree.soleil.errors import CodecError
from anabranch.tree.soleil.fields import (
    children,
    identifier,
    instant,
    optional,
    write_instant,
    write_optional,
)
from anabranch.tree.soleil.messages import EVERYBODY, ROOT, Body, Fault, Message
from anabranch.tree.soleil.repair import repaired

__all__ = ["MAX_BYTES", "TYPES", "CodecError", "decode", "encode", "type_of"]

TYPES = {each.kind: name for name, each in FORMATS.items()}
"""The type of a message, as it is written, by that of its body."""


def type_of(body: Body) -> str:
    """Return the type as it is written: ``hello``, ``reqfullstats``, ..."""
    return TYPES[type(body)]


def encode(message: Message) -> bytes:
    """Return the document of ``message``.

    Raises:
        CodecError: it has a name, number or text that cannot be sent, or is larger than 256 KiB.
    """
    name = type_of(message.body)
    time = write_instant(message.time_ms, "time", in_seconds=message.in_seconds)
    _check_addresses(message.to, message.sender)
    addresses = "".join(
        (
            write_optional("to", message.to),
            write_optional("from", message.sender),
            write_optional("id", message.id),
        )
    )
    body = FORMATS[name].write(message.body)
    text = f'<message type="{name}" time="{time}"{addresses}>{body}</message>'
    document = text.encode()
    if len(document) > MAX_BYTES:
        raise CodecError(f"{len(document)} bytes, more than {MAX_BYTES}", Fault.TOO_LARGE)
    return document


def decode(document: bytes) -> Message:
    """Return the message that is ``document``.

    Raises:
        CodecError: it is none; the error tells whom to answer, as far as that could be read.
    """
    root = _parse(document)
    if root.tag != "message":
        raise CodecError("not a message")
    try:
        ms, in_seconds = instant(root.get("time"), "time")
        name = identifier(root.get("type"), "type").lower()
        to = optional(root.get("to"), "to")
        sender = optional(root.get("from"), "from")
        drawn = optional(root.get("id"), "id")
        _check_addresses(to, sender)
        known = FORMATS.get(name)
        if known is None:
            raise CodecError(f"messages of type {name} are unknown", Fault.UNKNOWN_TYPE)
        return Message(known.read(children(root)), ms, to, sender, drawn, in_seconds)
    except CodecError as error:
        kind, error.to, sender, error.id = (
            _readable(root.get(each)) for each in ("type", "to", "from", "id")
        )
        error.type = None if kind is None else kind.lower()
        error.sender = None if sender == EVERYBODY else sender
        raise


def _readable(text: str | None) -> str | None:
    try:
        return optional(text, "")
    except CodecError:
        return None


def _parse(document: bytes) -> Element:
    try:
        return parse(document)
    except CodecError as error:
        mended = repaired(document) if error.fault is Fault.MALFORMED else None
        if mended is None:
            raise
    return parse(mended)


def _check_addresses(to: str | None, sender: str | None) -> None:
    if sender == EVERYBODY:
        raise CodecError("nobody is called *")
    if to == ROOT and sender == ROOT:
        raise CodecError("from the root to the root")
