"""Names that people choose, and identifiers that the site draws."""

import re
import secrets

from anabranch.core.errors import UsageError

_NAME = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,38}[a-z0-9])?")


def check_name(name: str) -> str:
    """Return ``name`` if it may name a channel, node or site.

    A name goes into URLs, file names and namespaces, so it is 1 to 40 characters of ``a-z``,
    ``0-9`` and inner ``-``.

    Raises:
        UsageError: it is anything else; the message says what is allowed.
    """
    if not _NAME.fullmatch(name):
        raise UsageError(
            f"the name {name[:60]!r} is not allowed: use 1 to 40 of a-z, 0-9 and '-',"
            " beginning and ending with a letter or digit"
        )
    return name


def new_id() -> str:
    """Draw a short identifier, unguessable (96 bits), safe in a URL and as a command's argument."""
    while (drawn := secrets.token_urlsafe(12)).startswith("-"):
        pass
    return drawn


def new_key() -> str:
    """Draw a publishing key (24 characters: within SRT's 10 to 79 for a passphrase)."""
    return secrets.token_hex(12)
