"""Mininet under our controller, in namespaces of its own: run by ``test_mininet.py`` in unshare.

Arguments: a topology as ``mn`` names it, and the numbers of its switches, links and hosts. Writes
one line of JSON. It is process 1 of its namespace: when it ends, so does everything it started.
What Mininet kills by name, deletes in /tmp and sets for the whole machine is only this namespace's.
"""

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path

import structlog

from anabranch.fabric.fabric import Fabric
from anabranch.fabric.host_services import Settings, Unicast
from anabranch.fabric.intents import Intents
from anabranch.fabric.openvswitch import OpenVSwitch
from anabranch.fabric.options import Options

TX_OFF = "py [host.cmd('ethtool -K', host.defaultIntf(), 'tx off') for host in net.hosts]\n"


async def world(topology: str, switches: int, links: int, hosts: int) -> dict[str, object]:
    directory = Path("/tmp/ovs")
    ovs = OpenVSwitch("mininet", None, directory, "mininet", lambda _: None)
    await ovs.start()
    options = Options(adopt=True, discover=True, hosts=Settings(unicast=Unicast.ANY), settle_s=0.5)
    fabric = Fabric(options, lambda _: None)
    port = await fabric.controller.listen_tcp("127.0.0.1", 0)
    running = asyncio.create_task(fabric.run())
    await fabric.put(Intents())
    mininet = await asyncio.create_subprocess_exec(
        *("mn", "--topo", topology, "--switch", "ovsk,datapath=user", "--mac"),
        *("--controller", f"remote,ip=127.0.0.1,port={port}"),
        env={**os.environ, "OVS_RUNDIR": str(directory), "HOME": "/tmp"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    assert mininet.stdin is not None
    mininet.stdin.write(TX_OFF.encode())
    for _ in range(200):
        if known(fabric, switches, links) or mininet.returncode is not None:
            break
        await asyncio.sleep(0.05)
    # Mininet 2.3.0's own command for iperf never ends with iperf 2.1, whatever the controller.
    last = f"h{hosts}"
    commands = ("pingall", f"{last} iperf -s &", f"{last} sleep 0.5", f"h1 iperf -t 2 -c {last}")
    mininet.stdin.write("\n".join((*commands, "pingall", "exit", "")).encode())
    out, _ = await mininet.communicate()
    running.cancel()
    return {
        "output": out.decode(errors="replace"),
        "switches": len(fabric.network().switches),
        "links": [f"{link.src}-{link.dst}" for link in fabric.network().links],
        "hosts": len(fabric.network().hosts),
        "hot": fabric.counters()["unicast_hot"],
        "counters": dict(fabric.counters()),
    }


def close_doors() -> None:
    """Keep Mininet, which cleans up and tunes with a broad brush, from the rest of the machine."""
    assert os.getpid() == 1
    checkout = Path(__file__).parents[2]
    commands = [("mount", "--bind", str(checkout), "/mnt")]  # it may itself be in /tmp
    commands.append(("mount", "-t", "tmpfs", "none", "/tmp"))
    if checkout.is_relative_to("/tmp"):
        commands.append(("mkdir", "-p", str(checkout)))
        commands.append(("mount", "--bind", "/mnt", str(checkout)))
    for directory in ("/proc/sys/fs", "/proc/sys/kernel", "/proc/sys/vm"):
        commands.append(("mount", "--bind", directory, directory))
        commands.append(("mount", "-o", "remount,bind,ro", directory))
    commands.append(("ip", "link", "set", "lo", "up"))
    for command in commands:
        subprocess.run(command, check=True)


def known(fabric: Fabric, switches: int, links: int) -> bool:
    network = fabric.network()
    up = sum(info.up for info in network.links.values())
    return len(network.switches) == switches and up == 2 * links


if __name__ == "__main__":
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    close_doors()
    result = asyncio.run(world(sys.argv[1], *map(int, sys.argv[2:5])))
    sys.stdout.write(json.dumps(result) + "\n")
