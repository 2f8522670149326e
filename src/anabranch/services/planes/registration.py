"""What a node tells the controller of its switch: where it is, and what its modules claim.

One document, told anew every second and whenever it changes; the controller forgets a node that it
has not heard of for three. See docs/protocols/steering.md.
"""

import asyncio
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from ipaddress import IPv4Address
from typing import Any

import httpx
import structlog

from anabranch.core.tasks import end_task
from anabranch.services.claim import WITH_PORTS, Claim, ClaimError
from anabranch.services.planes.plane import PlaneError

TELL_S = 1.0
FORGOTTEN_S = 3.0
_ANSWER_S = 5.0
_CONTRADICTIONS = frozenset({409, 422})
_SCTP = 132
_log = structlog.get_logger("anabranch.services")


@dataclass(frozen=True, slots=True)
class Place:
    """Where a node is.

    Attributes:
        name: unique at its controller.
        at: the port of its switch, ``switch:number``, as the controller names it.
        stage: nodes of one stage share flows, those of others are passed in turn.
    """

    name: str
    at: str
    stage: str = ""


Filters = Mapping[str, tuple[Claim, ...]]
"""What users' modules claim, by user."""


def check(claims: tuple[Claim, ...]) -> None:
    """Say which claims a switch cannot tell.

    Raises:
        ClaimError: of IPv6, or of ports of SCTP.
    """
    for claim in claims:
        if claim.destination.version != 4:
            raise ClaimError(f"{claim}: this node is on a switch, which leads IPv4 only")
        if claim.ports and claim.protocol in WITH_PORTS and claim.protocol == _SCTP:
            raise ClaimError(f"{claim}: a switch tells ports of TCP and UDP only")


def document(
    place: Place, mac: str, address: IPv4Address, filters: Filters, *, seconds: float = FORGOTTEN_S
) -> dict[str, Any]:
    """Return what the controller is told.

    Args:
        mac: of the service port, 12 hexadecimal digits.
        address: of the service port.
        seconds: for which it holds.
    """
    return {
        "at": place.at,
        "mac": ":".join(mac[at : at + 2] for at in range(0, 12, 2)),
        "address": str(address),
        "stage": place.stage,
        "seconds": seconds,
        "filters": [
            {
                "user": user,
                "destination": str(claim.destination),
                "protocol": claim.protocol,
                "ports": list(claim.ports),
            }
            for user, claims in sorted(filters.items())
            for claim in claims
        ],
    }


class Registration:
    """Keeps the controller told. Use: :meth:`open`, :meth:`tell` after a change, :meth:`close`.

    Args:
        url: of the controller's HTTP API, or ``unix:PATH`` of its socket.
        token: the operator's.
        current: returns the document as it is now.
    """

    def __init__(
        self, url: str, token: str, place: Place, current: Callable[[], dict[str, Any]]
    ) -> None:
        self._path = f"/api/fabric/service-nodes/{place.name}"
        self._url, self._token = url, token
        self._current = current
        self._client: httpx.AsyncClient | None = None
        self._turn = asyncio.Lock()
        self._telling: asyncio.Task[None] | None = None
        self._silent = False

    async def open(self) -> None:
        """Register.

        Raises:
            PlaneError: the controller cannot be reached, or refuses.
        """
        socket = self._url.removeprefix("unix:") if self._url.startswith("unix:") else None
        try:
            self._client = httpx.AsyncClient(
                base_url="http://controller" if socket else self._url,
                transport=httpx.AsyncHTTPTransport(uds=socket) if socket else None,
                headers={"Authorization": f"Bearer {self._token}"},
                timeout=_ANSWER_S,
                trust_env=False,
            )
        except (httpx.InvalidURL, UnicodeError) as error:
            raise PlaneError(f"{self._url} is no controller's address: {error}") from error
        try:
            await self.tell()
        except ClaimError as error:
            raise PlaneError(str(error)) from error
        self._telling = asyncio.create_task(self._keep_telling(), name="registration")

    async def tell(self) -> None:
        """Tell what holds now, and return when the switch goes by it.

        Raises:
            ClaimError: the controller says that it cannot be.
            PlaneError: it cannot be reached, or its switch refuses.
        """
        async with self._turn:
            answer = await self._request("PUT", json=self._current())
        if answer.status_code in _CONTRADICTIONS:
            raise ClaimError(f"the switch's controller: {_words(answer)}")
        if not answer.is_success:
            raise PlaneError(f"the switch's controller: {_words(answer)}")

    async def close(self) -> None:
        """Take the node away; one that cannot be reached finds out by itself."""
        if self._telling is not None:
            await end_task(self._telling)
            self._telling = None
        if self._client is not None:
            with suppress(PlaneError):
                await self._request("DELETE")
            await self._client.aclose()
            self._client = None

    async def _request(self, method: str, **more: Any) -> httpx.Response:
        if self._client is None:
            raise PlaneError("this node is not at its controller")
        try:
            return await self._client.request(method, self._path, **more)
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            words = str(error) or type(error).__name__
            raise PlaneError(f"no controller answers at {self._url}: {words}") from error

    async def _keep_telling(self) -> None:
        while True:
            await asyncio.sleep(TELL_S)
            try:
                await self.tell()
            except (ClaimError, PlaneError) as error:
                if not self._silent:
                    _log.warning("registration.lost", error=str(error))
                self._silent = True
            else:
                if self._silent:
                    _log.info("registration.back")
                self._silent = False


def _words(answer: httpx.Response) -> str:
    try:
        return str(answer.json()["detail"])[:300]
    except (ValueError, KeyError, TypeError):
        return f"it answered {answer.status_code}"
