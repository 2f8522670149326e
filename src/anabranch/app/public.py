"""By which addresses other computers reach this machine: as given, or found."""

from ipaddress import IPv6Address, ip_address

from anabranch.core.errors import UsageError
from anabranch.host.addresses import global_addresses_6, ipv6, local_addresses, outward_address
from anabranch.site.plan import is_access_link


def public_addresses(text: str) -> tuple[str, ...]:
    """Return the addresses that ``public_address`` means, none twice.

    Args:
        text: ``none``; addresses between commas or spaces; or ``auto``: the IPv4 address by which
            this machine reaches others, then its lasting IPv6 addresses.
    """
    if text == "none":
        return ()
    if text != "auto":
        return tuple(dict.fromkeys(map(_canonical, text.replace(",", " ").split())))
    first = outward_address() or next(iter(local_addresses(but=is_access_link)), None)
    found = [str(address) for address in global_addresses_6(but=is_access_link)]
    return (str(first), *found) if first else tuple(found)


def check_public_address(text: str) -> str:
    """Return ``text`` if viewers can be told of it.

    Raises:
        UsageError: it is no address, one that leads nowhere, or of a family that this machine does
            not speak.
    """
    try:
        address = ip_address(text)
    except ValueError:
        raise UsageError(f"public_address: {text[:100]} is not an IPv4 or IPv6 address") from None
    if isinstance(address, IPv6Address):
        if address.scope_id is not None:
            raise UsageError(f"public_address: {text[:100]} is of one link of this machine")
        if (
            address.is_loopback
            or address.is_link_local
            or address.is_multicast
            or address.is_unspecified
            or address.ipv4_mapped
        ):
            raise UsageError(f"public_address: nobody else reaches this machine by {text}")
        if (state := ipv6()) != "on":
            raise UsageError(f"public_address: this machine's IPv6 is {state}, so not {text}")
    return text


def in_url(host: str) -> str:
    """Return a host as URLs have it: IPv6 addresses in brackets (RFC 3986 section 3.2.2)."""
    return f"[{host}]" if ":" in host else host


def _canonical(text: str) -> str:
    try:
        return str(ip_address(text))
    except ValueError:
        return text  # which is told where the configuration is checked
