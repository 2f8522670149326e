"""A plain Linux router as a plane: veth links, nft at the ingress, rings of AF_PACKET.

A tenant gets a *place*: a namespace, a link and a ring. One is always made ahead, so that a tenant
that comes has only to be written above its door.
"""

import asyncio
import itertools
import os
import socket
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from ipaddress import IPv4Interface, IPv6Interface, ip_address
from pathlib import Path
from typing import ParamSpec, TypeVar

import structlog

from anabranch.host.network import (
    NetworkError,
    Port,
    add_route,
    entered,
    fill_checksums,
    link_local,
    made_inside,
    make_link,
    make_namespace,
    namespaces,
    remove_link,
    remove_namespace,
)
from anabranch.host.nft import apply_rules
from anabranch.services.claim import Claim, ClaimError
from anabranch.services.planes import rules
from anabranch.services.planes.plane import Attachment, PlaneError, Tenant
from anabranch.services.rings.receive import open_ring_socket
from anabranch.services.rings.transmit import open_transmit_socket

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")
RING_BLOCKS = 7
"""Of a sandbox: 1,141 packets, 1.75 MiB."""
_NEIGHBOUR = ip_address("169.254.1.1")
_NEIGHBOUR_6 = IPv6Interface("fd56:2b7e:91c4:ffff:616e:6162:7261:6e63/128")
"""The router, as every sandbox sees it: one address for all, on each link."""
_NETNS = Path("/run/netns")
_REST_S = 0.2
"""So long after a tenant came the next place is made: the tenant goes first."""
_log = structlog.get_logger("anabranch.services")


@dataclass(frozen=True, slots=True)
class Place:
    """A namespace with its end of a packet link, and that link's sockets.

    Attributes:
        number: unique in this run of the node; names namespace, devices and chains.
        macs: of the router's end and of its own, hexadecimal.
    """

    number: int
    netns: int
    rings: tuple[socket.socket, socket.socket]
    macs: tuple[str, str]


def namespaces_of(node: str) -> str:
    """Return what the names of a node's tenants' namespaces begin with."""
    return f"ab-svc-{node}-"


class LinuxPlane:
    """The packets that a Linux machine forwards.

    Args:
        node: names the tenants' namespaces; unique on the machine, at most 20 characters.
        namespace: of the router; None: this machine itself.
        devices: of the router, by which packets come in that can be claimed; None: all there are.
        ring_blocks: room for packets that wait for a sandbox: 163 in 256 KiB.
    """

    def __init__(
        self,
        node: str,
        namespace: str | None = None,
        devices: tuple[str, ...] | None = None,
        ring_blocks: int = RING_BLOCKS,
    ) -> None:
        self._prefix = namespaces_of(node)
        self._namespace = namespace
        self._devices = devices
        self._ring_blocks = ring_blocks
        self._attached: dict[int, Attachment] = {}
        self._places: dict[int, Place] = {}  # by the numbers of their tenants
        self._ahead: Place | None = None
        self._making: asyncio.Task[None] | None = None
        self._numbers = itertools.count(1)
        self._closing = asyncio.Event()
        self._turn = asyncio.Lock()

    async def open(self) -> None:
        check_machine()
        self._closing.clear()
        await self._in_thread(self._open)
        await self._make_ahead()

    async def attach(self, tenant: Tenant) -> Attachment:
        async with self._turn:
            if tenant.number not in self._attached:
                place, self._ahead = self._ahead, None
                self._attached[tenant.number] = await self._in_thread(self._attach, tenant, place)
                if self._making is None or self._making.done():
                    self._making = asyncio.create_task(self._make_later(), name="next place")
            return self._attached[tenant.number]

    async def set_claims(self, tenant: Tenant, claims: tuple[Claim, ...]) -> None:
        async with self._turn:
            attachment = self._attached.get(tenant.number)
            if attachment is None:
                raise PlaneError(f"{tenant.user} has no place in this plane")
            self._check_claims(tenant, claims)
            text = rules.claims(self._places[tenant.number].number, attachment.claims, claims)
            await self._in_thread(self._nft, text)
            attachment.claims = list(claims)

    async def detach(self, tenant: Tenant) -> None:
        async with self._turn:
            if tenant.number in self._attached:
                await self._in_thread(self._detach, tenant)

    async def close(self) -> None:
        self._closing.set()
        if self._making is not None:
            await self._making
        for attachment in list(self._attached.values()):
            await self.detach(attachment.tenant)
        ahead, self._ahead = self._ahead, None
        if ahead is not None:
            await self._in_thread(self._give_up, ahead)
        await self._in_thread(self._nft, rules.removal())

    async def _make_later(self) -> None:
        try:
            await asyncio.wait_for(self._closing.wait(), _REST_S)
        except TimeoutError:
            await self._make_ahead()

    async def _make_ahead(self) -> None:
        """Have a place that waits; without it the next tenant takes longer."""
        if self._ahead is None:
            try:
                self._ahead = await self._in_thread(self._make_place)
            except PlaneError as error:
                _log.warning("no place ahead", error=str(error))

    async def _in_thread(
        self,
        function: Callable[Arguments, Result],
        *arguments: Arguments.args,
        **named: Arguments.kwargs,
    ) -> Result:
        try:
            return await asyncio.to_thread(function, *arguments, **named)
        except (NetworkError, OSError) as error:
            raise PlaneError(str(error)) from error

    def _open(self) -> None:
        with entered(self._namespace):
            self._check_router()
            devices = self._devices or tuple(
                name
                for _, name in socket.if_nameindex()
                if name != "lo" and not name.startswith((rules.PACKETS, rules.SERVER))
            )
        if not devices:
            raise PlaneError("the router has no device by which packets come in")
        for name in namespaces(self._prefix):
            self._remove(int(name.removeprefix(self._prefix)))
        self._nft(self._base_rules(devices))

    def _base_rules(self, devices: tuple[str, ...]) -> str:
        return rules.base(devices)

    def _rules_of(self, tenant: Tenant) -> str:
        return rules.tenant(tenant)

    def _frame_addresses(self, namespace: str, device: str) -> tuple[str, str]:
        """Return the addresses of what a tenant sends: the router's and its own, hexadecimal."""
        return mac_of(self._namespace, device), mac_of(namespace, "packets")

    def _check_router(self) -> None:
        settings = Path("/proc/sys/net/ipv4")
        if (settings / "ip_forward").read_text().strip() != "1":
            raise PlaneError("this machine forwards no packets: set net.ipv4.ip_forward=1")
        if (settings / "conf/all/rp_filter").read_text().strip() == "1":
            raise PlaneError(
                "net.ipv4.conf.all.rp_filter=1 drops what comes back from sandboxes: set it to 2"
            )

    def _make_place(self) -> Place:
        number = next(self._numbers)
        namespace, device = self._namespace_of(number), f"{rules.PACKETS}{number}"
        try:
            make_namespace(namespace)
            make_link(Port(device, self._namespace), Port("packets", namespace))
            # Checksums and segments that a device would fill in or cut are made before a frame
            # leaves by this end: a module sees packets as they are on a wire.
            fill_checksums(device, self._namespace)
            self._configure(self._namespace, device, rp_filter="0")
            self._silence_ipv6(device)
            macs = self._frame_addresses(namespace, device)
            rings = self._open_sockets(namespace)
        except BaseException:
            remove_namespace(namespace)
            raise
        netns = os.open(_NETNS / namespace, os.O_RDONLY | os.O_CLOEXEC)
        return Place(number, netns, rings, macs)

    def _attach(self, tenant: Tenant, place: Place | None) -> Attachment:
        place = place or self._make_place()
        # Devices and chains have the number of the place.
        placed = replace(tenant, number=place.number)
        try:
            if tenant.address is not None:
                self._make_server_link(placed, self._namespace_of(place.number))
            self._nft(self._rules_of(placed))
        except BaseException:
            self._give_up(place)
            raise
        self._places[tenant.number] = place
        return Attachment(
            tenant,
            netns=place.netns,
            rings=place.rings,
            ring_blocks=self._ring_blocks,
            router_mac=place.macs[0],
            own_mac=place.macs[1],
        )

    def _make_server_link(self, tenant: Tenant, namespace: str) -> None:
        device = f"{rules.SERVER}{tenant.number}"
        assert tenant.address is not None
        six = tenant.address6
        make_link(
            Port(
                device, self._namespace, address=IPv4Interface(f"{_NEIGHBOUR}/32"),
                address_6=_NEIGHBOUR_6 if six else None,
            ),
            Port(
                "eth0", namespace, address=IPv4Interface(f"{tenant.address}/32"),
                address_6=IPv6Interface(f"{six}/128") if six else None,
            ),
        )  # fmt: skip
        if six:
            add_route(self._namespace, f"{six}/128", device=device)
            add_route(namespace, "default", device="eth0", via=str(link_local(_NEIGHBOUR_6)))
        add_route(self._namespace, f"{tenant.address}/32", device=device)
        add_route(namespace, f"{_NEIGHBOUR}/32", device="eth0")
        add_route(namespace, "default", device="eth0", via=str(_NEIGHBOUR))
        apply_rules(rules.inside(tenant), namespace)
        with entered(namespace):  # ports below 1024 are like others here: the grant says which
            Path("/proc/sys/net/ipv4/ip_unprivileged_port_start").write_text("0")

    def _open_sockets(self, namespace: str) -> tuple[socket.socket, socket.socket]:
        blocks = self._ring_blocks
        ring = made_inside(namespace, lambda: open_ring_socket("packets", blocks))
        try:
            return ring, made_inside(namespace, lambda: open_transmit_socket("packets"))
        except BaseException:
            ring.close()
            raise

    def _configure(self, namespace: str | None, device: str, **settings: str) -> None:
        with entered(namespace):
            for name, value in settings.items():
                Path(f"/proc/sys/net/ipv4/conf/{device}/{name}").write_text(value)

    def _silence_ipv6(self, device: str) -> None:
        """Have the router's end forward IPv6, and say nothing of its own: it would be claimed."""
        with entered(self._namespace):
            settings = Path(f"/proc/sys/net/ipv6/conf/{device}")
            if not settings.exists():
                return  # a kernel without IPv6
            was = (settings / "disable_ipv6").read_text()
            for name, value in (("disable_ipv6", "1"), ("addr_gen_mode", "1"), ("accept_ra", "0")):
                (settings / name).write_text(value)
            (settings / "disable_ipv6").write_text(was)

    def _detach(self, tenant: Tenant) -> None:
        place = self._places[tenant.number]
        placed = replace(tenant, number=place.number)
        text = rules.claims(place.number, self._attached[tenant.number].claims, ())
        text += rules.without_tenant(placed)
        del self._attached[tenant.number], self._places[tenant.number]
        try:
            self._nft(text)
        finally:
            self._give_up(place)

    def _give_up(self, place: Place) -> None:
        for each in place.rings:
            each.close()
        os.close(place.netns)
        self._remove(place.number)

    def _remove(self, number: int) -> None:
        for kind in (rules.PACKETS, rules.SERVER):
            remove_link(f"{kind}{number}", self._namespace)
        remove_namespace(self._namespace_of(number))

    def _namespace_of(self, number: int) -> str:
        return f"{self._prefix}{number}"

    def _check_claims(self, tenant: Tenant, claims: Iterable[Claim]) -> None:
        for claim in claims:
            for number, other in self._attached.items():
                if number == tenant.number:
                    continue
                if any(claim.overlaps(theirs) for theirs in other.claims):
                    raise ClaimError(f"{claim}: another tenant has some of these packets")

    def _nft(self, text: str) -> None:
        apply_rules(text, self._namespace)


def check_machine() -> None:
    """Say clearly when this machine cannot run sandboxes at all.

    Raises:
        PlaneError: not root; or the kernel lacks something.
    """
    if os.geteuid() != 0:
        raise PlaneError("modules on the packet path need root: run the node with sudo")


def mac_of(namespace: str | None, device: str) -> str:
    """Return a device's MAC address, 12 hexadecimal digits. Raises NetworkError or OSError."""
    with entered(namespace), socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0) as opened:
        opened.bind((device, 0))
        address: bytes = opened.getsockname()[4]
        return address.hex()
