"""Keys of service nodes: each is good for what its node says of itself, and for nothing else.

A key is a MAC of the node's name by the operator's token: every controller that has the token knows
it, and keeps nothing. It ends with the token. Pure.
"""

import hmac
import secrets
from base64 import urlsafe_b64encode

PREFIX = "abn_"
_USE = b"anabranch service node\n"


def key_of(token: str, node: str) -> str:
    """Return the key of the service node of this name (HMAC-SHA256, RFC 2104).

    Raises:
        ValueError: the operator's token is empty: everybody would know the key.
    """
    if not token:
        raise ValueError("the operator's token is empty")
    mac = hmac.digest(token.encode(), _USE + node.encode("utf-8", "surrogatepass"), "sha256")
    return PREFIX + urlsafe_b64encode(mac).decode().rstrip("=")


def is_key(sent: str, token: str, node: str) -> bool:
    """Compare in constant time."""
    given = sent.encode("utf-8", "surrogatepass")
    return bool(token) and secrets.compare_digest(given, key_of(token, node).encode())
