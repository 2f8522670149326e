"""``plan_ms``: 1,000 nodes and 5,000 links to a tree; ``regrow_ms``: the same after a relay died.

200 relays and 799 leaves, drawn at random, each with a way to the root.
"""

import time
from collections.abc import Callable
from dataclasses import replace
from random import Random

import networkx as nx

from anabranch.app.bench.report import Peer, Result, percentiles, sampled
from anabranch.tree.description import Candidate, CandidateLink, Description, ends
from anabranch.tree.model import Role
from anabranch.tree.planning import plan
from anabranch.tree.regrow import without

RELAYS, LEAVES, LINKS = 200, 799, 5000
_MOST_CHILDREN = 16


def measure(samples: int) -> list[Result]:
    """Plan one graph ``samples`` times: freely, with limits, and anew after each of its relays.

    The description is checked anew each time.
    """
    free, limited = describe({}), describe({Role.RELAY: _MOST_CHILDREN})
    graph: nx.Graph[str] = nx.Graph()
    for (one, other), weight in free.weights.items():
        graph.add_edge(one, other, weight=weight)
    kruskal = _timed(samples, lambda _: nx.minimum_spanning_tree(graph))
    name = "networkx.minimum_spanning_tree, same graph and weights, roles ignored"
    peer = Peer(name, round(percentiles(kruskal)[0], 1))
    whole = plan(free)
    relays = [node.name for node in whole.tree if node.role is Role.RELAY]
    return [
        sampled(
            "plan_ms",
            "ms",
            _timed(samples, lambda _: plan(replace(free))),
            target="max <= 150",
            peer=peer,
        ),
        sampled(
            "plan_limited_ms", "ms", _timed(samples, lambda _: plan(replace(limited))), peer=peer
        ),
        sampled(
            "regrow_ms",
            "ms",
            _timed(samples, lambda n: without(whole, relays[n % len(relays)])),
            peer=peer,
        ),
    ]


def describe(fan_out: dict[Role, int]) -> Description:
    """Return the graph, the same every time."""
    draw = Random(1)  # noqa: S311
    relays = [f"relay{n}" for n in range(RELAYS)]
    leaves = [f"leaf{n}" for n in range(LEAVES)]
    inner = ["root", *relays]
    drawn = {ends(relay, inner[draw.randrange(n + 1)]) for n, relay in enumerate(relays)}
    drawn |= {ends(leaf, draw.choice(relays)) for leaf in leaves}
    while len(drawn) < LINKS:
        drawn.add(ends(*draw.sample([*inner, *leaves], 2)))
    nodes = [
        Candidate("root", Role.ROOT),
        *(Candidate(name, Role.RELAY) for name in relays),
        *(Candidate(name, Role.LEAF) for name in leaves),
    ]
    links = tuple(CandidateLink(*pair) for pair in sorted(drawn))
    return Description(tuple(nodes), links, fan_out)


def _timed(samples: int, function: Callable[[int], object]) -> list[float]:
    """Return ms for each call with its number, after one that does not count."""
    function(0)
    times = []
    for number in range(samples):
        began = time.perf_counter()
        function(number)
        times.append(1000 * (time.perf_counter() - began))
    return times
