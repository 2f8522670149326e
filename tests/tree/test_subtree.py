"""Whom to believe about what hangs below; and the root's picture of it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from anabranch.core.errors import UsageError
from anabranch.tree.events import Introduced, Joined, Left, Moved
from anabranch.tree.model import Role
from anabranch.tree.registry import Registry
from anabranch.tree.soleil.messages import Descendant, Hello
from anabranch.tree.subtree import MAX_BELOW_CHILD, LieError, Subtree


def leaf(name: str, parent: str) -> Descendant:
    return Descendant(name, Role.LEAF, parent)


def relay(name: str, parent: str) -> Descendant:
    return Descendant(name, Role.RELAY, parent)


def two_relays() -> Subtree:
    subtree = Subtree("root")
    subtree.attach(1, "ra", Role.RELAY)
    subtree.attach(2, "rb", Role.RELAY)
    return subtree


def test_the_listing_has_parents_first() -> None:
    subtree = two_relays()
    told = [relay("rc", "ra"), leaf("lc", "rc"), leaf("la", "ra")]
    assert subtree.update(1, 1, told) == ({"rc", "lc", "la"}, set())
    names = [node.name for node in subtree.listing()]
    assert sorted(names) == ["la", "lc", "ra", "rb", "rc"]
    assert names.index("ra") < names.index("rc") < names.index("lc")
    assert dict(subtree.below) == {"ra": "ra", "rb": "rb", "rc": "ra", "lc": "ra", "la": "ra"}
    assert subtree.update(1, 1, []) == (set(), set())  # an older one is passed over
    assert subtree.detach(1) == {"ra", "rc", "lc", "la"}
    assert [node.name for node in subtree.listing()] == ["rb"]
    assert subtree.detach(1) == set()


def test_of_two_claims_the_session_counts_then_the_nodes_word_then_the_newest() -> None:
    subtree = two_relays()
    subtree.update(1, 1, [leaf("x", "ra")])
    subtree.update(2, 1, [leaf("x", "rb")])
    assert subtree.claim("x").parent == "rb"
    subtree.sworn["x"] = "ra"
    assert subtree.claim("x").parent == "ra"
    subtree.attach(3, "x", Role.LEAF)
    assert subtree.claim("x").parent == "root"
    subtree.detach(3)
    subtree.update(1, 2, [])
    assert subtree.claim("x").parent == "rb"


@pytest.mark.parametrize(
    "lies",
    [
        [leaf("x", "nobody")],
        [leaf("x", "ra"), leaf("x", "ra")],
        [leaf("ra", "ra")],
        [leaf("x", "ra"), leaf("y", "x")],
        [leaf("y", "rc"), relay("rc", "ra")],
        [Descendant("x", Role.ROOT, "ra")],
        [leaf(f"n{n}", "ra") for n in range(MAX_BELOW_CHILD + 1)],
        [leaf("No Name", "ra")],
    ],
)
def test_lies_change_nothing(lies: list[Descendant]) -> None:
    subtree = two_relays()
    subtree.update(1, 1, [leaf("la", "ra")])
    before = subtree.listing()
    with pytest.raises(UsageError):
        subtree.update(1, 2, lies)
    assert subtree.listing() == before


def test_a_leaf_has_nothing_below() -> None:
    subtree = Subtree("root")
    subtree.attach(1, "la", Role.LEAF)
    with pytest.raises(LieError):
        subtree.update(1, 1, [leaf("x", "la")])


def test_what_a_child_may_have_from_a_liar_is_left_out() -> None:
    subtree = Subtree("root", belongs=lambda name, child: (name, child) != ("ghost", "ra"))
    subtree.attach(1, "ra", Role.RELAY)
    told = [
        relay("root", "ra"),
        leaf("x", "root"),
        relay("ghost", "ra"),
        leaf("y", "ghost"),
        leaf("z", "ra"),
    ]
    assert subtree.update(1, 1, told) == ({"z"}, {"root", "x", "ghost", "y"})
    subtree.attach(2, "rb", Role.RELAY)
    assert subtree.update(2, 1, [relay("ghost", "rb")]) == ({"ghost"}, set())


def test_all_children_together_stay_within_the_limit() -> None:
    subtree = Subtree("relay", most=10)
    subtree.attach(1, "ra", Role.RELAY)
    subtree.attach(2, "rb", Role.RELAY)
    subtree.update(1, 1, [leaf(f"a{n}", "ra") for n in range(6)])
    with pytest.raises(LieError):
        subtree.update(2, 1, [leaf(f"b{n}", "rb") for n in range(6)])
    subtree.update(2, 2, [leaf("b", "rb")])


NAMES = st.sampled_from(["root", "ra", "rb", "rc", "la", "lb", "x"])
UPDATES = st.lists(st.builds(Descendant, NAMES, st.sampled_from(Role), NAMES), max_size=6)


@given(st.lists(st.tuples(st.sampled_from([1, 2]), UPDATES), max_size=12))
def test_whatever_is_claimed_the_listing_is_a_tree(updates: list) -> None:
    subtree = two_relays()
    for number, (link, told) in enumerate(updates):
        try:
            subtree.update(link, number, told)
        except LieError:
            continue
        seen = {"root"}
        for node in subtree.listing():
            assert node.parent in seen
            assert node.name not in seen
            seen.add(node.name)
        assert subtree.below["ra"] == "ra"
        assert subtree.below["rb"] == "rb"


def test_the_registry_gives_lost_nodes_time() -> None:
    subtree = Subtree("root")
    registry = Registry("root", subtree, grace=10.0)
    subtree.attach(1, "ra", Role.RELAY)
    subtree.attach(2, "rb", Role.RELAY)
    subtree.update(1, 1, [leaf("x", "ra")])
    assert registry.settle(["ra", "rb", "x"], 0.0) == [
        Joined("ra", Role.RELAY, "root"),
        Joined("rb", Role.RELAY, "root"),
        Joined("x", Role.LEAF, "ra"),
    ]
    assert registry.settle(sorted(subtree.detach(1)), 1.0) == []
    assert not registry.is_present("x")
    assert registry.children("ra") == []
    subtree.update(2, 1, [leaf("x", "rb")])
    assert registry.settle(["x"], 5.0) == [Moved("x", "rb", "ra")]
    assert registry.expire(10.9) == []
    assert registry.expire(11.0) == [Left("ra", "lost")]
    registry.take_leave("x", "done")
    subtree.update(2, 2, [])
    assert registry.settle(["x"], 12.0) == [Left("x", "done")]
    assert registry.nodes.keys() == {"rb"}


def test_the_registry_tells_a_restart_from_a_reconnection() -> None:
    subtree = Subtree("root")
    registry = Registry("root", subtree)
    subtree.attach(1, "x", Role.LEAF)
    registry.settle(["x"], 0.0)
    first = Hello("x", Role.LEAF, boot="1")
    assert registry.strangers(1.9) == []
    assert registry.strangers(2.0) == ["x"]
    assert registry.strangers(3.0) == []
    assert registry.strangers(4.0) == ["x"]
    assert registry.introduce(first, 4.0) == [Introduced("x", first)]
    assert registry.strangers(9.0) == []
    assert registry.introduce(first, 5.0) == []
    again = Hello("x", Role.LEAF, boot="2")
    assert registry.introduce(again, 6.0) == [
        Left("x", "it has started anew"),
        Joined("x", Role.LEAF, "root"),
        Introduced("x", again),
    ]
    assert registry.strangers(8.0) == ["x"]  # which of the two was the later?
    assert registry.introduce(again, 8.1) == []
    assert registry.strangers(20.0) == []
    assert registry.introduce(Hello("nobody", Role.LEAF), 21.0) == []


def test_the_registry_sees_circles_to_come() -> None:
    subtree = two_relays()
    registry = Registry("root", subtree)
    registry.settle(["ra", "rb"], 0.0)
    assert not registry.may_hang_below("ra", "rb")
    subtree.sworn["ra"] = "rb"  # told to go there, not there yet
    assert registry.may_hang_below("ra", "rb")
    subtree.sworn["rb"] = "ra"
    assert registry.may_hang_below("rb", "root")
