"""What failures cost a stream: a link down, a link that swallows packets, the controller killed.

Four real switches in a ring, BFD every 20 ms on each cable, a protected flow between opposite
corners, 1,000 packets a second with numbers. An outage is the distance, by when they were sent, of
the last packet before and the first after the loss.
"""

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import yaml

from anabranch.app.bench.fabric.contender import python
from anabranch.app.bench.fabric.hosts import target_mac
from anabranch.app.bench.fabric.lab import Lab, Shape, lab
from anabranch.app.bench.fabric.running import fabric_over
from anabranch.app.bench.fabric.traffic import traffic
from anabranch.app.bench.report import Peer, Result, sampled
from anabranch.core.errors import UnavailableError
from anabranch.core.events import Event
from anabranch.fabric import intents_json
from anabranch.fabric.bridges import Bfd
from anabranch.fabric.fabric import Fabric
from anabranch.fabric.intents import Egress, Flow, Intents
from anabranch.fabric.model import Link, PortRef
from anabranch.fabric.openflow.messages import GroupType
from anabranch.fabric.openflow.oxm import ETH_IPV4, Match

PPS = 1000
LOAD_PPS = 10_000
_HOST, _NEXT, _PREVIOUS = 1, 2, 3
_RING = ("s1", "s2", "s3", "s4")
_SHAPE = Shape(
    _RING,
    cables=tuple(
        (PortRef(name, _NEXT), PortRef(_RING[(place + 1) % len(_RING)], _PREVIOUS))
        for place, name in enumerate(_RING)
    ),
    hosts={"from": PortRef("s1", _HOST), "to": PortRef("s3", _HOST)},
    bfd=Bfd(20, 20, 3),
    realtime=True,
)
_FLOW = Flow(
    "probe",
    Match(eth_type=ETH_IPV4, eth_dst=target_mac(0).hex(":")),
    _SHAPE.hosts["from"],
    frozenset({Egress(_SHAPE.hosts["to"])}),
)
_WANTED = Intents((_FLOW,))
_SETTLE_S = 1.5
_LIMIT_S = 15.0
_CALM_S = 9.0
_LOAD_PART_S = 30.0
"""Between two failures, two links in turn: one that fails more often is damped for a minute."""


def measure(samples: int) -> list[Result]:
    """Break and mend a link of the flow's way ``samples`` times in each manner; kill controllers.

    Raises:
        UnavailableError: this is not root, or the network does not come back into order.
    """
    downs = asyncio.run(_outages(samples, black_hole=False))
    holes = asyncio.run(_outages(samples, black_hole=True))
    lost, sent, alone = asyncio.run(_restarts(samples))
    return [
        sampled("link_down_outage_ms", "ms", downs, target="p95 <= 20"),
        sampled("black_hole_outage_ms", "ms", holes, target="p95 <= 80"),
        Result(
            "controller_restart_lost_packets",
            "packets",
            sent,
            value=lost,
            target="0",
            peer=Peer("as many packets without any restart", alone),
        ),
    ]


def measure_false_failovers(minutes: int) -> list[Result]:
    """Watch a healthy ring under load for ``minutes``: nothing may fail over.

    Raises:
        UnavailableError: this is not root, or the switches do not come.
    """
    links, packets = asyncio.run(_false_failovers(minutes * 60.0))
    return [
        Result(
            "black_hole_false_failovers", "links", minutes, value=links, target="0 in 10 minutes"
        ),
        Result("black_hole_false_failover_packets", "packets", minutes, value=packets),
    ]


async def _outages(samples: int, *, black_hole: bool) -> list[float]:
    async with lab(_SHAPE) as made, fabric_over(made) as fabric:
        await _ready(fabric)
        outages = []
        for number in range(samples):
            calm = time.monotonic() + _CALM_S
            links = way(fabric)
            link = links[number % len(links)]
            sender, receiver = made.namespace("from"), made.namespace("to")
            with traffic(1, PPS, sender, receiver) as packets:
                await asyncio.sleep(0.3)
                began = time.time()
                await _set(made, link, broken=True, black_hole=black_hole)
                await asyncio.sleep(_SETTLE_S)
                record = await asyncio.to_thread(packets.stop)
            if not any(arrival.sent > began + _SETTLE_S / 2 for arrival in record.arrivals):
                raise UnavailableError(f"the flow does not come back after {link} has failed")
            outages.append(record.outage_ms(began - 0.05, began + _SETTLE_S))
            await _set(made, link, broken=False, black_hole=black_hole)
            await _whole(fabric)
            await asyncio.sleep(calm - time.monotonic())
        return outages


async def _set(made: Lab, link: Link, *, broken: bool, black_hole: bool) -> None:
    if black_hole:
        await made.set_black_hole((link.src, link.dst), there=broken)
    else:
        await made.set_link(link.src, up=not broken)


async def _ready(fabric: Fabric) -> None:
    """Wait for BFD, then ask for the flow."""
    await _whole(fabric)
    await fabric.put(_WANTED)
    await asyncio.sleep(_SETTLE_S)


async def _whole(fabric: Fabric) -> None:
    """Wait until every link is up, and then for the way to follow."""
    deadline = time.monotonic() + _LIMIT_S
    while time.monotonic() < deadline:
        links = fabric.network().links
        if len(links) == len(_SHAPE.links) and all(info.up for info in links.values()):
            await asyncio.sleep(_SETTLE_S)
            return
        await asyncio.sleep(0.02)
    raise UnavailableError("the ring does not become whole again")


def way(fabric: Fabric) -> list[Link]:
    """Return the links of the flow's way, from its source on.

    Raises:
        UnavailableError: it has none.
    """
    links = {link.src.switch: link for link in fabric.plan().trees[_FLOW.name].links}
    found: list[Link] = []
    at = _FLOW.ingress.switch
    while at in links:
        found.append(links.pop(at))
        at = found[-1].dst.switch
    if not found:
        raise UnavailableError("the flow has no way")
    return found


async def _false_failovers(seconds: float) -> tuple[int, int]:
    downs: list[Event] = []

    def happened(event: Event) -> None:
        if event.kind == "link.down":
            downs.append(event)

    async with lab(_SHAPE) as made, fabric_over(made, happened) as fabric:
        await _ready(fabric)
        downs.clear()
        before = await _bypassed(fabric)
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:  # in parts: every packet is remembered
            with traffic(1, LOAD_PPS, made.namespace("from"), made.namespace("to")):
                await asyncio.sleep(min(left, _LOAD_PART_S))
        return len(downs), await _bypassed(fabric) - before


async def _bypassed(fabric: Fabric) -> int:
    """Return how many packets went by any but the first bucket of a group."""
    packets = 0
    for name in _RING:
        for group, stats in await fabric.groups(name):
            if group.type is GroupType.FAST_FAILOVER and stats is not None:
                packets += sum(count for count, _ in stats.buckets[1:])
    return packets


async def _restarts(samples: int) -> tuple[int, int, int]:
    """Kill the controller and start it again, under traffic: packets lost, sent, lost without."""
    async with lab(_SHAPE) as made:
        file = _controller_file(made)
        try:
            async with _controller(file):
                await asyncio.sleep(_SETTLE_S)
                sender, receiver = made.namespace("from"), made.namespace("to")
                await _flowing(sender, receiver)
                with traffic(1, PPS, sender, receiver) as packets:
                    await asyncio.sleep(2.0)
                    alone = await asyncio.to_thread(packets.stop)
            with traffic(1, PPS, sender, receiver) as packets:
                await asyncio.sleep(0.5)
                for _ in range(samples):
                    async with _controller(file):
                        await asyncio.sleep(_SETTLE_S)
                    await asyncio.sleep(0.3)
                record = await asyncio.to_thread(packets.stop)
        finally:
            file.unlink(missing_ok=True)
        return record.lost, record.sent, alone.lost


async def _flowing(sender: str, receiver: str) -> None:
    deadline = time.monotonic() + _LIMIT_S
    while time.monotonic() < deadline:
        with traffic(1, PPS, sender, receiver) as packets:
            await asyncio.sleep(0.2)
            record = await asyncio.to_thread(packets.stop)
        if record.arrivals and record.arrivals[-1].number == record.sent - 1:
            return
    raise UnavailableError("the controller in a process of its own carries nothing")


def _controller_file(made: Lab) -> Path:
    """Write what the stand-alone controller reads: it dials the switches, so none waits for it."""
    plain = yaml.safe_load(intents_json.dumps(_WANTED))  # JSON is YAML
    content = {
        "listen": None,
        "api": f"unix:{made.controller_path('s1').parent / 'api.sock'}",
        "switches": [
            {
                "name": name,
                "dpid": _SHAPE.dpid(name),
                "connect": str(made.management_path(name)),
            }
            for name in _RING
        ],
        "links": [{"between": [str(a), str(b)]} for a, b in _SHAPE.cables],
        "edge": [str(port) for port in _SHAPE.hosts.values()],
        "discover": False,
        "unicast": "none",
        "intents": plain,
    }
    file = made.controller_path("s1").parent / "controller.yaml"
    file.write_text(yaml.safe_dump(content))
    return file


@asynccontextmanager
async def _controller(file: Path) -> AsyncIterator[None]:
    """Run the controller as a process; kill it as nothing could prepare for."""
    with python("anabranch.app.bench.fabric.controller_process", str(file)) as process:
        yield
        os.kill(process.pid, signal.SIGKILL)
