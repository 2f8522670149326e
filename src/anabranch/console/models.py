"""The JSON of the API."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from anabranch.console.nodes_models import NodeOut


class RenditionOut(BaseModel):
    """One encoding of a channel."""

    name: str
    width: int
    height: int
    bitrate_kbps: int


class ChannelOut(BaseModel):
    """A channel as anybody may see it."""

    name: str
    title: str
    state: Literal["starting", "live", "slate", "failed"]
    detail: str | None = Field(description="why it is not live, in words")
    viewers: int
    renditions: list[RenditionOut]
    whip: bool = Field(description="whether it is fed by WHIP, so by the page /publish, too")


class ChannelsOut(BaseModel):
    channels: list[ChannelOut]


class ChannelIn(BaseModel):
    """A channel to be added."""

    model_config = ConfigDict(extra="forbid")

    name: Annotated[str, Field(max_length=200, description="a-z, 0-9 and '-', at most 40")]
    source: Annotated[
        str,
        Field(
            max_length=2000,
            description="test, a file on the director's machine, a URL, rtp, srt, rtmp or whip",
        ),
    ]
    title: Annotated[str | None, Field(max_length=500)] = None
    once: bool = False
    key: Annotated[str | None, Field(max_length=100)] = None


class ChannelDetailOut(ChannelOut):
    """A channel as its operator sees it: with the way in, and the key."""

    source: str
    once: bool
    key: str | None = Field(description="the publisher's secret, where its protocol has one")
    publish: dict[str, str] = Field(description="what to enter at the producer's side, by name")


class RepairsOut(BaseModel):
    """Packets that were lost on their way to a node, and what it sent to nodes that asked."""

    asked: int
    repaired: int
    given_up: int
    answered: int


class SiteOut(BaseModel):
    """The whole site, for ``anabranch status``."""

    name: str
    version: str
    carriage: Literal["switches", "direct"]
    uptime_s: float
    pid: int
    nodes: list[NodeOut]
    channels: list[ChannelOut]
    seats: int
    children: dict[str, dict[str, Any]]
    controller: str | None
    repairs: dict[str, RepairsOut]
    notes: list[str]


class SeatOut(BaseModel):
    """A viewer. The seat's identifier is its viewer's secret and is not shown."""

    channel: str
    rendition: str
    leaf: str
    state: str
    seconds: float
    bytes_sent: int | None
    packets_lost: int | None
    nacks: int | None
    jitter_ms: float | None
    rtt_ms: float | None


class EventOut(BaseModel):
    kind: str
    subject: str
    time: float
    data: dict[str, Any]


class PortOut(BaseModel):
    """Counters of one switch port."""

    node: str
    port: int
    device: str
    rx_packets: int
    tx_packets: int
    rx_bytes: int
    tx_bytes: int


class TimeOut(BaseModel):
    """The director's clock, for pages that measure delay from the picture."""

    epoch_ms: float
