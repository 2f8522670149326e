"""Where plain seats send: what can be asked for, and who may ask for it. Pure."""

from collections.abc import Collection
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import Literal
from urllib.parse import urlsplit

from anabranch.core.errors import ForbiddenError, UsageError

Form = Literal["ts", "rtp"]
_FORMS: dict[str, Form] = {"udp": "ts", "rtp": "rtp"}
FIRST_PORT = 1024
"""Ports below are those of services, which a stream would look like a flood of requests to."""
_LAST_PORT = 65533  # the sound is two ports above the picture


Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network


@dataclass(frozen=True, slots=True)
class Destination:
    """A receiver: an address, a UDP port, and what it takes."""

    address: Address
    port: int
    form: Form


def parse_destination(text: str, form: Form | None = None) -> Destination:
    """Return what ``udp://ADDRESS:PORT`` or ``rtp://ADDRESS:PORT`` means.

    The address is a number: a name could mean another machine by the time that it is sent to.

    Args:
        text: the URL; ``udp`` is for transport streams and ``rtp`` for pictures and sound.
        form: what is asked for besides; it must fit. None: the URL tells.

    Raises:
        UsageError: it is none; the message says what is possible.
    """
    try:
        url = urlsplit(text)
        wanted = _FORMS[url.scheme]
        address = ip_address((url.hostname or "").removeprefix("@"))
        port = url.port or 0
        rest = url.path.strip("/") or url.query or url.fragment or url.username or url.password
    except (KeyError, ValueError):
        raise UsageError(
            f"{text[:80]!r} is not udp://ADDRESS:PORT or rtp://ADDRESS:PORT, where ADDRESS is a"
            " number: of IPv4, or of IPv6 in brackets"
        ) from None
    if isinstance(address, IPv6Address) and (address.scope_id or address.ipv4_mapped):
        raise UsageError(f"{address} is not an IPv6 address that is the same everywhere")
    if rest:
        raise UsageError(f"{text[:80]!r} says more than udp://ADDRESS:PORT or rtp://ADDRESS:PORT")
    if not FIRST_PORT <= port <= _LAST_PORT:
        raise UsageError(f"the port {port} is not within {FIRST_PORT} to {_LAST_PORT}")
    if form not in (None, wanted):
        raise UsageError(f"{url.scheme}:// is for the format {wanted}, not {form}")
    return Destination(address, port, wanted)


@dataclass(frozen=True, slots=True)
class Admission:
    """Who may name which receiver: nobody is to be flooded who has not asked for it.

    Attributes:
        allowed: addresses that anybody may name.
        own: the site's own ranges: no receivers are there.
    """

    allowed: Collection[Network] = ()
    own: Collection[Network] = ()

    def check(self, address: Address, client: str, *, operator: bool) -> None:
        """See that ``client`` may have a stream sent to ``address``.

        Raises:
            UsageError: that is no receiver's address.
            ForbiddenError: it is somebody else's.
        """
        if (
            address.is_multicast
            or address.is_unspecified
            or address.is_link_local
            or (address.is_reserved and not address.is_loopback)
        ):
            raise UsageError(f"{address} is not the address of one receiver")
        if any(address in network for network in self.own):
            raise UsageError(f"{address} is within the site itself")
        if operator or str(address) == client or any(address in each for each in self.allowed):
            return
        raise ForbiddenError(
            f"{address} is not your address ({client or 'unknown'}): another may be named by the"
            " operator, or where the configuration has it in seats.allow"
        )
