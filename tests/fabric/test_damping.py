"""Damping (RFC 2439): three flaps in a row suppress, quiet releases."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from anabranch.fabric.damping import Damper, DampingRules
from anabranch.fabric.errors import MisuseError

RULES = DampingRules()


def test_the_third_flap_in_a_row_suppresses_and_only_that_one_says_so() -> None:
    damper = Damper(RULES, 0.0)
    assert [damper.flap(when / 10) for when in range(5)] == [False, False, True, False, False]


def test_rare_flaps_never_suppress() -> None:
    damper = Damper(RULES, 0.0)
    assert not any(damper.flap(30.0 * number) for number in range(50))


def test_the_figure_halves_in_a_half_life() -> None:
    damper = Damper(RULES, 0.0)
    damper.flap(0.0)
    assert damper.figure(15.0) == pytest.approx(500.0)
    assert damper.figure(45.0) == pytest.approx(125.0)
    damper.flap(15.0)
    assert damper.figure(15.0) == pytest.approx(1500.0)


def test_suppression_ends_below_the_reuse_threshold_once() -> None:
    damper = Damper(RULES, 0.0)
    for _ in range(3):
        damper.flap(0.0)
    end = damper.next_timer()
    assert end == pytest.approx(30.0)  # 3000 to 750: two half-lives
    assert not damper.release(end - 0.001)
    assert damper.release(end)
    assert not damper.release(end)
    assert not damper.forgettable(end)
    assert damper.forgettable(end + 15.1)


@pytest.mark.parametrize(
    "wrong",
    [
        {"reuse": 0.0},
        {"reuse": 2500.0},
        {"half_life": 0.0},
        {"penalty": -1.0},
        {"max_suppress": 10.0},
    ],
)
def test_rules_that_do_not_fit_together_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(MisuseError):
        DampingRules(**wrong)


@given(st.lists(st.floats(0.0, 40.0), min_size=1, max_size=40))
def test_quiet_only_lowers_the_figure_and_flaps_only_raise_it(gaps: list[float]) -> None:
    damper = Damper(RULES, 0.0)
    now = 0.0
    for gap in gaps:
        before = damper.figure(now)
        now += gap
        rested = damper.figure(now)
        assert rested <= before
        was = damper.suppressed
        if damper.release(now):
            assert was
            assert rested <= RULES.reuse * 1.0001
        held = damper.suppressed
        newly = damper.flap(now)
        assert rested < damper.figure(now) <= RULES.ceiling or rested == RULES.ceiling
        assert newly == (damper.suppressed and not held)
        assert damper.suppressed or damper.figure(now) <= RULES.suppress
    if damper.suppressed:  # however often it flapped
        assert now < damper.next_timer() <= now + RULES.max_suppress + 1e-6
        assert damper.release(damper.next_timer())
