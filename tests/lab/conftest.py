"""Whole sites and a real browser for the lab."""

from collections.abc import Iterator

import pytest
from tests.lab.page import BrowserThread, Watching

from anabranch.app.bench.site_process import SiteProcess, running_site


@pytest.fixture(scope="session")
def site() -> Iterator[SiteProcess]:
    """A whole site with its tree of switches; tests that break it wait until it is whole."""
    with running_site() as made:
        yield made


@pytest.fixture(scope="session")
def browser() -> Iterator[BrowserThread]:
    made = BrowserThread()
    yield made
    made.close()


@pytest.fixture
def watch(browser: BrowserThread) -> Iterator[Watching]:
    """Opens watch pages in the browser, outside all namespaces."""
    made = Watching(browser)
    yield made
    made.close()
