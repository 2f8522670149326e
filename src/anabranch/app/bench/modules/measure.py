"""``anabranch bench modules``: what a module on the path costs, beside plain forwarding.

The path is sender - router - receiver by veth, the node is on the router (plain Linux plane). The
sender and all that the kernel does for it are on core 0, the sandbox and all that the kernel does
for it on core 1, unless a row says otherwise. Forwarding with a packet filter is measured in the
same run, before and after. The rows of the switch plane have a path of their own: ``switch.py``.
"""

import asyncio
import os
import shutil
import tempfile
import time
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from statistics import median

import psutil

from anabranch.app.bench.modules import latency, setups, switch
from anabranch.app.bench.modules.checking import checked_answers
from anabranch.app.bench.modules.node import KEEP_ALIVE, MONITOR, MONITOR_WASM, running_node
from anabranch.app.bench.modules.rates import rate_of as _rate
from anabranch.app.bench.modules.sip import notify
from anabranch.app.bench.modules.traffic import send, udp_frames
from anabranch.app.bench.modules.world import World, make_world, packets_in
from anabranch.app.bench.report import Peer, Result
from anabranch.core.errors import UnavailableError
from anabranch.services.resident import Grant

_SENDER_CORE, _SANDBOX_CORE = 0, 1
_SMALL = b"x" * 22  # 64 bytes with Ethernet, IP and UDP
_SANDBOXES = 100
_STEADY = 100_000
_UNTRUSTED_PERCENT = 25  # of a core: what an operator grants a tenant that nobody knows
_ATTACK = """
from anabranch.services.module import Module
import threading
class Attack(Module):
    def start(self):
        for _ in range(20):
            threading.Thread(target=self.loop, daemon=True).start()
    def loop(self):
        hoard = []
        while True:
            hoard.append(b"x" * 100_000)
            if len(hoard) > 10:
                hoard.clear()
"""


Measured = Callable[[World, int], Awaitable[list[Result]]]


def parts() -> dict[str, tuple[Callable[[int], list[Result]], int]]:
    """Return every measurement by name: what to call, and how many samples are usual.

    Of a rate the median of the samples counts; ``replacement``, ``answers`` and ``delay`` take
    none.
    """
    return {
        "rates": (partial(_measured, _rates, sink=True), 3),
        "replacement": (partial(_measured, _replaced, sink=True), 1),
        "neighbour": (partial(_measured, _neighbour, sink=True), 3),
        "density": (partial(_measured, _density, sink=True), 3),
        "answers": (partial(_measured, _correct, sink=False), 1),
        "delay": (partial(_measured, latency.measure, sink=False), 1),
        "setups": (partial(_measured, setups.measure, sink=False), 50),
        "switch": (switch.measure, 3),
    }


def measure(samples: int | None = None) -> list[Result]:
    """Measure everything, each with its usual number of samples or with ``samples``."""
    return [
        result
        for function, usual in parts().values()
        for result in function(usual if samples is None else samples)
    ]


def _measured(part: Measured, samples: int, *, sink: bool) -> list[Result]:
    async def work(world: World) -> list[Result]:
        return await part(world, samples)

    with make_world(sink=sink) as world:
        return asyncio.run(work(world))


async def _rates(world: World, samples: int) -> list[Result]:
    """What passes a module, as a part of what the kernel forwards in the same run."""
    small = udp_frames(world, _SMALL)
    sip = udp_frames(world, notify(340 - 42))
    plain: dict[str, list[float]] = {"64": [], "340": []}
    found: dict[str, list[float]] = {
        name: [] for name in ("monitor", "monitor_one_core", "monitor_wasm", "keepalive")
    }
    for _ in range(samples):
        plain["64"].append(await _rate(world, small, world.received))
        plain["340"].append(await _rate(world, sip, world.received))
        async with running_node(world) as node:
            identity = await node.install("one", MONITOR, core=_SANDBOX_CORE)
            found["monitor"].append(await _rate(world, small, world.received))
            os.sched_setaffinity(node.runtime.processes()["one"], {_SENDER_CORE})
            found["monitor_one_core"].append(await _rate(world, small, world.received))
            await node.remove("one", identity)
            identity = await node.install("one", MONITOR_WASM, core=_SANDBOX_CORE)
            found["monitor_wasm"].append(await _rate(world, small, world.received))
            await node.remove("one", identity)
            await node.install("one", KEEP_ALIVE, core=_SANDBOX_CORE)
            back = lambda: packets_in(world.sender, "s0")  # noqa: E731
            found["keepalive"].append(await _rate(world, sip, back))
        plain["64"].append(await _rate(world, small, world.received))
        plain["340"].append(await _rate(world, sip, world.received))
    rows = []
    for name, size, what, target in (
        ("netmonitor_ratio", "64", "monitor", ">= 0.65"),
        ("netmonitor_one_core_ratio", "64", "monitor_one_core", None),
        ("netmonitor_wasm_ratio", "64", "monitor_wasm", None),
        ("keepalive_ratio", "340", "keepalive", ">= 0.45"),
    ):
        base, rate = median(plain[size]), median(found[what])
        peer = Peer(f"kernel forwarding with a filter, {size} B, packets/s", round(base))
        rows.append(Result(name, f"of {size} B forwarding", samples, round(rate / base, 3),
                           target=target, peer=peer))  # fmt: skip
    return rows


async def _replaced(world: World, _: int) -> list[Result]:
    """Five new versions while 100,000 packets a second pass."""
    frames = udp_frames(world, _SMALL)
    with tempfile.TemporaryDirectory(prefix="ab-versions-") as directory:
        async with running_node(world) as node:
            await node.install("one", MONITOR, core=_SANDBOX_CORE)
            sending = asyncio.create_task(send(world, frames, 6.0, rate=_STEADY, core=_SENDER_CORE))
            pauses, identity = [], ""
            for number in range(1, 6):
                await asyncio.sleep(0.8)
                source = Path(directory) / str(number)
                shutil.copytree(MONITOR, source)
                manifest = source / "module.toml"
                manifest.write_text(manifest.read_text().replace("1.0.0", f"1.{number}.0"))
                identity = await node.install("one", source)
                pauses.append(node.pause_ms)
            sent = await sending
            await asyncio.sleep(0.5)
            status = await node.status("one", identity)
    lost = sent.packets - int(status["counted"])
    rate = f"{round(sent.rate)} packets/s"
    return [
        Result("hot_replace_lost_packets", f"packets of {sent.packets} at {rate}", 5, lost,
               target="0"),
        Result("hot_replace_pause_ms", "ms", 5, max(pauses), target="< 10"),
    ]  # fmt: skip


async def _neighbour(world: World, samples: int) -> list[Result]:
    """One tenant's rate while another's module eats all that it can, on the same core."""
    frames = udp_frames(world, _SMALL)
    before, during = [], []
    with tempfile.TemporaryDirectory(prefix="ab-attack-") as directory:
        source = Path(directory)
        (source / "module.toml").write_text(
            'name = "attack"\nversion = "1.0.0"\nentry = "attack:Attack"\n'
        )
        (source / "attack.py").write_text(_ATTACK)
        grant = Grant(memory_mb=64, cpu_percent=_UNTRUSTED_PERCENT)
        async with running_node(world, mallory=grant) as node:
            await node.install("one", MONITOR, core=_SANDBOX_CORE)
            half = round(await _rate(world, frames, world.received) / 2)
            for _ in range(samples):
                before.append(await _rate(world, frames, world.received, rate=half))
                identity = await node.install(
                    "mallory", source, "10.2.200.0/24", core=_SANDBOX_CORE, port=9
                )
                during.append(await _rate(world, frames, world.received, rate=half))
                await node.remove("mallory", identity)
    offered = f"of {half} packets/s, half of what it can; attacker granted {_UNTRUSTED_PERCENT} %"
    return [
        Result("neighbour_rate_ratio", offered, samples,
               round(median(during) / median(before), 3), target=">= 0.9",
               peer=Peer("packets/s without the attack", round(median(before))))
    ]  # fmt: skip


async def _density(world: World, samples: int) -> list[Result]:
    """A hundred tenants, each with a hundredth of the packets, beside one with all of them."""
    addresses = [f"10.2.128.{1 + number}" for number in range(_SANDBOXES)]
    spread = udp_frames(world, _SMALL, destinations=addresses, count=_SANDBOXES * 5 + 12)
    one: list[float] = []
    many: list[float] = []
    async with running_node(world) as node:
        identity = await node.install("one", MONITOR, "10.2.128.0/24", core=_SANDBOX_CORE)
        one += [await _rate(world, spread, world.received) for _ in range(samples)]
        await node.remove("one", identity)
        free = psutil.virtual_memory().available
        began = time.perf_counter()
        for number, address in enumerate(addresses):
            await node.install(f"tenant-{number}", MONITOR, address, core=_SANDBOX_CORE)
        took = time.perf_counter() - began
        many += [await _rate(world, spread, world.received) for _ in range(samples)]
        used = free - psutil.virtual_memory().available
    ratio = median(many) / median(one)
    return [
        Result("sandboxes_100_throughput_ratio", "of one sandbox's", samples, round(ratio, 3),
               target=">= 0.7", peer=Peer("one sandbox, packets/s", round(median(one)))),
        Result("sandbox_mb", "MB each, rings and all of the kernel's counted", _SANDBOXES,
               round(used / _SANDBOXES / 1e6, 2), target="<= 8"),
        Result("sandbox_setup_ms", "ms each, one after the other", _SANDBOXES,
               round(took / _SANDBOXES * 1000, 1)),
    ]  # fmt: skip


async def _correct(world: World, _: int) -> list[Result]:
    """Whether each answer to a keep-alive is right, every checksum and header of it."""
    frames = udp_frames(world, notify(340 - 42))
    async with running_node(world) as node:
        identity = await node.install("one", KEEP_ALIVE)
        found = await checked_answers(world, frames)
        status = await node.status("one", identity)
    if found.unseen:
        raise UnavailableError(f"{found.unseen} answers came too fast to be looked at")
    overflowed = Peer("of them, packets that overflowed the sandbox's ring", int(status["lost"]))
    return [
        Result("keepalive_wrong_answers", f"of {found.sent} answers", found.sent, found.wrong,
               target="0"),
        Result("keepalive_missing_answers", f"of {found.sent} answers", found.sent, found.missing,
               target="0", peer=overflowed),
    ]  # fmt: skip
