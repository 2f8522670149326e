"""Placement: the leaf with the fewest viewers."""

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from anabranch.core.errors import UnavailableError
from anabranch.site.placement import least_loaded


@given(st.dictionaries(st.text("abc", min_size=1), st.integers(0, 9), min_size=1), st.randoms())
def test_nobody_has_fewer_than_the_leaf_chosen(loads: dict[str, int], rng: Random) -> None:
    assert loads[least_loaded(loads, rng)] == min(loads.values())


def test_equals_share_and_the_same_chance_gives_the_same_leaf() -> None:
    loads = {"leaf2": 1, "leaf1": 1, "leaf3": 2}
    chosen = [least_loaded(loads, Random(seed)) for seed in range(50)]
    assert set(chosen) == {"leaf1", "leaf2"}
    assert chosen == [least_loaded(dict(reversed(loads.items())), Random(s)) for s in range(50)]


def test_where_no_leaf_is_ready_the_viewer_is_told_to_come_back() -> None:
    with pytest.raises(UnavailableError, match="try again"):
        least_loaded({}, Random(1))
