"""Plans: roles hold always, the weight is the least, what is left over is named."""

import itertools
import random

import networkx as nx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.tree.descriptions import (
    ROOT,
    check_sound,
    described,
    descriptions,
    trees_over,
    weight_of,
)

from anabranch.tree.description import ROLE_WEIGHTS, Candidate, CandidateLink, Description
from anabranch.tree.growth import Reason
from anabranch.tree.model import Role, TreeError
from anabranch.tree.planning import Move, Plan, moves, plan


def planned(description: Description) -> Plan | None:
    try:
        return plan(description)
    except TreeError:
        return None


def test_weights_put_the_links_of_relays_before_those_of_leaves() -> None:
    """So Kruskal's algorithm on its own goes wrong only where roles constrain it."""
    root, relay, leaf = (ROLE_WEIGHTS[role] for role in (Role.ROOT, Role.RELAY, Role.LEAF))
    assert root + relay < relay + relay < root + leaf < relay + leaf < leaf + leaf


def test_a_leaf_is_no_inner_node_even_where_it_joins_the_halves() -> None:
    """root-a-leaf1-b-leaf2: neither pruning nor weights alone keep leaf1 from becoming one."""
    with pytest.raises(TreeError, match="leaf2 has no way to the root, or only through leaves"):
        plan(described("root-a a-leaf1 leaf1-b b-leaf2"))
    mended = plan(described("root-a a-leaf1 leaf1-b b-leaf2 a-b"))
    assert mended.parents == {"a": "root", "b": "a", "leaf1": "a", "leaf2": "b"}


def test_the_rest_is_redundancy_and_dangling_branches_are_pruned() -> None:
    drawn = described(
        "root-a root-b a-b a-leaf1 b-leaf2 leaf1-leaf2 b-c c-d x-y root-e e-f f-g g-e"
    )
    made = plan(drawn)
    assert made.parents == {"a": "root", "b": "root", "leaf1": "a", "leaf2": "b"}
    assert [str(link) for link in made.redundancy] == ["a - b", "leaf1 - leaf2"]
    assert made.pruned == {
        **dict.fromkeys("cd", Reason.DANGLING),
        **dict.fromkeys("efg", Reason.UNUSED),  # a circle is no dangling branch
        **dict.fromkeys("xy", Reason.UNREACHABLE),
    }


def test_redundancy_links_are_not_planned() -> None:
    with pytest.raises(TreeError, match="leaf1"):
        plan(described("root-a root-leaf2 a~leaf1"))
    made = plan(described("root-a a-b root~b b-leaf1"))
    assert made.parents["b"] == "a"
    assert [str(link) for link in made.redundancy] == ["b - root"]


def test_equal_links_are_shared_out_among_relays() -> None:
    links = " ".join(f"{relay}-leaf{n}" for relay in "ab" for n in range(6))
    tree = plan(described(f"root-a root-b {links}")).tree
    assert [len(tree.children(relay)) for relay in "ab"] == [3, 3]


def test_limits_of_fan_out() -> None:
    drawn = "root-a root-b root-leaf1 a-b a-leaf3 b-leaf2"
    assert plan(described(drawn)).parents["leaf1"] == "root"
    limited = plan(described(drawn, fan_out={Role.ROOT: 2}))
    assert len(limited.tree.children("root")) == 2
    with pytest.raises(TreeError, match="leaf2 finds no room"):
        plan(described("root-leaf1 root-leaf2", fan_out={Role.ROOT: 1}))


@pytest.mark.parametrize(
    ("nodes", "links", "word"),
    [
        ([("leaf", Role.LEAF)], [], "one root; here: none"),
        ([("r2", Role.ROOT), ("root", Role.ROOT)], [], "here: r2, root"),
        ([("root", Role.ROOT)], [], "without a leaf"),
        ([("root", Role.ROOT), ("root", Role.LEAF)], [], "two nodes are named root"),
        ([("root", Role.ROOT), ("leaf", Role.LEAF)], [], "leaf has no way"),
        ([("root", Role.ROOT), ("leaf", Role.LEAF)], [("root", "gone")], "unknown node: gone"),
        ([("root", Role.ROOT), ("leaf", Role.LEAF)], [("leaf", "leaf")], "leaf to itself"),
        (
            [("root", Role.ROOT), ("leaf", Role.LEAF)],
            [("leaf", "root"), ("root", "leaf")],
            "leaf - root is there twice",
        ),
    ],
)
def test_what_cannot_be_a_tree(
    nodes: list[tuple[str, Role]], links: list[tuple[str, str]], word: str
) -> None:
    with pytest.raises(TreeError, match=word):
        plan(
            Description(
                tuple(Candidate(*n) for n in nodes), tuple(CandidateLink(*p) for p in links)
            )
        )


@pytest.mark.parametrize(
    ("link", "word"),
    [
        (CandidateLink("root", "leaf", rate_mbit=0), "no rate"),
        (CandidateLink("root", "leaf", rate_mbit=float("nan")), "no rate"),
        (CandidateLink("root", "leaf", rate_mbit=float("inf")), "no rate"),
        (CandidateLink("root", "leaf", cost=-1), "cost"),
        (CandidateLink("root", "leaf", cost=float("nan")), "cost"),
    ],
)
def test_figures_that_are_none(link: CandidateLink, word: str) -> None:
    with pytest.raises(TreeError, match=word):
        Description((ROOT, Candidate("leaf", Role.LEAF)), (link,))


def test_a_root_that_is_away_and_limits_that_are_none() -> None:
    leaf = Candidate("leaf", Role.LEAF)
    with pytest.raises(TreeError, match="root is not available"):
        Description((Candidate("root", Role.ROOT, available=False), leaf), ())
    for limits in ({Role.LEAF: 1}, {Role.RELAY: 0}):
        with pytest.raises(TreeError, match="cannot be limited"):
            Description((ROOT, leaf), (), limits)


@settings(max_examples=300)
@given(descriptions(costs=(0, 0, 1, 3), absent=True))
def test_the_weight_is_the_least_of_all_trees_over_the_same_nodes(drawn: Description) -> None:
    made = planned(drawn)
    if made is None:
        return
    check_sound(drawn, made.tree)
    names = [drawn.root, *made.parents]
    assert made.weight == min(weight_of(drawn, parents) for parents in trees_over(drawn, names))


@settings(max_examples=300)
@given(descriptions(absent=True))
def test_a_plan_is_refused_only_if_some_leaf_has_no_way(drawn: Description) -> None:
    """And a plan has every leaf that is available, and names what it left out."""
    roles = drawn.roles
    leaves = [n.name for n in drawn.nodes if n.role is Role.LEAF and n.available]
    relays = [n.name for n in drawn.nodes if n.role is Role.RELAY and n.available]
    possible = bool(leaves) and any(
        any(trees_over(drawn, [drawn.root, *some, *leaves]))
        for count in range(len(relays) + 1)
        for some in itertools.combinations(relays, count)
    )
    made = planned(drawn)
    assert (made is not None) == possible
    if made is not None:
        assert {leaf.name for leaf in made.tree.leaves} == set(leaves)
        assert roles.keys() == {drawn.root} | made.parents.keys() | made.pruned.keys()
        tree_links = {frozenset(pair) for pair in made.parents.items()}
        for link in drawn.links:
            inside = not {link.one, link.other} & made.pruned.keys()
            in_tree = frozenset((link.one, link.other)) in tree_links
            assert (link in made.redundancy) == (inside and not in_tree)


@settings(max_examples=300)
@given(descriptions(costs=(0, 1, 2)))
def test_beside_kruskal_without_roles(drawn: Description) -> None:
    """Never lighter than networkx's minimum; as light wherever that respects the roles."""
    made = planned(drawn)
    if made is None:
        return
    roles, weights = drawn.roles, drawn.weights
    graph: nx.Graph[str] = nx.Graph()
    for link in drawn.links:
        if not link.redundant and not {link.one, link.other} & made.pruned.keys():
            graph.add_edge(link.one, link.other, weight=weights[link.ends])
    least = nx.minimum_spanning_tree(graph, algorithm="kruskal")
    weight = least.size(weight="weight")
    assert weight <= made.weight
    if all(least.degree(name) == 1 for name in least if roles[name] is Role.LEAF):
        assert weight == made.weight


@given(descriptions(relays=6, leaves=5))
def test_depth_is_least_where_weights_are_those_of_the_roles(drawn: Description) -> None:
    """Each relay is as near to the root as relays alone can bring it."""
    made = planned(drawn)
    if made is None:
        return
    graph: nx.Graph[str] = nx.Graph()
    graph.add_node(drawn.root)
    roles = drawn.roles
    for link in drawn.links:
        if not link.redundant and Role.LEAF not in (roles[link.one], roles[link.other]):
            graph.add_edge(link.one, link.other)
    least = nx.single_source_shortest_path_length(graph, drawn.root)
    depths = {drawn.root: 0}
    for node in made.tree:
        if node.parent is not None:
            depths[node.name] = depths[node.parent] + 1
        if node.role is Role.RELAY:
            assert depths[node.name] == least[node.name]


@given(descriptions(relays=6, leaves=6, costs=(0, 1)), st.randoms(use_true_random=False))
def test_the_order_of_the_input_does_not_matter(drawn: Description, draw: random.Random) -> None:
    nodes, links = list(drawn.nodes), [*drawn.links]
    draw.shuffle(nodes)
    draw.shuffle(links)
    turned = [CandidateLink(k.other, k.one, k.rate_mbit, k.cost, k.redundant) for k in links]
    made, other = planned(drawn), planned(Description(tuple(nodes), tuple(turned)))
    assert (made is None) == (other is None)
    if made is not None and other is not None:
        assert (made.parents, made.pruned) == (other.parents, other.pruned)


@given(descriptions(relays=6, leaves=6, costs=(0, 1)))
def test_a_plan_is_kept_to_where_nothing_is_better(drawn: Description) -> None:
    made = planned(drawn)
    if made is not None:
        assert plan(drawn, made) == made
        assert moves(made, plan(drawn, made)) == ()


def test_the_present_parent_is_kept_among_equals() -> None:
    drawn = described("root-a root-b a-leaf1 b-leaf1 b-leaf2")
    fresh = plan(drawn)
    assert fresh.parents["leaf1"] == "a"
    other = Plan(drawn, {"b": "root", "leaf1": "b", "leaf2": "b"}, {"a": Reason.UNUSED})
    assert plan(drawn, other) == other
    assert moves(other, fresh) == (Move("a", None, "root"), Move("leaf1", "b", "a"))
    assert moves(fresh, other) == (Move("leaf1", "a", "b"), Move("a", "root", None))


@settings(max_examples=300)
@given(descriptions(limited=True, absent=True))
def test_limits_hold(drawn: Description) -> None:
    made = planned(drawn)
    if made is not None:
        check_sound(drawn, made.tree)
        for node in made.tree:
            limit = drawn.fan_out.get(node.role, 0)
            assert len(made.tree.children(node.name)) <= limit


@pytest.mark.parametrize(
    ("parents", "pruned", "word"),
    [
        ({"a": "root", "leaf1": "root"}, {}, "no link from node leaf1"),
        ({"a": "root"}, {}, "leaf1 must be either"),
        ({"leaf1": "a"}, {"a": Reason.UNUSED}, "unknown: a"),
        ({"a": "leaf1", "leaf1": "a"}, {}, "leaf leaf1"),
        ({"a": "root", "leaf1": "a"}, {"x": Reason.UNUSED}, "x is not in the description"),
        ({"root": "a", "a": "root", "leaf1": "a"}, {}, "two nodes are named root"),
    ],
)
def test_parents_that_are_no_plan(
    parents: dict[str, str], pruned: dict[str, Reason], word: str
) -> None:
    with pytest.raises(TreeError, match=word):
        Plan(described("root-a a-leaf1"), parents, pruned)
