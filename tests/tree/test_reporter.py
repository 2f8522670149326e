"""A node's own figures and those below it, round after round."""

import pytest

from anabranch.core.errors import UsageError
from anabranch.tree.metrics import CPU, LINK_LOSS, LOST, MACHINES
from anabranch.tree.receivers import ReceiverReport
from anabranch.tree.reporter import LinkCounts, Readings, Reporter
from anabranch.tree.soleil.messages import Stats, StreamStats


def viewer(sent: int, lost: int = 0) -> ReceiverReport:
    return ReceiverReport("news/high", 1000 * sent, lost, packets_sent=sent, jitter_ms=4.0)


def streams(stats: Stats) -> dict[str, StreamStats]:
    return {container.stream: container for container in stats.containers}


def test_a_leaf_reports_its_viewers_and_itself() -> None:
    leaf = Reporter("leaf", 0.0)
    leaf.measure(Readings({"a": viewer(0)}), (), 2.0)
    found = streams(leaf.measure(Readings({"a": viewer(100, 20)}, cpu=30.0), (), 4.0))
    assert found.keys() == {MACHINES, "news/high"}
    assert found[MACHINES].values == {CPU: 30.0, "cpu.max": 30.0}
    assert found[MACHINES].weight == 1
    assert found["news/high"].values["loss"] == 20.0
    assert found["news/high"].values[LOST] == 20.0
    assert (found["news/high"].start, found["news/high"].end) == (2.0, 4.0)


def test_a_node_that_knows_nothing_of_itself_is_counted_all_the_same() -> None:
    relay = Reporter("relay", 0.0)
    (machine,) = relay.measure(Readings(), (), 2.0).containers
    assert (machine.stream, machine.weight, dict(machine.values)) == (MACHINES, 1, {})


def test_the_loss_on_all_links_from_the_parent_is_one_figure() -> None:
    relay = Reporter("relay", 0.0)
    relay.measure(Readings(links=(LinkCounts("a", 0, 0), LinkCounts("b", 0, 0))), (), 2.0)
    links = (LinkCounts("a", 300, 300), LinkCounts("b", 100, 80))
    (machine,) = relay.measure(Readings(links=links), (), 4.0).containers
    assert machine.values[LINK_LOSS] == 5.0
    (machine,) = relay.measure(Readings(links=links), (), 6.0).containers
    assert LINK_LOSS not in machine.values  # nothing was sent


def test_what_is_below_is_told_above_until_it_goes() -> None:
    leaf, relay = Reporter("leaf", 0.0), Reporter("relay", 0.0)
    told = leaf.measure(Readings({"a": viewer(0)}, cpu=50.0), (), 2.0)
    assert relay.take("leaf", told)
    assert not relay.take("leaf", told)
    found = streams(relay.measure(Readings(cpu=10.0), {"leaf"}, 2.0))
    assert found[MACHINES].values[CPU] == 30.0
    assert found["news/high"].weight == 1
    parts = {(each.node, each.stream) for each in relay.details(None)}
    assert parts == {
        (None, MACHINES),
        (None, "news/high"),
        ("relay", MACHINES),
        ("leaf", MACHINES),
        ("leaf", "news/high"),
    }
    assert {each.stream for each in relay.details("news/high")} == {"news/high"}
    assert streams(relay.measure(Readings(cpu=10.0), (), 4.0)).keys() == {MACHINES}
    assert relay.last() == {}


def test_a_child_does_not_weigh_more_than_it_can() -> None:
    relay = Reporter("relay", 0.0)
    heavy = Stats((StreamStats("news/high", 0.0, 2.0, 0, {}, 11.0),), 1)
    with pytest.raises(UsageError):
        relay.take("leaf", heavy, heaviest=10.0)
    assert relay.last() == {}
