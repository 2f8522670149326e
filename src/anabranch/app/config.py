"""Configuration: ``anabranch.yaml``, overridden by ``ANABRANCH_*``, with defaults that just run."""

import os
import re
from collections.abc import Iterable
from dataclasses import asdict
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import yaml
from pydantic import (
    BaseModel,
    Field,
    ValidationError,
    field_validator,
)
from pydantic_settings import (
    BaseSettings,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    YamlConfigSettingsSource,
)
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError

from anabranch.app.config_parts import (
    AddressesConfig,
    FabricConfig,
    IngressConfig,
    LeafConfig,
    LinkConfig,
    LogConfig,
    NodeConfig,
    PlacementConfig,
    PortsConfig,
    RemoteConfig,
    SeatsConfig,
    ServicesConfig,
    TlsConfig,
    TreeConfig,
    VideoConfig,
    check_address,
)
from anabranch.app.public import in_url, public_addresses
from anabranch.core.errors import UsageError
from anabranch.core.names import check_name
from anabranch.site.settings import DEFAULT_NODES

CONFIG_NAME = "anabranch.yaml"
ROOT_RUN = Path("/run/anabranch")
"""Where root's sites have their run directories and locks."""
_NO_SETTINGS = (
    "CONFIG",
    "URL",
    "TOKEN",
    "JOIN_TOKEN",
    "JOIN_BUS",
    "RUN",
    "LEAF_SERVER",
    "LEAF_LOAD",
)


class Config(BaseSettings):
    """Everything an operator may set. Unknown names are refused, so that a slip is noticed."""

    model_config = SettingsConfigDict(
        env_prefix="ANABRANCH_", env_nested_delimiter="__", extra="forbid", frozen=True
    )

    site: str = "main"
    listen: str = "[::]:8080"
    public_address: str = "auto"
    carriage: Literal["auto", "switches", "direct"] = "auto"
    leaf: Annotated[LeafConfig, NoDecode] = LeafConfig()
    state_dir: Path | None = None
    run_dir: Path | None = None
    database: str | None = None
    test_channels: Annotated[int, Field(ge=0, le=16)] = 2
    keyframe_on_join: bool = True
    nodes: tuple[NodeConfig, ...] = tuple(NodeConfig(**asdict(node)) for node in DEFAULT_NODES)
    links: tuple[LinkConfig, ...] = ()
    addresses: AddressesConfig = AddressesConfig()
    ports: PortsConfig = PortsConfig()
    fabric: FabricConfig = FabricConfig()
    ingress: IngressConfig = IngressConfig()
    tree: TreeConfig = TreeConfig()
    placement: PlacementConfig = PlacementConfig()
    seats: SeatsConfig = SeatsConfig()
    video: VideoConfig = VideoConfig()
    remote: RemoteConfig = RemoteConfig()
    services: ServicesConfig = ServicesConfig()
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
        return check_address(value, "[::]:8080")

    @field_validator("database")
    @classmethod
    def _database(cls, value: str | None) -> str | None:
        if value is None:
            return None
        try:
            driver = make_url(value).drivername
        except (ArgumentError, ValueError):
            driver = ""
        usable = {
            "sqlite": "sqlite+aiosqlite",
            "postgresql": "postgresql+psycopg",
        }.get(driver, driver)
        if usable not in {"sqlite+aiosqlite", "postgresql+psycopg"}:
            # Without the value: there may be a password in it.
            raise ValueError(
                "a database is sqlite+aiosqlite:///PATH"
                " or postgresql+psycopg://USER:PASSWORD@HOST/NAME"
            )
        return usable + value[len(driver) :]

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
            return ROOT_RUN / self.site
        base = os.environ.get("XDG_RUNTIME_DIR") or own_tmp()
        return Path(base) / "anabranch" / self.site

    @property
    def token_file(self) -> Path:
        return self.state / "token"

    @property
    def local_url(self) -> str:
        """The address by which programs on this machine reach the director."""
        scheme = "https" if self.tls.enabled else "http"
        host = "127.0.0.1" if self.host in {"0.0.0.0", "::"} else self.host
        return f"{scheme}://{in_url(host)}:{self.port}"

    @property
    def switches(self) -> bool:
        """Whether the channels go through switches."""
        if self.carriage == "auto":
            return os.geteuid() == 0
        return self.carriage == "switches"

    def public_addresses(self) -> tuple[str, ...]:
        """Return the addresses by which other computers reach the leaves, or none."""
        return public_addresses(self.public_address)


class _WithoutFile(Config):
    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return init_settings, env_settings


def own_tmp() -> Path:
    """Return where a user without a runtime directory has his run directories."""
    return Path(f"/tmp/anabranch-{os.geteuid()}")  # noqa: S108


def _config_file() -> Path | None:
    """Return the configuration file: $ANABRANCH_CONFIG, ./anabranch.yaml, /etc/anabranch.yaml."""
    named = os.environ.get("ANABRANCH_CONFIG")
    if named:
        return Path(named)
    for path in (Path(CONFIG_NAME), Path("/etc") / CONFIG_NAME):
        if path.is_file():
            return path
    return None


def load_config(*, with_file: bool = True, **overrides: object) -> Config:
    """Read the configuration.

    Args:
        with_file: False passes the file over, whatever is in it.
        overrides: values above those of the environment; None is none.

    Raises:
        UsageError: something in it is wrong; the message names the place.
    """
    file = _config_file() if with_file else None
    if file is not None and not file.is_file():
        raise UsageError(f"there is no configuration file {file}")
    _check_variables()
    try:
        _check_mapping(file)
        kind = Config if with_file else _WithoutFile
        return kind(**{k: v for k, v in overrides.items() if v is not None})  # type: ignore[arg-type]
    except ValidationError as error:
        lines = [_fault(item["type"], item["loc"], item["msg"]) for item in error.errors()]
        # Without its cause, which quotes the values: there may be a password among them.
        raise UsageError("the configuration is wrong: " + "; ".join(lines)) from None
    except (ValueError, OSError, TypeError, yaml.YAMLError) as error:
        text = re.sub(r"\s+", " ", str(error))
        raise UsageError(f"the configuration cannot be read: {text[:300]}") from error


def _fault(kind: str, place: tuple[int | str, ...], message: str) -> str:
    where = ".".join(str(part) for part in place if part != "[key]")
    if kind == "unexpected_keyword_argument":  # of a dataclass
        return f"{where}: there is no such setting"
    if kind != "extra_forbidden":
        return f"{where}: {message.removeprefix('Value error, ')}"
    model: type[BaseModel] = Config
    for part in place[:-1]:
        if isinstance(part, str):
            model = _part_of(model.model_fields[part].annotation) or model
    return f"{where}: there is no such setting{_nearest(str(place[-1]), model.model_fields)}"


def _part_of(annotation: Any) -> type[BaseModel] | None:
    """Return the model that a field is, or is a tuple of."""
    for each in (annotation, *get_args(annotation)):
        if isinstance(each, type) and issubclass(each, BaseModel):
            return each
    return None


def _nearest(word: str, words: Iterable[str]) -> str:
    found = get_close_matches(word, words, 1, 0.5)
    return f" (did you mean {found[0]}?)" if found else ""


def _check_variables() -> None:
    """See that every ``ANABRANCH_`` variable is read by somebody.

    Raises:
        UsageError: one is not; the message names the nearest that would be.
    """
    known = [f"ANABRANCH_{name}" for name in _NO_SETTINGS]
    for name, field in Config.model_fields.items():
        known.append(f"ANABRANCH_{name}".upper())
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            parts = field.annotation.model_fields
            known += [f"ANABRANCH_{name}__{part}".upper() for part in parts]
    for variable in map(str.upper, os.environ):
        if not variable.startswith("ANABRANCH_") or variable.startswith("ANABRANCH_SOAK_"):
            continue
        if variable not in known:
            raise UsageError(f"the variable {variable} is no setting{_nearest(variable, known)}")


def _check_mapping(file: Path | None) -> None:
    content = yaml.safe_load(file.read_text()) if file is not None else None
    if not isinstance(content, dict | None) or not all(isinstance(k, str) for k in content or ()):
        raise ValueError(f"{file} is not of the form NAME: VALUE")
