"""Configuration: ``anabranch.yaml``, overridden by ``ANABRANCH_*``, with defaults that just run."""

import os
import re
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from typing import Annotated, Literal

import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, field_validator
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    YamlConfigSettingsSource,
)

from anabranch.core.errors import UsageError
from anabranch.core.names import check_name, new_id
from anabranch.host.network import local_addresses, outward_address
from anabranch.media.rendition import DEFAULT_LADDER, Format, Rendition
from anabranch.site.settings import DEFAULT_NODES, Addresses, Ports, SiteSettings
from anabranch.tree.model import Node, Role

CONFIG_NAME = "anabranch.yaml"

PortNumber = Annotated[int, Field(ge=1, le=65535)]


def span(text: str) -> tuple[int, int]:
    """Return first and last of a range of ports."""
    first, last = (int(part) for part in text.split("-"))
    return first, last


def _check_span(text: str) -> str:
    first, last = span(text)
    if not 0 < first <= last < 65536:
        raise ValueError("a range of ports is FIRST-LAST within 1 to 65535")
    return text


PortRange = Annotated[str, Field(pattern=r"^[0-9]{1,5}-[0-9]{1,5}$"), AfterValidator(_check_span)]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class NodeConfig(_Part):
    """A node of the tree."""

    name: str
    role: Role
    parent: str | None = None
    rate_mbit: float = 100.0


class RenditionConfig(_Part):
    """One encoding in the ladder, the best one first."""

    name: str
    width: int
    height: int
    bitrate_kbps: int


class VideoConfig(_Part):
    """The constant format that every channel is brought into."""

    framerate: int = 25
    gop_s: float = 1.0
    audio_bitrate_kbps: int = 64
    ladder: tuple[RenditionConfig, ...] = tuple(
        RenditionConfig(name=r.name, width=r.width, height=r.height, bitrate_kbps=r.bitrate_kbps)
        for r in DEFAULT_LADDER
    )


class PortsConfig(_Part):
    """Ports of this machine; ranges are ``first-last``."""

    media: PortRange = "20000-20999"
    inlets: PortRange = "21000-21999"
    rtmp: PortNumber = 1935
    srt: PortRange = "9000-9099"
    rtp: PortRange = "5004-5103"


class AddressesConfig(_Part):
    """Address ranges that the site uses inside this machine."""

    overlay: IPv4Network = IPv4Network("10.98.0.0/24")
    access: IPv4Network = IPv4Network("10.97.0.0/24")
    groups: IPv4Network = IPv4Network("239.192.0.0/16")


class TlsConfig(_Part):
    """HTTPS; without a given certificate one is generated and kept in the state directory."""

    enabled: bool = False
    certificate: Path | None = None
    key: Path | None = None


class LogConfig(_Part):
    """Logs go to standard error, one event a line."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Literal["auto", "console", "json"] = "auto"


class Config(BaseSettings):
    """Everything an operator may set. Unknown names are refused, so that a slip is noticed."""

    model_config = SettingsConfigDict(
        env_prefix="ANABRANCH_", env_nested_delimiter="__", extra="forbid", frozen=True
    )

    site: str = "main"
    listen: str = "0.0.0.0:8080"
    public_address: str = "auto"
    carriage: Literal["auto", "switches", "direct"] = "auto"
    leaf: Literal["janus"] = "janus"
    state_dir: Path | None = None
    run_dir: Path | None = None
    database: str | None = None
    test_channels: Annotated[int, Field(ge=0, le=16)] = 2
    keyframe_on_join: bool = True
    nodes: tuple[NodeConfig, ...] = tuple(
        NodeConfig(name=n.name, role=n.role, parent=n.parent, rate_mbit=n.rate_mbit)
        for n in DEFAULT_NODES
    )
    addresses: AddressesConfig = AddressesConfig()
    ports: PortsConfig = PortsConfig()
    video: VideoConfig = VideoConfig()
    tls: TlsConfig = TlsConfig()
    log: LogConfig = LogConfig()

    @field_validator("site")
    @classmethod
    def _site_name(cls, value: str) -> str:
        check_name(value)
        if len(value) > 12:
            raise ValueError("a site's name has at most 12 characters: namespaces carry it")
        return value

    @field_validator("listen")
    @classmethod
    def _listen(cls, value: str) -> str:
        host, _, port = value.rpartition(":")
        if not host or not port.isdigit() or not 0 < int(port) < 65536:
            raise ValueError("listen is ADDRESS:PORT, such as 0.0.0.0:8080")
        return value

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        file = _config_file()
        if file is None:
            return init_settings, env_settings
        return init_settings, env_settings, YamlConfigSettingsSource(settings_cls, yaml_file=file)

    @property
    def host(self) -> str:
        return self.listen.rpartition(":")[0].strip("[]")

    @property
    def port(self) -> int:
        return int(self.listen.rpartition(":")[2])

    @property
    def state(self) -> Path:
        """Where things are kept that outlive a run: the store, the operator's token."""
        if self.state_dir is not None:
            return self.state_dir.expanduser().resolve()
        if os.geteuid() == 0:
            return Path("/var/lib/anabranch") / self.site
        base = Path(os.environ.get("XDG_STATE_HOME", "~/.local/state")).expanduser()
        return base / "anabranch" / self.site

    @property
    def run(self) -> Path:
        """Where things are kept that a run makes: sockets, the journal. Short: see sockets."""
        if self.run_dir is not None:
            return self.run_dir.expanduser().resolve()
        if os.geteuid() == 0:
            return Path("/run/anabranch") / self.site
        base = os.environ.get("XDG_RUNTIME_DIR") or f"/tmp/anabranch-{os.geteuid()}"  # noqa: S108
        return Path(base) / "anabranch" / self.site

    @property
    def token_file(self) -> Path:
        return self.state / "token"

    @property
    def local_url(self) -> str:
        """The address by which programs on this machine reach the director."""
        scheme = "https" if self.tls.enabled else "http"
        host = "127.0.0.1" if self.host in {"0.0.0.0", "::"} else self.host
        return f"{scheme}://{f'[{host}]' if ':' in host else host}:{self.port}"

    @property
    def switches(self) -> bool:
        """Whether the channels go through switches."""
        if self.carriage == "auto":
            return os.geteuid() == 0
        return self.carriage == "switches"

    def public_addresses(self) -> tuple[str, ...]:
        """Return the addresses by which other computers reach the leaves, or none."""
        if self.public_address == "none":
            return ()
        if self.public_address != "auto":
            return tuple(self.public_address.replace(",", " ").split())
        found = outward_address() or next(iter(local_addresses()), None)
        return (str(found),) if found else ()


def _config_file() -> Path | None:
    """Return the configuration file: $ANABRANCH_CONFIG, ./anabranch.yaml, /etc/anabranch.yaml."""
    named = os.environ.get("ANABRANCH_CONFIG")
    if named:
        return Path(named)
    for path in (Path(CONFIG_NAME), Path("/etc") / CONFIG_NAME):
        if path.is_file():
            return path
    return None


def load_config(**overrides: object) -> Config:
    """Read the configuration.

    Raises:
        UsageError: something in it is wrong; the message names the place, a line each.
    """
    # Variables that are no settings: where the settings are, and the mark of the children.
    environment = {k: os.environ.pop(k) for k in ("ANABRANCH_RUN",) if k in os.environ}
    file = _config_file()
    if file is not None and not file.is_file():
        raise UsageError(f"there is no configuration file {file}")
    try:
        _check_mapping(file)
        return Config(**{k: v for k, v in overrides.items() if v is not None})  # type: ignore[arg-type]
    except ValidationError as error:
        lines = [
            f"{'.'.join(str(part) for part in item['loc'])}: {item['msg']}"
            for item in error.errors()
        ]
        raise UsageError("the configuration is wrong: " + "; ".join(lines)) from error
    except (ValueError, OSError, TypeError, yaml.YAMLError) as error:
        text = re.sub(r"\s+", " ", str(error))
        raise UsageError(f"the configuration cannot be read: {text[:300]}") from error
    finally:
        os.environ.update(environment)


def _check_mapping(file: Path | None) -> None:
    content = yaml.safe_load(file.read_text()) if file is not None else None
    if not isinstance(content, dict | None) or not all(isinstance(k, str) for k in content or ()):
        raise ValueError(f"{file} is not of the form NAME: VALUE")


def site_settings(config: Config) -> SiteSettings:
    """Turn the configuration into a site's settings.

    Raises:
        UsageError: values do not fit together.
    """
    public = config.public_addresses()
    for address in public:
        try:
            IPv4Address(address)
        except ValueError as error:
            raise UsageError(f"public_address: {address} is not an IPv4 address") from error
    ports = config.ports
    return SiteSettings(
        name=config.site,
        run_id=new_id(),
        run_dir=config.run,
        database_url=config.database or f"sqlite+aiosqlite:///{config.state / 'store.db'}",
        switches=config.switches,
        nodes=tuple(
            Node(node.name, node.role, node.parent, node.rate_mbit) for node in config.nodes
        ),
        addresses=Addresses(
            config.addresses.overlay, config.addresses.access, config.addresses.groups
        ),
        ports=Ports(
            media=span(ports.media),
            inlets=span(ports.inlets),
            rtmp=ports.rtmp,
            srt=span(ports.srt),
            rtp=span(ports.rtp),
        ),
        format=Format(
            framerate=config.video.framerate,
            gop_s=config.video.gop_s,
            audio_bitrate_kbps=config.video.audio_bitrate_kbps,
        ),
        ladder=tuple(
            Rendition(r.name, r.width, r.height, r.bitrate_kbps, config.video.framerate)
            for r in config.video.ladder
        ),
        public_addresses=public,
        test_channels=config.test_channels,
        keyframe_on_join=config.keyframe_on_join,
    )
