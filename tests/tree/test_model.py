"""The tree: what is refused, and where a flow branches."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from anabranch.tree.model import Branching, Node, Role, Tree, TreeError

ROOT = Node("root", Role.ROOT)
RELAY = Node("relay", Role.RELAY, "root")
LEAF1 = Node("leaf1", Role.LEAF, "relay")
LEAF2 = Node("leaf2", Role.LEAF, "relay")


def test_a_flow_branches_where_its_leaves_part() -> None:
    tree = Tree([LEAF2, RELAY, ROOT, LEAF1])
    assert tree.branchings(["leaf1"]) == (
        Branching("root", ("relay",), deliver=False),
        Branching("relay", ("leaf1",), deliver=False),
        Branching("leaf1", (), deliver=True),
    )
    assert tree.branchings(["leaf1", "leaf2"])[1].children == ("leaf2", "leaf1")
    assert tree.branchings([]) == ()


@pytest.mark.parametrize(
    ("nodes", "word"),
    [
        ([RELAY, LEAF1], "one root"),
        ([ROOT, ROOT], "two nodes"),
        ([ROOT, Node("r2", Role.ROOT), LEAF1], "one root"),
        ([ROOT, RELAY], "without a leaf"),
        ([ROOT, Node("leaf1", Role.LEAF, "gone")], "unknown: gone"),
        ([ROOT, Node("leaf1", Role.LEAF)], "no parent"),
        ([ROOT, RELAY, LEAF1, Node("leaf3", Role.LEAF, "leaf1")], "hangs from the leaf leaf1"),
        ([Node("root", Role.ROOT, "relay"), RELAY, LEAF1], "has a parent"),
        (
            [ROOT, LEAF1, Node("relay", Role.RELAY, "x"), Node("x", Role.RELAY, "relay")],
            "circle",
        ),
        ([ROOT, RELAY, Node("leaf1", Role.LEAF, "relay", rate_mbit=0)], "no rate"),
    ],
)
def test_what_is_no_tree_is_refused(nodes: list[Node], word: str) -> None:
    with pytest.raises(TreeError, match=word):
        Tree(nodes)


@given(st.data())
def test_each_link_carries_a_flow_once_and_only_towards_a_leaf(data: st.DataObject) -> None:
    """On random trees: the branchings reach exactly the wanted leaves, each node once."""
    inner = data.draw(st.integers(0, 6))
    nodes = [ROOT]
    for number in range(inner):
        parent = data.draw(st.sampled_from([n.name for n in nodes]))
        nodes.append(Node(f"relay{number}", Role.RELAY, parent))
    inner_names = [node.name for node in nodes]
    count = data.draw(st.integers(1, 6))
    nodes += [
        Node(f"leaf{n}", Role.LEAF, data.draw(st.sampled_from(inner_names))) for n in range(count)
    ]
    tree = Tree(nodes)
    wanted = data.draw(st.sets(st.sampled_from([node.name for node in tree.leaves])))
    branchings = {b.node: b for b in tree.branchings(wanted)}

    reached, visits = set(), ["root"] if wanted else []
    for name in visits:
        visits.extend(branchings[name].children)
        if branchings[name].deliver:
            reached.add(name)
    assert reached == wanted
    assert len(visits) == len(set(visits)) == len(branchings)
    assert all(b.children or b.deliver for b in branchings.values())
