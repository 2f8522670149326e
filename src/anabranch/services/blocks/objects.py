"""The objects of one origin: from the cache while fresh, else fetched, once for all who ask."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Self

import httpx
from prometheus_client import CollectorRegistry, Counter, Gauge

from anabranch.services.blocks import http_caching as caching
from anabranch.services.blocks import web_client
from anabranch.services.blocks.disk_cache import CacheError, DiskCache, Kept
from anabranch.services.blocks.fetch import Fetch, announced_length
from anabranch.services.blocks.web_client import WebClientError

_PASSED_S = 60.0
_MOST_PASSED = 1024


@dataclass(frozen=True, slots=True)
class OriginOptions:
    """Where objects come from, and how they are kept.

    Attributes:
        origin: ``http://ADDRESS[:PORT]``.
        host: for the Host field; None: the address.
        name: of this server, for the Via field.
        fresh: seconds, for objects of which the origin says nothing.
        object_bytes: larger ones are not kept.
        connections: to the origin at a time.
    """

    origin: str
    host: str | None = None
    name: str = "anabranch"
    fresh: float = 60.0
    object_bytes: int = 4 << 30
    connections: int = 32


@dataclass(frozen=True, slots=True)
class Held:
    """An object of the cache; ``stale``: its origin cannot be asked whether it still holds."""

    kept: Kept
    stale: bool = False


@dataclass(frozen=True, slots=True)
class Foreign:
    """An answer of the origin that is not kept; whoever has it closes it."""

    response: httpx.Response


class Objects:
    """Use it as ``async with``, in one event loop."""

    def __init__(
        self, options: OriginOptions, cache: DiskCache, registry: CollectorRegistry
    ) -> None:
        self._options = options
        self._cache = cache
        self._client: httpx.AsyncClient | None = None
        self._fetches: dict[str, Fetch] = {}
        self._opening: dict[str, asyncio.Event] = {}
        self._passed: dict[str, float] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._asked = Counter("origin_requests", "Requests to the origin", registry=registry)
        self.fetched = Counter("fetched_bytes", "Bytes of the origin's bodies", registry=registry)
        used = Gauge("cache_bytes", "Bytes in the cache", registry=registry)
        used.set_function(lambda: cache.used)

    async def __aenter__(self) -> Self:
        options = self._options
        self._client = web_client.client(
            options.origin, options.host, connections=options.connections
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._client is not None:
            await self._client.aclose()

    async def ask(
        self, method: str, target: str, fields: dict[str, str], content: bytes | None = None
    ) -> httpx.Response:
        """Ask the origin, and return its answer with the body still to come.

        Raises:
            httpx.HTTPError: it cannot be asked.
        """
        assert self._client is not None
        url = httpx.URL(self._options.origin).copy_with(raw_path=target.encode("ascii"))
        via = {**fields, "via": f"1.1 {self._options.name}"}
        self._asked.inc()
        request = self._client.build_request(method, url, headers=via, content=content)
        return await self._client.send(request, stream=True)

    async def find(self, target: str, *, ask: bool = True) -> Held | Fetch | Foreign | None:
        """Return an object: from the cache, on its way (joined), or what the origin says instead.

        None: it is to be asked for by itself. ``ask=False``: also if it is not in the cache, and
        not on its way.

        Raises:
            WebClientError, httpx.HTTPError: the origin cannot be asked.
        """
        while True:
            kept = self._cache.get(target)
            if kept is not None and self.fresh(kept):
                return Held(kept)
            fetch, opening = self._fetches.get(target), self._opening.get(target)
            if fetch is None and opening is None:
                if kept is None and (not ask or self._passed.get(target, 0.0) > time.monotonic()):
                    return None
                return await self._open(target, kept)
            if kept is not None:
                kept.close()
            if fetch is not None:
                fetch.join()
                return fetch
            assert opening is not None
            await opening.wait()

    @asynccontextmanager
    async def whole(self, target: str) -> AsyncIterator[Kept]:
        """Give an object from the cache, complete; fetch it if need be.

        Raises:
            WebClientError, httpx.HTTPError: it cannot be had, or may not be kept.
        """
        found = await self.find(target)
        kept = None
        if isinstance(found, Fetch):
            try:
                await found.whole()
            finally:
                found.leave()
            kept = self._cache.get(target)
        elif isinstance(found, Foreign):
            await found.response.aclose()
        elif found is not None:
            kept = found.kept
        if kept is None or kept.description.get(":status") != "200":
            if kept is not None:
                kept.close()
            raise WebClientError(f"{target} is not there, or may not be kept")
        with kept:
            yield kept

    async def _open(self, target: str, kept: Kept | None) -> Held | Fetch | Foreign:
        """Ask the origin, on behalf of everybody who waits meanwhile."""
        opening = self._opening[target] = asyncio.Event()
        try:
            return await self._ask_anew(target, kept)
        except BaseException:
            if kept is not None:
                kept.close()
            raise
        finally:
            del self._opening[target]
            opening.set()

    async def _ask_anew(self, target: str, kept: Kept | None) -> Held | Fetch | Foreign:
        if kept is None:
            response = await self.ask("GET", target, {})
            return self._keep(target, response) or Foreign(response)
        stale = Held(kept, stale=True) if self._freshness(kept).may_be_stale else None
        try:
            response = await self.ask("GET", target, caching.questions(kept.description))
        except httpx.HTTPError:
            if stale is None:
                raise
            return stale
        if response.status_code >= 500 and stale is not None:
            await response.aclose()
            return stale
        if response.status_code == 304:
            await response.aclose()
            kept.description |= _described(response) | {":status": "200"}
            with suppress(CacheError):
                self._cache.describe(target, kept.description)
            return Held(kept)
        kept.close()
        return self._keep(target, response) or Foreign(response)

    def _keep(self, target: str, response: httpx.Response) -> Fetch | None:
        """Begin to keep an answer, if that may be."""
        assert self._client is not None
        length = announced_length(response)
        may_be = caching.storable({}, response.status_code, fields_of(response))
        if may_be and (length or 0) <= self._options.object_bytes:
            with suppress(CacheError):
                growing = self._cache.begin(target, _described(response), length)
                fetch = Fetch(self._client, response, growing)
                fetch.join()
                self._fetches[target] = fetch
                task = asyncio.create_task(self._run(target, fetch), name="fetch")
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)
                return fetch
        if response.status_code < 500:
            self._pass(target)
        return None

    async def _run(self, target: str, fetch: Fetch) -> None:
        try:
            await fetch.run()
        finally:
            self.fetched.inc(fetch.received)
            del self._fetches[target]
            if isinstance(fetch.error, CacheError):
                self._pass(target)  # who asks again shall have it

    def _pass(self, target: str) -> None:
        """Let an object be asked for by everybody for himself for a while."""
        if len(self._passed) >= _MOST_PASSED:
            self._passed.clear()
        self._passed[target] = time.monotonic() + _PASSED_S

    def fresh(self, kept: Kept) -> bool:
        """Say whether an object of the cache may be used as it is."""
        return age(kept.description) <= self._freshness(kept).lifetime

    def _freshness(self, kept: Kept) -> caching.Freshness:
        return caching.freshness(kept.description, default=self._options.fresh)


def age(description: dict[str, str]) -> float:
    """Return how old an object is, in seconds."""
    came = float(description.get(":at", "0"))
    return max(time.time() - came, 0.0) + caching.initial_age(description)


def fields_of(response: httpx.Response) -> dict[str, str]:
    """Return the header fields by their names in lower case."""
    return {name.lower(): value for name, value in response.headers.items()}


def _described(response: httpx.Response) -> dict[str, str]:
    """Return what the cache keeps beside a body: status, when it came, fields by their names."""
    fields = caching.end_to_end(fields_of(response))
    fields.pop("content-length", None)
    return {":status": str(response.status_code), ":at": f"{time.time():.3f}", **fields}
