"""Who asks whom for lost packets, and what the one who is asked must have."""

from collections.abc import Mapping

from hypothesis import given
from hypothesis import strategies as st

from anabranch.media.leaf import Feed
from anabranch.site.carriage import AUDIO, StreamId, Want
from anabranch.site.repair import plan_repair

ABOVE = {"relay": "root", "deep": "relay", "leaf1": "relay", "leaf2": "deep", "leaf3": "root"}
INNER = {"root", "relay", "deep"}
NEWS, SPORT = Feed("news", "high"), Feed("sport", "low")


def want(leaf: str, feed: Feed, port: int = 21000) -> Want:
    return Want(StreamId(feed.channel, feed.rendition), leaf, port)


def test_a_leaf_asks_its_parent_and_that_asks_its_own() -> None:
    plan = plan_repair(
        ABOVE, INNER, {"leaf1", "leaf2"}, {want("leaf2", NEWS), want("leaf1", SPORT)}
    )
    assert plan.rings == {"root", "relay", "deep"}
    assert plan.parents == {"leaf1": "relay", "leaf2": "deep", "deep": "relay", "relay": "root"}
    assert plan.feeds == {"deep": {NEWS}, "relay": {NEWS, SPORT}, "root": {NEWS, SPORT}}


def test_nobody_asks_for_what_it_is_not_delivered() -> None:
    plan = plan_repair(ABOVE, INNER, {"leaf1", "leaf2"}, {want("leaf1", NEWS)})
    # A ring is there before the first viewer comes.
    assert plan.rings == {"root", "relay", "deep"}
    assert plan.parents == {"leaf1": "relay", "relay": "root"}
    assert plan.feeds == {"relay": {NEWS}, "root": {NEWS}}


def test_the_sound_comes_with_its_channel() -> None:
    sound = Want(StreamId("news", AUDIO), "leaf3", 21001)
    plan = plan_repair(ABOVE, INNER, {"leaf3"}, {want("leaf3", NEWS), sound})
    assert (plan.rings, plan.feeds) == ({"root"}, {"root": {NEWS}})


def test_a_node_without_a_ring_is_passed_over() -> None:
    plan = plan_repair(ABOVE, {"root", "deep"}, {"leaf1", "leaf2"}, {want("leaf2", NEWS)})
    assert plan.parents == {"leaf2": "deep", "deep": "root"}
    assert plan_repair(ABOVE, set(), {"leaf1"}, {want("leaf1", NEWS)}).parents == {}


def test_leaves_of_others_and_those_in_no_tree_ask_nobody() -> None:
    wants = {want("leaf1", NEWS), want("leaf9", NEWS)}
    assert plan_repair(ABOVE, INNER, {"leaf9"}, wants).rings == frozenset()
    assert plan_repair(ABOVE, INNER, set(), wants).parents == {}


@st.composite
def trees(draw: st.DrawFn) -> dict[str, str]:
    above: dict[str, str] = {}
    inner = ["root"]
    for number in range(draw(st.integers(0, 6))):
        above[f"relay{number}"] = draw(st.sampled_from(inner))
        inner.append(f"relay{number}")
    for number in range(draw(st.integers(0, 6))):
        above[f"leaf{number}"] = draw(st.sampled_from(inner))
    return above


@given(trees(), st.data())
def test_every_parent_has_what_its_children_ask_for(
    above: Mapping[str, str], data: st.DataObject
) -> None:
    leaves = sorted(name for name in above if name.startswith("leaf"))
    inner = sorted({"root", *above} - set(leaves))
    places = data.draw(st.sets(st.sampled_from(inner)))
    wants = {
        want(leaf, feed)
        for leaf in leaves
        for feed in data.draw(st.sets(st.sampled_from([NEWS, SPORT])))
    }
    plan = plan_repair(above, places, leaves, wants)
    has = {**plan.feeds, **{leaf: frozenset() for leaf in leaves}}
    for each in wants:
        has[each.leaf] |= {Feed(each.stream.channel, each.stream.name)}
    assert plan.rings <= places
    assert set(plan.parents.values()) == plan.feeds.keys() <= plan.rings
    for child, parent in plan.parents.items():
        assert has[child] <= plan.feeds[parent]
        assert has[child]
