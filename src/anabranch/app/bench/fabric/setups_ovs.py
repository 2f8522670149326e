"""``flow_setup_ovs_ms``: what the first packet of a flow waits at a real switch.

4,000 packets a second pass one Open vSwitch from namespace to namespace, every one of another pair
of hosts, so that each needs the controller. The time is from before ``send`` to the kernel's
receipt, switch and veths included. os-ken's learning switch does the same afterwards.
"""

import asyncio
import time

from anabranch.app.bench.fabric.contender import OS_KEN, OWN, free_port, python
from anabranch.app.bench.fabric.lab import Lab, Shape, lab
from anabranch.app.bench.fabric.load import PAIRS, SOURCE_PORT, TARGET_PORT
from anabranch.app.bench.fabric.traffic import Record, introduce, traffic
from anabranch.app.bench.report import Peer, Result, percentiles, sampled
from anabranch.core.errors import UnavailableError
from anabranch.fabric.model import PortRef
from anabranch.host.process import run_command

RATE = 4000
_SHAPE = Shape(
    ("s1",),
    hosts={"from": PortRef("s1", SOURCE_PORT), "to": PortRef("s1", TARGET_PORT)},
)
_WARM_UP_S = 0.5
_LIMIT_S = 5.0


def measure(samples: int) -> list[Result]:
    """Send for ``samples`` seconds, at most 15, so that no pair comes twice.

    Raises:
        UnavailableError: this is not root, or a controller does not come up.
    """
    seconds = min(samples, 15)
    ours = asyncio.run(_record(OWN, seconds))
    theirs = asyncio.run(_record(OS_KEN, seconds))
    waits, peers = _waits(ours), _waits(theirs)
    return [
        sampled(
            "flow_setup_ovs_ms",
            "ms",
            waits,
            target="p99 <= 5",
            peer=Peer(
                f"os-ken's learning switch, p99; p50 {percentiles(peers)[0]:.1f}",
                sampled("", "", peers, p99=True).p99 or 0.0,
            ),
            digits=2,
            p99=True,
        ),
        Result(
            "flow_setup_ovs_lost",
            "packets",
            ours.sent,
            value=ours.lost,
            peer=Peer("os-ken's learning switch", theirs.lost),
        ),
    ]


def _waits(record: Record) -> list[float]:
    began = min(arrival.sent for arrival in record.arrivals)
    return [
        1000 * (arrival.arrived - arrival.sent)
        for arrival in record.arrivals
        if arrival.sent > began + _WARM_UP_S
    ]


async def _record(module: str, seconds: int) -> Record:
    port = free_port()
    # The switch reaches loopback of its own namespace only: the controller runs in there.
    async with lab(_SHAPE, f"tcp:127.0.0.1:{port}") as made:
        with python(module, str(port), netns=made.namespace("s1")):
            await _connected(made)
            sender, receiver = made.namespace("from"), made.namespace("to")
            await asyncio.to_thread(introduce, sender, receiver)
            await asyncio.sleep(1.0)
            with traffic(PAIRS, RATE, sender, receiver) as packets:
                await asyncio.sleep(seconds)
                record = await asyncio.to_thread(packets.stop)
    if not record.arrivals:
        raise UnavailableError(f"no packet came through with {module}")
    return record


async def _connected(made: Lab) -> None:
    """Wait until the controller's first rules are there."""
    management = f"unix:{made.management_path('s1')}"
    deadline = time.monotonic() + _LIMIT_S
    while time.monotonic() < deadline:
        flows = await run_command("ovs-ofctl", "-O", "OpenFlow13", "dump-flows", management)
        if "CONTROLLER" in flows:
            return
        await asyncio.sleep(0.1)
    raise UnavailableError("the controller gives the switch no rules")
