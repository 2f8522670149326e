"""The file of a stand-alone controller: its switches, links, and what it shall carry."""

import ipaddress
import re
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
    model_validator,
)

from anabranch.console.fabric_json import match_of
from anabranch.core.errors import UsageError
from anabranch.core.names import check_name
from anabranch.fabric.host_services import Settings, Unicast
from anabranch.fabric.model import Link, LinkInfo, PortRef
from anabranch.fabric.options import Options
from anabranch.fabric.pathlogic import extend_match, logic

_SOCKET_PATH = 107  # bytes, unix(7)
_PORT = re.compile(r"([^:\s]{1,60}):([0-9]{1,10})")


def port_ref(text: str) -> PortRef:
    """Return ``SWITCH:PORT`` as a port.

    Raises:
        ValueError: it is not of that form.
    """
    found = _PORT.fullmatch(text)
    if found is None or not 1 <= int(found[2]) <= 0xFFFFFF00:
        raise ValueError("a port is SWITCH:NUMBER, such as s1:2")
    return PortRef(found[1], int(found[2]))


def address(text: str) -> tuple[str, int]:
    """Return ``ADDRESS:PORT`` as host and port; an IPv6 address is in brackets.

    Raises:
        ValueError: it is not of that form.
    """
    host, _, port = text.rpartition(":")
    bare = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    named = bare != host or re.fullmatch(r"[^:\s\[\]\0]+", host)
    if not named or not re.fullmatch("[0-9]{1,5}", port) or not 1 <= int(port) <= 65535:
        raise ValueError(f"{text[:100]!r} is not ADDRESS:PORT, such as 127.0.0.1:6653")
    if bare != host:
        try:
            ipaddress.IPv6Address(bare)
        except ValueError:
            raise ValueError(f"{text[:100]!r} is not ADDRESS:PORT: no IPv6 address") from None
    return bare, int(port)


def socket_path(text: str) -> Path | None:
    """Return the path of ``unix:PATH``; None: it is none."""
    return Path(text.removeprefix("unix:")) if text.startswith("unix:") else None


def _check_listen(text: str) -> str:
    address(text)
    return text


def _check_api(text: str) -> str:
    if socket_path(text) is None:
        try:
            address(text)
        except ValueError as error:
            raise ValueError(f"{error}, nor unix:PATH") from None
    elif not 1 <= len(text.removeprefix("unix:").encode()) <= _SOCKET_PATH or "\0" in text:
        raise ValueError(f"{text[:100]!r} is no path of a socket: 1 to {_SOCKET_PATH} bytes")
    return text


def _check_port(text: str) -> str:
    port_ref(text)
    return text


def _check_name(text: str) -> str:
    try:
        return check_name(text)
    except UsageError as error:
        raise ValueError(str(error)) from None


def _hide(place: object) -> object:
    if not isinstance(place, str):
        return place
    return SecretStr(place) if place.startswith(("postgresql:", "postgres:")) else Path(place)


LeasePlace = Annotated[Path | SecretStr, BeforeValidator(_hide)]
"""A file, or the URL of a database, which may have a password in it."""
PortText = Annotated[str, AfterValidator(_check_port)]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class SwitchFile(_Part):
    """A switch that is expected; one with ``connect`` is dialled at its management socket."""

    name: Annotated[str, Field(min_length=1, max_length=60, pattern=r"^[^:\s]+$")]
    dpid: Annotated[int, Field(ge=0, lt=1 << 64)]
    connect: Path | None = None


class LinkFile(_Part):
    """A link that is known without discovery, in both directions."""

    between: tuple[PortText, PortText]
    capacity_mbit: Annotated[float, Field(gt=0)] | None = None
    redundant: bool = False


class TlsFile(_Part):
    """Certificates of the OpenFlow listener; switches must show one of ``ca``."""

    ca: Path
    certificate: Path
    key: Path


class PathFile(_Part):
    """A path past virtual machines; ``extend_match`` names a file in the seed's format."""

    name: Annotated[str, AfterValidator(_check_name)]
    ingress: PortText
    exit: PortText
    external: str
    external_mac: str | None = None
    match: dict[str, int | str] | None = None
    extend_match: Path | None = None
    roles: dict[str, logic.Role] = {}

    @model_validator(mode="after")
    def _one_match(self) -> "PathFile":
        if (self.match is None) == (self.extend_match is None):
            raise ValueError("either match or extend_match must be given")
        return self

    def path(self) -> logic.Path:
        """Return the path.

        Raises:
            UsageError: an address or the match is wrong, or its file cannot be read.
        """
        if self.extend_match is not None:
            match = extend_match.to_match(read_extend_match(self.extend_match))
        else:
            match = match_of(dict(self.match or {}))
        return logic.Path(
            self.name,
            port_ref(self.ingress),
            port_ref(self.exit),
            self.external,
            match,
            self.external_mac,
            self.roles,
        )


def read_extend_match(path: Path) -> dict[str, Any]:
    """Return the keys and values of a file in the seed's format.

    Raises:
        UsageError: it cannot be read or something in it is wrong; the message names it.
    """
    try:
        section = extend_match.section_of(path.read_bytes())
        extend_match.to_match(section)
    except (OSError, ValueError) as error:  # ValueError: a name that can be none
        reason = getattr(error, "strerror", None) or error
        raise UsageError(f"{path} cannot be read: {reason}") from None
    except UsageError as error:
        raise UsageError(f"{path} is wrong: {error}") from None
    return section


class ControllerFile(_Part):
    """Everything about a stand-alone controller; an empty file takes any switch in."""

    listen: Annotated[str, AfterValidator(_check_listen)] | None = "0.0.0.0:6653"
    api: Annotated[str, AfterValidator(_check_api)] = "127.0.0.1:8181"
    token: Path | None = None
    tls: TlsFile | None = None
    switches: tuple[SwitchFile, ...] = ()
    links: tuple[LinkFile, ...] = ()
    edge: tuple[PortText, ...] = ()
    outside: tuple[PortText, ...] = ()
    discover: bool = True
    unicast: Unicast = Unicast.ANY
    dhcp_server: PortText | None = None
    lease: LeasePlace | None = None
    lease_name: Annotated[str, AfterValidator(_check_name)] = "main"
    state: Path | None = None
    settle_s: Annotated[float, Field(ge=0, le=60)] = 3.0
    intents: dict[str, Any] | None = None
    path_logic: str = logic.DEFAULT
    paths: tuple[PathFile, ...] = ()

    @model_validator(mode="after")
    def _consistent(self) -> "ControllerFile":
        for what in ("name", "dpid"):
            values = [getattr(switch, what) for switch in self.switches]
            if len(set(values)) != len(values):
                raise ValueError(f"two switches have the same {what}")
        if len({path.name for path in self.paths}) != len(self.paths):
            raise ValueError("two paths have the same name")
        return self

    def options(self) -> Options:
        """Return what the fabric is to know from the start."""
        links: dict[Link, LinkInfo] = {}
        for entry in self.links:
            link = Link(*map(port_ref, entry.between))
            info = LinkInfo(capacity_mbit=entry.capacity_mbit, redundant=entry.redundant)
            links |= {link: info, link.reverse: info}
        return Options(
            names={switch.dpid: switch.name for switch in self.switches},
            adopt=not self.switches,
            links=links,
            edge=frozenset(map(port_ref, self.edge)),
            discover=self.discover,
            hosts=Settings(
                unicast=self.unicast,
                packet_in_rate=500,
                edge=frozenset(map(port_ref, self.edge)),
                outside=frozenset(map(port_ref, self.outside)),
                dhcp_server=port_ref(self.dhcp_server) if self.dhcp_server else None,
            ),
            settle_s=self.settle_s,
            path_logic=self.path_logic,
        )


def read_controller_file(path: Path | None) -> ControllerFile:
    """Read the file; None is an empty one.

    Raises:
        UsageError: it cannot be read or something in it is wrong; the message names the place.
    """
    if path is None:
        return ControllerFile()
    try:
        content = yaml.safe_load(path.read_text())
        return ControllerFile.model_validate(content if content is not None else {})
    except ValidationError as error:
        raise UsageError(f"{path} is wrong: {_faults(error)}") from None
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        text = re.sub(r"\s+", " ", str(error))[:300]
        raise UsageError(f"{path} cannot be read: {text}") from error


def listening_at(file: ControllerFile, listen: str) -> ControllerFile:
    """Return ``file`` with another place to wait for switches at.

    Raises:
        UsageError: that is none.
    """
    try:
        return ControllerFile.model_validate({**file.model_dump(), "listen": listen})
    except ValidationError as error:
        raise UsageError(f"the options are wrong: {_faults(error)}") from None


def _faults(error: ValidationError) -> str:
    return "; ".join(
        f"{'.'.join(map(str, fault['loc'])) or 'the file'}:"
        f" {fault['msg'].removeprefix('Value error, ')}"
        for fault in error.errors()
    )
