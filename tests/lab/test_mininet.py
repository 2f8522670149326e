"""Mininet's hosts and topologies, our controller: everybody reaches everybody."""

import asyncio
import json
import os
import re
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

pytestmark = [
    pytest.mark.lab,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root"),
    pytest.mark.skipif(shutil.which("mn") is None, reason="needs Debian's mininet"),
]
WORLD = Path(__file__).with_name("mininet_world.py")


@dataclass(frozen=True)
class Topology:
    name: str
    switches: int
    links: int
    hosts: int


@pytest.mark.parametrize(
    "topology",
    [Topology("tree,2", 3, 2, 4), Topology("linear,4", 4, 3, 4)],
    ids=lambda topology: topology.name,
)
async def test_pingall_and_iperf(topology):
    process = await asyncio.create_subprocess_exec(
        *("unshare", "--pid", "--fork", "--mount", "--net", "--mount-proc", "--kill-child"),
        *(sys.executable, str(WORLD)),
        *(topology.name, *map(str, (topology.switches, topology.links, topology.hosts))),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(100):
            out, err = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode == 0, err.decode()[-3000:]
    result = json.loads(out.splitlines()[-1])
    output = result["output"]
    everybody = topology.hosts * (topology.hosts - 1)
    pings = re.findall(r"Results: (\d+)% dropped \((\d+)/(\d+) received\)", output)
    assert pings == [("0", str(everybody), str(everybody))] * 2, output
    rates = [float(rate) for rate in re.findall(r"([\d.]+) [KMG]?bits/sec", output)]
    sys.stdout.write(f"\n{topology.name}: {re.findall(r'[0-9.]+ .bits/sec', output)}\n")
    assert rates
    assert min(rates) > 0
    assert len(result["links"]) == 2 * topology.links
    assert result["hosts"] == topology.hosts
    # Every host found every other by the hot path, hop by hop.
    assert result["hot"] >= everybody
