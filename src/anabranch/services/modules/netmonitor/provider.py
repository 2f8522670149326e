"""NetMonitor, the side of who looks on: the counters of all nodes on a path, again and again."""

import asyncio
import re
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Protocol

import structlog
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from anabranch.services.errors import ServicesError
from anabranch.services.node.sending import Signaller
from anabranch.services.provider import Offer, Path
from anabranch.services.signalling.compose import Author
from anabranch.services.signalling.gist.objects import Address
from anabranch.services.signalling.response import Hop

TOP = 16
"""Flows that are told by each node: a status has at most 20 figures."""
HISTORY = 120
"""Measurements that are remembered."""
_RATE_OVER = 3
_FLOW = re.compile(r"([0-9.]{7,15})_([0-9.]{7,15})_(\d{1,3})", re.ASCII)
_COUNT = re.compile(r"\d{1,18}", re.ASCII)
_SIX = "IPv6"
"""The module tells addresses of IPv4 alone."""
_log = structlog.get_logger("anabranch.services.monitor")

Flow = tuple[str, str, int]
"""Source, destination, TTL."""


@dataclass(frozen=True, slots=True)
class Counted:
    """What one node has counted at one time.

    Attributes:
        state: ``running``, or why there are no figures.
        packets, flows: all of them.
        lost: packets for which the module's ring had no room.
        top: packets of the largest flows.
    """

    node_id: str
    address: str
    state: str
    packets: int = 0
    flows: int = 0
    lost: int = 0
    top: dict[Flow, int] = field(default_factory=dict)

    @classmethod
    def of(cls, hop: Hop) -> "Counted":
        """Read what a node answers; what is no figure is left out."""
        said = hop.details
        top = {}
        for name, value in said.items():
            found = _FLOW.fullmatch(name)
            if found and _COUNT.fullmatch(value):
                ends = (_SIX, _SIX) if found[1] == found[2] == "0.0.0.0" else found.group(1, 2)
                top[ends[0], ends[1], int(found[3])] = int(value)
        numbers = {name: int(said[name]) for name in ("counted", "flows", "lost")
                   if _COUNT.fullmatch(said.get(name, ""))}  # fmt: skip
        return cls(
            hop.node_id, said.get("address", ""), said.get("state", hop.reason),
            numbers.get("counted", 0), numbers.get("flows", 0), numbers.get("lost", 0), top,
        )  # fmt: skip


class Counters:
    """The measurements of a path, and what follows from them. Pure."""

    def __init__(self) -> None:
        self._taken: deque[tuple[float, dict[str, Counted]]] = deque(maxlen=HISTORY)

    def put(self, at: float, counted: Sequence[Counted]) -> None:
        """Remember a measurement; ``at`` in seconds since the epoch, nodes in their order."""
        self._taken.append((at, {each.node_id: each for each in counted}))

    @property
    def last(self) -> dict[str, Counted]:
        return self._taken[-1][1] if self._taken else {}

    @property
    def at(self) -> float | None:
        return self._taken[-1][0] if self._taken else None

    def rate(self, node_id: str, flow: Flow | None = None) -> float:
        """Return the packets a second that a node counts lately, in all or of one flow."""
        return self._rate(len(self._taken) - 1, _RATE_OVER, node_id, flow)

    def history(self, node_id: str) -> list[float | None]:
        """Return the rates between the measurements, the oldest first; None: none was taken."""
        return [
            self._rate(index, 1, node_id, None)
            if node_id in self._taken[index][1] and node_id in self._taken[index - 1][1]
            else None
            for index in range(1, len(self._taken))
        ]

    def _rate(self, index: int, over: int, node_id: str, flow: Flow | None) -> float:
        before = max(index - over, 0)
        if index <= before:
            return 0.0
        (began, first), (ended, last) = self._taken[before], self._taken[index]
        if node_id not in first or node_id not in last or ended <= began:
            return 0.0
        if flow is None:
            counts = first[node_id].packets, last[node_id].packets
        else:
            counts = first[node_id].top.get(flow, -1), last[node_id].top.get(flow, -1)
            if min(counts) < 0:
                return 0.0
        # A module that was installed anew begins with 0.
        return max(counts[1] - counts[0], 0) / (ended - began)

    def snapshot(self) -> dict[str, Any]:
        """Return all of it for JSON: nodes in their order, the largest flows first."""
        nodes = [
            {
                "node": each.node_id, "address": each.address, "state": each.state,
                "packets": each.packets, "flows": each.flows, "lost": each.lost,
                "rate": round(self.rate(each.node_id), 1),
                "history": [None if r is None else round(r, 1)
                            for r in self.history(each.node_id)],
            }
            for each in self.last.values()
        ]  # fmt: skip
        flows: dict[tuple[str, str], list[dict[str, Any]]] = {}
        for each in self.last.values():
            for flow, packets in each.top.items():
                source, destination, ttl = flow
                flows.setdefault((source, destination), []).append({
                    "node": each.node_id, "ttl": ttl, "packets": packets,
                    "rate": round(self.rate(each.node_id, flow), 1),
                })  # fmt: skip
        listed: list[dict[str, Any]] = [
            {"source": source, "destination": destination, "seen": seen}
            for (source, destination), seen in flows.items()
        ]
        listed.sort(key=lambda flow: _largest(flow["seen"]), reverse=True)
        return {"at": self.at, "nodes": nodes, "flows": listed[:TOP]}

    def collect(self) -> Iterator[Metric]:
        """Yield what Prometheus is told (a collector of prometheus_client)."""
        packets = CounterMetricFamily(
            "anabranch_netmonitor_packets", "Packets counted", labels=["node"]
        )
        lost = CounterMetricFamily(
            "anabranch_netmonitor_lost", "Packets without room in the ring", labels=["node"]
        )
        flows = GaugeMetricFamily("anabranch_netmonitor_flows", "Flows known", labels=["node"])
        largest = CounterMetricFamily(
            "anabranch_netmonitor_flow_packets", "Packets of the largest flows",
            labels=["node", "source", "destination", "ttl"],
        )  # fmt: skip
        for each in self.last.values():
            packets.add_metric([each.node_id], each.packets)
            lost.add_metric([each.node_id], each.lost)
            flows.add_metric([each.node_id], each.flows)
            for (source, destination, ttl), count in each.top.items():
                largest.add_metric([each.node_id, source, destination, str(ttl)], count)
        yield from (packets, lost, flows, largest)


def _largest(seen: list[dict[str, Any]]) -> int:
    """Of all packets, not of the rate: so that rows do not change places all the time."""
    return max(int(each["packets"]) for each in seen)


class Edge(Protocol):
    """The nodes on the way."""

    async def install(self) -> None:
        """Have or renew the module on all of them. Raises ServicesError."""
        ...

    async def probe(self) -> Sequence[Hop]:
        """Ask all of them. Raises ServicesError."""
        ...

    async def remove(self) -> None:
        """Have it no longer. Raises ServicesError."""
        ...


class SignalledEdge:
    """Implements :class:`Edge` by messages along the path."""

    def __init__(
        self, signaller: Signaller, author: Author, towards: Address, offer: Offer
    ) -> None:
        self._path = Path(signaller, author, towards)
        self._offer = offer

    async def install(self) -> None:
        await self._path.install(self._offer, properties={"top": str(TOP)})

    async def probe(self) -> Sequence[Hop]:
        return await self._path.probe("address,status", name=self._offer.name)

    async def remove(self) -> None:
        await self._path.remove(self._offer)


class Monitor:
    """Keeps the module installed and asks the nodes again and again.

    Args:
        interval: seconds between two questions.
        renewal: seconds after which the module is asked for anew; less than its ttl.

    Attributes:
        counters: what came of it.
        trouble: why there is nothing new, for people; None: there is.
    """

    def __init__(self, edge: Edge, *, interval: float = 1.0, renewal: float = 30.0) -> None:
        self._edge = edge
        self._interval = interval
        self._renewal = renewal
        self._installed_at: float | None = None
        self.counters = Counters()
        self.trouble: str | None = "The module is being installed."

    async def run(self) -> None:
        """Run until it is cancelled; then remove the module."""
        try:
            while True:
                began = time.monotonic()
                await self.turn()
                await asyncio.sleep(max(self._interval - (time.monotonic() - began), 0.05))
        finally:
            with suppress(ServicesError):
                await self._edge.remove()

    async def turn(self) -> None:
        """Install or renew if that is due, and ask once."""
        now = time.monotonic()
        try:
            if self._installed_at is None or now - self._installed_at >= self._renewal:
                await self._edge.install()
                self._installed_at = now
            hops = await self._edge.probe()
        except ServicesError as error:
            if self.trouble != str(error):
                _log.warning("monitor.silent", error=str(error))
            self.trouble = str(error)
            self._installed_at = None  # a node may have been started anew
            return
        self.trouble = None
        counted = [Counted.of(hop) for hop in hops]
        if any(each.state == "absent" for each in counted):
            self._installed_at = None
        self.counters.put(time.time(), counted)
