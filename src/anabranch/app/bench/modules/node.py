"""The node under measure: a runtime on the plain Linux plane, and tenants who install at once."""

import os
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from hashlib import sha256
from ipaddress import ip_network
from pathlib import Path

from anabranch.app.bench.modules.world import World
from anabranch.services import modules
from anabranch.services.archive import pack
from anabranch.services.controller.runtime import ModuleRequest
from anabranch.services.controller.users import User
from anabranch.services.keys import PrivateKey
from anabranch.services.planes.linux import LinuxPlane
from anabranch.services.resident import Grant
from anabranch.services.runtime import NodeRuntime, RuntimeSettings
from anabranch.services.signalling.values import Filter

BUNDLED = Path(modules.__file__).parent
MONITOR, KEEP_ALIVE = BUNDLED / "netmonitor", BUNDLED / "keepalive"
MONITOR_WASM = BUNDLED / "netmonitor_wasm"
_KEY = PrivateKey.generate()


class Node:
    """A running node.

    Attributes:
        pause_ms: for how long packets waited at the last installation.
    """

    def __init__(self, runtime: NodeRuntime, directory: Path) -> None:
        self.runtime = runtime
        self.pause_ms = 0.0
        self._directory = directory

    async def install(
        self, name: str, source: Path, destination: str = "10.2.0.0/16", core: int | None = None,
        port: int = 5060,
    ) -> str:  # fmt: skip
        """Install a module for a user of this name; return the module's identity.

        Args:
            core: on which its sandbox runs alone; None: on any.
        """
        archive = pack(source).sign(name, _KEY)
        identity = archive.manifest().identity
        path = self._directory / f"{name}.abm"
        path.write_bytes(bytes(archive))
        wanted = Filter(ip_network(destination), 17, (port,))
        digest = sha256(bytes(archive)).digest()
        request = ModuleRequest(identity, path, digest, wanted, 3600)
        said = await self.runtime.install(self.user(name), request)
        self.pause_ms = float(said["pause-ms"])
        if core is not None:
            os.sched_setaffinity(self.runtime.processes()[name], {core})
        return identity

    async def status(self, name: str, identity: str) -> dict[str, str]:
        return dict(await self.runtime.status(self.user(name), identity))

    async def remove(self, name: str, identity: str) -> None:
        await self.runtime.remove(self.user(name), identity)

    def user(self, name: str) -> User:
        return User(name=name, public_key=_KEY.public)


@asynccontextmanager
async def running_node(world: World, **grants: Grant) -> AsyncIterator[Node]:
    """Run a node on the world's router; ``grants`` are those of single users."""
    with tempfile.TemporaryDirectory(prefix="ab-node-") as directory:
        state = Path(directory) / "tenants"
        settings = RuntimeSettings(state, f"bench-{os.getpid()}", Grant(memory_mb=64), grants)
        runtime = NodeRuntime(
            settings, LinuxPlane(f"b{os.getpid()}", world.router, ("in0", "out0"))
        )
        await runtime.open()
        try:
            yield Node(runtime, Path(directory))
        finally:
            await runtime.close()
