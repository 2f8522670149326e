"""Join tokens: how a machine without a certificate proves once that it may be a node.

Form: ``anabranch1.<name>.<secret>.<fingerprint of the site's authority>``. The site keeps a hash of
the secret only; it has 256 bits, so that a plain hash is enough.
"""

import re
import secrets
from dataclasses import dataclass, field
from hashlib import sha256

from anabranch.core.errors import UsageError
from anabranch.core.names import check_name

_PREFIX = "anabranch1"
_SECRET = re.compile(r"[A-Za-z0-9_-]{43}")
_FINGERPRINT = re.compile(r"[0-9a-f]{64}")


class TokenError(UsageError):
    """The text is not a join token; the message never repeats it."""


@dataclass(frozen=True, slots=True)
class JoinToken:
    """A token for ``name``; ``authority`` is the SHA-256 of the authority's certificate."""

    name: str
    secret: str = field(repr=False)
    authority: str

    def reveal(self) -> str:
        """Return the text that the operator carries to the node."""
        return f"{_PREFIX}.{self.name}.{self.secret}.{self.authority}"


def new_token(name: str, authority: str) -> JoinToken:
    """Draw a token.

    Raises:
        UsageError: no node can have that name.
    """
    return JoinToken(check_name(name), secrets.token_urlsafe(32), authority)


def parse_token(text: str) -> JoinToken:
    """Read what ``reveal`` gave.

    Raises:
        TokenError: it is something else.
    """
    match text.strip().split("."):
        case [prefix, name, secret, authority] if prefix == _PREFIX:
            pass
        case _:
            raise TokenError(f"not a join token: one has four parts and begins with {_PREFIX}")
    try:
        check_name(name)
    except UsageError:
        raise TokenError("not a join token: its second part names no node") from None
    if not _SECRET.fullmatch(secret) or not _FINGERPRINT.fullmatch(authority):
        raise TokenError("not a join token: it is cut short or mistyped")
    return JoinToken(name, secret, authority)


def hash_of(secret: str) -> str:
    """Return what the site keeps of a secret."""
    return sha256(secret.encode()).hexdigest()


def is_secret(secret: str, kept: str) -> bool:
    """Say whether ``kept`` is the hash of ``secret``, in constant time."""
    return secrets.compare_digest(hash_of(secret), kept)
