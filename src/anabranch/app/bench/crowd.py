"""A crowd of scripted viewers that change channels at random, beside a measurement."""

import asyncio
import re
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from random import Random

import httpx

from anabranch.app.bench.site_process import SiteProcess
from anabranch.app.bench.viewers_load import Load, Message, running_load
from anabranch.app.bench.viewers_sdp import Credentials, offer, read_answer
from anabranch.core.errors import AnabranchError, UnavailableError

_CONNECT_S = 20.0
"""Seconds until all of a crowd are connected."""
_EVERY_S = 1.0
"""Seconds between two changes of one viewer."""
_CHANGE = re.compile(r'<([^>]*)>; rel="urn:anabranch:whep:ext:change"')


@contextmanager
def crowd(
    site: SiteProcess, viewers: int, channels: Sequence[str], *, changing: bool = True
) -> Iterator[None]:
    """Have ``viewers`` watch, each of them changing the channel once a second or never.

    Raises:
        UnavailableError: their program is missing, or they cannot connect.
    """
    if not viewers:
        yield
        return
    gathered = _Crowd(site.url, viewers, channels, changing)
    thread = threading.Thread(target=lambda: asyncio.run(gathered.run()), name="crowd")
    thread.start()
    try:
        gathered.wait_until_up()
        yield
    finally:
        gathered.ends.set()
        thread.join()


class _Crowd:
    """Runs in a thread of its own: whoever measures does not share its event loop."""

    def __init__(self, url: str, viewers: int, channels: Sequence[str], changing: bool) -> None:
        self._url = url
        self._changing = changing
        self._viewers = viewers
        self._channels = channels
        self._random = Random(0)  # noqa: S311
        self._up = 0
        self._failure: Exception | None = None
        self.ends = threading.Event()

    def wait_until_up(self) -> None:
        """Wait until all are connected.

        Raises:
            UnavailableError: they are not in 20 s.
        """
        end = time.monotonic() + _CONNECT_S
        while self._up < self._viewers:
            if self._failure is not None or time.monotonic() > end:
                text = f"{self._up} of {self._viewers} viewers of the crowd are connected"
                raise UnavailableError(text) from self._failure
            time.sleep(0.1)

    async def run(self) -> None:
        """Watch and change channels until it ends."""
        try:
            async with (
                running_load(on_event=self._event) as load,
                httpx.AsyncClient(base_url=self._url, timeout=10.0) as client,
            ):
                changes = [await self._join(load, client, n) for n in range(self._viewers)]
                if not self._changing:
                    await asyncio.to_thread(self.ends.wait)
                    return
                async with asyncio.TaskGroup() as group:
                    for change in changes:
                        group.create_task(self._zap(client, change))
        except (AnabranchError, httpx.HTTPError) as error:
            self._failure = error

    async def _join(self, load: Load, client: httpx.AsyncClient, number: int) -> str:
        """Have one watch some channel; return where that is changed; "": it cannot be."""
        own = Credentials.random()
        answer = await client.post(
            f"/whep/{self._random.choice(self._channels)}",
            content=offer(own, load.fingerprint),
            headers={"Content-Type": "application/sdp"},
        )
        change = _CHANGE.search(answer.headers.get("link", ""))
        if answer.status_code != 201 or (self._changing and change is None):
            raise UnavailableError(f"the crowd is not let in: {answer.text[:200]}")
        await load.add(f"v{number}", own, read_answer(answer.text))
        return change[1] if change else ""

    async def _zap(self, client: httpx.AsyncClient, change: str) -> None:
        await asyncio.sleep(self._random.random() * _EVERY_S)
        while not self.ends.is_set():
            with suppress(httpx.TransportError):
                await client.post(change, json={"channel": self._random.choice(self._channels)})
            await asyncio.sleep(_EVERY_S)

    def _event(self, event: Message) -> None:
        self._up += event["event"] == "viewer.up"
