"""The values of headers: each is read and written by one rule, so what is sent can be read."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network, ip_network
from urllib.parse import quote, unquote, urlsplit

from anabranch.services.errors import MessageError

Network = IPv4Network | IPv6Network

PROTOCOLS = {"icmp": 1, "tcp": 6, "udp": 17, "sctp": 132}
MAX_PORTS = 16
MAX_TTL = 30 * 24 * 3600  # seconds
_MAX_PAIRS = 64
_PAIR_NAME = re.compile(r"[A-Za-z0-9_.-]{1,64}")
_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,98}[A-Za-z0-9])?")
_ENDS = re.compile(r"^ +| +$")  # spaces there would be taken for the header's own
_AS_IT_IS = re.compile(r"[A-Za-z0-9_.:/-]+(?: [A-Za-z0-9_.:/-]+)*")
_NUMBER = re.compile(r"0|[1-9][0-9]{0,9}")


@dataclass(frozen=True, slots=True)
class Filter:
    """Which packets a module asks for.

    Attributes:
        destination: where the packets go; None: the signalling source.
        protocol: an IP protocol's number; None: any.
        ports: destination ports; empty: any. They need UDP, TCP or SCTP.
    """

    destination: Network | None = None
    protocol: int | None = None
    ports: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Dependency:
    """A building block or module that must be there, in this version or a later one if given."""

    name: str
    version: str | None = None

    def __str__(self) -> str:
        return self.name if self.version is None else f"{self.name}_{self.version}"


def module_name(text: str) -> str:
    """Return ``text`` if it can be a module's name and version, ``NetServ.apps.NetMonitor_1.0.0``.

    Raises:
        MessageError: it is longer than 100 characters, or has others than A-Z a-z 0-9 . _ -.
    """
    if not _NAME.fullmatch(text) or ".." in text:
        raise MessageError(f"{text[:60]!r} is no name of a module: letters, digits and . _ -")
    return text


def number(text: str, low: int, high: int) -> int:
    """Read a decimal number between ``low`` and ``high``, both included. Raises MessageError."""
    if not _NUMBER.fullmatch(text) or not low <= int(text) <= high:
        raise MessageError(f"{text[:20]!r} is no number from {low} to {high}")
    return int(text)


def protocol(text: str) -> int:
    """Read ``udp``, ``tcp``, ``icmp``, ``sctp`` or a number. Raises MessageError."""
    if not text.isdecimal():
        try:
            return PROTOCOLS[text.lower()]
        except KeyError as error:
            known = ", ".join(PROTOCOLS)
            raise MessageError(f"{text[:20]!r} is no protocol: {known} or a number") from error
    return number(text, 1, 255)


def ports(text: str) -> tuple[int, ...]:
    """Read at most 16 ports with commas between. Raises MessageError."""
    parts = text.split(",")
    if len(parts) > MAX_PORTS:
        raise MessageError(f"a filter has at most {MAX_PORTS} ports")
    return tuple(sorted({number(part.strip(), 1, 65535) for part in parts}))


def network(text: str) -> Network:
    """Read an address, or a prefix in CIDR notation. Raises MessageError."""
    try:
        return ip_network(text, strict=True)
    except ValueError as error:
        raise MessageError(f"{text[:60]!r} is no address or prefix: {error}") from error


def url(text: str) -> str:
    """Return a URL of HTTP or HTTPS with a host. Raises MessageError."""
    try:
        parts = urlsplit(text)
        valid = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:
        valid = False
    if not valid or " " in text:
        raise MessageError(f"{text[:60]!r} is no URL of http or https")
    return text


def dependencies(text: str) -> tuple[Dependency, ...]:
    """Read names with commas between, each with ``_VERSION`` if it matters. Raises MessageError."""
    found = []
    for part in text.split(","):
        name, _, version = module_name(part.strip()).rpartition("_")
        if name and version[:1].isdigit():
            found.append(Dependency(name, version))
        else:
            found.append(Dependency(part.strip()))
    return tuple(found)


def pairs(text: str) -> dict[str, str]:
    """Read ``name=value,name=value``; in values ``%``, ``,`` and ``=`` are percent-encoded.

    Raises:
        MessageError: a name is malformed or comes twice, or there are more than 64.
    """
    found: dict[str, str] = {}
    parts = text.split(",") if text else []
    if len(parts) > _MAX_PAIRS:
        raise MessageError(f"at most {_MAX_PAIRS} properties")
    for part in parts:
        name, equals, value = part.strip().partition("=")
        if not equals or not _PAIR_NAME.fullmatch(name) or name in found:
            raise MessageError(f"{part[:60]!r} is no name=value, or the name comes twice")
        try:
            found[name] = unquote(value, errors="strict")
        except UnicodeDecodeError as error:
            raise MessageError(f"the value of {name} is not UTF-8") from error
    return found


def write_pairs(items: Mapping[str, str]) -> str:
    """Write what :func:`pairs` reads. Raises MessageError for a name that it would refuse."""
    if len(items) > _MAX_PAIRS or not all(map(_PAIR_NAME.fullmatch, items)):
        raise MessageError("the name of a property has letters, digits and _ . - only")
    return ",".join(f"{name}={_escaped(value)}" for name, value in items.items())


def _escaped(value: str) -> str:
    if _AS_IT_IS.fullmatch(value):
        return value  # most are, and quote() takes ten times as long
    try:
        text = quote(value, safe=_PLAIN)
    except UnicodeEncodeError as error:
        raise MessageError(f"{value[:20]!r} cannot be written in UTF-8") from error
    return _ENDS.sub(lambda found: "%20" * len(found[0]), text)


_PLAIN = " !\"#$&'()*+/:;<>?@[]^`{|}"
