"""The reverse routability check: who can answer at an address may claim packets to it.

Seed 003, section 6.2.2. The sender puts a one-time password into its SETUP and answers, at the
address in question, with a proof made of it. Nodes before this one have seen the password, so a
proof holds for one message (its signature) and one node only, and only who sent that message
gives it: another user's message with a stolen password finds nobody who knows its signature.
"""

import hmac
from base64 import urlsafe_b64decode, urlsafe_b64encode
from binascii import Error as Base64Error
from hashlib import sha256
from ipaddress import IPv4Address, IPv6Address

PATH = "/.well-known/netserv-routability"
PORT = 80  # of the web, and one that an ordinary program of that machine cannot take
_PURPOSE = b"netserv-routability\0"


def proof(password: str, signature: bytes, node_id: str) -> str:
    """Return what the address has to answer: HMAC-SHA-256, base64url (RFC 4648, section 5)."""
    return _proof(password, sha256(signature).digest(), node_id)


def question(signature: bytes, node_id: str) -> dict[str, str]:
    """Return the parameters of the request that a node makes."""
    token = urlsafe_b64encode(sha256(signature).digest()).decode()
    return {"message": token, "node-id": node_id}


def answer(parameters: dict[str, str], passwords: dict[bytes, str]) -> str | None:
    """Return the proof that a node asks for, or None if the question is not about us.

    Args:
        parameters: what the node sent.
        passwords: by the SHA-256 of the signatures of our messages under way.
    """
    try:
        digest = urlsafe_b64decode(parameters.get("message", ""))
    except (Base64Error, ValueError):
        return None
    password = passwords.get(digest)
    node_id = parameters.get("node-id", "")
    if password is None or not node_id or len(node_id) > 100:
        return None
    return _proof(password, digest, node_id)


def genuine(text: str, password: str, signature: bytes, node_id: str) -> bool:
    """Return whether ``text`` is the proof."""
    return hmac.compare_digest(text.strip().encode(), proof(password, signature, node_id).encode())


def is_public_enough(address: IPv4Address | IPv6Address) -> bool:
    """Return whether a node may connect there on a stranger's word: not to itself or its link."""
    return not (
        address.is_loopback
        or address.is_link_local
        or address.is_multicast
        or address.is_unspecified
    )


def _proof(password: str, digest: bytes, node_id: str) -> str:
    signed = _PURPOSE + digest + node_id.encode()
    return urlsafe_b64encode(hmac.digest(password.encode(), signed, "sha256")).decode()
