"""Where a viewer is sent: to which leaf, and with which rendition.

A package offers another way by an entry point of the group ``anabranch.tree_placement``: an object
that satisfies :class:`Placement`, or a class that makes one.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from random import Random
from typing import Protocol, runtime_checkable

from anabranch.core.errors import UnavailableError, UsageError
from anabranch.core.plugins import find_plugin
from anabranch.tree.state import NodeState, Phase

GROUP = "anabranch.tree_placement"
DEFAULT = "best"

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

_HEADROOM = 0.85  # share of a viewer's bandwidth that a rendition may take


@dataclass(frozen=True, slots=True)
class Rung:
    """A rendition that can be had: its ``stream`` identifier, lines of its picture, kbit/s."""

    stream: str
    height: int
    bitrate_kbps: int


@dataclass(frozen=True, slots=True)
class Request:
    """What is known of a viewer who comes.

    Attributes:
        ladder: the renditions of what is asked for.
        address: where from; None: not known.
        device: its kind, such as ``phone``.
        bandwidth_kbps: that the viewer's way in has; None: not known.
    """

    ladder: tuple[Rung, ...]
    address: Address | None = None
    device: str | None = None
    bandwidth_kbps: float | None = None


@dataclass(frozen=True, slots=True)
class Place:
    """Where a viewer is sent, and what is shown there."""

    leaf: str
    stream: str


@runtime_checkable
class Placement(Protocol):
    """Decides where viewers are sent. A pure function of its arguments and of ``rng``."""

    def choose(self, request: Request, leaves: Sequence[NodeState], rng: Random) -> Place:
        """Return the place for a viewer; ``leaves`` in any order and condition.

        Raises:
            UnavailableError: no leaf takes this viewer at the moment.
        """
        ...


class PrefixTable:
    """The operator's table: which leaves are near which networks, the nearest first.

    The longest prefix that an address is in decides (RFC 1812, section 5.2.4.3).
    """

    def __init__(self, table: Mapping[Network, Sequence[str]]) -> None:
        self._leaves = {
            (network.version, network.prefixlen, int(network.network_address)): tuple(leaves)
            for network, leaves in table.items()
        }
        self._lengths = {
            version: sorted({bits for of, bits, _ in self._leaves if of == version}, reverse=True)
            for version in (4, 6)
        }

    def preferred(self, address: Address) -> tuple[str, ...]:
        """Return the leaves near ``address``; none, if the table does not know it."""
        if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
            address = address.ipv4_mapped
        number = int(address)
        for bits in self._lengths[address.version]:
            shift = address.max_prefixlen - bits
            found = self._leaves.get((address.version, bits, number >> shift << shift))
            if found is not None:
                return found
        return ()


@dataclass(frozen=True, slots=True)
class Preferences:
    """What counts, and how much, in the cost of a leaf. The lowest cost wins.

    Attributes:
        table: which leaves are near.
        load: cost of a leaf that is full; less as it is less so.
        distance: cost of a leaf that the table does not name for the viewer's network; half of
            it at most for those that it names after the first.
        new_stream: cost of a leaf that does not receive the stream yet.
        heights: lines of picture that devices can show, by kind.
    """

    table: PrefixTable = field(default_factory=lambda: PrefixTable({}))
    load: float = 1.0
    distance: float = 0.5
    new_stream: float = 0.05
    heights: Mapping[str, int] = field(default_factory=lambda: {"phone": 720, "tablet": 1080})


class Best:
    """The leaf of least cost; see :class:`Placement`."""

    def __init__(self, preferences: Preferences | None = None) -> None:
        self._preferences = preferences or Preferences()

    def choose(self, request: Request, leaves: Sequence[NodeState], rng: Random) -> Place:
        """See :class:`Placement`. Among leaves of equal cost chance decides."""
        open_ = [leaf for leaf in leaves if takes(leaf, request.address)]
        if not open_:
            raise UnavailableError("no leaf is ready; try again in a moment")
        stream = rendition(request, self._preferences.heights)
        costs = {leaf.name: self._cost(leaf, request, stream) for leaf in open_}
        least = min(costs.values())
        names = sorted(name for name, cost in costs.items() if cost - least < 1e-9)
        return Place(rng.choice(names), stream)

    def _cost(self, leaf: NodeState, request: Request, stream: str) -> float:
        weights = self._preferences
        full = max(leaf.viewers / leaf.capacity, leaf.egress or 0.0)
        cost = weights.load * full
        if stream not in leaf.streams:
            cost += weights.new_stream
        near = weights.table.preferred(request.address) if request.address else ()
        if leaf.name in near:
            cost += weights.distance * near.index(leaf.name) / len(near) / 2
        elif near:
            cost += weights.distance
        return cost


def takes(leaf: NodeState, address: Address | None) -> bool:
    """Say whether a leaf takes somebody new who comes from ``address``."""
    if leaf.phase is not Phase.UP or not leaf.ready or leaf.viewers >= leaf.capacity:
        return False
    if leaf.egress is not None and leaf.egress >= 1:
        return False
    return address is None or not leaf.serves or any(address in each for each in leaf.serves)


def rendition(request: Request, heights: Mapping[str, int]) -> str:
    """Return the stream of the best rendition that the viewer's device and way in bear.

    Where none fits the least of them is shown.

    Raises:
        UsageError: the ladder is empty.
    """
    if not request.ladder:
        raise UsageError("there is nothing to watch")
    bandwidth, height = request.bandwidth_kbps, heights.get(request.device or "")
    ladder = sorted(request.ladder, key=lambda rung: (rung.bitrate_kbps, rung.stream))
    fit = [
        rung
        for rung in ladder
        if (bandwidth is None or rung.bitrate_kbps <= _HEADROOM * bandwidth)
        and (height is None or rung.height <= height)
    ]
    return fit[-1].stream if fit else ladder[0].stream


def find(name: str = DEFAULT) -> Placement:
    """Return the placement called ``name``.

    Raises:
        UsageError: there is none, it cannot be imported, or it is no placement.
    """
    return find_plugin(GROUP, name, Placement, {DEFAULT: Best})  # type: ignore[type-abstract]
