"""When a director may go on where another one ended."""

from dataclasses import replace
from pathlib import Path

import pytest

from anabranch.app.succession import fingerprint, may_outlive
from anabranch.site.settings import FabricSettings, IngressSettings, RemoteSettings, SiteSettings


@pytest.fixture
def settings(tmp_path: Path) -> SiteSettings:
    return SiteSettings("site", "run", tmp_path / "run", "sqlite+aiosqlite://")


def test_settings_of_what_is_made_must_be_the_same(settings: SiteSettings) -> None:
    later = replace(settings, run_id="other", callback_port=5, test_channels=9, console="http://a")
    assert fingerprint(later) == fingerprint(settings)
    for other in (
        replace(settings, name="other"),
        replace(settings, switches=False),
        replace(settings, ports=replace(settings.ports, rtmp=1)),
        replace(settings, ladder=settings.ladder[:1]),
        replace(settings, public_addresses=("192.0.2.1",)),
        replace(settings, nodes=settings.nodes[:-1]),
    ):
        assert fingerprint(other) != fingerprint(settings)


def test_others_that_have_a_part_in_it_begin_anew(settings: SiteSettings, tmp_path: Path) -> None:
    assert may_outlive(settings)
    assert not may_outlive(replace(settings, ingress=IngressSettings(enabled=True)))
    assert not may_outlive(replace(settings, fabric=FabricSettings(controllers=2)))
    remote = RemoteSettings(("127.0.0.1", 1), tmp_path, None)
    assert not may_outlive(replace(settings, remote=remote))
