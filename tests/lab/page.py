"""A watch page in a real Chromium."""

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any, TypeVar

from playwright.sync_api import Error
from tests.lab.inside import inside

from anabranch.app.bench.browser import chromium, wait_for_picture

T = TypeVar("T")
_SEEN_ADDRESSES = "--disable-features=WebRtcHideLocalIpsWithMdns"
"""Where there is no IPv4 Chromium does not find names (mDNS) for its candidates, and has none."""
_FAKE_CAMERA = ("--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream")


def go(page: Any, url: str) -> None:
    """Open a page, again if the machine's devices or addresses have changed meanwhile.

    Chromium then gives up what it loads. Tests beside this one make and remove devices.
    """
    for _ in range(10):
        try:
            page.goto(url)
        except Error as error:
            if "ERR_NETWORK_CHANGED" not in error.message:
                raise
        else:
            return
    raise AssertionError(f"the network keeps changing: {url}")


class BrowserThread:
    """A browser in a thread of its own: playwright keeps an event loop running in its thread,
    and the tests want to run loops of theirs.

    Args:
        netns: namespace of the computer that the browser is on; None: this machine.
    """

    def __init__(self, netns: str | None = None) -> None:
        self._thread = ThreadPoolExecutor(1, "browser")
        self._stack = ExitStack()
        if netns is not None:  # what the thread starts is there, too
            self.do(lambda: self._stack.enter_context(inside(netns)))
        options = _FAKE_CAMERA if netns is None else (*_FAKE_CAMERA, _SEEN_ADDRESSES)
        self.browser = self.do(lambda: self._stack.enter_context(chromium(*options)))

    def do(self, work: Callable[[], T]) -> T:
        """Do something with the browser, in its thread."""
        return self._thread.submit(work).result()

    def close(self) -> None:
        self.do(self._stack.close)
        self._thread.shutdown()


class Page:
    """One open watch page."""

    def __init__(self, thread: BrowserThread, page: Any) -> None:
        self._thread = thread
        self._page = page

    def wait_for_picture(self, limit_s: float = 30.0) -> None:
        self._thread.do(lambda: wait_for_picture(self._page, limit_s))

    def wait_for_text(self, pattern: str, limit_s: float = 30.0) -> None:
        self._thread.do(
            lambda: self._page.wait_for_selector(f"text=/{pattern}/i", timeout=limit_s * 1000)
        )

    def evaluate(self, script: str) -> Any:
        return self._thread.do(lambda: self._page.evaluate(script))

    def with_page(self, work: Callable[[Any], T]) -> T:
        """Do something with the page itself."""
        return self._thread.do(lambda: work(self._page))

    def stats(self) -> dict[str, Any]:
        found: dict[str, Any] = self.evaluate("window.anabranch.stats()")
        return found

    def delays(self, count: int) -> list[float]:
        """Return ms of delay of some frames, read from the clock in the decoded picture."""
        found: list[float] = self.evaluate(f"window.anabranch.sampleDelays({count})")
        return found

    def has_clock(self) -> bool:
        return self.evaluate("window.anabranch.readClock()") is not None

    def outage(self, limit_s: float) -> float:
        """Return the seconds from now until pictures with a fresh clock are shown again.

        Fails if that takes longer than ``limit_s``. A frozen picture's delay grows: so a picture
        counts once its clock is less than a second old for three looks in a row.
        """
        began = time.monotonic()
        fresh = 0
        stale_seen = False
        while time.monotonic() - began < limit_s:
            delay = self.evaluate("window.anabranch.readClock()")
            if delay is None or delay > 1000:
                stale_seen = True
                fresh = 0
            elif stale_seen or time.monotonic() - began > 2.5:
                fresh += 1
                if fresh == 3:
                    return time.monotonic() - began
            time.sleep(0.05)
        raise AssertionError(f"no picture after {limit_s} s: {self.stats()}")

    def colour(self) -> list[int]:
        """Return the average red, green and blue of the picture shown."""
        found: list[int] = self.evaluate(
            """() => {
              const video = [...document.querySelectorAll('video')].find(v => v.videoWidth &&
                getComputedStyle(v).visibility !== 'hidden');
              const canvas = document.createElement('canvas');
              canvas.width = canvas.height = 16;
              const context = canvas.getContext('2d');
              context.drawImage(video, 0, 0, 16, 16);
              const data = context.getImageData(0, 0, 16, 16).data;
              const sum = [0, 0, 0];
              for (let i = 0; i < data.length; i++) if (i % 4 < 3) sum[i % 4] += data[i];
              return sum.map(v => Math.round(v / 256));
            }"""
        )
        return found

    def wait_for_colour(self, wanted: tuple[int, int, int], limit_s: float = 30.0) -> None:
        """Wait until the picture's average is near ``wanted``."""
        began = time.monotonic()
        seen: list[int] = []
        while time.monotonic() - began < limit_s:
            seen = self.colour()
            if all(abs(a - b) < 40 for a, b in zip(seen, wanted, strict=True)):
                return
            time.sleep(0.1)
        raise AssertionError(f"the picture is {seen}, not {wanted}")


class Watching:
    """Opens pages and closes them."""

    def __init__(self, thread: BrowserThread) -> None:
        self._thread = thread
        self._contexts: list[Any] = []

    def __call__(self, url: str, channel: str, query: str = "") -> Page:
        return self.open(f"{url}/watch/{channel}{query}")

    def open(self, url: str) -> Page:
        """Open any page of a site."""
        return self._thread.do(lambda: self._open(url))

    def _open(self, url: str) -> Page:
        context = self._thread.browser.new_context(
            viewport={"width": 1280, "height": 800}, ignore_https_errors=True
        )
        self._contexts.append(context)
        page = context.new_page()
        go(page, url)
        return Page(self._thread, page)

    def close(self) -> None:
        for context in self._contexts:
            self._thread.do(context.close)
