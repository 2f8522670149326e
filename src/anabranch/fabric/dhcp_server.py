"""The overlay's DHCP server: dnsmasq as a supervised child, on the root node only.

It listens on one device, the overlay bridge's internal one, and so nothing on the physical network
can reach it (seed 000, sections 5.2.2 and 7.1.3). It serves no names. Source: dnsmasq(8), RFC 2131.
"""

import asyncio
import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from ipaddress import IPv4Address, IPv4Interface
from pathlib import Path

import structlog

from anabranch.core.events import Event
from anabranch.fabric.bridges import TUNNEL_MTU
from anabranch.fabric.errors import FabricError, MisuseError, ProtocolError
from anabranch.host.process import Child, ChildSpec, ProcessError

START_TIMEOUT = 5.0
MIN_LEASE_S = 120  # dnsmasq takes no less
_MAC = re.compile(r"([0-9a-f]{2}:){5}[0-9a-f]{2}")
_READY = "IP range"
_log = structlog.get_logger("anabranch.fabric")


@dataclass(frozen=True, slots=True)
class DhcpSettings:
    """What the server gives.

    Attributes:
        device: the one device it listens on, which has ``address``.
        first, last: the range for those without an address of their own.
        lease_s: life of a lease in seconds, at least 120.
        static: MAC address to the address that only it gets.
        router: default route of the clients; None: they get none.
        mtu: of the clients, which tunnels make smaller.
    """

    device: str
    address: IPv4Interface
    first: IPv4Address
    last: IPv4Address
    lease_s: int = 3600
    static: Mapping[str, IPv4Address] = field(default_factory=dict)
    router: IPv4Address | None = None
    mtu: int = TUNNEL_MTU

    def __post_init__(self) -> None:
        network = self.address.network
        given = [self.first, self.last, *self.static.values()]
        if outside := [str(one) for one in given if one not in network]:
            raise MisuseError(f"{', '.join(outside)}: not in {network}")
        if self.first > self.last or self.lease_s < MIN_LEASE_S:
            raise MisuseError("an empty range, or a lease of less than 120 s")
        if self.address.ip in self.static.values() or self.first <= self.address.ip <= self.last:
            raise MisuseError(f"{self.address.ip} is the server's own address")
        if len(set(self.static.values())) != len(self.static):
            raise MisuseError("an address for two")
        if wrong := [mac for mac in self.static if not _MAC.fullmatch(mac)]:
            raise MisuseError(f"{wrong[0]!r} is not a MAC address in small letters")
        if not re.fullmatch(r"[A-Za-z0-9_.-]{1,15}", self.device):
            raise MisuseError(f"{self.device!r} is no name of a device")


@dataclass(frozen=True, slots=True)
class Lease:
    """An address in use; ``expires`` in seconds since the epoch, None for never."""

    mac: str
    address: IPv4Address
    expires: int | None
    hostname: str | None


def parse_leases(text: str) -> list[Lease]:
    """Return what dnsmasq's lease file says of IPv4.

    Raises:
        ProtocolError: a line is no lease.
    """
    leases = []
    for line in text.splitlines():
        fields = line.split()
        if not fields or fields[0] == "duid":  # of IPv6
            continue
        try:
            expires, mac, address, hostname, _client = fields
            if not _MAC.fullmatch(mac):
                raise ValueError(mac)
            until = int(expires)
            lease = Lease(mac, IPv4Address(address), until or None, hostname.strip("*") or None)
        except ValueError as error:
            raise ProtocolError(f"not a lease: {line[:80]!r}") from error
        leases.append(lease)
    return leases


def command_line(settings: DhcpSettings, leases: Path) -> tuple[str, ...]:
    """Return how dnsmasq is called: everything said here, no file of the machine's is read."""
    network = settings.address.network
    options = [
        "--keep-in-foreground",
        "--conf-file=/dev/null",
        "--no-hosts",
        "--no-resolv",
        "--port=0",  # no DNS
        "--pid-file=",
        "--log-facility=-",
        "--log-dhcp",
        f"--interface={settings.device}",
        "--except-interface=lo",
        "--bind-interfaces",
        "--dhcp-authoritative",
        "--no-ping",  # the addresses are this server's alone: offer at once
        f"--dhcp-leasefile={leases}",
        f"--dhcp-range={settings.first},{settings.last},{network.netmask},{settings.lease_s}",
        "--dhcp-option=option:dns-server",  # without a value: not sent
        f"--dhcp-option=option:router{f',{settings.router}' if settings.router else ''}",
        f"--dhcp-option=option:mtu,{settings.mtu}",
    ]
    options += [f"--dhcp-host={mac},{address}" for mac, address in settings.static.items()]
    return ("dnsmasq", *options)


class DhcpServer:
    """The server of one site.

    Args:
        netns: the root node's namespace, None for the director's own.
        directory: for the file of leases, which outlives the server; made if missing.
        run_id: mark of the child, see :mod:`anabranch.host.process`.
        on_event: gets ``child.restarted`` when it was started again.
    """

    def __init__(
        self,
        settings: DhcpSettings,
        netns: str | None,
        directory: Path,
        run_id: str,
        on_event: Callable[[Event], None],
    ) -> None:
        self.settings = settings
        self._netns = netns
        self._directory = directory
        self._run_id = run_id
        self._on_event = on_event
        self._settled = asyncio.Event()
        self._serves = False
        self._lives = 0
        self.child = self._child()

    async def start(self) -> None:
        """Start and return when it serves.

        Raises:
            FabricError: dnsmasq is missing, ends at once, or does not serve within 5 s.
        """
        try:
            self._directory.mkdir(parents=True, exist_ok=True)
            await self.child.start()
            with suppress(TimeoutError):
                async with asyncio.timeout(START_TIMEOUT):
                    await self._settled.wait()
        except (OSError, ProcessError) as error:
            raise FabricError(f"the overlay's DHCP server does not start: {error}") from error
        if not self._serves:
            last = self.child.last_lines[-1] if self.child.last_lines else "it says nothing"
            await self.stop()
            raise FabricError(f"the overlay's DHCP server does not start: {last}")

    async def stop(self) -> None:
        """End it; leases stay. Safe to call twice."""
        await self.child.stop()
        self._lives = 0
        self._serves = False
        self._settled.clear()

    async def give(self, static: Mapping[str, IPv4Address]) -> None:
        """Have exactly these MAC addresses have addresses of their own, by a restart of the server.

        Raises:
            MisuseError: they are impossible; nothing changes then.
            FabricError: see :meth:`start`.
        """
        settings = replace(self.settings, static=dict(static))
        if settings == self.settings:
            return
        running = self.child.running
        await self.stop()
        self.settings = settings
        self.child = self._child()
        if running:
            await self.start()

    def leases(self) -> list[Lease]:
        """Return the leases given.

        Raises:
            ProtocolError: the file is damaged.
        """
        try:
            return parse_leases(self._leases.read_text(errors="replace"))
        except FileNotFoundError:
            return []

    # inside

    @property
    def _leases(self) -> Path:
        return self._directory / "dhcp.leases"

    def _child(self) -> Child:
        spec = ChildSpec(
            name=f"dhcp-{self.settings.device}",
            argv=command_line(self.settings, self._leases),
            netns=self._netns,
            first_delay=0.1,
        )
        return Child(
            spec,
            self._run_id,
            on_line=self._line,
            on_start=self._started,
            on_exit=lambda _: self._settled.set(),
        )

    def _started(self, pid: int) -> None:
        self._lives += 1
        if self._lives > 1:
            self._on_event(Event("child.restarted", self.child.spec.name, {"pid": pid}))

    def _line(self, _stream: str, line: str) -> None:
        self.child.last_lines.append(line)
        if _READY in line:
            self._serves = True
            self._settled.set()
        _log.debug("child.line", child=self.child.spec.name, line=line)
