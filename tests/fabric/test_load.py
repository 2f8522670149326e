"""Load from counters that count on, wrap, start anew or do not count at all."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from anabranch.fabric.errors import MisuseError
from anabranch.fabric.load import LoadMeter, PortLoad, utilisation
from anabranch.fabric.model import LinkInfo, PortRef
from anabranch.fabric.openflow.messages import PortStats

PORT = PortRef("root", 1)
ALL_ONES = 0xFFFFFFFFFFFFFFFF


def stats(rx: int, tx: int, duration: float, port_no: int = 1) -> PortStats:
    return PortStats(port_no, 0, 0, rx, tx, 0, 0, 0, 0, 0, 0, 0, 0, duration)


def measured(*samples: tuple[float, int, int, float], time_constant: float = 0.0) -> LoadMeter:
    """Feed samples of time, received and sent bytes, and age of the port."""
    meter = LoadMeter(time_constant=time_constant)
    for now, rx, tx, duration in samples:
        meter.sample("root", [stats(rx, tx, duration)], now)
    return meter


def test_two_samples_give_the_rate_of_the_interval_in_both_directions() -> None:
    meter = LoadMeter()
    assert meter.sample("root", [stats(0, 1_000, 10.0)], 100.0) == set()
    assert meter.of(PORT) is None
    assert meter.sample("root", [stats(2_500_000, 1_000, 12.0)], 102.0) == {PORT}
    assert meter.of(PORT) == PortLoad(10.0, 0.0)
    assert meter.sample("root", [stats(5_000_000, 1_000, 14.0)], 104.0) == set()
    assert meter.of(PortRef("leaf", 1)) is None


def test_the_last_interval_counts_alone_without_a_time_constant() -> None:
    meter = measured((0, 0, 0, 1), (1, 1_250_000, 0, 2), (2, 1_250_000, 0, 3))
    assert meter.of(PORT) == PortLoad(0.0, 0.0)


def test_older_figures_fade_with_the_time_constant() -> None:
    samples = [(0.0, 0, 0, 1.0), (10.0, 12_500_000, 0, 11.0), (20.0, 12_500_000, 0, 21.0)]
    load = measured(*samples, time_constant=10.0).of(PORT)
    assert load is not None
    assert load.rx_mbit == pytest.approx(10 / 2.718281828)


@pytest.mark.parametrize("bits", [32, 64])
def test_a_counter_that_wraps_goes_on(bits: int) -> None:
    top = 1 << bits
    meter = measured((0, top - 500_000, 0, 50), (1, 750_000, 0, 51))
    assert meter.of(PORT) == PortLoad(10.0, 0.0)


def test_a_port_made_anew_gives_no_figure_for_that_interval() -> None:
    meter = measured((0, 9_000_000, 9_000_000, 50), (1, 1_000, 9_900_000, 0.5))
    assert meter.of(PORT) == PortLoad(None, None)
    meter.sample("root", [stats(1_251_000, 9_900_000, 1.5)], 2.0)
    assert meter.of(PORT) == PortLoad(10.0, 0.0)


def test_a_step_back_at_a_switch_that_tells_no_age_is_a_new_start() -> None:
    assert measured((0, 9_000, 0, 0), (1, 1_000, 0, 0)).of(PORT) == PortLoad(None, 0.0)


def test_an_impossible_rate_is_none() -> None:
    assert measured((0, 1 << 60, 0, 50), (1, 1, 0, 51)).of(PORT) == PortLoad(None, 0.0)


def test_what_a_switch_does_not_count_is_unknown() -> None:
    meter = measured((0, ALL_ONES, 0, 1), (1, ALL_ONES, 125_000, 2))
    assert meter.of(PORT) == PortLoad(None, 1.0)


def test_samples_in_quick_succession_wait_for_a_fair_interval() -> None:
    meter = measured((0, 0, 0, 1), (0.01, 125_000, 0, 1.01))
    assert meter.of(PORT) is None
    meter.sample("root", [stats(125_000, 0, 2.0)], 1.0)
    assert meter.of(PORT) == PortLoad(1.0, 0.0)


def test_a_forgotten_port_starts_over() -> None:
    meter = measured((0, 0, 0, 1), (1, 125_000, 0, 2))
    meter.forget(PORT)
    assert meter.of(PORT) is None
    assert meter.sample("root", [stats(250_000, 0, 3.0)], 2.0) == set()


def test_no_negative_time_constant() -> None:
    with pytest.raises(MisuseError):
        LoadMeter(time_constant=-1.0)


def test_utilisation_needs_a_capacity() -> None:
    assert utilisation(LinkInfo(load_mbit=5.0)) is None
    assert utilisation(LinkInfo(capacity_mbit=0.0, load_mbit=5.0)) is None
    assert utilisation(LinkInfo(capacity_mbit=20.0, load_mbit=5.0)) == 0.25


@given(
    st.integers(0, ALL_ONES - 1),
    st.lists(
        st.tuples(st.floats(0.2, 30.0), st.integers(0, 10**9), st.booleans()),
        min_size=1,
        max_size=20,
    ),
)
def test_64_bit_counters_give_the_true_rate_or_none(
    counter: int, steps: list[tuple[float, int, bool]]
) -> None:
    """Whatever the start, through wraps and restarts: never a wrong figure."""
    meter = LoadMeter()
    now, age = 0.0, 1.0
    meter.sample("root", [stats(counter, 0, age)], now)
    for interval, sent, restarted in steps:
        wrapped = False
        before, now, age = now, now + interval, age + interval
        if restarted:
            counter, age = sent, interval / 2 if age > interval else 0.0
        else:
            wrapped = counter + sent >= ALL_ONES
            counter = (counter + sent) % (1 << 64)
        meter.sample("root", [stats(counter, 0, age)], now)
        load = meter.of(PORT)
        if load is None or load.rx_mbit is None:
            assert restarted or wrapped
        elif not restarted:
            assert load.rx_mbit == pytest.approx(sent * 8 / 1e6 / (now - before))
