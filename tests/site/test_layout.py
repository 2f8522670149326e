"""The layout: a cable for every link that is drawn, and no port or device used twice."""

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.site.conftest import Make
from tests.site.test_plan import trees

from anabranch.site.layout import Layout
from anabranch.site.plan import SitePlan, make_plan
from anabranch.site.settings import FabricSettings, RedundancyLink, SiteNode
from anabranch.tree.description import CandidateLink, ends
from anabranch.tree.model import Role, TreeError
from anabranch.tree.regrow import without

SEVEN = (
    SiteNode("root", Role.ROOT),
    SiteNode("relay1", Role.RELAY, "root", 50.0),
    SiteNode("relay2", Role.RELAY, "root"),
    SiteNode("leaf1", Role.LEAF, "relay1"),
    SiteNode("leaf2", Role.LEAF, "relay1"),
    SiteNode("leaf3", Role.LEAF, "relay2"),
    SiteNode("leaf4", Role.LEAF, idle=True),
)
LINKS = (CandidateLink("relay2", "leaf1", 20.0), CandidateLink("relay2", "leaf4"))


def sound(plan: SitePlan, layout: Layout) -> None:
    """No port or device is used twice, every name is short, both directions are the same."""
    for node in plan.nodes:
        found = [end for _, end in layout.at(node)]
        assert len({end.port_no for end in found}) == len(found)
        assert len({end.device for end in found}) == len(found)
        assert all(0 < len(end.device) <= 15 and end.port_no >= 100 for end in found)
    assert len(layout.links) == 2 * len(layout.cables)
    assert all(layout.links[link.reverse] == info for link, info in layout.links.items())
    for cable in layout.cables:
        one, other = plan.ends_of(cable)
        assert (one.namespace, other.namespace) == tuple(
            plan.nodes[name].namespace for name in cable.nodes
        )
        assert one.rate_mbit == other.rate_mbit == cable.rate_mbit


def pairs(layout: Layout, *, reserve: bool) -> list[tuple[str, str]]:
    return sorted(cable.nodes for cable, spare in layout.cables.items() if spare is reserve)


@given(trees(), st.data())
def test_any_two_nodes_can_be_joined(
    settings: Make, nodes: Sequence[SiteNode], data: st.DataObject
) -> None:
    names = st.sampled_from([node.name for node in nodes])
    chosen = st.tuples(names, names).filter(lambda pair: pair[0] != pair[1])
    redundancy = tuple(
        RedundancyLink(one, other, 20.0) for one, other in data.draw(st.lists(chosen, max_size=5))
    )
    plan = make_plan(settings(nodes=nodes, fabric=FabricSettings(redundancy)))
    drawn = {ends(node.name, node.parent) for node in nodes if node.parent}
    for up in (plan.layout.up, frozenset(plan.nodes)):
        layout = plan.lay_out(plan.tree, up)
        sound(plan, layout)
        there = sorted(cable.nodes for cable in layout.cables)
        assert there == sorted(
            pair
            for pair in [*drawn, *(ends(link.one, link.other) for link in redundancy)]
            if up.issuperset(pair)
        )
        assert pairs(layout, reserve=False) == sorted(
            ends(child, parent) for child, parent in plan.tree.parents.items()
        )


def test_what_is_drawn_beside_the_tree_is_a_reserve(settings: Make) -> None:
    plan = make_plan(settings(nodes=SEVEN, links=LINKS))
    assert dict(plan.tree.parents) == {
        "relay1": "root",
        "relay2": "root",
        "leaf1": "relay1",
        "leaf2": "relay1",
        "leaf3": "relay2",
    }
    assert pairs(plan.layout, reserve=True) == [("leaf1", "relay2")]
    assert plan.port_towards("relay2") == 102
    found = {str(link.src): info for link, info in plan.layout.links.items()}
    assert found["leaf1:102"].redundant
    assert found["leaf1:102"].capacity_mbit == 20.0
    assert found["root:101"].capacity_mbit == 50.0
    assert not found["root:101"].redundant


def test_a_reserve_becomes_part_of_the_tree_on_the_cable_it_has(settings: Make) -> None:
    spare = (RedundancyLink("leaf2", "relay2"), RedundancyLink("relay2", "leaf2"))
    plan = make_plan(settings(nodes=SEVEN, links=LINKS, fabric=FabricSettings(spare)))
    tree = without(plan.tree, "relay1")
    after = plan.lay_out(tree, plan.layout.up)
    assert after.cables.keys() == plan.layout.cables.keys(), "no cable comes or goes"
    assert tree.parents["leaf1"] == tree.parents["leaf2"] == "relay2"
    taken = [c.one.device for c, spare in after.cables.items() if "leaf2" in c.nodes and not spare]
    assert taken == ["reserve0"], "one of the two"


@pytest.mark.parametrize(
    ("nodes", "links", "words"),
    [
        ((SiteNode("root", Role.ROOT), SiteNode("leaf", Role.LEAF)), (), "leaf leaf has no way"),
        (
            (SiteNode("root", Role.ROOT, "leaf"), SiteNode("leaf", Role.LEAF, "root")),
            (),
            "root root has a parent",
        ),
        (
            (SiteNode("root", Role.ROOT), SiteNode("leaf", Role.LEAF, "nowhere")),
            (),
            "parent of node leaf is unknown: nowhere",
        ),
        (
            (*SEVEN, SiteNode("a", Role.RELAY, "b"), SiteNode("b", Role.RELAY, "a")),
            (),
            "round in a circle: a, b",
        ),
        ((*SEVEN, SiteNode("a", Role.RELAY, "a")), (), "round in a circle: a"),
        ((*SEVEN, SiteNode("a", Role.RELAY, "leaf1")), (), "parent of node a is a leaf: leaf1"),
        ((*SEVEN, SiteNode("a", Role.RELAY, "root", capacity=5)), (), "relay a has a capacity"),
        (SEVEN, (CandidateLink("leaf1", "leaf1"),), "leaf1 to itself"),
        (SEVEN, (CandidateLink("leaf1", "relay1"),), "leaf1 - relay1 is that of leaf1 to its par"),
        (SEVEN, 2 * (CandidateLink("leaf1", "relay2"),), "leaf1 - relay2 is there twice"),
        (SEVEN, (CandidateLink("leaf1", "nowhere"),), "unknown node: nowhere"),
        (SEVEN, (CandidateLink("leaf1", "root", 0.0),), "has no rate"),
    ],
)
def test_what_can_be_no_tree_is_refused(
    settings: Make, nodes: Sequence[SiteNode], links: Sequence[CandidateLink], words: str
) -> None:
    with pytest.raises(TreeError, match=words):
        make_plan(settings(nodes=nodes, links=links))


def test_links_alone_make_the_tree(settings: Make) -> None:
    nodes = tuple(SiteNode(node.name, node.role, idle=node.idle) for node in SEVEN)
    links = tuple(CandidateLink(n.name, n.parent) for n in SEVEN if n.parent) + LINKS
    plan = make_plan(settings(nodes=nodes, links=links))
    assert set(plan.tree.parents) == {"relay1", "relay2", "leaf1", "leaf2", "leaf3"}
