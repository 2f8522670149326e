"""Service nodes and the whole fabric over soft switches: registered, led to, gone."""

from collections.abc import AsyncIterator
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network

import pytest
from tests.fabric.triangle import S1, World
from tests.waiting import until

from anabranch.core.errors import ConflictError
from anabranch.fabric.fabric import Fabric
from anabranch.fabric.intents import Intents
from anabranch.fabric.model import PortRef
from anabranch.fabric.openflow.messages import ControllerRole
from anabranch.fabric.pipeline import HOSTS
from anabranch.fabric.steering import Filter, ServiceNode
from anabranch.fabric.steering.rules import STEERING_COOKIE

CLAIM = Filter("jane", IPv4Network("10.0.0.2/32"), 17, (5060,))
NODE = ServiceNode("n1", S1, "02:00:00:00:01:01", IPv4Address("10.0.0.101"), filters=(CLAIM,))


@pytest.fixture
async def fabric(world: World) -> AsyncIterator[Fabric]:
    async with world.run() as made:
        await until(lambda: _all_there(made), limit_s=5)
        yield made


async def _all_there(fabric: Fabric) -> bool:
    return not await fabric.put(Intents(), "nobody")


async def claimed(fabric: Fabric, switch: str = "s1") -> int:
    """Return how many rules of a switch ask the controller about packets to be steered."""
    flows = await fabric.flows(switch)
    return sum(flow.cookie == STEERING_COOKIE and flow.table_id == HOSTS for flow in flows)


async def test_a_node_is_led_to_as_soon_as_it_has_registered(world: World, fabric: Fabric) -> None:
    assert await fabric.register(NODE, 5.0)
    assert await claimed(fabric) == 3  # its claim, what comes back, signalling's way out
    assert await claimed(fabric, "s2") == 0
    changes = world.changes
    assert await fabric.register(NODE, 5.0)
    assert world.changes == changes, "saying it again changes nothing"
    assert await fabric.register(replace(NODE, filters=()), 5.0)
    assert await claimed(fabric) == 2
    assert fabric.service_nodes() == [(replace(NODE, filters=()), True, 0)]
    assert await fabric.withdraw("n1")
    assert await claimed(fabric) == 0
    assert not await fabric.withdraw("n1")


async def test_a_silent_node_is_forgotten(world: World, fabric: Fabric) -> None:
    assert await fabric.register(NODE, 0.2)
    await until(lambda: not fabric.service_nodes(), limit_s=5)
    await until(lambda: _none(fabric), limit_s=5)


async def _none(fabric: Fabric) -> bool:
    return await claimed(fabric) == 0


async def test_one_that_stands_by_knows_nodes_and_leads_once_it_is_at_work(
    world: World, fabric: Fabric
) -> None:
    await fabric.controller.take_role(ControllerRole.SLAVE, 1)
    changes = world.changes
    await fabric.register(NODE, 5.0)
    assert world.changes == changes
    await fabric.controller.take_role(ControllerRole.MASTER, 2)
    await until(lambda: _led(fabric), limit_s=5)
    await fabric.register(NODE, 5.0)
    assert not fabric._observer._steering.registry.touched, "what was there before is cleared"


async def _led(fabric: Fabric) -> bool:
    return await claimed(fabric) == 3


async def test_a_node_whose_port_is_not_there_is_not_reached(fabric: Fabric) -> None:
    away = replace(NODE, at=PortRef("s1", 77))
    assert not await fabric.register(away, 5.0)
    assert await claimed(fabric) == 0
    with pytest.raises(ConflictError):
        await fabric.register(replace(away, name="n2"), 5.0)
