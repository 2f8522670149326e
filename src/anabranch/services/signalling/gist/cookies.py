"""Responder cookies: proof that a querier gets what is sent to it, kept by the querier."""

from hashlib import blake2b
from hmac import compare_digest

from anabranch.services.signalling.gist.objects import Address

_EPOCH = 60.0  # seconds; a cookie is good for one to two of them
_MAC_BYTES = 14


class ResponderCookies:
    """Makes and checks them (RFC 5971, section 8.5); nothing is kept but one secret.

    A cookie is the querier's UDP port, for its connections come from others, and a MAC.
    """

    def __init__(self, secret: bytes) -> None:
        self._secret = secret

    def issue(self, key: bytes, identity: bytes, source: tuple[Address, int], now: float) -> bytes:
        """Return the cookie of 16 bytes for a session's querier at ``source``."""
        return self._cookie(key, identity, *source, int(now / _EPOCH))

    def port(
        self, cookie: bytes, key: bytes, identity: bytes, address: Address, now: float
    ) -> int | None:
        """Return the querier's port if we gave it that cookie, else None."""
        port = int.from_bytes(cookie[:2], "big")
        epoch = int(now / _EPOCH)
        genuine = any(
            compare_digest(cookie, self._cookie(key, identity, address, port, at))
            for at in (epoch, epoch - 1)
        )
        return port if genuine else None

    def _cookie(
        self, key: bytes, identity: bytes, address: Address, port: int, epoch: int
    ) -> bytes:
        head = port.to_bytes(2, "big")
        data = head + bytes((len(identity),)) + identity + address.packed + key
        salt = (epoch % 2**64).to_bytes(8, "big")
        return head + blake2b(data, key=self._secret, salt=salt, digest_size=_MAC_BYTES).digest()
