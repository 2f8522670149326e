"""A real Open vSwitch whose flow table is full: who is hit hears of it, and gets its rules later.

hosts at s1:1, s1:2 -- s1 -- s2 -- host at s2:2; the table of flows at s1 is limited
"""

import os
from collections.abc import AsyncIterator
from dataclasses import dataclass

import pytest
from tests.waiting import until

from anabranch.app.bench.fabric.lab import BRIDGE, Lab, Shape, lab
from anabranch.app.bench.fabric.running import fabric_over
from anabranch.fabric.fabric import Fabric
from anabranch.fabric.failures import NotDoneError
from anabranch.fabric.intents import Egress, Flow, Intents
from anabranch.fabric.model import PortRef
from anabranch.fabric.openflow.oxm import ETH_IPV4, IP_UDP, Match
from anabranch.fabric.pipeline import FLOWS
from anabranch.host.process import run_command

pytestmark = [pytest.mark.lab, pytest.mark.skipif(os.geteuid() != 0, reason="needs root")]

SOURCE, NEAR, FAR = PortRef("s1", 1), PortRef("s1", 2), PortRef("s2", 2)
SHAPE = Shape(
    ("s1", "s2"),
    cables=((PortRef("s1", 3), PortRef("s2", 3)),),
    hosts={"source": SOURCE, "near": NEAR, "far": FAR},
)


@dataclass
class World:
    lab: Lab
    fabric: Fabric

    async def limit(self, flows: int | None) -> None:
        """Let the table of flows of s1 hold so many; None: as many as it likes."""
        switch = self.lab.switches["s1"]
        command = ["ovs-vsctl", f"--db=unix:{switch.directory}/db.sock", "--"]
        if flows is None:
            command += ["clear", "Bridge", BRIDGE, "flow_tables"]
        else:
            command += ["--id=@t", "create", "Flow_Table", f"flow_limit={flows}"]
            command += ["overflow_policy=refuse", "--", "set", "Bridge", BRIDGE]
            command += [f"flow_tables:{FLOWS}=@t"]
        await run_command(*command)

    async def held(self) -> set[object]:
        """Return the UDP ports that s1 has rules for."""
        return {
            entry.match.udp_dst
            for entry in await self.fabric.flows("s1")
            if entry.table_id == FLOWS and entry.match.udp_dst is not None
        }


@pytest.fixture
async def world() -> AsyncIterator[World]:
    async with lab(SHAPE) as made, fabric_over(made) as fabric:
        yield World(made, fabric)


def wanting(*flows: Flow) -> Intents:
    return Intents(flows)


def flow(port: int, to: PortRef, at: PortRef = SOURCE) -> Flow:
    match = Match(eth_type=ETH_IPV4, ip_proto=IP_UDP, ipv4_dst="239.1.2.3", udp_dst=port)
    return Flow(f"f{port}", match, at, frozenset({Egress(to)}))


async def test_a_full_table_is_the_concern_of_whose_rules_do_not_fit(world: World) -> None:
    fabric = world.fabric
    await fabric.put(wanting(flow(1, NEAR)))
    await world.limit(2)  # one of the site's, and the one that passes on what nobody wants
    theirs = wanting(flow(11, NEAR), flow(12, FAR))
    with pytest.raises(NotDoneError, match=r"^s1 refused rule table=3 .*table full") as caught:
        await fabric.put(theirs, "operator")
    assert {name for it in caught.value.failures for name in it.hit} == {"f11", "f12"}
    assert await world.held() == {1}

    # The site goes on: at the other switch, and where its rule takes the place of its own.
    assert await fabric.put(wanting(flow(1, FAR), flow(2, FAR, PortRef("s2", 2)))) == frozenset()
    assert {it.hit for it in fabric.failures() if it.hit} == {
        frozenset({"f11"}),
        frozenset({"f12"}),
    }
    assert await world.held() == {1}

    # What the site takes back makes room for one of the two, at once.
    assert await fabric.put(wanting(flow(2, FAR, PortRef("s2", 2)))) == frozenset()
    assert len(await world.held() & {11, 12}) == 1
    assert len([it for it in fabric.failures() if it.hit]) == 1

    # With room for all nobody need ask again.
    await world.limit(None)
    await until(lambda: not fabric.failures())
    assert await world.held() == {11, 12}
    assert await fabric.put(theirs, "operator") == frozenset()
