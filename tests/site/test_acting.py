"""Where nodes hang once a policy has said so."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from anabranch.site.acting import hung
from anabranch.tree.description import Candidate, CandidateLink, Description
from anabranch.tree.model import Role, TreeError
from anabranch.tree.planning import Plan, plan
from anabranch.tree.regrow import joined, without

NAMES = {"root": Role.ROOT, "r1": Role.RELAY, "r2": Role.RELAY} | {
    f"leaf{number}": Role.LEAF for number in range(1, 5)
}


def full(idle: set[str]) -> Plan:
    """Every relay can hang from the root, every leaf from anybody; leaves rather from relays."""
    nodes = tuple(Candidate(name, role, name not in idle) for name, role in NAMES.items())
    leaves = [name for name, role in NAMES.items() if role is Role.LEAF]
    links = [CandidateLink("root", "r1"), CandidateLink("root", "r2"), CandidateLink("r1", "r2")]
    links += [CandidateLink(leaf, relay) for leaf in leaves for relay in ("r1", "r2")]
    links += [CandidateLink(leaf, "root", cost=5) for leaf in leaves]
    return plan(Description(nodes, tuple(links)))


def test_a_relay_and_a_leaf_below_it_come_together() -> None:
    tree = full({"r2", "leaf4"})
    assert "r2" in tree.pruned
    for name in ("r2", "leaf4"):
        tree = joined(tree, Candidate(name, NAMES[name]))
    after = hung(tree, {"r2": "r1", "leaf4": "r2"})
    assert after.parents == {**tree.parents, "r2": "r1", "leaf4": "r2"}


def test_a_level_is_inserted() -> None:
    tree = joined(full({"r2"}), Candidate("r2", Role.RELAY))
    after = hung(tree, {"r2": "r1", "leaf1": "r2", "leaf2": "r2"})
    assert after.parents["leaf1"] == after.parents["leaf2"] == "r2"
    assert after.parents["leaf3"] == tree.parents["leaf3"]


def test_who_has_gone_meanwhile_stays_away() -> None:
    tree = without(full(set()), "leaf4", "r2")
    assert hung(tree, {"leaf4": "r1"}) == tree
    assert hung(tree, {"leaf1": "r2"}) == tree


@given(
    st.dictionaries(
        st.sampled_from([name for name in NAMES if name != "root"]),
        st.sampled_from(["root", "r1", "r2"]),
    )
)
def test_whatever_is_wanted_the_tree_is_one_and_keeps_its_leaves(wanted: dict[str, str]) -> None:
    tree = full(set())
    leaves = {name for name, role in NAMES.items() if role is Role.LEAF}
    try:
        after = hung(tree, wanted)  # a Plan that is no tree cannot be made
    except TreeError:
        assert {"r1", "r2"} & wanted.keys()
    else:
        assert leaves <= after.parents.keys()


def test_a_circle_is_refused() -> None:
    with pytest.raises(TreeError, match="would hang from nobody"):
        hung(full(set()), {"r1": "r2", "r2": "r1"})


@pytest.mark.parametrize("idle", [{"r1"}, {"r2", "leaf1"}, set()])
def test_nothing_wanted_changes_nothing(idle: set[str]) -> None:
    tree = full(idle)
    assert hung(tree, {}) == tree
