"""The JSON of ``/api/fabric``. A port is written ``switch:number``, as in ``relay:3``."""

from collections.abc import Sequence
from typing import Annotated, Any, Generic, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field

from anabranch.fabric.intents import Policy
from anabranch.fabric.notices import Encoding
from anabranch.fabric.pathlogic.logic import Role

PortText = Annotated[
    str,
    Field(pattern=r"^[^:\s]{1,64}:[0-9]{1,10}$", description="switch:number", examples=["s1:3"]),
]
# Strict: JSON's true is no number.
FieldValue = (
    Annotated[int, Field(strict=True, ge=0, lt=1 << 64)] | Annotated[str, Field(max_length=100)]
)
MatchFields = Annotated[
    dict[Annotated[str, Field(max_length=20)], FieldValue],
    Field(
        max_length=40,
        description="OpenFlow field names; a masked number is 'value/mask', an address may have"
        " a mask or a prefix length",
        examples=[{"eth_type": 2048, "ip_proto": 17, "ipv4_dst": "239.1.2.3", "udp_dst": 5004}],
    ),
]
Kind = Annotated[
    str, Field(pattern=r"^[a-z_]{1,40}\.([a-z_]{1,40}|\*)$", examples=["vm.added", "link.*"])
]
Kinds = Annotated[list[Kind], Field(max_length=40, description="of events; none: all")]


class In(BaseModel):
    """What comes from outside has no member that nobody knows."""

    model_config = ConfigDict(extra="forbid")


T = TypeVar("T")


class Page(BaseModel, Generic[T]):
    """A part of a list: ``total`` entries are there, these are those from ``offset`` on."""

    total: int
    offset: int
    items: list[T]

    @classmethod
    def of(cls, entries: Sequence[T], offset: int, limit: int) -> "Page[T]":
        """Return the part of ``entries`` that was asked for."""
        return cls(total=len(entries), offset=offset, items=list(entries[offset : offset + limit]))


class DatapathOut(BaseModel):
    """A switch."""

    name: str = Field(examples=["relay"])
    dpid: str | None = Field(
        description="datapath id, 16 hexadecimal digits; null before it first connected",
        examples=["000082f26af6154a"],
    )
    connected: bool
    ports: int
    rules: int | None = Field(description="as far as known, null: it has not been read")


class CountersOut(BaseModel):
    """Counters of a port since it was made."""

    rx_packets: int
    tx_packets: int
    rx_bytes: int
    tx_bytes: int
    rx_dropped: int
    tx_dropped: int
    rx_errors: int
    tx_errors: int


class PortOut(BaseModel):
    """A port of a switch."""

    port: PortText
    name: str
    hw_addr: str
    up: bool
    link: PortText | None = Field(description="the port at the other end, where one is known")
    hosts: list[str] = Field(description="MAC addresses of the hosts behind it")


class PortCountersOut(BaseModel):
    port: PortText
    counters: CountersOut


class LinkOut(BaseModel):
    """One direction of a link between two switches."""

    src: PortText
    dst: PortText
    up: bool
    capacity_mbit: float | None
    load_mbit: float
    redundant: bool = Field(description="the administrator's reserve")
    last_resort: bool = Field(
        description="damped, or denied by BFD alone: tried where no other way is left"
    )


class LinkIn(In):
    """A link that the administrator knows of."""

    src: PortText
    dst: PortText
    capacity_mbit: Annotated[
        float | None, Field(strict=True, gt=0, le=1e7, allow_inf_nan=False)
    ] = None
    redundant: bool = False
    both: Annotated[bool, Field(description="the other direction too")] = True


class LinksIn(In):
    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [{"links": [{"src": "s1:2", "dst": "s2:1", "redundant": True}]}]
        },
    )

    links: Annotated[list[LinkIn], Field(max_length=500)]


class HostOut(BaseModel):
    """Something with a MAC address at an edge port."""

    mac: str
    at: PortText
    ipv4: str | None
    vm: bool


class FlowOut(BaseModel):
    """An entry of a flow table, with its counters."""

    table: int
    priority: int
    match: dict[str, Any] = Field(examples=[{"in_port": 1, "ipv4_dst": "10.0.0.0/8"}])
    actions: list[dict[str, Any]] = Field(
        examples=[[{"set_field": {"ipv4_dst": "10.0.0.9"}}, {"output": 3}]]
    )
    meter: int | None
    metadata: str | None = Field(description="value/mask that is written")
    goto_table: int | None
    cookie: str = Field(examples=["0xab00000000000001"])
    owner: Literal["intent", "reactive", "other"]
    packets: int
    bytes: int
    duration_s: float
    idle_timeout_s: int
    hard_timeout_s: int


class BucketOut(BaseModel):
    actions: list[dict[str, Any]]
    weight: int
    watch_port: int | None
    watch_group: int | None
    packets: int | None
    bytes: int | None


class GroupOut(BaseModel):
    """A group with its buckets; counters are null where the switch gave none."""

    group: int
    type: Literal["all", "select", "indirect", "fast_failover"]
    buckets: list[BucketOut]
    flows: int | None = Field(description="how many flows and groups use it")
    packets: int | None
    bytes: int | None
    duration_s: float | None


class BandOut(BaseModel):
    rate: int
    burst_size: int
    packets: int | None = Field(description="caught by this band")
    bytes: int | None


class MeterOut(BaseModel):
    meter: int
    unit: Literal["kbit/s", "packets/s"]
    bands: list[BandOut]
    flows: int | None
    packets: int | None
    bytes: int | None
    duration_s: float | None


class EgressIO(In):
    """Where copies leave the fabric, and what is rewritten in them."""

    at: PortText
    eth_dst: Annotated[str | None, Field(max_length=17)] = None
    ipv4_dst: Annotated[str | None, Field(max_length=15)] = None
    udp_dst: Annotated[int | None, Field(strict=True, ge=1, le=65535)] = None
    eth_src: Annotated[str | None, Field(max_length=17)] = None
    ipv4_src: Annotated[str | None, Field(max_length=15)] = None
    ipv6_dst: Annotated[str | None, Field(max_length=39)] = None


class ServiceIO(In):
    """A thing on the way: packets go out of ``to`` and come back by ``back``."""

    to: PortText
    back: PortText


class PathChange(In):
    """What is asked for."""

    match: MatchFields
    ingress: PortText
    egresses: Annotated[list[EgressIO], Field(max_length=1000)] = []
    through: Annotated[list[ServiceIO], Field(max_length=16)] = []
    policy: Policy = Policy.SHORTEST
    protected: Annotated[bool, Field(description="switches fail over by themselves")] = True
    rate_kbps: Annotated[int | None, Field(strict=True, ge=1, lt=1 << 32)] = None
    priority: Annotated[int, Field(strict=True, ge=1, le=1000)] = 100


class PathIn(PathChange):
    """A path that is asked for: a flow from one port to any number of others."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [
                {
                    "name": "lecture",
                    "match": {
                        "eth_type": 2048,
                        "ip_proto": 17,
                        "ipv4_dst": "239.1.2.3",
                        "udp_dst": 5004,
                    },
                    "ingress": "s1:1",
                    "egresses": [{"at": "s3:2", "ipv4_dst": "192.168.1.181"}],
                    "policy": "shortest",
                }
            ]
        },
    )

    name: Annotated[str, Field(max_length=40, description="a-z, 0-9 and '-', at most 40")]


class HopOut(BaseModel):
    """One link of a tree, and the bypass that a switch takes by itself when it fails."""

    src: PortText
    dst: PortText
    bypass: list[str] | None = Field(
        description="ports it leaves by, in order; null: none", examples=[["s1:4", "s5:2"]]
    )


class RefusalOut(BaseModel):
    """What a switch refuses, or did not answer; it is told again after 1 to 30 s.

    Or why a path past virtual machines cannot be now, at the switch by which it would enter.
    """

    switch: str
    reason: str = Field(
        examples=["s2 refused rule table=3 priority=1200 ...: table full (error type 5, code 1)"]
    )


class PathOut(BaseModel):
    """A flow and the way it takes now."""

    name: str
    match: dict[str, Any]
    ingress: PortText
    egresses: list[EgressIO]
    through: list[ServiceIO]
    policy: Policy
    protected: bool
    rate_kbps: int | None
    priority: int
    links: list[HopOut] = Field(description="each carries one copy; from the ingress on")
    unreachable: list[PortText] = Field(description="egresses without a way to them now")
    refused: list[RefusalOut] = Field(description="why it is not carried as it should be")
    own: bool = Field(description="asked for here, not by the site itself")


class PathMadeOut(BaseModel):
    """A path, and the switches that get their rules only when they connect."""

    path: PathOut
    pending: list[str]


class VmPathIn(In):
    """A path from a root to a leaf that passes every virtual machine on its way."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [
                {
                    "name": "stream",
                    "ingress": "root:101",
                    "exit": "leaf:99",
                    "external": "192.168.1.181",
                    "extend_match": {
                        "dataLayerType": "0x0800",
                        "networkDestination": "10.0.0.255",
                        "networkDestinationMaskLen": 32,
                    },
                    "roles": {"root": "root", "leaf": "leaf"},
                }
            ]
        },
    )

    name: Annotated[str, Field(max_length=40, description="a-z, 0-9 and '-', at most 40")]
    ingress: Annotated[PortText, Field(description="switch:number of the root's VM")]
    exit: Annotated[PortText, Field(description="switch:number towards the physical network")]
    external: Annotated[str, Field(max_length=15, description="IPv4 address that the leaf puts in")]
    external_mac: Annotated[
        str | None, Field(max_length=17, description="and its MAC address; null: it is left")
    ] = None
    match: Annotated[MatchFields | None, Field(description="either this")] = None
    extend_match: Annotated[
        dict[str, Any] | None,
        Field(max_length=40, description="or an object with the keys of `vpm-extend-match`"),
    ] = None
    roles: Annotated[
        dict[Annotated[str, Field(max_length=64)], Role],
        Field(max_length=1000, description="by switch; any other is a relay"),
    ] = {}


class NamedRuleOut(BaseModel):
    """A rule under the name that people know it by."""

    name: str = Field(examples=["RTP_PASSTHROUGH0000000000000001", "RTP_TOVNET4_0000000000000002"])
    switch: str
    in_port: int | None = Field(description="null: packets may come by any link")
    out_port: int


class VmPathOut(BaseModel):
    """A path past virtual machines and what it is made of now."""

    name: str
    ingress: PortText
    exit: PortText
    external: str
    external_mac: str | None
    match: dict[str, Any]
    roles: dict[str, Role]
    rules: list[NamedRuleOut] = Field(description="from root to leaf; none: it cannot be now")
    links: list[HopOut]
    unreachable: list[PortText] = Field(description="the exit, if there is no way to it now")
    refused: list[RefusalOut] = Field(description="why it is not carried as it should be")


class VmPathMadeOut(BaseModel):
    """A path, and the switches that get their rules only when they connect."""

    path: VmPathOut
    pending: list[str]


class TapOut(BaseModel):
    name: str
    match: dict[str, Any]
    switches: list[str]
    to: int | None
    divert: bool
    priority: int


class WholeRefusalOut(RefusalOut):
    hit: list[str] = Field(description="the flows and taps that it concerns; none: no path is cut")


class IntentsOut(BaseModel):
    """Everything that is wanted of the fabric."""

    flows: int
    taps: list[TapOut]
    unreachable: dict[str, list[str]] = Field(
        description="by flow: egresses without a way to them now"
    )
    refused: list[WholeRefusalOut] = Field(description="at most the first 1,000")


class CallbackIn(In):
    """Somebody who wants to be told by POST."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [
                {
                    "url": "http://localhost:8081/VPM/VPMEventListener",
                    "encoding": "form",
                    "kinds": ["vm.*"],
                }
            ]
        },
    )

    url: Annotated[str, Field(max_length=2000, description="http or https")]
    encoding: Encoding = Encoding.JSON
    kinds: Kinds = []
    secret: Annotated[
        str | None,
        Field(max_length=120, description="whsec_ and base64 of 24 to 64 bytes; null: drawn"),
    ] = None


class CallbackChange(In):
    encoding: Encoding
    kinds: Kinds


class CallbackOut(BaseModel):
    """A callback and how it goes. Its secret is shown once, when it is made."""

    id: str
    url: str
    encoding: Encoding
    kinds: list[str]
    created: float
    failing: bool
    delivered: int
    dropped: int
    waiting: int
    last_error: str | None


class CallbackMadeOut(CallbackOut):
    secret: str = Field(description="verifies webhook-signature; it is not shown again")
