"""Receiver reports: every loss counts once, whatever the counters and the viewers do."""

from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from anabranch.tree.metrics import (
    CPU,
    EXPECTED,
    JITTER,
    LOSS,
    LOST,
    NACKS,
    RTT,
    SENT_BYTES,
    Weighting,
    is_figure,
)
from anabranch.tree.receivers import LinkLoss, LinkMeter, ReceiverReport, ViewerMeter

STREAM = "news-high"
NOTHING = ReceiverReport(STREAM, 0, 0, 0, 0)


def report(lost: int = 0, sent: int = 0, **more: float | None) -> ReceiverReport:
    return replace(NOTHING, packets_lost=lost, packets_sent=sent, bytes_sent=1000 * sent, **more)


def begun() -> ViewerMeter:
    meter = ViewerMeter(0.0)
    assert meter.measure({}, 1.0) == ()
    return meter


def losses(*reports: ReceiverReport) -> list[float]:
    """Return what each of one viewer's reports adds."""
    meter = begun()
    found = []
    for number, each in enumerate(reports):
        (stats,) = meter.measure({"v": each}, 2.0 + number)
        found.append(stats.values[LOST])
    return found


def test_the_figures_of_a_stream() -> None:
    meter = begun()
    slow = report(30, 100, jitter_ms=120.0, rtt_ms=50.0)
    fast = report(0, 300, nacks=2, jitter_ms=4.0)
    other = replace(report(1, 10), stream="news-low")
    high, low = meter.measure({"a": slow, "b": fast, "c": other, "d": report()}, 6.0, cpu=40.0)
    assert (high.stream, high.start, high.end, high.children, high.weight) == (STREAM, 1, 6, 0, 3)
    assert high.values == {
        LOST: 30,
        EXPECTED: 400,
        NACKS: 2,
        SENT_BYTES: 400_000,
        LOSS: 15.0,
        f"{LOSS}.max": 30.0,
        f"{LOSS}.weight": 2,
        f"{LOSS}.warning": 1,
        f"{LOSS}.danger": 1,
        JITTER: 62.0,
        f"{JITTER}.max": 120.0,
        f"{JITTER}.weight": 2,
        f"{JITTER}.warning": 1,
        f"{JITTER}.danger": 1,
        RTT: 50.0,
        f"{RTT}.max": 50.0,
        f"{RTT}.weight": 1,
        CPU: 40.0,
        f"{CPU}.max": 40.0,
    }
    assert (low.stream, low.values[LOST], low.weight) == ("news-low", 1, 1)


def test_by_nodes_a_leaf_weighs_one_and_shares_are_kept() -> None:
    meter = ViewerMeter(0.0, weighting=Weighting.NODES)
    reports = {str(n): report(jitter_ms=200.0 if n else None) for n in range(4)}
    (stats,) = meter.measure(reports, 1.0)
    assert stats.weight == 1
    assert stats.values[f"{JITTER}.danger"] == stats.values[f"{JITTER}.weight"] == 0.75


@pytest.mark.parametrize(
    ("counts", "added"),
    [
        ([(5, 100), (9, 200)], [5, 4]),
        ([(10, 100), (8, 200), (12, 300)], [10, 0, 2]),  # late arrivals
        ([(-3, 100), (2, 200)], [0, 2]),  # packets that came twice
        ([(500, 1000), (3, 1100), (4, 1200)], [500, 3, 1]),  # another SSRC
        ([(500, 1000), (3, 50), (4, 60)], [500, 3, 1]),  # another connection
        ([(0x7FFFFF, 10**7), (0x800001, 2 * 10**7)], [0x7FFFFF, 2]),  # unsigned past its end
        ([(0x7FFFFF, 10**7), (-0x7FFFFF, 2 * 10**7)], [0x7FFFFF, 2]),  # signed past its end
        ([(0x7FFFFF, 10**7), (0x7FFFFF, 2 * 10**7)], [0x7FFFFF, 0]),  # clamped at its end
        ([(1, 100), (2**23 - 1, 200)], [1, 0]),  # more than was ever sent
        ([(1, 100), (90, 110)], [1, 89]),  # about what was sent an interval ago
    ],
)
def test_counters(counts: list[tuple[int, int]], added: list[float]) -> None:
    assert losses(*(report(lost, sent) for lost, sent in counts)) == added


@given(st.lists(st.tuples(st.integers(0, 50), st.integers(0, 50)), min_size=1))
def test_the_losses_of_all_intervals_are_the_highest_count(
    steps: list[tuple[int, int]],
) -> None:
    """Up to a hundred packets come late: each is lost once. Counts are taken modulo 2^24."""
    lost, reports = (1 << 23) - 60, []
    meter = ViewerMeter(0.0)
    start = report(lost, 10**8)
    meter.measure({"v": start}, 1.0)
    counts = [lost]
    for more, late in steps:
        highest = max(*counts, lost + more)
        lost = max(lost + more - late, counts[0], highest - 100)
        counts.append(lost)
        reports.append(report(lost % (1 << 24), 10**8 + 1000 * len(counts)))
    found = [meter.measure({"v": each}, 2.0)[0].values[LOST] for each in reports]
    assert all(value >= 0 for value in found)
    assert sum(found) == sum(
        max(0, b - max(counts[: n + 1])) for n, (_, b) in enumerate(pairwise(counts))
    )


def test_who_is_there_at_the_start_has_lost_nothing_yet_and_who_comes_later_has() -> None:
    meter = ViewerMeter(0.0)
    (first,) = meter.measure({"old": report(900, 10_000)}, 1.0)
    assert first.values[LOST] == 0
    (second,) = meter.measure({"old": report(901, 10_100), "new": report(7, 100)}, 2.0)
    assert second.values[LOST] == 8


def test_a_viewer_for_whom_the_leaf_did_not_answer_once_is_not_new() -> None:
    meter = begun()
    meter.measure({"v": report(40, 1000)}, 2.0)
    assert meter.measure({}, 3.0) == ()
    (stats,) = meter.measure({"v": report(42, 1100)}, 4.0)
    assert stats.values[LOST] == 2


def test_nothing_is_kept_of_those_who_have_gone() -> None:
    meter = begun()
    for number in range(100):
        meter.measure({str(number): report(1, 10)}, 2.0 + number)
    assert len(meter._viewers) <= 14


@given(
    st.lists(
        st.dictionaries(
            st.sampled_from("abc"),
            st.builds(
                ReceiverReport,
                st.sampled_from(["x", "y"]),
                st.integers(0, 2**50),
                st.integers(-(2**53), 2**53),
                st.integers(0, 2**50),
                st.none() | st.integers(0, 2**40),
                st.none() | st.floats(allow_nan=False),
                st.none() | st.floats(allow_nan=False),
            ),
        ),
        max_size=6,
    )
)
def test_any_reports_give_figures(rounds: list[dict[str, ReceiverReport]]) -> None:
    meter = ViewerMeter(0.0)
    for number, reports in enumerate(rounds):
        for stats in meter.measure(reports, number + 1.0):
            assert all(is_figure(value) for value in stats.values.values()), stats
            assert stats.values.get(LOSS, 0) <= 100


def test_loss_on_a_link() -> None:
    meter = LinkMeter()
    assert meter.sample("relay-leaf", 1000, 900) is None
    assert meter.sample("relay-leaf", 2000, 1880) == LinkLoss(1000, 20)
    assert meter.sample("relay-leaf", 3000, 2890) == LinkLoss(1000, 0)  # was under way
    assert meter.sample("relay-leaf", 4000, 3880) == LinkLoss(1000, 0)
    found = meter.sample("relay-leaf", 4100, 3930)
    assert found == LinkLoss(100, 50)
    assert found.per_cent == 50
    assert meter.sample("relay-leaf", 10, 4000) is None  # the switch has started anew
    assert meter.sample("relay-leaf", 10, 4000) == LinkLoss(0, 0)
    meter.forget("relay-leaf")
    assert meter.sample("relay-leaf", 20, 4010) is None


@given(st.lists(st.tuples(st.integers(0, 1000), st.integers(0, 30)), max_size=20))
def test_without_loss_what_is_under_way_counts_once_at_most(
    steps: list[tuple[int, int]],
) -> None:
    meter, sent, total = LinkMeter(), 0, 0
    meter.sample("l", 0, 0)
    received = 0
    for more, under_way in steps:
        sent += more
        received = max(received, sent - under_way)
        found = meter.sample("l", sent, received)
        assert found is not None
        total += found.lost
    assert total <= 30
