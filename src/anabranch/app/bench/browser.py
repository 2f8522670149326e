"""Debian's Chromium, driven by playwright, on pages of a site."""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from anabranch.core.errors import UnavailableError

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

CHROMIUM = "/usr/bin/chromium"
_ARGUMENTS = (
    "--autoplay-policy=no-user-gesture-required",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-gpu",
    "--disable-quic",
    "--disable-sync",
    "--no-first-run",
)


@contextmanager
def chromium(*options: str) -> Iterator["Browser"]:
    """Give a browser, with these options beside our own.

    Raises:
        UnavailableError: playwright or Chromium is not installed.
    """
    try:
        from playwright.sync_api import Error, sync_playwright
    except ImportError as error:
        raise UnavailableError("playwright is missing: pip install 'anabranch[bench]'") from error
    if not os.path.exists(CHROMIUM):
        raise UnavailableError("Chromium is missing: apt-get install chromium")
    arguments = [*_ARGUMENTS, *options, *(["--no-sandbox"] if os.geteuid() == 0 else [])]
    with sync_playwright() as playwright:
        try:
            browser = playwright.chromium.launch(executable_path=CHROMIUM, args=arguments)
        except Error as error:
            raise UnavailableError(f"Chromium does not start: {error}") from error
        try:
            yield browser
        finally:
            browser.close()


def wait_for_picture(page: "Page", limit_s: float = 10.0) -> float:
    """Wait until a watch page presents its first frame; return when, in ms since navigation.

    Asked from outside again and again: playwright's own waiting needs ``eval`` in the page, which
    its content security policy forbids.

    Raises:
        UnavailableError: no frame came within ``limit_s`` seconds.
    """
    end = time.monotonic() + limit_s
    while time.monotonic() < end:
        first = page.evaluate("window.anabranch ? window.anabranch.firstFrameAt : null")
        if first is not None:
            return float(first)
        time.sleep(0.02)
    raise UnavailableError(f"no picture within {limit_s:g} s at {page.url}")
