"""A whole fabric over three soft switches.

s1 -- s2 -- s3, and s1 -- s3: a triangle, hosts at the ports 1 and 2 of each.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

from tests.waiting import until

from anabranch.core.events import Event
from anabranch.fabric import frames
from anabranch.fabric.fabric import Fabric
from anabranch.fabric.intents import Egress, Flow, Intents
from anabranch.fabric.model import Link, LinkInfo, PortRef
from anabranch.fabric.openflow.messages import FlowMod, GroupMod, MeterMod, Port
from anabranch.fabric.openflow.oxm import Match
from anabranch.fabric.options import Options
from anabranch.fabric.softswitch.farm import Farm
from anabranch.fabric.softswitch.network import SoftNetwork
from anabranch.fabric.softswitch.switch import SoftSwitch

LIVE = 4
S1, S2, S3 = (PortRef(f"s{number}", 1) for number in (1, 2, 3))
LINKS = [
    (PortRef("s1", 3), PortRef("s2", 3)),
    (PortRef("s2", 4), PortRef("s3", 3)),
    (PortRef("s1", 4), PortRef("s3", 4)),
]
MAC = "02:00:00:00:aa:{:02x}"


class Counted(SoftSwitch):
    """A switch that counts what changes it."""

    changes = 0

    def flow_mod(self, mod: FlowMod, now: float) -> None:
        self.changes += 1
        super().flow_mod(mod, now)

    def group_mod(self, mod: GroupMod, now: float) -> None:
        self.changes += 1
        super().group_mod(mod, now)

    def meter_mod(self, mod: MeterMod, now: float) -> None:
        self.changes += 1
        super().meter_mod(mod, now)


def live_port(number: int, *, state: int = LIVE, name: str = "") -> Port:
    return Port(number, f"02:00:00:00:{number:02x}:01", name or f"eth{number}", state=state)


def frame(port: int = 5004) -> bytes:
    return frames.ipv4_udp(
        "01:00:5e:01:02:03", MAC.format(1), "10.0.0.1", "239.1.2.3", 4000, port, b"news"
    )


def flow(name: str = "news", *egress: PortRef, port: int = 5004) -> Flow:
    match = Match(eth_type=0x0800, ip_proto=17, ipv4_dst="239.1.2.3", udp_dst=port)
    return Flow(name, match, S1, frozenset(map(Egress, egress or (S3,))))


def wanting(*flows: Flow) -> Intents:
    return Intents(flows)


@dataclass
class World:
    """Three switches that dial the sockets of ``directory``, and the fabric of the moment."""

    directory: Path
    network: SoftNetwork = field(init=False)
    farm: Farm = field(init=False)
    left: list[tuple[PortRef, bytes]] = field(default_factory=list)
    echo: set[PortRef] = field(default_factory=set)
    events: list[Event] = field(default_factory=list)
    tapped: list[tuple[str, PortRef, bytes]] = field(default_factory=list)

    def __post_init__(self) -> None:
        switches = {f"s{n}": Counted(n, map(live_port, (1, 2, 3, 4))) for n in (1, 2, 3)}
        self.network = SoftNetwork(switches, LINKS)
        target = f"unix:{self.directory}/{{name}}"
        self.farm = Farm(self.network, target, on_frame=self._left)

    def _left(self, at: PortRef, data: bytes) -> None:
        if at in self.echo:  # a VM that sends on what it gets
            self.farm.send(at, data)
        else:
            self.left.append((at, data))

    @property
    def changes(self) -> int:
        return sum(
            switch.changes
            for switch in self.network.switches.values()
            if isinstance(switch, Counted)
        )

    def send(self, data: bytes | None = None, at: PortRef = S1) -> list[PortRef]:
        """Let a frame in; return where it comes out."""
        self.left.clear()
        self.farm.send(at, frame() if data is None else data)
        return sorted(port for port, _ in self.left)

    def set_port(self, at: PortRef, port: Port | None) -> None:
        """Make, replace or remove a port; the controller hears of it."""
        if port is None:
            self.network.switches[at.switch].remove_port(at.port_no)
        else:
            self.network.switches[at.switch].add_port(port, 0.0)
        self.farm.set_port(S1, up=True)  # as it is: tells the news of all

    def told(self, kind: str) -> list[str]:
        return [event.subject for event in self.events if event.kind == kind]

    async def connect(self, **more: object) -> Fabric:
        """Make a fabric that waits for the switches; it does not run yet."""
        links = {Link(*ends): LinkInfo() for a, b in LINKS for ends in ((a, b), (b, a))}
        names = {switch.dpid: name for name, switch in self.network.switches.items()}
        options = replace(Options(names=names, links=links, counters_s=0), **more)  # type: ignore[arg-type]
        fabric = Fabric(options, self.events.append, on_tapped=lambda *it: self.tapped.append(it))
        for name in names.values():
            await fabric.controller.listen_unix(self.directory / name, name)
        return fabric

    @asynccontextmanager
    async def run(self, **more: object) -> AsyncIterator[Fabric]:
        """Run a fabric that knows its whole network."""
        fabric = await self.connect(**more)
        running = asyncio.create_task(fabric.run())
        try:
            await until(lambda: len(fabric.network().switches) == 3)
            yield fabric
        finally:
            await end(fabric, running)


async def end(fabric: Fabric, running: "asyncio.Task[None]") -> None:
    running.cancel()
    with suppress(asyncio.CancelledError):
        await running
    await fabric.close()
