"""The parts of the configuration: what each setting may be."""

import json
from ipaddress import IPv4Address, IPv4Network, IPv6Network, ip_network
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    field_validator,
    model_validator,
)

from anabranch.core.errors import UsageError
from anabranch.media.errors import RenditionError
from anabranch.media.leaf import LeafKind
from anabranch.media.rendition import DEFAULT_LADDER, Format, Rendition, check_ladder
from anabranch.site.agent import Reporting
from anabranch.site.rules import TreeRules
from anabranch.site.settings import ACCESS_6, MAX_PER_LEAF, LeafSettings, SeatSettings
from anabranch.tree import placement, policies
from anabranch.tree.metrics import THRESHOLDS, Threshold, Weighting
from anabranch.tree.model import Role
from anabranch.tree.policies import Marks
from anabranch.tree.trouble import Sensitivity

PortNumber = Annotated[int, Field(ge=1, le=65535)]
RateMbit = Annotated[float, Field(ge=0.1, le=100_000)]


def span(text: str) -> tuple[int, int]:
    """Return first and last of a range of ports."""
    first, last = (int(part) for part in text.split("-"))
    return first, last


def _check_span(text: str) -> str:
    first, last = span(text)
    if not 0 < first <= last < 65536:
        raise ValueError("a range of ports is FIRST-LAST within 1 to 65535")
    return text


def check_address(text: str, such_as: str) -> str:
    """Return ``text`` if it is an address and a port; raises ValueError."""
    host, _, port = text.rpartition(":")
    if not host or not port.isdigit() or not 0 < int(port) < 65536:
        raise ValueError(f"listen is ADDRESS:PORT, such as {such_as}")
    return text


Prefix = Annotated[IPv4Network | IPv6Network, BeforeValidator(lambda text: ip_network(str(text)))]
PortRange = Annotated[str, Field(pattern=r"^[0-9]{1,5}-[0-9]{1,5}$"), AfterValidator(_check_span)]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class OutletConfig(_Part):
    """A port of a leaf's switch behind which receivers are."""

    device: Annotated[str, Field(pattern=r"^[^\s/@]{1,15}$")]
    networks: Annotated[tuple[IPv4Network, ...], Field(min_length=1)]
    next_hop: Annotated[str, Field(pattern=r"^[0-9a-fA-F]{2}(:[0-9a-fA-F]{2}){5}$")]
    source: IPv4Address


class NodeConfig(_Part):
    """A node of the tree; one that is ``idle`` is not started with the site."""

    name: str
    role: Role
    parent: str | None = None
    rate_mbit: RateMbit = 100.0
    idle: bool = False
    capacity: Annotated[int, Field(ge=1)] | None = None
    server: Literal["webrtc", "none"] = "webrtc"
    outlet: OutletConfig | None = None

    @model_validator(mode="after")
    def _only_leaves_serve(self) -> "NodeConfig":
        if self.server == "none" and self.role is not Role.LEAF:
            raise ValueError("server: none is for a leaf that is a sort switch and nothing else")
        if self.outlet is not None and self.role is not Role.LEAF:
            raise ValueError("outlet: receivers are behind a leaf's switch")
        return self


class LinkConfig(_Part):
    """A link that could be part of the tree."""

    between: tuple[str, str]
    rate_mbit: RateMbit = 100.0


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

    @property
    def form(self) -> Format:
        return Format(
            framerate=self.framerate,
            gop_s=self.gop_s,
            audio_bitrate_kbps=self.audio_bitrate_kbps,
        )

    @property
    def renditions(self) -> tuple[Rendition, ...]:
        return tuple(
            Rendition(r.name, r.width, r.height, r.bitrate_kbps, self.framerate)
            for r in self.ladder
        )

    @model_validator(mode="after")
    def _can_be_encoded(self) -> "VideoConfig":
        try:
            check_ladder(self.renditions, self.form)
        except RenditionError as error:
            raise ValueError(str(error)) from error
        return self


class PortsConfig(_Part):
    """Ports of this machine; ranges are ``first-last``."""

    media: PortRange = "20000-20999"
    inlets: PortRange = "21000-21999"
    rtmp: PortNumber = 1935
    whip: PortNumber = 8189
    handover: PortRange = "23000-23999"
    srt: PortRange = "9000-9099"
    rtp: PortRange = "5004-5103"


class AddressesConfig(_Part):
    """Address ranges that the site uses inside this machine."""

    overlay: IPv4Network = IPv4Network("10.98.0.0/24")
    access: IPv4Network = IPv4Network("10.97.0.0/24")
    groups: IPv4Network = IPv4Network("239.192.0.0/16")
    tunnels: IPv4Network = IPv4Network("10.96.0.0/24")
    access_6: IPv6Network = ACCESS_6


class RedundancyConfig(_Part):
    """A link beside the tree."""

    between: tuple[str, str]
    rate_mbit: RateMbit = 100.0


class FabricConfig(_Part):
    """How the switches are joined and controlled."""

    redundancy: tuple[RedundancyConfig, ...] = ()
    bfd_ms: Annotated[int, Field(ge=0, le=10_000)] = 0
    controllers: Annotated[int, Field(ge=0, le=2)] = 0
    dhcp: bool = False


class IngressConfig(_Part):
    """The gateway between producers and what listens for them, where there are switches."""

    enabled: bool = False
    rate_mbit: Annotated[float, Field(ge=0.5, le=10_000)] = 20.0


class ThresholdConfig(_Part):
    """From where on a figure is bad."""

    warning: float
    danger: float

    def threshold(self, figure: str) -> Threshold:
        """What this means for ``figure``. Raises UsageError if the values do not fit together."""
        try:
            return Threshold(self.warning, self.danger)
        except UsageError as error:
            raise UsageError(f"tree.thresholds.{figure}: {error}") from None


class TreeConfig(_Part):
    """How the tree looks after itself; see docs/tree.md."""

    act: bool = True
    interval_s: Annotated[float, Field(ge=0.2, le=60)] = 2.0
    weight: Weighting = Weighting.VIEWERS
    policy: str = policies.DEFAULT
    thresholds: dict[str, ThresholdConfig] = {
        name: ThresholdConfig(warning=each.warning, danger=each.danger)
        for name, each in THRESHOLDS.items()
    }
    sensitivity: Sensitivity = Sensitivity()
    marks: Marks = Marks()
    fan_out: dict[Literal["root", "relay"], Annotated[int, Field(ge=1)]] = {}
    pause_s: Annotated[float, Field(ge=0, allow_inf_nan=False)] = TreeRules().pause_s

    @property
    def rules(self) -> TreeRules:
        """What this means. Raises UsageError if values do not fit together."""
        given = {name: each.threshold(name) for name, each in self.thresholds.items()}
        return TreeRules(
            self.act,
            Reporting(self.interval_s, self.weight, {**THRESHOLDS, **given}),
            self.sensitivity,
            self.policy,
            self.marks,
            {Role(role): most for role, most in self.fan_out.items()},
            self.pause_s,
        )


class LeafConfig(_Part):
    """The WebRTC servers of the leaves; ``leaf: KIND`` is short for ``leaf: {kind: KIND}``."""

    kind: LeafKind = "anabranch"
    threads: Annotated[int, Field(ge=1, le=64)] = 1
    warm: Literal["none", "all"] | tuple[str, ...] = "none"
    repair: bool = False

    @model_validator(mode="before")
    @classmethod
    def _kind_alone(cls, value: Any) -> Any:
        if not isinstance(value, str):
            return value
        # A variable is a text, whatever it says.
        return json.loads(value) if value.startswith("{") else {"kind": value}

    @model_validator(mode="after")
    def _can_be_kept(self) -> "LeafConfig":
        if self.kind == "janus" and self.warm not in ("none", ()):
            raise ValueError("warm: a Janus keeps nothing at hand; it takes kind: anabranch")
        if self.kind == "janus" and self.repair:
            raise ValueError("repair: a Janus asks nobody for packets; it takes kind: anabranch")
        return self

    @property
    def settings(self) -> LeafSettings:
        """What this means."""
        named = () if isinstance(self.warm, str) else self.warm
        warm = None if self.warm == "all" else frozenset(named)
        return LeafSettings(self.kind, self.threads, warm, self.repair)


class SeatsConfig(_Part):
    """Seats of receivers without a browser."""

    allow: tuple[Prefix, ...] = ()
    per_client: Annotated[int, Field(ge=0, le=500)] = SeatSettings().per_client
    per_leaf: Annotated[int, Field(ge=1, le=MAX_PER_LEAF)] = SeatSettings().per_leaf
    hold_s: Annotated[float, Field(ge=0, le=60)] = SeatSettings().hold_s
    neighbours: Annotated[int, Field(ge=0, le=4)] = SeatSettings().neighbours

    @property
    def settings(self) -> SeatSettings:
        """What this means."""
        return SeatSettings(
            self.allow, self.per_client, self.per_leaf, self.hold_s, self.neighbours
        )


class PlacementConfig(_Part):
    """Where viewers are sent."""

    policy: str = placement.DEFAULT
    prefixes: dict[Prefix, tuple[str, ...]] = {}


class RemoteConfig(_Part):
    """Nodes on other machines; without ``listen`` none are let in."""

    listen: str | None = None
    bus: str | None = None

    @field_validator("listen")
    @classmethod
    def _listen(cls, value: str | None) -> str | None:
        return value and check_address(value, "0.0.0.0:7443")


class ServicesConfig(_Part):
    """The site's nodes as nodes on which users install modules."""

    enabled: bool = False
    users: Path | None = None
    nodes: tuple[str, ...] | None = None


class TlsConfig(_Part):
    """HTTPS; without a given certificate one is generated and kept in the state directory."""

    enabled: bool = False
    certificate: Path | None = None
    key: Path | None = None


class LogConfig(_Part):
    """Logs go to standard error, one event a line."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Literal["auto", "console", "json"] = "auto"
