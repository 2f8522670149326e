"""``module.toml``: what a module says of itself."""

import re
import tomllib
from collections.abc import Sequence
from typing import Annotated, Any, Literal, Self

from packaging.requirements import InvalidRequirement, Requirement
from packaging.version import InvalidVersion, Version
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)

from anabranch.services.errors import ArchiveError
from anabranch.services.ports import port_range
from anabranch.services.wasm import is_wasm

FILE_NAME = "module.toml"
MAX_BYTES = 64 * 1024
MAX_PORTS = 4096
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9]*(?:[._-][A-Za-z0-9]+)*")
_ENTRY = re.compile(
    r"[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*:[A-Za-z_]\w*|[A-Za-z_][\w-]*\.(?:wasm|wat)", re.ASCII
)
_WASMTIME = Requirement("wasmtime")
_CLOSED = ConfigDict(frozen=True, extra="forbid", strict=True)

PortNumber = Annotated[int, Field(ge=1, le=65535)]


def _all_ports(value: Any) -> tuple[int, ...]:
    if isinstance(value, str | bytes) or not isinstance(value, Sequence):
        raise ValueError('a list of ports, such as [80, "5060-5070"]')  # noqa: TRY004 - for pydantic
    found = [port for each in value for port in port_range(each)]
    if len(found) > MAX_PORTS:
        raise ValueError(f"{len(found)} ports: at most {MAX_PORTS}")
    return tuple(dict.fromkeys(found))


class Filter(BaseModel):
    """Packets that the module wants; where they go to is said by who installs it.

    Attributes:
        connections: they are led to the module's own server at that port, as connections, which
            then answers in the name of whom they were for; TCP alone.
    """

    model_config = _CLOSED
    protocol: Literal["udp", "tcp", "icmp"] | None = None
    port: PortNumber | None = None
    connections: bool = False

    @model_validator(mode="after")
    def _port_needs_protocol(self) -> Self:
        if self.port is not None and self.protocol not in {"udp", "tcp"}:
            raise ValueError("a port needs the protocol udp or tcp")
        if self.connections and (self.protocol != "tcp" or self.port is None):
            raise ValueError("connections are of the protocol tcp, and to a port")
        return self


class Resources(BaseModel):
    """What the module needs at least; a node whose user may not have as much refuses it.

    Attributes:
        memory_mb: for all that it keeps beside Python and NumPy themselves.
        cpu_percent: of one core.
        disk_mb: of files that outlive it; 0: it has no directory. It gets this much, not more.
        bandwidth_mbit: of what it sends.
        ports: TCP and UDP ports on which it listens; ranges as ``"5060-5070"``.
    """

    model_config = _CLOSED
    memory_mb: Annotated[int, Field(ge=1, le=65536)] = 16
    cpu_percent: Annotated[int, Field(ge=1, le=6400)] = 1
    disk_mb: Annotated[int, Field(ge=0, le=1 << 20)] = 0
    bandwidth_mbit: Annotated[int, Field(ge=1, le=400_000)] = 1
    ports: Annotated[tuple[PortNumber, ...], BeforeValidator(_all_ports)] = ()


class Manifest(BaseModel):
    """The whole file.

    Attributes:
        name: letters, digits and single ``.``, ``_``, ``-`` between them.
        version: as PEP 440 has it.
        entry: ``FILE:CLASS``, as Python imports it, or ``FILE.wasm``.
        description: one line for people.
        dependencies: what has to be on the node, such as ``numpy>=2`` or ``ffmpeg``.
    """

    model_config = _CLOSED
    name: Annotated[str, Field(max_length=64)]
    version: Annotated[str, Field(max_length=32)]
    entry: Annotated[str, Field(max_length=128)]
    description: Annotated[str, Field(max_length=200)] = ""
    dependencies: Annotated[tuple[str, ...], Field(max_length=64, strict=False)] = ()
    filters: Annotated[tuple[Filter, ...], Field(max_length=64, strict=False)] = ()
    resources: Resources = Resources()

    @property
    def identity(self) -> str:
        """Name and version as messages write them: ``NetServ.apps.NetMonitor_1.0.0``."""
        return f"{self.name}_{self.version}"

    @property
    def entry_files(self) -> tuple[str, ...]:
        """Where the entry may be: one of these paths is a file of the module's."""
        if is_wasm(self.entry):
            return (self.entry,)
        path = self.entry.partition(":")[0].replace(".", "/")
        return f"{path}.py", f"{path}/__init__.py"

    @property
    def requirements(self) -> tuple[Requirement, ...]:
        """What has to be on the node: what it says, and what runs it."""
        named = tuple(Requirement(text) for text in self.dependencies)
        if is_wasm(self.entry) and all(r.name != _WASMTIME.name for r in named):
            return (*named, _WASMTIME)
        return named

    @field_validator("name")
    @classmethod
    def _is_name(cls, name: str) -> str:
        if not _NAME.fullmatch(name):
            raise ValueError("letters, digits and single . _ - between them, a letter first")
        return name

    @field_validator("version")
    @classmethod
    def _is_version(cls, version: str) -> str:
        try:
            return str(Version(version))
        except InvalidVersion:
            raise ValueError("no version, such as 1.0.0") from None

    @field_validator("entry")
    @classmethod
    def _is_entry(cls, entry: str) -> str:
        if not _ENTRY.fullmatch(entry):
            raise ValueError("FILE:CLASS, such as netmonitor:NetMonitor, or FILE.wasm")
        return entry

    @field_validator("dependencies")
    @classmethod
    def _are_requirements(cls, dependencies: tuple[str, ...]) -> tuple[str, ...]:
        for text in dependencies:
            try:
                asked = Requirement(text)
            except InvalidRequirement:
                raise ValueError(f"{text!r} is no requirement, such as numpy>=2") from None
            if asked.url or asked.extras or asked.marker:
                raise ValueError(f"{text!r}: a name and versions, nothing else")
        return dependencies


def parse_manifest(data: bytes) -> Manifest:
    """Read a manifest.

    Raises:
        ArchiveError: it is not TOML, or not a manifest; the message names what is wrong.
    """
    if len(data) > MAX_BYTES:
        raise ArchiveError(f"{FILE_NAME} has more than {MAX_BYTES} bytes")
    try:
        return Manifest.model_validate(tomllib.loads(data.decode()))
    except (UnicodeDecodeError, tomllib.TOMLDecodeError, RecursionError) as error:
        raise ArchiveError(f"{FILE_NAME} is not TOML: {error}") from None
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or "the whole"
        raise ArchiveError(f"{FILE_NAME}: {where}: {first['msg']}") from None
