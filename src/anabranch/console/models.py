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


Visibility = Literal["public", "unlisted", "private"]


class PublisherOut(BaseModel):
    """What feeds a channel, and how well it arrives. Null: not known of this way in."""

    way: Literal["whip", "rtmp", "srt", "rtp", "url", "file"]
    since: float = Field(description="when it came, in seconds since the epoch")
    bitrate_kbps: float | None = Field(
        description="received in the last seconds (whip, rtmp), else what the source says it has"
    )
    loss: float | None = Field(
        description="share of the last seconds' packets that did not come, 0 to 1"
    )
    jitter_ms: float | None = Field(description="interarrival jitter of its worst track")
    rtt_ms: float | None = Field(description="round trip, once a lost packet was asked for")
    allowed_kbps: float | None = Field(description="what it is told to send at most (REMB)")
    bytes_received: int | None
    packets_received: int | None
    packets_lost: int | None = Field(description="that did not come, not even sent again")
    packets_repaired: int | None = Field(description="that came after they were asked for")
    nacks: int | None = Field(description="packets that were asked for, each time")
    plis: int | None = Field(description="key frames that were asked for")
    codec: str | None
    width: int | None = Field(description="of the picture, as it was when reading began")
    height: int | None
    framerate: float | None = Field(description="frames a second, as the source says")
    reconnects: int = Field(description="how often reading it was begun anew")


class PublisherDetailOut(PublisherOut):
    """What feeds a channel, for its operator."""

    address: str | None = Field(description="where it sends from")


class ChannelOut(BaseModel):
    """A channel as whoever asks may see it."""

    name: str
    title: str
    state: Literal["starting", "live", "slate", "failed"]
    detail: str | None = Field(description="why it is not live, in words")
    viewers: int
    renditions: list[RenditionOut]
    whip: bool = Field(description="whether it is fed by WHIP, so by the page /publish, too")
    publisher: PublisherOut | None = Field(description="what feeds it; null: nothing, or a test")
    now: str = Field(description="what is on, as its producer says; may be empty")
    captions: bool = Field(description="whether its producer has sent captions lately")
    visibility: Visibility
    owner: str | None = Field(description="account; null for those who may not manage it, too")
    may_manage: bool = Field(description="whether whoever asks may manage it")


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
    visibility: Visibility = "public"
    owner: Annotated[
        str | None, Field(max_length=200, description="account; for operators, others own it")
    ] = None


class ChannelPatch(BaseModel):
    """What is to be otherwise about a channel; what is not sent stays."""

    model_config = ConfigDict(extra="forbid")

    title: Annotated[str | None, Field(max_length=500)] = None
    now: Annotated[str | None, Field(max_length=500, description="what is on")] = None
    visibility: Visibility | None = None
    source: Annotated[str | None, Field(max_length=2000)] = None
    once: bool | None = None
    key: Annotated[str | None, Field(max_length=100)] = None
    new_key: bool = Field(default=False, description="have a key drawn")
    owner: Annotated[
        str | None, Field(max_length=200, description="account; for operators. null: nobody")
    ] = None


class ChannelDetailOut(ChannelOut):
    """A channel as its operator sees it: with the way in, the key, and who feeds it."""

    publisher: PublisherDetailOut | None = Field(
        description="what feeds it; null: nothing, or a test"
    )
    source: str
    once: bool
    key: str | None = Field(description="the publisher's secret, where its protocol has one")
    publish: dict[str, str] = Field(description="what to enter at the producer's side, by name")
    mode: Literal["passthrough", "encoded"] = Field(
        description="whether the publisher's own layers are sent now, or what the encoder makes"
    )
    layers: dict[str, str | None] = Field(
        description="where they are: by rendition the layer (rid) that is sent as it"
    )


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
