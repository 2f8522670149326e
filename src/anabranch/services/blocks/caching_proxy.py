"""A caching HTTP proxy before one origin: an ASGI application for modules.

What :class:`~anabranch.services.blocks.objects.Objects` has is sent while it is still coming.
Ranges, conditions and HEAD are answered here; what may not be kept, and methods other than GET,
are passed through.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from email.utils import formatdate
from typing import Any, Protocol

import httpx
from prometheus_client import CollectorRegistry, Counter

from anabranch.core.tasks import end_task
from anabranch.services.blocks import http_caching as caching
from anabranch.services.blocks.disk_cache import Kept
from anabranch.services.blocks.fetch import BrokenOffError, Fetch
from anabranch.services.blocks.http_target import TargetError, checked_target
from anabranch.services.blocks.objects import Foreign, Held, Objects, age, fields_of
from anabranch.services.blocks.web_client import WebClientError

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

_PART = 128 * 1024
_AHEAD = 4 << 20
"""A range that begins so far after what has come is asked for by itself."""
_MOST_BODY = 16 << 20
_LEFT_OUT = {"host", "content-length", "expect", "via", "accept-encoding", "x-forwarded-for"}
_END: Message = {"type": "http.response.body", "body": b""}


class Body(Protocol):
    """What :class:`Fetch` and :class:`_KeptBody` have in common."""

    length: int | None
    description: dict[str, str]

    async def read(self, offset: int, count: int) -> bytes: ...


class _KeptBody:
    def __init__(self, kept: Kept) -> None:
        self._kept = kept
        self.length: int | None = kept.length
        self.description = kept.description

    async def read(self, offset: int, count: int) -> bytes:
        return self._kept.read(offset, count)


@dataclass(slots=True)
class Asked:
    """A request that is being answered.

    Attributes:
        target: path and query, checked.
        fields: of its head, by their names in lower case.
        has_gone: whether the client has.
    """

    method: str
    target: str
    fields: dict[str, str]
    client: str
    receive: Receive
    send: Send
    has_gone: bool = False


class CachingProxy:
    """Answers requests in the event loop of its objects.

    Args:
        name: of this server, for the Via field; what has passed it before is refused.
        instead: asked first, for GET and HEAD: what it returns is the answer.
    """

    def __init__(
        self,
        objects: Objects,
        name: str,
        registry: CollectorRegistry,
        *,
        instead: Callable[[Asked], Awaitable[Kept | None]] | None = None,
    ) -> None:
        self._objects = objects
        self._name = name
        self._instead = instead
        self._answers = Counter(
            "answers", "Answers, by where they came from", ["by"], registry=registry
        )
        self._sent = Counter("sent_bytes", "Bytes of bodies sent", registry=registry)
        for by in ("cache", "fetch", "stale", "made", "passed", "refused"):
            self._answers.labels(by)

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        """Answer one request (ASGI 3)."""
        client = scope["client"][0] if scope.get("client") else ""
        asked = Asked(scope["method"], "", _joined(scope["headers"]), client, receive, send)
        try:
            asked.target = checked_target(scope["raw_path"], scope["query_string"])
        except TargetError as error:
            await self.refuse(asked, 400, str(error))
            return
        await self.answer(asked)

    async def answer(self, asked: Asked) -> None:
        """Answer a request whose target was checked."""
        if f" {self._name}," in f"{asked.fields.get('via', '')},":
            await self.refuse(asked, 508, "this request has been here before")
            return
        try:
            if asked.method not in {"GET", "HEAD"} or "authorization" in asked.fields:
                await self._pass_on(asked)
                return
            async with _watched(asked):
                await self._get(asked)
        except httpx.TimeoutException:
            await self.refuse(asked, 504, "the origin does not answer in time")
        except (httpx.HTTPError, WebClientError) as error:
            await self.refuse(asked, 502, f"the origin cannot be asked: {type(error).__name__}")

    async def refuse(self, asked: Asked, status: int, words: str) -> None:
        """Answer with an error, in words."""
        body = f"{words}\n".encode()
        fields = {"content-type": "text/plain; charset=utf-8", "cache-control": "no-store"}
        await self._begin(asked, status, {**fields, "content-length": str(len(body))}, "refused")
        await asked.send({"type": "http.response.body", "body": body})

    async def give(self, asked: Asked, kept: Kept, by: str = "cache") -> None:
        """Answer with an object of the cache."""
        await self._give(asked, _KeptBody(kept), by)

    async def _get(self, asked: Asked) -> None:
        made = await self._instead(asked) if self._instead is not None else None
        if made is not None:
            with made:
                await self.give(asked, made, "made")
            return
        found = await self._objects.find(asked.target, ask=asked.method == "GET")
        match found:
            case Held():
                with found.kept:
                    await self.give(asked, found.kept, "stale" if found.stale else "cache")
            case Fetch():
                try:
                    await self._give(asked, found, "fetch")
                finally:
                    found.leave()
            case Foreign():
                await self._stream(asked, found.response)
            case None:
                await self._pass_on(asked)

    async def _give(self, asked: Asked, body: Body, by: str) -> None:
        said = {k: v for k, v in body.description.items() if not k.startswith(":")}
        said |= {"age": str(int(age(body.description))), "accept-ranges": "bytes"}
        status = int(body.description.get(":status", "200"))
        if status == 200 and caching.unchanged_for(asked.fields, said):
            await self._begin(asked, 304, said, by)
            await asked.send(_END)
            return
        first, end = 0, body.length
        try:
            part = self._part(asked, body, said) if status == 200 else None
        except caching.UnsatisfiableRangeError:
            none = {"content-range": f"bytes */{body.length}", "content-length": "0"}
            await self._begin(asked, 416, none, "refused")
            await asked.send(_END)
            return
        if part is not None:
            if isinstance(body, Fetch) and part[0] > body.available + _AHEAD:
                await self._pass_on(asked)
                return
            status, (first, end) = 206, part
            said["content-range"] = f"bytes {first}-{end - 1}/{body.length}"
        if end is not None:
            said["content-length"] = str(end - first)
        await self._begin(asked, status, said, by)
        await self._send_part(asked, body, first, end)

    def _part(self, asked: Asked, body: Body, said: dict[str, str]) -> tuple[int, int] | None:
        """Return the range that is asked for, if it is one. Raises UnsatisfiableRangeError."""
        if body.length is None or asked.method != "GET":
            return None
        if not caching.range_applies(asked.fields.get("if-range"), said):
            return None
        return caching.part_asked(asked.fields.get("range"), body.length)

    async def _send_part(self, asked: Asked, body: Body, first: int, end: int | None) -> None:
        """Send a part of a body; one that breaks off is not ended, so that the client knows."""
        at = first
        while asked.method != "HEAD" and (end is None or at < end) and not asked.has_gone:
            try:
                part = await body.read(at, _PART if end is None else min(_PART, end - at))
            except BrokenOffError:
                return
            if not part:
                if end is not None:
                    return
                break
            at += len(part)
            self._sent.inc(len(part))
            await asked.send({"type": "http.response.body", "body": part, "more_body": True})
        if not asked.has_gone:
            await asked.send(_END)

    async def _pass_on(self, asked: Asked) -> None:
        """Have the origin answer this request itself."""
        fields = {k: v for k, v in caching.end_to_end(asked.fields).items() if k not in _LEFT_OUT}
        before = asked.fields.get("x-forwarded-for", "")
        fields["x-forwarded-for"] = f"{before}, {asked.client}" if before else asked.client
        content = None
        if asked.method not in {"GET", "HEAD"}:
            content = await _content(asked)
            if content is None:
                await self.refuse(asked, 413, f"more than {_MOST_BODY} bytes")
                return
        response = await self._objects.ask(asked.method, asked.target, fields, content)
        await self._stream(asked, response)

    async def _stream(self, asked: Asked, response: httpx.Response) -> None:
        """Send an answer of the origin on as it comes."""
        try:
            fields = caching.end_to_end(fields_of(response))
            cookies = response.headers.get_list("set-cookie")
            fields.pop("set-cookie", None)
            await self._begin(asked, response.status_code, fields, "passed", cookies)
            async for part in response.aiter_raw():
                if asked.has_gone:
                    return
                self._objects.fetched.inc(len(part))
                self._sent.inc(len(part))
                await asked.send({"type": "http.response.body", "body": part, "more_body": True})
            await asked.send(_END)
        except httpx.HTTPError:
            return  # it is not ended: the connection is closed, and the client knows
        finally:
            await response.aclose()

    async def _begin(
        self,
        asked: Asked,
        status: int,
        fields: dict[str, str],
        by: str,
        cookies: list[str] | None = None,
    ) -> None:
        """Send the head of an answer."""
        self._answers.labels(by).inc()
        pairs = [*fields.items(), ("via", f"1.1 {self._name}")]
        pairs += [("set-cookie", each) for each in cookies or []]
        if "date" not in fields:
            pairs.append(("date", formatdate(usegmt=True)))
        headers = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in pairs]
        await asked.send({"type": "http.response.start", "status": status, "headers": headers})


@asynccontextmanager
async def _watched(asked: Asked) -> AsyncIterator[None]:
    """Notice meanwhile that the client goes."""

    async def watch() -> None:
        while (await asked.receive())["type"] != "http.disconnect":
            pass
        asked.has_gone = True

    watching = asyncio.create_task(watch(), name="client")
    try:
        yield
    finally:
        await end_task(watching)


async def _content(asked: Asked) -> bytes | None:
    """Return the body of a request; None: it is too long."""
    body = b""
    while True:
        message = await asked.receive()
        if message["type"] == "http.disconnect":
            return b""
        body += bytes(message.get("body", b""))
        if len(body) > _MOST_BODY:
            return None
        if not message.get("more_body"):
            return body


def _joined(headers: list[tuple[bytes, bytes]]) -> dict[str, str]:
    found: dict[str, str] = {}
    for raw_name, raw_value in headers:
        name, value = raw_name.decode("latin-1").lower(), raw_value.decode("latin-1")
        found[name] = f"{found[name]}, {value}" if name in found else value
    return found
