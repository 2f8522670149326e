"""The controller and soft switches, by the wire: roles, packets, full tables, many switches."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from random import Random

import pytest
from structlog.testing import capture_logs
from tests.waiting import until

from anabranch.core.events import Event
from anabranch.fabric import controller as controller_module
from anabranch.fabric.assembly import base
from anabranch.fabric.controller import Controller
from anabranch.fabric.errors import DisconnectedError, FabricError, MisuseError
from anabranch.fabric.frames import ETH_LLDP, ethernet, ipv4_udp
from anabranch.fabric.model import PortRef
from anabranch.fabric.openflow.actions import PORT_CONTROLLER, Group, Output
from anabranch.fabric.openflow.messages import (
    Bucket,
    ControllerRole,
    FlowRemoved,
    GroupType,
    PacketIn,
)
from anabranch.fabric.openflow.oxm import Match
from anabranch.fabric.pipeline import EDGE
from anabranch.fabric.softswitch.farm import Farm
from anabranch.fabric.softswitch.network import SoftNetwork, line
from anabranch.fabric.softswitch.switch import SoftSwitch
from anabranch.fabric.switches import SwitchState
from anabranch.fabric.tables import (
    INTENT_COOKIE,
    REACTIVE_COOKIE,
    GroupSpec,
    Rule,
    Tables,
)

FRAME = ipv4_udp(
    "02:00:00:00:00:02", "02:00:00:00:00:01", "10.0.0.1", "10.0.0.2", 4000, 5004, b"news"
)
S1 = PortRef("s1", 1)


def rule(number: int, *actions: object, cookie: int = INTENT_COOKIE, **more: object) -> Rule:
    return Rule(0, 10, Match(in_port=number), actions or (Output(2),), cookie, **more)  # type: ignore[arg-type]


def tables(*rules: Rule, groups: tuple[GroupSpec, ...] = ()) -> Tables:
    return Tables(frozenset(rules), frozenset(groups))


@dataclass
class Bench:
    """Controllers, soft switches s1, s2, ... and what was heard of either."""

    network: SoftNetwork
    events: list[Event] = field(default_factory=list)
    packets: list[tuple[str, PacketIn]] = field(default_factory=list)
    ended: list[tuple[str, FlowRemoved]] = field(default_factory=list)
    states: list[tuple[str, SwitchState | None]] = field(default_factory=list)
    left: list[tuple[PortRef, bytes]] = field(default_factory=list)
    owners: dict[str, Controller] = field(default_factory=dict)
    farms: list[Farm] = field(default_factory=list)

    async def controller(
        self, hot: Callable[[str, bytes], bytes | None] | None = None
    ) -> tuple[Controller, str]:
        made = Controller(
            self.events.append,
            adopt=lambda dpid: f"s{dpid}" if dpid < 5000 else None,
            on_packet_in=lambda *it: self.packets.append(it),
            on_flow_removed=lambda *it: self.ended.append(it),
            on_switch=lambda *it: self.states.append(it),
            hot=hot,
        )
        target = f"tcp:127.0.0.1:{await made.listen_tcp('127.0.0.1', 0)}"
        self.owners[target] = made
        return made, target

    async def farm(self, target: str) -> Farm:
        """Dial a controller with all switches."""
        farm = Farm(self.network, target, on_frame=lambda *it: self.left.append(it))
        if self.farms:  # the same switches, not others of the same names
            farm.agents = self.farms[0].agents
        self.farms.append(farm)
        await farm.start()
        controller = self.owners[target]
        await until(lambda: controller.switches().keys() == self.network.switches.keys())
        await until(lambda: all(state.connected for state in controller.switches().values()))
        return farm

    def kinds(self, subject: str) -> list[str]:
        return [event.kind for event in self.events if event.subject == subject]


@asynccontextmanager
async def benched(network: SoftNetwork) -> AsyncIterator[Bench]:
    bench = Bench(network)
    try:
        yield bench
    finally:
        for farm in bench.farms:
            await farm.close()
        for controller in bench.owners.values():
            await controller.close()


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    async with benched(line(1, host_ports=3)) as made:
        yield made


def held(switch: SoftSwitch) -> set[Rule]:
    return {
        Rule(t, e.priority, e.match, e.actions, e.cookie)
        for t, entries in switch.tables.items()
        for e in entries
    }


# packets


async def test_packets_go_to_the_controller_and_back(bench: Bench) -> None:
    controller, target = await bench.controller()
    farm = await bench.farm(target)
    await controller.apply({"s1": tables(rule(1, Output(PORT_CONTROLLER, 0xFFFF)))})
    farm.send(S1, FRAME)
    await until(lambda: bench.packets)
    ((switch, packet),) = bench.packets
    assert (switch, packet.data, packet.match.in_port) == ("s1", FRAME, 1)
    controller.packet_out("s1", FRAME, (Output(3),))
    await until(lambda: bench.left)
    assert bench.left == [(PortRef("s1", 3), FRAME)]
    with pytest.raises(DisconnectedError, match="s2 is not connected"):
        controller.packet_out("s2", FRAME, ())


async def test_reactive_rules_come_and_go_beside_what_is_wanted(bench: Bench) -> None:
    controller, target = await bench.controller()
    await bench.farm(target)
    switch = bench.network.switches["s1"]
    await controller.apply({"s1": tables(rule(1))})
    mine = [rule(n, cookie=REACTIVE_COOKIE | n, idle_timeout=5) for n in (2, 3)]
    controller.install("s1", mine)
    await until(lambda: len(held(switch)) == 3)
    await controller.apply({"s1": tables(rule(1, Output(3)))})
    assert await controller.audit() == frozenset()
    assert len(held(switch)) == 3
    controller.remove_reactive("s1", Match(in_port=2))
    await until(lambda: len(held(switch)) == 2)
    controller.remove_reactive("s1")
    await until(lambda: held(switch) == {rule(1, Output(3))})
    with pytest.raises(MisuseError, match="REACTIVE_COOKIE"):
        controller.install("s1", [rule(1)])


async def test_a_refused_reactive_rule_is_counted_and_told_once(bench: Bench) -> None:
    controller, target = await bench.controller()
    await bench.farm(target)
    with capture_logs() as logs:
        for number in range(5):
            bad = rule(number + 1, Group(77), cookie=REACTIVE_COOKIE)
            controller.install("s1", [bad])
        await until(lambda: controller.refusals["s1"] == 5)
    assert [log["event"] for log in logs] == ["switch.error"]
    assert bench.kinds("s1") == ["switch.connected", "switch.error"]


async def test_ten_thousand_packets_are_held_back_but_a_thousand(bench: Bench) -> None:
    controller, target = await bench.controller()
    farm = await bench.farm(target)
    to_controller = rule(1, Output(PORT_CONTROLLER, 0xFFFF), cookie=INTENT_COOKIE | 1)
    await controller.apply({"s1": tables(to_controller)})
    with capture_logs() as logs:
        for _ in range(10_000):
            farm.send(S1, FRAME)
        await until(lambda: len(bench.packets) + controller.packet_ins_dropped["s1"] == 10_000)
    assert 1000 <= len(bench.packets) <= 5000
    assert [log["event"] for log in logs] == ["switch.packet_in_flood"]
    assert await controller.apply({"s1": tables(rule(1))}) == frozenset()


async def test_a_flood_does_not_hide_the_discovery(bench: Bench) -> None:
    controller, target = await bench.controller()
    farm = await bench.farm(target)
    to_controller = Output(PORT_CONTROLLER, 0xFFFF)
    flood = Rule(EDGE, 10, Match(in_port=1), (to_controller,), INTENT_COOKIE)
    await controller.apply({"s1": tables(*base(()).rules, flood)})
    lldp = ethernet("01:80:c2:00:00:0e", "02:00:00:00:00:01", ETH_LLDP, bytes(50))
    dropped = controller.packet_ins_dropped

    def heeded(port_no: int) -> int:
        found = [packet for _, packet in bench.packets if packet.data == lldp]
        return sum(packet.match.in_port == port_no for packet in found)

    with capture_logs() as logs:
        for number in range(4_000):
            farm.send(S1, FRAME)
            if number % 100 == 99:
                farm.send(S1, lldp)
        await until(lambda: len(bench.packets) + dropped["s1"] == 4_040)
        assert dropped["s1"] > 0
        assert heeded(1) == 40
        for number in range(4_000):  # nor does a flood of discovery hide that of another port
            farm.send(S1, lldp)
            if number % 100 == 99:
                farm.send(PortRef("s1", 2), lldp)
        await until(lambda: len(bench.packets) + dropped["s1"] == 8_080)
    assert heeded(1) < 4_000
    assert heeded(2) == 40
    assert {log.get("port_no") for log in logs} == {None, 1}


async def test_the_hot_hook_answers_before_anybody_else(bench: Bench) -> None:
    raws: list[tuple[str, bytes]] = []

    def hot(switch: str, raw: bytes) -> bytes | None:
        raws.append((switch, raw))
        return bytes.fromhex("0602000800000000") if len(raws) == 1 else None  # an echo request

    controller, target = await bench.controller(hot)
    farm = await bench.farm(target)
    await controller.apply({"s1": tables(rule(1, Output(PORT_CONTROLLER, 0xFFFF)))})
    farm.send(S1, FRAME)
    farm.send(S1, FRAME)
    await until(lambda: bench.packets)
    assert [(switch, raw[1], raw[-len(FRAME) :]) for switch, raw in raws] == [("s1", 10, FRAME)] * 2
    assert len(bench.packets) == 1


# what the switch tells


async def test_the_end_of_a_rule_is_passed_on_and_repaired(bench: Bench) -> None:
    controller, target = await bench.controller()
    farm = await bench.farm(target)
    switch = bench.network.switches["s1"]
    await controller.apply({"s1": tables(rule(1, notify=True), rule(2, notify=True))})
    switch.flow_mod(rule(1).delete(), asyncio.get_running_loop().time())
    farm.agents["s1"].tell()
    farm.send(PortRef("s1", 3), FRAME)
    await until(lambda: bench.ended)
    assert [(name, ended.match.in_port) for name, ended in bench.ended] == [("s1", 1)]
    await until(lambda: held(switch) == {rule(1), rule(2)})
    await controller.apply({"s1": tables(rule(2, notify=True))})  # our own deletion
    await until(lambda: len(bench.ended) == 2)
    assert held(switch) == {rule(2)}


async def test_the_state_of_a_switch_is_told_when_it_changes(bench: Bench) -> None:
    controller, target = await bench.controller()
    farm = await bench.farm(target)
    farm.set_port(S1, up=False)
    await until(lambda: len(bench.states) == 2)
    farm.disconnect("s1")
    await until(lambda: len(bench.states) == 4)
    states = [state and (state.connected, state.ports[1].up) for _, state in bench.states]
    assert states == [(True, True), (True, False), None, (True, False)]
    assert controller.switches()["s1"].version == 6


async def test_who_was_only_adopted_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(controller_module, "FORGET_S", 0.05)
    async with benched(line(3)) as bench:
        controller, target = await bench.controller()
        controller._names[1] = "s1"
        farm = await bench.farm(target)
        wanted = {name: tables(rule(1)) for name in ("s1", "s2", "s3")}
        assert await controller.apply(wanted) == frozenset()
        farm._dialling = asyncio.Semaphore(0)
        farm.disconnect("s1")
        farm.disconnect("s2")
        await until(lambda: controller.switches().keys() == {"s1", "s3"})
        assert not controller.switches()["s1"].connected
        assert await controller.apply(dict(wanted)) == {"s1", "s2"}
        monkeypatch.setattr(controller_module, "FORGET_S", 60.0)
        farm._dialling.release()
        farm._dialling.release()
        await until(lambda: bench.kinds("s2").count("switch.connected") == 2)
        await until(lambda: controller.switches()["s2"].rules == 1)
        farm.disconnect("s2")
        await until(lambda: not controller.switches()["s2"].connected)
        assert controller._forgetting.keys() == {"s2"}
        farm._dialling.release()
        await until(lambda: controller.switches()["s2"].connected)
        assert controller._forgetting == {}


async def test_nobodys_switch_is_sent_away(bench: Bench) -> None:
    bench.network.switches["s1"].dpid = 9999
    controller, target = await bench.controller()
    farm = Farm(bench.network, target)
    bench.farms.append(farm)
    with capture_logs() as logs:
        await farm.start()
        await until(lambda: logs)
    assert [log["event"] for log in logs] == ["switch.unexpected"]
    assert controller.switches() == {}


# full tables


async def test_what_does_not_fit_comes_when_there_is_room(bench: Bench) -> None:
    bench.network.switches["s1"] = SoftSwitch(1, (1, 2, 3), table_size=3)
    controller, target = await bench.controller()
    await bench.farm(target)
    switch = bench.network.switches["s1"]
    with capture_logs() as logs, pytest.raises(FabricError, match=r"s1 refused rule .*full"):
        await controller.apply({"s1": tables(*map(rule, (1, 2, 3, 4, 5)))})
    assert len(held(switch)) == 3
    assert [log["event"] for log in logs] == ["switch.error"]
    await controller.apply({"s1": tables(*map(rule, (6, 7, 8)))})
    assert held(switch) == set(map(rule, (6, 7, 8)))
    wanted = tables(*map(rule, (6, 7, 8, 9)))
    with pytest.raises(FabricError):
        await controller.apply({"s1": wanted})
    switch.flow_mod(rule(6).delete(), 0.0)
    switch._table_size = 4
    assert await controller.audit() == {"s1"}
    assert held(switch) == set(wanted.rules)


async def test_a_bad_group_takes_only_its_own_rules_along(bench: Bench) -> None:
    controller, target = await bench.controller()
    await bench.farm(target)
    right = GroupSpec(1, GroupType.ALL, (Bucket((Output(2),)),))
    wrong = GroupSpec(2, GroupType.ALL, (Bucket((Output(2),), watch_port=99),))
    rules = [rule(1, Group(1)), rule(2, Group(2)), rule(3)]
    with pytest.raises(FabricError, match="s1 refused group 2"):
        await controller.apply({"s1": tables(*rules, groups=(right, wrong))})
    assert held(bench.network.switches["s1"]) == {rules[0], rules[2]}
    assert [entry.group_id for entry in await controller.readings.group_stats("s1")] == [1]
    assert await controller.readings.meter_stats("s1") == []


@pytest.mark.parametrize(
    "wanted",
    [
        tables(rule(1), rule(1, Output(3))),
        tables(rule(1, Group(5))),
        tables(groups=(GroupSpec(1, GroupType.ALL, (Bucket((Group(1),)),)),)),
        tables(groups=(GroupSpec(1, GroupType.ALL, ()), GroupSpec(1, GroupType.SELECT, ()))),
        tables(rule(1, meter=3)),
        tables(groups=(GroupSpec(1, GroupType.SELECT, (Bucket(()),) * 501),)),
    ],
)
async def test_impossible_tables_are_misuse_and_change_nothing(
    bench: Bench, wanted: Tables
) -> None:
    controller, target = await bench.controller()
    await bench.farm(target)
    await controller.apply({"s1": tables(rule(1))})
    with pytest.raises(MisuseError):
        await controller.apply({"s1": wanted})
    assert held(bench.network.switches["s1"]) == {rule(1)}


# roles


async def test_a_slave_writes_nothing_until_it_is_master(bench: Bench) -> None:
    (first, one), (second, two) = [await bench.controller() for _ in range(2)]
    await first.take_role(ControllerRole.MASTER, 2**64 - 1)
    await second.take_role(ControllerRole.SLAVE, 2**64 - 9)  # stale, and told so
    farm = await bench.farm(one)
    await first.apply({"s1": tables(rule(1))})
    await bench.farm(two)
    assert await second.apply({"s1": tables(rule(1), rule(2))}) == {"s1"}
    assert await second.audit() == frozenset()
    switch = bench.network.switches["s1"]
    assert held(switch) == {rule(1)}
    await second.take_role(ControllerRole.MASTER, 3)  # wrapped around: newer
    await until(lambda: held(switch) == {rule(1), rule(2)})
    farm.set_port(S1, up=True)  # has this farm send what the other one's agent has said
    await until(lambda: bench.kinds("controller") == ["controller.role_lost"])
    assert await first.apply({"s1": tables()}) == {"s1"}
    with pytest.raises(DisconnectedError, match="another controller"):
        first.packet_out("s1", FRAME, (Output(2),))
    with pytest.raises(FabricError):
        await first.take_role(ControllerRole.MASTER, 2)
    assert await first.apply({"s1": tables()}) == {"s1"}
    assert held(switch) == {rule(1), rule(2)}
    await first.take_role(ControllerRole.MASTER, 4)
    await until(lambda: held(switch) == set())
    with pytest.raises(MisuseError):
        await first.take_role(ControllerRole.NOCHANGE, 5)


async def test_the_role_is_told_to_switches_that_come_later(bench: Bench) -> None:
    controller, target = await bench.controller()
    await controller.take_role(ControllerRole.MASTER, 7)
    await controller.apply({"s1": tables(rule(1))})
    farm = await bench.farm(target)
    await until(lambda: held(bench.network.switches["s1"]) == {rule(1)})
    assert [channel.role for channel in farm.agents["s1"].channels] == [ControllerRole.MASTER]
    assert farm.agents["s1"].generation == 7


async def test_a_controller_that_is_refused_as_slave_has_lost_its_role(bench: Bench) -> None:
    controller, target = await bench.controller()
    farm = await bench.farm(target)
    await controller.apply({"s1": tables(rule(1))})
    for channel in farm.agents["s1"].channels:
        channel.role = ControllerRole.SLAVE
    with pytest.raises(FabricError, match="slave"):
        await controller.apply({"s1": tables(rule(2))})
    assert bench.kinds("controller") == ["controller.role_lost"]
    assert await controller.apply({"s1": tables(rule(3))}) == {"s1"}


# many


async def test_two_hundred_switches_follow_whatever_happens() -> None:
    """Tables change, connections break and others meddle: in the end all is as wanted."""
    random = Random(5)
    network = line(200)
    names = list(network.switches)
    async with benched(network) as bench:
        controller, target = await bench.controller()
        farm = await bench.farm(target)
        wanted: dict[str, Tables] = {}
        for _ in range(4):
            for name in random.sample(names, 60):
                numbers = random.sample(range(1, 9), 4)
                wanted[name] = tables(*(rule(n, Output(random.randint(1, 2))) for n in numbers))
            for name in random.sample(names, 10):
                farm.disconnect(name)
            await controller.apply(wanted, names[:20])
            meddled = network.switches[random.choice(names)]
            meddled.flow_mod(rule(99).add(), 0.0)
        await until(lambda: farm.connected == 200)
        await until(
            lambda: all(state.rules is not None for state in controller.switches().values())
        )
        await controller.apply(wanted)
        await controller.audit()
        for name, switch in network.switches.items():
            assert held(switch) == set(wanted.get(name, Tables()).rules)
