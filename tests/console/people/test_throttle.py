"""The throttle: failures are counted by account and by client; nobody locks others out."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from anabranch.console.people.throttle import BY_ACCOUNT, BY_CLIENT, Throttle, network_of


def tries(throttle: Throttle, account: str | None, client: str, now: float, most: int) -> int:
    """Return how many tries are let through at once."""
    for count in range(most):
        if throttle.begin(account, client, now) > 0:
            return count
    return most


def test_an_account_is_tried_ten_times_from_anywhere_then_once_in_thirty_seconds() -> None:
    throttle = Throttle()
    through = sum(throttle.begin("maria", f"192.0.2.{n}", 0.0) == 0 for n in range(100))
    assert through == BY_ACCOUNT.burst
    wait = throttle.begin("maria", "198.51.100.1", 0.0)
    assert 0 < wait <= BY_ACCOUNT.every_s
    assert throttle.begin("maria", "198.51.100.1", wait) == 0
    assert throttle.begin("maria", "198.51.100.1", wait) > 0
    # In a day a guesser has some thousands, not millions.
    assert tries(throttle, "other", "198.51.100.1", wait, 1) == 1


def test_a_client_fails_twenty_times_with_whatever_names() -> None:
    throttle = Throttle()
    through = sum(throttle.begin(f"name{n}", "192.0.2.1", 0.0) == 0 for n in range(100))
    assert through == BY_CLIENT.burst
    assert throttle.begin("maria", "192.0.2.2", 0.0) == 0


def test_a_stranger_does_not_lock_out_whom_the_account_knows() -> None:
    throttle = Throttle()
    assert throttle.begin("maria", "192.0.2.1", 0.0) == 0
    throttle.succeeded("maria", "192.0.2.1", 0.0)
    assert tries(throttle, "maria", "203.0.113.9", 1.0, 100) == BY_ACCOUNT.burst - 0
    assert throttle.begin("maria", "203.0.113.10", 1.0) > 0
    assert throttle.begin("maria", "192.0.2.1", 1.0) == 0
    throttle.forget("maria")
    assert throttle.begin("maria", "192.0.2.1", 1.0) > 0


def test_who_succeeds_is_never_throttled() -> None:
    throttle = Throttle()
    for _ in range(1000):
        assert throttle.begin("maria", "192.0.2.1", 0.0) == 0
        throttle.succeeded("maria", "192.0.2.1", 0.0)


@pytest.mark.parametrize(
    ("client", "network"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::"),
        ("2001:db8:1:2::1", "2001:db8:1:2::"),
        ("fe80::1%eth0", "fe80::"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("", ""),
        ("testclient", "testclient"),
    ],
)
def test_an_ipv6_client_is_its_network(client: str, network: str) -> None:
    assert network_of(client) == network


@given(st.lists(st.tuples(st.floats(0, 1e4), st.booleans()), max_size=200))
def test_over_any_time_no_more_get_through_than_burst_and_refill(
    steps: list[tuple[float, bool]],
) -> None:
    throttle = Throttle()
    now, through = 0.0, 0
    for step, back in steps:
        now += -step if back else step  # a clock may be set back
        through += throttle.begin("maria", "192.0.2.1", now) == 0
    forth = sum(step for step, _ in steps)
    assert through <= BY_ACCOUNT.burst + forth / BY_ACCOUNT.every_s + 1


def test_buckets_have_an_end() -> None:
    throttle = Throttle()
    for n in range(50_000):
        throttle.begin(f"name{n}", f"client{n}", 0.0)
    assert len(throttle._buckets) <= 20_000
