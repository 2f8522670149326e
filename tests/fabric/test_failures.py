"""A switch that refuses something is the concern of those that it hits, and of nobody else."""

import asyncio
from dataclasses import replace

import pytest
from tests.fabric.triangle import S1, S2, S3, World, flow, frame, wanting
from tests.waiting import until

from anabranch.core.errors import UnavailableError
from anabranch.fabric.errors import MisuseError
from anabranch.fabric.failures import NotDoneError
from anabranch.fabric.intents import Egress, Intents
from anabranch.fabric.openflow.oxm import Match
from anabranch.fabric.pathlogic.logic import Path as VmPath
from anabranch.fabric.pipeline import FLOWS

SPORT, MORE = 5006, 5008


def fill(world: World, switch: str, *, room: int = 0) -> None:
    """Let a switch have room for so many more flows, or fewer rules of other tables."""
    soft = world.network.switches[switch]
    soft._table_size = len(soft.tables[FLOWS]) + room


async def test_what_is_refused_is_its_owners_concern(world: World) -> None:
    async with world.run() as fabric:
        await fabric.put(wanting(flow("news", S2)))
        fill(world, "s3")
        sport = wanting(flow("sport", S2, S3, port=SPORT))
        with pytest.raises(NotDoneError, match=r"^s3 refused rule .*: table full") as caught:
            await fabric.put(sport, "operator")
        assert isinstance(caught.value, UnavailableError)
        assert {name for it in caught.value.failures for name in it.hit} == {"sport"}
        assert fabric.intents("operator") == sport, "it is wanted all the same"
        assert world.send(frame(SPORT)) == [S2], "what can be done is done"

        both = wanting(flow("news", S2), flow("more", S2, port=MORE))
        assert await fabric.put(both) == frozenset()
        assert (world.send(), world.send(frame(MORE))) == ([S2], [S2])
        assert await fabric.follow([]) == frozenset()
        (failure,) = [it for it in fabric.failures() if it.hit]
        assert (failure.switch, failure.hit) == ("s3", {"sport"})
        with pytest.raises(NotDoneError):
            await fabric.put(wanting(*sport.flows, flow("x", S2, port=1)), "operator")

        fill(world, "s3", room=100)
        await until(lambda: world.send(frame(SPORT)) == [S2, S3])
        await until(lambda: not fabric.failures())
        assert await fabric.put(sport, "operator") == frozenset()


async def test_what_is_taken_back_makes_room_at_once(world: World) -> None:
    async with world.run() as fabric:
        await fabric.put(wanting(flow("news")))
        fill(world, "s3")
        sport = wanting(flow("sport", port=SPORT))
        with pytest.raises(NotDoneError):
            await fabric.put(sport, "operator")
        assert await fabric.put(Intents()) == frozenset()
        assert world.send(frame(SPORT)) == [S3]
        assert fabric.failures() == ()
        with pytest.raises(NotDoneError):
            await fabric.put(wanting(flow("news")))
        assert await fabric.put(sport, "operator") == frozenset()
        await fabric.put(Intents())
        assert fabric.failures() == ()


async def test_paths_past_machines_and_all_of_a_new_beginning_are_concerned_too(
    world: World,
) -> None:
    path = VmPath("vms", S1, S3, "192.168.1.181", Match(eth_type=0x0800, ip_proto=6))
    async with world.run() as fabric:
        await fabric.put(wanting(flow("news", S2)))
        fill(world, "s3")
        with pytest.raises(NotDoneError) as caught:
            await fabric.follow([path])
        assert {name for it in caught.value.failures for name in it.hit} == {"vms"}
        assert await fabric.put(wanting(flow("news", S2))) == frozenset()
        with pytest.raises(NotDoneError):
            await fabric.restore({"site": wanting(flow("news", S2))}, [path])
        assert await fabric.restore({"site": wanting(flow("news", S2))}, []) == frozenset()


async def test_what_a_switch_refuses_that_comes_back_is_known_and_tried_again(
    world: World,
) -> None:
    async with world.run() as fabric:
        await fabric.put(wanting(flow("news")))
        world.farm._dialling = asyncio.Semaphore(0)
        world.farm.disconnect("s3")
        await until(lambda: not fabric.switches()["s3"].connected)
        assert await fabric.put(wanting(flow("news"), flow("sport", port=SPORT))) == {"s3"}
        assert fabric.failures() == (), "it is away; it refuses nothing"
        fill(world, "s3")
        world.farm._dialling.release()
        await until(lambda: any(it.hit == {"sport"} for it in fabric.failures()))
        fill(world, "s3", room=100)
        await until(lambda: world.send(frame(SPORT)) == [S3])
        await until(lambda: not fabric.failures())


async def test_what_no_switch_can_hold_is_refused_to_whoever_asks_for_it(world: World) -> None:
    far = frozenset(Egress(S3, udp_dst=1 + number) for number in range(3201))
    async with world.run() as fabric:
        await fabric.put(wanting(flow("news")))
        with pytest.raises(MisuseError, match="3201 copies at s3 are too many"):
            await fabric.put(wanting(replace(flow("big", port=SPORT), egress=far)), "operator")
        assert await fabric.put(wanting(flow("news", S2))) == frozenset()
        assert world.send() == [S2]
