"""Links that damping or BFD keep down are tried by real switches where no other way is left.

from ---- 1 s1 9 ---- 8 s2 1 ---- to
            7 \\        / 6
              9 \\    / 8
                  s3
"""

import asyncio
import os
import socket
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from functools import partial

import pytest
from tests.fabric.worlds import frame_of, match_of
from tests.lab.inside import socket_in
from tests.lab.two_bridges import packet_socket, run

from anabranch.app.bench.fabric.lab import HOST_DEVICE, Lab, Shape, device
from anabranch.app.bench.fabric.running import fabric_over
from anabranch.core.events import Event
from anabranch.fabric.bridges import Bfd
from anabranch.fabric.damping import DampingRules
from anabranch.fabric.fabric import Fabric
from anabranch.fabric.intents import Egress, Flow, Intents
from anabranch.fabric.model import Link, LinkInfo, PortRef
from anabranch.fabric.topology import Topology, TopologyRules

pytestmark = [pytest.mark.lab, pytest.mark.skipif(os.geteuid() != 0, reason="needs root")]

HOSTS = {"from": PortRef("s1", 1), "to": PortRef("s2", 1)}
CABLE = PortRef("s1", 9), PortRef("s2", 8)
LINE = (CABLE,)
TRIANGLE = (
    CABLE,
    (PortRef("s1", 7), PortRef("s3", 9)),
    (PortRef("s3", 8), PortRef("s2", 6)),
)
BOTH_WAYS = "bucket=watch_port:9,output:9,bucket=watch_port:7,output:7"
FRAME = frame_of(0)
FLOW = Flow("flow", match_of(0), HOSTS["from"], frozenset({Egress(HOSTS["to"])}))


class World:
    """Switches, their fabric, which carries FLOW, and a raw socket at either host."""

    def __init__(self, lab: Lab, fabric: Fabric, events: list[Event]) -> None:
        self.lab = lab
        self.fabric = fabric
        self.events = events
        self.source, self.target = (
            socket_in(lab.namespace(name), packet_socket(HOST_DEVICE)) for name in HOSTS
        )

    def links(self) -> Mapping[Link, LinkInfo]:
        return self.fabric.network().links

    @property
    def link(self) -> LinkInfo:
        """What is known of the cable between s1 and s2."""
        return self.links()[Link(*CABLE)]

    @property
    def way(self) -> list[str]:
        """The switches behind s1 that the flow comes by, in order of their names."""
        return sorted(link.dst.switch for link in self.fabric.plan().trees["flow"].links)

    def told(self, kind: str) -> int:
        return sum(event.kind == kind for event in self.events)

    async def until(self, true: Callable[[], bool]) -> None:
        async with asyncio.timeout(30):
            while not true():
                await asyncio.sleep(0.005)

    async def arrives(self) -> None:
        """Send until a frame has gone all the way; then hear all that are still under way."""
        async with asyncio.timeout(30):
            self.source.send(FRAME)
            while not await self.heard():
                self.source.send(FRAME)
        while await self.heard():
            pass

    async def heard(self, seconds: float = 0.2, frame: bytes = FRAME) -> bool:
        """Say whether ``frame`` comes out within ``seconds``."""
        loop = asyncio.get_running_loop()
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while await loop.sock_recv(self.target, 2048) != frame:
                    pass
                return True
        return False

    async def flap(self) -> None:
        """Pull and plug the cable until it is damped."""
        while not self.told("link.damped"):
            downs = self.told("link.down")
            await self.lab.set_link(CABLE[0], up=False)
            await self.until(lambda downs=downs: self.told("link.down") > downs)  # type: ignore[misc]
            await self.lab.set_link(CABLE[0], up=True)
            await self.until(lambda: self.link.up or self.link.last_resort)

    async def deny(self, cables: tuple[tuple[PortRef, PortRef], ...]) -> None:
        """Swallow what BFD sends over cables, and nothing else."""
        for cable in cables:
            for end in cable:
                hook = f"type filter hook egress device {device(end)} priority 0;"
                table = (
                    f"table netdev {device(end)} {{ chain out {{ {hook} udp dport 3784 drop; }}; }}"
                )
                run("ip", "netns", "exec", self.lab.namespace(end.switch), "nft", table)

    async def carries(self, action: str, seconds: float) -> bool:
        """Say whether a frame comes out that s1 treats in a way the controller knows nothing of.

        It is one of the flow's, and told from its others, which may come late.
        """
        frame = frame_of(0, action.encode())
        management = f"unix:{self.lab.management_path('s1')}"
        ofctl = ("ovs-ofctl", "--timeout=5", "-O", "OpenFlow13")
        run(*ofctl, "packet-out", management, f"in_port=1 packet={frame.hex()} actions={action}")
        return await self.heard(seconds, frame)

    def add_group(self, number: int, buckets: str) -> None:
        management = f"unix:{self.lab.management_path('s1')}"
        group = f"group_id={number},type=ff,{buckets}"
        run("ovs-ofctl", "--timeout=5", "-O", "OpenFlow13", "add-group", management, group)


@asynccontextmanager
async def running(
    cables: tuple[tuple[PortRef, PortRef], ...], bfd: Bfd | None = None
) -> AsyncIterator[World]:
    switches = tuple(sorted({end.switch for cable in cables for end in cable}))
    lab = Lab(Shape(switches, cables, HOSTS, bfd))
    events: list[Event] = []
    sockets: list[socket.socket] = []
    try:
        await lab.build()
        async with fabric_over(lab, events.append) as fabric:
            world = World(lab, fabric, events)
            sockets = [world.source, world.target]
            await world.until(lambda: len(world.links()) == 2 * len(cables))
            await world.until(lambda: all(info.up for info in world.links().values()))
            assert await fabric.put(Intents((FLOW,))) == frozenset()
            await world.arrives()
            yield world
    finally:
        for made in sockets:
            made.close()
        await lab.remove()


@pytest.fixture
def quickly_calm(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let damping end within 10 s of the last flap."""
    damping = DampingRules(half_life=5.0, max_suppress=10.0)
    made = partial(Topology, rules=TopologyRules(damping=damping))
    monkeypatch.setattr("anabranch.fabric.observer.Topology", made)


async def test_a_damped_link_carries_on_where_it_is_the_only_way() -> None:
    async with running(LINE) as world:
        await world.flap()
        assert world.link.last_resort
        await world.arrives()
        assert world.link.last_resort, "it is still damped"
        assert not world.fabric.plan().unreachable
        await world.lab.set_link(CABLE[0], up=False)
        await world.until(lambda: bool(world.fabric.plan().unreachable))
        assert not world.link.last_resort
        await world.lab.set_link(CABLE[0], up=True)
        await world.arrives()
        assert world.link.last_resort


async def test_a_damped_link_is_left_alone_while_there_is_another_way(quickly_calm: None) -> None:
    async with running(TRIANGLE) as world:
        assert world.way == ["s2"]
        await world.flap()
        await world.until(lambda: world.way == ["s2", "s3"])
        assert world.link.last_resort
        await world.arrives()
        assert world.way == ["s2", "s3"]
        await world.until(lambda: world.link.up)
        await world.until(lambda: world.way == ["s2"])
        assert world.told("link.undamped") == 1
        await world.arrives()


async def test_ways_that_bfd_alone_denies_are_tried_plainly_and_a_group_would_not() -> None:
    async with running(TRIANGLE, Bfd(100, 100)) as world:
        assert world.fabric.plan().bypasses
        world.add_group(76, BOTH_WAYS)
        assert await world.carries("group:76", 10.0)
        await world.deny(TRIANGLE)
        await world.until(lambda: all(info.last_resort for info in world.links().values()))
        await world.until(lambda: not world.fabric.plan().bypasses)
        await world.arrives()
        assert world.way == ["s2"]
        world.add_group(77, BOTH_WAYS)
        # An end denied a moment after its peer has heard that one fall back to 1 s between
        # packets (RFC 5880, 6.8.3), and believes in it for three of them.
        async with asyncio.timeout(30):
            while await world.carries("group:77", 0.5):
                pass
        assert await world.carries("output:9", 10.0)


async def test_a_killed_switch_damps_none_of_its_links() -> None:
    async with running(LINE, Bfd(20, 20)) as world:
        for kill in (1, 2, 3):
            world.lab.switches["s2"].vswitchd.kill()
            await world.until(lambda kill=kill: world.told("switch.connected") >= 2 + kill)  # type: ignore[misc]
            await world.until(lambda: world.link.up or world.link.last_resort)
            await world.arrives()
            await world.until(lambda: world.link.up)
        assert world.told("link.down") >= 3
        assert not world.told("link.damped")
