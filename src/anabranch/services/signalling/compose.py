"""Requests as a sender writes them: the headers that every one needs, and the signature."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from anabranch.services.keys import PrivateKey
from anabranch.services.signalling import values
from anabranch.services.signalling.message import Headers, Message, Method
from anabranch.services.signalling.request import encode_base64, sign


@dataclass(frozen=True, slots=True)
class Author:
    """Who sends: the name by which the nodes know the key."""

    user: str
    key: PrivateKey


def compose(
    author: Author,
    method: Method,
    name: str,
    headers: Mapping[str, str | None],
    *,
    wall_time: float,
    nonce: bytes,
) -> bytes:
    """Return a signed request.

    Args:
        author: whose it is.
        method: what is asked for.
        name: the module.
        headers: the others than user, time, nonce and signature; None leaves one out.
        wall_time: seconds since the epoch.
        nonce: 12 to 32 random bytes, used once.

    Raises:
        MessageError: a node would refuse it.
    """
    given: Headers = tuple((key, value) for key, value in headers.items() if value)
    common: Headers = (
        ("user", author.user),
        ("time", str(int(wall_time))),
        ("nonce", encode_base64(nonce)),
    )
    return sign(Message(method, name, given + common), author.key)


def setup_headers(
    url: str,
    digest: bytes,
    ttl: int,
    *,
    filter_dst: str | None = None,
    filter_proto: str | None = None,
    filter_ports: Iterable[int] = (),
    dependencies: Iterable[str] = (),
    properties: Mapping[str, str] | None = None,
    notification: str | None = None,
    node_id: str | None = None,
    password: str | None = None,
) -> dict[str, str | None]:
    """Return the headers of a SETUP, for :func:`compose`."""
    return {
        "dependencies": ",".join(dependencies),
        "filter-port": ",".join(map(str, filter_ports)),
        "filter-proto": filter_proto,
        "filter-dst": filter_dst,
        "notification": notification,
        "node-id": node_id,
        "properties": values.write_pairs(properties or {}),
        "password": password,
        "ttl": str(ttl),
        "url": url,
        "digest": f"sha-256={encode_base64(digest)}",
    }
