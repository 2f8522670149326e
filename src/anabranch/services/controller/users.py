"""The users of a node, as its operator writes them down: YAML, or the seed's XML.

YAML::

    users:
      - name: janedoe
        public_key: ssh-ed25519 AAAA... janedoe
        address: 10.0.3.2
        address6: 2001:db8:3::2
        listen_ports: [80, 5060-5070]
        filter_prefixes: [192.0.2.0/24, "2001:db8::/32"]
        sandbox: /var/lib/anabranch/sandboxes/janedoe
        transcodings: 1

XML has the same names with ``-`` for ``_``, lists with commas (seed 003, section 6.1.2, which
gives the fields and not the form)::

    <netserv><user name="janedoe"><public-key>...</public-key>...</user></netserv>
"""

from ipaddress import IPv4Address, IPv6Address
from pathlib import Path
from typing import Annotated, Any, Self
from xml.etree import ElementTree as ET  # a document type is refused, and with it every entity

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from anabranch.core.errors import UsageError
from anabranch.services.errors import KeyFileError, MessageError, ServicesError
from anabranch.services.keys import PublicKey
from anabranch.services.ports import port_range, written
from anabranch.services.signalling.values import Network, module_name

_MAX_FILE = 4 * 1024 * 1024
_LISTS = ("listen-ports", "filter-prefixes")


class UsersError(ServicesError, UsageError):
    """A file of users that cannot be read."""


def _name(value: Any) -> str:
    try:
        return module_name(str(value))
    except MessageError as error:
        raise ValueError(f"{value!r} is no name: letters, digits and . _ -") from error


def _key(value: Any) -> PublicKey:
    if isinstance(value, PublicKey):
        return value
    try:
        return PublicKey.parse(str(value))
    except KeyFileError as error:
        raise ValueError(str(error)) from error


class User(BaseModel):
    """A tenant of a node.

    Attributes:
        address: of the user's sandbox, IPv4.
        address6: another of it, beside ``address``.
        listen_ports: on which server modules may listen.
        filter_prefixes: to which addresses packets may be claimed without further proof.
        may_prove: addresses elsewhere may be claimed by the reverse routability check.
        sandbox: the directory that is the user's own; None: the node chooses.
        max_modules: installed at a time.
        max_ttl: seconds; a longer ttl is cut down to it.
        transcodings: jobs that ffmpeg does for the user's modules at a time; 0: none.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", arbitrary_types_allowed=True)

    name: Annotated[str, BeforeValidator(_name)]
    public_key: Annotated[PublicKey, BeforeValidator(_key)]
    address: IPv4Address | None = None
    address6: IPv6Address | None = None
    listen_ports: tuple[Annotated[range, BeforeValidator(port_range)], ...] = ()
    filter_prefixes: tuple[Network, ...] = ()
    may_prove: bool = True
    sandbox: Path | None = None
    max_modules: int = Field(default=16, ge=1, le=1000)
    max_ttl: int = Field(default=7 * 24 * 3600, ge=1)
    transcodings: int = Field(default=0, ge=0, le=16)

    @model_validator(mode="after")
    def _both_addresses(self) -> Self:
        if self.address6 is not None and self.address is None:
            raise ValueError("address6 needs an address of IPv4 beside it")
        return self

    def document(self) -> dict[str, Any]:
        """Return it as plain data, as :func:`parse_document` reads one of ``users``."""
        return {
            "name": self.name,
            "public_key": str(self.public_key),
            "address": None if self.address is None else str(self.address),
            "address6": None if self.address6 is None else str(self.address6),
            "listen_ports": written(port for ports in self.listen_ports for port in ports),
            "filter_prefixes": [str(each) for each in self.filter_prefixes],
            "may_prove": self.may_prove,
            "sandbox": None if self.sandbox is None else str(self.sandbox),
            "max_modules": self.max_modules,
            "max_ttl": self.max_ttl,
        }

    def may_filter(self, destination: Network) -> bool:
        """Return whether packets to all of ``destination`` may be claimed as it is."""
        return any(
            destination.version == prefix.version
            and int(prefix.network_address) <= int(destination.network_address)
            and int(destination.broadcast_address) <= int(prefix.broadcast_address)
            for prefix in self.filter_prefixes
        )

    def may_listen(self, port: int) -> bool:
        """Return whether a server module may listen on ``port``."""
        return any(port in ports for ports in self.listen_ports)


class _File(BaseModel):
    model_config = ConfigDict(extra="forbid")

    users: list[User]


def load(path: Path) -> dict[str, User]:
    """Read a file of users; ``.xml`` is the seed's, anything else YAML.

    Raises:
        UsersError: it cannot be read or is wrong; the message says where.
    """
    try:
        with path.open("rb") as file:
            data = file.read(_MAX_FILE + 1)
    except OSError as error:
        raise UsersError(f"{path}: {error.strerror}") from error
    if len(data) > _MAX_FILE:
        raise UsersError(f"{path} is larger than {_MAX_FILE} bytes")
    try:
        return parse_xml(data) if path.suffix == ".xml" else parse_yaml(data)
    except UsersError as error:
        raise UsersError(f"{path}: {error}") from error


def parse_yaml(data: bytes) -> dict[str, User]:
    """Read users from YAML. Raises :class:`UsersError`."""
    try:
        document = yaml.safe_load(data)
    except (yaml.YAMLError, UnicodeDecodeError, ValueError, RecursionError) as error:
        raise UsersError(f"no YAML: {error}") from error
    return parse_document(document)


def parse_xml(data: bytes) -> dict[str, User]:
    """Read users from the seed's XML. Raises :class:`UsersError`."""
    parser = ET.XMLParser(target=_Builder())  # noqa: S314 - it refuses a document type
    try:
        parser.feed(data)
        root = parser.close()
    except (ET.ParseError, ValueError, LookupError) as error:
        raise UsersError(f"no XML: {error}") from error
    if root.tag != "netserv":
        raise UsersError(f"the root element is netserv, not {root.tag}")
    users = []
    for element in root:
        if element.tag != "user":
            raise UsersError(f"unknown element {element.tag}")
        user: dict[str, Any] = dict(element.attrib)
        for child in element:
            value: Any = (child.text or "").strip()
            if child.tag in _LISTS:
                value = [part.strip() for part in value.split(",") if part.strip()]
            user[str(child.tag).replace("-", "_")] = value
        users.append(user)
    return parse_document({"users": users})


class _Builder(ET.TreeBuilder):
    def doctype(self, name: str, public_id: str, system: str) -> None:
        raise UsersError("a document type is not allowed")


def parse_document(document: Any) -> dict[str, User]:
    """Read users from what such a file says, as plain data. Raises :class:`UsersError`."""
    try:
        found = _File.model_validate(document)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(map(str, first["loc"]))
        raise UsersError(f"{where}: {first['msg']}") from error
    users = {user.name: user for user in found.users}
    if len(users) != len(found.users):
        raise UsersError("a user is there twice")
    return users
