"""A plain Linux router as a plane: veth links, nft at the ingress, rings of AF_PACKET."""

import asyncio
import os
import socket
from collections.abc import Callable, Iterable
from contextlib import suppress
from ipaddress import IPv4Interface, IPv6Interface, ip_address
from pathlib import Path
from typing import ParamSpec, TypeVar

from anabranch.host.network import (
    NetworkError,
    Port,
    add_route,
    entered,
    link_local,
    made_inside,
    make_link,
    make_namespace,
    remove_link,
    remove_namespace,
    run_tool,
)
from anabranch.services.claim import Claim, ClaimError
from anabranch.services.planes import rules
from anabranch.services.planes.plane import Attachment, PlaneError, Tenant
from anabranch.services.rings.receive import open_ring_socket
from anabranch.services.rings.transmit import open_transmit_socket

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")
RING_SLOTS = 1024
_NEIGHBOUR = ip_address("169.254.1.1")
_NEIGHBOUR_6 = IPv6Interface("fd56:2b7e:91c4:ffff:616e:6162:7261:6e63/128")
"""The router, as every sandbox sees it: one address for all, on each link."""
_NETNS = Path("/run/netns")


class LinuxPlane:
    """The packets that a Linux machine forwards.

    Args:
        node: names the tenants' namespaces; unique on the machine, at most 20 characters.
        namespace: of the router; None: this machine itself.
        devices: of the router, by which packets come in that can be claimed; None: all there are.
        ring_slots: packets that wait for a sandbox at most, 2 KiB each; a multiple of 128.
    """

    def __init__(
        self,
        node: str,
        namespace: str | None = None,
        devices: tuple[str, ...] | None = None,
        ring_slots: int = RING_SLOTS,
    ) -> None:
        self._prefix = f"ab-svc-{node}-"
        self._namespace = namespace
        self._devices = devices
        self._ring_slots = ring_slots
        self._attached: dict[int, Attachment] = {}
        self._turn = asyncio.Lock()

    async def open(self) -> None:
        check_machine()
        await self._in_thread(self._open)

    async def attach(self, tenant: Tenant) -> Attachment:
        async with self._turn:
            if tenant.number not in self._attached:
                self._attached[tenant.number] = await self._in_thread(self._attach, tenant)
            return self._attached[tenant.number]

    async def set_claims(self, tenant: Tenant, claims: tuple[Claim, ...]) -> None:
        async with self._turn:
            attachment = self._attached.get(tenant.number)
            if attachment is None:
                raise PlaneError(f"{tenant.user} has no place in this plane")
            self._check_claims(tenant, claims)
            wanted = {each: tuple(a.claims) for each, a in self._attached.items()}
            wanted[tenant.number] = claims
            await self._in_thread(self._nft, rules.claims(wanted, tenant.number))
            attachment.claims = list(claims)

    async def detach(self, tenant: Tenant) -> None:
        async with self._turn:
            attachment = self._attached.pop(tenant.number, None)
            if attachment is not None:
                await self._in_thread(self._detach, attachment)

    async def close(self) -> None:
        for attachment in list(self._attached.values()):
            await self.detach(attachment.tenant)
        await self._in_thread(self._nft, rules.removal())

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
        for path in _NETNS.glob(f"{self._prefix}*"):
            remove_namespace(path.name)
        self._nft(rules.base(devices))

    def _check_router(self) -> None:
        settings = Path("/proc/sys/net/ipv4")
        if (settings / "ip_forward").read_text().strip() != "1":
            raise PlaneError("this machine forwards no packets: set net.ipv4.ip_forward=1")
        if (settings / "conf/all/rp_filter").read_text().strip() == "1":
            raise PlaneError(
                "net.ipv4.conf.all.rp_filter=1 drops what comes back from sandboxes: set it to 2"
            )

    def _attach(self, tenant: Tenant) -> Attachment:
        namespace = f"{self._prefix}{tenant.number}"
        device = f"{rules.PACKETS}{tenant.number}"
        try:
            make_namespace(namespace)
            make_link(Port(device, self._namespace), Port("packets", namespace))
            # Checksums and segments that a device would fill in or cut are made before a frame
            # leaves by this end: a module sees packets as they are on a wire.
            run_tool("ethtool", "-K", device, "tx", "off", namespace=self._namespace)
            self._configure(self._namespace, device, rp_filter="0")
            self._silence_ipv6(device)
            if tenant.address is not None:
                self._make_server_link(tenant, namespace)
            self._nft(rules.tenant(tenant))
            return self._open_sockets(tenant, namespace, device)
        except BaseException:
            with suppress(NetworkError):
                self._nft(rules.without_tenant(tenant))
            remove_namespace(namespace)
            raise

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
        run_tool("nft", "-f", "-", namespace=namespace, stdin=rules.inside(tenant))
        with entered(namespace):  # ports below 1024 are like others here: the grant says which
            Path("/proc/sys/net/ipv4/ip_unprivileged_port_start").write_text("0")

    def _open_sockets(self, tenant: Tenant, namespace: str, device: str) -> Attachment:
        slots = self._ring_slots
        ring = made_inside(namespace, lambda: open_ring_socket("packets", slots))
        try:
            transmit = made_inside(namespace, lambda: open_transmit_socket("packets"))
        except BaseException:
            ring.close()
            raise
        return Attachment(
            tenant,
            netns=os.open(_NETNS / namespace, os.O_RDONLY | os.O_CLOEXEC),
            rings=(ring, transmit),
            ring_slots=slots,
            router_mac=_mac(self._namespace, device),
            own_mac=_mac(namespace, "packets"),
        )

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

    def _detach(self, attachment: Attachment) -> None:
        tenant = attachment.tenant
        wanted = {each: tuple(a.claims) for each, a in self._attached.items()}
        self._nft(rules.claims(wanted, tenant.number))
        self._nft(rules.without_tenant(tenant))
        for each in attachment.rings:
            each.close()
        os.close(attachment.netns)
        for kind in (rules.PACKETS, rules.SERVER):
            remove_link(f"{kind}{tenant.number}", self._namespace)
        remove_namespace(f"{self._prefix}{tenant.number}")

    def _check_claims(self, tenant: Tenant, claims: Iterable[Claim]) -> None:
        for claim in claims:
            for number, other in self._attached.items():
                if number == tenant.number:
                    continue
                if any(claim.overlaps(theirs) for theirs in other.claims):
                    raise ClaimError(f"{claim}: another tenant has some of these packets")

    def _nft(self, text: str) -> None:
        run_tool("nft", "-f", "-", namespace=self._namespace, stdin=text)


def check_machine() -> None:
    """Say clearly when this machine cannot run sandboxes at all.

    Raises:
        PlaneError: not root; or the kernel lacks something.
    """
    if os.geteuid() != 0:
        raise PlaneError("modules on the packet path need root: run the node with sudo")


def _mac(namespace: str | None, device: str) -> str:
    with entered(namespace), socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0) as opened:
        opened.bind((device, 0))
        address: bytes = opened.getsockname()[4]
        return address.hex()
