"""What one director notes of its nodes, and the plan that the next one makes of it."""

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from anabranch.core.names import new_id
from anabranch.host.holdings import Holdings, keeping
from anabranch.site.memory import note_nodes, noted_plan
from anabranch.site.plan import make_plan
from anabranch.site.settings import SiteNode, SiteSettings
from anabranch.tree.model import Role
from anabranch.tree.regrow import without

Make = Callable[..., SiteSettings]
NODES = (
    SiteNode("root", Role.ROOT),
    SiteNode("relay", Role.RELAY, "root"),
    SiteNode("leaf1", Role.LEAF, "relay"),
    SiteNode("leaf2", Role.LEAF, "relay"),
)


@pytest.fixture
def kept(tmp_path: Path) -> Holdings:
    return Holdings(tmp_path / "holder.sock", os.environ)


def test_who_was_switched_off_stays_off(settings: Make, kept: Holdings) -> None:
    run_id = new_id()
    plan = make_plan(settings(nodes=NODES))
    with keeping(run_id, kept):
        assert noted_plan(run_id, plan) is plan
        note_nodes(run_id, without(plan.tree, "leaf2"), {"root", "relay", "leaf1"})
        noted = noted_plan(run_id, plan)
    assert noted.nodes == plan.nodes
    assert noted.layout.up == {"root", "relay", "leaf1"}
    assert noted.layout.cables == {
        cable: reserve
        for cable, reserve in plan.layout.cables.items()
        if "leaf2" not in cable.nodes
    }
    assert noted_plan(run_id, plan) is plan  # nothing is kept of this run


def test_the_same_nodes_give_the_same_layout(settings: Make, kept: Holdings) -> None:
    run_id, plan = new_id(), make_plan(settings(nodes=NODES))
    with keeping(run_id, kept):
        note_nodes(run_id, plan.tree, plan.layout.up)
        assert noted_plan(run_id, plan) == plan


def test_what_is_not_understood_is_passed_over(settings: Make, kept: Holdings) -> None:
    run_id, plan = new_id(), make_plan(settings(nodes=NODES))
    with keeping(run_id, kept):
        kept.note("nodes", {"up": ["root"], "tree": "<x/>"})
        assert noted_plan(run_id, plan) == replace(plan)
