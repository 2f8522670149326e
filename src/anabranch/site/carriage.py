"""Carriage: which stream goes to which leaf, and the two ways to bring it there.

``SwitchCarriage`` turns wishes into flow rules along the tree. ``DirectCarriage`` serves a
machine without switches: the encoder itself sends to the leaf server, and only what is wanted.
"""

from collections import defaultdict
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Network
from typing import Protocol

from anabranch.core.errors import UsageError
from anabranch.fabric.controller import Controller
from anabranch.fabric.flows import Delivery, Hop, MediaFlow, Rule, rules_for
from anabranch.media.leaf import Inlet
from anabranch.site.plan import HOST_PORT, UP_PORT, SitePlan

STREAM_PORT = 5004
AUDIO = "audio"
_COOKIE = 0xAB << 56

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
    offset = slot * 16 + index
    if not 0 <= index < 16 or offset >= groups.num_addresses:
        raise UsageError(f"the group range {groups} has no room for channel slot {slot}")
    return str(groups[offset])


class Carriage(Protocol):
    """Brings streams to leaves."""

    def targets(self, stream: StreamId, group: str) -> list[Target]:
        """Return where the encoder must send a stream now."""

    async def carry(self, wants: frozenset[Want], groups: Mapping[StreamId, str]) -> None:
        """Make exactly ``wants`` true. ``groups`` has the overlay address of every stream."""


class SwitchCarriage:
    """Flow rules in the switches along the tree; the encoders always send to the root switch."""

    def __init__(self, plan: SitePlan, controller: Controller) -> None:
        self._plan = plan
        self._controller = controller
        # From upstream to downstream: the controller adds from the far end and removes from the
        # near one, so no packet travels a link whose far end would drop it.
        self._order = [node.name for node in plan.tree]

    def targets(self, stream: StreamId, group: str) -> list[Target]:
        return [(group, STREAM_PORT)]

    async def carry(self, wants: frozenset[Want], groups: Mapping[StreamId, str]) -> None:
        await self._controller.apply(rules_of(self._plan, wants, groups), self._order)


def rules_of(
    plan: SitePlan, wants: Collection[Want], groups: Mapping[StreamId, str]
) -> dict[str, list[Rule]]:
    """Compute the rules of every switch; wants of streams that have gone are left out."""
    by_stream: dict[StreamId, dict[str, list[int]]] = defaultdict(lambda: defaultdict(list))
    for want in sorted(wants):
        if want.stream in groups:
            by_stream[want.stream][want.leaf].append(want.port)
    rules: dict[str, list[Rule]] = {name: [] for name in plan.nodes}
    for stream, leaves in by_stream.items():
        flow = MediaFlow(f"{stream.channel}/{stream.name}", groups[stream], STREAM_PORT)
        hops = []
        for branching in plan.tree.branchings(leaves):
            node = plan.nodes[branching.node]
            deliveries = tuple(
                Delivery(HOST_PORT, node.host.mac, str(node.overlay_address), port)
                for port in leaves.get(branching.node, ())
            )
            hops.append(
                Hop(
                    branching.node,
                    HOST_PORT if branching.node == plan.tree.root.name else UP_PORT,
                    frozenset(node.child_ports[child] for child in branching.children),
                    deliveries,
                )
            )
        for switch, added in rules_for(flow, hops, _COOKIE).items():
            rules[switch] += added
    return rules


class DirectCarriage:
    """No switches: each encoder is told the ports of the leaf server that want its streams."""

    def __init__(self, address: str, retarget: Callable[[StreamId, list[Target]], None]) -> None:
        self._address = address
        self._retarget = retarget
        self._targets: dict[StreamId, list[Target]] = {}

    def targets(self, stream: StreamId, group: str) -> list[Target]:
        return self._targets.get(stream, [])

    async def carry(self, wants: frozenset[Want], groups: Mapping[StreamId, str]) -> None:
        wanted: dict[StreamId, list[Target]] = defaultdict(list)
        for want in sorted(wants):
            if want.stream in groups:
                wanted[want.stream].append((self._address, want.port))
        before, self._targets = self._targets, dict(wanted)
        for stream in before.keys() | wanted.keys():
            if before.get(stream, []) != wanted.get(stream, []):
                self._retarget(stream, wanted.get(stream, []))
