"""OpenFlow messages of 1.3, 1.4 and 1.5 as frozen records (1.3.5, sections 7.3 and 7.4).

A record has the same shape in every version; the codec knows how each version writes it.
"""

from dataclasses import KW_ONLY, dataclass
from enum import IntEnum

from anabranch.fabric.openflow.actions import (
    GROUP_ANY,
    NO_BUFFER,
    PORT_ANY,
    PORT_CONTROLLER,
    Action,
    Instruction,
)
from anabranch.fabric.openflow.oxm import EVERYTHING, Match

# isort: off
from anabranch.fabric.openflow.records import (  # for whoever takes them from here
    UNCOUNTED as UNCOUNTED,
    Bucket as Bucket,
    Desc as Desc,
    AggregateStats as AggregateStats,
    Entry as Entry,
    FlowStats as FlowStats,
    GroupDesc as GroupDesc,
    GroupStats as GroupStats,
    GroupType as GroupType,
    MeterBand as MeterBand,
    MeterConfig as MeterConfig,
    MeterStats as MeterStats,
    Port as Port,
    PortStats as PortStats,
)
# isort: on

VERSION = 4  # wire version of OpenFlow 1.3
VERSIONS = frozenset({4, 5, 6})  # 1.3, 1.4, 1.5
TABLE_ALL = 0xFF
GROUP_ALL = 0xFFFFFFFC
METER_ALL = 0xFFFFFFFF
BUCKET_FIRST = 0xFFFFFFFD
BUCKET_LAST = 0xFFFFFFFE
BUCKET_ALL = 0xFFFFFFFF


class Command(IntEnum):
    """What a flow_mod does (``ofp_flow_mod_command``)."""

    ADD = 0
    MODIFY = 1
    MODIFY_STRICT = 2
    DELETE = 3
    DELETE_STRICT = 4


class MultipartType(IntEnum):
    """The multipart bodies that this codec reads (``ofp_multipart_type``)."""

    DESC = 0
    FLOW = 1
    AGGREGATE = 2
    PORT_STATS = 4
    GROUP_STATS = 6
    GROUP_DESC = 7
    METER_STATS = 9
    METER_CONFIG = 10
    PORT_DESC = 13


class GroupCommand(IntEnum):
    """What a group_mod does; the bucket commands need OpenFlow 1.5."""

    ADD = 0
    MODIFY = 1
    DELETE = 2
    INSERT_BUCKET = 3
    REMOVE_BUCKET = 5


class MeterCommand(IntEnum):
    """What a meter_mod does."""

    ADD = 0
    MODIFY = 1
    DELETE = 2


class ControllerRole(IntEnum):
    """``ofp_controller_role``; NOCHANGE only asks."""

    NOCHANGE = 0
    EQUAL = 1
    MASTER = 2
    SLAVE = 3


class BundleType(IntEnum):
    """What is asked of a bundle, and the answer (``ofp_bundle_ctrl_type``)."""

    OPEN_REQUEST = 0
    OPEN_REPLY = 1
    CLOSE_REQUEST = 2
    CLOSE_REPLY = 3
    COMMIT_REQUEST = 4
    COMMIT_REPLY = 5
    DISCARD_REQUEST = 6
    DISCARD_REPLY = 7


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
class GetConfigRequest(_Message):
    pass


@dataclass(frozen=True, slots=True)
class GetConfigReply(_Message):
    """As :class:`SetConfig`."""

    flags: int = 0
    miss_send_len: int = 0xFFFF


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
    buffer_id: int = NO_BUFFER


@dataclass(frozen=True, slots=True)
class GroupMod(_Message):
    """Change a group.

    ``command_bucket_id`` (1.5) is behind which bucket INSERT_BUCKET puts the new ones, or which one
    REMOVE_BUCKET removes: an id, BUCKET_FIRST, BUCKET_LAST or BUCKET_ALL.
    """

    command: GroupCommand
    group_id: int
    type: GroupType = GroupType.ALL
    buckets: tuple[Bucket, ...] = ()
    command_bucket_id: int = BUCKET_ALL


@dataclass(frozen=True, slots=True)
class MeterMod(_Message):
    """Change a meter; ``packets``: rates are packets/s, else kbit/s."""

    command: MeterCommand
    meter_id: int
    bands: tuple[MeterBand, ...] = ()
    packets: bool = False


@dataclass(frozen=True, slots=True)
class RoleRequest(_Message):
    """Ask for a role; a ``generation_id`` (64 bits) older than the switch knows is refused."""

    role: ControllerRole
    generation_id: int = 0


@dataclass(frozen=True, slots=True)
class RoleReply(_Message):
    role: ControllerRole
    generation_id: int = 0


@dataclass(frozen=True, slots=True)
class RoleStatus(_Message):
    """The switch changed our role, since 1.4; ``reason`` 0: another controller became MASTER."""

    role: ControllerRole
    reason: int
    generation_id: int


@dataclass(frozen=True, slots=True)
class BundleControl(_Message):
    """Open, close, commit or discard a bundle, and the answers to that.

    ``flags`` (1 atomic, 2 ordered) are the same in every message of a bundle.
    """

    bundle_id: int
    type: BundleType
    flags: int = 0


@dataclass(frozen=True, slots=True)
class BundleAdd(_Message):
    """Put ``message`` into a bundle; on the wire it has the xid of this message."""

    bundle_id: int
    flags: int
    message: "FlowMod | GroupMod | MeterMod | PacketOut | Unknown"


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
    FLOW and AGGREGATE; ``group_id`` narrows GROUP_STATS and, since 1.5, GROUP_DESC; ``meter_id``
    narrows METER_STATS and METER_CONFIG.
    """

    type: MultipartType
    port_no: int = PORT_ANY
    table_id: int = TABLE_ALL
    match: Match = EVERYTHING
    cookie: int = 0
    cookie_mask: int = 0
    out_port: int = PORT_ANY
    out_group: int = GROUP_ANY
    group_id: int = GROUP_ALL
    meter_id: int = METER_ALL


@dataclass(frozen=True, slots=True)
class MultipartReply(_Message):
    """A part of an answer; ``more``: further parts follow under the same xid.

    ``entries`` is one ``bytes`` if ``type`` is not a :class:`MultipartType`; an entry that no
    record can express is its ``bytes``.
    """

    type: int
    entries: tuple[Entry, ...]
    more: bool = False


@dataclass(frozen=True, slots=True)
class Unknown(_Message):
    """A message that this codec does not know or no record can express: its body, verbatim."""

    type: int
    body: bytes


Request = (
    Hello
    | Error
    | EchoRequest
    | EchoReply
    | FeaturesRequest
    | GetConfigRequest
    | SetConfig
    | PacketOut
    | FlowMod
    | GroupMod
    | MeterMod
    | RoleRequest
    | BundleControl
    | BundleAdd
    | BarrierRequest
    | MultipartRequest
    | Unknown
)
"""What a controller sends."""

Reply = (
    Hello
    | Error
    | EchoRequest
    | EchoReply
    | FeaturesReply
    | GetConfigReply
    | PacketIn
    | FlowRemoved
    | PortStatus
    | RoleReply
    | RoleStatus
    | BundleControl
    | MultipartReply
    | BarrierReply
    | Unknown
)
"""What a switch sends."""

Message = Request | Reply
