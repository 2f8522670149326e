"""Where ``bench viewers`` takes place: a leaf server on one core, everything else on another.

Two namespaces with a cable between them. Each end's packets are received on the core of its own
side, as they would be on two machines: a sender does not pay for what its peer receives. As a
site's way from a leaf to its viewers, the cable takes packets joined (GSO) and without checksums.

At the viewers' end a thread of the kernel takes them from a ring (NAPI), and looks again after a
while before it sleeps, as network cards do that moderate their interrupts. With RPS, as at the
leaf's end, each packet is an interrupt to the other core: in a virtual machine that is a third of
what the leaf server uses (docs/decisions/0040).
"""

import asyncio
import os
import secrets
import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from ipaddress import IPv4Interface
from pathlib import Path

import psutil

from anabranch.core.errors import UnavailableError
from anabranch.core.names import new_id
from anabranch.host.network import Port, make_link, make_namespace, remove_namespace, run_tool
from anabranch.host.process import end_marked, run_command
from anabranch.media.janus import JanusLeaf
from anabranch.media.leaf import LeafPlace, LeafServer
from anabranch.media.native import NativeLeaf

LEAF_ADDRESS, CLIENT_ADDRESS = "10.97.251.2", "10.97.251.1"
_DEVICE = "eth0"
_BACKLOG = Path("/proc/sys/net/core/netdev_max_backlog")
_DROPS = Path("/proc/net/softnet_stat")
_ENOUGH = 65_536
"""Packets that may wait for a core to receive them: Linux' 1,000 are fewer than a key frame of many
viewers has, and a cable's ring takes 256."""
_MODERATION = {"threaded": 1, "gro_flush_timeout": 50_000, "napi_defer_hard_irqs": 2}
"""How the viewers' device receives: by a thread, which looks again after so many nanoseconds, and
sleeps when it has found nothing so often."""
_PRIORITY = 1
"""Of the thread that receives (SCHED_FIFO): like an interrupt it goes before viewers' programs."""


@dataclass(frozen=True, slots=True)
class Lab:
    """A leaf server that runs, and the other end of its cable.

    Attributes:
        leaf: the server; its process has ``leaf_core`` for itself.
        client_prefix: runs a command at the other end of the cable.
        leaf_core: number of the core.
    """

    leaf: LeafServer
    client_prefix: tuple[str, ...]
    leaf_core: int


@asynccontextmanager
async def lab(kind: str) -> AsyncIterator[Lab]:
    """Give a lab with a leaf server of this kind, and remove everything afterwards.

    This process and the children it starts meanwhile have the other core.

    Raises:
        UnavailableError: this is not root, or there is only one core.
        LeafUnavailableError: the leaf server is not installed, or does not come up.
    """
    if os.geteuid() != 0:
        raise UnavailableError("this measurement needs root: it makes network namespaces")
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < 2:
        raise UnavailableError("this measurement needs two cores")
    leaf_core, client_core = cores[:2]
    # Also the name of the viewers' device, by which the thread that receives is known.
    prefix = f"abv{secrets.token_hex(3)}"
    server, client = f"{prefix}-s", f"{prefix}-c"
    run_id = f"bench-{new_id()}"
    # Short: Unix socket paths end at 107 bytes.
    directory = Path(tempfile.mkdtemp(prefix="abv", dir="/tmp"))
    try:
        await asyncio.to_thread(_cable, server, client, prefix)
        await _receive_on(server, leaf_core)
        await _receive_by_thread(client, prefix, client_core)
        leaf = _leaf(kind, server, directory, run_id)
        with _on_core(leaf_core):
            await leaf.start()
        try:
            with _on_core(client_core), _long_backlog():
                inside = ("nsenter", f"--net=/run/netns/{client}", "--")
                yield Lab(leaf, inside, leaf_core)
        finally:
            await leaf.stop()
    finally:
        end_marked(run_id)
        for namespace in (server, client):
            await asyncio.to_thread(remove_namespace, namespace)
        shutil.rmtree(directory, ignore_errors=True)


def _leaf(kind: str, netns: str, directory: Path, run_id: str) -> LeafServer:
    place = LeafPlace(
        name="bench",
        directory=directory,
        run_id=run_id,
        netns=netns,
        media_addresses=(LEAF_ADDRESS,),
        public_addresses=(),
        media_ports=(20000, 39999),
        inlet_interface=LEAF_ADDRESS,
        inlet_ports=(15000, 15099),
    )
    return JanusLeaf(place) if kind == "janus" else NativeLeaf(place, threads=1)


def _cable(server: str, client: str, client_device: str) -> None:
    for namespace in (server, client):
        make_namespace(namespace)
    make_link(
        Port(_DEVICE, server, address=IPv4Interface(f"{LEAF_ADDRESS}/30")),
        Port(client_device, client, address=IPv4Interface(f"{CLIENT_ADDRESS}/30")),
    )
    # A queue before the ring, as a network card has; a veth pair alone drops what does not fit.
    queue = ("qdisc", "replace", "dev", _DEVICE, "root", "pfifo", "limit", str(_ENOUGH))
    run_tool("tc", *queue, namespace=server)


async def _receive_on(namespace: str, core: int) -> None:
    """Have the kernel handle what arrives in a namespace on one core."""
    await _set(namespace, f"{_DEVICE}/queues/rx-0/rps_cpus", f"{1 << core:x}")


async def _set(namespace: str, setting: str, value: str) -> None:
    """Set what a namespace has for a device."""
    # `ip netns exec`, not nsenter: /sys must be the namespace's own.
    text = f"echo {value} > /sys/class/net/{setting}"
    await run_command("ip", "netns", "exec", namespace, "sh", "-c", text)


async def _receive_by_thread(namespace: str, device: str, core: int) -> None:
    """Have a thread on one core handle what arrives at a device.

    Raises:
        UnavailableError: the kernel (before 5.12) has no such threads.
    """
    # A veth end has a ring of its own only while it may join packets.
    features = ("-K", device, "gro", "on", "rx-udp-gro-forwarding", "on")
    await asyncio.to_thread(run_tool, "ethtool", *features, namespace=namespace)
    for setting, value in _MODERATION.items():
        await _set(namespace, f"{device}/{setting}", str(value))
    for process in psutil.process_iter(["name"]):
        if process.info["name"].startswith(f"napi/{device}"):
            os.sched_setaffinity(process.pid, {core})
            os.sched_setscheduler(process.pid, os.SCHED_FIFO, os.sched_param(_PRIORITY))
            return
    raise UnavailableError(f"the kernel has no thread that receives for {device}")


def dropped() -> int:
    """Return how many packets were dropped so far as they waited for a core to receive them."""
    return sum(int(line.split()[1], 16) for line in _DROPS.read_text().splitlines())


@contextmanager
def _long_backlog() -> Iterator[None]:
    """Let more packets wait for a core, as a network card's ring does beside the kernel's queue."""
    before = _BACKLOG.read_text()
    _BACKLOG.write_text(str(max(_ENOUGH, int(before))))
    try:
        yield
    finally:
        _BACKLOG.write_text(before)


@contextmanager
def _on_core(core: int) -> Iterator[None]:
    """Keep this thread, and the processes that it starts, on one core."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)
