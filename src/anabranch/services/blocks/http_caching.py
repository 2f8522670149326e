"""What a shared HTTP cache may keep, for how long, and which part of it somebody asks for. Pure.

After RFC 9111 (caching) and RFC 9110 (ranges, conditions). Header fields are mappings with names in
lower case; a field that came more than once is one value with commas between. What cannot be read
counts as the cautious thing: an odd lifetime is none, an odd range is the whole.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime

Fields = Mapping[str, str]
KEPT_STATUSES = frozenset({200, 301, 308, 404, 410})
"""Of those that may be kept without being asked to (RFC 9110, 15.1) the ones worth it."""
_DIRECTIVE = re.compile(r'([\w!#$%&\'*+.^`|~-]+)(?:\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s,"]*)))?')
_RANGE = re.compile(r"bytes\s*=\s*(\d{0,19})-(\d{0,19})", re.ASCII)
_TAG = re.compile(r'(?:W/)?"[^"\x00-\x1f\x7f]*"')
_SECONDS = re.compile(r"\d{1,10}", re.ASCII)
_PER_HOP = frozenset({
    "connection", "keep-alive", "proxy-authenticate", "proxy-authorization", "proxy-connection",
    "te", "trailer", "transfer-encoding", "upgrade",
})  # fmt: skip


class UnsatisfiableRangeError(ValueError):
    """A range of which there is not a byte: status 416."""


@dataclass(frozen=True, slots=True)
class Freshness:
    """For how long a response may be used as it is.

    Attributes:
        lifetime: seconds from when it was made; 0: ask before each use.
        may_be_stale: it may be used after that while its origin cannot be asked.
    """

    lifetime: float
    may_be_stale: bool


def directives(text: str) -> dict[str, str]:
    """Return the directives of a Cache-Control field; those without an argument have ``""``."""
    return {
        name.lower(): quoted or plain for name, quoted, plain in _DIRECTIVE.findall(text[:4096])
    }


def storable(request: Fields, status: int, response: Fields) -> bool:
    """Return whether the answer to a GET may be kept and shown to others (RFC 9111, 3 and 3.5)."""
    if status not in KEPT_STATUSES:
        return False
    said = directives(response.get("cache-control", ""))
    if "no-store" in said or "private" in said:
        return False
    if "authorization" in request and not said.keys() & {"public", "s-maxage", "must-revalidate"}:
        return False
    varies = {name.strip().lower() for name in response.get("vary", "").split(",")}
    return "set-cookie" not in response and varies <= {"", "accept-encoding"}


def freshness(response: Fields, *, default: float) -> Freshness:
    """Return for how long a response is fresh.

    Args:
        default: seconds for one that does not say. Nothing is guessed from its age (RFC 9111,
            4.2.2): a file that is a minute old would be asked for again after six seconds.
    """
    said = directives(response.get("cache-control", ""))
    held = said.keys() & {"must-revalidate", "proxy-revalidate", "s-maxage", "no-cache"}
    may_be_stale = not held
    if "no-cache" in said:
        return Freshness(0.0, may_be_stale)
    for name in ("s-maxage", "max-age"):
        if name in said:
            return Freshness(_seconds(said[name]), may_be_stale)
    made = _date(response.get("date"))
    if "expires" in response:
        ends = _date(response["expires"])
        lifetime = ends - made if ends is not None and made is not None else 0.0
        return Freshness(max(lifetime, 0.0), may_be_stale)
    return Freshness(default, may_be_stale)


def initial_age(response: Fields) -> float:
    """Return how old a response was when it came, as the caches before say; seconds."""
    return _seconds(response.get("age", ""))


def part_asked(text: str | None, length: int) -> tuple[int, int] | None:
    """Return first byte and end (the byte after the last) of the range that is asked for.

    None is the whole: no range, several, or none that can be read (RFC 9110, 14.2).

    Raises:
        UnsatisfiableRangeError: it begins after the end.
    """
    if text is None:
        return None
    found = _RANGE.fullmatch(text.strip())
    if found is None:
        return None
    first, last = found.groups()
    if not first:
        if not last:
            return None
        if int(last) == 0 or length == 0:
            raise UnsatisfiableRangeError(f"the last {last} bytes of {length}")
        return max(length - int(last), 0), length
    if last and int(last) < int(first):
        return None
    if int(first) >= length:
        raise UnsatisfiableRangeError(f"from byte {first} of {length}")
    return int(first), min(int(last) + 1, length) if last else length


def range_applies(if_range: str | None, response: Fields) -> bool:
    """Return whether a range may be answered with a part: If-Range (RFC 9110, 13.1.5)."""
    if if_range is None:
        return True
    tag = response.get("etag", "")
    if if_range == tag:
        return not tag.startswith("W/")
    return if_range == response.get("last-modified", "")


def unchanged_for(request: Fields, response: Fields) -> bool:
    """Return whether who asks has this already: status 304 (RFC 9110, 13.1.2 and 13.1.3)."""
    if "if-none-match" in request:
        tag = response.get("etag", "").removeprefix("W/")
        if request["if-none-match"].strip() == "*":
            return True
        tags = _TAG.findall(request["if-none-match"])
        return bool(tag) and tag in {each.removeprefix("W/") for each in tags}
    since, changed = (
        _date(request.get("if-modified-since")),
        _date(response.get("last-modified")),
    )
    return since is not None and changed is not None and changed <= since


def questions(response: Fields) -> dict[str, str]:
    """Return the fields that ask an origin whether a response still holds; empty: it has none."""
    pairs = (("if-none-match", "etag"), ("if-modified-since", "last-modified"))
    return {question: response[field] for question, field in pairs if field in response}


def end_to_end(fields: Fields) -> dict[str, str]:
    """Return the fields without those that are one connection's (RFC 9110, 7.6.1)."""
    named = {name.strip().lower() for name in fields.get("connection", "").split(",")}
    return {k: v for k, v in fields.items() if k not in _PER_HOP and k not in named}


def _seconds(text: str) -> float:
    return float(text) if _SECONDS.fullmatch(text.strip()) else 0.0


def _date(text: str | None) -> float | None:
    if not text or len(text) > 64:
        return None
    try:
        return parsedate_to_datetime(text).timestamp()
    except (ValueError, TypeError, OverflowError, IndexError):
        return None
