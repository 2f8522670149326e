"""Guests: the site's nodes on other machines, and on what terms they are part of it.

Pure, but for the book, which is a file: a guest keeps its number, and with it its addresses, for as
long as it is invited, so that a root that begins anew finds it where it was.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from hashlib import sha256
from ipaddress import IPv4Address, IPv4Interface, IPv4Network
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from anabranch.core.errors import ConflictError, NotFoundError, UsageError
from anabranch.core.files import write_private
from anabranch.core.names import check_name
from anabranch.fabric.bridges import Bridge
from anabranch.host.wireguard import check_key
from anabranch.media.leaf import LeafKind
from anabranch.site.layout import FIRST_NODE_PORT, FIRST_RESERVE_PORT
from anabranch.tree.description import Candidate, CandidateLink
from anabranch.tree.growth import Reason
from anabranch.tree.model import Role
from anabranch.tree.planning import Plan

WIREGUARD = "wireguard"
"""Feature of a guest's HELLO: its WireGuard key."""
HOLDING = "holding"
"""Feature of a guest's HELLO: the digest of the terms that its machine fulfils."""
FAREWELL = "the node ends"
"""Reason of a guest's BYE: it is meant to be gone, and not just away."""
_TERMS = "terms"
_PART = 4000  # characters; a feature has at most 4096
MTU = 1500
"""Of links between machines: a frame that fills it travels in two packets of the tunnel."""
CONTROLLER_PORT = 6653
API_PORT = 6680
_INDEX_BITS = 12


@dataclass(frozen=True, slots=True)
class Guest:
    """A node that is invited.

    Attributes:
        index: its place among the site's nodes, see :class:`~anabranch.site.plan.NodePlan`.
        parents: the nodes from which it may hang; empty: any relay, or the root if there is none.
        rate_mbit: what its links carry.
        capacity: viewers of a leaf at most; None: as many as come.
    """

    name: str
    role: Role
    index: int
    parents: tuple[str, ...] = ()
    rate_mbit: float = 100.0
    capacity: int | None = None


_GUESTS = TypeAdapter(tuple[Guest, ...])


class GuestBook:
    """Who is invited, in a file of mode 0600.

    Args:
        path: the file.
        room: numbers that guests may have; the highest are taken first.
    """

    def __init__(self, path: Path, room: range) -> None:
        """Read the book.

        Raises:
            UsageError: it is damaged, or a guest's number is another node's by now.
            OSError: it cannot be read.
        """
        self._path = path
        self._room = room
        self._guests: dict[str, Guest] = {}
        if path.exists():
            try:
                found = _GUESTS.validate_json(path.read_bytes())
            except ValidationError:
                raise UsageError(f"{path} is no list of guests") from None
            self._guests = {guest.name: guest for guest in found}
        for guest in self:
            if guest.index not in room:
                raise UsageError(
                    f"the guest {guest.name} has number {guest.index}, which is not free any more:"
                    f" the site has too many nodes of its own; remove the guest from {path}"
                )

    def __iter__(self) -> Iterator[Guest]:
        return iter(list(self._guests.values()))

    def __contains__(self, name: str) -> bool:
        return name in self._guests

    def __getitem__(self, name: str) -> Guest:
        return self._guests[name]

    def invite(
        self,
        name: str,
        role: Role,
        *,
        parents: tuple[str, ...] = (),
        rate_mbit: float = 100.0,
        capacity: int | None = None,
    ) -> Guest:
        """Enter a guest; one that is there keeps its number.

        Raises:
            UsageError: no node can be called that, or it is to be a root.
            ConflictError: it is invited in another role, or there is no number left.
            OSError: the book cannot be written.
        """
        check_name(name)
        if role is Role.ROOT:
            raise UsageError("a site has one root")
        if rate_mbit <= 0:
            raise UsageError(f"the link of node {name} has no rate")
        before = self._guests.get(name)
        if before is not None and before.role is not role:
            raise ConflictError(f"{name} is invited as a {before.role}; remove it first")
        index = before.index if before is not None else self._free()
        guest = Guest(name, role, index, parents, rate_mbit, capacity)
        self._guests[name] = guest
        self._save()
        return guest

    def remove(self, name: str) -> Guest:
        """Take a guest out of the book.

        Raises:
            NotFoundError: there is none of that name.
            OSError: the book cannot be written.
        """
        if name not in self._guests:
            raise NotFoundError(f"there is no guest named {name[:60]!r}")
        guest = self._guests.pop(name)
        self._save()
        return guest

    def _free(self) -> int:
        taken = {guest.index for guest in self}
        for index in reversed(self._room):
            if index not in taken:
                return index
        raise ConflictError(f"there is no room for more than {len(self._room)} guests")

    def _save(self) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        write_private(self._path, _GUESTS.dump_json(tuple(self)))


@dataclass(frozen=True, slots=True)
class Way:
    """A guest's end of a link to another node.

    Attributes:
        device, port_no: where it is plugged in, and as which OpenFlow port.
        remote: the far end's address in the tunnel.
        key: VXLAN network identifier.
        bfd_ms: see :class:`~anabranch.site.settings.FabricSettings`.
    """

    device: str
    port_no: int
    remote: IPv4Address
    key: int
    rate_mbit: float
    bfd_ms: int = 0


@dataclass(frozen=True, slots=True)
class Terms:
    """What the root tells a guest: all that its machine must make.

    Attributes:
        address: of its end of the tunnel.
        hub_key, hub_port, hub_life: the hub's WireGuard key and UDP port; ``hub_life`` changes when
            the hub has begun anew and knows no session any more.
        controller: where its switch looks for the controller; TLS with the site's certificates.
        dpid: OpenFlow datapath identifier.
        host, host_mac: address of the host behind its switch.
        ways: its links.
        api_port: where the root finds its leaf server.
        inlets: first and last UDP port for feeds.
        pipelines: first and last UDP port for the sources of media pipelines.
        leaf: which program its leaf server is.
    """

    site: str
    address: IPv4Interface
    hub_key: str
    hub_port: int
    hub_life: str
    controller: str
    dpid: int
    host: IPv4Interface
    host_mac: str
    ways: tuple[Way, ...] = ()
    api_port: int = API_PORT
    inlets: tuple[int, int] = (21000, 21999)
    pipelines: tuple[int, int] = (22000, 22999)
    leaf: LeafKind = "anabranch"

    @property
    def hub(self) -> IPv4Address:
        """The hub's address in the tunnel."""
        return hub_address(self.address.network).ip

    def same_but_ways(self, other: "Terms") -> bool:
        """Say whether only links differ, and how the hub is reached."""
        mine, theirs = (replace(each, ways=(), hub_life="") for each in (self, other))
        return mine == theirs


_TERMS_TYPE = TypeAdapter(Terms)


def to_features(terms: Terms) -> dict[str, str]:
    """Return the terms as features of a HELLO."""
    text = _TERMS_TYPE.dump_json(terms).decode()
    return {
        f"{_TERMS}{number}": text[at : at + _PART]
        for number, at in enumerate(range(0, len(text), _PART))
    }


def digest_of(terms: Terms) -> str:
    """Return by what a guest says which terms it fulfils."""
    return sha256(_TERMS_TYPE.dump_json(terms)).hexdigest()[:16]


def read_features(features: Mapping[str, str]) -> Terms | None:
    """Read what :func:`to_features` wrote; None: there are no terms in it.

    Raises:
        UsageError: they are no terms of ours.
    """
    parts: list[str] = []
    while (part := features.get(f"{_TERMS}{len(parts)}")) is not None:
        parts.append(part)
    if not parts:
        return None
    try:
        terms = _TERMS_TYPE.validate_json("".join(parts))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise UsageError(
            f"the root's terms cannot be understood: {where}: {first['msg']}"
        ) from None
    check_key(terms.hub_key)
    check_name(terms.site)
    return terms


def hub_address(tunnels: IPv4Network) -> IPv4Interface:
    """Return the hub's address in the network of tunnels."""
    return IPv4Interface((tunnels[1], tunnels.prefixlen))


def guest_address(tunnels: IPv4Network, index: int) -> IPv4Interface:
    """Return a guest's address in the network of tunnels."""
    return IPv4Interface((tunnels[index + 2], tunnels.prefixlen))


def room_for_guests(own: int, overlay: IPv4Network, tunnels: IPv4Network) -> range:
    """Return the numbers that guests may have.

    Args:
        own: how many nodes the site has on its own machine.
        overlay: hosts of the nodes; its upper half is for virtual machines.
    """
    most = min(
        overlay.num_addresses // 2 - 1,
        tunnels.num_addresses - 3,
        FIRST_RESERVE_PORT - FIRST_NODE_PORT,
    )
    return range(own, max(own, most))


def key_of(one: int, other: int) -> int:
    """Return the VXLAN network identifier of the link between two nodes, by their numbers."""
    return min(one, other) << _INDEX_BITS | max(one, other)


def ways_of(
    guest: Guest, bridge: Bridge, addresses: Mapping[int, IPv4Address], *, bfd_ms: int
) -> tuple[Way, ...]:
    """Return a guest's links, as its bridge shall have them.

    Args:
        addresses: tunnel address by number of the node at the far end; the hub's for those on the
            root's machine.
    """
    return tuple(
        Way(
            port.name,
            port.ofport,
            addresses[far],
            key_of(guest.index, far),
            guest.rate_mbit,
            bfd_ms,
        )
        for port in bridge.ports
        if (far := port.ofport - FIRST_NODE_PORT) in addresses
    )


def parents_of(guest: Guest, roles: Mapping[str, Role]) -> Iterable[str]:
    """Return from which nodes a guest may hang; ``roles`` are those of all that could be there."""
    if guest.parents:
        return [name for name in guest.parents if name in roles]
    relays = [name for name, role in roles.items() if role is Role.RELAY and name != guest.name]
    return relays or [name for name, role in roles.items() if role is Role.ROOT]


def with_guest(tree: Plan, guest: Guest) -> Plan:
    """Return the tree with a guest that may be joined, and the links that it may have."""
    if guest.name in tree.parents:
        return tree
    tree = without_guest(tree, guest.name)
    nodes = (*tree.description.nodes, Candidate(guest.name, guest.role, available=False))
    links = [
        CandidateLink(guest.name, parent, guest.rate_mbit)
        for parent in parents_of(guest, tree.description.roles)
    ]
    description = replace(tree.description, nodes=nodes, links=(*tree.description.links, *links))
    return Plan(description, tree.parents, {**tree.pruned, guest.name: Reason.IDLE})


def without_guest(tree: Plan, name: str) -> Plan:
    """Return the tree as if a node that is not in it had never been drawn."""
    nodes = tuple(node for node in tree.description.nodes if node.name != name)
    links = tuple(link for link in tree.description.links if name not in link.ends)
    pruned = {other: reason for other, reason in tree.pruned.items() if other != name}
    return Plan(replace(tree.description, nodes=nodes, links=links), tree.parents, pruned)
