"""What a node needs of its forwarding plane, be it a plain Linux router or a switch."""

import socket
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Address
from typing import Protocol

from anabranch.services.claim import Claim
from anabranch.services.errors import ServicesError


class PlaneError(ServicesError):
    """The machine, or its switch, cannot do what was asked; the message says what is missing."""


@dataclass(frozen=True, slots=True)
class Tenant:
    """What a plane is told of a user.

    Attributes:
        user: the name.
        number: unique on the node, 1 to 9999; names devices and the process's user.
        address: of the sandbox's servers, or None.
        ports: TCP and UDP ports on which it may be spoken to.
        bandwidth_mbit: of what the sandbox sends, packets passed on and servers' together.
        address6: another of the sandbox, beside ``address``.
    """

    user: str
    number: int
    address: IPv4Address | None = None
    ports: tuple[int, ...] = ()
    bandwidth_mbit: int = 1000
    address6: IPv6Address | None = None


@dataclass(slots=True)
class Attachment:
    """A tenant's place in the network. It owns its descriptors until :meth:`close`.

    Attributes:
        netns: descriptor of the network namespace in which its process runs.
        rings: the ring socket and the transmit socket.
        ring_blocks: of the ring socket, 256 KiB each.
        router_mac, own_mac: of the ends of the packet link, hexadecimal; empty: packets keep the
            addresses that they came with.
    """

    tenant: Tenant
    netns: int
    rings: tuple[socket.socket, socket.socket]
    ring_blocks: int
    router_mac: str
    own_mac: str
    claims: list[Claim] = field(default_factory=list)


class Plane(Protocol):
    """Packets that a tenant claims are taken out of the path, go through its ring, and come back.

    Between ``attach`` and ``detach`` a tenant has a network namespace of its own. All calls may
    be made again: what is there already is left as it is, what is gone is no error. A plane
    refuses what would let one tenant see or forge another's packets.
    """

    async def open(self) -> None:
        """Set up, and remove what a node that was killed left behind.

        Raises:
            PlaneError: this machine cannot be such a plane.
        """
        ...

    async def attach(self, tenant: Tenant) -> Attachment:
        """Give a tenant its namespace, links and rings. Raises PlaneError."""
        ...

    async def set_claims(self, tenant: Tenant, claims: tuple[Claim, ...]) -> None:
        """Have exactly these packets go to the tenant, from now on and in one step.

        Raises:
            ClaimError: another tenant has some of them.
            PlaneError: the kernel or the switch refused; what held before still holds.
        """
        ...

    async def detach(self, tenant: Tenant) -> None:
        """Take everything of a tenant away; its packets go their plain way again."""
        ...

    async def close(self) -> None:
        """Take away everything there is."""
        ...
