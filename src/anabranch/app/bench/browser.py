"""Debian's Chromium, driven by playwright, on pages of a site."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from anabranch.core.errors import UnavailableError

if TYPE_CHECKING:
    from playwright.sync_api import Browser

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
def chromium() -> Iterator["Browser"]:
    """Give a browser.

    Raises:
        UnavailableError: playwright or Chromium is not installed.
    """
    try:
        from playwright.sync_api import Error, sync_playwright
    except ImportError as error:
        raise UnavailableError("playwright is missing: pip install 'anabranch[bench]'") from error
    if not os.path.exists(CHROMIUM):
        raise UnavailableError("Chromium is missing: apt-get install chromium")
    arguments = [*_ARGUMENTS, *(["--no-sandbox"] if os.geteuid() == 0 else [])]
    with sync_playwright() as playwright:
        try:
            browser = playwright.chromium.launch(executable_path=CHROMIUM, args=arguments)
        except Error as error:
            raise UnavailableError(f"Chromium does not start: {error}") from error
        try:
            yield browser
        finally:
            browser.close()
