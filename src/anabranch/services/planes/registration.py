"""What a node tells the controllers of its switch: where it is, and what its modules claim.

One document, told anew every second and whenever it changes; the controller forgets a node that it
has not heard of for three. See docs/protocols/steering.md.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
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
        ClaimError: of IPv6, of ports of SCTP, or connections.
    """
    for claim in claims:
        if claim.server is not None:
            raise ClaimError(f"{claim}: beside a switch packets are claimed, not connections")
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
    """Keeps the controllers told. Use: :meth:`open`, :meth:`tell` after a change, :meth:`close`.

    Of several controllers one is at work and the others stand by; all are told, so that whichever
    is at work knows.

    Args:
        urls: of their HTTP APIs, or ``unix:PATH`` of a socket.
        token: the node's key, or the operator's token.
        current: returns the document as it is now.
    """

    def __init__(
        self, urls: Sequence[str], token: str, place: Place, current: Callable[[], dict[str, Any]]
    ) -> None:
        self._path = f"/api/fabric/service-nodes/{place.name}"
        self._urls, self._token = tuple(urls), token
        self._current = current
        self._clients: dict[str, httpx.AsyncClient] = {}
        self._turn = asyncio.Lock()
        self._telling: asyncio.Task[None] | None = None
        self._lost: set[str] = set()

    async def open(self) -> None:
        """Register.

        Raises:
            PlaneError: no controller can be reached, or one refuses.
        """
        try:
            for url in self._urls:
                self._clients[url] = self._client(url)
            await self.tell()
        except (ClaimError, PlaneError) as error:
            await self.close()
            raise PlaneError(str(error)) from error
        self._telling = asyncio.create_task(self._keep_telling(), name="registration")

    async def tell(self) -> None:
        """Tell what holds now, and return when the switch goes by it.

        Raises:
            ClaimError: a controller says that it cannot be.
            PlaneError: none can be reached, or its switch refuses.
        """
        async with self._turn:
            document = self._current()
            results = await asyncio.gather(*(self._tell(url, document) for url in self._clients))
        failures = [failure for failure in results if failure is not None]
        for failure in failures:
            if isinstance(failure, ClaimError):
                raise failure
        if len(failures) == len(results):
            raise failures[0] if failures else PlaneError("this node is not at its controller")

    async def close(self) -> None:
        """Take the node away; a controller that cannot be reached finds out by itself."""
        if self._telling is not None:
            await end_task(self._telling)
            self._telling = None
        for url, client in self._clients.items():
            with suppress(PlaneError):
                await self._request(url, "DELETE")
            await client.aclose()
        self._clients = {}

    def _client(self, url: str) -> httpx.AsyncClient:
        socket = url.removeprefix("unix:") if url.startswith("unix:") else None
        try:
            return httpx.AsyncClient(
                base_url="http://controller" if socket else url,
                transport=httpx.AsyncHTTPTransport(uds=socket) if socket else None,
                headers={"Authorization": f"Bearer {self._token}"},
                timeout=_ANSWER_S,
                trust_env=False,
            )
        except (httpx.InvalidURL, UnicodeError) as error:
            raise PlaneError(f"{url} is no controller's address: {error}") from error

    async def _tell(self, url: str, document: dict[str, Any]) -> ClaimError | PlaneError | None:
        failure: ClaimError | PlaneError | None = None
        try:
            answer = await self._request(url, "PUT", json=document)
            if answer.status_code in _CONTRADICTIONS:
                failure = ClaimError(f"the switch's controller: {_words(answer)}")
            elif not answer.is_success:
                failure = PlaneError(f"the switch's controller: {_words(answer)}")
        except PlaneError as error:
            failure = error
        if failure is not None and url not in self._lost:
            self._lost.add(url)
            _log.warning("controller.lost", error=str(failure))
        elif failure is None and url in self._lost:
            self._lost.discard(url)
            _log.info("controller.back", controller=url)
        return failure

    async def _request(self, url: str, method: str, **more: Any) -> httpx.Response:
        try:
            return await self._clients[url].request(method, self._path, **more)
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            words = str(error) or type(error).__name__
            raise PlaneError(f"no controller answers at {url}: {words}") from error

    async def _keep_telling(self) -> None:
        while True:
            await asyncio.sleep(TELL_S)
            with suppress(ClaimError, PlaneError):  # logged, and told again
                await self.tell()


def _words(answer: httpx.Response) -> str:
    try:
        return str(answer.json()["detail"])[:300]
    except (ValueError, KeyError, TypeError):
        return f"it answered {answer.status_code}"
