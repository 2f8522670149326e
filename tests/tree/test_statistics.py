"""Aggregation: the root's figure is that of all viewers, whatever the tree and the network do."""

from math import fsum, inf, nan

import pytest
from hypothesis import given
from hypothesis import strategies as st

from anabranch.tree.metrics import (
    COUNTS,
    EXPECTED,
    JITTER,
    LARGEST,
    LOST,
    MACHINES,
    THRESHOLDS,
    Severity,
    Weighting,
    share,
    summary,
)
from anabranch.tree.soleil.codec import decode, encode
from anabranch.tree.soleil.messages import ROOT, FullStats, Message, Stats, StreamStats
from anabranch.tree.statistics import (
    MAX_CONTAINERS,
    MAX_STREAMS,
    Collector,
    StatisticsError,
    messages_of,
)

STREAM = "news-high"
Tree = dict[int, int]  # parent by node; node 0 is the root

jitters = st.floats(0, 500)
viewers = st.lists(st.tuples(st.none() | jitters, st.integers(0, 1000)), max_size=6)


@st.composite
def trees(draw: st.DrawFn, most: int = 12) -> Tree:
    """Draw any tree: parents have lower numbers than their children."""
    count = draw(st.integers(1, most))
    return {node: draw(st.integers(0, node - 1)) for node in range(1, count + 1)}


def own_figures(of: list[tuple[float | None, int]]) -> tuple[StreamStats, ...]:
    known = [jitter for jitter, _ in of if jitter is not None]
    counts = {LOST: float(sum(lost for _, lost in of))}
    return (summary(STREAM, (0.0, 1.0), {JITTER: known}, counts, members=len(of)),)


def round_of(
    collectors: dict[int, Collector],
    tree: Tree,
    own: dict[int, tuple[StreamStats, ...]],
    now: float = 1.0,
) -> Stats:
    """Let everybody report, the lowest first; return the root's aggregate."""
    for node in sorted(tree, reverse=True):
        stats = collectors[node].aggregate(now, own.get(node, ()))
        assert collectors[tree[node]].take(str(node), stats)
    return collectors[0].aggregate(now, own.get(0, ()))


def collectors_of(tree: Tree, weighting: Weighting = Weighting.VIEWERS) -> dict[int, Collector]:
    return {node: Collector(0.0, weighting=weighting) for node in (0, *tree)}


def of_stream(stats: Stats) -> StreamStats:
    (found,) = (each for each in stats.containers if each.stream == STREAM)
    return found


@given(trees(), st.data())
def test_the_roots_figure_is_the_mean_over_all_viewers(tree: Tree, data: st.DataObject) -> None:
    watching = {node: data.draw(viewers) for node in tree if data.draw(st.booleans())}
    own = {node: own_figures(each) for node, each in watching.items()}
    whole = round_of(collectors_of(tree), tree, own)
    everybody = [viewer for each in watching.values() for viewer in each]
    known = [jitter for jitter, _ in everybody if jitter is not None]
    if not watching:
        assert whole.containers == ()
        return
    found = of_stream(whole)
    assert found.weight == len(everybody)
    assert found.values.get(LOST, 0.0) == sum(lost for _, lost in everybody)
    if not known:
        assert JITTER not in found.values
        return
    assert found.values[JITTER] == pytest.approx(fsum(known) / len(known))
    assert found.values[f"{JITTER}.max"] == max(known)
    for severity in (Severity.WARNING, Severity.DANGER):
        limit = getattr(THRESHOLDS[JITTER], severity.name.lower())
        over = sum(jitter >= limit for jitter in known)
        assert share(found, JITTER, severity) == pytest.approx(over / len(known))


def test_by_nodes_a_child_with_three_descendants_weighs_four() -> None:
    """The seed's figure 3.3: B has three children; C and D have none."""
    tree = {1: 0, 2: 0, 3: 0, 4: 1, 5: 1, 6: 1}
    own = {
        node: (summary(STREAM, (0, 1), {JITTER: [10.0 * node]}, weight=1.0),)
        for node in (2, 3, 4, 5, 6)
    }
    collectors = collectors_of(tree, Weighting.NODES)
    found = of_stream(round_of(collectors, tree, own))
    of_b = (40.0 + 50.0 + 60.0) / 3
    assert found.values[JITTER] == pytest.approx((4 * of_b + 20.0 + 30.0) / 6)
    assert found.weight == 7
    assert found.children == 3


def test_the_seeds_reports_weigh_by_nodes_and_count_on_while_their_interval_grows() -> None:
    root = Collector(0.0)
    for end, lost in ((10.0, 5.0), (20.0, 12.0), (20.0, 12.0), (30.0, 12.0)):
        values = {JITTER: 200.0, LOST: lost}
        root.take("b", Stats((StreamStats(STREAM, 1.0, end, 3, values),)))
    root.take("c", Stats((StreamStats(STREAM, 1.0, 30.0, 0, {JITTER: 100.0}),)))
    found = of_stream(root.aggregate(30.0))
    assert found.weight == 5
    assert found.values == {JITTER: pytest.approx(180.0), LOST: 12.0}
    assert share(found, JITTER, Severity.DANGER) is None
    root.take("b", Stats((StreamStats(STREAM, 30.0, 40.0, 3, {LOST: 2.0}),)))
    assert of_stream(root.aggregate(40.0)).values[LOST] == 2.0


@given(trees(8), st.data())
def test_late_missing_and_duplicate_reports_do_not_bend_it(tree: Tree, data: st.DataObject) -> None:
    """Levels are right again after one whole round; every count arrives once, however late."""
    collectors = collectors_of(tree)
    old: list[tuple[int, Stats]] = []
    total = told = 0.0
    for now in range(1, 6):
        for node in sorted(tree, reverse=True):
            each = data.draw(st.lists(st.tuples(jitters, st.integers(0, 9)), min_size=1))
            total += sum(lost for _, lost in each)
            stats = collectors[node].aggregate(float(now), own_figures([*each]))
            parent = collectors[tree[node]]
            assert parent.take(str(node), stats)
            old.append((node, stats))
            again, duplicate = data.draw(st.sampled_from(old))
            assert not collectors[tree[again]].take(str(again), duplicate)
        if data.draw(st.booleans()):  # else the root's own round comes later
            told += of_stream(collectors[0].aggregate(float(now))).values.get(LOST, 0.0)
    nobody = summary(STREAM, (5, 6), {}, members=0)
    quiet = round_of(collectors, tree, dict.fromkeys(tree, (nobody,)), 6.0)
    told += of_stream(quiet).values.get(LOST, 0.0)
    assert told == total
    assert of_stream(quiet).weight == 0


@given(trees(), st.data())
def test_who_hangs_elsewhere_counts_once(tree: Tree, data: st.DataObject) -> None:
    own = {node: own_figures([(data.draw(jitters), 0)]) for node in tree}
    collectors = collectors_of(tree)
    round_of(collectors, tree, own)
    mover = data.draw(st.sampled_from(sorted(tree)))
    moved = {**tree, mover: data.draw(st.integers(0, mover - 1))}
    collectors[tree[mover]].retain([str(n) for n, p in moved.items() if p == tree[mover]])
    found = of_stream(round_of(collectors, moved, own, 2.0))
    assert found.weight == len(tree)
    flat = [each.values[JITTER] for (each,) in own.values()]
    assert found.values[JITTER] == pytest.approx(fsum(flat) / len(flat))


def test_who_says_nothing_more_is_forgotten_after_some_rounds() -> None:
    root = Collector(0.0, keep=2)
    (figures,) = own_figures([(10.0, 4)])
    root.take("leaf", Stats((figures,), 7))
    assert [len(root.aggregate(float(n)).containers) for n in range(4)] == [1, 1, 0, 0]
    # It has started anew, with a clock that is behind.
    assert root.take("leaf", Stats((figures,), 1))
    assert of_stream(root.aggregate(5.0)).weight == 1


def test_a_child_that_has_started_anew_is_heard_at_once() -> None:
    root, (figures,) = Collector(0.0), own_figures([(10.0, 4)])
    before = Collector(1000.0).aggregate(1001.0, [figures])
    after = Collector(1005.0).aggregate(1006.0, [figures])
    assert root.take("leaf", before)
    assert root.take("leaf", after)


def test_what_was_lost_is_told_even_if_who_told_it_has_gone() -> None:
    root = Collector(0.0)
    root.take("leaf", Stats(own_figures([(10.0, 4)]), 1))
    root.forget("leaf")
    found = of_stream(root.aggregate(1.0))
    assert (found.weight, found.values) == (0, {LOST: 4.0})


def bad_reports() -> list[tuple[StreamStats, ...]]:
    good = StreamStats(STREAM, 0, 1, 0, {JITTER: 1.0}, 1.0)
    found = [
        (StreamStats(STREAM, 0, 1, 0, {JITTER: value}, 1.0),)
        for value in (nan, inf, -inf, -1.0, -0.0, 2 * LARGEST)
    ]
    found += [(StreamStats(STREAM, 0, 1, 0, {}, weight),) for weight in (nan, inf, -1.0, 101.0)]
    found += [
        (StreamStats(STREAM, 0, 1, -1, {}),),
        (StreamStats(STREAM, 0, 1, 1000, {}),),
        (StreamStats(STREAM, 0, 1, 0, {f"x{n}": 1.0 for n in range(65)}),),
        tuple(StreamStats(str(n), 0, 1, 0, {}) for n in range(MAX_STREAMS + 1)),
        (good, good),
    ]
    return found


@pytest.mark.parametrize("containers", bad_reports())
def test_figures_that_cannot_be_are_refused_whole(containers: tuple[StreamStats, ...]) -> None:
    root = Collector(0.0)
    with pytest.raises(StatisticsError):
        root.take("leaf", Stats(containers, 1), heaviest=100.0)
    assert root.aggregate(1.0).containers == ()


names = st.sampled_from(["a", "b"]).flatmap(
    lambda base: st.sampled_from(["", ".max", ".weight", ".danger", ".", "..max"]).map(
        lambda suffix: base + suffix
    )
) | st.text(max_size=12)
wild = st.floats() | st.floats(0, LARGEST)
containers = st.builds(
    StreamStats,
    st.text(max_size=3),
    wild,
    wild,
    st.integers(-1, 2**60),
    st.dictionaries(names, wild, max_size=70),
    st.none() | wild,
)


@given(
    st.lists(
        st.builds(Stats, st.lists(containers, max_size=4).map(tuple), st.none() | st.integers())
    ),
    st.sampled_from(Weighting),
)
def test_any_report_gives_figures_or_its_one_error(
    reports: list[Stats], weighting: Weighting
) -> None:
    """And what a node tells its parent is always something that the parent takes."""
    middle, root = Collector(0.0, weighting=weighting), Collector(0.0, weighting=weighting)
    for number, stats in enumerate(reports):
        try:
            middle.take(str(number % 3), stats)
        except StatisticsError:
            continue
    whole = middle.aggregate(1.0)
    assert root.take("middle", whole)


def test_a_child_that_says_that_more_have_a_figure_than_there_are_is_not_believed() -> None:
    root = Collector(0.0)
    root.take("honest", Stats(own_figures([(10.0, 0)] * 3), 1), heaviest=10.0)
    lie = {JITTER: 400.0, f"{JITTER}.weight": 1e9, f"{JITTER}.danger": 1e9, f"{JITTER}.max": 400.0}
    root.take("liar", Stats((StreamStats(STREAM, 0, 1, 0, lie, 1.0),), 1), heaviest=10.0)
    found = of_stream(root.aggregate(1.0))
    assert found.values[JITTER] == (3 * 10.0 + 400.0) / 4
    assert share(found, JITTER, Severity.DANGER) == 0.25


def test_details_show_the_whole_and_then_the_parts_that_are_worst() -> None:
    relay = Collector(0.0)
    for number in range(2 * MAX_CONTAINERS):
        stats = Stats(own_figures([(150.0 if number == 77 else 1.0, 0)]), 1)
        relay.take(f"leaf{number}", stats)
    own = summary(MACHINES, (0, 1), {"cpu": [20.0]})
    whole = relay.aggregate(1.0, [own])
    found = relay.details("relay", whole, [own], STREAM)
    assert len(found) == MAX_CONTAINERS
    assert (found[0].node, found[0].weight) == (None, 2 * MAX_CONTAINERS)
    assert found[1].node == "leaf77"
    assert {each.stream for each in found} == {STREAM}
    every = relay.details("relay", whole, [own])
    assert {each.stream for each in every[:2]} == {MACHINES, STREAM}


def test_a_large_report_goes_in_parts_each_of_which_counts_once() -> None:
    relay, root = Collector(0.0), Collector(0.0)
    count = 2 * MAX_CONTAINERS + 1
    own = [summary(f"s{n}", (0, 1), {JITTER: [1.0]}, {LOST: 1.0}) for n in range(count)]
    parts = messages_of(relay.aggregate(1.0, own))
    assert [len(part.containers) for part in parts] == [MAX_CONTAINERS, MAX_CONTAINERS, 1]
    assert [root.take("relay", part) for part in (*parts, *parts)] == [True] * 3 + [False] * 3
    whole = root.aggregate(1.0)
    assert [each.values[LOST] for each in whole.containers] == [1.0] * count
    assert len(messages_of(Stats())) == 1


def test_the_largest_details_fit_into_a_message() -> None:
    levels = {name: [150.0 / 7, 1500.0 / 7, 0.1] for name in THRESHOLDS}
    counts = dict.fromkeys(COUNTS, 123456789.0)
    relay = Collector(0.0)
    for number in range(MAX_CONTAINERS):
        each = summary("n" * 40, (1763700000.123, 1763700005.456), levels, counts, members=4)
        relay.take(f"{number:040}", Stats((each,), 1))
    found = relay.details("relay", relay.aggregate(1763700005.456))
    message = Message(FullStats(found, STREAM, 1763700005.456), 1763700005456, ROOT, "relay", "1")
    assert decode(encode(message)) == message


def test_expected_packets_are_counted_as_losses_are() -> None:
    root = Collector(0.0)
    for child, round_ in (("a", 1), ("b", 1), ("a", 2)):
        each = summary(STREAM, (0, 1), {}, {LOST: 1.0, EXPECTED: 100.0})
        root.take(child, Stats((each,), round_))
    assert of_stream(root.aggregate(1.0)).values == {LOST: 3.0, EXPECTED: 300.0}
