"""Since when each node is as it is, and who sees less than was asked for."""

from math import inf

from anabranch.site.picture import NodeView, Picture, without
from anabranch.tree.actions import DrainLeaf, LowerRendition, RestoreRendition
from anabranch.tree.model import Role
from anabranch.tree.state import Phase

ROOT = NodeView("root", Role.ROOT, Phase.UP, busy=True)
RELAY = NodeView("relay", Role.RELAY, Phase.UP, "root", busy=True)


def leaf(phase: Phase = Phase.UP, *, busy: bool = False, pool: bool = True) -> NodeView:
    parent = None if phase is Phase.IDLE else "relay"
    return NodeView("leaf", Role.LEAF, phase, parent, pool=pool, busy=busy)


def test_what_is_so_at_the_start_has_always_been_so_but_emptiness_counts_from_now() -> None:
    node = Picture().state([leaf()], 10.0).nodes["leaf"]
    assert (node.since, node.on_since, node.empty_since) == (-inf, -inf, 10.0)
    assert not node.stays
    assert Picture().state([leaf(pool=False)], 10.0).nodes["leaf"].stays


def test_times_follow_what_happens() -> None:
    picture = Picture()
    picture.state([leaf(Phase.IDLE)], 1.0)
    node = picture.state([leaf()], 2.0).nodes["leaf"]
    assert (node.since, node.on_since, node.empty_since) == (2.0, 2.0, 2.0)
    node = picture.state([leaf(busy=True)], 3.0).nodes["leaf"]
    assert (node.since, node.on_since, node.empty_since) == (2.0, 2.0, None)
    node = picture.state([leaf(Phase.DRAINING)], 4.0).nodes["leaf"]
    assert (node.since, node.on_since, node.empty_since) == (4.0, 2.0, 4.0)
    node = picture.state([leaf(Phase.DRAINING)], 9.0).nodes["leaf"]
    assert node.empty_since == 4.0
    node = picture.state([leaf(Phase.IDLE)], 10.0).nodes["leaf"]
    assert (node.since, node.empty_since) == (10.0, None)


def test_a_lowering_holds_for_all_below_until_it_is_taken_back() -> None:
    picture = Picture()
    picture.state([ROOT, RELAY, leaf()], 0.0)
    picture.note(LowerRendition("relay", "news/high", 60.0, 60.0, "loss"), 1.0)
    assert picture.lowered("leaf", "news/high")
    assert not picture.lowered("leaf", "news/low")
    assert not picture.lowered("root", "news/high")
    assert not picture.lowered("elsewhere", "news/high")
    picture.note(DrainLeaf("leaf", "not about renditions"), 2.0)
    picture.note(RestoreRendition("relay", "news/high", "over"), 70.0)
    assert not picture.lowered("leaf", "news/high")
    assert picture.state([ROOT, RELAY, leaf()], 71.0).lowerings["relay", "news/high"].restored == 70


def test_hidden_nodes_are_not_there() -> None:
    state = Picture().state([ROOT, RELAY, leaf()], 0.0)
    assert without(state, ["leaf"]).nodes.keys() == {"root", "relay"}
