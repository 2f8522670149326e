"""The server's side of Overload Control: the loop against a queue, and the sharing out."""

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from anabranch.services.modules.overload.control import (
    Entities,
    Load,
    RateController,
    Thresholds,
    shares,
)
from anabranch.services.modules.overload.overload import Report

STEP = 0.25


class Server:
    """A queue in front of a server that takes so many requests a second."""

    def __init__(self, capacity: float, noise: float = 0.0) -> None:
        self.capacity = capacity
        self.queue = 0.0
        self._noise = noise
        self._random = Random(1)

    def run(self, arriving: float) -> Load:
        self.queue += arriving * STEP
        served = min(self.queue, self.capacity * STEP)
        self.queue -= served
        noise = self._noise if self._random.random() < 0.3 else 0.0
        return Load(served / STEP, self.queue / self.capacity + noise)


def run(
    controller: RateController, server: Server, offered: float, seconds: float, begin: float = 0.0
) -> tuple[float, float]:
    """Return what was served a second, and the longest delay, in the second half."""
    served, delays = [], []
    steps = int(seconds / STEP)
    for step in range(steps):
        passing = offered if controller.rate is None else min(offered, controller.rate)
        load = server.run(passing)
        controller.update(load, shedding=passing < offered, now=begin + step * STEP)
        if step >= steps / 2:
            served.append(load.served)
            delays.append(load.delay)
    return sum(served) / len(served), max(delays)


@pytest.mark.parametrize("capacity", [20.0, 400.0, 9000.0])
@pytest.mark.parametrize("times", [1.3, 5.0, 50.0])
def test_the_server_stays_busy_and_its_queue_short(capacity: float, times: float) -> None:
    controller = RateController(Thresholds())
    served, delay = run(controller, Server(capacity), capacity * times, 60.0)
    assert served >= 0.93 * capacity
    assert delay < 0.5


def test_it_is_there_within_seconds() -> None:
    controller = RateController(Thresholds())
    served, _ = run(controller, Server(200.0), 1000.0, 10.0)
    assert served >= 180.0


def test_delays_that_pass_do_not_count() -> None:
    """A machine that is busy with other things: one answer of three comes late."""
    controller = RateController(Thresholds())
    served, _ = run(controller, Server(200.0, noise=0.4), 1000.0, 60.0)
    assert served >= 186.0


def test_no_control_without_overload() -> None:
    controller = RateController(Thresholds())
    run(controller, Server(400.0), 380.0, 60.0)
    assert controller.rate is None


def test_control_ends_after_a_while_of_calm() -> None:
    controller, server = RateController(Thresholds(calm=10.0)), Server(400.0)
    run(controller, server, 2000.0, 20.0)
    assert controller.rate is not None
    run(controller, server, 100.0, 9.0, begin=20.0)
    assert controller.rate is not None
    run(controller, server, 100.0, 5.0, begin=29.0)
    assert controller.rate is None


def test_a_server_that_grows_slower_is_followed() -> None:
    controller, server = RateController(Thresholds()), Server(400.0)
    run(controller, server, 2000.0, 20.0)
    server.capacity = 100.0
    served, delay = run(controller, server, 2000.0, 40.0, begin=20.0)
    assert served >= 93.0
    assert delay < 0.5


def test_a_capacity_that_was_set_is_kept() -> None:
    controller, server = RateController(Thresholds(capacity=50.0)), Server(400.0)
    served, _ = run(controller, server, 300.0, 20.0)
    assert 45.0 <= served <= 50.0


@given(st.floats(0, 1e6), st.dictionaries(st.text(max_size=3), st.floats(0, 1e6), min_size=1))
def test_shares_are_the_whole_and_fair(rate: float, demands: dict[str, float]) -> None:
    given_out = shares(rate, demands)
    assert sum(given_out.values()) == pytest.approx(rate, abs=1e-6)
    smallest = min(given_out.values())
    for name, demand in demands.items():
        # Who has less than the others has all that it asked for.
        assert given_out[name] >= min(demand, rate / len(demands)) - 1e-6
    assert smallest >= 0


HOME, AWAY = ("192.0.2.1", 5000), ("192.0.2.2", 5000)


def test_entities_share_by_their_demand() -> None:
    entities = Entities(b"secret", "token")
    for place, name, demand in ((HOME, "a", 30), (AWAY, "b", 900)):
        for step in range(2):
            cookie = entities.cookie(place)
            report = Report(
                name, "token", cookie, demand * step, demand * step // 3, demand * step // 2
            )
            entities.take(report, place, float(step))
    assert len(entities) == 2
    assert entities.took_shed()
    assert not entities.took_shed()
    feedback = entities.answer(Report("a", "token", "", 0, 0, 0), HOME, 100.0, 7, 2.0)
    assert feedback.rate == 30.0
    assert entities.answer(Report("b", "token", "", 0, 0, 0), AWAY, 100.0, 8, 2.0).rate == 70.0
    assert entities.answer(Report("b", "token", "", 0, 0, 0), AWAY, None, 8, 2.0).rate is None
    entities.forget_silent(10.0)
    assert len(entities) == 0


def test_who_cannot_be_answered_counts_for_nothing() -> None:
    entities = Entities(b"secret", "token")
    entities.take(Report("a", "token", "", 1, 1, 0), HOME, 0.0)
    entities.take(Report("a", "token", entities.cookie(AWAY), 1, 1, 0), HOME, 0.0)
    assert len(entities) == 0
    assert entities.knows(Report("a", "token", "", 0, 0, 0))
    assert not entities.knows(Report("a", "\ud800", "", 0, 0, 0))
    cookie = entities.answer(Report("a", "token", "", 1, 1, 0), HOME, 5.0, 1, 2.0).cookie
    entities.take(Report("a", "token", cookie, 1, 1, 0), HOME, 0.0)
    assert len(entities) == 1
