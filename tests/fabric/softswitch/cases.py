"""The conformance suite: tables, packets, and what must come out, for any OpenFlow 1.3 switch.

The soft switch runs it in tests/fabric/softswitch, Open vSwitch in tests/lab. Expected frames are
built anew, never by rewriting.
"""

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from anabranch.fabric import frames
from anabranch.fabric.openflow.actions import (
    PORT_CONTROLLER,
    PORT_IN_PORT,
    Action,
    GotoTable,
    Group,
    Output,
    PopVlan,
    PushVlan,
    SetField,
)
from anabranch.fabric.openflow.codec import Framer, decode, encode
from anabranch.fabric.openflow.messages import (
    GROUP_ALL,
    METER_ALL,
    TABLE_ALL,
    BarrierReply,
    BarrierRequest,
    Bucket,
    Command,
    EchoReply,
    EchoRequest,
    Entry,
    Error,
    FeaturesRequest,
    FlowMod,
    FlowRemoved,
    FlowStats,
    GroupCommand,
    GroupMod,
    GroupStats,
    GroupType,
    Hello,
    Message,
    MeterBand,
    MeterCommand,
    MeterMod,
    MultipartReply,
    MultipartRequest,
    MultipartType,
    PacketIn,
    PacketOut,
    Request,
    SetConfig,
)
from anabranch.fabric.openflow.oxm import Match
from anabranch.fabric.tables import Rule

PORTS = (1, 2, 3, 4)
ALL_PORTS, FLOOD = 0xFFFFFFFC, 0xFFFFFFFB
A, B, C = "02:00:00:00:00:0a", "02:00:00:00:00:0b", "02:00:00:00:00:0c"
IP_A, IP_B, IP_C = "10.0.0.1", "10.0.0.2", "10.1.0.3"
UDP_MATCH: dict[str, Any] = {"eth_type": 0x0800, "ip_proto": 17}
TCP_MATCH: dict[str, Any] = {"eth_type": 0x0800, "ip_proto": 6}
TAGGED = (0x1000, 0x1000)

Copy = tuple[int, bytes]
Mod = FlowMod | GroupMod | MeterMod


def udp(
    dst: str = B,
    src: str = A,
    ip_src: str = IP_A,
    ip_dst: str = IP_B,
    sport: int = 1000,
    dport: int = 5004,
    dscp: int = 0,
    data: bytes = b"media",
) -> bytes:
    segment = frames.udp(ip_src, ip_dst, sport, dport, data)
    return frames.ethernet(dst, src, 0x0800, frames.ipv4(ip_src, ip_dst, 17, segment, dscp=dscp))


def tcp(ip_src: str = IP_A, ip_dst: str = IP_B, sport: int = 1000, dport: int = 80) -> bytes:
    segment = frames.tcp(ip_src, ip_dst, sport, dport, b"hello")
    return frames.ethernet(B, A, 0x0800, frames.ipv4(ip_src, ip_dst, 6, segment))


def tagged(frame: bytes, vid: int, pcp: int = 0, kind: int = 0x8100) -> bytes:
    tag = kind.to_bytes(2, "big") + (pcp << 13 | vid).to_bytes(2, "big")
    return frame[:12] + tag + frame[12:]


def without_checksum(frame: bytes) -> bytes:
    return frame[:40] + b"\0\0" + frame[42:]


def fragment(frame: bytes, flags: int) -> bytes:
    """Return an IPv4 frame with other fragment bits and the right header checksum."""
    head = frame[14:20] + flags.to_bytes(2, "big") + frame[22:24] + b"\0\0" + frame[26:34]
    summed = frames.checksum(head).to_bytes(2, "big")
    return frame[:14] + head[:10] + summed + head[12:] + frame[34:]


@dataclass(frozen=True)
class Send:
    """A frame goes in, and exactly these come out, in any order."""

    in_port: int
    frame: bytes
    out: tuple[Copy, ...] = ()


@dataclass(frozen=True)
class Metered:
    """Of ``count`` frames at once between ``least`` and ``most`` leave by port 2, no others."""

    frame: bytes
    count: int
    least: int
    most: int


@dataclass(frozen=True)
class SetPort:
    port_no: int
    up: bool


@dataclass(frozen=True)
class Ask:
    """Requests, and the (type, code) of the errors that answer them, in order."""

    messages: tuple[Mod | PacketOut, ...]
    errors: tuple[tuple[int, int], ...] = ()


@dataclass(frozen=True)
class Wait:
    seconds: float


@dataclass(frozen=True)
class Flows:
    """The packets that the flow of each cookie has counted; these flows and no others."""

    packets: dict[int, int]


@dataclass(frozen=True)
class Buckets:
    """The packets that a group and its buckets have counted."""

    group_id: int
    packets: int
    buckets: tuple[int, ...]


@dataclass(frozen=True)
class PacketsIn:
    """What the controller gets: table, reason, cookie, in_port and data."""

    packets: tuple[tuple[int, int, int, int, bytes], ...]


@dataclass(frozen=True)
class Removed:
    """Which flows' ends are reported: cookie, reason, packets; in any order."""

    flows: tuple[tuple[int, int, int], ...]


Step = Send | Metered | SetPort | Ask | Wait | Flows | Buckets | PacketsIn | Removed


@dataclass(frozen=True)
class Case:
    """``rules`` (and what they need) are installed in an empty switch, then come the steps."""

    name: str
    rules: tuple[Rule, ...]
    steps: tuple[Step, ...]
    groups: tuple[GroupMod, ...] = ()
    meters: tuple[MeterMod, ...] = ()

    def __str__(self) -> str:
        return self.name


@dataclass
class Device(ABC):
    """A switch under test, with ports 1 to 4 and a controller's connection."""

    news: list[PacketIn | FlowRemoved] = field(default_factory=list)
    _framer: Framer = field(default_factory=Framer)
    _xid: int = 0

    @abstractmethod
    def exchange(self, data: bytes) -> bytes:
        """Send bytes of a controller, return what came; waits a moment if nothing did."""

    @abstractmethod
    def transfer(self, in_port: int, frame: bytes) -> list[Copy]:
        """Let a frame in; return all that comes out, of it or of a packet_out before."""

    @abstractmethod
    def set_port(self, port_no: int, up: bool) -> None:
        """Return when the switch has noticed."""

    @abstractmethod
    def wait(self, seconds: float) -> None:
        """Let time pass."""

    @abstractmethod
    def settle(self) -> None:
        """Let the datapath and its counters follow the tables."""

    def reset_rules(self) -> tuple[FlowMod, ...]:
        return ()

    def handshake(self) -> None:
        replies = self._talk([Hello(frozenset({4})), SetConfig(0, 0xFFFF), FeaturesRequest()])
        assert any(isinstance(reply, Hello) for reply in replies)

    def request(self, messages: Sequence[Request]) -> list[Message]:
        """Send requests and a barrier; return the answers, but no asynchronous messages."""
        return self._talk(messages)

    def _talk(self, messages: Sequence[Request]) -> list[Message]:
        out = b""
        requests: list[Request] = [*messages, BarrierRequest()]
        for message in requests:
            self._xid += 1
            out += encode(replace(message, xid=self._xid))
        answers: list[Message] = []
        while True:
            for answer in self._take(self.exchange(out)):
                if isinstance(answer, BarrierReply) and answer.xid == self._xid:
                    return answers
                answers.append(answer)
            out = b""

    def _take(self, data: bytes) -> list[Message]:
        answers: list[Message] = []
        for message in map(decode, self._framer.feed(data)):
            match message:
                case PacketIn() | FlowRemoved():
                    self.news.append(message)
                case EchoRequest(data=data):
                    self.exchange(encode(EchoReply(data, xid=message.xid)))
                case _:
                    answers.append(message)
        return answers

    def hear(self, count: int) -> list[PacketIn | FlowRemoved]:
        """Return what was reported since the last call, at least ``count`` if they come."""
        for _ in range(50):
            if len(self.news) >= count:
                break
            self._take(self.exchange(b""))
        news = list(self.news)
        self.news.clear()
        return news

    def ask(self, request: MultipartRequest) -> list[Entry]:
        parts = [part for part in self.request([request]) if isinstance(part, MultipartReply)]
        return [entry for part in parts for entry in part.entries]

    def load(self, case: Case) -> None:
        for port_no in PORTS:
            self.set_port(port_no, True)
        clear: list[Request] = [
            FlowMod(Command.DELETE, table_id=TABLE_ALL),
            GroupMod(GroupCommand.DELETE, GROUP_ALL),
            MeterMod(MeterCommand.DELETE, METER_ALL),
        ]
        clear += self.reset_rules()
        clear += [*case.meters, *case.groups, *(rule.add() for rule in case.rules)]
        replies = self.request(clear)
        assert [reply for reply in replies if isinstance(reply, Error)] == []
        self.settle()
        self.hear(0)


SENTINEL_COOKIE = 0x5E


def run(device: Device, case: Case) -> None:
    """Let ``device`` go through ``case``."""
    device.load(case)
    for number, step in enumerate(case.steps):
        about = f"{case.name}, step {number}"
        match step:
            case Send(in_port, frame, out):
                got = Counter(device.transfer(in_port, frame))
                assert got == Counter(out), f"{about}: {_shown(got)} for {_shown(Counter(out))}"
            case Metered(frame, count, least, most):
                copies = [copy for _ in range(count) for copy in device.transfer(1, frame)]
                assert set(copies) <= {(2, frame)}, about
                assert least <= len(copies) <= most, f"{about}: {len(copies)}"
            case SetPort(port_no, up):
                device.set_port(port_no, up)
            case Ask(messages, errors):
                replies = device.request(messages)
                refused = [(r.type, r.code) for r in replies if isinstance(r, Error)]
                assert tuple(refused) == errors, f"{about}: {refused}"
                device.settle()
            case Wait(seconds):
                device.wait(seconds)
            case Flows(packets):
                assert (now := flows_of(device)) == packets, f"{about}: {now}"
            case Buckets(group_id, packets, buckets):
                device.settle()
                (stats,) = device.ask(
                    MultipartRequest(MultipartType.GROUP_STATS, group_id=group_id)
                )
                assert isinstance(stats, GroupStats)
                seen = (stats.packet_count, tuple(count for count, _ in stats.buckets))
                assert seen == (packets, buckets), f"{about}: {seen}"
            case PacketsIn(packets):
                news = device.hear(len(packets))
                told = [
                    (n.table_id, n.reason, n.cookie, n.match.in_port, n.data)
                    for n in news
                    if isinstance(n, PacketIn)
                ]
                assert tuple(told) == packets, f"{about}: {told}"
            case Removed(flows):
                news = device.hear(len(flows))
                ended = [
                    (n.cookie, n.reason, n.packet_count) for n in news if isinstance(n, FlowRemoved)
                ]
                assert Counter(ended) == Counter(flows), f"{about}: {ended}"


def flows_of(device: Device) -> dict[int, int]:
    """Return the packets that each flow has counted, by cookie."""
    device.settle()
    flows = [
        e for e in device.ask(MultipartRequest(MultipartType.FLOW)) if isinstance(e, FlowStats)
    ]
    return {flow.cookie: flow.packet_count for flow in flows if flow.cookie != SENTINEL_COOKIE}


def _shown(copies: Counter[Copy]) -> str:
    return str([(port, frame.hex(), count) for (port, frame), count in copies.items()])


def rule(
    match: Match,
    *actions: Action,
    priority: int = 10,
    table: int = 0,
    cookie: int = 0,
    goto: int | None = None,
    metadata: tuple[int, int] | None = None,
    meter: int | None = None,
    idle: int = 0,
    hard: int = 0,
    notify: bool = False,
) -> Rule:
    return Rule(table, priority, match, actions, cookie, goto, metadata, meter, idle, hard, notify)


def group(group_id: int, kind: GroupType, *buckets: Bucket) -> GroupMod:
    return GroupMod(GroupCommand.ADD, group_id, kind, buckets)


def to(port_no: int, *before: Action, watch: int | None = None, weight: int = 0) -> Bucket:
    bucket = Bucket((*before, Output(port_no)), weight=weight)
    return bucket if watch is None else replace(bucket, watch_port=watch)


EVERY = Match()


def _rewriting() -> list[Case]:
    """Every field that can be set, in a packet of each kind that has it."""
    arp = frames.arp_request(A, IP_A, IP_B)
    ping = frames.icmp_echo(B, A, IP_A, IP_B, identifier=3, sequence=4, data=b"abc")
    other = "10.77.88.99"

    def arp_with(
        op: int = 1, sha: str = A, spa: str = IP_A, tha: str = "", tpa: str = IP_B
    ) -> bytes:
        body = bytes.fromhex("000108000604") + op.to_bytes(2, "big")
        body += frames.number("arp_sha", sha).to_bytes(6, "big")
        body += frames.number("arp_spa", spa).to_bytes(4, "big")
        body += frames.number("arp_tha", tha or "00:00:00:00:00:00").to_bytes(6, "big")
        body += frames.number("arp_tpa", tpa).to_bytes(4, "big")
        return frames.ethernet(frames.BROADCAST, A, 0x0806, body)

    whole: list[tuple[str, int | str, Match, bytes, bytes]] = [
        ("eth_dst", C, EVERY, udp(), udp(dst=C)),
        ("eth_src", C, EVERY, udp(), udp(src=C)),
        ("ipv4_src", other, Match(eth_type=0x0800), udp(), udp(ip_src=other)),
        ("ipv4_dst", other, Match(eth_type=0x0800), udp(), udp(ip_dst=other)),
        ("ipv4_dst", other, Match(eth_type=0x0800), tcp(), tcp(ip_dst=other)),
        ("ipv4_src", other, Match(eth_type=0x0800), tcp(), tcp(ip_src=other)),
        (
            *("ipv4_dst", other, Match(eth_type=0x0800), ping),
            frames.icmp_echo(B, A, IP_A, other, identifier=3, sequence=4, data=b"abc"),
        ),
        (
            *("ipv4_dst", other, Match(eth_type=0x0800), without_checksum(udp())),
            without_checksum(udp(ip_dst=other)),
        ),
        (
            *("ipv4_dst", other, Match(eth_type=0x0800), fragment(udp(), 0x2000)),
            fragment(udp(ip_dst=other), 0x2000),
        ),
        ("ip_dscp", 46, Match(eth_type=0x0800), udp(), udp(dscp=46)),
        ("udp_src", 9, Match(**UDP_MATCH), udp(), udp(sport=9)),
        ("udp_dst", 9, Match(**UDP_MATCH), udp(), udp(dport=9)),
        (
            *("udp_dst", 9, Match(**UDP_MATCH), without_checksum(udp())),
            without_checksum(udp(dport=9)),
        ),
        ("tcp_src", 9, Match(**TCP_MATCH), tcp(), tcp(sport=9)),
        ("tcp_dst", 9, Match(**TCP_MATCH), tcp(), tcp(dport=9)),
        ("arp_op", 2, Match(eth_type=0x0806), arp, arp_with(op=2)),
        ("arp_sha", C, Match(eth_type=0x0806), arp, arp_with(sha=C)),
        ("arp_spa", other, Match(eth_type=0x0806), arp, arp_with(spa=other)),
        ("arp_tha", C, Match(eth_type=0x0806), arp, arp_with(tha=C)),
        ("arp_tpa", other, Match(eth_type=0x0806), arp, arp_with(tpa=other)),
        ("vlan_vid", 0x1007, Match(vlan_vid=TAGGED), tagged(udp(), 5, 3), tagged(udp(), 7, 3)),
        ("vlan_pcp", 6, Match(vlan_vid=TAGGED), tagged(udp(), 5, 3), tagged(udp(), 5, 6)),
        (
            *("udp_dst", 9, Match(vlan_vid=TAGGED, **UDP_MATCH), tagged(udp(), 5)),
            tagged(udp(dport=9), 5),
        ),
    ]
    return [
        Case(
            f"set {name} {number}",
            (rule(match, Output(2), SetField(name, value), Output(3)),),
            (Send(1, before, ((2, before), (3, after))),),
        )
        for number, (name, value, match, before, after) in enumerate(whole)
    ]


def _matching() -> list[Case]:
    deep = (
        rule(Match(eth_type=0x0800, ipv4_dst="10.0.0.0/8"), Output(2), priority=1),
        rule(Match(eth_type=0x0800, ipv4_dst="10.0.0.0/24"), Output(3), priority=2),
        rule(Match(eth_type=0x0800, ipv4_dst=IP_B), Output(4), priority=3),
        rule(Match(eth_dst="01:00:00:00:00:00/01:00:00:00:00:00"), Output(3), priority=9),
    )
    vlans = (
        rule(Match(vlan_vid=0), Output(2)),
        rule(Match(vlan_vid=0x1005), Output(3), priority=20),
        rule(Match(vlan_vid=TAGGED), Output(4)),
    )
    ports = (
        rule(Match(**UDP_MATCH, udp_dst=5004, udp_src=1000), Output(2)),
        rule(Match(**TCP_MATCH, tcp_dst=80), Output(3)),
        rule(Match(eth_type=0x0806, arp_op=1, arp_tpa="10.0.0.0/16"), Output(4)),
        rule(Match(eth_type=0x0800, ip_proto=1, icmpv4_type=8), Output(4)),
        rule(Match(eth_type=0x0800, ip_dscp=46), Output(4), priority=50),
        rule(Match(eth_type=0x86DD, ipv6_dst="fd00::/16"), Output(2)),
    )
    six = frames.ethernet(
        B,
        A,
        0x86DD,
        frames.ipv6("fd00::1", "fd00::2", 17, frames.udp("fd00::1", "fd00::2", 1, 2, b"")),
    )
    group_mac = udp(dst="01:00:5e:01:02:03", ip_dst="10.9.9.9")
    pcp = Match(vlan_vid=0x1005, vlan_pcp=3)
    return [
        Case(
            "the highest priority wins",
            (
                rule(Match(in_port=1), Output(2), priority=1),
                rule(Match(in_port=1, eth_dst=B), Output(3), priority=5),
                rule(EVERY, Output(4), priority=3),
            ),
            (
                Send(1, udp(), ((3, udp()),)),
                Send(1, udp(dst=C), ((4, udp(dst=C)),)),
                Send(2, udp(dst=C), ((4, udp(dst=C)),)),
            ),
        ),
        Case(
            "masks of addresses",
            deep,
            (
                Send(1, udp(), ((4, udp()),)),
                Send(1, udp(ip_dst="10.0.0.9"), ((3, udp(ip_dst="10.0.0.9")),)),
                Send(1, udp(ip_dst=IP_C), ((2, udp(ip_dst=IP_C)),)),
                Send(1, udp(ip_dst="11.0.0.1")),
                Send(1, group_mac, ((3, group_mac),)),
            ),
        ),
        Case(
            "a mask with holes",
            (rule(Match(eth_type=0x0800, ipv4_dst="10.0.0.1/255.0.0.1"), Output(2)),),
            (
                Send(1, udp(ip_dst="10.5.6.7"), ((2, udp(ip_dst="10.5.6.7")),)),
                Send(1, udp(ip_dst="10.5.6.8")),
            ),
        ),
        Case(
            "tagged and untagged",
            vlans,
            (
                Send(1, udp(), ((2, udp()),)),
                Send(1, tagged(udp(), 5), ((3, tagged(udp(), 5)),)),
                Send(1, tagged(udp(), 6), ((4, tagged(udp(), 6)),)),
                Send(1, tagged(udp(), 0, 2), ((4, tagged(udp(), 0, 2)),)),
            ),
        ),
        Case(
            "the priority of a tag",
            (rule(pcp, Output(2)),),
            (
                Send(1, tagged(udp(), 5, 3), ((2, tagged(udp(), 5, 3)),)),
                Send(1, tagged(udp(), 5, 2)),
            ),
        ),
        Case(
            "the type behind two tags",
            (
                rule(Match(vlan_vid=0x1009, **UDP_MATCH), Output(2)),
                rule(Match(vlan_vid=0x1009, eth_type=0x8100), Output(3)),
            ),
            (
                Send(
                    1,
                    tagged(tagged(udp(), 5), 9, 0, 0x88A8),
                    ((2, tagged(tagged(udp(), 5), 9, 0, 0x88A8)),),
                ),
            ),
        ),
        Case(
            "transport, ARP, ICMP, DSCP, IPv6",
            ports,
            (
                Send(1, udp(), ((2, udp()),)),
                Send(1, udp(sport=1)),
                Send(1, udp(dscp=46), ((4, udp(dscp=46)),)),
                Send(1, tcp(), ((3, tcp()),)),
                Send(1, tcp(dport=81)),
                Send(
                    1, frames.arp_request(A, IP_A, IP_B), ((4, frames.arp_request(A, IP_A, IP_B)),)
                ),
                Send(1, frames.arp_request(A, IP_A, "11.0.0.1")),
                Send(
                    1,
                    frames.icmp_echo(B, A, IP_A, IP_B),
                    ((4, frames.icmp_echo(B, A, IP_A, IP_B)),),
                ),
                Send(1, frames.icmp_echo(B, A, IP_A, IP_B, reply=True)),
                Send(1, six, ((2, six),)),
            ),
        ),
        Case(
            "later fragments have no ports",
            (
                rule(Match(**UDP_MATCH, udp_dst=5004), Output(2)),
                rule(Match(**UDP_MATCH), Output(3), priority=1),
            ),
            (Send(1, fragment(udp(), 0x2001), ((3, fragment(udp(), 0x2001)),)),),
        ),
        Case(
            "TCP flags",
            (rule(Match(**TCP_MATCH, tcp_flags=(2, 2)), Output(2)),),
            (Send(1, tcp(), ((2, tcp()),)), Send(1, udp())),
        ),
        Case("an empty table drops", (), (Send(1, udp()),)),
        Case(
            "the table-miss entry sends to the controller",
            (
                rule(EVERY, Output(PORT_CONTROLLER, 0xFFFF), priority=0, cookie=7),
                rule(Match(eth_dst=C), Output(PORT_CONTROLLER, 0xFFFF), cookie=8),
            ),
            (
                Send(3, udp()),
                Send(2, udp(dst=C)),
                PacketsIn(((0, 0, 7, 3, udp()), (0, 1, 8, 2, udp(dst=C)))),
            ),
        ),
    ]


def _pipeline() -> list[Case]:
    return [
        Case(
            "metadata and goto",
            (
                rule(Match(in_port=1), goto=2, metadata=(0x101, 0xFFF)),
                rule(Match(in_port=2), SetField("eth_dst", C), goto=1, metadata=(0x200, 0xF00)),
                rule(EVERY, table=1, goto=2, metadata=(0x3, 0xF)),
                rule(Match(metadata=(0x100, 0xF00)), Output(3), table=2),
                rule(Match(metadata=0x203), Output(4), table=2),
            ),
            (
                Send(1, udp(), ((3, udp()),)),
                Send(2, udp(), ((4, udp(dst=C)),)),
                Send(3, udp()),
            ),
        ),
        Case(
            "a later table sees what an earlier one wrote",
            (
                rule(Match(**UDP_MATCH), SetField("udp_dst", 9), Output(2), goto=1),
                rule(Match(**UDP_MATCH, udp_dst=9), Output(3), table=1),
                rule(Match(**UDP_MATCH, udp_dst=5004), Output(4), table=1),
            ),
            (Send(1, udp(), ((2, udp(dport=9)), (3, udp(dport=9)))),),
        ),
        Case(
            "a miss in a later table drops, what was sent is sent",
            (rule(EVERY, Output(2), goto=1),),
            (Send(1, udp(), ((2, udp()),)),),
        ),
        Case(
            "not back to where it came from, but by IN_PORT",
            (
                rule(Match(eth_dst=B), Output(1), Output(2)),
                rule(Match(eth_dst=C), Output(PORT_IN_PORT), Output(2)),
            ),
            (
                Send(1, udp(), ((2, udp()),)),
                Send(2, udp(), ((1, udp()),)),
                Send(1, udp(dst=C), ((1, udp(dst=C)), (2, udp(dst=C)))),
            ),
        ),
        Case(
            "ALL and FLOOD leave out the port of entry",
            (
                rule(Match(eth_dst=B), Output(ALL_PORTS)),
                rule(Match(eth_dst=C), Output(FLOOD)),
            ),
            (
                Send(2, udp(), tuple((port, udp()) for port in (1, 3, 4))),
                Send(4, udp(dst=C), tuple((port, udp(dst=C)) for port in (1, 2, 3))),
            ),
        ),
        Case(
            "two tags, and one off",
            (
                rule(
                    Match(eth_dst=B),
                    PushVlan(),
                    SetField("vlan_vid", 0x1005),
                    SetField("vlan_pcp", 3),
                    Output(2),
                    PopVlan(),
                    Output(3),
                ),
                rule(Match(vlan_vid=TAGGED, eth_dst=C), PopVlan(), Output(2)),
                rule(
                    Match(vlan_vid=0x1006, eth_dst=A),
                    PushVlan(0x88A8),
                    SetField("vlan_vid", 0x1007),
                    SetField("vlan_pcp", 1),
                    Output(2),
                ),
            ),
            (
                Send(1, udp(), ((2, tagged(udp(), 5, 3)), (3, udp()))),
                Send(1, tagged(udp(dst=C), 9, 1), ((2, udp(dst=C)),)),
                Send(
                    1,
                    tagged(tagged(udp(dst=C), 9), 8),
                    ((2, tagged(udp(dst=C), 9)),),
                ),
                Send(
                    1,
                    tagged(udp(dst=A), 6),
                    ((2, tagged(tagged(udp(dst=A), 6), 7, 1, 0x88A8)),),
                ),
            ),
        ),
        Case(
            "what a packet_out sends, alone and through the tables",
            (rule(Match(in_port=3), Output(4)),),
            (
                Ask(
                    (
                        PacketOut(udp(), (SetField("eth_dst", C), Output(2))),
                        PacketOut(udp(), (Output(0xFFFFFFF9),), in_port=3),
                        PacketOut(udp(), (Output(ALL_PORTS),), in_port=1),
                    )
                ),
                Send(
                    1,
                    udp(dst=A),
                    (
                        (2, udp(dst=C)),
                        (4, udp()),
                        *((port, udp()) for port in (2, 3, 4)),
                    ),
                ),
            ),
        ),
        Case(
            "a port that is down",
            (rule(Match(in_port=1), Output(2), Output(3)),),
            (
                SetPort(2, False),
                Send(1, udp(), ((3, udp()),)),
                SetPort(2, True),
                Send(1, udp(), ((2, udp()), (3, udp()))),
            ),
        ),
    ]


def _groups() -> list[Case]:
    spare = PushVlan(), SetField("vlan_vid", 0x1064)
    flow = rule(Match(in_port=1), Group(1))
    first, second = replace(to(2), watch_port=2), replace(to(3, *spare), watch_port=3)
    chain = Bucket((Group(2),), watch_group=2)
    return [
        Case(
            "ALL: each bucket has a packet of its own",
            (rule(Match(in_port=1), Group(1), Output(4)),),
            (
                Send(1, udp(), ((2, udp(dst=C)), (3, udp()), (4, udp()))),
                Send(1, udp(), ((2, udp(dst=C)), (3, udp()), (4, udp()))),
                Buckets(1, 2, (2, 2, 2)),
            ),
            (
                group(
                    *(1, GroupType.ALL, to(2, SetField("eth_dst", C)), to(3)),
                    Bucket((Output(1),)),  # the port of entry
                ),
            ),
        ),
        Case(
            "ALL without buckets drops",
            (flow,),
            (Send(1, udp()), Buckets(1, 1, ())),
            (group(1, GroupType.ALL),),
        ),
        Case(
            "INDIRECT",
            (flow,),
            (Send(1, udp(), ((2, udp()),)), Buckets(1, 1, (1,))),
            (group(1, GroupType.INDIRECT, to(2)),),
        ),
        Case(
            "FAST_FAILOVER follows its ports down and up",
            (flow,),
            (
                Send(1, udp(), ((2, udp()),)),
                SetPort(2, False),
                Send(1, udp(), ((3, tagged(udp(), 100)),)),
                Buckets(1, 2, (1, 1)),
                SetPort(3, False),
                Send(1, udp()),
                SetPort(2, True),
                Send(1, udp(), ((2, udp()),)),
            ),
            (group(1, GroupType.FAST_FAILOVER, first, second),),
        ),
        Case(
            "FAST_FAILOVER watches a group",
            (flow,),
            (
                Send(1, udp(), ((2, udp()),)),
                SetPort(2, False),
                Send(1, udp(), ((4, udp()),)),
                SetPort(2, True),
                Send(1, udp(), ((2, udp()),)),
            ),
            (
                group(2, GroupType.FAST_FAILOVER, first),
                group(1, GroupType.FAST_FAILOVER, chain, replace(to(4), watch_port=4)),
            ),
        ),
        Case(
            "groups in groups",
            (flow,),
            (Send(1, udp(), ((2, udp(dport=9)), (3, udp()), (4, udp()))),),
            (
                group(3, GroupType.INDIRECT, to(2, SetField("udp_dst", 9))),
                group(2, GroupType.ALL, to(3), to(4)),
                group(1, GroupType.ALL, Bucket((Group(2),)), Bucket((Group(3),))),
            ),
        ),
        Case(
            "SELECT with one live bucket",
            (flow,),
            (
                Send(1, udp(), ((2, udp()),)),
                Ask(
                    (
                        GroupMod(
                            GroupCommand.MODIFY,
                            1,
                            GroupType.SELECT,
                            (to(3, weight=1, watch=3), to(4, weight=1, watch=4)),
                        ),
                    )
                ),
                SetPort(3, False),
                *(Send(1, udp(sport=n), ((4, udp(sport=n)),)) for n in range(8)),
            ),
            (group(1, GroupType.SELECT, to(2, weight=5)),),
        ),
        Case(
            "MODIFY changes a group under its flow, DELETE takes the flow along",
            (replace(flow, cookie=5, notify=True), rule(EVERY, Output(4), priority=1, cookie=6)),
            (
                Send(1, udp(), ((2, udp()),)),
                Ask((GroupMod(GroupCommand.MODIFY, 1, GroupType.ALL, (to(3),)),)),
                Send(1, udp(), ((3, udp()),)),
                Ask((GroupMod(GroupCommand.DELETE, 1),)),
                Removed(((5, 3, 2),)),
                Send(1, udp(), ((4, udp()),)),
                Flows({6: 1}),
            ),
            (group(1, GroupType.INDIRECT, to(2)),),
        ),
    ]


def _mods() -> list[Case]:
    rules = (
        rule(Match(in_port=1), Output(2), cookie=0x11),
        rule(Match(in_port=1, eth_dst=B), Output(3), priority=20, cookie=0x12),
        rule(Match(in_port=2), Output(3), cookie=0x21),
        rule(Match(in_port=3, eth_dst=B), Group(1), priority=20, cookie=0x31),
        rule(Match(in_port=1), Output(2), table=1, cookie=0x13),
    )
    all_of = {0x11: 0, 0x12: 0, 0x21: 0, 0x31: 0, 0x13: 0}
    groups = (group(1, GroupType.INDIRECT, to(2)),)

    def left(name: str, mod: FlowMod, *cookies: int) -> Case:
        kept = {cookie: 0 for cookie in all_of if cookie not in cookies}
        return Case(f"delete {name}", rules, (Ask((mod,)), Flows(kept)), groups)

    delete, strict = Command.DELETE, Command.DELETE_STRICT
    counted = rule(Match(in_port=1), Output(2), cookie=1)
    changed = replace(counted, actions=(Output(3),), cookie=2).add()
    overlapping = replace(rule(Match(eth_dst=B), Output(2)).add(), flags=2)
    return [
        left("everything", FlowMod(delete, table_id=TABLE_ALL), *all_of),
        left("one table", FlowMod(delete, table_id=0), 0x11, 0x12, 0x21, 0x31),
        left("what is narrower", FlowMod(delete, Match(in_port=1)), 0x11, 0x12),
        left("a destination", FlowMod(delete, Match(eth_dst=B)), 0x12, 0x31),
        left("strictly", FlowMod(strict, Match(in_port=1), priority=10), 0x11),
        left("strictly another priority", FlowMod(strict, Match(in_port=1), priority=11)),
        left(
            "by cookie",
            FlowMod(delete, table_id=TABLE_ALL, cookie=0x10, cookie_mask=0xF0),
            *(0x11, 0x12, 0x13),
        ),
        left("by port", FlowMod(delete, table_id=TABLE_ALL, out_port=3), 0x12, 0x21),
        left("by group", FlowMod(delete, table_id=TABLE_ALL, out_group=1), 0x31),
        left("nothing", FlowMod(delete, Match(in_port=4))),
        Case(
            "deleted flows are reported if they want it",
            (
                rule(Match(in_port=1), Output(2), cookie=1, notify=True),
                rule(Match(in_port=2), Output(1), cookie=2),
            ),
            (
                Send(1, udp(), ((2, udp()),)),
                Ask((FlowMod(delete),)),
                Removed(((1, 2, 1),)),
                Flows({}),
            ),
        ),
        Case(
            "an ADD replaces and keeps the counters unless told otherwise",
            (counted,),
            (
                Send(1, udp(), ((2, udp()),)),
                Ask((changed,)),
                Send(1, udp(), ((3, udp()),)),
                Flows({2: 2}),
                Ask((replace(changed, flags=4),)),
                Flows({2: 0}),
            ),
        ),
        Case(
            "a MODIFY changes the instructions and nothing else",
            (counted, rule(Match(in_port=1, eth_dst=C), Output(4), priority=1, cookie=9)),
            (
                Send(1, udp(), ((2, udp()),)),
                Ask((replace(changed, command=Command.MODIFY, match=Match(in_port=1)),)),
                Send(1, udp(), ((3, udp()),)),
                Flows({1: 2, 9: 0}),
                Ask((FlowMod(strict, Match(in_port=1), priority=10),)),
                Send(1, udp(dst=C), ((3, udp(dst=C)),)),
            ),
        ),
        Case(
            "a strict MODIFY, and one of nothing",
            (counted, rule(Match(in_port=1, eth_dst=C), Output(4), priority=20, cookie=9)),
            (
                Ask((replace(changed, command=Command.MODIFY_STRICT),)),
                Send(1, udp(), ((3, udp()),)),
                Send(1, udp(dst=C), ((4, udp(dst=C)),)),
                Ask((replace(changed, command=Command.MODIFY, match=Match(in_port=4)),)),
                Flows({1: 1, 9: 1}),
            ),
        ),
        Case(
            "an overlap is refused on request",
            (rule(Match(in_port=1), Output(2), cookie=1),),
            (
                Ask((overlapping,), ((5, 3),)),
                Ask((replace(overlapping, priority=11),)),
                Ask((replace(overlapping, match=Match(in_port=2)),)),
            ),
        ),
    ]


def _refusals() -> list[Case]:
    one = group(1, GroupType.INDIRECT, to(2))
    watching = replace(to(2), watch_port=2)
    meter = MeterMod(MeterCommand.ADD, 1, (MeterBand(10, 5),), packets=True)
    back = FlowMod(Command.ADD, instructions=(GotoTable(2),), table_id=2)
    wrong: list[tuple[str, Mod, tuple[int, int]]] = [
        ("a group twice", one, (6, 0)),
        ("an unknown group changed", GroupMod(GroupCommand.MODIFY, 9), (6, 8)),
        ("INDIRECT with two buckets", group(2, GroupType.INDIRECT, to(2), to(3)), (6, 1)),
        ("INDIRECT without", group(2, GroupType.INDIRECT), (6, 1)),
        ("FAST_FAILOVER that watches nothing", group(2, GroupType.FAST_FAILOVER, to(2)), (6, 1)),
        ("a weight in ALL", group(2, GroupType.ALL, to(2, weight=3)), (6, 1)),
        ("a watched port in ALL", group(2, GroupType.ALL, watching), (6, 6)),
        ("a reserved group number", group(0xFFFFFF01, GroupType.ALL, to(2)), (6, 1)),
        ("a flow to an unknown group", rule(EVERY, Group(9)).add(), (2, 9)),
        ("a flow to an unknown meter", rule(EVERY, Output(2), meter=9).add(), (12, 2)),
        ("goto the same table", back, (3, 2)),
        ("ADD to all tables", FlowMod(Command.ADD, table_id=TABLE_ALL), (5, 2)),
        ("a meter twice", meter, (12, 1)),
        (
            "an unknown meter changed",
            replace(meter, command=MeterCommand.MODIFY, meter_id=2),
            (12, 3),
        ),
    ]
    return [
        Case(f"refuse {name}", (), (Ask((mod,), (error,)), Flows({})), (one,), (meter,))
        for name, mod, error in wrong
    ]


def _timeouts() -> list[Case]:
    return [
        Case(
            "idle and hard time-outs",
            (
                rule(Match(in_port=1), Output(2), cookie=1, idle=1, notify=True),
                rule(Match(in_port=2), Output(3), cookie=2, hard=1, notify=True),
                rule(Match(in_port=3), Output(4), cookie=3, idle=30, hard=30, notify=True),
                rule(Match(in_port=4), Output(1), cookie=4, idle=1),
            ),
            (
                Send(1, udp(), ((2, udp()),)),
                Send(2, udp(), ((3, udp()),)),
                Send(3, udp(), ((4, udp()),)),
                Wait(3.5),
                Removed(((1, 0, 1), (2, 1, 1))),
                Send(1, udp()),
                Send(2, udp()),
                Send(3, udp(), ((4, udp()),)),
                Flows({3: 2}),
            ),
        ),
    ]


def _meters() -> list[Case]:
    def meter(meter_id: int, *bands: MeterBand, packets: bool = True) -> MeterMod:
        return MeterMod(MeterCommand.ADD, meter_id, bands, packets)

    flow = rule(Match(in_port=1), Output(2), meter=1, cookie=1, notify=True)
    large = udp(data=bytes(500 - 42))
    return [
        Case(
            "a meter of packets lets its burst pass, and later its rate",
            (flow,),
            (Metered(udp(), 30, 10, 11), Wait(4), Metered(udp(), 30, 4, 6), Flows({1: 60})),
            meters=(meter(1, MeterBand(1, 10)),),
        ),
        Case(
            "a meter of kilobits counts the whole frame",
            (flow,),
            (Metered(large, 10, 2, 3), Flows({1: 10})),
            meters=(meter(1, MeterBand(1, 9), packets=False),),
        ),
        Case(
            "the tighter of two bands counts",
            (flow,),
            (Metered(udp(), 20, 5, 6),),
            meters=(meter(1, MeterBand(1, 5), MeterBand(2, 15)),),
        ),
        Case(
            "two flows share a meter, a third has none",
            (
                replace(flow, match=Match(in_port=1, eth_dst=B)),
                replace(flow, match=Match(in_port=1, eth_dst=C), cookie=2),
                rule(Match(in_port=1), Output(2), priority=1, cookie=3),
            ),
            (
                Metered(udp(), 6, 6, 6),
                Metered(udp(dst=C), 10, 4, 5),
                Metered(udp(dst=A), 10, 10, 10),
            ),
            meters=(meter(1, MeterBand(1, 10)),),
        ),
        Case(
            "a deleted meter takes its flows along",
            (flow, rule(Match(in_port=1), Output(3), priority=1, cookie=2)),
            (
                Ask((MeterMod(MeterCommand.DELETE, 1),)),
                Send(1, udp(), ((3, udp()),)),
                Flows({2: 1}),
            ),
            meters=(meter(1, MeterBand(1, 10)),),
        ),
    ]


@dataclass(frozen=True)
class Difference:
    """What the specification wants and what Open vSwitch 3.1 does instead."""

    name: str
    specified: Case
    open_vswitch: Case

    def __str__(self) -> str:
        return self.name


def _differences() -> list[Difference]:
    """What was found, and who is right.

    - Fragments: OpenFlow 1.3.5, section 7.3.2 (OFPC_FRAG_NORMAL) has them pass the tables as they
      are; only what does not fit into a fragment matches no entry that asks for it. Open vSwitch
      takes the ports of *all* fragments as 0: rules with ports never carry fragmented UDP.
    - Section 5.11.1 (table 7) has a pushed tag copy the fields of the outermost; Open vSwitch
      writes zeros. Rules that set both vlan_vid and vlan_pcp behind PUSH_VLAN see no difference.
    - A new address in a later fragment: Open vSwitch updates a UDP checksum where there is none and
      so damages two bytes of the data (RFC 791 leaves no doubt). Addresses of what may be
      fragmented must not be rewritten.
    - Section 5.6 counts the packets that a group has processed; Open vSwitch leaves out those of a
      FAST_FAILOVER group without live bucket, and counts those of an ALL group without any.
    - Section 6.5 lets a switch refuse to delete a group in use by another (CHAINED_GROUP), wants
      loops refused (LOOP) and impossible actions of buckets as those of flows. Open vSwitch takes
      all three; packets then end in the group that is missing or leads back.
    """

    def differ(
        name: str,
        rules: tuple[Rule, ...],
        specified: tuple[Step, ...],
        other: tuple[Step, ...],
        groups: tuple[GroupMod, ...] = (),
    ) -> Difference:
        return Difference(
            name, Case(name, rules, specified, groups), Case(name, rules, other, groups)
        )

    first = fragment(udp(), 0x2000)
    inner = tagged(udp(), 6, 3)
    later = fragment(udp(), 0x2001)
    readdressed = fragment(later[:24] + udp(ip_dst=IP_C)[24:34] + later[34:], 0x2001)
    damaged = readdressed[:40] + udp(ip_dst=IP_C)[40:42] + readdressed[42:]
    chain = (
        group(2, GroupType.INDIRECT, to(2)),
        group(1, GroupType.INDIRECT, Bucket((Group(2),))),
    )
    loop = replace(chain[0], command=GroupCommand.MODIFY, buckets=(Bucket((Group(1),)),))
    lonely = (group(1, GroupType.FAST_FAILOVER, replace(to(2), watch_port=2)),)
    through = rule(Match(in_port=1), Group(1))
    return [
        differ(
            "the first fragment has its ports",
            (rule(Match(**UDP_MATCH, udp_dst=5004), Output(2)),),
            (Send(1, first, ((2, first),)),),
            (Send(1, first),),
        ),
        differ(
            "a pushed tag is a copy of the outermost one",
            (rule(Match(vlan_vid=TAGGED), PushVlan(), Output(2)),),
            (Send(1, inner, ((2, tagged(inner, 6, 3)),)),),
            (Send(1, inner, ((2, tagged(inner, 0, 0)),)),),
        ),
        differ(
            "a later fragment has no checksum to change",
            (rule(Match(eth_type=0x0800), SetField("ipv4_dst", IP_C), Output(2)),),
            (Send(1, later, ((2, readdressed),)),),
            (Send(1, later, ((2, damaged),)),),
        ),
        differ(
            "a group without a live bucket has processed the packet all the same",
            (through,),
            (SetPort(2, False), Send(1, udp()), Buckets(1, 1, (0,))),
            (SetPort(2, False), Send(1, udp()), Buckets(1, 0, (0,))),
            lonely,
        ),
        differ(
            "a group that another one sends to is not deleted",
            (through,),
            (Ask((GroupMod(GroupCommand.DELETE, 2),), ((6, 9),)), Send(1, udp(), ((2, udp()),))),
            (Ask((GroupMod(GroupCommand.DELETE, 2),)), Send(1, udp())),
            chain,
        ),
        differ(
            "a loop of groups is refused",
            (through,),
            (Ask((loop,), ((6, 7),)), Send(1, udp(), ((2, udp()),))),
            (Ask((loop,)), Send(1, udp())),
            chain,
        ),
        differ(
            "a bucket cannot send to a group that is not there",
            (),
            (Ask((group(1, GroupType.ALL, Bucket((Group(9),))),), ((2, 9),)),),
            (Ask((group(1, GroupType.ALL, Bucket((Group(9),))),)),),
        ),
    ]


DIFFERENCES = _differences()
CASES = [
    *_matching(),
    *_rewriting(),
    *_pipeline(),
    *_groups(),
    *_mods(),
    *_refusals(),
    *_meters(),
    *_timeouts(),
]
