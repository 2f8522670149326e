"""Paths against networkx's own answers, and against trying everything."""

from collections import Counter
from dataclasses import replace
from itertools import pairwise
from math import inf

import networkx as nx
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.fabric.worlds import doubted, network_of, networks, some_of, without

from anabranch.fabric.graph import (
    LAST_RESORT_COST,
    REDUNDANT_COST,
    Graph,
    Path,
    disjoint,
    free_mbit,
    link_order,
    shortest,
    usable,
    widest,
)
from anabranch.fabric.model import Link, LinkInfo, Network, PortRef


def switches(path: Path) -> list[str]:
    return [path[0].src.switch, *(link.dst.switch for link in path)] if path else []


def check_path(path: Path, src: str, dst: str) -> None:
    if path:
        assert (path[0].src.switch, path[-1].dst.switch) == (src, dst)
    else:
        assert src == dst
    for link, onward in pairwise(path):
        assert link.dst.switch == onward.src.switch
    assert len(set(switches(path))) == len(switches(path)), "no switch twice"


def multigraph(network: Network) -> "nx.MultiDiGraph[str]":
    graph: nx.MultiDiGraph[str] = nx.MultiDiGraph()
    graph.add_nodes_from(network.switches)
    for link, cost in usable(network).items():
        graph.add_edge(link.src.switch, link.dst.switch, weight=cost)
    return graph


def cost(network: Network, path: Path) -> int:
    infos = [network.links[link] for link in path]
    assert all(info.up != info.last_resort for info in infos)
    last, reserve = sum(info.last_resort for info in infos), sum(info.redundant for info in infos)
    plain = sum(not (info.last_resort or info.redundant) for info in infos)
    return last * LAST_RESORT_COST + reserve * REDUNDANT_COST + plain


@st.composite
def questions(draw: st.DrawFn) -> tuple[Network, str, str]:
    network = draw(networks())
    network = without(network, *draw(some_of(network)))
    names = st.sampled_from(sorted(network.switches))
    return network, draw(names), draw(names)


@given(questions())
def test_the_shortest_path_is_as_short_as_that_of_dijkstra(
    question: tuple[Network, str, str],
) -> None:
    network, src, dst = question
    lengths = nx.single_source_dijkstra_path_length(multigraph(network), src)
    path = shortest(network, src, dst)
    if dst not in lengths:
        assert path is None
        return
    assert path is not None
    check_path(path, src, dst)
    assert cost(network, path) == lengths[dst]
    again = replace(network, links=dict(reversed(list(network.links.items()))))
    assert shortest(again, src, dst) == path, "the order of links does not matter"
    if path:
        other = shortest(network, src, dst, avoid=path[:1])
        assert other is None or path[0] not in other


@given(questions())
def test_a_link_that_nothing_uses_may_go(question: tuple[Network, str, str]) -> None:
    network, src, dst = question
    path = shortest(network, src, dst)
    for link in network.links:
        if path is not None and link not in path and link.reverse not in path:
            assert shortest(without(network, link), src, dst) == path


@given(questions(), st.data())
def test_the_widest_path_is_the_best_of_all(
    question: tuple[Network, str, str], data: st.DataObject
) -> None:
    network, src, dst = question
    rates = st.none() | st.integers(1, 3)
    infos = st.builds(
        lambda up, capacity, load, redundant: LinkInfo(up, capacity, load, redundant, not up),
        *(st.booleans(), rates, st.integers(0, 2), st.booleans()),
    )
    network = replace(network, links={link: data.draw(infos) for link in usable(network)})
    path = widest(network, src, dst)
    if src == dst:
        assert path == ()
        return

    def worth(path: list[Link]) -> tuple[int, int, float, int]:
        infos = [network.links[link] for link in path]
        last, reserve = (sum(info.last_resort for info in infos), sum(i.redundant for i in infos))
        return last, reserve, -min(map(free_mbit, infos)), len(path)

    every = [worth(found) for found in _walks(network, src, dst, frozenset({src}))]
    if path is None:
        assert not every
    else:
        check_path(path, src, dst)
        assert worth(list(path))[:3] == min(every)[:3]
        assert worth(list(path)) == min(every)


def _walks(network: Network, src: str, dst: str, seen: frozenset[str]) -> list[list[Link]]:
    if src == dst:
        return [[]]
    return [
        [link, *rest]
        for link in network.links
        if link.src.switch == src and link.dst.switch not in seen
        for rest in _walks(network, link.dst.switch, dst, seen | {link.dst.switch})
    ]


@settings(deadline=None)
@given(questions(), st.integers(1, 4))
def test_disjoint_paths_share_nothing_and_are_as_many_as_there_are(
    question: tuple[Network, str, str], k: int
) -> None:
    network, src, dst = question
    paths = disjoint(network, src, dst, k)
    if src == dst:
        assert not paths
        return
    connections: Counter[frozenset[Link]] = Counter()
    for path in paths:
        check_path(path, src, dst)
        connections.update(frozenset({link, link.reverse}) for link in path)
    assert all(count == 1 for count in connections.values())
    capacities: nx.DiGraph[str] = nx.DiGraph()
    capacities.add_nodes_from(network.switches)
    for left, right, _ in multigraph(network).edges:
        before = capacities.get_edge_data(left, right, {"capacity": 0})["capacity"]
        capacities.add_edge(left, right, capacity=before + 1)
    assert len(paths) == min(k, nx.maximum_flow_value(capacities, src, dst))
    assert [cost(network, path) for path in paths] == sorted(cost(network, p) for p in paths)
    if paths:
        best = shortest(network, src, dst)
        assert best is not None
        assert cost(network, paths[0]) >= cost(network, best)
    if k == 1 and paths:
        assert cost(network, paths[0]) == cost(network, best or ())


def test_the_shortest_pair_gives_the_shortest_path_up() -> None:
    # The shortest path 0-1-2-3 stands in the way of any second one (Suurballe's example).
    edges = [(0, 1), (1, 2), (2, 3), (0, 2), (1, 3)]
    network = network_of(4, [(left, right, False) for left, right in edges])
    wide = disjoint(network, "s0", "s3", 2)
    assert [switches(path) for path in wide] == [["s0", "s1", "s3"], ["s0", "s2", "s3"]]


@settings(deadline=None)
@given(questions())
def test_a_way_around_is_the_first_of_the_shortest(question: tuple[Network, str, str]) -> None:
    network, _, _ = question
    graph = Graph(usable(network))
    equal = replace(
        network,
        links={link: LinkInfo(up=info.up) for link, info in network.links.items()},
    )
    for link in graph.costs:
        found = graph.around(link)
        assert found == shortest(
            equal, link.src.switch, link.dst.switch, avoid={link, link.reverse}
        )
        if found is not None:
            check_path(found, link.src.switch, link.dst.switch)


def test_of_links_from_one_port_one_that_is_up_counts_before_a_last_resort() -> None:
    near, far = Link(PortRef("a", 1), PortRef("b", 1)), Link(PortRef("a", 1), PortRef("c", 1))
    doubtful = LinkInfo(up=False, last_resort=True)
    for first, second, chosen in (
        (LinkInfo(), LinkInfo(), near),
        (doubtful, doubtful, near),
        (doubtful, LinkInfo(redundant=True), far),
        (LinkInfo(redundant=True), doubtful, near),
    ):
        for links in ({near: first, far: second}, {far: second, near: first}):
            assert set(usable(Network(links=links))) == {chosen}


@given(networks(), st.data())
def test_a_graph_changed_link_by_link_is_the_same(network: Network, data: st.DataObject) -> None:
    graph = Graph(usable(network))
    for _ in range(4):
        now = doubted(without(network, *data.draw(some_of(network))), *data.draw(some_of(network)))
        costs = usable(now)
        different = {link for link, _ in costs.items() ^ graph.costs.items()}
        graph.change(
            different & graph.costs.keys(), {link: costs[link] for link in different & costs.keys()}
        )
        fresh = Graph(costs)
        for name in network.switches:
            assert graph.distances(name) == fresh.distances(name)
            assert graph.into(name) == fresh.into(name) == sorted(fresh.into(name), key=link_order)
            assert graph.hops_from(name) == fresh.hops_from(name)
            assert graph.hops_to(name).items() == {
                (other, fresh.hops_from(other)[name])
                for other in network.switches
                if fresh.hops_from(other).get(name, inf) < inf
            }
