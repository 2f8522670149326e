"""Who is dead and who takes over, with time stepped by hand."""

from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from anabranch.site.keeper import (
    HOLD_S,
    PATIENCE_S,
    Ailment,
    Health,
    Loss,
    Vigil,
    ailments,
    rehung,
    taken_back,
)
from anabranch.tree.description import Candidate, CandidateLink, Description
from anabranch.tree.model import Role
from anabranch.tree.planning import Plan, plan

NODES = (
    Candidate("root", Role.ROOT),
    Candidate("relay1", Role.RELAY),
    Candidate("relay2", Role.RELAY),
    Candidate("leaf1", Role.LEAF),
    Candidate("leaf2", Role.LEAF),
    Candidate("leaf3", Role.LEAF),
)
PARENTS = {
    "relay1": "root",
    "relay2": "root",
    "leaf1": "relay1",
    "leaf2": "relay1",
    "leaf3": "relay2",
}
ROLES = {node.name: node.role for node in NODES}
WELL = {
    "root": Health(True, True, {"relay1": True, "relay2": True}),
    "relay1": Health(True, True, {"root": True, "leaf1": True, "leaf2": True}),
    "relay2": Health(True, True, {"root": True, "leaf3": True}),
    "leaf1": Health(True, True, {"relay1": True}),
    "leaf2": Health(True, True, {"relay1": True}),
    "leaf3": Health(True, True, {"relay2": True}),
}


def tree(*more: tuple[str, str]) -> Plan:
    links = (CandidateLink(*pair) for pair in (*PARENTS.items(), *more))
    description = Description(NODES, tuple(links))
    return Plan(description, PARENTS, {})


def but(**changed: Health) -> dict[str, Health]:
    return {**WELL, **changed}


def cut(name: str) -> dict[str, Health]:
    """Return the healths when all links of a node are down."""
    return {
        each: Health(True, True, {n: name not in (each, n) for n in health.links})
        for each, health in WELL.items()
    }


GONE = Health(False, False, {})


def test_the_relay_is_to_blame_not_those_who_lost_it() -> None:
    assert ailments(WELL, ROLES) == {}
    assert ailments(cut("relay1"), ROLES) == {"relay1": Ailment.CUT_OFF}
    assert ailments(cut("leaf1"), ROLES) == {}, "a link is down, nobody is dead"
    assert ailments(but(leaf1=GONE, root=GONE), ROLES) == {"leaf1": Ailment.GONE}
    silent = Health(True, False, {"root": True, "leaf3": True})
    assert ailments(but(relay2=silent), ROLES) == {"relay2": Ailment.SILENT}
    unknown = {name: Health(True, None, {}) for name in WELL}
    assert ailments(unknown, ROLES) == {}, "without a controller nobody is judged"


@pytest.mark.parametrize(
    ("ill", "ailment"),
    [
        (but(relay1=GONE), Ailment.GONE),
        (cut("relay1"), Ailment.CUT_OFF),
        (but(relay1=Health(True, False, WELL["relay1"].links)), Ailment.SILENT),
    ],
)
def test_one_dies_once_after_patience_and_is_back_after_the_hold(
    ill: Mapping[str, Health], ailment: Ailment
) -> None:
    vigil = Vigil()
    assert vigil.look(WELL, ROLES, 0.0).died == {}
    assert vigil.next_timer() is None
    now, patience = 10.0, PATIENCE_S[ailment]
    assert vigil.look(ill, ROLES, now).died == {}
    assert vigil.next_timer() is not None
    assert vigil.look(ill, ROLES, now + patience - 0.01).died == {}
    assert vigil.look(ill, ROLES, now + patience).died == {"relay1": ailment}
    assert vigil.look(ill, ROLES, now + patience + 1).died == {}
    assert vigil.dead == {"relay1"}
    now = 20.0
    assert vigil.look(WELL, ROLES, now).back == ()
    assert vigil.next_timer() == now + HOLD_S
    assert vigil.look(WELL, ROLES, now + HOLD_S).back == ("relay1",)
    assert vigil.dead == set()


def test_a_short_illness_is_none() -> None:
    vigil = Vigil()
    for second in range(100):
        assert vigil.look(but(relay1=GONE), ROLES, float(second)).died == {}
        assert vigil.look(WELL, ROLES, second + 0.3).died == {}
    assert vigil.dead == set()


def test_what_it_suffers_from_may_change_but_not_since_when() -> None:
    """A switch that crashes again and again runs for moments, and is never connected."""
    vigil = Vigil()
    restarted = but(relay1=Health(True, False, WELL["relay1"].links))
    assert vigil.look(but(relay1=GONE), ROLES, 0.0).died == {}
    assert vigil.look(restarted, ROLES, 0.2).died == {}
    assert vigil.look(but(relay1=GONE), ROLES, 0.5).died == {"relay1": Ailment.GONE}


def test_one_that_dies_again_and_again_is_held_down_for_longer() -> None:
    vigil, now, held = Vigil(), 0.0, []
    for _ in range(5):
        while not vigil.dead:
            vigil.look(but(relay1=GONE), ROLES, now)
            now += 0.1
        began = now
        while vigil.dead:
            vigil.look(WELL, ROLES, now)
            now += 0.1
        held.append(now - began)
    assert held[0] == pytest.approx(HOLD_S, abs=0.3)
    assert held[2] > 20
    assert max(held) < 70


@given(st.lists(st.sampled_from(["well", "gone", "cut"]), max_size=80))
def test_who_is_well_long_enough_is_alive(states: list[str]) -> None:
    """Deaths and returns alternate, and whatever happened, it ends well."""
    vigil, now, alive = Vigil(), 0.0, True
    healths = {"well": WELL, "gone": but(relay1=GONE), "cut": cut("relay1")}
    for state in [*states, *["well"] * 400]:
        verdict = vigil.look(healths[state], ROLES, now)
        assert not (verdict.died and verdict.back)
        if verdict.died:
            assert alive
            alive = False
        if verdict.back:
            assert not alive
            alive = True
        now += 0.25
    assert alive


def test_orphans_hang_where_a_link_leads() -> None:
    before = tree(("leaf1", "relay2"), ("leaf2", "relay2"))
    after = rehung(before, "relay1")
    assert after.parents == {
        "relay2": "root",
        "leaf1": "relay2",
        "leaf2": "relay2",
        "leaf3": "relay2",
    }
    assert Loss(before, after).lent == frozenset()
    back = taken_back(after, "relay1", Loss(before, after))
    assert back == before


def test_orphans_without_a_link_hang_from_the_dead_ones_parent() -> None:
    before = tree(("leaf1", "relay2"))
    after = rehung(before, "relay1")
    assert (after.parents["leaf1"], after.parents["leaf2"]) == ("relay2", "root")
    assert Loss(before, after).lent == {("leaf2", "root")}
    assert taken_back(after, "relay1", Loss(before, after)) == before


def test_the_only_relay_can_be_lost() -> None:
    nodes = tuple(node for node in NODES if node.name in ("root", "relay1", "leaf1", "leaf2"))
    links = [CandidateLink(c, p) for c, p in PARENTS.items() if c in ("relay1", "leaf1", "leaf2")]
    before = plan(Description(nodes, tuple(links)))
    after = rehung(before, "relay1")
    assert after.parents == {"leaf1": "root", "leaf2": "root"}
    assert taken_back(after, "relay1", Loss(before, after)) == before


def test_who_was_moved_meanwhile_stays_there() -> None:
    before = tree(("leaf1", "relay2"), ("leaf2", "relay2"), ("leaf2", "root"))
    after = rehung(before, "relay1")
    assert after.parents["leaf2"] == "root"
    moved = Plan(after.description, {**after.parents, "leaf2": "relay2"}, after.pruned)
    back = taken_back(moved, "relay1", Loss(before, after))
    assert (back.parents["leaf1"], back.parents["leaf2"]) == ("relay1", "relay2")


def test_one_whom_nobody_waits_for_is_a_spare() -> None:
    before = tree(("leaf1", "relay2"), ("leaf2", "relay2"))
    after = rehung(before, "relay2")
    # Meanwhile its only child is switched off.
    parents = {name: parent for name, parent in after.parents.items() if name != "leaf3"}
    idle = tuple(
        Candidate("leaf3", Role.LEAF, available=False) if node.name == "leaf3" else node
        for node in after.description.nodes
    )
    links = tuple(link for link in after.description.links if "leaf3" not in link.ends)
    reasons = plan(Description(idle, links)).pruned
    now = Plan(Description(idle, after.description.links), parents, {**after.pruned, **reasons})
    back = taken_back(now, "relay2", Loss(before, after))
    assert "relay2" not in back.parents
    assert back.pruned["relay2"].text
