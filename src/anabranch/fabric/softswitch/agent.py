"""The switch's side of OpenFlow connections, without I/O: bytes in, bytes out.

One agent serves all controllers of a switch, each over a channel of its own. Source: OpenFlow
1.3.5, section 6.3 (channels, roles); 1.4.1, section 7.4.4 (role status).
"""

from anabranch.fabric.errors import MisuseError, ProtocolError
from anabranch.fabric.openflow.codec import Framer, decode, encode
from anabranch.fabric.openflow.messages import (
    VERSIONS,
    BarrierReply,
    BarrierRequest,
    ControllerRole,
    EchoReply,
    EchoRequest,
    Error,
    FeaturesReply,
    FeaturesRequest,
    FlowMod,
    GetConfigReply,
    GetConfigRequest,
    GroupMod,
    Hello,
    Message,
    MeterMod,
    MultipartRequest,
    PacketOut,
    PortStatus,
    Reply,
    RoleReply,
    RoleRequest,
    RoleStatus,
    SetConfig,
    Unknown,
)
from anabranch.fabric.openflow.multipart import split_reply
from anabranch.fabric.openflow.refusals import Refusal
from anabranch.fabric.softswitch.refusals import RefusedError
from anabranch.fabric.softswitch.statistics import answer
from anabranch.fabric.softswitch.switch import Emission, SoftSwitch

_CAPABILITIES = 0x0D  # flow, port and group statistics
_V14 = 5
_MULTIPART_TYPE = 18
_UNKNOWN = {
    14: Refusal.BAD_COMMAND,
    18: Refusal.BAD_MULTIPART,
    24: Refusal.BAD_ROLE,
}


class SwitchAgent:
    """All connections of one switch to its controllers.

    ``versions`` are the wire versions it speaks.
    """

    def __init__(self, switch: SoftSwitch, versions: frozenset[int] = VERSIONS) -> None:
        self.switch = switch
        self.versions = versions
        self.channels: list[Channel] = []
        self.generation: int | None = None

    def connect(self) -> "Channel":
        """Return the channel of a new connection; its first bytes are ready to be sent."""
        channel = Channel(self)
        self.channels.append(channel)
        return channel

    def process(self, in_port: int, frame: bytes, now: float) -> list[Emission]:
        """Take a frame, see :meth:`SoftSwitch.process`; the controllers hear of it."""
        sent = self.switch.process(in_port, frame, now)
        self.tell()
        return sent

    def handle_timer(self, now: float) -> None:
        """End what has timed out; the controllers hear of it."""
        self.switch.handle_timer(now)
        self.tell()

    def tell(self) -> None:
        """Queue the switch's news for the controllers: a slave hears only of ports."""
        for message in self.switch.news():
            for channel in self.channels:
                if isinstance(message, PortStatus) or channel.role is not ControllerRole.SLAVE:
                    channel.tell(message)

    def take_role(self, channel: "Channel", request: RoleRequest) -> None:
        """Give ``channel`` the role it asks for, and the last master that of a slave.

        Raises:
            RefusedError: the generation is older than one that was seen.
        """
        if request.role in (ControllerRole.MASTER, ControllerRole.SLAVE):
            if self.generation is not None:
                ahead = (request.generation_id - self.generation) & 0xFFFFFFFFFFFFFFFF
                if ahead >> 63:  # a difference of 64 bits that wraps around
                    raise RefusedError(Refusal.STALE_ROLE)
            self.generation = request.generation_id
        if request.role is ControllerRole.MASTER:
            for other in self.channels:
                if other is not channel and other.role is ControllerRole.MASTER:
                    other.role = ControllerRole.SLAVE
                    if other.version >= _V14:
                        other.tell(RoleStatus(other.role, 0, request.generation_id))
        if request.role is not ControllerRole.NOCHANGE:
            channel.role = request.role


class Channel:
    """One connection, made by :meth:`SwitchAgent.connect`.

    Attributes:
        version: the agreed wire version; the highest spoken, until the controller's HELLO.
        role: of the controller at the other end.
        up: the controller has asked for the features: it knows the switch.
    """

    def __init__(self, agent: SwitchAgent) -> None:
        self._agent = agent
        self._framer = Framer()
        self._out = bytearray()
        self._greeted = False
        self._config = SetConfig(0, 128)
        self.version = max(agent.versions)
        self.role = ControllerRole.EQUAL
        self.up = False
        self._say(Hello(agent.versions, self.version))

    def data_to_send(self) -> bytes:
        """Return, once, the bytes to be sent now."""
        data = bytes(self._out)
        self._out.clear()
        return data

    def close(self) -> None:
        """Forget the connection. Safe to call twice."""
        if self in self._agent.channels:
            self._agent.channels.remove(self)

    def tell(self, message: Reply) -> None:
        """Queue a message that nobody asked for; dropped before the handshake."""
        if self.up:
            self._say(message)

    def receive(self, data: bytes, now: float) -> list[Emission]:
        """Take bytes from the controller; return what leaves the switch on its behalf.

        Raises:
            ProtocolError: the controller broke the protocol, or there is no common version. Send
                what ``data_to_send`` still has, then close.
        """
        sent: list[Emission] = []
        for raw in self._framer.feed(data):
            message = decode(raw)
            if not self._greeted:
                self._greet(message)
                continue
            try:
                sent += self._handle(message, now)
            except RefusedError as error:
                self._refuse(error.refusal, message.xid, raw)
            self._agent.tell()
        return sent

    def _greet(self, message: Message) -> None:
        if not isinstance(message, Hello):
            raise ProtocolError(f"{type(message).__name__} before HELLO")
        common = {version for version in self._agent.versions if message.speaks(version)}
        if not common:
            kind = Refusal.INCOMPATIBLE
            self.version = min(message.version, self.version)
            self._say(Error(kind.type, kind.code, b"no common version", xid=message.xid))
            raise ProtocolError("the controller speaks none of our versions")
        self.version = max(common)
        self._greeted = True

    def _handle(self, message: Message, now: float) -> list[Emission]:
        switch = self._agent.switch
        changes = isinstance(message, PacketOut | FlowMod | GroupMod | MeterMod)
        if changes and self.role is ControllerRole.SLAVE:
            raise RefusedError(Refusal.IS_SLAVE)
        match message:
            case PacketOut():
                return switch.packet_out(message, now)
            case FlowMod():
                switch.flow_mod(message, now)
            case GroupMod():
                switch.group_mod(message, now)
            case MeterMod():
                switch.meter_mod(message, now)
            case MultipartRequest():
                self._answer(message, now)
            case RoleRequest():
                self._agent.take_role(self, message)
                generation = self._agent.generation
                unknown = 0xFFFFFFFFFFFFFFFF
                known = unknown if generation is None else generation
                self._say(RoleReply(self.role, known, xid=message.xid))
            case BarrierRequest():  # everything before is done already
                self._say(BarrierReply(xid=message.xid))
            case EchoRequest(data=data):
                self._say(EchoReply(data, xid=message.xid))
            case FeaturesRequest():
                self._say(self._features(message.xid))
                self.up = True
            case SetConfig():
                self._config = message
            case GetConfigRequest():
                config = self._config
                self._say(GetConfigReply(config.flags, config.miss_send_len, xid=message.xid))
            case EchoReply() | Error():
                pass
            case Unknown():
                raise RefusedError(_UNKNOWN.get(message.type, Refusal.BAD_TYPE))
            case _:
                raise RefusedError(Refusal.BAD_TYPE)
        return []

    def _features(self, xid: int) -> FeaturesReply:
        switch = self._agent.switch
        return FeaturesReply(switch.dpid, 0, switch.n_tables, 0, _CAPABILITIES, xid=xid)

    def _answer(self, request: MultipartRequest, now: float) -> None:
        entries = answer(self._agent.switch, request, now)
        try:
            parts = split_reply(request.type, entries, self.version, request.xid)
        except MisuseError:  # a group whose description fits into no message
            raise RefusedError(Refusal.BAD_LENGTH) from None
        for part in parts:
            self._say(part)

    def _refuse(self, refusal: Refusal, xid: int, raw: bytes) -> None:
        self._say(Error(refusal.type, refusal.code, raw[:64], xid=xid))

    def _say(self, message: Reply) -> None:
        self._out += encode(message, self.version)
