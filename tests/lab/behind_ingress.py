"""A site with an ingress, for tests of the ways in that were written for one without."""

from collections.abc import Iterator

import pytest

from anabranch.app.bench.site_process import SiteProcess, running_site


@pytest.fixture(scope="module")
def site() -> Iterator[SiteProcess]:
    """Instead of the site that all tests share; it says that its producers pass the ingress."""
    with running_site(ingress__enabled="true") as made:
        yield made
        report = made.api("GET", "/api/ingress").json()
        assert report["past"] == []
        assert sum(door["strangers"] for door in report["doors"]) > 0
