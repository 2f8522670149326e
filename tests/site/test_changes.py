"""How fast one viewer may change."""

import pytest

from anabranch.core.errors import TooManyError
from anabranch.site.changes import BURST, RATE, Pace


def test_a_burst_is_allowed_and_then_so_many_a_second() -> None:
    pace = Pace(100.0)
    for _ in range(int(BURST)):
        pace.take(100.0)
    with pytest.raises(TooManyError):
        pace.take(100.0)
    pace.take(100.0 + 1.01 / RATE)
    with pytest.raises(TooManyError):
        pace.take(100.0 + 1.5 / RATE)


def test_a_long_rest_gives_no_more_than_a_burst() -> None:
    pace = Pace(0.0)
    for _ in range(int(BURST)):
        pace.take(1e6)
    with pytest.raises(TooManyError):
        pace.take(1e6)


def test_who_asks_at_the_rate_is_never_refused() -> None:
    pace = Pace(0.0)
    for number in range(1000):
        pace.take(number / RATE)
