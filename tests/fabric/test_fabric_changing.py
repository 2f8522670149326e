"""Switches and links that come to be known, and are known no more, while flows are carried.

s1 -- s2 -- s3, and s1 -- s3: a triangle, hosts at the ports 1 and 2 of each.
"""

import asyncio

import pytest
from tests.fabric.triangle import LINKS, S3, World, flow, wanting
from tests.waiting import until

from anabranch.fabric.errors import DisconnectedError, MisuseError
from anabranch.fabric.fabric import Fabric
from anabranch.fabric.model import Link, LinkInfo

DIRECT, FIRST, SECOND = Link(*LINKS[2]), Link(*LINKS[0]), Link(*LINKS[1])


def used(fabric: Fabric) -> set[Link]:
    return set(fabric.plan().trees["news"].links)


async def test_a_flow_goes_by_the_links_that_are_wired_now(world: World, fabric: Fabric) -> None:
    await fabric.settled()  # nobody wants anything: that is done at once
    await fabric.put(wanting(flow()))
    assert used(fabric) == {DIRECT}
    fabric.wire({DIRECT: LinkInfo(redundant=True), FIRST: LinkInfo(), SECOND: LinkInfo()})
    assert await fabric.settled() == frozenset()
    assert used(fabric) == {FIRST, SECOND}
    assert world.send() == [S3]
    fabric.wire({DIRECT: LinkInfo()})
    await fabric.settled()
    assert used(fabric) == {DIRECT}
    assert set(fabric.network().links) == {DIRECT, DIRECT.reverse}
    assert world.send() == [S3]


async def test_what_an_operator_declares_stays_when_links_are_wired(fabric: Fabric) -> None:
    fabric.wire({FIRST: LinkInfo()})
    fabric.declare({SECOND: LinkInfo(capacity_mbit=5), FIRST: LinkInfo(redundant=True)})
    fabric.wire({FIRST: LinkInfo(capacity_mbit=9), DIRECT: LinkInfo()})
    links = fabric.network().links
    assert links.keys() >= {FIRST, SECOND, DIRECT}
    assert (links[FIRST].capacity_mbit, links[FIRST].redundant) == (9, True)
    assert links[SECOND].capacity_mbit == 5
    with pytest.raises(MisuseError):
        fabric.wire({Link(FIRST.src, DIRECT.dst): LinkInfo()})
    assert fabric.network().links == links


async def test_a_switch_that_is_dismissed_is_forgotten_and_may_come_again(
    world: World, fabric: Fabric
) -> None:
    await fabric.put(wanting(flow()))
    world.farm._dialling = asyncio.Semaphore(0)
    await fabric.dismiss("s2")
    await fabric.dismiss("s2")  # once more changes nothing
    assert set(fabric.switches()) == {"s1", "s3"}
    assert world.told("switch.lost") == ["s2"]
    assert not (world.directory / "s2").exists(), "nobody listens there"
    assert world.send() == [S3]
    fabric.expect("s2", 2)
    assert not fabric.switches()["s2"].connected
    await fabric.controller.listen_unix(world.directory / "s2", "s2")
    world.farm._dialling = asyncio.Semaphore(8)
    await until(lambda: fabric.switches()["s2"].connected)


async def test_nobody_waits_for_ways_of_a_fabric_that_has_ended(world: World) -> None:
    async with world.run() as fabric:
        await fabric.put(wanting(flow()))
    with pytest.raises(DisconnectedError, match="does not run"):
        await fabric.settled()
