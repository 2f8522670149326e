"""A node beside an OpenFlow switch as a plane: packets come and go by one service port.

The switch leads here what modules claim, frames as they are (seed 003, figure 8.2); nft leads each
to its tenant's link as on a router, and what comes back from there goes out of the service port
again with the addresses that it came with. What nobody claims any more goes back at once. The
node's own kernel speaks by the same port: signalling, fetching archives.
"""

import json
import re
from collections.abc import Sequence
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

import structlog

from anabranch.host.network import NetworkError, entered, run_tool
from anabranch.services.claim import Claim, ClaimError
from anabranch.services.planes import registration, rules
from anabranch.services.planes.linux import RING_BLOCKS, LinuxPlane, mac_of
from anabranch.services.planes.plane import Attachment, PlaneError, Tenant

_TENANTS = re.compile(f"({rules.PACKETS}|{rules.SERVER})[1-9][0-9]*")
_log = structlog.get_logger("anabranch.services")


class SwitchPlane(LinuxPlane):
    """The packets that a switch leads to this machine.

    Args:
        node, namespace, ring_blocks: see :class:`LinuxPlane`.
        port: the device that is cabled to the switch; it has an IPv4 address.
        place: where that is, for the controller.
        controllers: HTTP APIs of the switch's controllers, or ``unix:PATH``.
        token: the operator's.
    """

    def __init__(
        self,
        node: str,
        port: str,
        place: registration.Place,
        *,
        controllers: Sequence[str],
        token: str,
        namespace: str | None = None,
        ring_blocks: int = RING_BLOCKS,
    ) -> None:
        super().__init__(node, namespace, (port,), ring_blocks)
        self._port = port
        self._place = place
        self._mac = ""
        self._address = IPv4Address(0)
        self._registration = registration.Registration(controllers, token, place, self._document)

    async def open(self) -> None:
        await super().open()
        try:
            await self._registration.open()
        except PlaneError:
            await super().close()
            raise

    async def attach(self, tenant: Tenant) -> Attachment:
        attachment = await super().attach(tenant)
        if tenant.address is not None:
            # The switch's hosts find the sandbox's servers behind this machine's address.
            await self._in_thread(self._answer_for, "replace", tenant.address)
        return attachment

    async def set_claims(self, tenant: Tenant, claims: tuple[Claim, ...]) -> None:
        registration.check(claims)
        before = self._claims_of(tenant)
        if claims:
            await self._in_thread(self._nft, rules.led(claims))
        await super().set_claims(tenant, claims)
        try:
            await self._registration.tell()
        except (ClaimError, PlaneError) as error:
            if set(claims) <= set(before):  # the next telling brings it
                _log.warning("claims.not_told", user=tenant.user, error=str(error))
                return
            await super().set_claims(tenant, before)
            raise

    async def detach(self, tenant: Tenant) -> None:
        claimed = self._claims_of(tenant)
        await super().detach(tenant)
        if tenant.address is not None:
            await self._in_thread(self._answer_for, "del", tenant.address)
        if claimed:
            try:
                await self._registration.tell()
            except (ClaimError, PlaneError) as error:
                _log.warning("claims.not_told", user=tenant.user, error=str(error))

    async def close(self) -> None:
        await self._registration.close()
        await super().close()

    # What the router's plane leaves open

    def _base_rules(self, devices: tuple[str, ...]) -> str:
        if _TENANTS.fullmatch(self._port):
            raise NetworkError(f"{self._port} is what a tenant's link is called: rename the port")
        self._mac = mac_of(self._namespace, self._port)
        self._address = self._own_address()
        if "driver: veth" in run_tool("ethtool", "-i", self._port, namespace=self._namespace):
            # A userspace switch hands packets on as they are: checksums are to be right here.
            run_tool("ethtool", "-K", self._port, "tx", "off", namespace=self._namespace)
        return rules.base(devices, back_by=self._port)

    def _rules_of(self, tenant: Tenant) -> str:
        own = ":".join(self._mac[at : at + 2] for at in range(0, 12, 2))
        return rules.tenant(tenant, rules.sent_to(self._port), f"ether saddr {own}")

    def _frame_addresses(self, namespace: str, device: str) -> tuple[str, str]:
        return "", ""

    def _silence_ipv6(self, device: str) -> None:
        setting = Path(f"/proc/sys/net/ipv6/conf/{device}/disable_ipv6")
        with entered(self._namespace):
            if setting.exists():
                setting.write_text("1")  # nothing goes up to the kernel from there

    def _own_address(self) -> IPv4Address:
        lines = run_tool(
            "ip", "-j", "-4", "addr", "show", "dev", self._port, namespace=self._namespace
        )
        found = [each for link in json.loads("".join(lines)) for each in link.get("addr_info", ())]
        if not found:
            raise NetworkError(f"{self._port} has no IPv4 address: signalling needs one")
        return IPv4Address(found[0]["local"])

    def _answer_for(self, command: str, address: IPv4Address) -> None:
        words = ("ip", "neighbour", command, "proxy", str(address), "dev", self._port)
        try:
            run_tool(*words, namespace=self._namespace)
        except NetworkError:
            if command != "del":  # absent is fine
                raise

    def _claims_of(self, tenant: Tenant) -> tuple[Claim, ...]:
        attachment = self._attached.get(tenant.number)
        return tuple(attachment.claims) if attachment is not None else ()

    def _document(self) -> dict[str, Any]:
        filters = {each.tenant.user: tuple(each.claims) for each in self._attached.values()}
        return registration.document(self._place, self._mac, self._address, filters)
