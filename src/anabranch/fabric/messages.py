"""OpenFlow 1.3 messages as frozen records (OpenFlow 1.3.5, sections 7.3 and 7.4)."""

from dataclasses import KW_ONLY, dataclass
from enum import IntEnum

from anabranch.fabric.actions import (
    GROUP_ANY,
    NO_BUFFER,
    PORT_ANY,
    PORT_CONTROLLER,
    Action,
    Instruction,
)
from anabranch.fabric.oxm import EVERYTHING, Match

VERSION = 4
TABLE_ALL = 0xFF


class Command(IntEnum):
    """What a flow_mod does (``ofp_flow_mod_command``)."""

    ADD = 0
    MODIFY = 1
    DELETE = 3
    DELETE_STRICT = 4


class MultipartType(IntEnum):
    """The multipart bodies that this codec reads (``ofp_multipart_type``)."""

    DESC = 0
    FLOW = 1
    PORT_STATS = 4
    PORT_DESC = 13


@dataclass(frozen=True, slots=True)
class _Message:
    _: KW_ONLY
    xid: int = 0


@dataclass(frozen=True, slots=True)
class Hello(_Message):
    """First message of both sides.

    ``versions`` are the wire versions of the bitmap element (4 is OpenFlow 1.3), or None if the
    peer sent no bitmap; ``version`` is the one of the header, its highest.
    """

    versions: frozenset[int] | None = frozenset({VERSION})
    version: int = VERSION

    def speaks(self, version: int) -> bool:
        """Say whether both sides could agree on ``version`` (section 6.3.1)."""
        return self.version >= version if self.versions is None else version in self.versions


@dataclass(frozen=True, slots=True)
class Error(_Message):
    """A request was refused; ``data`` is at least its first 64 bytes, or a text for a person."""

    type: int
    code: int
    data: bytes = b""


@dataclass(frozen=True, slots=True)
class EchoRequest(_Message):
    data: bytes = b""


@dataclass(frozen=True, slots=True)
class EchoReply(_Message):
    data: bytes = b""


@dataclass(frozen=True, slots=True)
class FeaturesRequest(_Message):
    pass


@dataclass(frozen=True, slots=True)
class FeaturesReply(_Message):
    """Who the switch is; ``dpid`` is its 64-bit datapath id."""

    dpid: int
    n_buffers: int
    n_tables: int
    auxiliary_id: int
    capabilities: int


@dataclass(frozen=True, slots=True)
class SetConfig(_Message):
    """``miss_send_len`` 0xffff: packets to the controller are sent whole, never buffered."""

    flags: int = 0
    miss_send_len: int = 0xFFFF


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


class PortReason(IntEnum):
    ADD = 0
    DELETE = 1
    MODIFY = 2


@dataclass(frozen=True, slots=True)
class PortStatus(_Message):
    reason: PortReason
    port: Port


@dataclass(frozen=True, slots=True)
class PacketIn(_Message):
    """A packet for the controller: ``data`` is at most ``total_len`` bytes from its start."""

    buffer_id: int
    total_len: int
    reason: int
    table_id: int
    cookie: int
    match: Match
    data: bytes


@dataclass(frozen=True, slots=True)
class PacketOut(_Message):
    """Send ``data`` as if it had come in by ``in_port``."""

    data: bytes
    actions: tuple[Action, ...]
    in_port: int = PORT_CONTROLLER
    buffer_id: int = NO_BUFFER


@dataclass(frozen=True, slots=True)
class FlowMod(_Message):
    """Change a table; time-outs in seconds, 0 for never.

    ``cookie_mask`` narrows MODIFY and DELETE to flows whose cookie equals ``cookie`` in its bits.
    """

    command: Command
    match: Match = EVERYTHING
    instructions: tuple[Instruction, ...] = ()
    priority: int = 0
    table_id: int = 0
    cookie: int = 0
    cookie_mask: int = 0
    idle_timeout: int = 0
    hard_timeout: int = 0
    out_port: int = PORT_ANY
    out_group: int = GROUP_ANY
    flags: int = 0


@dataclass(frozen=True, slots=True)
class FlowRemoved(_Message):
    """A flow ended (``reason`` 0 idle, 1 hard time-out, 2 deleted, 3 group deleted)."""

    cookie: int
    priority: int
    reason: int
    table_id: int
    duration: float
    idle_timeout: int
    hard_timeout: int
    packet_count: int
    byte_count: int
    match: Match


@dataclass(frozen=True, slots=True)
class BarrierRequest(_Message):
    pass


@dataclass(frozen=True, slots=True)
class BarrierReply(_Message):
    pass


@dataclass(frozen=True, slots=True)
class MultipartRequest(_Message):
    """Ask for statistics.

    ``port_no`` narrows PORT_STATS; ``table_id``, ``match``, ``cookie`` and ``cookie_mask`` narrow
    FLOW.
    """

    type: MultipartType
    port_no: int = PORT_ANY
    table_id: int = TABLE_ALL
    match: Match = EVERYTHING
    cookie: int = 0
    cookie_mask: int = 0


@dataclass(frozen=True, slots=True)
class Desc:
    """What the switch says about itself, for people."""

    manufacturer: str
    hardware: str
    software: str
    serial: str
    datapath: str


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


Entry = Desc | FlowStats | Port | PortStats | bytes


@dataclass(frozen=True, slots=True)
class MultipartReply(_Message):
    """A part of an answer; ``more``: further parts follow under the same xid.

    ``entries`` is one ``bytes`` if ``type`` is not a :class:`MultipartType`.
    """

    type: int
    entries: tuple[Entry, ...]
    more: bool = False


@dataclass(frozen=True, slots=True)
class Unknown(_Message):
    """A message that a controller does not expect or this codec does not know."""

    type: int
    body: bytes


Request = (
    Hello
    | Error
    | EchoRequest
    | EchoReply
    | FeaturesRequest
    | SetConfig
    | PacketOut
    | FlowMod
    | BarrierRequest
    | MultipartRequest
)
Message = (
    Hello
    | Error
    | EchoRequest
    | EchoReply
    | FeaturesReply
    | PacketIn
    | FlowRemoved
    | PortStatus
    | MultipartReply
    | BarrierReply
    | Unknown
)
