"""Settings of a site that is never made."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from anabranch.site.settings import SiteSettings

Make = Callable[..., SiteSettings]


@pytest.fixture(scope="session")
def settings() -> Make:
    def make(name: str = "main", **changed: Any) -> SiteSettings:
        return SiteSettings(name, "run", Path("/nowhere"), "sqlite+aiosqlite://", **changed)

    return make
