"""A small site for the portal, with people; and its pages as a person uses them."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from tests.lab.page import BrowserThread, go
from tests.waiting import wait_until

from anabranch.app.bench.site_process import SiteProcess, running_site

PASSWORD = "a sentence that nobody guesses"
PEOPLE = {"paula": "producer", "vic": "viewer", "anna": "admin"}
CHANNELS = 11
"""More than a digit can number."""
_SMALL = {
    "framerate": 10,
    "ladder": [{"name": "only", "width": 160, "height": 90, "bitrate_kbps": 100}],
}


@contextmanager
def portal() -> Iterator[SiteProcess]:
    """Give a site without switches: many small channels, a producer, a viewer and an admin."""
    with running_site(
        carriage="direct",
        test_channels=str(CHANNELS),
        video=json.dumps(_SMALL),
        leaf=json.dumps({"kind": "anabranch", "warm": "all"}),
    ) as site:
        for name, role in PEOPLE.items():
            body = {"name": name, "role": role, "password": PASSWORD}
            made = site.api("POST", "/api/accounts", json=body)
            assert made.status_code == 201, made.text
        yield site


class Browsing:
    """One browser of one person: cookies and storage of its own.

    Waiting is done from outside: playwright's own needs ``eval``, which the pages forbid.
    """

    def __init__(self, thread: BrowserThread, url: str, **options: Any) -> None:
        self._thread = thread
        self.url = url
        self.errors: list[str] = []
        self._context = thread.do(lambda: thread.browser.new_context(**options))
        self.page = thread.do(self._context.new_page)
        thread.do(lambda: self.page.on("pageerror", lambda e: self.errors.append(str(e))))
        thread.do(lambda: self.page.on("console", self._console))

    def _console(self, message: Any) -> None:
        # A broken policy is told here; that a request is refused is no error of the page.
        if message.type == "error" and "Failed to load resource" not in message.text:
            self.errors.append(message.text)

    def do(self, work: Callable[[Any], Any]) -> Any:
        return self._thread.do(lambda: work(self.page))

    def go(self, path: str) -> None:
        self.do(lambda page: go(page, self.url + path))

    def evaluate(self, script: str) -> Any:
        return self.do(lambda page: page.evaluate(script))

    def wait(self, script: str, limit_s: float = 30.0) -> None:
        """Wait until an expression is true in the page."""

        def so() -> bool:
            try:
                return bool(self.evaluate(script))
            except Exception as error:  # the page is just being left
                if "context was destroyed" in str(error) or "navigat" in str(error):
                    return False
                raise

        wait_until(so, f"never true: {script}", limit_s=limit_s)

    def text(self, selector: str) -> str:
        return str(self.do(lambda page: page.inner_text(selector)))

    def click(self, selector: str) -> None:
        self.do(lambda page: page.click(selector))

    def fill(self, selector: str, text: str) -> None:
        self.do(lambda page: page.fill(selector, text))

    def press(self, *keys: str) -> None:
        for key in keys:
            self.do(lambda page, key=key: page.keyboard.press(key))  # type: ignore[misc]

    def sign_in(self, name: str, password: str = PASSWORD, then: str = "/studio") -> None:
        self.go(f"/login?next={then}")
        self.fill("#name", name)
        self.fill("#password", password)
        self.click("#go")

    def wait_for_picture(self) -> None:
        self.wait("window.anabranch && window.anabranch.firstFrameAt !== null")

    def close(self) -> None:
        self._thread.do(self._context.close)


Open = Callable[..., Browsing]


@contextmanager
def browsers(thread: BrowserThread, url: str) -> Iterator[Open]:
    """Give what opens browsers; none may have had an error, nor broken the pages' policy."""
    opened: list[Browsing] = []

    def made(**options: Any) -> Browsing:
        options = {"viewport": {"width": 1280, "height": 800}} | options
        opened.append(Browsing(thread, url, **options))
        return opened[-1]

    try:
        yield made
        assert [error for each in opened for error in each.errors] == []
    finally:
        for each in opened:
            each.close()
