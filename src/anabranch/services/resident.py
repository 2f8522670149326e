"""A tenant on a node: its place in the plane, its sandbox, and the modules in it.

What a tenant asked for outlives its sandbox: one that dies is forked anew with the same modules,
a little later each time; meanwhile its packets go their plain way.
"""

import asyncio
import os
import socket
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import structlog

from anabranch.core.tasks import end_task
from anabranch.host.cgroups import Limits
from anabranch.host.process import Backoff
from anabranch.services.claim import Claim
from anabranch.services.errors import ServicesError
from anabranch.services.manifest import Manifest
from anabranch.services.planes.plane import Attachment, Plane, Tenant
from anabranch.services.sandbox.container import LOADING_S, Sandbox, SandboxError
from anabranch.services.sandbox.nursery import Nursery
from anabranch.services.sandbox.spec import CODE, SandboxSpec
from anabranch.services.tenancy import Home, TenantLog
from anabranch.services.transcoding.service import TranscodingLimits, TranscodingService

_WATCH_S = 2.0
_HEALTHY_S = 30.0
_MOST_DEATHS = 4
"""So often in a row may a sandbox die young; then it stays away until it is asked for anew."""
_BASE_MEMORY = 48 * 1024**2
"""Of the shared pages a sandbox is charged for those that it writes to, and for its libraries."""
_READ = 16 * 1024
_FLOOD_PAUSE_S = 0.25
_log = structlog.get_logger("anabranch.services")


@dataclass(frozen=True, slots=True)
class Grant:
    """What a node lets one tenant use; see :class:`~anabranch.services.manifest.Resources`."""

    memory_mb: int = 128
    cpu_percent: int = 100
    disk_mb: int = 1024
    bandwidth_mbit: int = 10_000
    tasks: int = 64


@dataclass(frozen=True, slots=True)
class Installed:
    """A module that a tenant has on this node: all that it takes to load it again.

    Attributes:
        public_key: the tenant's, as OpenSSH writes it; modules check with it what they are sent.
    """

    manifest: Manifest
    code: Path
    claims: tuple[Claim, ...]
    properties: Mapping[str, str]
    public_key: str = ""

    @property
    def key(self) -> str:
        """What is the same for all versions: one replaces the other."""
        return self.manifest.name

    def request(self, state: str | None = None) -> dict[str, Any]:
        return {
            "module": self.key,
            "name": self.manifest.name,
            "version": self.manifest.version,
            "entry": self.manifest.entry,
            "code": f"{CODE}/{self.code.name}",
            "properties": dict(self.properties),
            "memory_mb": self.manifest.resources.memory_mb,
            "public_key": self.public_key,
            "filters": [str(claim) for claim in self.claims],
            "state": state,
        }


class Resident:
    """One tenant; all changes are made one after the other.

    Args:
        run_id: names the control group together with the tenant's number.
        uid: the machine's user number of its process.
        transcoding: what ffmpeg may do for its modules; None: nothing.
    """

    def __init__(
        self, tenant: Tenant, home: Home, grant: Grant, plane: Plane, nursery: Nursery, *,
        run_id: str, uid: int, transcoding: TranscodingLimits | None = None,
    ) -> None:  # fmt: skip
        self.tenant = tenant
        self.home = home
        self.grant = grant
        self.modules: dict[str, Installed] = {}
        self.failed = False
        self.sandbox: Sandbox | None = None
        self.log = TenantLog(tenant.user, home.log)
        self._plane = plane
        self._nursery = nursery
        self._run_id = run_id
        self._uid = uid
        self._transcoding = transcoding
        self._transcoder: TranscodingService | None = None
        self._attachment: Attachment | None = None
        self._turn = asyncio.Lock()
        self._watch: asyncio.Task[None] | None = None
        self._revival: asyncio.Task[None] | None = None
        self._backoff = Backoff(0.2, 10.0, _HEALTHY_S)
        self._deaths = 0
        self._rest = b""

    async def install(self, module: Installed) -> float:
        """Load a module, or another version of one; then have its packets come.

        Returns:
            For how many milliseconds packets had to wait.

        Raises:
            ServicesError: it cannot be; what ran before still runs.
        """
        async with self._turn:
            self.failed, self._deaths = False, 0
            try:
                if self.sandbox is None or not self.sandbox.running:
                    await self._fork((*self.modules.values(), module))
                elif module.manifest.resources.disk_mb and not self._has_files:
                    await self._move((*self.modules.values(), module))
                assert self.sandbox is not None
                answer = await self.sandbox.ask("load", patience=LOADING_S, **module.request())
                after = {**self.modules, module.key: module}
                try:
                    await self._claim(after)
                except ServicesError:
                    await self._take_back(module)
                    raise
            except ServicesError:
                await self._leave_if_empty()
                raise
            self.modules = after
            _log.info("module.installed", user=self.tenant.user, module=module.manifest.identity)
            return float(answer.get("pause_ms", 0.0))

    async def remove(self, identity: str) -> None:
        """Stop a module of this name and version; one that is not there is no error."""
        async with self._turn:
            found = next(
                (m for m in self.modules.values() if m.manifest.identity == identity), None
            )
            if found is None:
                return
            del self.modules[found.key]
            await self._claim(self.modules)
            if self.sandbox is not None and self.sandbox.running:
                with suppress(SandboxError):
                    await self.sandbox.ask("unload", module=found.key)
            _log.info("module.removed", user=self.tenant.user, module=identity)
            await self._leave_if_empty()

    async def status(self) -> dict[str, Any]:
        """Return what the sandbox says of its modules and of its packet path."""
        if self.sandbox is None or not self.sandbox.running:
            return {}
        return await self.sandbox.ask("status", module="")

    async def close(self) -> None:
        """Stop everything of this tenant. Its files stay."""
        async with self._turn:
            with suppress(ServicesError):
                await self._claim({})  # packets go their plain way before the sandbox does
            self.modules = {}
            await self._leave_if_empty()

    @property
    def running(self) -> bool:
        """Whether its sandbox runs."""
        return self.sandbox is not None and self.sandbox.running

    def note_end(self, sandbox: Sandbox, code: int) -> bool:
        """Take notice that a sandbox has ended; one that was not told to is forked anew.

        Returns:
            Whether it was not told to.
        """
        if sandbox is not self.sandbox:
            return False
        self.sandbox = None
        lived = time.monotonic() - sandbox.started_at
        self._deaths = 0 if lived > _HEALTHY_S else self._deaths + 1
        last = self.log.last[-1] if self.log.last else None
        _log.warning("sandbox.died", user=self.tenant.user, code=code, last=last)
        self._revival = asyncio.create_task(self._revive(lived), name=f"revive:{self.tenant.user}")
        return True

    # The sandbox's life

    @property
    def _has_files(self) -> bool:
        return self.home.image.exists()

    async def _fork(self, modules: tuple[Installed, ...]) -> None:
        disk = max((m.manifest.resources.disk_mb for m in modules), default=0)
        await asyncio.to_thread(self.home.make)
        await self._close_transcoder()  # whose jobs may have the image's files open
        if disk:
            await asyncio.to_thread(self.home.have_image, disk)
        if self._attachment is not None:
            # Not the rings of one that died: what it died of may still lie in them.
            await self._plane.detach(self.tenant)
            self._attachment = None
        self._attachment = await self._plane.attach(self.tenant)
        limits = Limits(
            self.grant.memory_mb * 1024**2 + _BASE_MEMORY, self.grant.cpu_percent, self.grant.tasks
        )
        spec = SandboxSpec(
            user=self.tenant.user,
            uid=self._uid,
            code=str(self.home.code),
            image=str(self.home.image) if disk else None,
            tcp_ports=self.tenant.ports,
            address=str(self.tenant.address) if self.tenant.address else None,
            address6=str(self.tenant.address6) if self.tenant.address6 else None,
            file_size=disk * 1024**2,
            ring_blocks=self._attachment.ring_blocks,
            router_mac=self._attachment.router_mac,
            own_mac=self._attachment.own_mac,
            transcoder=self._transcoding is not None,
        )
        log = self._open_log()
        services = self._open_transcoder()
        try:
            self.sandbox = await self._nursery.fork(
                spec, limits, self._attachment.netns, log, (*self._attachment.rings, *services)
            )
        finally:
            os.close(log)
            for each in services:
                each.close()
        if self._watch is None:
            self._watch = asyncio.create_task(self._keep_watch(), name=f"watch:{self.tenant.user}")

    def _open_transcoder(self) -> tuple[socket.socket, ...]:
        if self._transcoding is None:
            return ()
        group = f"{self._run_id}-t{self.tenant.number}"
        self._transcoder = TranscodingService(
            self.tenant.user, self._transcoding, uid=self._uid, group=group
        )
        return (self._transcoder.open(),)

    async def _close_transcoder(self) -> None:
        transcoder, self._transcoder = self._transcoder, None
        if transcoder is not None:
            await transcoder.close()

    async def _move(self, modules: tuple[Installed, ...]) -> None:
        """Fork a sandbox with a directory, and have the modules go on there with their state."""
        assert self.sandbox is not None
        old, states = self.sandbox, {}
        for key in self.modules:
            states[key] = (await old.ask("state", module=key))["state"]
        self.sandbox = None  # its end is no death
        await old.stop()
        await self._fork(modules)
        await self._load_all(states)

    async def _load_all(self, states: Mapping[str, str | None]) -> None:
        assert self.sandbox is not None
        for key, module in list(self.modules.items()):
            try:
                await self.sandbox.ask(
                    "load", patience=LOADING_S, **module.request(states.get(key))
                )
            except SandboxError as error:
                _log.error("module.lost", user=self.tenant.user, module=key, error=str(error))
                raise

    async def _revive(self, lived: float) -> None:
        async with self._turn:
            if self.sandbox is None:
                with suppress(ServicesError):
                    await self._claim({})  # what went to it goes its plain way meanwhile
        if self._deaths >= _MOST_DEATHS:
            self.failed = True
            _log.error("sandbox.given_up", user=self.tenant.user, deaths=self._deaths)
            return
        await asyncio.sleep(self._backoff.delay(lived))
        async with self._turn:
            if self.sandbox is not None or not self.modules:
                return
            try:
                await self._fork(tuple(self.modules.values()))
                await self._load_all({})
                await self._claim(self.modules)
            except ServicesError as error:
                _log.error("sandbox.lost", user=self.tenant.user, error=str(error))
                self.failed = True

    async def _leave_if_empty(self) -> None:
        """Give everything back once there is no module any more."""
        if self.modules:
            return
        for task in (self._revival, self._watch):
            if task is not None and task is not asyncio.current_task():
                await end_task(task)
        self._watch = self._revival = None
        sandbox, self.sandbox = self.sandbox, None
        if sandbox is not None:
            await sandbox.stop()
        await self._close_transcoder()
        if self._attachment is not None:
            await self._plane.detach(self.tenant)
            self._attachment = None

    async def _claim(self, modules: Mapping[str, Installed]) -> None:
        if self._attachment is None:
            return
        wanted = dict.fromkeys(claim for module in modules.values() for claim in module.claims)
        if list(wanted) != self._attachment.claims:
            await self._plane.set_claims(self.tenant, tuple(wanted))

    async def _take_back(self, module: Installed) -> None:
        """Undo a load whose packets cannot come."""
        assert self.sandbox is not None
        before = self.modules.get(module.key)
        with suppress(SandboxError):
            if before is None:
                await self.sandbox.ask("unload", module=module.key)
            else:
                await self.sandbox.ask("load", patience=LOADING_S, **before.request())

    async def _keep_watch(self) -> None:
        """Ask the sandbox how it is, again and again: one that hangs is killed by that."""
        while True:
            await asyncio.sleep(_WATCH_S)
            if self.sandbox is not None and self.sandbox.running:
                with suppress(SandboxError):
                    await self.sandbox.ask("status", module="")

    # What it prints

    def _open_log(self) -> int:
        """Return where a sandbox is to print to; lines are read here."""
        reading, writing = os.pipe2(os.O_CLOEXEC)
        os.set_blocking(reading, False)
        asyncio.get_running_loop().add_reader(reading, self._read_log, reading)
        return writing

    def _read_log(self, reading: int) -> None:
        loop = asyncio.get_running_loop()
        try:
            data = os.read(reading, _READ)
        except BlockingIOError:
            return
        if not data:
            loop.remove_reader(reading)
            os.close(reading)
            return
        *lines, self._rest = (self._rest + data).split(b"\n")
        self._rest = self._rest[-_READ:]
        flooded = False
        for line in lines:
            flooded |= not self.log.write(line.decode(errors="replace"), time.monotonic())
        if flooded:  # it has to wait: the pipe is full
            loop.remove_reader(reading)
            loop.call_later(_FLOOD_PAUSE_S, loop.add_reader, reading, self._read_log, reading)
