"""The modules of a node: what its service controller installs and removes (:class:`Runtime`).

One sandbox a tenant, on one forwarding plane. What an archive asks for is checked here against
what its tenant may have; whether the tenant may ask at all, the controller has checked before.
"""

import asyncio
import platform
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from importlib import metadata
from ipaddress import IPv4Address
from pathlib import Path

import structlog

from anabranch.host.cgroups import remove_groups
from anabranch.host.process import ProcessError, run_command
from anabranch.services.archive import MAX_ARCHIVE, Archive
from anabranch.services.claim import Claim, ClaimError
from anabranch.services.controller.runtime import ModuleRequest, RuntimeRefusedError
from anabranch.services.controller.users import User
from anabranch.services.errors import ArchiveError, ServicesError, SignatureError
from anabranch.services.frames import TCP
from anabranch.services.manifest import MAX_PORTS, Manifest
from anabranch.services.planes.plane import Plane, Tenant
from anabranch.services.ports import written
from anabranch.services.resident import Grant, Installed, Resident
from anabranch.services.sandbox import landlock
from anabranch.services.sandbox.container import Sandbox
from anabranch.services.sandbox.nursery import Nursery
from anabranch.services.signalling.response import Status
from anabranch.services.tenancy import home_of
from anabranch.services.transcoding.service import TranscodingLimits

MAX_TENANTS = 9999
_BLOCKS = ("numpy", "h11", "httpx", "uvicorn", "starlette", "prometheus-client", "wasmtime")
_FFMPEG_VERSION = re.compile(r"ffmpeg version (\d+(?:\.\d+)*)")
_NOT_IN_NAMES = re.compile(r"[^A-Za-z0-9_.-]")
_MAX_FIGURES, _MAX_WORD = 32, 64
"""Of a module's status: it goes into a message, whose size and names are limited."""
_log = structlog.get_logger("anabranch.services")


@dataclass(frozen=True, slots=True)
class RuntimeSettings:
    """How a node runs modules.

    Attributes:
        state: directory for tenants' code, files and logs; made if need be.
        run_id: marks processes and control groups; unique on the machine.
        grant: what each tenant may use, unless ``grants`` has another for its name.
        first_uid: user number of the first tenant's process, which nobody else has.
    """

    state: Path
    run_id: str
    grant: Grant = field(default_factory=Grant)
    grants: Mapping[str, Grant] = field(default_factory=dict)
    first_uid: int = 210_000


def run_id_of(node: str) -> str:
    """Return what marks the processes and begins the names of the control groups of a node."""
    return f"services-{node}"


class NodeRuntime:
    """Implements :class:`~anabranch.services.controller.runtime.Runtime`."""

    def __init__(self, settings: RuntimeSettings, plane: Plane) -> None:
        self._settings = settings
        self._plane = plane
        self._nursery = Nursery(settings.run_id, settings.state / ".root", self._note_end)
        self._residents: dict[str, Resident] = {}
        self._numbers: dict[str, int] = {}
        self._deaths = 0
        self._ffmpeg: str | None = None

    async def open(self) -> None:
        """Make ready: the plane, and a warm zygote; what one that was killed left goes first.

        Raises:
            ServicesError: this machine cannot run modules; the message says why.
        """
        await asyncio.to_thread(remove_groups, f"{self._settings.run_id}-")
        await self._plane.open()
        await self._nursery.start()
        with suppress(ProcessError):
            found = _FFMPEG_VERSION.search(await run_command("ffmpeg", "-version"))
            self._ffmpeg = found[1] if found else None

    async def close(self) -> None:
        """End every sandbox and take away all that was made. Tenants' files stay."""
        for resident in list(self._residents.values()):
            await resident.close()
        self._residents.clear()
        await self._nursery.close()
        await self._plane.close()

    @property
    def building_blocks(self) -> Mapping[str, str]:
        """What modules can depend on: names and versions."""
        found = {"python": platform.python_version(), "anabranch": metadata.version("anabranch")}
        for name in _BLOCKS:
            try:
                found[name] = metadata.version(name)
            except metadata.PackageNotFoundError:
                continue
        if self._ffmpeg is not None:
            found["ffmpeg"] = self._ffmpeg
        return found

    @property
    def capabilities(self) -> Mapping[str, str]:
        """What this node can do, for PROBE."""
        return {
            "packet-modules": "yes",
            "server-modules": "yes",
            "plane": type(self._plane).__name__.removesuffix("Plane").lower(),
            "landlock": str(landlock.version()),
        }

    def figures(self) -> dict[str, tuple[str, float]]:
        """Return what there is to report, by name: in words, and the figure."""
        residents = list(self._residents.values())
        return {
            "sandboxes": ("Sandboxes that run", sum(each.running for each in residents)),
            "sandboxes_failed": (
                "Sandboxes that ended too often, and stay away",
                sum(each.failed for each in residents),
            ),
            "sandbox_deaths_total": ("Sandboxes that ended by themselves", self._deaths),
            "sandbox_modules": ("Modules in sandboxes", sum(len(r.modules) for r in residents)),
        }

    def processes(self) -> Mapping[str, int]:
        """Return the process number of each tenant's sandbox."""
        return {
            user: resident.sandbox.pid
            for user, resident in self._residents.items()
            if resident.sandbox is not None and resident.sandbox.pid is not None
        }

    async def install(self, user: User, module: ModuleRequest) -> Mapping[str, str]:
        """Check, install and start; see the protocol.

        Raises:
            RuntimeRefusedError: it cannot be; what ran before still runs.
        """
        archive, manifest = self._open_archive(user, module)
        self._check(user, manifest)
        resident = self._resident_of(user)
        try:
            resident.home.make()
            code, _ = resident.home.unpack(archive, module.digest)
            claims = _claims_of(module, manifest, user)
            pause_ms = await resident.install(
                Installed(manifest, code, claims, dict(module.properties), str(user.public_key))
            )
            kept = frozenset(each.code.name for each in resident.modules.values())
            resident.home.forget_code(kept)
        except ClaimError as error:
            raise RuntimeRefusedError(str(error), Status.FORBIDDEN) from error
        except ArchiveError as error:
            raise RuntimeRefusedError(str(error), Status.BAD_REQUEST) from error
        except ServicesError as error:
            raise RuntimeRefusedError(str(error)) from error
        details = {"pause-ms": f"{pause_ms:g}"}
        if manifest.resources.ports and user.address is not None:
            ports = written(manifest.resources.ports)
            hosts = [str(user.address), *([f"[{user.address6}]"] if user.address6 else [])]
            details["listens"] = " ".join(f"{host}:{port}" for host in hosts for port in ports)
        return details

    async def remove(self, user: User, name: str) -> None:
        """Stop and remove a module; one that is not there is no error.

        Raises:
            RuntimeRefusedError: it cannot be removed.
        """
        resident = self._residents.get(user.name)
        if resident is None:
            return
        try:
            await resident.remove(name)
        except ServicesError as error:
            raise RuntimeRefusedError(str(error)) from error
        if not resident.modules:
            self._residents.pop(user.name, None)

    async def status(self, user: User, name: str) -> Mapping[str, str]:
        """Return how a module is: ``state`` and its counters. Empty: it is not there."""
        resident = self._residents.get(user.name)
        found = None
        if resident is not None:
            modules = resident.modules.values()
            found = next((m for m in modules if m.manifest.identity == name), None)
        if resident is None or found is None:
            return {}
        if resident.failed:
            return {"state": "failed"}
        try:
            said = await resident.status()
        except ServicesError as error:
            return {"state": "failed", "reason": str(error)}
        figures = said.get("modules", {}).get(found.key)
        if not isinstance(figures, dict):
            return {"state": "restarting"}
        lost = said.get("path", {}).get("lost", 0)
        return {"lost": str(lost)} | {
            _NOT_IN_NAMES.sub("-", str(name))[:_MAX_WORD]: str(value)[:_MAX_WORD]
            for name, value in list(figures.items())[:_MAX_FIGURES]
        }

    def _open_archive(self, user: User, module: ModuleRequest) -> tuple[Archive, Manifest]:
        try:
            with module.archive.open("rb") as file:
                archive = Archive.parse(file.read(MAX_ARCHIVE + 1))
            archive.verify(user.name, user.public_key)
        except SignatureError as error:
            raise RuntimeRefusedError(f"the archive: {error}", Status.FORBIDDEN) from error
        except ArchiveError as error:
            signed = "sign" in str(error)
            status = Status.FORBIDDEN if signed else Status.BAD_REQUEST
            raise RuntimeRefusedError(str(error), status) from error
        except OSError as error:
            raise RuntimeRefusedError(f"the archive cannot be read: {error.strerror}") from error
        try:
            manifest = archive.manifest()
        except ArchiveError as error:
            raise RuntimeRefusedError(str(error), Status.BAD_REQUEST) from error
        if manifest.identity != module.name:
            raise RuntimeRefusedError(
                f"the archive has {manifest.identity}, not {module.name}", Status.BAD_REQUEST
            )
        return archive, manifest

    def _check(self, user: User, manifest: Manifest) -> None:
        """Refuse what the tenant may not have, or the node has not."""
        grant, asked = self._grant_of(user), manifest.resources
        wants = {
            "memory_mb": (asked.memory_mb, grant.memory_mb),
            "cpu_percent": (asked.cpu_percent, grant.cpu_percent),
            "disk_mb": (asked.disk_mb, grant.disk_mb),
            "bandwidth_mbit": (asked.bandwidth_mbit, grant.bandwidth_mbit),
        }
        for name, (wanted, most) in wants.items():
            if wanted > most:
                raise RuntimeRefusedError(
                    f"it wants {name} = {wanted}; {user.name} may have {most}", Status.TOO_MANY
                )
        for port in asked.ports:
            if user.address is None or not user.may_listen(port):
                raise RuntimeRefusedError(
                    f"{user.name} may not listen on port {port} here", Status.FORBIDDEN
                )
        blocks = self.building_blocks
        for requirement in manifest.requirements:
            there = blocks.get(requirement.name)
            if there is None or not requirement.specifier.contains(there, prereleases=True):
                raise RuntimeRefusedError(
                    f"{requirement} is not on this node", Status.FAILED_DEPENDENCY
                )

    def _grant_of(self, user: User) -> Grant:
        return self._settings.grants.get(user.name, self._settings.grant)

    def _resident_of(self, user: User) -> Resident:
        resident = self._residents.get(user.name)
        if resident is None:
            number = self._number_of(user.name)
            grant = self._grant_of(user)
            ports = tuple(port for ports in user.listen_ports for port in ports)[:MAX_PORTS]
            tenant = Tenant(
                user.name, number, user.address, ports, grant.bandwidth_mbit, user.address6
            )
            home = home_of(self._settings.state, user.name)
            if user.sandbox is not None:
                home = type(home)(user.sandbox)
            resident = Resident(
                tenant, home, grant, self._plane, self._nursery,
                run_id=self._settings.run_id, uid=self._settings.first_uid + number,
                transcoding=self._transcoding_of(user),
            )  # fmt: skip
            self._residents[user.name] = resident
        return resident

    def _transcoding_of(self, user: User) -> TranscodingLimits | None:
        if self._ffmpeg is None or not user.transcodings:
            return None
        return TranscodingLimits(jobs=user.transcodings)

    def _number_of(self, user: str) -> int:
        """Return a tenant's number, the same for as long as the node runs."""
        if user not in self._numbers:
            if len(self._numbers) >= MAX_TENANTS:
                raise RuntimeRefusedError("this node is full", Status.BUSY)
            self._numbers[user] = len(self._numbers) + 1
        return self._numbers[user]

    def _note_end(self, sandbox: Sandbox, code: int) -> None:
        resident = self._residents.get(sandbox.user)
        if resident is not None and resident.note_end(sandbox, code):
            self._deaths += 1


def _claims_of(module: ModuleRequest, manifest: Manifest, user: User) -> tuple[Claim, ...]:
    """Return what a module is to get: packets, or connections to its server's ports."""
    wanted = module.filter
    if wanted is None or wanted.destination is None:
        return ()
    led = {f.port for f in manifest.filters if f.connections} & set(manifest.resources.ports)
    served = tuple(port for port in wanted.ports if wanted.protocol == TCP and port in led)
    others = tuple(port for port in wanted.ports if port not in served)
    claims = []
    if served:
        if not isinstance(user.address, IPv4Address):
            raise ClaimError(f"{user.name} has no IPv4 address here to lead connections to")
        claims.append(Claim(wanted.destination, TCP, served, user.address))
    if others or not wanted.ports:
        claims.append(Claim(wanted.destination, wanted.protocol, others))
    return tuple(claims)
