"""A node beside a switch: what passes a module there, as a part of what the switch forwards alone.

    sender 10.1.0.1 ---1  Open vSwitch, userspace  2--- 10.2.0.1 receiver
                            11 --- svc0, the node

The sender and what the kernel does for it are on core 0; the switch, and the sandbox with what the
kernel does for it, share core 1. In the same run the same switch with the same tables forwards
alone. Every packet that passes the module crosses the switch twice.
"""

import asyncio
import os
import secrets
import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from functools import partial
from ipaddress import IPv4Interface
from pathlib import Path
from statistics import median

from fastapi import FastAPI

from anabranch.app.bench.modules.node import MONITOR, Node
from anabranch.app.bench.modules.rates import rate_of
from anabranch.app.bench.modules.traffic import udp_frames
from anabranch.app.bench.modules.world import RECEIVER, SENDER, World, sink_at
from anabranch.app.bench.report import Peer, Result
from anabranch.app.serving import listen_unix, serve
from anabranch.console import fabric_api, problems
from anabranch.core.tasks import end_task
from anabranch.fabric.bridges import Bridge, ControllerTarget, Device
from anabranch.fabric.fabric import Fabric
from anabranch.fabric.host_services import Settings, Unicast
from anabranch.fabric.intents import Intents
from anabranch.fabric.openvswitch import OpenVSwitch
from anabranch.fabric.options import Options
from anabranch.host.network import (
    Port,
    entered,
    make_link,
    make_namespace,
    remove_namespace,
    run_tool,
)
from anabranch.host.process import end_marked
from anabranch.services.planes.registration import Place
from anabranch.services.planes.switch import SwitchPlane
from anabranch.services.resident import Grant
from anabranch.services.runtime import NodeRuntime, RuntimeSettings

_BRIDGE = "br0"
_PORTS = {"s": 1, "d": 2, "n": 11}
_SWITCH_CORE, _SANDBOX_CORE = 1, 1
_SMALL = b"x" * 22  # 64 bytes with Ethernet, IP and UDP


@dataclass(frozen=True, slots=True)
class _Lab:
    world: World
    node: Node


def measure(samples: int) -> list[Result]:
    """Return the rows of the switch plane; ``samples`` is how often each rate is taken."""
    with _wired() as names:
        return asyncio.run(_measured(names, samples))


async def _measured(names: Mapping[str, str], samples: int) -> list[Result]:
    alone: list[float] = []
    passed: list[float] = []
    async with _lab(names) as lab:
        receiver = (lab.world.receiver, "d0")
        frames = udp_frames(lab.world, _SMALL, next_hop=receiver)
        for _ in range(samples):
            alone.append(await rate_of(lab.world, frames, lab.world.received))
            identity = await lab.node.install("one", MONITOR, core=_SANDBOX_CORE)
            passed.append(await rate_of(lab.world, frames, lab.world.received))
            counted = int((await lab.node.status("one", identity))["counted"])
            assert counted, "packets went past the module"
            await lab.node.remove("one", identity)
        alone.append(await rate_of(lab.world, frames, lab.world.received))
    base, rate = median(alone), median(passed)
    what = "of 64 B switched, 64 flows; sender core 0, switch and sandbox core 1"
    return [
        Result("netmonitor_ratio_switch", what, samples, round(rate / base, 3), target=">= 0.25",
               peer=Peer("the same switch alone, packets/s", round(base))),
        Result("netmonitor_switch_kpps", "thousand packets/s past the module", samples,
               round(rate / 1000, 1)),
    ]  # fmt: skip


@contextmanager
def _wired() -> Iterator[Mapping[str, str]]:
    """Make the namespaces and cables; give the names of the former."""
    word = secrets.token_hex(3)
    names = {name: f"ab-sw{word}-{name}" for name in (*_PORTS, "switch")}
    try:
        for name in names.values():
            make_namespace(name)
        _cable(names)
        yield names
    finally:
        for name in names.values():
            remove_namespace(name)


@asynccontextmanager
async def _lab(names: Mapping[str, str]) -> AsyncIterator[_Lab]:
    run_id = f"bench-{secrets.token_hex(6)}"
    world = World(names["s"], names["switch"], names["d"])
    async with AsyncExitStack() as stack:
        directory = Path(tempfile.mkdtemp(prefix="abb"))
        stack.callback(shutil.rmtree, directory, ignore_errors=True)
        switch = OpenVSwitch("s1", names["switch"], directory / "s1", run_id, lambda _: None)
        stack.callback(end_marked, run_id)
        stack.push_async_callback(switch.stop)
        await switch.start()
        fabric = await stack.enter_async_context(_controlled(switch))
        ping = partial(run_tool, "ping", "-c", "1", "-W", "3", RECEIVER, namespace=world.sender)
        await asyncio.to_thread(ping)  # now the switch knows who is where
        for namespace, device in ((world.receiver, "d0"), (world.sender, "s0")):
            sink_at(namespace, device)
        assert switch.vswitchd.pid is not None
        _pin(switch.vswitchd.pid, _SWITCH_CORE)
        node = await stack.enter_async_context(_node(names["n"], directory, fabric))
        yield _Lab(world, node)


def _cable(names: Mapping[str, str]) -> None:
    for name, address in (("s", f"{SENDER}/8"), ("d", f"{RECEIVER}/8"), ("n", "10.3.0.1/8")):
        device = {"s": "s0", "d": "d0", "n": "svc0"}[name]
        make_link(
            Port(device, names[name], address=IPv4Interface(address)),
            Port(f"p{_PORTS[name]}", names["switch"]),
        )
    with entered(names["n"]):
        Path("/proc/sys/net/ipv4/ip_forward").write_text("1")
        Path("/proc/sys/net/ipv4/conf/all/rp_filter").write_text("0")


def _pin(pid: int, core: int) -> None:
    for task in Path(f"/proc/{pid}/task").iterdir():
        os.sched_setaffinity(int(task.name), {core})


@asynccontextmanager
async def _controlled(switch: OpenVSwitch) -> AsyncIterator[Fabric]:
    options = Options(names={1: "s1"}, hosts=Settings(unicast=Unicast.ANY), counters_s=0)
    fabric = Fabric(options, lambda _: None)
    running = None
    try:
        path = switch.controller_path(_BRIDGE)
        await fabric.controller.listen_unix(path, "s1")
        ports = tuple(Device(name=f"p{number}", ofport=number) for number in _PORTS.values())
        target = (ControllerTarget(f"unix:{path}"),)
        await switch.apply([Bridge(_BRIDGE, ports, 1, controllers=target)])
        running = asyncio.create_task(fabric.run(), name="fabric")
        await fabric.put(Intents())
        yield fabric
    finally:
        if running is not None:
            await end_task(running)
        await fabric.close()


@asynccontextmanager
async def _node(namespace: str, directory: Path, fabric: Fabric) -> AsyncIterator[Node]:
    """Run a node in its namespace, and the controller's API for it."""
    token = secrets.token_hex(16)
    app = FastAPI()
    app.state.fabric = fabric
    problems.install(app)
    app.include_router(fabric_api.make_router(token))
    socket = directory / "api.sock"
    with ExitStack() as sockets:
        listener = sockets.enter_context(listen_unix(socket))
        serving = asyncio.create_task(serve(app, listener, None), name="api")
        plane = SwitchPlane(
            "bench", "svc0", Place("bench", f"s1:{_PORTS['n']}"),
            controllers=[f"unix:{socket}"], token=token, namespace=namespace,
        )  # fmt: skip
        settings = RuntimeSettings(directory / "tenants", f"bench-{os.getpid()}", Grant())
        runtime = NodeRuntime(settings, plane)
        try:
            await runtime.open()
            yield Node(runtime, directory)
        finally:
            await runtime.close()
            await end_task(serving)
