"""NetServ's messages as text: a start line, headers, an empty line (seed 003, figure 6.3).

::

    SETUP NetServ.apps.NetMonitor_1.0.0 NETSERV/0.1
    filter-port:5060
    ...
    signature:4Z+HvDEm2...
    <empty line>

This module knows the form only; ``request.py`` knows which header belongs where.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum

from anabranch.services.errors import MessageError
from anabranch.services.signalling.values import module_name

VERSION = "NETSERV/0.1"
ANY_MODULE = "*"
MAX_SIZE = 16 * 1024
MAX_HEADERS = 64
_HEADER_NAME = re.compile(r"[a-z][a-z0-9-]{0,39}")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")


class Method(StrEnum):
    """The first word of a message."""

    SETUP = "SETUP"
    REMOVE = "REMOVE"
    PROBE = "PROBE"
    TRIGGER = "TRIGGER"
    RESPONSE = "RESPONSE"


Headers = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Message:
    """A start line and headers, in their order; values are stripped and not empty.

    Attributes:
        method: what is asked for, or RESPONSE.
        name: the module with its version; ``*`` stands for none in particular.
        headers: only ``hop`` may come more than once.
    """

    method: Method
    name: str
    headers: Headers

    def get(self, name: str) -> str | None:
        """Return the value of the first header of that name."""
        return next((value for key, value in self.headers if key == name), None)

    def all(self, name: str) -> list[str]:
        """Return the values of all headers of that name, first one first."""
        return [value for key, value in self.headers if key == name]

    def encode(self) -> bytes:
        """Write the message.

        Raises:
            MessageError: it would not be read again.
        """
        _check_headers(self.headers)
        head = f"{self.method} {_checked_name(self.name)} {VERSION}\n"
        data = (head + lines(self.headers) + "\n").encode()
        if len(data) > MAX_SIZE:
            raise MessageError(f"the message has {len(data)} bytes, more than {MAX_SIZE}")
        return data


def lines(headers: Iterable[tuple[str, str]]) -> str:
    """Write headers only."""
    return "".join(f"{name}:{value}\n" for name, value in headers)


def parse(data: bytes) -> Message:
    """Read one message.

    Lines end in LF or CR LF. A header without a value (``notification:`` in the seed's figure)
    counts as absent.

    Raises:
        MessageError: whatever is wrong with it.
    """
    if len(data) > MAX_SIZE:
        raise MessageError(f"the message has {len(data)} bytes, more than {MAX_SIZE}")
    try:
        text = data.decode().replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        raise MessageError("the message is not UTF-8") from error
    head, end, rest = text.partition("\n\n")
    if not end or rest:
        raise MessageError("a message ends with its first empty line")
    start, *written = head.split("\n")
    words = start.split(" ")
    if len(words) != 3 or words[0] not in Method.__members__ or words[2] != VERSION:
        raise MessageError(f"a message begins METHOD NAME {VERSION}, not {start[:60]!r}")
    headers = []
    for line in written:
        name, colon, value = line.partition(":")
        if not colon:
            raise MessageError(f"{line[:60]!r} is no header: a name, a colon, a value")
        if value.strip():
            headers.append((name.strip().lower(), value.strip()))
    _check_headers(headers)
    return Message(Method(words[0]), _checked_name(words[1]), tuple(headers))


def _checked_name(name: str) -> str:
    return name if name == ANY_MODULE else module_name(name)


def _check_headers(headers: Sequence[tuple[str, str]]) -> None:
    if len(headers) > MAX_HEADERS:
        raise MessageError(f"a message has at most {MAX_HEADERS} headers")
    seen = set()
    for name, value in headers:
        if not _HEADER_NAME.fullmatch(name):
            raise MessageError(f"{name[:40]!r} is no name of a header")
        if name in seen and name != "hop":
            raise MessageError(f"the header {name} comes twice")
        if not value or value != value.strip() or _CONTROL.search(value):
            raise MessageError(f"the header {name} is empty or holds control characters")
        seen.add(name)
