"""What is known of publishers: rates of the last seconds, and the gate's words."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from anabranch.media.publisher_figures import (
    SPAN_S,
    Meter,
    Reception,
    SourcePicture,
    merged,
    read_reception,
)

SAID = {
    "state": "up",
    "address": "192.0.2.1:5",
    "silent_ms": 3,
    "rtt_ms": 12.5,
    "kbps": 4000,
    "strangers": 0,
    "tracks": {
        "0": {"packets": 90, "bytes": 90_000, "lost": 10, "repaired": 4, "nacks": 30, "plis": 2,
              "useless": 1, "jitter_ms": 2.5},
        "1": {"packets": 50, "bytes": 5_000, "lost": 0, "repaired": 0, "nacks": 0, "plis": 0,
              "useless": 0, "jitter_ms": 4.0},
    },
}  # fmt: skip


def test_the_gates_words() -> None:
    assert read_reception(SAID) == Reception(
        octets=95_000,
        packets=140,
        lost=10,
        repaired=4,
        nacks=30,
        plis=2,
        jitter_ms=4.0,
        rtt_ms=12.5,
        allowed_kbps=4000,
    )
    nothing = read_reception({"state": "connecting", "rtt_ms": None, "tracks": {}})
    assert (nothing.octets, nothing.jitter_ms, nothing.rtt_ms) == (0, None, None)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
)
TRACK = st.dictionaries(st.sampled_from([*SAID["tracks"]["0"]]), JSON)  # type: ignore[index]


@given(st.dictionaries(st.sampled_from([*SAID]), JSON | st.dictionaries(st.text(), TRACK | JSON)))
def test_any_words_can_be_read(said: dict[str, Any]) -> None:
    found = read_reception(said)
    assert found.octets >= 0
    meter = Meter(0.0)
    meter.sample(found, 1.0)
    assert meter.bitrate_kbps is not None
    assert meter.bitrate_kbps >= 0
    assert meter.loss is None or 0 <= meter.loss <= 1


def test_rates_are_of_the_last_seconds() -> None:
    meter = Meter(began=100.0)
    assert (meter.bitrate_kbps, meter.loss) == (None, None)
    meter.sample(Reception(0, packets=0, lost=0), 100.1)
    assert (meter.bitrate_kbps, meter.loss) == (None, None)
    meter.sample(Reception(250_000, packets=190, lost=10), 102.0)  # since it came
    assert meter.bitrate_kbps == pytest.approx(1000)
    assert meter.loss == pytest.approx(0.05)
    for second in range(1, 11):  # then twice as much, and nothing lost
        meter.sample(Reception(250_000 * (1 + second), packets=190 + second, lost=10), 102 + second)
    assert meter.bitrate_kbps == pytest.approx(2000)
    assert meter.loss == 0
    meter.sample(meter.latest, 112 + 2 * SPAN_S)  # then silence
    meter.sample(meter.latest, 113 + 3 * SPAN_S)
    assert meter.bitrate_kbps == 0
    assert meter.loss is None


def test_seldom_looks_are_enough_for_a_rate() -> None:
    meter = Meter(began=0.0)
    meter.sample(Reception(125_000), 100.0)
    meter.sample(Reception(250_000), 200.0)
    assert meter.bitrate_kbps == pytest.approx(10)
    assert meter.loss is None  # packets are not counted


def test_counters_that_begin_anew_give_no_rate_at_first() -> None:
    meter = Meter(began=0.0)
    meter.sample(Reception(1_000_000, packets=10, lost=0), 1.0)
    meter.sample(Reception(10, packets=1, lost=0), 2.0)
    assert meter.bitrate_kbps is None
    meter.sample(Reception(125_010, packets=2, lost=0), 3.0)
    assert meter.bitrate_kbps == pytest.approx(1000)


def test_the_better_account_of_a_picture_counts() -> None:
    read, said = SourcePicture("h264", 640, 360), SourcePicture("avc", 1, 1, 30.0)
    assert merged(read, said) == SourcePicture("h264", 640, 360, 30.0)
    assert merged(None, said) == said
    assert merged(None) == SourcePicture()
