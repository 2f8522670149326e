"""Whole sites and a real browser for the lab."""

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.lab.page import BrowserThread, Watching

from anabranch.app.bench.site_process import SiteProcess, running_site
from anabranch.host.process import end_marked


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


@pytest.fixture
def directory() -> Iterator[Path]:
    """A short directory of its own; whatever runs under its mark is ended afterwards."""
    path = Path(tempfile.mkdtemp(prefix="ab-"))
    yield path
    left = end_marked(path.name)
    shutil.rmtree(path)
    assert left == 0, f"{left} processes were left running"
