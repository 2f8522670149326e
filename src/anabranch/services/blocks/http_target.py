"""Which requests a server in front of an origin passes on at all. Pure."""

import re
from urllib.parse import unquote_to_bytes

MAX_TARGET = 4096
_PLAIN = re.compile(r"/(?!/)[!-~]*")
_ODD = re.compile(rb"[\x00-\x1f\x7f\\]")


class TargetError(ValueError):
    """A request for something that has no place on an origin: status 400."""


def checked_target(path: bytes, query: bytes) -> str:
    """Return path and query as they go to the origin.

    Args:
        path: as it came, percent-encoded.

    Raises:
        TargetError: it is no path from the root, leads upwards, or has control characters.
    """
    try:
        text = path.decode("ascii") + (f"?{query.decode('ascii')}" if query else "")
    except UnicodeDecodeError:
        raise TargetError("not ASCII") from None
    if len(text) > MAX_TARGET:
        raise TargetError(f"more than {MAX_TARGET} characters")
    if not _PLAIN.fullmatch(text) or "#" in text:
        raise TargetError("no path from the root")
    decoded = unquote_to_bytes(path)
    if _ODD.search(decoded) or {b".", b".."} & set(decoded.split(b"/")):
        raise TargetError("a path that leads elsewhere")
    return text
