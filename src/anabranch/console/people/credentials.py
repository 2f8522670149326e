"""What a request shows of who sends it: read from its headers, whatever is in them. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass
from http.cookies import CookieError, SimpleCookie
from urllib.parse import urlsplit

from anabranch.channels.audience import PREFIX as SHARE
from anabranch.core.secret_tokens import is_formed

TOKEN = "abt_"  # noqa: S105  # what they begin with
SESSION = ""
_COOKIE = "anabranch"
_HOST_COOKIE = f"__Host-{_COOKIE}"
_LONGEST = 8192
SAFE = frozenset({"GET", "HEAD", "OPTIONS"})
"""Methods that change nothing (RFC 9110 section 9.2.1)."""


@dataclass(frozen=True, slots=True)
class Credentials:
    """What was shown.

    Attributes:
        session: what the session cookie holds, if it is formed as one that was given out.
        bearer: what was sent as a bearer (RFC 6750), if anything.
        cross_site: the session does not count, since another site had the browser send it.
    """

    session: str | None = None
    bearer: str | None = None
    cross_site: bool = False

    @property
    def share(self) -> str | None:
        """The bearer if it is formed as a share link's secret."""
        return self.bearer if self.bearer and is_formed(self.bearer, SHARE) else None

    @property
    def token(self) -> str | None:
        """The bearer if it is formed as an API token."""
        return self.bearer if self.bearer and is_formed(self.bearer, TOKEN) else None


def read(
    method: str, headers: Mapping[str, str], *, secure: bool, websocket: bool = False
) -> Credentials:
    """Return what a request shows. Never raises.

    Args:
        method: of the request; a WebSocket's is GET.
        headers: names in lower case.
        secure: it came over TLS.
        websocket: it asks for a WebSocket, over which anything may be asked for later.
    """
    scheme, _, rest = headers.get("authorization", "").partition(" ")
    bearer = rest.strip() if scheme.lower() == "bearer" else None
    session = session_of(headers.get("cookie", ""), secure=secure)
    if session is not None and (websocket or method not in SAFE) and is_cross_site(headers):
        return Credentials(None, bearer, cross_site=True)
    return Credentials(session, bearer)


def cookie_name(*, secure: bool) -> str:
    """Return the cookie's name: with the prefix that ties it to this host where that may be."""
    return _HOST_COOKIE if secure else _COOKIE


def session_of(header: str, *, secure: bool) -> str | None:
    """Return what the session cookie of a ``Cookie`` header holds, or None."""
    if len(header) > _LONGEST:
        return None
    name = cookie_name(secure=secure)
    # Cookies of other programs at this host may be formed in any way: only ours is parsed.
    for part in header.split(";"):
        if part.partition("=")[0].strip() != name:
            continue
        try:
            found = SimpleCookie(part.strip()).get(name)
        except CookieError:
            return None
        return found.value if found is not None and is_formed(found.value, SESSION) else None
    return None


def is_cross_site(headers: Mapping[str, str]) -> bool:
    """Say whether a page of another origin may have had the browser send a request.

    By ``Sec-Fetch-Site`` (https://www.w3.org/TR/fetch-metadata/), else by ``Origin``. Browsers send
    one of them with everything that changes something, so what has neither is not believed.
    """
    site = headers.get("sec-fetch-site")
    if site is not None:
        return site.strip().lower() != "same-origin"
    origin = headers.get("origin")
    if origin is None:
        return True
    try:
        parts = urlsplit(origin.strip())
        return not parts.netloc or parts.netloc.lower() != headers.get("host", "").strip().lower()
    except ValueError:
        return True


def is_foreign(headers: Mapping[str, str]) -> bool:
    """Say whether a page of another origin certainly had the browser send a request."""
    return ("sec-fetch-site" in headers or "origin" in headers) and is_cross_site(headers)
