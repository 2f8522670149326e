"""Token buckets."""

from hypothesis import given
from hypothesis import strategies as st

from anabranch.fabric.host_services.limits import RateLimit


def test_a_burst_then_the_rate():
    limit = RateLimit(rate=2.0, burst=3.0)
    assert [limit.allow("a", 0.0) for _ in range(4)] == [True, True, True, False]
    assert limit.allow("b", 0.0)
    assert [limit.allow("a", 0.5) for _ in range(2)] == [True, False]
    assert [limit.allow("a", 100.0) for _ in range(4)] == [True, True, True, False]


def test_the_longest_silent_key_is_forgotten():
    limit = RateLimit(rate=0.001, burst=1.0)
    assert limit.allow(0, 0.0)
    for key in range(1, 4096):
        limit.allow(key, 0.0)
    assert not limit.allow(0, 0.0)
    limit.allow(4096, 0.0)  # key 1 goes
    assert not limit.allow(0, 0.0)
    assert limit.allow(1, 0.0)


@given(st.lists(st.floats(0, 5), max_size=60), st.floats(0.1, 20), st.integers(1, 10))
def test_never_more_than_burst_and_rate(gaps, rate, burst):
    limit = RateLimit(rate, burst)
    now, passed = 0.0, 0
    for gap in gaps:
        now += gap
        passed += limit.allow("key", now)
    assert passed <= burst + now * rate + 1e-6
