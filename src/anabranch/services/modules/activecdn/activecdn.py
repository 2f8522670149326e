"""ActiveCDN: a provider's site, served from a cache on a node near its users (seed 003, 7.1).

Properties:
    origin: ``http://ADDRESS[:PORT]``, where objects come from.
    host: what the Host field says there; without it the address.
    port: where users are served (default 80).
    fresh: seconds for which objects are used of which the origin says nothing (default 60).
    clip: path on the origin of a clip for videos.
    videos: pattern of the paths that get it, such as ``/video/*.mp4`` (default ``*.mp4``).
    at: second of the video before which the clip comes (default 0).
    wait: for so many seconds a user waits for the clip; then the video comes without (default 0).
"""

import asyncio
import logging
import re
import shutil
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from fnmatch import fnmatchcase
from hashlib import sha256
from urllib.parse import unquote

import httpx
from prometheus_client import CollectorRegistry

from anabranch.core.tasks import end_task
from anabranch.services.blocks.caching_proxy import Asked, CachingProxy
from anabranch.services.blocks.disk_cache import CacheError, DiskCache, Kept
from anabranch.services.blocks.http_target import TargetError, checked_target
from anabranch.services.blocks.metrics import figures
from anabranch.services.blocks.objects import Objects, OriginOptions
from anabranch.services.blocks.transcoder import Container, Transcoder, TranscodingError
from anabranch.services.blocks.web_client import WebClientError, checked_origin
from anabranch.services.blocks.web_server import WebServer
from anabranch.services.module import Context, Module, Status
from anabranch.services.transcoding.request import LATEST_S

_SHARE = 0.9
"""Of the module's disk; the rest is for file names and for what is being removed."""
_RETRY_S = 30.0
_ASKING_S = 2.0
_MOST_FAILED = 1024
_LONGEST_JOB_S = 600.0


@dataclass(frozen=True, slots=True)
class Clip:
    """What is put into which videos.

    Attributes:
        path: of the clip, on the origin.
        videos: pattern of paths.
        at, wait: seconds; see above.
    """

    path: str
    videos: str
    at: float
    wait: float

    @classmethod
    def of(cls, given: Mapping[str, str]) -> "Clip | None":
        """Read the properties; None: there is no clip. Raises ValueError."""
        if "clip" not in given:
            return None
        try:
            path = checked_target(given["clip"].encode(), b"")
        except TargetError as error:
            raise ValueError(f"clip: {error}") from None
        return cls(
            path, given.get("videos", "*.mp4"),
            _number(given, "at", 0, LATEST_S), _number(given, "wait", 0, _LONGEST_JOB_S),
        )  # fmt: skip

    def belongs_in(self, target: str) -> bool:
        path = unquote(target.partition("?")[0])
        return path != self.path and fnmatchcase(path, self.videos)


class ActiveCdn(Module):
    """Ties the building blocks together: server, caching proxy, cache on disk, transcoder."""

    def configure(self, context: Context) -> None:
        given = context.properties
        if context.address is None or context.directory is None:
            raise ValueError("it needs an address and a directory of its own")
        self._place = context.address, int(_number(given, "port", 80, 65535))
        self._directory = context.directory / "objects"
        self._origin = OriginOptions(
            checked_origin(given.get("origin", "")),
            _host(given.get("host")),
            name=f"activecdn-{context.address}",
            fresh=_number(given, "fresh", 60, 1e7),
        )
        self._clip = Clip.of(given)
        self._transcoder = context.transcoder
        if self._clip is not None and self._transcoder is None:
            raise ValueError("a clip needs ffmpeg, which this node does not grant its user")
        self._log = context.log
        self._server: WebServer | None = None
        self._registry = CollectorRegistry()

    def start(self) -> None:
        self._directory.mkdir(exist_ok=True)
        quota = int(shutil.disk_usage(self._directory).total * _SHARE)
        cache = DiskCache(self._directory, quota)
        self._registry = registry = CollectorRegistry()
        objects = Objects(self._origin, cache, registry)
        inserter = None
        if self._clip is not None and self._transcoder is not None:
            inserter = Inserter(self._clip, objects, cache, self._transcoder, self._log)
        proxy = CachingProxy(
            objects,
            self._origin.name,
            registry,
            instead=inserter.video if inserter is not None else None,
        )
        inside = _both(objects, inserter)
        self._server = WebServer(proxy, *self._place, dated=False, inside=inside)
        self._server.start()

    def stop(self) -> None:
        if self._server is not None:
            self._server.stop()
            self._server = None

    def status(self) -> Status:
        place = ":".join(map(str, self._server.place)) if self._server is not None else "nowhere"
        return {"serves": place, **figures(self._registry)}


class Inserter:
    """Has clips put into videos by the transcoder, and keeps what comes of it in the cache.

    A video with its clip is as fresh as the video, and is made anew when video or clip change.
    """

    def __init__(
        self,
        clip: Clip,
        objects: Objects,
        cache: DiskCache,
        transcoder: Transcoder,
        log: logging.Logger,
    ) -> None:
        self._clip = clip
        self._objects = objects
        self._cache = cache
        self._transcoder = transcoder
        self._log = log
        self._jobs: dict[str, asyncio.Task[None]] = {}
        self._failed: dict[str, float] = {}

    async def video(self, asked: Asked) -> Kept | None:
        """Return a video with its clip; None: it gets none, or it is not made yet."""
        target = asked.target
        if not self._clip.belongs_in(target):
            return None
        kept = self._cache.get(self._key(target))
        if kept is not None:
            if self._objects.fresh(kept):
                return kept
            kept.close()
        if self._failed.get(target, 0.0) > time.monotonic():
            return None
        job = self._jobs.get(target)
        if job is None:
            job = asyncio.create_task(self._make(target), name="insert")
            self._jobs[target] = job
            job.add_done_callback(lambda _: self._jobs.pop(target, None))
        # One that was made before most often needs nothing but a word from the origin.
        patience = self._clip.wait if kept is None else max(self._clip.wait, _ASKING_S)
        await asyncio.wait({job}, timeout=patience)
        return self._cache.get(self._key(target)) if job.done() else None

    async def close(self) -> None:
        for job in list(self._jobs.values()):
            await end_task(job)

    def _key(self, target: str) -> str:
        return f"{target} with {self._clip.path} at {self._clip.at:g}"

    async def _make(self, target: str) -> None:
        began = time.monotonic()
        try:
            async with (
                asyncio.timeout(_LONGEST_JOB_S),
                self._objects.whole(target) as video,
                self._objects.whole(self._clip.path) as clip,
            ):
                await self._insert(target, video, clip)
        except (
            httpx.HTTPError, WebClientError, CacheError, TranscodingError, TimeoutError
        ) as error:  # fmt: skip
            self._log.warning("%s gets no clip: %s", target, error or type(error).__name__)
            if len(self._failed) >= _MOST_FAILED:
                self._failed.clear()
            self._failed[target] = time.monotonic() + _RETRY_S
            return
        self._log.info("%s has its clip, after %.1f s", target, time.monotonic() - began)

    async def _insert(self, target: str, video: Kept, clip: Kept) -> None:
        key, container = self._key(target), _container(target)
        description = _described(video, clip, container)
        before = self._cache.get(key)
        if before is not None:
            with before:
                if before.description["etag"] == description["etag"]:
                    self._cache.describe(key, description)
                    return
        growing = self._cache.begin(key, description, video.length + clip.length)
        try:
            for each in (video, clip, growing):
                each.rewind()
            job = self._transcoder.insert(
                video, clip, into=growing, at=self._clip.at, container=container
            )
            try:
                await asyncio.wrap_future(job.future)
            except asyncio.CancelledError:
                job.cancel()
                raise
            growing.adopt()
            await asyncio.to_thread(growing.seal)
            growing.commit()
        finally:
            growing.close()


@asynccontextmanager
async def _both(objects: Objects, inserter: Inserter | None) -> AsyncIterator[None]:
    async with objects:
        try:
            yield
        finally:
            if inserter is not None:
                await inserter.close()


def _container(target: str) -> Container:
    path = target.partition("?")[0].lower()
    return Container.TS if path.endswith((".ts", ".m2ts")) else Container.MP4


def _described(video: Kept, clip: Kept, container: Container) -> dict[str, str]:
    """Say of a video with a clip what its origin says of the video, and which two it is made of."""
    versions = [
        each.description.get("etag") or each.description.get("last-modified")
        or f"{each.length} {each.description[':at']}" for each in (video, clip)
    ]  # fmt: skip
    tag = sha256("\0".join(versions).encode()).hexdigest()[:32]
    kind = {Container.MP4: "video/mp4", Container.TS: "video/mp2t"}[container]
    return {**video.description, "etag": f'"{tag}"', "content-type": kind}


def _number(given: Mapping[str, str], name: str, usual: float, most: float) -> float:
    """Read a number from 0 to ``most``. Raises ValueError."""
    try:
        found = float(given.get(name, usual))
    except ValueError:
        raise ValueError(f"{name}: {given[name][:40]!r} is no number") from None
    if not 0 <= found <= most:
        raise ValueError(f"{name}: 0 to {most:g}")
    return found


def _host(text: str | None) -> str | None:
    if text is not None and not re.fullmatch(r"[A-Za-z0-9.-]{1,253}(:\d{1,5})?", text):
        raise ValueError(f"host: {text[:60]!r} is no name")
    return text
