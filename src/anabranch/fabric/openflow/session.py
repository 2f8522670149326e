"""The controller's side of one switch's connection, without any I/O.

The adapter hands in bytes and the time (monotonic seconds) and sends what ``data_to_send`` gives.
Source: OpenFlow 1.3.5, sections 6.3 (connection set-up, keep-alive) and 7.3.5 (multipart).
"""

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from enum import Enum, auto

from anabranch.fabric.errors import MisuseError, ProtocolError
from anabranch.fabric.openflow.codec import PACKET_IN, Framer, decode, encode
from anabranch.fabric.openflow.messages import (
    VERSION,
    VERSIONS,
    BarrierReply,
    BarrierRequest,
    BundleControl,
    ControllerRole,
    EchoReply,
    EchoRequest,
    Entry,
    Error,
    FeaturesReply,
    FeaturesRequest,
    FlowRemoved,
    Hello,
    Message,
    MultipartReply,
    MultipartRequest,
    MultipartType,
    PacketIn,
    Port,
    PortStatus,
    Request,
    RoleReply,
    RoleRequest,
    RoleStatus,
    SetConfig,
)
from anabranch.fabric.openflow.refusals import Refusal, words

MAX_ANSWER = 32 * 1024 * 1024
_MAX_DESCRIBED = 4096
_MAX_ASKED = 256


@dataclass(frozen=True, slots=True)
class SwitchUp:
    """The handshake is complete; ``dpid`` is the 64-bit datapath id, ``version`` as on the wire."""

    dpid: int
    n_tables: int
    ports: tuple[Port, ...]
    version: int = VERSION


@dataclass(frozen=True, slots=True)
class Refused:
    """The switch answered the request ``xid`` with an error (section 7.4.4: type and code).

    ``request`` is how the request was described when sent, None if that is forgotten.
    """

    xid: int
    type: int
    code: int
    request: str | None

    @property
    def reason(self) -> str | None:
        """Why, in words; None if type and code do not say."""
        return words(self.type, self.code)


@dataclass(frozen=True, slots=True)
class Answer:
    """All parts of the answer to the multipart request ``xid``."""

    xid: int
    type: int
    entries: tuple[Entry, ...]


@dataclass(frozen=True, slots=True)
class Lost:
    """The switch went silent: close the connection."""

    reason: str


SessionEvent = (
    SwitchUp
    | Refused
    | Answer
    | Lost
    | PortStatus
    | PacketIn
    | FlowRemoved
    | BarrierReply
    | RoleReply
    | RoleStatus
    | BundleControl
)


class _State(Enum):
    HELLO = auto()
    FEATURES = auto()
    PORTS = auto()
    UP = auto()
    CLOSED = auto()


@dataclass(slots=True)
class _Asked:
    """A multipart request under way: the parts so far and their bytes."""

    type: MultipartType
    entries: list[Entry] = field(default_factory=list)
    length: int = 0


class Session:
    """One connection from its first byte to its last.

    Args:
        now: monotonic seconds.
        silence: seconds without a message after which an echo is asked for, again and again.
        lost_after: seconds without a message after which the switch counts as lost.
        handshake: seconds that HELLO, FEATURES and the list of ports may take together.
        versions: wire versions to offer (4 is OpenFlow 1.3); the highest common one is used.

    Attributes:
        hot: gets every whole PACKET_IN, as bytes, once the session is up, and returns messages to
            be sent at once, or None: then the packet is decoded and delivered. Must not raise.
    """

    def __init__(
        self,
        now: float,
        *,
        silence: float = 5.0,
        lost_after: float = 15.0,
        handshake: float = 10.0,
        versions: frozenset[int] = VERSIONS,
    ) -> None:
        if not versions or not versions <= VERSIONS:
            raise MisuseError(f"no versions of ours: {sorted(versions)}")
        self.hot: Callable[[bytes], bytes | None] | None = None
        self._versions = versions
        self._version = max(versions)
        self._silence = silence
        self._lost_after = lost_after
        self._deadline = now + handshake
        self._heard = now
        self._echoed = now
        self._state = _State.HELLO
        self._framer = Framer()
        self._out = bytearray()
        self._xid = 0
        self._features: FeaturesReply | None = None
        self._described: OrderedDict[int, str] = OrderedDict()
        self._asked: OrderedDict[int, _Asked] = OrderedDict()
        self.send(Hello(versions, self._version))

    @property
    def version(self) -> int:
        """Wire version of the connection; until the switch's HELLO the highest that we offer."""
        return self._version

    @property
    def up(self) -> bool:
        """The handshake is complete and the connection is not closed."""
        return self._state is _State.UP

    def send(self, message: Request, about: str | None = None) -> int:
        """Queue ``message`` under a new xid and return that; ``about`` describes it in errors.

        Raises:
            MisuseError: the message cannot be encoded or the session is closed.
        """
        if self._state is _State.CLOSED:
            raise MisuseError("the session with this switch is closed")
        self._xid = self._xid % 0xFFFFFFFF + 1
        self._out += encode(replace(message, xid=self._xid), self._version)
        if about is not None:
            self._described[self._xid] = about
            if len(self._described) > _MAX_DESCRIBED:
                self._described.popitem(last=False)
        return self._xid

    def barrier(self) -> int:
        """Ask for a BarrierReply once everything sent before is done; return its xid."""
        return self.send(BarrierRequest(), "barrier")

    def ask(self, request: MultipartRequest) -> int:
        """Ask for statistics; an :class:`Answer` with the returned xid follows."""
        xid = self.send(request, request.type.name.lower().replace("_", " ") + " request")
        self._asked[xid] = _Asked(request.type)
        if len(self._asked) > _MAX_ASKED:
            self._asked.popitem(last=False)
        return xid

    def ask_role(self, role: ControllerRole, generation_id: int) -> int:
        """Ask for a role; a RoleReply with the returned xid follows, or a refusal."""
        return self.send(RoleRequest(role, generation_id), f"role {role.name.lower()}")

    def data_to_send(self) -> bytes:
        """Return, once, the bytes to be sent now."""
        data = bytes(self._out)
        self._out.clear()
        return data

    def receive(self, data: bytes, now: float) -> list[SessionEvent]:
        """Take bytes from the switch and return what they mean.

        Raises:
            ProtocolError: the switch broke the protocol or speaks no version of ours. Send what
                ``data_to_send`` still has, then close; later bytes are ignored.
        """
        if self._state is _State.CLOSED:
            return []
        events: list[SessionEvent] = []
        try:
            for raw in self._framer.feed(data):
                self._heard = now
                if raw[0] != self._version and self._state is not _State.HELLO:
                    self._check_version(raw)
                elif raw[1] == PACKET_IN and self.hot is not None and self._state is _State.UP:
                    reply = self.hot(raw)
                    if reply is not None:
                        self._out += reply
                        continue
                events += self._handle(decode(raw), len(raw))
        except ProtocolError:
            self._state = _State.CLOSED
            raise
        return events

    def _check_version(self, raw: bytes) -> None:
        if raw[1] > 1:  # HELLO and ERROR may be of any version
            raise ProtocolError(
                f"OpenFlow version {raw[0]} in the middle of a connection of {self._version}"
            )

    def next_timer(self) -> float | None:
        """Return when ``handle_timer`` is due, in monotonic seconds; None for never."""
        if self._state is _State.CLOSED:
            return None
        lost = self._heard + self._lost_after
        if self._state is not _State.UP:
            return min(self._deadline, lost)
        return min(max(self._heard, self._echoed) + self._silence, lost)

    def handle_timer(self, now: float) -> list[SessionEvent]:
        """Do what is due at ``now``: ask for an echo or give the switch up."""
        due = self.next_timer()
        if due is None or now < due:
            return []
        quiet = now - self._heard
        if quiet >= self._lost_after or self._state is not _State.UP:
            during = "" if self._state is _State.UP else " during the handshake"
            self._state = _State.CLOSED
            return [Lost(f"nothing heard for {quiet:.1f} s{during}")]
        self._echoed = now
        self.send(EchoRequest(), "echo")
        return []

    def _handle(self, message: Message, length: int) -> list[SessionEvent]:
        if self._state is _State.HELLO:
            self._greet(message)
            return []
        match message:
            case EchoRequest(data=data, xid=xid):
                self._out += encode(EchoReply(data, xid=xid), self._version)
            case FeaturesReply() if self._state is _State.FEATURES:
                self._features = message
                self._state = _State.PORTS
                self.ask(MultipartRequest(MultipartType.PORT_DESC))
            case MultipartReply():
                return self._collect(message, length)
            case Error():
                return self._refused(message)
            case Hello() | FeaturesReply():
                raise ProtocolError(f"{type(message).__name__} in the middle of a connection")
            case (
                BarrierReply()
                | PacketIn()
                | FlowRemoved()
                | PortStatus()
                | RoleReply()
                | RoleStatus()
                | BundleControl()
            ):
                return [message] if self._state is _State.UP else []
            case _:
                pass  # heard from it, which is what counts; unknown news needs no answer
        return []

    def _greet(self, message: Message) -> None:
        if isinstance(message, Error):
            raise ProtocolError(f"the switch refused our versions: {message.data[:100]!r}")
        if not isinstance(message, Hello):
            raise ProtocolError(f"{type(message).__name__} before HELLO")
        version = self._common(message)
        if version is None:
            text = f"OpenFlow {_spoken(self._versions)} is needed; offered: {_offer(message)}"
            self.send(Error(*Refusal.INCOMPATIBLE.value, text.encode()))
            raise ProtocolError(text)
        self._version = version
        self.send(SetConfig(), "set config")
        self.send(FeaturesRequest(), "features request")
        self._state = _State.FEATURES

    def _common(self, hello: Hello) -> int | None:
        """Return the highest version that both sides speak (section 6.3.1)."""
        if hello.versions is not None:
            return max(hello.versions & self._versions, default=None)
        version = min(hello.version, max(self._versions))
        return version if version in self._versions else None

    def _collect(self, part: MultipartReply, length: int) -> list[SessionEvent]:
        asked = self._asked.get(part.xid)
        if asked is None:  # an answer nobody waits for any more
            return []
        if part.type != asked.type:
            raise ProtocolError(f"asked for {asked.type.name}, answered with type {part.type}")
        asked.length += length
        if asked.length > MAX_ANSWER:
            raise ProtocolError(f"an answer of more than {MAX_ANSWER} bytes")
        asked.entries += part.entries
        if part.more:
            return []
        del self._asked[part.xid]
        if self._state is _State.PORTS:
            assert self._features is not None
            self._state = _State.UP
            ports = tuple(port for port in asked.entries if isinstance(port, Port))
            features = self._features
            return [SwitchUp(features.dpid, features.n_tables, ports, self._version)]
        return [Answer(part.xid, part.type, tuple(asked.entries))]

    def _refused(self, error: Error) -> list[SessionEvent]:
        self._asked.pop(error.xid, None)
        request = self._described.pop(error.xid, None)
        if self._state is not _State.UP:
            reason = words(error.type, error.code) or f"error type {error.type}"
            raise ProtocolError(f"the switch refused the handshake: {request} ({reason})")
        return [Refused(error.xid, error.type, error.code, request)]


def _spoken(versions: frozenset[int]) -> str:
    *others, last = (f"1.{version - 1}" for version in sorted(versions))
    return f"{', '.join(others)} or {last}" if others else last


def _offer(hello: Hello) -> str:
    if hello.versions is None:
        return f"up to wire version {hello.version}"
    return f"wire versions {sorted(hello.versions)}"
