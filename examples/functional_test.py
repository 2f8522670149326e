"""The seed's functional test (7.3): a stream goes where a path leads it, by the VMs on its way.

    DHCP server
         |
       root ===== relay ===== leaf      overlay 10.0.0.0/24: br1 of every node, a VM at each;
         |                     :        == GRE tunnel, .. another one in reserve
         +=================== leaf2

       root ---- relay ---- leaf ---- leaf2 ---- the user, 192.168.1.181
                     physical network 192.168.1.0/24: br0 of every node

Every node is a namespace with an Open vSwitch, every VM a namespace; one fabric controls every br1.
"""

import asyncio
import json
import logging
import os
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from urllib.parse import parse_qs

import structlog
from testbed import NODES, PATCH_PORT, USER, VM_PORT, Machine, Testbed

from anabranch.core.errors import AnabranchError
from anabranch.fabric.fabric import Fabric
from anabranch.fabric.flow_rules import cookie_of
from anabranch.fabric.model import PortRef
from anabranch.fabric.notices import Encoding
from anabranch.fabric.pathlogic import extend_match, logic
from anabranch.fabric.pipeline import SERVED_MASK, SERVED_SHIFT
from anabranch.host.process import ProcessError

ENOUGH = 50  # packets, of a hundred a second
ROLES = {"root": logic.Role.ROOT, "leaf": logic.Role.LEAF, "leaf2": logic.Role.LEAF}
MATCH = extend_match.loads(Path(__file__).with_name("vpm-extend-match.json").read_bytes())
INGRESS, EXIT = PortRef("root", VM_PORT), PortRef("leaf", PATCH_PORT)
PATH = logic.Path("stream", INGRESS, EXIT, str(USER.ip), MATCH, roles=ROLES)
FROM_VM = VM_PORT << SERVED_SHIFT, SERVED_MASK  # metadata of what a VM has sent on
ADDED = {"type": "VM", "switch": "00:00:00:00:00:00:00:02", "vnet": "vnet0/1", "op": "ADD"}
REMOVED = {**ADDED, "op": "DELETE"}


def check(true: object, what: str) -> None:
    if not true:
        raise AssertionError(what)
    print(f"  ✓ {what}", flush=True)


async def wait(true: Callable[[], object], limit_s: float = 10.0) -> bool:
    """Wait until it is true, or no longer; say whether it is."""
    with suppress(TimeoutError):
        async with asyncio.timeout(limit_s):
            while not true():
                await asyncio.sleep(0.01)
    return bool(true())


async def check_rules(fabric: Fabric, switch: str, *wanted: str) -> None:
    """Wait for the path to have rules of these kinds at a switch, and for the switch to hold some.

    In the switch a rule for what comes from a VM is told by the metadata that it matches.
    """
    rules: list[logic.NamedRule] = []
    seen: object = None
    end = asyncio.get_running_loop().time() + 10
    while seen != (list(wanted), bool(wanted), "FROMVNET" in wanted):
        if asyncio.get_running_loop().time() > end:
            raise AssertionError(f"{switch} shall have the rules {wanted} and has {seen}")
        await asyncio.sleep(0.01)
        named = fabric.named_rules(PATH.name) if fabric.followed() else ()
        rules = [rule for rule in named if rule.switch == switch]
        kinds = [rule.name.split("_")[1].rstrip("0123456789abcdef") for rule in rules]
        flows = await fabric.flows(switch)
        held = [flow.match.metadata for flow in flows if flow.cookie == cookie_of(PATH.name)]
        seen = kinds, bool(held), FROM_VM in held
    check(True, f"{switch} has {'the' if wanted else 'no'} rules")
    for rule in rules:
        print(f"      {rule.name}: in port {rule.in_port or 'any'}, out port {rule.out_port}")


class Listener:
    """What the seed's management application listens with; shows what is posted."""

    def __init__(self) -> None:
        self.heard: list[dict[str, str]] = []

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
        length = int(head.split("content-length:")[1].split()[0])
        body = (await reader.readexactly(length)).decode()
        print(f"      POST {body}")
        assert "content-type: application/x-www-form-urlencoded" in head
        self.heard.append(json.loads(parse_qs(body)["data"][0]))
        writer.write(b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n")
        writer.close()


class Stream:
    """The root VM's: numbered packets to the overlay's broadcast address."""

    def __init__(self, source: Machine, user: Machine) -> None:
        self.source, self.user, self.sent = source, user, 0

    async def run(self) -> None:
        while True:
            self.source.send(self.sent, [])
            self.sent += 1
            await asyncio.sleep(0.01)

    async def check_way(self, *way: str) -> None:
        """Wait for packets at the user that are sent from now on and come through these VMs."""
        mark, heard = self.sent, self.user.heard
        there = await wait(lambda: sum(n >= mark and w == [*way] for n, w in heard) >= ENOUGH)
        check(there, f"the user receives the stream through the VMs of {', '.join(way)}")

    async def check_silence(self, where: Machine) -> None:
        """Have enough packets sent, of which none may arrive."""
        mark = self.sent
        sent = await wait(lambda: self.sent >= mark + ENOUGH)
        arrived = any(number >= mark for number, _ in where.heard)
        check(sent and not arrived, f"{where.title}: no packet")

    def report(self, mark: int) -> None:
        """Say how many packets have been lost since ``mark``."""
        numbers = [number for number, _ in self.user.heard if number >= mark]
        sent = max(numbers) + 1 - mark
        lost, twice = sent - len(set(numbers)), len(numbers) - len(set(numbers))
        print(f"      meanwhile {sent} packets, of which {lost} lost, {twice} came twice")


async def run(bed: Testbed, tasks: list[asyncio.Task[None]]) -> None:
    print("Nodes, tunnels, DHCP server, controller", flush=True)
    await bed.build()
    fabric, listener = bed.fabric, Listener()
    server = await asyncio.start_server(listener, "127.0.0.1")
    host, port = server.sockets[0].getsockname()
    url = f"http://{host}:{port}/VPM/VPMEventListener"
    await fabric.notifier.subscribe(url, encoding=Encoding.FORM, kinds=frozenset({"vm.*"}))

    print("1. VMs on root and leaf nodes")
    root, leaf, other = [await bed.boot(node) for node in ("root", "leaf", "leaf2")]
    for vm in (root, leaf, other):
        check(vm.address.startswith("10.0.0."), f"{vm.title} has {vm.address} by DHCP")
    check(await root.pings(leaf) and await other.pings(leaf), f"both others ping {leaf.title}")
    check(not await bed.user.pings(leaf, 1), "the user cannot")
    given = ""
    with suppress(ProcessError):
        given = await bed.lease(bed.user, tries=1)
    check(not given, "the overlay's DHCP server gives the user no address")

    print("2. The VM of root sends a stream to 10.0.0.255; there is no path, and it sinks")
    stream = Stream(root, bed.user)
    tasks.append(asyncio.create_task(stream.run()))
    for machine in (bed.user, leaf, other):
        await stream.check_silence(machine)

    print("3. A path to the leaf, with external address 192.168.1.181: it swims")
    await fabric.follow([PATH])
    await check_rules(fabric, "relay", "PASSTHROUGH")
    await check_rules(fabric, "leaf", "TOVNET", "FROMVNET")
    await stream.check_way("root", "leaf")
    await stream.check_silence(other)

    print("4. A VM boots on the relay")
    mark = stream.sent
    await bed.boot("relay")
    check(await wait(lambda: ADDED in listener.heard), "the listener is told")
    await check_rules(fabric, "relay", "TOVNET", "FROMVNET")
    await stream.check_way("root", "relay", "leaf")
    stream.report(mark)

    print("5. It shuts down")
    mark = stream.sent
    await bed.shut_down("relay")
    check(await wait(lambda: REMOVED in listener.heard), "the listener is told")
    await check_rules(fabric, "relay", "PASSTHROUGH")
    await stream.check_way("root", "leaf")
    stream.report(mark)

    print("6. The path is switched off")
    await fabric.follow([])
    for switch in NODES:
        await check_rules(fabric, switch)
    await stream.check_silence(bed.user)
    server.close()


async def main() -> None:
    bed, tasks = Testbed(), list[asyncio.Task[None]]()
    this = asyncio.current_task()
    assert this is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, this.cancel)
    try:
        await run(bed, tasks)
    finally:
        for task in tasks:
            task.cancel()
        removal = asyncio.create_task(bed.remove())
        while not removal.done():  # whatever signal comes
            with suppress(asyncio.CancelledError):
                await asyncio.shield(removal)


if __name__ == "__main__":
    if os.geteuid() != 0:
        sys.exit("This makes network namespaces, and so it needs root.")
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    try:
        asyncio.run(main())
    except (AssertionError, AnabranchError) as problem:
        sys.exit(f"  ✗ {problem}")
    except (KeyboardInterrupt, asyncio.CancelledError):
        sys.exit(130)
