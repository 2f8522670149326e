"""A farm of soft switches as a process: one JSON object per line says what state it is in.

{"state": "dialling", "switches": 1000}
{"state": "connected", "switches": 1000, "seconds": 1.9}
{"state": "lost", "switches": 999}
{"state": "stopped", "switches": 0, "rules": 10000, "groups": 0, "frames": 12}
"""

import argparse
import asyncio
import json
import signal
import sys
from collections.abc import Sequence

from anabranch.fabric.errors import MisuseError
from anabranch.fabric.model import PortRef
from anabranch.fabric.softswitch.farm import Farm
from anabranch.fabric.softswitch.network import graph, line, tree


def main(argv: Sequence[str] | None = None) -> int:
    """Run until SIGTERM or SIGINT."""
    parser = argparse.ArgumentParser(prog="python -m anabranch.fabric.softswitch")
    parser.add_argument("--count", type=int, default=1, help="how many switches")
    parser.add_argument("--connect", required=True, help="tcp:<address>:<port> or unix:<path>")
    parser.add_argument("--topology", choices=("none", "line", "tree"), default="tree")
    parser.add_argument("--fanout", type=int, default=2, help="of a tree")
    parser.add_argument("--host-ports", type=int, default=2, help="ports of each without a link")
    arguments = parser.parse_args(argv)
    if arguments.count < 1 or arguments.fanout < 1 or arguments.host_ports < 0:
        parser.error("there must be a switch, and no number may be negative")
    try:
        asyncio.run(_run(arguments))
    except MisuseError as error:
        parser.error(str(error))
    return 0


async def _run(arguments: argparse.Namespace) -> None:
    count, hosts = arguments.count, arguments.host_ports
    if arguments.topology == "line":
        network = line(count, host_ports=hosts)
    elif arguments.topology == "tree":
        network = tree(count, arguments.fanout, host_ports=hosts)
    else:
        network = graph((), nodes=count, host_ports=hosts)
    loop = asyncio.get_running_loop()
    began = loop.time()
    stopped = asyncio.Event()
    frames = 0

    def framed(ref: PortRef, frame: bytes) -> None:
        nonlocal frames
        frames += 1

    def changed(name: str, up: bool) -> None:
        connected = farm.connected
        if not up:
            _report("lost", switches=connected, switch=name)
        elif connected == count:
            _report("connected", switches=count, seconds=round(loop.time() - began, 3))

    farm = Farm(network, arguments.connect, on_frame=framed, on_state=changed)
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopped.set)
    _report("dialling", switches=count)
    await farm.start()
    await stopped.wait()
    await farm.close()
    switches = network.switches.values()
    _report(
        "stopped",
        switches=0,
        rules=sum(len(table) for switch in switches for table in switch.tables.values()),
        groups=sum(len(switch.groups.groups) for switch in switches),
        frames=frames,
    )


def _report(state: str, **values: object) -> None:
    sys.stdout.write(json.dumps({"state": state, **values}) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
