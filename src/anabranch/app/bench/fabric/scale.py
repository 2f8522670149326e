"""``reconcile_1000_switches_s`` and ``recompute_link_ms``: how the controller bears size.

1,000 soft switches run in a process of their own and connect over TCP: a tree whose switches have
up to ten below them. Each intent leads from one switch drawn at random to another.
"""

import asyncio
import json
import signal
import sys
import time
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from random import Random

from anabranch.app.bench.fabric.contender import free_port
from anabranch.app.bench.fabric.lab import connected, quieten
from anabranch.app.bench.report import Result, sampled
from anabranch.core.errors import UnavailableError
from anabranch.fabric.compiler import Compiler
from anabranch.fabric.errors import FabricError
from anabranch.fabric.fabric import Fabric
from anabranch.fabric.intents import Egress, Flow, Intents
from anabranch.fabric.model import Link, LinkInfo, Network, PortInfo, PortRef
from anabranch.fabric.openflow.oxm import ETH_IPV4, IP_UDP, Match
from anabranch.fabric.options import Options
from anabranch.fabric.softswitch.network import graph, tree

SWITCHES, INTENTS = 1000, 10_000
NODES, LINKS, FLOWS = 200, 400, 1000
_FAN_OUT = 10
_PATIENCE_S = 120.0


def measure(samples: int) -> list[Result]:
    """Restart a controller of 1,000 switches ``samples`` times; fail each link in turn.

    Raises:
        UnavailableError: the switches do not come.
    """
    quieten()
    installs, restarts, rules = asyncio.run(_reconcile(samples))
    return [
        sampled("install_1000_switches_s", "s", installs),
        sampled("reconcile_1000_switches_s", "s", restarts, target="max <= 10"),
        Result("reconcile_1000_switches_rules", "rules", 1, value=rules),
        sampled("recompute_link_ms", "ms", recompute(max(samples, 50)), target="max <= 100"),
    ]


def recompute(samples: int) -> list[float]:
    """Return ms that it takes to compute all tables anew after one link of a graph has failed.

    200 nodes, 400 links, 1,000 protected flows of 1 to 4 egresses; each link is repaired again.
    """
    draw = Random(1)  # noqa: S311  # the same graph every time
    edges = {(draw.randrange(1, n), n) for n in range(2, NODES + 1)}
    while len(edges) < LINKS:
        a, b = sorted(draw.sample(range(1, NODES + 1), 2))
        edges.add((a, b))
    soft = graph(sorted(edges), nodes=NODES)
    links = [Link(a, b) for a, b in soft.peers.items()]
    ports = {
        PortRef(name, port_no): PortInfo(f"{name}-{port_no}")
        for name, switch in soft.switches.items()
        for port_no in switch.ports
    }
    switches = {name: switch.dpid for name, switch in soft.switches.items()}
    whole = Network(switches, ports, {link: LinkInfo() for link in links})
    intents = Intents(tuple(_flows(FLOWS, sorted(switches), draw)))
    compiler = Compiler()
    compiler.compile(intents, whole)
    times = []
    for _ in range(samples):
        failed = draw.choice(links)
        down = {link: LinkInfo(up=link not in (failed, failed.reverse)) for link in whole.links}
        broken = Network(switches, ports, down)
        began = time.perf_counter()
        compiler.compile(intents, broken)
        times.append(1000 * (time.perf_counter() - began))
        compiler.compile(intents, whole)
    return times


def _flows(count: int, names: Sequence[str], draw: Random, most: int = 4) -> list[Flow]:
    flows = []
    for number in range(count):
        ingress, *egresses = draw.sample(names, 1 + draw.randint(1, most))
        match = Match(
            eth_type=ETH_IPV4,
            ip_proto=IP_UDP,
            ipv4_dst=f"239.{number >> 16}.{number >> 8 & 255}.{number & 255}",
        )
        egress = frozenset(Egress(PortRef(name, 1)) for name in egresses)
        flows.append(Flow(f"flow{number}", match, PortRef(ingress, 1), egress))
    return flows


async def _reconcile(samples: int) -> tuple[list[float], list[float], int]:
    soft = tree(SWITCHES, _FAN_OUT)
    names = {switch.dpid: name for name, switch in soft.switches.items()}
    options = Options(
        names=names,
        links={Link(a, b): LinkInfo() for a, b in soft.peers.items()},
        settle_s=_PATIENCE_S,
        counters_s=0,
    )
    draw = Random(2)  # noqa: S311
    intents = Intents(tuple(_flows(INTENTS, sorted(soft.switches), draw, most=1)))
    installs, restarts = [], []
    rules = 0
    for _ in range(samples):
        port = free_port()
        async with _farm(port):
            installs.append((await _bring_up(options, intents, port))[0])
            took, rules = await _bring_up(options, intents, port)
            restarts.append(took)
    return installs, restarts, rules


async def _bring_up(options: Options, intents: Intents, port: int) -> tuple[float, int]:
    """Start a controller; return seconds from when all switches are there, and their rules."""
    fabric = Fabric(options, lambda _: None)
    running = asyncio.create_task(fabric.run(), name="fabric")
    try:
        await fabric.controller.listen_tcp("127.0.0.1", port)
        await connected(fabric.controller, options.names.values(), _PATIENCE_S)
        began = time.perf_counter()
        while True:
            try:
                await fabric.put(intents)
                break
            except FabricError as error:  # a switch was late; the fabric tries again
                if time.perf_counter() > began + _PATIENCE_S:
                    raise UnavailableError(f"the switches do not follow: {error}") from error
        took = time.perf_counter() - began
        return took, sum(len(tables.rules) for tables in fabric.plan().tables.values())
    finally:
        running.cancel()
        with suppress(asyncio.CancelledError):
            await running
        await fabric.close()


@asynccontextmanager
async def _farm(port: int) -> AsyncIterator[Process]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "anabranch.fabric.softswitch", "--count", str(SWITCHES)),
        *("--fanout", str(_FAN_OUT), "--host-ports", "1", "--connect", f"tcp:127.0.0.1:{port}"),
        stdout=PIPE,
    )
    assert process.stdout is not None
    try:
        json.loads(await process.stdout.readline())
        draining = asyncio.create_task(_drain(process.stdout))
        yield process
    finally:
        process.send_signal(signal.SIGKILL)
        await process.wait()
        await draining


async def _drain(stream: asyncio.StreamReader) -> None:
    """Read what the farm says about itself, so that it never waits for us."""
    while await stream.readline():
        pass
