"""Placement: the best leaf and rendition for a viewer, and nobody where nobody is taken."""

from dataclasses import replace
from ipaddress import ip_address, ip_network
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from anabranch.core.errors import UnavailableError, UsageError
from anabranch.tree.model import Role
from anabranch.tree.placement import (
    Best,
    Place,
    Placement,
    Preferences,
    PrefixTable,
    Request,
    Rung,
    find,
    rendition,
    takes,
)
from anabranch.tree.state import NodeState, Phase

LADDER = (Rung("high", 1080, 4000), Rung("low", 360, 600), Rung("middle", 720, 2000))
A = NodeState("a", Role.LEAF, "root", viewers=2, capacity=10)
B = NodeState("b", Role.LEAF, "root", viewers=4, capacity=10)
TABLE = PrefixTable(
    {
        ip_network("10.0.0.0/8"): ["a"],
        ip_network("10.1.0.0/16"): ["b", "c"],
        ip_network("2001:db8::/32"): ["b"],
    }
)


def choose(request: Request, *leaves: NodeState, **preferences: object) -> Place:
    return Best(Preferences(**preferences)).choose(request, leaves, Random(0))  # type: ignore[arg-type]


def test_the_longest_prefix_decides() -> None:
    for address, leaves in (
        ("10.2.3.4", ("a",)),
        ("10.1.3.4", ("b", "c")),
        ("::ffff:10.1.3.4", ("b", "c")),
        ("192.0.2.1", ()),
        ("2001:db8::7", ("b",)),
        ("2001:db9::7", ()),
    ):
        assert TABLE.preferred(ip_address(address)) == leaves


@given(
    st.sets(
        st.tuples(st.ip_addresses(v=4), st.integers(0, 32)).map(
            lambda pair: ip_network(pair, strict=False)
        ),
        max_size=30,
    ),
    st.ip_addresses(v=4),
)
def test_the_table_agrees_with_looking_at_every_prefix(networks: set, address) -> None:  # type: ignore[no-untyped-def, type-arg]
    table = PrefixTable({network: [str(network)] for network in networks})
    around = [network for network in networks if address in network]
    longest = max(around, key=lambda network: network.prefixlen, default=None)
    assert table.preferred(address) == (() if longest is None else (str(longest),))


def test_the_least_loaded_leaf_is_best_among_equals() -> None:
    assert choose(Request(LADDER), A, B).leaf == "a"
    assert choose(Request(LADDER), replace(A, egress=0.9), B).leaf == "b"


def test_a_near_leaf_is_worth_some_load_but_not_all() -> None:
    near_b = Request(LADDER, ip_address("10.1.0.1"))
    assert choose(near_b, A, B, table=TABLE).leaf == "b"
    assert choose(near_b, A, replace(B, viewers=9), table=TABLE).leaf == "a"
    assert choose(near_b, A, replace(B, name="c"), table=TABLE).leaf == "c"
    assert choose(Request(LADDER, ip_address("192.0.2.1")), A, B, table=TABLE).leaf == "a"


def test_a_leaf_that_receives_the_stream_already_is_a_little_better() -> None:
    has_it = replace(B, viewers=2, streams=frozenset({"high"}))
    assert choose(Request(LADDER), A, has_it) == Place("b", "high")


@pytest.mark.parametrize(
    "closed",
    [
        {"phase": Phase.DRAINING},
        {"phase": Phase.IDLE},
        {"ready": False},
        {"viewers": 10},
        {"capacity": 0},
        {"egress": 1.0},
        {"serves": (ip_network("192.0.2.0/24"), ip_network("2001:db8::/32"))},
    ],
)
def test_who_takes_nobody_new_is_sent_nobody(closed: dict[str, object]) -> None:
    leaf = replace(A, **closed)  # type: ignore[arg-type]
    request = Request(LADDER, ip_address("10.0.0.1"))
    assert not takes(leaf, request.address)
    assert choose(request, leaf, replace(B, viewers=9)).leaf == "b"
    with pytest.raises(UnavailableError):
        choose(request, leaf)


def test_a_leaf_of_a_network_serves_those_in_it() -> None:
    leaf = replace(A, serves=(ip_network("10.0.0.0/8"),))
    assert takes(leaf, ip_address("10.9.9.9"))
    assert takes(leaf, None)


@pytest.mark.parametrize(
    ("device", "bandwidth", "stream"),
    [
        (None, None, "high"),
        ("phone", None, "middle"),
        ("toaster", None, "high"),
        (None, 4000, "middle"),
        (None, 5000, "high"),
        ("phone", 1000, "low"),
        ("phone", 10, "low"),
    ],
)
def test_the_rendition_fits_device_and_bandwidth(
    device: str | None, bandwidth: float | None, stream: str
) -> None:
    request = Request(LADDER, device=device, bandwidth_kbps=bandwidth)
    assert rendition(request, Preferences().heights) == stream


def test_without_a_ladder_there_is_nothing_to_watch() -> None:
    with pytest.raises(UsageError, match="nothing"):
        choose(Request(()), A)


@given(
    st.lists(st.tuples(st.integers(0, 12), st.sampled_from(Phase), st.booleans()), max_size=6),
    st.integers(),
)
def test_the_choice_is_open_and_the_same_in_any_order(
    drawn: list[tuple[int, Phase, bool]], seed: int
) -> None:
    leaves = [
        NodeState(f"l{n}", Role.LEAF, phase=phase, ready=ready, viewers=viewers, capacity=10)
        for n, (viewers, phase, ready) in enumerate(drawn)
    ]
    if not any(takes(leaf, None) for leaf in leaves):
        with pytest.raises(UnavailableError):
            choose(Request(LADDER), *leaves)
        return
    place = Best().choose(Request(LADDER), leaves, Random(seed))
    chosen = next(leaf for leaf in leaves if leaf.name == place.leaf)
    assert takes(chosen, None)
    assert chosen.viewers == min(leaf.viewers for leaf in leaves if takes(leaf, None))
    assert Best().choose(Request(LADDER), leaves[::-1], Random(seed)) == place


def test_placements_are_found_by_name() -> None:
    assert isinstance(find(), Placement)
    with pytest.raises(UsageError, match="there are: best"):
        find("other")
