"""An object on its way from an origin into the cache, read meanwhile by as many as want it."""

import asyncio
import re

import httpx

from anabranch.services.blocks.disk_cache import CacheError, Growing
from anabranch.services.blocks.web_client import WebClientError

RESUMED_AT_MOST = 3
"""So often is an origin asked for the rest, when it broke off."""
_PAUSE_S = 0.5
_CONTENT_RANGE = re.compile(r"bytes (\d{1,19})-\d{1,19}/(?:\d{1,19}|\*)", re.ASCII)


class BrokenOffError(WebClientError):
    """An object of which the rest will not come."""


class Fetch:
    """One answer of an origin, written into the cache as it comes.

    Args:
        client: to ask for the rest with, if the origin breaks off.
        response: open, its body not read; closed at the end.
        growing: where it goes; closed when it has ended and nobody reads it any more.

    Attributes:
        length: of the whole body, or None: nobody knows yet.
        received: bytes of the body that came over the wire.
    """

    def __init__(
        self, client: httpx.AsyncClient, response: httpx.Response, growing: Growing
    ) -> None:
        self._client = client
        self._response = response
        self._growing = growing
        self._changed = asyncio.Event()
        self._readers = 1  # the fetch itself
        self._error: Exception | None = None
        self._ended = False
        self.description = growing.description
        self.length = announced_length(response)
        self.received = 0

    @property
    def available(self) -> int:
        """Bytes of the body that are here."""
        return self._growing.length

    async def run(self) -> None:
        """Take in the whole body, and commit it to the cache. Never raises but when cancelled."""
        try:
            await self._take_all()
            await asyncio.to_thread(self._growing.seal)
            self._growing.commit()
        except (httpx.HTTPError, CacheError, WebClientError) as error:
            self._error = error
        except asyncio.CancelledError:
            self._error = BrokenOffError("the server ends")
            raise
        finally:
            self._ended = True
            self._growing.abort()  # unless it was committed
            self._tell()
            await self._response.aclose()
            self.leave()

    @property
    def error(self) -> Exception | None:
        """Why it failed, once it has."""
        return self._error

    def join(self) -> None:
        """Begin to read; each ends by :meth:`leave`."""
        self._readers += 1

    def leave(self) -> None:
        self._readers -= 1
        if not self._readers:
            self._growing.close()

    async def read(self, offset: int, count: int) -> bytes:
        """Return up to ``count`` bytes from ``offset`` on, once there are any; b"": the end.

        Raises:
            BrokenOffError: they will not come.
        """
        while offset >= self._growing.length and not self._ended:
            await self._changed.wait()
        if offset < self._growing.length:
            return self._growing.read(offset, count)
        if self._error is not None:
            raise BrokenOffError(str(self._error) or type(self._error).__name__)
        return b""

    async def whole(self) -> None:
        """Return when all of it is in the cache. Raises BrokenOffError."""
        while not self._ended:
            await self._changed.wait()
        if self._error is not None:
            raise BrokenOffError(str(self._error) or type(self._error).__name__)

    def _tell(self) -> None:
        self._changed.set()
        if not self._ended:
            self._changed = asyncio.Event()

    async def _take_all(self) -> None:
        resumed = 0
        while True:
            try:
                async for part in self._response.aiter_raw():
                    self._growing.write(part)
                    self.received += len(part)
                    self._tell()
                return
            except httpx.HTTPError:
                tag = self._response.headers.get("etag", "")
                if resumed == RESUMED_AT_MOST or not tag or tag.startswith("W/"):
                    raise
            resumed += 1
            await asyncio.sleep(_PAUSE_S * resumed)
            await self._ask_for_rest(tag)

    async def _ask_for_rest(self, tag: str) -> None:
        """Open another response that goes on where the last broke off."""
        await self._response.aclose()
        asked = self._response.request
        rest = {"range": f"bytes={self._growing.length}-", "if-range": tag}
        request = self._client.build_request("GET", asked.url, headers=rest)
        response = await self._client.send(request, stream=True)
        found = _CONTENT_RANGE.fullmatch(response.headers.get("content-range", ""))
        same = response.headers.get("etag") == tag
        if response.status_code != httpx.codes.PARTIAL_CONTENT or found is None or not same:
            await response.aclose()
            raise BrokenOffError("the origin broke off, and has changed")
        if int(found[1]) != self._growing.length:
            await response.aclose()
            raise BrokenOffError("the origin broke off, and goes on elsewhere")
        self._response = response


def announced_length(response: httpx.Response) -> int | None:
    """Return the length that a response says its body has."""
    text = response.headers.get("content-length", "")
    return int(text) if text.isascii() and text.isdigit() and len(text) < 19 else None
