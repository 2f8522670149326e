"""A service node of the lab, run inside its namespace: python -m tests.lab.service_host ID DIR.

DIR has ``users.yaml``; the node says "ready" when it runs, and ends with its standard input. What
it "runs" of a module is an entry in its user's sandbox directory: a real file of the real archive;
with ``"sandboxes": true`` among the options it runs modules indeed.
"""

import asyncio
import json
import os
import shutil
import sys
from contextlib import AsyncExitStack
from pathlib import Path

from anabranch.app.config_parts import LogConfig
from anabranch.app.logs import set_up_logs
from anabranch.services.controller import users
from anabranch.services.controller.runtime import ModuleRequest, Runtime, RuntimeRefusedError
from anabranch.services.controller.users import User
from anabranch.services.node.service import NodeOptions, running_node
from anabranch.services.planes.linux import LinuxPlane
from anabranch.services.runtime import NodeRuntime, RuntimeSettings

MARK = b"lab module"


class Shelf:
    """Keeps archives in the sandboxes' directories."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self.building_blocks = {"lab.shelf": "1.0"}
        self.capabilities = {"runtime": "shelf"}

    def _path(self, user: User, name: str) -> Path:
        return self._directory / user.name / name

    async def install(self, user: User, module: ModuleRequest) -> dict[str, str]:
        if not module.archive.read_bytes().startswith(MARK):
            raise RuntimeRefusedError("the archive is none of ours", 400)
        path = self._path(user, module.name)
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(module.archive, path)
        return {"filter": str(module.filter.destination) if module.filter else ""}

    async def remove(self, user: User, name: str) -> None:
        self._path(user, name).unlink(missing_ok=True)

    async def status(self, user: User, name: str) -> dict[str, str]:
        path = self._path(user, name)
        return {"state": "shelved", "bytes": str(path.stat().st_size)} if path.exists() else {}


async def main() -> None:
    set_up_logs(LogConfig(level="warning"))
    node_id, directory = sys.argv[1], Path(sys.argv[2])
    more = json.loads(sys.argv[3]) if len(sys.argv) > 3 else {}
    sandboxes = more.pop("sandboxes", False)
    options = NodeOptions(node_id=node_id, cache=directory / "cache", **more)
    known = users.load(directory / "users.yaml")
    async with AsyncExitStack() as stack:
        runtime: Runtime = Shelf(directory / "sandboxes")
        if sandboxes:
            settings = RuntimeSettings(directory / "tenants", f"lab-{os.getpid()}")
            made = NodeRuntime(settings, LinuxPlane(f"{node_id}{os.getpid()}"))
            await made.open()
            stack.push_async_callback(made.close)
            runtime = made
        await stack.enter_async_context(running_node(options, known, runtime))
        sys.stdout.write("ready\n")
        sys.stdout.flush()
        await asyncio.to_thread(sys.stdin.read)


if __name__ == "__main__":
    asyncio.run(main())
