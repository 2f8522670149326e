"""Carriage: which stream goes to which leaf, and the two ways to bring it there.

``SwitchCarriage`` turns wishes into flow rules along the tree. ``DirectCarriage`` serves a
machine without switches: the encoder itself sends to the leaf server, and only what is wanted.
"""

from collections import defaultdict
from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address
from typing import Protocol

from anabranch.core.errors import UsageError
from anabranch.fabric.errors import MisuseError
from anabranch.fabric.intents import Egress, Flow, Intents
from anabranch.fabric.model import PortRef
from anabranch.fabric.openflow.oxm import ETH_IPV4, ETH_IPV6, IP_UDP, Match
from anabranch.media.leaf import Inlet
from anabranch.site.layout import HOST_PORT, OUTLET_PORT
from anabranch.site.plan import NodePlan, SitePlan

STREAM_PORT = 5004
STREAMS = 16
"""Of a channel at most: so many addresses it has."""
AUDIO = "audio"
_GROUPS_6 = int(IPv6Address("ff15::"))
"""Transient multicast groups of site-local scope (RFC 4291, section 2.7)."""

Target = tuple[str, int]


@dataclass(frozen=True, slots=True, order=True)
class StreamId:
    """One RTP stream of a channel: a rendition's video, or ``audio``."""

    channel: str
    name: str


@dataclass(frozen=True, slots=True, order=True)
class Want:
    """A leaf wants a stream at one of its UDP ports."""

    stream: StreamId
    leaf: str
    port: int


@dataclass(frozen=True, slots=True, order=True)
class Repair:
    """A node asks the ring server of another, at its UDP port, for packets, and gets them."""

    asker: str
    ring: str
    port: int


@dataclass(frozen=True, slots=True, order=True)
class Route:
    """Pipelines of a node send UDP to a place on the overlay."""

    node: str
    to: Target


@dataclass(frozen=True, slots=True, order=True)
class Bucket:
    """A leaf's sort switch sends a stream to a receiver's UDP port."""

    stream: StreamId
    leaf: str
    receiver: Target

    @property
    def by_6(self) -> bool:
        return ":" in self.receiver[0]


@dataclass(frozen=True, slots=True, order=True)
class Brought:
    """A stream is brought to a leaf's sort switch, whether it goes anywhere from there or not.

    ``by_6``: as IPv6, for receivers that have it; no switch makes the one of the other.
    """

    stream: StreamId
    leaf: str
    by_6: bool = False


@dataclass(frozen=True, slots=True)
class Sorting:
    """What sort switches do.

    Attributes:
        buckets: at most one stream for each receiver.
        brought: the streams of the buckets, and those that are kept at hand.
    """

    buckets: frozenset[Bucket] = frozenset()
    brought: frozenset[Brought] = frozenset()

    def moved(self, later: "Sorting") -> bool:
        """Say whether a receiver gets another stream then, from the same leaf, than now."""
        gone, come = self.buckets - later.buckets, later.buckets - self.buckets
        before = {(bucket.leaf, bucket.receiver) for bucket in gone}
        return any((bucket.leaf, bucket.receiver) in before for bucket in come)


NOTHING_SORTED = Sorting()


def wants_of(leaf: str, inlets: Collection[Inlet]) -> frozenset[Want]:
    """Return what a leaf with these inlets wants: the video, and the sound of its channel."""
    wants = set()
    for inlet in inlets:
        feed = inlet.feed
        wants.add(Want(StreamId(feed.channel, feed.rendition), leaf, inlet.video_port))
        if inlet.audio_port:
            wants.add(Want(StreamId(feed.channel, AUDIO), leaf, inlet.audio_port))
    return frozenset(wants)


def group_address(groups: IPv4Network, slot: int, index: int) -> str:
    """Return the overlay multicast address of stream ``index`` of the channel in ``slot``.

    Raises:
        UsageError: the range has no such slot.
    """
    offset = slot * STREAMS + index
    if not 0 <= index < STREAMS or offset >= groups.num_addresses:
        raise UsageError(f"the group range {groups} has no room for channel slot {slot}")
    return str(groups[offset])


def group_address_6(group: str) -> str:
    """Return the IPv6 group of a stream; ``group`` is that of IPv4, its last 32 bits."""
    return str(IPv6Address(_GROUPS_6 | int(IPv4Address(group))))


class Carriage(Protocol):
    """Brings streams to leaves."""

    def targets(self, stream: StreamId, group: str) -> list[Target]:
        """Return where the encoder must send a stream now."""

    async def carry(
        self,
        wants: frozenset[Want],
        groups: Mapping[StreamId, str],
        routes: frozenset[Route],
        repairs: frozenset[Repair] = frozenset(),
        sorting: Sorting = NOTHING_SORTED,
    ) -> None:
        """Make exactly ``wants``, ``routes``, ``repairs`` and ``sorting`` true.

        ``groups`` has the overlay address of every stream.
        """


class SwitchCarriage:
    """Flows through the switches; the encoders always send to the root's.

    Args:
        put: has the fabric carry exactly what it is told.
        on_targets: told of a stream, and its group, whose :meth:`targets` are others now.
    """

    def __init__(
        self,
        plan: SitePlan,
        put: Callable[[Intents], Awaitable[frozenset[str]]],
        on_targets: Callable[[StreamId, str], None] = lambda _stream, _group: None,
    ) -> None:
        self._plan = plan
        self._put = put
        self._on_targets = on_targets
        self._sorted = NOTHING_SORTED
        self._by_6: frozenset[StreamId] = frozenset()

    def targets(self, stream: StreamId, group: str) -> list[Target]:
        by_6 = [(group_address_6(group), STREAM_PORT)] if stream in self._by_6 else []
        return [(group, STREAM_PORT), *by_6]

    async def carry(
        self,
        wants: frozenset[Want],
        groups: Mapping[StreamId, str],
        routes: frozenset[Route],
        repairs: frozenset[Repair] = frozenset(),
        sorting: Sorting = NOTHING_SORTED,
    ) -> None:
        flows = repair_flows(self._plan, repairs) + flows_of(self._plan, routes)
        before = self._sorted
        self._send_by_6(frozenset(it.stream for it in sorting.brought if it.by_6), groups)
        if before.moved(sorting) and not sorting.brought <= before.brought:
            # First all that somebody moves to is brought to where it is sorted; then the buckets
            # move, which are in groups that are there, all at once.
            both = Sorting(before.buckets, before.brought | sorting.brought)
            await self._carry(intents_of(self._plan, wants, groups, both), flows)
        await self._carry(intents_of(self._plan, wants, groups, sorting), flows)
        self._sorted = sorting

    def _send_by_6(self, wanted: frozenset[StreamId], groups: Mapping[StreamId, str]) -> None:
        """Have encoders send by IPv6, too, what somebody takes so, and nothing else."""
        changed, self._by_6 = self._by_6 ^ wanted, wanted
        for stream in sorted(changed & groups.keys()):
            self._on_targets(stream, groups[stream])

    async def _carry(self, viewers: Intents, flows: tuple[Flow, ...]) -> None:
        try:
            await self._put(Intents(viewers.flows + flows))
        except MisuseError:
            if flows:  # what contradicts an operator's path must not keep viewers from theirs
                await self._put(viewers)
            raise


def repair_flows(plan: SitePlan, repairs: Collection[Repair]) -> tuple[Flow, ...]:
    """Return two flows for every repair, of questions and of answers, by their UDP port."""
    flows = []
    for repair in sorted(repairs):
        asker, ring = plan.nodes.get(repair.asker), plan.nodes.get(repair.ring)
        if asker is None or ring is None:
            continue
        name = f"repair/{asker.name}/{ring.name}"
        flows += [
            _between(f"{name}/asked", asker, ring, to_port=repair.port),
            _between(f"{name}/answered", ring, asker, from_port=repair.port),
        ]
    return tuple(flows)


def _between(
    name: str,
    source: NodePlan,
    there: NodePlan,
    *,
    from_port: int | None = None,
    to_port: int | None = None,
) -> Flow:
    """Return a flow of UDP from one node's host to another's."""
    return Flow(
        name,
        Match(
            eth_type=ETH_IPV4,
            ip_proto=IP_UDP,
            ipv4_src=str(source.overlay_address),
            ipv4_dst=str(there.overlay_address),
            udp_src=from_port,
            udp_dst=to_port,
        ),
        PortRef(source.name, HOST_PORT),
        frozenset({Egress(PortRef(there.name, HOST_PORT), there.host.mac)}),
    )


def flows_of(plan: SitePlan, routes: Collection[Route]) -> tuple[Flow, ...]:
    """Return one flow for every route to the host of another node; the rest is left out."""
    nodes = {str(node.overlay_address): node for node in plan.nodes.values()}
    flows = []
    for route in sorted(routes):
        address, port = route.to
        source, there = plan.nodes.get(route.node), nodes.get(address)
        if source is None or there is None or there is source:
            continue
        name = f"pipelines/{route.node}/{address}:{port}"
        flows.append(_between(name, source, there, to_port=port))
    return tuple(flows)


def intents_of(
    plan: SitePlan,
    wants: Collection[Want],
    groups: Mapping[StreamId, str],
    sorting: Sorting = NOTHING_SORTED,
) -> Intents:
    """Return one flow for every wanted stream; what is wanted of streams, or at nodes, that have
    gone is left out."""
    ports: dict[_Form, set[Egress]] = defaultdict(set)
    sort: dict[_Form, set[str]] = defaultdict(set)
    for brought in sorting.brought:
        if brought.stream in groups and brought.leaf in plan.nodes:
            sort[brought.stream, brought.by_6].add(brought.leaf)
    for bucket in sorting.buckets:
        if bucket.stream not in groups or bucket.leaf not in plan.nodes:
            continue
        form = bucket.stream, bucket.by_6
        sort[form].add(bucket.leaf)
        ports[form].add(_sent(plan.nodes[bucket.leaf], bucket))
    for want in wants:
        if want.stream not in groups:
            continue
        leaf = plan.nodes[want.leaf]
        ports[want.stream, False].add(
            Egress(
                PortRef(want.leaf, HOST_PORT), leaf.host.mac, str(leaf.overlay_address), want.port
            )
        )
    return Intents(
        flows=tuple(
            Flow(
                f"{stream.channel}/{stream.name}" + "/6" * by_6,
                _to_group(groups[stream], by_6=by_6),
                PortRef(plan.root.name, HOST_PORT),
                frozenset(ports[stream, by_6]),
                sort=frozenset(sort[stream, by_6]),
            )
            for stream, by_6 in sorted(ports.keys() | sort.keys())
        )
    )


_Form = tuple[StreamId, bool]
"""A stream, and whether by IPv6."""


def _sent(leaf: NodePlan, bucket: Bucket) -> Egress:
    """Return what a bucket does: to the kernel behind the switch, which knows the way.

    Or by a port of the switch, to a receiver behind it.
    """
    at, (address, port) = PortRef(leaf.name, HOST_PORT), bucket.receiver
    if leaf.outlet is not None and leaf.outlet.leads_to(address):
        at, source = PortRef(leaf.name, OUTLET_PORT), str(leaf.outlet.source)
        return Egress(at, leaf.outlet.next_hop, address, port, ipv4_src=source)
    if bucket.by_6:
        return Egress(at, leaf.host.mac, ipv6_dst=address, udp_dst=port)
    return Egress(at, leaf.host.mac, address, port)


def _to_group(group: str, *, by_6: bool) -> Match:
    if by_6:
        to = group_address_6(group)
        return Match(eth_type=ETH_IPV6, ip_proto=IP_UDP, ipv6_dst=to, udp_dst=STREAM_PORT)
    return Match(eth_type=ETH_IPV4, ip_proto=IP_UDP, ipv4_dst=group, udp_dst=STREAM_PORT)


class DirectCarriage:
    """No switches: each encoder is told the ports of the leaf server that want its streams."""

    def __init__(self, address: str, retarget: Callable[[StreamId, list[Target]], None]) -> None:
        self._address = address
        self._retarget = retarget
        self._targets: dict[StreamId, list[Target]] = {}
        self._begun = False

    def targets(self, stream: StreamId, group: str) -> list[Target]:
        return self._targets.get(stream, [])

    async def carry(
        self,
        wants: frozenset[Want],
        groups: Mapping[StreamId, str],
        _routes: frozenset[Route],
        _repairs: frozenset[Repair] = frozenset(),
        sorting: Sorting = NOTHING_SORTED,
    ) -> None:
        wanted: dict[StreamId, list[Target]] = defaultdict(list)
        for want in sorted(wants):
            if want.stream in groups:
                wanted[want.stream].append((self._address, want.port))
        for bucket in sorted(sorting.buckets):
            if bucket.stream in groups:
                wanted[bucket.stream].append(bucket.receiver)
        before, self._targets = self._targets, dict(wanted)
        if not self._begun:  # encoders of an earlier director send somewhere, wanted or not
            self._begun = True
            before = {stream: [("", 0)] for stream in groups}
        # Those first that somebody may move away from: nobody is to get two.
        for stream in sorted(
            before.keys() | wanted.keys(),
            key=lambda each: set(before.get(each, ())) <= set(wanted.get(each, ())),
        ):
            if before.get(stream, []) != wanted.get(stream, []):
                self._retarget(stream, wanted.get(stream, []))
