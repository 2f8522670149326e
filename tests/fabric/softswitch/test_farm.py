"""Soft switches under the real controller, over real sockets."""

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
from tests.fabric.softswitch.cases import rule, udp

from anabranch.core.events import Event
from anabranch.fabric.controller import Controller
from anabranch.fabric.errors import MisuseError
from anabranch.fabric.model import PortRef
from anabranch.fabric.openflow.actions import PORT_CONTROLLER, Output
from anabranch.fabric.openflow.messages import FlowRemoved, PacketIn
from anabranch.fabric.openflow.oxm import Match
from anabranch.fabric.softswitch.farm import Farm
from anabranch.fabric.softswitch.network import SoftNetwork, line
from anabranch.fabric.tables import INTENT_COOKIE, REACTIVE_COOKIE, Tables

COUNT = 20


class World:
    """A row of switches s1 to s20, a controller, and what each of them reports."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.packets: list[tuple[str, PacketIn]] = []
        self.removed: list[tuple[str, FlowRemoved]] = []
        self.frames: asyncio.Queue[tuple[PortRef, bytes]] = asyncio.Queue()
        self.controller = Controller(
            self.events.append,
            adopt=lambda dpid: f"s{dpid}",
            on_packet_in=lambda switch, packet: self.packets.append((switch, packet)),
            on_flow_removed=lambda switch, removed: self.removed.append((switch, removed)),
            timeout=20.0,
        )
        self.network: SoftNetwork = line(COUNT)
        self.farm: Farm

    async def start(self) -> None:
        port = await self.controller.listen_tcp("127.0.0.1", 0)
        self.farm = Farm(
            self.network,
            f"tcp:127.0.0.1:{port}",
            on_frame=lambda ref, frame: self.frames.put_nowait((ref, frame)),
        )
        await self.farm.start()
        await self.until(lambda: len(self.up()) == COUNT)

    def up(self) -> list[str]:
        return [name for name, state in self.controller.switches().items() if state.connected]

    async def until(self, true: Callable[[], bool]) -> None:
        async with asyncio.timeout(60):
            while not true():
                await asyncio.sleep(0.005)

    async def stop(self) -> None:
        await self.farm.close()
        await self.controller.close()


@pytest.fixture
async def world() -> AsyncIterator[World]:
    made = World()
    await made.start()
    yield made
    await made.stop()


def forwarding() -> dict[str, Tables]:
    """Along the row: in by a port, out by the next one; s1 and s20 have one link only."""
    tables = {}
    for number in range(1, COUNT + 1):
        first, last = number == 1, number == COUNT
        in_port, out_port = (1, 2) if first else (2, 1 if last else 3)
        made = rule(Match(in_port=in_port), Output(out_port), cookie=INTENT_COOKIE)
        tables[f"s{number}"] = Tables(frozenset({made}))
    return tables


async def test_a_packet_crosses_twenty_switches(world: World) -> None:
    assert world.farm.connected == COUNT
    world.farm.send(PortRef("s1", 1), udp())
    assert world.frames.empty()
    assert await world.controller.apply(forwarding()) == frozenset()
    world.farm.send(PortRef("s1", 1), udp())
    assert world.frames.get_nowait() == (PortRef(f"s{COUNT}", 1), udp())
    (flow,) = await world.controller.readings.flows("s10")
    assert flow.packet_count == 1
    ports = {stats.port_no: stats for stats in await world.controller.readings.ports("s10")}
    assert (ports[2].rx_packets, ports[3].tx_packets) == (1, 1)


async def test_packets_in_and_out(world: World) -> None:
    to_controller = rule(Match(in_port=1), Output(PORT_CONTROLLER, 0xFFFF), cookie=INTENT_COOKIE)
    wanted = forwarding()
    wanted["s3"] = Tables(frozenset({to_controller}))
    await world.controller.apply(wanted)
    world.farm.send(PortRef("s3", 1), udp())
    await world.until(lambda: bool(world.packets))
    ((switch, packet),) = world.packets
    assert (switch, packet.match.in_port, packet.data) == ("s3", 1, udp())
    world.controller.packet_out("s3", udp(), (Output(3),))
    async with asyncio.timeout(60):
        assert await world.frames.get() == (PortRef(f"s{COUNT}", 1), udp())


async def test_reactive_rules_time_out_and_are_reported(world: World) -> None:
    await world.controller.apply({})
    reactive = rule(
        Match(in_port=1), Output(2), cookie=REACTIVE_COOKIE, table=0, idle=1, notify=True
    )
    world.controller.install("s2", [reactive])
    switch = world.network.switches["s2"]
    await world.until(lambda: 0 in switch.tables and len(switch.tables[0]) == 1)
    world.farm.send(PortRef("s2", 1), udp())
    await world.until(lambda: bool(world.removed))
    ((name, removed),) = world.removed
    assert (name, removed.reason, removed.packet_count) == ("s2", 0, 1)
    assert removed.duration >= 1


async def test_a_broken_link_is_two_ports_down(world: World) -> None:
    world.farm.set_link(PortRef("s5", 3), False)
    await world.until(lambda: sum(e.kind == "port.down" for e in world.events) == 2)
    down = {event.subject for event in world.events if event.kind == "port.down"}
    assert down == {"s5", "s6"}


async def test_a_connection_cut_off_comes_back_and_the_tables_stayed(world: World) -> None:
    assert await world.controller.apply(forwarding()) == frozenset()
    world.farm.disconnect("s7")
    await world.until(lambda: "s7" not in world.up())
    world.farm.send(PortRef("s1", 1), udp())
    assert world.frames.get_nowait() == (PortRef(f"s{COUNT}", 1), udp())
    await world.until(lambda: len(world.up()) == COUNT)
    assert [e.subject for e in world.events if e.kind == "switch.lost"] == ["s7"]


async def test_over_unix_sockets_and_a_controller_that_comes_late(tmp_path: Path) -> None:
    states: list[tuple[str, bool]] = []
    farm = Farm(
        line(2),
        f"unix:{tmp_path}/{{name}}.sock",
        on_state=lambda name, up: states.append((name, up)),
    )
    await farm.start()
    await asyncio.sleep(0.05)
    assert farm.connected == 0
    controller = Controller(lambda event: None)
    for name in ("s1", "s2"):
        await controller.listen_unix(tmp_path / f"{name}.sock", name)
    async with asyncio.timeout(60):
        while farm.connected < 2:
            await asyncio.sleep(0.01)
    await controller.close()
    async with asyncio.timeout(60):
        while farm.connected:
            await asyncio.sleep(0.01)
    await farm.close()
    assert sorted(states) == [("s1", False), ("s1", True), ("s2", False), ("s2", True)]


@pytest.mark.parametrize("target", ["", "tcp:6653", "udp:1.2.3.4:5", "unix:", "tcp:host:port"])
def test_what_is_no_target(target: str) -> None:
    with pytest.raises(MisuseError):
        Farm(line(1), target)


async def test_the_farm_as_a_process() -> None:
    events: list[Event] = []
    controller = Controller(events.append, adopt=lambda dpid: f"s{dpid}")
    port = await controller.listen_tcp("127.0.0.1", 0)
    farm = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "anabranch.fabric.softswitch", "--count", "30"),
        *("--connect", f"tcp:127.0.0.1:{port}", "--topology", "line"),
        stdout=asyncio.subprocess.PIPE,
    )
    assert farm.stdout is not None
    try:
        async with asyncio.timeout(30):
            assert json.loads(await farm.stdout.readline()) == {"state": "dialling", "switches": 30}
            connected = json.loads(await farm.stdout.readline())
            assert (connected["state"], connected["switches"]) == ("connected", 30)
            wanted = {"s30": forwarding()["s1"]}
            while sum(state.connected for state in controller.switches().values()) < 30:
                await asyncio.sleep(0.01)
            assert await controller.apply(wanted) == frozenset()
            farm.terminate()
            stopped = json.loads((await farm.stdout.read()).splitlines()[-1])
            assert await farm.wait() == 0
    finally:
        if farm.returncode is None:
            farm.kill()
            await farm.wait()
        await controller.close()
    assert stopped == {"state": "stopped", "switches": 0, "rules": 1, "groups": 0, "frames": 0}
