"""Bearer secrets that the site draws: told once, kept as a hash."""

import hashlib
import secrets

LENGTH = 43  # 256 bits in base64url


def draw(prefix: str) -> str:
    """Draw a secret of 256 bits; its prefix tells people and secret scanners what it is."""
    return prefix + secrets.token_urlsafe(32)


def hash_of(secret: str) -> str:
    """Return what is kept of a secret, and what it is found by.

    One round of SHA-256 is enough: nobody guesses 256 bits, unlike a password. And to look a
    hash up tells nothing by its timing about the secret.
    """
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).hexdigest()


def is_formed(text: str, prefix: str) -> bool:
    """Say whether a text may be a secret that was drawn with ``prefix``."""
    rest = text.removeprefix(prefix)
    return (
        text.startswith(prefix)
        and len(rest) == LENGTH
        and rest.isascii()
        and rest.replace("-", "a").replace("_", "a").isalnum()
    )
