"""The ingress gateway: the switch between producers and all that listens for them.

    this machine's ports -- nft --> cable -- bridge "ingress" of the root's switch -- listeners

The listeners (ffmpeg for SRT and RTP, nginx, the gate) are in a namespace of their own, from which
nothing leads to the overlay: what they receive goes on by Unix sockets. What the switch does with
whose packets is decided by :mod:`.doors` and computed by :mod:`anabranch.fabric.ingress`. Rules
stay in the switch while nobody controls it; whoever does next changes only what differs.
"""

import asyncio
import socket
from collections.abc import Callable, Collection, Iterable
from contextlib import suppress
from dataclasses import replace
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import structlog

from anabranch.channels.channel import Channel
from anabranch.core.errors import AnabranchError, UnavailableError, UsageError
from anabranch.core.events import Event
from anabranch.fabric.bridges import Bridge, ControllerTarget, Device
from anabranch.fabric.controller import Controller
from anabranch.fabric.errors import FabricError
from anabranch.fabric.ingress import (
    INSIDE,
    OUTSIDE,
    Address,
    Counts,
    Session,
    count,
    ingress_tables,
)
from anabranch.fabric.ingress import read as read_shown
from anabranch.fabric.openflow.messages import PacketIn
from anabranch.host import gateway, network
from anabranch.host.forwarding import FAMILIES, Family
from anabranch.host.gateway import Protocol, Way
from anabranch.host.journal import Journal
from anabranch.media.source import LOOPBACK, RtmpSource, RtpSource, Source, SrtSource, WhipSource
from anabranch.site.control import switch_directory
from anabranch.site.doors import Doors, Entrance, Entry
from anabranch.site.ingress_plan import (
    BRIDGE,
    CABLE_DEVICE,
    LISTENERS_DEVICE,
    SWITCH_DEVICE,
    IngressPlan,
    make_ingress_plan,
)
from anabranch.site.machine import open_machine
from anabranch.site.plan import SitePlan
from anabranch.site.settings import SiteSettings

_LOOK_S = 0.2
_CONNECT_S = 10.0
_RETRY_S = 0.5
_log = structlog.get_logger("anabranch.ingress")


class Ingress:
    """A site's ingress.

    Args:
        directory: of the root's switch, where the controller's socket must be.
        on_event: gets ``producer.*`` events, and what the controller says of the switch.

    Attributes:
        restart: has a channel's source read anew; whoever has the channels sets it.
        callbacks: listens where the RTMP server is, at ``callback_port`` of 127.0.0.1.
    """

    def __init__(
        self,
        settings: SiteSettings,
        plan: IngressPlan,
        directory: Path,
        journal: Journal,
        on_event: Callable[[Event], None],
    ) -> None:
        self.plan = plan
        self.restart: Callable[[str], None] = lambda _channel: None
        self.callbacks: socket.socket | None = None
        self._settings = settings
        self._socket = directory / f"{BRIDGE}.controller"
        self._journal = journal
        self._doors = Doors(on_event, lambda channel: self.restart(channel))
        self._controller = Controller(on_event, on_packet_in=self._shown)
        self._held: dict[Way, list[socket.socket]] = {}
        self._past: set[str] = set()
        self._forwarding = asyncio.Lock()
        self._stale = asyncio.Event()
        self._applied = -1
        self._failure = ""

    @property
    def namespace(self) -> str:
        """Where all that listens for producers runs."""
        return self.plan.namespace

    @property
    def addresses(self) -> tuple[str, ...]:
        """Where the listeners are reached, by this machine alone."""
        ends = self.plan.ends
        return tuple(map(str, (ends.inner, *ends.inner_6[:1])))

    @property
    def by_6(self) -> bool:
        """Whether producers may come by IPv6, too."""
        return "ip6" in self.plan.families

    def bridge(self) -> Bridge:
        """Return its bridge in the root's switch."""
        return Bridge(
            BRIDGE,
            (
                Device(name=CABLE_DEVICE, ofport=OUTSIDE),
                Device(name=SWITCH_DEVICE, ofport=INSIDE),
            ),
            self.plan.dpid,
            controllers=(ControllerTarget(f"unix:{self._socket}"),),
        )

    # --- life ---------------------------------------------------------------------------------

    def make(self) -> None:
        """Make namespace, cables and forwarding; the root's namespace is there. Blocks.

        Raises:
            NetworkError: the kernel refused something.
        """
        plan = self.plan
        open_machine(plan.table, plan.families, self._journal)
        self._journal.record("netns", plan.namespace)
        network.make_namespace(plan.namespace)
        self._journal.record("link", plan.outer.device)
        network.make_link(plan.outer, plan.cable)
        network.make_link(plan.inner, plan.port)
        ends = plan.ends
        for outer in (ends.outer, *ends.outer_6[:1]):
            network.add_route(plan.namespace, "default", device=LISTENERS_DEVICE, via=str(outer))
        gateway.make_forwarding(plan.table, plan.outer.device, ends.inner, *ends.inner_6[:1])

    async def listen(self) -> None:
        """Wait for the switch, which is to be started then."""
        self._socket.parent.mkdir(parents=True, exist_ok=True)
        await self._controller.listen_unix(self._socket, self.plan.switch)

    async def start(self) -> None:
        """Return when the switch has its rules, and the director is heard by the listeners.

        Raises:
            UnavailableError: it does not connect.
            FabricError: it refuses something.
        """
        for _ in range(round(_CONNECT_S / 0.02)):
            if self._controller.switches()[self.plan.switch].connected:
                break
            await asyncio.sleep(0.02)
        else:
            raise UnavailableError("the ingress switch does not connect")
        await self._apply()
        listener = self.callbacks = network.socket_inside(self.plan.namespace)
        listener.bind(("127.0.0.1", self._settings.callback_port))
        listener.listen(64)

    async def run(self) -> None:
        """Keep the switch in step with who comes and goes, for ever."""
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(_LOOK_S if self._doors.watching else None):
                    await self._stale.wait()
            self._stale.clear()
            try:
                if self._applied != self._doors.edition:
                    await self._apply()
                if self._doors.watching:
                    self._doors.counted((await self.counts()).sessions, _now())
                    self._look_again()
                self._failure = ""
            except FabricError as error:  # the switch restarts: its controller brings it back
                self._doors.uncounted()
                if str(error) != self._failure:
                    self._failure = str(error)
                    _log.warning("ingress.late", error=self._failure)
                await asyncio.sleep(_RETRY_S)
                self._stale.set()

    async def stop(self) -> None:
        """End what :meth:`listen` and :meth:`start` began; the rest is in the journal."""
        await self._controller.close()
        if self.callbacks is not None:
            self.callbacks.close()
        for way in [*self._held]:
            self._let_go(way)

    async def _apply(self) -> None:
        edition = self._doors.edition
        tables = ingress_tables(
            self.plan.ends, self._doors.doors(), self._settings.ingress.rate_kbps
        )
        self._applied = edition
        await self._controller.apply({self.plan.switch: tables})

    # --- doors --------------------------------------------------------------------------------

    async def serve(self, way: Way, *, by_6: bool = False) -> None:
        """Let producers in to a server of the site that listens at this port.

        Args:
            by_6: at an IPv6 address, too, where there is one.

        Raises:
            ConflictError: another program has the port.
        """
        by_6 = by_6 and self.by_6
        await self._hold([way], FAMILIES if by_6 else FAMILIES[:1])
        self._doors.serve(way, by_6=by_6)
        if by_6:
            table = self.plan.table
            await asyncio.to_thread(gateway.forward_ways, table, [way], "ip6", forget=[way])
        await self._forward([way])

    async def take(self, channel: Channel) -> None:
        """Have a channel's source read behind the gateway, if producers send it there.

        Raises:
            ConflictError: another program has a port of it.
        """
        source, name = channel.source, channel.name
        await self.remove(name)  # it may have come by another way
        if not goes_by_ingress(source):
            if source.listens:
                self._past.add(name)
            channel.read_inside(None, channel.ingest.source, None)
            return
        entrance = self._entrance(source)
        own = [] if isinstance(source, RtmpSource | WhipSource) else [*entrance.ways]
        own += entrance.reports
        await self._hold(own)
        self._doors.add(name, entrance)
        await self._forward(own)
        if isinstance(source, RtpSource):  # the switch sees to it
            source = replace(source, sender="")
        channel.read_inside(self.plan.namespace, source, lambda: self.listens(name))

    async def remove(self, name: str) -> None:
        """Let nobody in for a channel any more; unknown ones are ignored."""
        self._past.discard(name)
        if name not in self._doors.producers:
            return
        self._doors.remove(name)
        for way in self._held.keys() - self._doors.ways:
            self._let_go(way)
        try:
            await self._forward([])
        except network.NetworkError as error:  # nothing listens there any more
            _log.warning("ingress.forwards", error=str(error))

    def _entrance(self, source: Source) -> Entrance:
        match source:
            case RtmpSource():
                return Entrance(Entry.SERVER, (Way(Protocol.TCP, self._settings.ports.rtmp),))
            case WhipSource():
                return Entrance(Entry.SERVER, (Way(Protocol.UDP, self._settings.ports.whip),))
            case SrtSource(port=int(port)):
                return Entrance(Entry.LISTENER, (Way(Protocol.UDP, port),))
            case RtpSource(port=int(port), audio_port=audio_port, sender=sender):
                ports = (port,) if audio_port is None else (port, audio_port)
                return Entrance(
                    Entry.FIRST_PACKET,
                    tuple(Way(Protocol.UDP, number) for number in ports),
                    tuple(Way(Protocol.UDP, number + 1) for number in ports),
                    frozenset({self._seen(sender)} if sender else ()),  # of IPv4
                )
        raise UsageError(f"{source.describe()} does not come by the ingress")

    def _seen(self, address: str) -> Address:
        """Return as which the switch sees a sender."""
        found = ip_address(address.strip("[]"))
        return self.plan.ends.outer if found.is_loopback else found

    def told(self, address: str) -> str:
        """Return as what a sender's address is told: programs of this machine are at 127.0.0.1."""
        return LOOPBACK if address == str(self.plan.ends.outer) else address

    async def _hold(
        self, ways: Collection[Way], families: Collection[Family] = FAMILIES[:1]
    ) -> None:
        """Have these ports, or none of them."""
        new = [way for way in ways if way not in self._held]  # else of an attempt that failed later
        try:
            for way in new:
                held = self._held[way] = []
                held += (gateway.hold(way, family) for family in families)
        except AnabranchError:
            for way in new:
                self._let_go(way)
            raise

    def _let_go(self, way: Way) -> None:
        for held in self._held.pop(way, ()):
            held.close()

    async def _forward(self, new: Iterable[Way]) -> None:
        self._stale.set()
        async with self._forwarding:
            table, ways = self.plan.table, self._doors.ways
            await asyncio.to_thread(gateway.forward_ways, table, ways, forget=[*new])

    # --- who comes and goes -------------------------------------------------------------------

    def expect(self, way: Way, address: str) -> None:
        """Know that somebody with this address is about to come."""
        with suppress(ValueError):
            self._doors.expect(way, self._seen(address), _now())
            self._look_again()

    def let_in(self, channel: str, way: Way, address: str, port: int | None) -> None:
        """Let a channel's producer in who a server has found to be one.

        Args:
            port: that it sends from; None: unknown, so any of this address.
        """
        with suppress(ValueError):
            session = Session(way, self._seen(address), port)
            self._doors.let_in(channel, [session], _now())
            self._look_again()

    def gone(self, channel: str) -> None:
        """Note that a channel's producer has left, as its server says."""
        self._doors.gone(channel, _now())
        self._look_again()

    def listens(self, channel: str) -> None:
        """Note that what listens for a channel's producer has begun anew."""
        self._doors.listens(channel, _now())
        self._look_again()

    def known_peers(self, way: Way) -> frozenset[tuple[str, int]]:
        """Return addresses and ports of those who pass by a way."""
        return frozenset(
            (str(session.source), session.source_port)
            for producer in self._doors.producers.values()
            for session in (*producer.sessions, *producer.known)
            if session.way == way and session.source_port is not None
        )

    def _shown(self, _switch: str, packet: PacketIn) -> None:
        shown = read_shown(packet)
        if shown is not None:
            self._doors.shown(shown, _now())
            self._look_again()

    def _look_again(self) -> None:
        if self._applied != self._doors.edition:
            self._stale.set()

    # --- what it looks like -------------------------------------------------------------------

    async def counts(self) -> Counts:
        """Return what the switch has counted.

        Raises:
            FabricError: it is away.
        """
        flows = await self._controller.readings.flows(self.plan.switch)
        return count(flows, (), self._doors.doors())

    async def report(self) -> dict[str, Any]:
        """Return doors, producers and counters as plain data.

        Raises:
            FabricError: the switch is away.
        """
        readings, doors = self._controller.readings, self._doors.doors()
        flows = await readings.flows(self.plan.switch)
        counts = count(flows, await readings.meter_stats(self.plan.switch), doors)
        now = _now()
        return {
            "doors": [
                {
                    "protocol": door.way.protocol.name.lower(),
                    "port": door.way.port,
                    "open": door.open,
                    "sessions": [str(session.source) for session, _ in door.sessions],
                    "passed": counts.doors[door.way].passed,
                    "passed_bytes": counts.doors[door.way].passed_bytes,
                    "strangers": counts.doors[door.way].strangers,
                    "dropped": counts.doors[door.way].dropped,
                    "metered": counts.doors[door.way].metered,
                }
                for door in sorted(doors, key=lambda door: door.way)
            ],
            "producers": [
                {
                    "channel": producer.name,
                    "state": producer.state.value,
                    "seconds": now - producer.since if producer.since else None,
                    "bytes": producer.bytes,
                }
                for producer in self._doors.producers.values()
            ],
            "past": sorted(self._past),
            "no_door": counts.no_door,
            "kept_inside": counts.inside,
            "newcomers_dropped": await gateway.dropped_newcomers(
                self.plan.table, self.plan.families
            ),
        }


def make_ingress(
    settings: SiteSettings, plan: SitePlan, journal: Journal, on_event: Callable[[Event], None]
) -> Ingress:
    """Return a site's ingress, to be made.

    Raises:
        UsageError: there are no addresses for it.
    """
    mine = make_ingress_plan(settings, plan.root, len(plan.leaves))
    return Ingress(settings, mine, switch_directory(settings, plan.root.name), journal, on_event)


def goes_by_ingress(source: Source) -> bool:
    """Say whether a source is one that producers send to, at any address of this machine.

    What names an address listens there itself; multicast is joined at a device of the machine.
    """
    match source:
        case RtmpSource() | WhipSource():
            return True
        case SrtSource(host=host) | RtpSource(host=host):
            return host in ("", "0.0.0.0")
    return False


def unguarded(settings: SiteSettings) -> list[str]:
    """Return what an operator who wants the ingress should know: who does not come by it."""
    if not settings.ingress.enabled:
        return []
    if not settings.switches:
        return ["no ingress: there are no switches, so producers meet the listeners directly"]
    return []


def _now() -> float:
    return asyncio.get_running_loop().time()
