"""Routing over whole trees: who gets a message, how often, and who is told when nobody does."""

from collections import Counter, deque
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from anabranch.tree.soleil.messages import EVERYBODY, ROOT, Bye, Error, Fault, Message, Ping
from anabranch.tree.soleil.routing import (
    Forward,
    Handle,
    Position,
    Refuse,
    attributed,
    route,
)


@dataclass
class World:
    """A tree of nodes n0 (the root), n1, ...; ``parents[i]`` is the parent of node i + 1."""

    parents: list[int]
    positions: dict[str, Position] = field(init=False)

    def __post_init__(self) -> None:
        names = [f"n{i}" for i in range(len(self.parents) + 1)]
        above = {names[i + 1]: names[parent] for i, parent in enumerate(self.parents)}
        below: dict[str, dict[str, str]] = {name: {} for name in names}
        for name in names:
            by, at = name, above.get(name)
            while at is not None:
                below[at][name] = by
                by, at = at, above.get(at)
        self.positions = {
            name: Position(
                name,
                above.get(name),
                [child for child, parent in above.items() if parent == name],
                below[name],
                name not in above,
            )
            for name in names
        }

    def send(self, message: Message, at: str) -> tuple[list[tuple[str, Message]], int]:
        """Return what was handled where, ERRORs included, and the links that were crossed."""
        handled = []
        crossed = 0
        pending: deque[tuple[str, str | None, Message]] = deque([(at, None, message)])
        while pending:
            name, source, current = pending.popleft()
            crossed += source is not None
            assert crossed <= 4 * len(self.positions)
            match route(self.positions[name], current, source):
                case Handle():
                    handled.append((name, current))
                case Forward(neighbours, handle):
                    onward = current if source is None else attributed(current, source)
                    pending.extend((each, name, onward) for each in neighbours)
                    if handle:
                        handled.append((name, current))
                case Refuse(error, to):
                    if to is not None:
                        sender = ROOT if self.positions[name].is_root else name
                        pending.append((name, None, Message(error, 1, to, sender)))
        return handled, crossed

    def distance(self, one: str, other: str) -> int:
        def way(name: str) -> list[str]:
            at: str | None = name
            names = []
            while at is not None:
                names.append(at)
                at = self.positions[at].parent
            return names

        first, second = way(one), way(other)
        return len(set(first) ^ set(second))


WORLDS = st.integers(0, 25).flatmap(
    lambda count: st.builds(World, st.tuples(*(st.integers(0, i) for i in range(count))).map(list))
)


def node_of(world: World, data: st.DataObject) -> str:
    return data.draw(st.sampled_from(sorted(world.positions)))


@given(WORLDS, st.data())
def test_a_message_arrives_once_by_the_shortest_way(world: World, data: st.DataObject) -> None:
    sender, to = node_of(world, data), node_of(world, data)
    message = Message(Bye(), 1, to, sender)
    handled, crossed = world.send(message, sender)
    assert handled == [(to, message)]
    assert crossed == world.distance(sender, to)


@given(WORLDS, st.data())
def test_the_root_answers_to_its_sign(world: World, data: st.DataObject) -> None:
    sender = node_of(world, data)
    message = Message(Bye(), 1, ROOT, sender)
    assert world.send(message, sender)[0] == [("n0", message)]


@given(WORLDS, st.data())
def test_the_root_may_call_itself_by_its_sign(world: World, data: st.DataObject) -> None:
    to = node_of(world, data)
    message = Message(Bye(), 1, to, ROOT)
    assert world.send(message, "n0")[0] == [(to, message)]


@given(WORLDS, st.data())
def test_everybody_else_hears_once_over_each_link(world: World, data: st.DataObject) -> None:
    sender = node_of(world, data)
    message = Message(Bye(), 1, EVERYBODY, sender)
    handled, crossed = world.send(message, sender)
    assert Counter(name for name, _ in handled) == Counter(set(world.positions) - {sender})
    assert crossed == len(world.positions) - 1


@given(WORLDS, st.data())
def test_without_an_address_it_is_for_the_neighbour(world: World, data: st.DataObject) -> None:
    sender = node_of(world, data)
    position = world.positions[sender]
    around = [*position.children, *([position.parent] if position.parent else [])]
    for neighbour in around:
        assert route(world.positions[neighbour], Message(Bye(), 1), sender) == Handle()


@given(WORLDS, st.data())
def test_nobody_of_that_name_is_told_once(world: World, data: st.DataObject) -> None:
    sender = node_of(world, data)
    message = Message(Ping("n"), 1, "nobody", sender, "7")
    handled, _ = world.send(message, sender)
    ((told, answer),) = handled
    assert told == sender
    assert answer.sender == ROOT
    assert answer.body == Error(Fault.NO_ROUTE, "no way to nobody", "ping", "7")


@given(WORLDS, st.data())
def test_an_error_to_nobody_ends_in_silence(world: World, data: st.DataObject) -> None:
    sender = node_of(world, data)
    message = Message(Error(Fault.FAILED), 1, "nobody", sender)
    assert world.send(message, sender)[0] == []


@given(WORLDS, st.data())
def test_a_child_speaks_for_its_own_subtree_only(world: World, data: st.DataObject) -> None:
    at = node_of(world, data)
    position = world.positions[at]
    claimed = data.draw(st.sampled_from([*sorted(world.positions), ROOT, "nobody"]))
    for child in position.children:
        below = {child, *world.positions[child].below}
        verdict = route(position, Message(Ping("n"), 1, at, claimed), child)
        if claimed in below:
            assert verdict == Handle()
        else:
            assert isinstance(verdict, Refuse)
            assert verdict.error.fault is Fault.FORBIDDEN
            assert verdict.to == child


@given(WORLDS, st.data())
def test_the_parent_speaks_for_everybody_else(world: World, data: st.DataObject) -> None:
    at = node_of(world, data)
    position = world.positions[at]
    claimed = data.draw(st.sampled_from([*sorted(world.positions), ROOT, "nobody"]))
    if position.parent is not None:
        verdict = route(position, Message(Ping("n"), 1, at, claimed), position.parent)
        own = {at, *position.below}
        assert isinstance(verdict, Refuse if claimed in own else Handle)


@given(WORLDS, st.data())
def test_stale_knowledge_makes_no_loop(world: World, data: st.DataObject) -> None:
    """Each node believes any lie about what is below its children; still everything ends."""
    lies = st.sampled_from(["nobody", *sorted(world.positions)])
    for name, position in world.positions.items():
        children = list(position.children)
        if children:
            told = data.draw(st.dictionaries(lies, st.sampled_from(children), max_size=5))
            world.positions[name] = Position(
                name, position.parent, children, {**position.below, **told}, position.is_root
            )
    sender = node_of(world, data)
    to = data.draw(st.sampled_from([*sorted(world.positions), "nobody", ROOT, EVERYBODY]))
    handled, _ = world.send(Message(Ping("n"), 1, to, sender), sender)
    assert max(Counter(name for name, _ in handled).values(), default=0) <= 1 + (to == EVERYBODY)


@pytest.mark.parametrize(
    ("message", "source", "fault"),
    [
        (Message(Ping("n"), 1, "far", "child"), None, None),
        (Message(Ping("n"), 1, "lost", "up"), "up", Fault.NO_ROUTE),
        (Message(Ping("n"), 1, ROOT, "up"), "up", Fault.NO_ROUTE),
        (Message(Ping("n"), 1, "below", "child"), "child", Fault.NO_ROUTE),
        (Message(Ping("n"), 1, ROOT, ROOT), "child", Fault.FORBIDDEN),
        (Message(Ping("n"), 1, ROOT, "other"), "child", Fault.FORBIDDEN),
        (Message(Ping("n"), 1, ROOT, "me"), "up", Fault.FORBIDDEN),
    ],
)
def test_the_corners(message: Message, source: str | None, fault: Fault | None) -> None:
    position = Position(
        "me", "up", ["child", "other"], {"child": "child", "other": "other", "below": "child"}
    )
    verdict = route(position, message, source)
    if fault is None:
        assert verdict == Forward(("up",))
    else:
        assert isinstance(verdict, Refuse)
        assert verdict.error.fault is fault


def test_an_orphan_reaches_only_what_is_below_it() -> None:
    position = Position("me", None, ["child"], {"child": "child"})
    assert route(position, Message(Bye(), 1, "child", "me")) == Forward(("child",))
    refused = route(position, Message(Bye(), 1, ROOT, "child"), "child")
    assert isinstance(refused, Refuse)
    assert refused.to == "child"


def test_who_gave_no_name_is_named_on_the_way() -> None:
    assert attributed(Message(Bye(), 1), "leaf").sender == "leaf"
    assert attributed(Message(Bye(), 1, sender="far"), "leaf").sender == "far"
