"""A tree that stands: what dies, comes and is put between; the rest stays put."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.tree.descriptions import ROOT, check_sound, described, descriptions

from anabranch.tree.description import Candidate, CandidateLink, Description
from anabranch.tree.growth import Reason
from anabranch.tree.model import Role, TreeError
from anabranch.tree.planning import Plan, moves, plan
from anabranch.tree.regrow import insert_level, joined, without

LEAF9 = Candidate("leaf9", Role.LEAF)


def depth_of(plan: Plan, name: str) -> int:
    return 1 + depth_of(plan, plan.parents[name]) if name in plan.parents else 0


def test_orphans_hang_from_the_best_that_is_left() -> None:
    before = plan(described("root-a root-b a-c c-leaf1 b-leaf2 a-leaf3 c-b leaf3-b"))
    after = without(before, "a")
    assert after.parents == {"b": "root", "c": "b", "leaf1": "c", "leaf2": "b", "leaf3": "b"}
    assert after.pruned == {"a": Reason.IDLE}
    assert [(move.name, move.new) for move in moves(before, after)] == [
        ("c", "b"),
        ("leaf3", "b"),
        ("a", None),
    ]


def test_a_subtree_takes_a_redundancy_link_before_it_falls_apart() -> None:
    before = plan(described("root-a root-b a-c c-leaf1 b-leaf2 c~b leaf1-b"))
    assert before.parents["leaf1"] == "b"  # one link nearer to the root
    before = Plan(before.description, {**before.parents, "leaf1": "c", "c": "a", "a": "root"}, {})
    after = without(before, "a")
    assert after.parents == {"b": "root", "c": "b", "leaf1": "c", "leaf2": "b"}


def test_a_subtree_without_a_link_falls_apart() -> None:
    before = plan(described("root-a root-b a-c c-d d-leaf1 c-leaf2 c-leaf3 b-leaf4 b-d b-leaf2"))
    before = Plan(
        before.description,
        {**before.parents, "c": "a", "a": "root", "d": "c", "leaf2": "c", "leaf3": "c"},
        {},
    )
    after = without(before, "a")
    assert after.parents["d"] == "b"
    assert after.parents["leaf1"] == "d"
    assert after.parents["leaf2"] == "b"
    assert (after.parents["c"], after.parents["leaf3"]) == ("d", "c")


def test_an_idle_relay_steps_in_only_where_it_must() -> None:
    before = plan(described("root-a root-b root-c a-leaf1 b-leaf2 c-leaf1"))
    assert before.pruned == {"c": Reason.UNUSED}
    after = without(before, "a")
    assert after.parents == {"b": "root", "c": "root", "leaf1": "c", "leaf2": "b"}
    before = plan(described("root-a root-x x-b root-c a-leaf1 b-leaf1 b-leaf2 c-leaf1"))
    assert before.pruned == {"c": Reason.UNUSED}
    after = without(before, "a")
    assert after.parents == {"x": "root", "b": "x", "leaf1": "b", "leaf2": "b"}


def test_a_leaf_without_a_way_is_pruned_and_comes_back_with_its_relay() -> None:
    before = plan(described("root-a root-b a-leaf1 b-leaf2"))
    after = without(before, "a")
    assert after.pruned == {"a": Reason.IDLE, "leaf1": Reason.UNREACHABLE}
    assert joined(after, Candidate("a", Role.RELAY)).parents == before.parents
    with pytest.raises(TreeError, match="serves nobody"):
        without(after, "b")


def test_a_node_that_comes() -> None:
    before = plan(described("root-a root-b a-leaf1 b-leaf2"))
    links = (CandidateLink("leaf9", "a"), CandidateLink("leaf9", "c"))
    with pytest.raises(TreeError, match="unknown node: c"):
        joined(before, LEAF9, links)
    with_relay = joined(before, Candidate("c", Role.RELAY), [CandidateLink("c", "b")])
    assert with_relay.pruned == {"c": Reason.DANGLING}
    assert with_relay.parents == before.parents
    assert joined(with_relay, LEAF9, links).parents == {**before.parents, "leaf9": "a"}
    by_idle = joined(with_relay, LEAF9, links[1:])
    assert by_idle.parents == {**before.parents, "c": "b", "leaf9": "c"}
    for node in (Candidate("a", Role.RELAY), Candidate("r2", Role.ROOT), ROOT):
        with pytest.raises(TreeError, match="in the tree already"):
            joined(before, node)
    with pytest.raises(TreeError, match="known as a relay"):
        joined(with_relay, Candidate("c", Role.LEAF))


def test_who_cannot_go() -> None:
    before = plan(described("root-leaf1"))
    for name, word in (("root", "is the root"), ("x", "no node x")):
        with pytest.raises(TreeError, match=word):
            without(before, name)


def fan(leaves: int, *, relay: int | None = None, root: int | None = None) -> Plan:
    links = " ".join(f"root-leaf{n} a-leaf{n}" for n in range(leaves))
    limits = {Role.ROOT: root, Role.RELAY: relay}
    fan_out = {role: limit for role, limit in limits.items() if limit is not None}
    drawn = described(f"root-a {links}", fan_out=fan_out)
    parents = {f"leaf{n}": "root" for n in range(leaves)}
    return Plan(drawn, parents, {"a": Reason.UNUSED})


@pytest.mark.parametrize(
    ("before", "moved"),
    [
        (fan(6), 3),
        (fan(7), 4),
        (fan(2), 2),
        (fan(6, root=3), 4),  # 2 and the relay are left
        (fan(6, relay=2), 2),
    ],
)
def test_a_level_takes_half_of_the_children_or_what_limits_want(before: Plan, moved: int) -> None:
    after = insert_level(before, "root")
    assert after.parents["a"] == "root"
    assert len(after.tree.children("a")) == moved
    assert all(after.parents[n] in ("a", "root") for n in before.parents)
    assert insert_level(before, "root", "a") == after


def test_a_level_is_put_where_most_children_can_move() -> None:
    before = plan(described("root-leaf1 root-leaf2 root-leaf3"))
    for relay, to in (("a", "leaf1 leaf2"), ("b", "leaf1 leaf2 leaf3"), ("c", "")):
        links = [CandidateLink(relay, end) for end in ("root", *to.split())]
        before = joined(before, Candidate(relay, Role.RELAY), links)
    after = insert_level(before, "root")
    assert after.pruned.keys() == {"a", "c"}
    assert after.parents == {"b": "root", "leaf1": "b", "leaf2": "b", "leaf3": "root"}
    assert "a" in insert_level(before, "root", "a").parents
    for parent, name in (("root", "c"), ("root", "x"), ("leaf1", "a"), ("gone", "a")):
        with pytest.raises(TreeError, match="is no idle relay with links"):
            insert_level(before, parent, name)
    with pytest.raises(TreeError, match="no idle relay has links"):
        insert_level(without(before, "a", "b"), "root")


@settings(max_examples=300)
@given(descriptions(relays=5, leaves=4, costs=(0, 1)), st.data())
def test_what_keeps_its_way_stays_and_what_has_one_is_joined(
    drawn: Description, data: st.DataObject
) -> None:
    """After any death but the root's; then the dead come back."""
    try:
        before = plan(drawn)
    except TreeError:
        return
    gone = data.draw(st.sampled_from(sorted(before.parents)))
    try:
        after = without(before, gone)
    except TreeError:
        assert len(before.tree.leaves) == 1 or drawn.roles[gone] is Role.RELAY
        return
    check_sound(after.description, after.tree)
    for name, parent in after.parents.items():
        at, way = name, {name}
        while at in before.parents:
            at = before.parents[at]
            way.add(at)
        if name in before.parents and gone not in way:
            assert parent == before.parents[name]
    inner = [n.name for n in after.description.nodes if n.available and n.role is not Role.LEAF]
    for leaf in (n.name for n in after.description.nodes if n.role is Role.LEAF and n.available):
        if leaf in after.pruned:
            relays = [name for name in inner if name != drawn.root]
            whole = Description(after.description.nodes, after.description.links)
            assert not reachable(whole, leaf, {drawn.root, *relays})
    back = joined(after, next(node for node in drawn.nodes if node.name == gone))
    assert {n.name for n in back.tree.leaves} == {n.name for n in before.tree.leaves}
    check_sound(back.description, back.tree)


def reachable(drawn: Description, leaf: str, inner: set[str]) -> bool:
    seen, pending = {leaf}, [leaf]
    for name in pending:
        for link in drawn.links:
            if name in link.ends:
                other = link.one if link.other == name else link.other
                if other in inner - seen:
                    seen.add(other)
                    pending.append(other)
    return drawn.root in seen


@settings(max_examples=200)
@given(descriptions(relays=5, leaves=5, limited=True, absent=True), st.data())
def test_limits_hold_through_any_changes(drawn: Description, data: st.DataObject) -> None:
    try:
        at = plan(drawn)
    except TreeError:
        return
    for _ in range(data.draw(st.integers(1, 5))):
        node = data.draw(st.sampled_from([n for n in at.description.nodes if n.name != drawn.root]))
        try:
            if data.draw(st.booleans()):
                at = without(at, node.name)
            elif node.name not in at.parents:
                at = joined(at, Candidate(node.name, node.role))
            else:
                at = insert_level(at, at.parents[node.name])
        except TreeError:
            continue
        check_sound(at.description, at.tree)
        for each in at.tree:
            limit = drawn.fan_out.get(each.role, 0)
            assert len(at.tree.children(each.name)) <= limit
