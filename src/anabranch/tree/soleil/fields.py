"""The fields of messages: checked alike when they are read and when they are written.

Whitespace around identifiers, hosts and numbers is passed over, as the seed's examples break lines
there. Every function raises CodecError for what is not allowed.
"""

import math
import re
from collections.abc import Iterable
from enum import StrEnum
from typing import TypeVar
from xml.etree.ElementTree import Element

from anabranch.tree.soleil.document import escape, legible
from anabranch.tree.soleil.errors import CodecError
from anabranch.tree.soleil.messages import EVERYBODY, ROOT, Endpoint, Fault

MAX_PROSE = 4096
MAX_TEXT = 64 * 1024
MAX_ENDPOINTS = 64
MAX_WHOLE = 10**15

_SHORTEST_MS = 12
_END_MS = 10**14

# visible ASCII that needs no escaping in XML
_IDENTIFIER = re.compile(r"[!#-%(-;=?-~]{1,128}")
_TOKEN = re.compile(r"[!#-%(-;=?-~]{1,256}")
_HOST = re.compile(r"[0-9A-Za-z._:%-]{1,253}")
_WHOLE = re.compile(r"[0-9]{1,16}")
_NUMBER = re.compile(
    r"[+-]?(?:[0-9]{1,24}(?:\.[0-9]{0,24})?|\.[0-9]{1,24})(?:[eE][+-]?[0-9]{1,3})?"
)
_SPACE = " \t\r\n"

# what `children` is asked for; elements beyond these may be repeated
_SINGLE = frozenset(
    "info name minaServerAddress minaClientAddress pipelines node request certificate children"  # noqa: SIM905
    " error nonce reason redirect pipeid description state outlet outlets restarts"
    " statsContainers xmlDb startTime endTime numOfChildren id statArray value".split()
)

Choice = TypeVar("Choice", bound=StrEnum)


def children(element: Element) -> dict[str, Element]:
    """Return an element's children by tag, each of those we know at most once."""
    found = {child.tag: child for child in element}
    if len(found) != len(element):
        tags = [child.tag for child in element]
        for tag in found:
            if tag in _SINGLE and tags.count(tag) > 1:
                raise CodecError(f"{tag} occurs twice")
    return found


def needed(found: dict[str, Element], tag: str) -> Element:
    element = found.get(tag)
    if element is None:
        raise CodecError(f"{tag} is missing")
    return element


def limited(elements: list[Element], most: int) -> list[Element]:
    if len(elements) > most:
        raise CodecError(f"more than {most} times {elements[0].tag}", Fault.TOO_LARGE)
    return elements


def identifier(text: str | None, what: str) -> str:
    """Return what names something: 1 to 128 visible characters of ASCII but ``& < > " '``."""
    text = (text or "").strip(_SPACE)
    if not _IDENTIFIER.fullmatch(text):
        raise CodecError(f"{what} is not an identifier")
    return text


def write_optional(name: str, text: str | None) -> str:
    """Return an attribute that holds an identifier; nothing for None."""
    return "" if text is None else f' {name}="{identifier(text, name)}"'


def optional(text: str | None, what: str) -> str | None:
    return None if text is None else identifier(text, what)


def token(text: str | None) -> str | None:
    """Return an optional token: up to 256 of an identifier's characters."""
    if text is not None and not _TOKEN.fullmatch(text):
        raise CodecError("not a token")  # never repeated, as errors are logged
    return text


def node_name(text: str | None, what: str) -> str:
    """Return the name of a node: an identifier that is neither the root's nor everybody's."""
    text = identifier(text, what)
    if text in (ROOT, EVERYBODY):
        raise CodecError(f"{what} is not the name of a node")
    return text


def choice(kind: type[Choice], text: str | None, what: str) -> Choice:
    try:
        return kind((text or "").strip(_SPACE).lower())
    except ValueError:
        raise CodecError(f"{what} is unknown") from None


def whole(text: str | None, what: str) -> int:
    """Return a whole number from 0 to 10^15 - 1."""
    text = (text or "").strip(_SPACE)
    if not _WHOLE.fullmatch(text) or int(text) >= MAX_WHOLE:
        raise CodecError(f"{what} is not a whole number")
    return int(text)


def write_whole(number: int, what: str) -> str:
    if not 0 <= number < MAX_WHOLE:
        raise CodecError(f"{what} is out of range")
    return str(number)


def instant(text: str | None, what: str) -> tuple[int, bool]:
    """Return milliseconds since the epoch, and whether they were read in seconds.

    Less than twelve digits are seconds, others milliseconds: the seed's text says the former, its
    examples show the latter. Both end with the year 5138.
    """
    value = whole(text, what)
    in_seconds = len((text or "").strip(_SPACE)) < _SHORTEST_MS
    return _in_time(value * 1000 if in_seconds else value, what), in_seconds


def write_instant(ms: int, what: str, *, in_seconds: bool = False) -> str:
    """Return milliseconds since the epoch in twelve digits or more, or seconds in fewer."""
    return (
        str(_in_time(ms, what) // 1000) if in_seconds else f"{_in_time(ms, what):0{_SHORTEST_MS}d}"
    )


def _in_time(ms: int, what: str) -> int:
    if not 0 <= ms < _END_MS:
        raise CodecError(f"{what} is out of range")
    return ms


def number(text: str | None, what: str) -> float:
    """Return a finite number, decimal or with an exponent."""
    text = (text or "").strip(_SPACE)
    if not _NUMBER.fullmatch(text):
        raise CodecError(f"{what} is not a number")
    value = float(text)
    if not math.isfinite(value):
        raise CodecError(f"{what} is out of range")
    return value


def write_number(value: float, what: str) -> str:
    """Return the shortest decimal that is read as ``value``; whole ones without a point."""
    if not math.isfinite(value):
        raise CodecError(f"{what} is not finite")
    return str(int(value)) if abs(value) < MAX_WHOLE and value == int(value) else repr(float(value))


def text_of(element: Element | None, most: int = MAX_TEXT) -> str:
    """Return an element's text as it is; "" for one that is absent."""
    text = (element.text or "") if element is not None else ""
    if len(text) > most:
        raise CodecError("a text is too long", Fault.TOO_LARGE)
    return text


def write_text(tag: str, text: str | None) -> str:
    """Return an element that carries ``text`` to the letter; nothing for None."""
    if text is None:
        return ""
    if len(text) > MAX_TEXT:
        raise CodecError(f"{tag} is too long", Fault.TOO_LARGE)
    return f"<{tag}>{escape(text)}</{tag}>"


def prose(text: str) -> str:
    """Return text for people as content: cut to 4,096 characters, all of them legible."""
    return escape(legible(text[:MAX_PROSE]))


def write_prose(tag: str, text: str) -> str:
    return f"<{tag}>{prose(text)}</{tag}>" if text else ""


def endpoint(element: Element) -> Endpoint:
    """Read the attributes ``host`` and ``port`` (1 to 65535)."""
    host = (element.get("host") or "").strip(_SPACE)
    if not _HOST.fullmatch(host):
        raise CodecError("host is neither an address nor a name")
    port = whole(element.get("port"), "port")
    if not 1 <= port <= 65535:
        raise CodecError("port is out of range")
    return Endpoint(host, port)


def write_endpoint(tag: str, at: Endpoint) -> str:
    if not _HOST.fullmatch(at.host) or not 1 <= at.port <= 65535:
        raise CodecError("an endpoint is neither address nor name, and port")
    return f'<{tag} host="{at.host}" port="{at.port}"/>'


def endpoints(element: Element) -> tuple[Endpoint, ...]:
    """Read the ``address`` elements in order, at most 64."""
    return tuple(endpoint(each) for each in limited(element.findall("address"), MAX_ENDPOINTS))


def write_endpoints(all_of: Iterable[Endpoint]) -> str:
    written = [write_endpoint("address", each) for each in all_of]
    if len(written) > MAX_ENDPOINTS:
        raise CodecError(f"more than {MAX_ENDPOINTS} addresses", Fault.TOO_LARGE)
    return "".join(written)
