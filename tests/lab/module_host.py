"""A whole service node, sandboxes included: python -m tests.lab.module_host ID DIR, in a namespace.

DIR has ``users.yaml``; the node says "ready" when it runs, and ends with its standard input.
"""

import asyncio
import os
import sys
from pathlib import Path

from anabranch.services.controller import users
from anabranch.services.node.service import NodeOptions, running_node
from anabranch.services.planes.linux import LinuxPlane
from anabranch.services.runtime import NodeRuntime, RuntimeSettings


async def main() -> None:
    node_id, directory = sys.argv[1], Path(sys.argv[2])
    name = f"{node_id}{os.getpid()}"
    runtime = NodeRuntime(RuntimeSettings(directory / "state", f"lab-{name}"), LinuxPlane(name))
    options = NodeOptions(node_id=node_id, cache=directory / "cache")
    try:
        await runtime.open()
        async with running_node(options, users.load(directory / "users.yaml"), runtime):
            sys.stdout.write("ready\n")
            sys.stdout.flush()
            await asyncio.to_thread(sys.stdin.read)
    finally:
        await runtime.close()


if __name__ == "__main__":
    asyncio.run(main())
