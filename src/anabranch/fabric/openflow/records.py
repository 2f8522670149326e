"""What a switch says about itself: its ports, flows, groups and meters (OpenFlow 1.3.5, 7.3.5).

A record has the same shape in every version; the codec knows how each version writes it.
"""

from dataclasses import dataclass
from enum import IntEnum

from anabranch.fabric.openflow.actions import GROUP_ANY, PORT_ANY, Action, Instruction
from anabranch.fabric.openflow.oxm import Match

UNCOUNTED = 0xFFFFFFFFFFFFFFFF  # a counter that the switch does not keep


@dataclass(frozen=True, slots=True)
class Desc:
    """What the switch says about itself, for people."""

    manufacturer: str
    hardware: str
    software: str
    serial: str
    datapath: str


@dataclass(frozen=True, slots=True)
class Port:
    """One port (``ofp_port``); speeds in kbit/s."""

    port_no: int
    hw_addr: str
    name: str
    config: int = 0
    state: int = 0
    curr: int = 0
    advertised: int = 0
    supported: int = 0
    peer: int = 0
    curr_speed: int = 0
    max_speed: int = 0

    @property
    def up(self) -> bool:
        """The administrator has not switched it off and the link is there."""
        return not (self.config & 1 or self.state & 1)


@dataclass(frozen=True, slots=True)
class PortStats:
    """Counters of one port since it was made; all ones: the switch does not count it."""

    port_no: int
    rx_packets: int
    tx_packets: int
    rx_bytes: int
    tx_bytes: int
    rx_dropped: int
    tx_dropped: int
    rx_errors: int
    tx_errors: int
    rx_frame_err: int
    rx_over_err: int
    rx_crc_err: int
    collisions: int
    duration: float


@dataclass(frozen=True, slots=True)
class FlowStats:
    """One installed flow; ``duration`` in seconds."""

    table_id: int
    duration: float
    priority: int
    idle_timeout: int
    hard_timeout: int
    flags: int
    cookie: int
    packet_count: int
    byte_count: int
    match: Match
    instructions: tuple[Instruction, ...]


class GroupType(IntEnum):
    """How a group chooses among its buckets (``ofp_group_type``)."""

    ALL = 0
    SELECT = 1
    INDIRECT = 2
    FAST_FAILOVER = 3


@dataclass(frozen=True, slots=True)
class AggregateStats:
    """Flows counted together; ``packet_count`` and ``byte_count`` are theirs."""

    packet_count: int
    byte_count: int
    flow_count: int


@dataclass(frozen=True, slots=True)
class Bucket:
    """One choice of a group.

    Attributes:
        watch_port, watch_group: what must be live; FAST_FAILOVER only, PORT_ANY and GROUP_ANY else.
        weight: share of a SELECT group, 0 in all others.
        bucket_id: OpenFlow 1.5 name of the bucket in its group; None before 1.5. Where 1.5 needs
            one, None is the bucket's place in its list.
    """

    actions: tuple[Action, ...]
    watch_port: int = PORT_ANY
    watch_group: int = GROUP_ANY
    weight: int = 0
    bucket_id: int | None = None


@dataclass(frozen=True, slots=True)
class GroupDesc:
    """One installed group."""

    group_id: int
    type: GroupType
    buckets: tuple[Bucket, ...]


@dataclass(frozen=True, slots=True)
class GroupStats:
    """Counters of one group; ``buckets`` are packets and bytes of each bucket, in order."""

    group_id: int
    ref_count: int
    packet_count: int
    byte_count: int
    duration: float
    buckets: tuple[tuple[int, int], ...]


@dataclass(frozen=True, slots=True)
class MeterBand:
    """Drop what exceeds ``rate`` (kbit/s, or packets/s) beyond ``burst_size`` of the same unit.

    ``other`` is a band of another kind as a switch reported it, whole and verbatim.
    """

    rate: int
    burst_size: int = 0
    other: bytes = b""


@dataclass(frozen=True, slots=True)
class MeterConfig:
    """One installed meter; ``packets``: rates are packets/s, else kbit/s."""

    meter_id: int
    bands: tuple[MeterBand, ...]
    packets: bool = False


@dataclass(frozen=True, slots=True)
class MeterStats:
    """Counters of one meter; ``bands`` are the packets and bytes that each band caught."""

    meter_id: int
    flow_count: int
    packet_count: int
    byte_count: int
    duration: float
    bands: tuple[tuple[int, int], ...]


Entry = (
    Desc
    | FlowStats
    | AggregateStats
    | Port
    | PortStats
    | GroupStats
    | GroupDesc
    | MeterStats
    | MeterConfig
    | bytes
)
