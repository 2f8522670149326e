"""Paths over the network as it is: shortest, widest, link-disjoint; by networkx.

Every answer is a pure function of the network: ties are broken by the names and ports of links, so
that two directors find the same paths, and a link that goes away changes only paths that used it.
"""

import heapq
from collections.abc import Collection, Iterable, Mapping
from math import inf
from typing import cast

import networkx as nx

from anabranch.fabric.model import Link, LinkInfo, Network, PortRef

Path = tuple[Link, ...]
LinkOrder = tuple[str, int, str, int]

REDUNDANT_COST = 1 << 20
"""Cost of a redundant link, in hops: more than any path without one has."""

LAST_RESORT_COST = 1 << 40
"""Cost of a link of last resort, in hops: more than any path of redundant links has."""


def link_order(link: Link) -> LinkOrder:
    """Return what links are sorted by wherever there is a choice."""
    return link.src.switch, link.src.port_no, link.dst.switch, link.dst.port_no


def usable(network: Network, avoid: Collection[Link] = ()) -> dict[Link, int]:
    """Return the links that can carry something, with their costs in hops.

    A port leads to one place: of several links from one port the first by name counts, and those
    of last resort only where no other is up.
    """
    first: dict[PortRef, Link] = {}
    costs: dict[Link, int] = {}
    for link, info in network.links.items():
        if not (info.up or info.last_resort) or link in avoid:
            continue
        if link.src.switch == link.dst.switch:
            continue
        rival = first.setdefault(link.src, link)
        if rival is not link:
            if _precedence(network, rival) < _precedence(network, link):
                continue
            del costs[rival]
            first[link.src] = link
        dear = LAST_RESORT_COST * info.last_resort + REDUNDANT_COST * info.redundant
        costs[link] = dear or 1
    return costs


def _precedence(network: Network, link: Link) -> tuple[bool, LinkOrder]:
    return network.links[link].last_resort, link_order(link)


class Graph:
    """The links that can be used, kept up to date link by link.

    Args:
        costs: see :func:`usable`.
    """

    def __init__(self, costs: Mapping[Link, int]) -> None:
        self.costs: dict[Link, int] = {}
        self._into: dict[str, list[Link]] = {}
        self._all: nx.DiGraph[str] = nx.DiGraph()
        self._plain: nx.DiGraph[str] = nx.DiGraph()  # of links that cost 1
        self._onward: dict[str, dict[str, None]] = {}  # by links that are up, of whatever cost
        self._backward: dict[str, dict[str, None]] = {}
        self._dear = 0
        self.change((), costs)

    def change(self, removed: Iterable[Link], added: Mapping[Link, int]) -> None:
        """Take links away, then put others in. A link whose cost changes is in both."""
        touched = set()
        for link in removed:
            cost = self.costs.pop(link)
            self._dear -= cost != 1
            self._into[link.dst.switch].remove(link)
            touched.add((link.src.switch, link.dst.switch))
        for link, cost in added.items():
            self.costs[link] = cost
            self._dear += cost != 1
            self._into.setdefault(link.dst.switch, []).append(link)
            touched.add((link.src.switch, link.dst.switch))
        for dst in {dst for _, dst in touched}:
            self._into[dst].sort(key=link_order)
        for src, dst in touched:
            self._plain.add_nodes_from((src, dst))
            parallel = (self.costs[link] for link in self._into[dst] if link.src.switch == src)
            cost = min(parallel, default=0)
            _set_edge(self._all, src, dst, cost)
            _set_edge(self._plain, src, dst, int(cost == 1))
            onward = self._onward.setdefault(src, {})
            backward = self._backward.setdefault(dst, {})
            if 0 < cost < LAST_RESORT_COST:
                onward[dst] = backward[src] = None
            else:
                onward.pop(dst, None)
                backward.pop(src, None)

    def into(self, switch: str) -> list[Link]:
        """Return the links that end at a switch, in order."""
        return self._into.get(switch, [])

    def distances(self, source: str) -> Mapping[str, int]:
        """Return the cost of the shortest path from ``source`` to whatever it reaches."""
        if source not in self._all:
            return {source: 0}
        found: Mapping[str, int] = nx.single_source_shortest_path_length(self._plain, source)
        if self._dear and len(found) < len(self._all):
            found = cast(
                Mapping[str, int],
                nx.single_source_dijkstra_path_length(self._all, source, weight="cost"),
            )
        return found

    def hops_from(self, source: str) -> Mapping[str, int]:
        """Return the number of links that are up from ``source``, redundant ones as good as any."""
        return _hops(self._onward, source)

    def hops_to(self, target: str) -> Mapping[str, int]:
        """Return the number of links that are up to ``target``, redundant ones as good as any."""
        return _hops(self._backward, target)

    def last_link(self, distances: Mapping[str, int], switch: str) -> Link:
        """Return the link by which the shortest path arrives at a switch that it reaches."""
        here = distances[switch]
        for link in self._into[switch]:
            if distances.get(link.src.switch, inf) + self.costs[link] == here:
                return link
        raise AssertionError("distances of another graph")

    def path(self, source: str, target: str) -> Path | None:
        """Return the shortest path, () from a switch to itself, None if there is none."""
        distances = self.distances(source)
        if target not in distances:
            return None
        found = []
        while target != source:
            found.append(self.last_link(distances, target))
            target = found[-1].src.switch
        return tuple(reversed(found))

    def around(self, link: Link) -> Path | None:
        """Return the path of the fewest links between the ends of ``link`` without this connection.

        Redundant links are as good as others; those of last resort are none, for a switch takes
        only live ports for a bypass. Neither direction of the connection is used.
        """
        src, dst = link.src.switch, link.dst.switch
        for parallel in self.into(dst):
            if parallel.src.switch == src and parallel != link and self._is_up(parallel):
                return (parallel,)
        near, far = {src: 0}, {dst: 0}
        depth, height = 0, 0
        layer, wave = [src], [dst]
        meeting: list[str] = []
        # From both ends, the smaller side first: the middle of a large network is never looked at.
        while layer and wave and not meeting:
            if len(layer) <= len(wave):
                depth += 1
                layer = _spread(self._onward, layer, near, depth, (src, dst))
                meeting = [node for node in layer if node in far]
            else:
                height += 1
                wave = _spread(self._backward, wave, far, height, (dst, src))
                meeting = [node for node in wave if node in near]
        if not meeting:
            return None
        # What is on a shortest path behind the middle, by the number of links that are left.
        behind = {height: set(meeting)}
        for left in range(height, 0, -1):
            reached = {node for one in behind[left] for node in self._onward[one]}
            behind[left - 1] = {node for node in reached if far.get(node) == left - 1}
        found: list[Link] = []
        node = dst
        while node != src:
            left = len(found) + 1
            for link in self._into[node]:
                before = link.src.switch
                ahead = depth + height - left
                on = before in behind[left] if left <= height else near.get(before) == ahead
                if on and not (before == src and node == dst) and self._is_up(link):
                    found.append(link)
                    node = before
                    break
        return tuple(reversed(found))

    def _is_up(self, link: Link) -> bool:
        return self.costs[link] < LAST_RESORT_COST


def _hops(neighbours: Mapping[str, Iterable[str]], start: str) -> dict[str, int]:
    found = {start: 0}
    layer, number = [start], 0
    while layer:
        number += 1
        layer = _spread(neighbours, layer, found, number)
    return found


def _spread(
    neighbours: Mapping[str, Iterable[str]],
    layer: list[str],
    seen: dict[str, int],
    number: int,
    but: tuple[str, str] | None = None,
) -> list[str]:
    """Return the next layer of a breadth-first search that may not go from ``but`` to ``but``."""
    found = []
    for node in layer:
        for neighbour in neighbours.get(node, ()):
            if neighbour not in seen and (node, neighbour) != but:
                seen[neighbour] = number
                found.append(neighbour)
    return found


def _set_edge(graph: "nx.DiGraph[str]", src: str, dst: str, cost: int) -> None:
    if cost:
        graph.add_edge(src, dst, cost=cost)
    elif graph.has_edge(src, dst):
        graph.remove_edge(src, dst)


def shortest(
    network: Network, src: str, dst: str, *, avoid: Collection[Link] = frozenset()
) -> Path | None:
    """Return the path of the fewest links; redundant ones only where no other way is left.

    Where these do not suffice either, as few links of last resort as possible are tried.

    Args:
        avoid: links that may not be used.

    Returns: None if there is no path; () from a switch to itself.
    """
    return Graph(usable(network, avoid)).path(src, dst)


def free_mbit(info: LinkInfo) -> float:
    """Return what a link could carry besides its load; infinite where nobody knows."""
    return inf if info.capacity_mbit is None else max(0.0, info.capacity_mbit - info.load_mbit)


def widest_arrivals(graph: Graph, links: Mapping[Link, LinkInfo], source: str) -> dict[str, Link]:
    """Return the tree of widest paths from ``source``: switch to the link it is reached by.

    A path is better that has fewer links of last resort, then fewer redundant ones, then the one
    whose tightest link has more capacity left, then the shorter one. (Of these the last is weighed
    from switch to switch, so that one tree can serve all.)
    """
    outgoing: dict[str, list[Link]] = {}
    for switch_links in map(graph.into, {link.dst.switch for link in graph.costs}):
        for link in switch_links:
            outgoing.setdefault(link.src.switch, []).append(link)
    arrivals: dict[str, Link] = {}
    done = set()
    queue: list[tuple[int, float, int, LinkOrder | tuple[()], str, Link | None]] = [
        (0, -inf, 0, (), source, None)
    ]
    while queue:
        reserve, width, hops, _, node, by = heapq.heappop(queue)
        if node in done:
            continue
        done.add(node)
        if by is not None:
            arrivals[node] = by
        for link in outgoing.get(node, ()):
            if link.dst.switch not in done:
                cost = graph.costs[link]
                entry = (
                    reserve + (cost if cost != 1 else 0),
                    max(width, -free_mbit(links[link])),
                    hops + 1,
                    link_order(link),
                    link.dst.switch,
                    link,
                )
                heapq.heappush(queue, entry)
    return arrivals


def widest(
    network: Network, src: str, dst: str, *, avoid: Collection[Link] = frozenset()
) -> Path | None:
    """Return the path whose tightest link has the most capacity left; of these, the shortest.

    Redundant links, and then those of last resort, are used only where no other way is left.

    Returns: None if there is no path; () from a switch to itself.
    """
    costs = usable(network, avoid)
    arrivals = widest_arrivals(Graph(costs), network.links, src)
    if src == dst:
        return ()
    if dst not in arrivals:
        return None
    tightest, node = inf, dst
    while node != src:
        link = arrivals[node]
        tightest = min(tightest, free_mbit(network.links[link]))
        node = link.src.switch
    wide = {
        link: cost for link, cost in costs.items() if free_mbit(network.links[link]) >= tightest
    }
    return Graph(wide).path(src, dst)


def disjoint(network: Network, src: str, dst: str, k: int) -> list[Path]:
    """Return up to ``k`` paths that share no link, the least number of links in all; short first.

    The two directions of a connection count as one link. Fewer than ``k`` come back where there
    are no more; redundant links, and then those of last resort, are used where there would be
    fewer without them. A minimum-cost flow, with one unit a path.
    """
    if src == dst or k < 1:
        return []
    costs = usable(network)
    graph: nx.DiGraph[str | Link] = nx.DiGraph()
    graph.add_node(src, demand=-k)
    graph.add_node(dst, demand=k)
    for link in sorted(costs, key=link_order):
        # A node of its own for each link: there may be parallel ones.
        graph.add_edge(link.src.switch, link, capacity=1, weight=costs[link])
        graph.add_edge(link, link.dst.switch, capacity=1, weight=0)
    # What finds no way takes this, which is dearer than all links together.
    graph.add_edge(src, dst, capacity=k, weight=sum(costs.values()) + 1)
    flow = nx.min_cost_flow(graph)
    used: dict[str, list[Link]] = {}
    for node, onward in flow.items():
        if isinstance(node, Link) and any(onward.values()):
            used.setdefault(node.src.switch, []).append(node)
    for links in used.values():
        links.sort(key=link_order, reverse=True)
    paths = []
    for _ in range(k - flow[src][dst]):
        path: list[Link] = []
        node = src
        while node != dst:
            path.append(used[node].pop())
            node = path[-1].dst.switch
        paths.append(tuple(path))
    return sorted(
        paths, key=lambda path: (sum(costs[link] for link in path), *map(link_order, path))
    )
