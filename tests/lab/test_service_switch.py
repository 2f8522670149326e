"""Service nodes beside a real switch: figure 8.2 of seed 003, and 8.3.

Everything is started by the command line: the controller, the nodes, the signed message.
"""

import os
import time
from collections.abc import AsyncIterator
from itertools import pairwise
from pathlib import Path

import pytest
from tests.lab.switch_nodes import MONITOR, SOURCES, USER, SwitchNodes
from tests.lab.two_bridges import run
from tests.waiting import wait_until

pytestmark = [pytest.mark.lab, pytest.mark.skipif(os.geteuid() != 0, reason="needs root")]
FLOWS = len(SOURCES)


@pytest.fixture
async def lab() -> AsyncIterator[SwitchNodes]:
    made = SwitchNodes()
    try:
        await made.build()
        for number in (1, 2):
            made.start(number)
        yield made
    finally:
        await made.close()
    names = {path.name for path in Path("/run/netns").iterdir()}
    assert not {name for name in names if made.node(1)[:-1] in name}


def settled(lab: SwitchNodes, total: int) -> dict[str, int]:
    """Return what the nodes have counted, once it is ``total``, or after a few seconds."""
    until = time.monotonic() + 5
    while sum((counted := lab.counted()).values()) != total and time.monotonic() < until:
        time.sleep(0.1)
    return counted


async def test_from_the_signed_message_to_a_node_that_dies(lab: SwitchNodes) -> None:
    first, second = lab.node(1), lab.node(2)
    assert lab.install() == [first, second], "signalling visits both in turn"

    # spread, by the controller first, then without it
    assert lab.send(1) == FLOWS
    assert lab.questions() == FLOWS
    assert lab.send(20) == 20 * FLOWS
    assert lab.questions() == FLOWS, "later packets are switched without the controller"
    counted = settled(lab, 21 * FLOWS)
    assert counted.keys() == {first, second}
    assert sum(counted.values()) == 21 * FLOWS
    assert all(count % 21 == 0 and count for count in counted.values()), "a flow stays on a node"

    # what nobody claims
    assert lab.send(2, port=5061) == 2 * FLOWS
    assert settled(lab, 21 * FLOWS) == counted

    # one dies: its flows are the other's
    lab.kill(1)
    wait_until(lambda: first not in lab.reached(), "nobody noticed", limit_s=10)
    assert lab.send(5) == 5 * FLOWS
    assert settled(lab, counted[second] + 5 * FLOWS) == {second: counted[second] + 5 * FLOWS}
    assert lab.questions() == FLOWS, "entries are replaced, not asked for anew"

    # it comes back in a stage of its own: every flow passes both, in turn
    lab.start(1, stage="before")
    assert lab.install() == [second, first], "stages come in the order of their names"
    before = lab.counted()
    assert lab.send(10) == 10 * FLOWS
    after = settled(lab, sum(before.values()) + 20 * FLOWS)
    assert {name: after[name] - before[name] for name in after} == {
        first: 10 * FLOWS,
        second: 10 * FLOWS,
    }

    # one ends while packets pass: what is in its sandbox at that moment is all that may be lost
    lab.stop(1)
    assert lab.send(5) == 5 * FLOWS
    assert lab.command("remove", MONITOR, USER).returncode == 0
    assert lab.send(5) == 5 * FLOWS
    questions = [lab.questions() for _ in range(2)]
    assert all(one == other for one, other in pairwise(questions))
    assert "svc" not in run("ip", "-n", lab.netns("n1"), "-br", "link").replace("svc0", "")
