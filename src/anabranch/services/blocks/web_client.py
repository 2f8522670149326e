"""An HTTP client for modules: httpx, with limits, and with what a sandbox has not taken care of.

A sandbox has no resolver, so URLs have addresses; the name goes into the Host field. Nothing of
the environment is used, no redirect followed, and no encoding asked for: bytes are as they come.
"""

from ipaddress import ip_address
from urllib.parse import urlsplit

import httpx

from anabranch.services.errors import ServicesError

CONNECT_S, SILENCE_S = 5.0, 15.0
"""How long a connection may take, and how long nothing may come over it."""


class WebClientError(ServicesError):
    """A URL that cannot be asked, or an answer that is not what was asked for."""


def checked_origin(url: str) -> str:
    """Return ``http://ADDRESS[:PORT]`` as it is, or refuse it.

    Raises:
        ValueError: it is something else; a module's ``configure`` raises just that.
    """
    try:
        parts = urlsplit(url)
        address, _ = ip_address(parts.hostname or ""), parts.port
    except ValueError:
        raise ValueError(f"{url[:80]!r} is no http://ADDRESS or http://ADDRESS:PORT") from None
    if parts.scheme != "http" or parts.path not in {"", "/"} or parts.query or parts.fragment:
        raise ValueError(f"{url[:80]!r} is no http://ADDRESS or http://ADDRESS:PORT")
    if parts.username is not None or address.is_unspecified or address.is_multicast:
        raise ValueError(f"{url[:80]!r} is nothing to fetch from")
    return url.rstrip("/")


def client(origin: str, host: str | None = None, *, connections: int = 16) -> httpx.AsyncClient:
    """Return a client for one origin, to be used as ``async with``.

    Args:
        origin: as :func:`checked_origin` has it.
        host: what the Host field says; None: the address.
        connections: to the origin at a time; further requests wait for one.
    """
    headers = {"accept-encoding": "identity", "user-agent": "anabranch"}
    return httpx.AsyncClient(
        base_url=origin,
        headers={**headers, "host": host} if host else headers,
        follow_redirects=False,
        trust_env=False,
        verify=False,  # noqa: S501 - http alone; the certificates would be read for nothing
        timeout=httpx.Timeout(SILENCE_S, connect=CONNECT_S),
        limits=httpx.Limits(max_connections=connections, max_keepalive_connections=connections),
    )


def fetch(url: str, most: int, *, host: str | None = None, patience: float = SILENCE_S) -> bytes:
    """Return the body behind a URL; blocks, so call it from a thread of your own.

    Raises:
        WebClientError: it cannot be had, is not 200, or has more than ``most`` bytes.
    """
    headers = {"accept-encoding": "identity"} | ({"host": host} if host else {})
    parts = bytearray()
    try:
        with httpx.stream(
            "GET", url, headers=headers, timeout=patience, trust_env=False, verify=False  # noqa: S501
        ) as response:  # fmt: skip
            if response.status_code != httpx.codes.OK:
                raise WebClientError(f"{url}: {response.status_code}")
            for part in response.iter_raw():
                parts += part
                if len(parts) > most:
                    raise WebClientError(f"{url}: more than {most} bytes")
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise WebClientError(f"{url}: {error or type(error).__name__}") from error
    return bytes(parts)
