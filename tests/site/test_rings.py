"""What is carried for repairs, and what encoders are told; the servers themselves cannot start."""

import asyncio
from dataclasses import dataclass
from pathlib import Path

import pytest
from tests.site.conftest import Make

from anabranch.fabric.intents import Flow, Intents
from anabranch.media import leaf_binary
from anabranch.media.leaf import LeafPlace
from anabranch.media.native import NativeLeaf
from anabranch.site.carriage import STREAM_PORT, StreamId, SwitchCarriage, Target, Want
from anabranch.site.plan import SitePlan, make_plan
from anabranch.site.rings import Rings
from anabranch.site.settings import LeafSettings, SiteSettings
from anabranch.tree.planning import Plan

HIGH, SOUND = StreamId("news", "high"), StreamId("news", "audio")
GROUPS = {HIGH: "239.192.0.17", SOUND: "239.192.0.16"}
WANTS = frozenset({Want(HIGH, "leaf1", 21004), Want(SOUND, "leaf1", 21005)})


@dataclass
class Ground:
    plan: SitePlan
    tree: Plan
    up: frozenset[str]


class World:
    def __init__(self, settings: SiteSettings) -> None:
        plan = make_plan(settings)
        self.ground = Ground(plan, plan.tree, plan.layout.up)
        self.put: list[Intents] = []
        self.told: list[tuple[StreamId, list[Target]]] = []
        carriage = SwitchCarriage(plan, self._put)
        self.rings = Rings(
            settings, self.ground, carriage, lambda stream, to: self.told.append((stream, to))
        )

    async def _put(self, intents: Intents) -> frozenset[str]:
        self.put.append(intents)
        return frozenset()

    def adopt(self, name: str) -> NativeLeaf:
        leaf = NativeLeaf(
            LeafPlace(
                name=name,
                directory=Path("/nowhere"),
                run_id="run",
                netns=None,
                media_addresses=("10.97.0.2",),
                public_addresses=(),
                media_ports=(20000, 20099),
                inlet_interface="10.98.0.3",
                inlet_ports=(21000, 21099),
            )
        )
        self.rings.adopt(leaf)
        return leaf

    async def carry(self, wants: frozenset[Want]) -> dict[str, Flow]:
        await self.rings.carry(wants, GROUPS, frozenset())
        return {flow.name: flow for flow in self.put[-1].flows}


@pytest.fixture
async def world(settings: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    monkeypatch.setenv(leaf_binary.VARIABLE, str(tmp_path / "missing"))
    made = World(settings(leaf=LeafSettings("anabranch", repair=True)))
    made.adopt("leaf1")
    return made


async def test_a_relay_gets_what_its_leaf_wants_and_the_root_from_its_encoders(
    world: World,
) -> None:
    flows = await world.carry(WANTS)
    assert flows.keys() == {
        *("news/high", "news/audio"),
        *("repair/leaf1/relay/asked", "repair/leaf1/relay/answered"),
        *("repair/relay/root/asked", "repair/relay/root/answered"),
    }
    for name in ("news/high", "news/audio"):
        assert {egress.at.switch for egress in flows[name].egress} == {"leaf1", "relay"}
    told = dict(world.told)
    assert told.keys() == {HIGH, SOUND}
    for stream, (multicast, (address, port)) in told.items():
        assert multicast == (GROUPS[stream], STREAM_PORT)
        assert address == "10.98.0.1"
        assert 21000 <= port < 21999
    assert told[HIGH] != told[SOUND]
    assert world.rings.targets(HIGH, GROUPS[HIGH]) == told[HIGH]

    world.told.clear()
    await world.carry(WANTS)
    assert world.told == []
    assert await world.carry(frozenset()) == {}
    assert dict(world.told) == {stream: [(group, STREAM_PORT)] for stream, group in GROUPS.items()}
    await world.rings.stop()


async def test_without_ring_servers_all_goes_on_as_if_there_were_none(world: World) -> None:
    await world.carry(WANTS)
    for _ in range(5):  # they are noticed to be missing
        await asyncio.sleep(0.01)
    assert world.rings.children() == {}
    assert await world.rings.figures() == {}
    await world.rings.stop()


async def test_a_leaf_that_asks_nobody_costs_nothing(world: World) -> None:
    wants = frozenset({Want(HIGH, "leaf2", 21004)})
    flows = await world.carry(wants)
    assert flows.keys() == {"news/high"}
    assert {egress.at.switch for egress in flows["news/high"].egress} == {"leaf2"}
    assert world.told == []
    await world.rings.remove("leaf1")
    assert (await world.carry(WANTS)).keys() == {"news/high", "news/audio"}
    await world.rings.stop()
