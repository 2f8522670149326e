"""ActiveCDN, the provider's side (seed 003, 7.1): who is sent to which node.

A request comes from a *region*: a prefix of the table of locations. If a node with the module is
near, its client is sent there. If none is, the origin serves, and a SETUP goes towards that
client; a PROBE tells which nodes have the module now, and where. Regions from which nobody asks
any more are not renewed: their modules expire, and everything begins anew.
"""

import asyncio
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from ipaddress import ip_address, ip_network
from typing import Any, Protocol

import structlog

from anabranch.core.tasks import end_task
from anabranch.services.errors import ServicesError
from anabranch.services.modules.activecdn.locations import Locations, Place
from anabranch.services.node.sending import Signaller
from anabranch.services.provider import Offer, Path
from anabranch.services.signalling.compose import Author
from anabranch.services.signalling.gist.objects import Address
from anabranch.services.signalling.response import Hop
from anabranch.services.signalling.values import Network

_TURN_S = 0.5
_RETRY_S = 30.0
_MOST_REGIONS = 1024
_PREFIX = {4: 24, 6: 56}
"""Of a region that is in no table."""
_log = structlog.get_logger("anabranch.services.cdn")


@dataclass(frozen=True, slots=True)
class Node:
    """A node that has the module.

    Attributes:
        serves: ``ADDRESS:PORT`` of the module.
        address: of the node itself, towards us.
        answers: that the module has given so far.
    """

    node_id: str
    serves: str
    address: Address
    answers: int = 0


class Edge(Protocol):
    """Where modules can be had."""

    async def install(self, towards: Address) -> Sequence[Node]:
        """Have or renew the module on the nodes towards a user. Raises ServicesError."""
        ...

    async def remove(self, towards: Address) -> None:
        """Have it there no longer. Raises ServicesError."""
        ...


class SignalledEdge:
    """Implements :class:`Edge` by messages along the path."""

    def __init__(
        self, signaller: Signaller, author: Author, offer: Offer, properties: Mapping[str, str]
    ) -> None:
        self._signaller = signaller
        self._author = author
        self._offer = offer
        self._properties = properties
        self._paths: dict[Address, Path] = {}

    async def install(self, towards: Address) -> Sequence[Node]:
        path = self._paths.setdefault(towards, Path(self._signaller, self._author, towards))
        await path.install(self._offer, properties=self._properties)
        return nodes_of(await path.probe("address,status", name=self._offer.name))

    async def remove(self, towards: Address) -> None:
        path = self._paths.pop(towards, None)
        if path is not None:
            await path.remove(self._offer)


def nodes_of(hops: Sequence[Hop]) -> list[Node]:
    """Return the nodes of a response stack on which the module runs, and says where it serves."""
    found = []
    for hop in hops:
        host, _, port = hop.details.get("serves", "").rpartition(":")
        try:
            good = ip_address(host).version == 4 and 0 < int(port) < 65536
            address = ip_address(hop.details.get("address", ""))
        except ValueError:
            continue
        if good and hop.details.get("state") == "running":
            given = [value for name, value in hop.details.items() if name.startswith("answers.")]
            answers = sum(int(value) for value in given if value.isascii() and value.isdigit())
            found.append(Node(hop.node_id, f"{host}:{port}", address, answers))
    return found


@dataclass(frozen=True, slots=True)
class Deployment:
    """A node with the module, for as long as it is known to have it.

    Attributes:
        place: None: nobody knows where it is.
        until: monotonic seconds.
    """

    node: Node
    place: Place | None
    until: float


@dataclass(slots=True)
class Region:
    """Users of one prefix.

    Attributes:
        client: one of them, towards whom messages go.
        asked_at: when the last one asked, here or at one of its nodes; monotonic seconds.
        due_at: when the module is asked for, or asked for anew.
        nodes: identities of the nodes on the way to it that have the module.
        answers: that these have given.
    """

    prefix: Network
    place: Place | None
    client: Address
    asked_at: float
    due_at: float = 0.0
    nodes: frozenset[str] = frozenset()
    answers: int = 0


class Deployments:
    """Which nodes have the module, and which is nearest to whom. Pure.

    Args:
        radius_km: no node further away than this is near.
    """

    def __init__(self, radius_km: float) -> None:
        self._radius_km = radius_km
        self._known: dict[str, Deployment] = {}

    def put(self, deployment: Deployment) -> None:
        self._known[deployment.node.node_id] = deployment

    def drop(self, node_id: str) -> None:
        self._known.pop(node_id, None)

    def current(self, now: float) -> list[Deployment]:
        return [each for each in self._known.values() if each.until > now]

    def nearest(self, region: Region, now: float) -> Deployment | None:
        """Return the nearest node that is near; one on the way counts as near if nobody knows."""
        distances = []
        for each in self.current(now):
            if each.place is not None and region.place is not None:
                distance = each.place.distance_km(region.place)
            elif each.node.node_id in region.nodes:
                distance = self._radius_km
            else:
                continue
            if distance <= self._radius_km:
                distances.append((distance, each.node.node_id, each))
        return min(distances)[2] if distances else None


class CdnProvider:
    """Has the module where users are, and says where each is sent.

    Args:
        ttl: seconds for which nodes keep the module unless it is renewed.
        renewal: seconds after which it is; also how soon a node that has gone is noticed.
        radius_km: how far from its users a node may be.
    """

    def __init__(
        self,
        locations: Locations,
        edge: Edge,
        *,
        ttl: float = 120.0,
        renewal: float = 15.0,
        radius_km: float = 500.0,
    ) -> None:
        self._locations = locations
        self._edge = edge
        self._ttl = ttl
        self._renewal = min(renewal, ttl / 3)
        self._regions: dict[Network, Region] = {}
        self._tasks: dict[Network, asyncio.Task[None]] = {}
        self.deployments = Deployments(radius_km)
        self.redirected = self.served = 0

    def route(self, client: Address) -> str | None:
        """Return ``ADDRESS:PORT`` of the node that a client is sent to; None: serve it yourself."""
        now = time.monotonic()
        region = self._region(client, now)
        found = self.deployments.nearest(region, now) if region is not None else None
        if found is None:
            self.served += 1
            return None
        self.redirected += 1
        return found.node.serves

    async def run(self) -> None:
        """Send what has to be sent until it is cancelled; then remove the modules."""
        try:
            while True:
                self.turn()
                await asyncio.sleep(_TURN_S)
        finally:
            for task in list(self._tasks.values()):
                await end_task(task)
            for region in self._regions.values():
                if region.nodes:
                    with suppress(ServicesError):
                        await self._edge.remove(region.client)

    def turn(self) -> None:
        """See to every region that is due; what takes time is done in tasks."""
        now = time.monotonic()
        for prefix, region in list(self._regions.items()):
            if prefix in self._tasks:
                continue
            if now - region.asked_at > self._ttl:
                del self._regions[prefix]  # its modules expire
            elif now >= region.due_at and self._wanted(region, now):
                task = asyncio.create_task(self._have(region), name=f"cdn:{prefix}")
                self._tasks[prefix] = task
                task.add_done_callback(partial(self._forget_task, prefix))

    def status(self) -> dict[str, Any]:
        """Return what stands where, for people."""
        now = time.monotonic()
        return {
            "redirected": self.redirected,
            "served": self.served,
            "nodes": [
                {
                    "node": each.node.node_id, "serves": each.node.serves,
                    "place": each.place.name if each.place else None,
                    "expires_in_s": round(each.until - now, 1),
                }
                for each in self.deployments.current(now)
            ],
            "regions": [
                {
                    "prefix": str(each.prefix), "place": each.place.name if each.place else None,
                    "nodes": sorted(each.nodes), "asked_s_ago": round(now - each.asked_at, 1),
                }
                for each in self._regions.values()
            ],
        }  # fmt: skip

    def _forget_task(self, prefix: Network, task: asyncio.Task[None]) -> None:
        self._tasks.pop(prefix, None)
        if not task.cancelled() and (error := task.exception()) is not None:
            _log.error("setup.failed", region=str(prefix), error=repr(error))

    def _region(self, client: Address, now: float) -> Region | None:
        found = self._locations.find(client)
        prefix, place = found or (
            ip_network(f"{client}/{_PREFIX[client.version]}", strict=False), None
        )  # fmt: skip
        region = self._regions.get(prefix)
        if region is None:
            if len(self._regions) >= _MOST_REGIONS:
                return None
            region = self._regions[prefix] = Region(prefix, place, client, now)
        region.asked_at = now
        return region

    def _wanted(self, region: Region, now: float) -> bool:
        """Say whether a region needs the module: it has it, or no node is near."""
        return bool(region.nodes) or self.deployments.nearest(region, now) is None

    async def _have(self, region: Region) -> None:
        until = time.monotonic() + self._ttl
        try:
            nodes = await self._edge.install(region.client)
        except ServicesError as error:
            _log.warning("setup.refused", region=str(region.prefix), error=str(error))
            self._lost(region, frozenset())
            region.due_at = time.monotonic() + _RETRY_S
            return
        for node in nodes:
            found = self._locations.find(node.address)
            self.deployments.put(Deployment(node, found[1] if found else None, until))
        names = frozenset(node.node_id for node in nodes)
        answers = sum(node.answers for node in nodes)
        if answers > region.answers:
            region.asked_at = time.monotonic()  # users who no longer come by here
        region.answers = answers
        if names != region.nodes:
            _log.info("nodes", region=str(region.prefix), nodes=sorted(names))
        self._lost(region, names)
        region.due_at = time.monotonic() + self._renewal

    def _lost(self, region: Region, names: frozenset[str]) -> None:
        """Take the nodes off that a region had, unless another one has them."""
        others = {name for each in self._regions.values() if each is not region
                  for name in each.nodes}  # fmt: skip
        for name in region.nodes - names - others:
            self.deployments.drop(name)
        region.nodes = names
