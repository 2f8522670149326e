"""What an earlier director made is kept where it is whole and wanted, and removed where not."""

import secrets
from collections.abc import Iterator
from pathlib import Path

import pytest

from anabranch.host import network
from anabranch.host.journal import Journal
from anabranch.site.layout import Layout
from anabranch.site.machine import Machine
from anabranch.site.plan import SitePlan, make_plan
from anabranch.site.settings import SiteSettings

pytestmark = pytest.mark.lab


@pytest.fixture
def site(tmp_path: Path) -> Iterator[tuple[SiteSettings, SitePlan, Journal]]:
    settings = SiteSettings(f"t{secrets.token_hex(2)}", "run", tmp_path / "run", "sqlite://")
    settings.run_dir.mkdir()
    journal = Journal(settings.run_dir)
    yield settings, make_plan(settings), journal
    journal.undo()


def mark(namespace: str) -> None:
    """Put something into a namespace that is there for as long as that is the same."""
    words = ["ip", "link", "add", "mark", "type", "veth", "peer", "name", "mark2"]
    network.run_tool(*words, namespace=namespace)


def test_what_is_whole_and_wanted_stays(site: tuple[SiteSettings, SitePlan, Journal]) -> None:
    settings, plan, journal = site
    machine = Machine(settings, plan, journal)

    def make(layout: Layout) -> dict[str, frozenset[str]]:
        machine.tidy(layout)
        for name in layout.up:
            machine.make_node(plan.nodes[name])
        machine.make_cables(layout.cables)
        return {name: network.devices(plan.nodes[name].namespace) for name in layout.up}

    first = make(plan.layout)
    entries = list(journal.entries())
    for name in first:
        mark(plan.nodes[name].namespace)
    marked = {name: devices | {"mark", "mark2"} for name, devices in first.items()}
    assert make(plan.layout) == marked
    assert list(journal.entries()) == entries

    # One has lost a device, another was switched off just before the end.
    network.remove_link("host0", plan.nodes["leaf1"].namespace)
    later = make(plan.lay_out(plan.tree, plan.layout.up - {"leaf2"}))
    assert later["leaf1"] == first["leaf1"]
    assert later["root"] == marked["root"]
    assert marked["relay"] - later["relay"] == {"to3"}
    assert not network.has_namespace(plan.nodes["leaf2"].namespace)
