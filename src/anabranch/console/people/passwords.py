"""Passwords: which are good enough, and how they are kept.

The rules are those of NIST SP 800-63B section 5.1.1.2: length, no composition rules, no expiry, not
a common one, nothing of the name; compared after Unicode normalisation. They are kept with Argon2id
(RFC 9106).
"""

import asyncio
import secrets
import unicodedata
from functools import cached_property

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

from anabranch.core.errors import UsageError

LEAST = 10
MOST = 200
_FEWEST = 5
"""Different characters that a password has."""
_RUNS = (
    *("01234567890123456789", "98765432109876543210"),
    *("abcdefghijklmnopqrstuvwxyz", "zyxwvutsrqponmlkjihgfedcba"),
    *("qwertyuiopasdfghjklzxcvbnm", "qwertzuiopasdfghjklyxcvbnm", "1qaz2wsx3edc4rfv5tgb6yhn7ujm"),
)
_COMMON = frozenset(
    (
        *("password", "password1", "password12", "password123", "password1234", "mypassword"),
        *("passw0rd", "passw0rd1", "passwort", "passwort1", "geheim", "secret", "topsecret"),
        *("iloveyou", "princess", "sunshine", "football", "baseball", "basketball", "superman"),
        *("trustno1", "letmein", "welcome", "changeme", "default", "administrator", "adminadmin"),
        *("rootroot", "qwerty", "qwertyuiop", "1q2w3e4r5t", "1q2w3e4r5t6y", "q1w2e3r4t5"),
        *("zaq12wsx", "admin", "root", "test", "testtest", "anabranch", "streaming", "livestream"),
        *("internet", "computer", "starwars", "pokemon", "correcthorsebatterystaple"),
    )
)  # fmt: skip


def normal(password: str) -> str:
    """Return a password as it is compared, however its characters were composed."""
    return unicodedata.normalize("NFKC", password)


def check_password(password: str, name: str) -> str:
    """Return a new password as it is kept.

    Raises:
        UsageError: it is not good enough for the account ``name``; the message says why.
    """
    password = normal(password)
    if not LEAST <= len(password) <= MOST:
        raise UsageError(f"a password has {LEAST} to {MOST} characters; a few words do well")
    folded = password.casefold()
    # What is left without the digits and signs that people add to a word.
    bare = "".join(char for char in folded if char.isalnum())
    word = bare.strip("0123456789")
    if len(name) >= 3 and name in folded:
        raise UsageError("a password does not have the account's name in it")
    if len(set(folded)) < _FEWEST:
        raise UsageError(f"a password has at least {_FEWEST} different characters")
    if {folded, bare, word} & _COMMON or any(bare in run for run in _RUNS):
        raise UsageError("this password is one of those that are tried first")
    return password


class Hasher:
    """Argon2id in threads, few at once: each takes 64 MiB and a core for some 50 ms, and media on
    the same machine must not wait for people who try passwords.

    Args:
        hasher: other parameters than the library's, for tests.
    """

    def __init__(self, hasher: PasswordHasher | None = None) -> None:
        self._hasher = hasher or PasswordHasher()
        self._turn = asyncio.Semaphore(1)

    async def hash(self, password: str) -> str:
        """Return what is kept of a password."""
        async with self._turn:
            return await asyncio.to_thread(self._hasher.hash, _bytes(password))

    async def verify(self, kept: str | None, password: str) -> bool:
        """Say whether a password is the one that ``kept`` was made of.

        With None, that of nobody, it takes as long and is False.
        """
        async with self._turn:
            fits = await asyncio.to_thread(self._fits, kept or self._nobodys, password)
        return fits and kept is not None

    def is_outdated(self, kept: str) -> bool:
        """Say whether a hash was made with other parameters than are used now."""
        return self._hasher.check_needs_rehash(kept)

    @cached_property
    def _nobodys(self) -> str:
        return self._hasher.hash(secrets.token_bytes(32))

    def _fits(self, kept: str, password: str) -> bool:
        try:
            return self._hasher.verify(kept, _bytes(password))
        except (VerificationError, InvalidHashError):
            return False


def _bytes(password: str) -> bytes:
    return normal(password).encode("utf-8", "surrogatepass")
