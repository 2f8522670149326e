"""The switch's side of the connection: handshake, roles, several controllers, any bytes."""

from dataclasses import replace
from typing import TypeVar

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.fabric.softswitch.cases import group, rule, to, udp

from anabranch.fabric.errors import ProtocolError
from anabranch.fabric.openflow.actions import PORT_CONTROLLER, Group, Output
from anabranch.fabric.openflow.codec import Framer, decode, encode
from anabranch.fabric.openflow.messages import (
    BarrierReply,
    BarrierRequest,
    Bucket,
    ControllerRole,
    Desc,
    EchoReply,
    EchoRequest,
    Error,
    FeaturesReply,
    FeaturesRequest,
    FlowMod,
    FlowStats,
    GetConfigReply,
    GetConfigRequest,
    GroupCommand,
    GroupDesc,
    GroupMod,
    GroupStats,
    GroupType,
    Hello,
    Message,
    MeterBand,
    MeterCommand,
    MeterConfig,
    MeterMod,
    MeterStats,
    MultipartReply,
    MultipartRequest,
    MultipartType,
    PacketIn,
    PacketOut,
    Port,
    PortStatus,
    Request,
    RoleReply,
    RoleRequest,
    RoleStatus,
    SetConfig,
    Unknown,
)
from anabranch.fabric.openflow.oxm import Match
from anabranch.fabric.openflow.session import Answer, Session, SessionEvent, SwitchUp
from anabranch.fabric.softswitch.agent import Channel, SwitchAgent
from anabranch.fabric.softswitch.switch import Emission, SoftSwitch

_Kind = TypeVar("_Kind")
MASTER, SLAVE = ControllerRole.MASTER, ControllerRole.SLAVE


class End:
    """A controller written by hand at the other end of a channel."""

    def __init__(self, agent: SwitchAgent, version: int = 4, *, up: bool = True) -> None:
        self.channel: Channel = agent.connect()
        self.version = version
        self.sent: list[Emission] = []
        self._framer = Framer()
        if up:
            self.say(Hello(frozenset({version}), version), FeaturesRequest())
            self.heard()

    def say(self, *messages: Request) -> None:
        data = b"".join(encode(message, self.version) for message in messages)
        self.sent += self.channel.receive(data, 0.0)

    def heard(self) -> list[Message]:
        return [decode(raw) for raw in self._framer.feed(self.channel.data_to_send())]

    def ask(self, message: Request, kind: type[_Kind]) -> _Kind:
        self.say(message)
        (answer,) = self.heard()
        assert isinstance(answer, kind)
        return answer


@pytest.fixture
def agent() -> SwitchAgent:
    return SwitchAgent(SoftSwitch(0xAB, (1, 2, 3)))


@pytest.mark.parametrize(("offered", "agreed"), [({4}, 4), ({4, 5}, 5), ({1, 4, 5, 6}, 6)])
def test_a_session_of_ours_comes_up(agent: SwitchAgent, offered: set[int], agreed: int) -> None:
    session = Session(0.0, versions=frozenset(offered) & frozenset({4, 5, 6}))
    channel = agent.connect()
    events: list[SessionEvent] = []

    def shuttle() -> None:
        while (down := session.data_to_send()) or (up := channel.data_to_send()):
            if down:
                channel.receive(down, 0.0)
            else:
                events.extend(session.receive(up, 0.0))

    shuttle()
    assert session.version == channel.version == agreed
    (up,) = events
    assert isinstance(up, SwitchUp)
    assert (up.dpid, [port.port_no for port in up.ports]) == (0xAB, [1, 2, 3])
    events.clear()
    session.send(rule(Match(in_port=1), Output(2), cookie=5).add())
    session.ask(MultipartRequest(MultipartType.FLOW))
    shuttle()
    (answer,) = events
    assert isinstance(answer, Answer)
    (flow,) = answer.entries
    assert isinstance(flow, FlowStats)
    assert (flow.cookie, flow.match) == (5, Match(in_port=1))


def test_no_common_version(agent: SwitchAgent) -> None:
    end = End(agent, up=False)
    with pytest.raises(ProtocolError):
        end.channel.receive(encode(Hello(None, 1)), 0.0)
    _, error = end.heard()
    assert isinstance(error, Error)
    assert (error.type, error.code) == (0, 0)


def test_a_message_before_hello(agent: SwitchAgent) -> None:
    with pytest.raises(ProtocolError):
        End(agent, up=False).say(FeaturesRequest())


def test_answers(agent: SwitchAgent) -> None:
    end = End(agent)
    features = end.ask(FeaturesRequest(xid=3), FeaturesReply)
    assert (features.dpid, features.n_tables, features.xid) == (0xAB, 254, 3)
    assert end.ask(EchoRequest(b"abc", xid=4), EchoReply) == EchoReply(b"abc", xid=4)
    assert end.ask(BarrierRequest(xid=5), BarrierReply) == BarrierReply(xid=5)
    end.say(SetConfig(0, 99))
    assert end.ask(GetConfigRequest(), GetConfigReply).miss_send_len == 99


def test_all_statistics(agent: SwitchAgent) -> None:
    end = End(agent)
    band = MeterBand(5, 5)
    end.say(
        MeterMod(MeterCommand.ADD, 1, (band,), packets=True),
        group(7, GroupType.ALL, to(2), to(3)),
        rule(Match(in_port=1), Group(7), cookie=1, meter=1).add(),
        rule(Match(in_port=1), Output(2), cookie=2, table=1).add(),
    )
    for _ in range(7):
        agent.process(1, udp(), 2.0)

    def entries(kind: MultipartType, **narrow: int) -> tuple[object, ...]:
        return end.ask(MultipartRequest(kind, **narrow), MultipartReply).entries  # type: ignore[arg-type]

    length = len(udp())
    (stats,) = entries(MultipartType.GROUP_STATS)
    assert isinstance(stats, GroupStats)
    assert (stats.ref_count, stats.packet_count, stats.byte_count) == (1, 5, 5 * length)
    assert stats.buckets == ((5, 5 * length), (5, 5 * length))
    assert entries(MultipartType.GROUP_STATS, group_id=8) == ()
    assert entries(MultipartType.GROUP_DESC) == (GroupDesc(7, GroupType.ALL, (to(2), to(3))),)
    (meter,) = entries(MultipartType.METER_STATS, meter_id=1)
    assert isinstance(meter, MeterStats)
    assert (meter.flow_count, meter.packet_count, meter.bands) == (1, 7, ((2, 2 * length),))
    assert entries(MultipartType.METER_CONFIG) == (MeterConfig(1, (band,), packets=True),)
    (desc,) = entries(MultipartType.DESC)
    assert isinstance(desc, Desc)
    assert desc.datapath == "00000000000000ab"
    assert [
        port.port_no for port in entries(MultipartType.PORT_DESC) if isinstance(port, Port)
    ] == [*(1, 2, 3)]
    assert len(entries(MultipartType.PORT_STATS, port_no=2)) == 1
    assert len(entries(MultipartType.FLOW, table_id=1)) == 1
    assert len(entries(MultipartType.FLOW, out_group=7)) == 1


def test_an_answer_of_many_parts(agent: SwitchAgent) -> None:
    end = End(agent)
    for number in range(3000):
        agent.switch.flow_mod(rule(Match(metadata=number), Output(2)).add(), 0.0)
    end.say(MultipartRequest(MultipartType.FLOW, xid=8))
    parts = [part for part in end.heard() if isinstance(part, MultipartReply)]
    assert len(parts) > 1
    assert [part.more for part in parts] == [True] * (len(parts) - 1) + [False]
    assert sum(len(part.entries) for part in parts) == 3000
    huge = group(1, GroupType.ALL, *(Bucket((Output(1),) * 250) for _ in range(30)))
    agent.switch.group_mod(huge, 0.0)
    error = end.ask(MultipartRequest(MultipartType.GROUP_DESC), Error)
    assert (error.type, error.code) == (1, 6)


def test_refusals_carry_the_request(agent: SwitchAgent) -> None:
    end = End(agent)
    bad = replace(rule(Match(), Group(9)).add(), xid=77)
    error = end.ask(bad, Error)
    assert (error.type, error.code, error.xid) == (2, 9, 77)
    assert error.data == encode(bad)[:64]
    for kind, expected in ((18, (1, 2)), (99, (1, 1))):
        error = end.ask(Unknown(kind, b"\x7f\x7f" + bytes(6)), Error)
        assert (error.type, error.code) == expected
    assert end.ask(EchoRequest(), EchoReply)  # it goes on


def test_a_packet_out_leaves_at_once(agent: SwitchAgent) -> None:
    end = End(agent)
    end.say(PacketOut(udp(), (Output(2), Output(3))))
    assert end.sent == [Emission(2, udp()), Emission(3, udp())]


def test_a_slave_hears_of_ports_only_and_changes_nothing(agent: SwitchAgent) -> None:
    master, slave, equal = End(agent), End(agent), End(agent)
    assert master.ask(RoleRequest(MASTER, 10), RoleReply) == RoleReply(MASTER, 10)
    assert slave.ask(RoleRequest(SLAVE, 10), RoleReply).role is SLAVE
    to_controller = rule(Match(), Output(PORT_CONTROLLER, 0xFFFF))
    for change in (
        to_controller.add(),
        group(1, GroupType.ALL),
        MeterMod(MeterCommand.ADD, 1, (MeterBand(1),)),
        PacketOut(udp(), (Output(1),)),
    ):
        error = slave.ask(change, Error)
        assert (error.type, error.code) == (1, 10)
    assert not agent.switch.tables
    assert slave.sent == []
    assert slave.ask(MultipartRequest(MultipartType.FLOW), MultipartReply).entries == ()
    master.say(to_controller.add())
    agent.process(1, udp(), 0.0)
    agent.switch.set_port(2, False)
    agent.tell()
    for end, kinds in ((master, 2), (equal, 2), (slave, 1)):
        heard = end.heard()
        assert len(heard) == kinds
        assert isinstance(heard[-1], PortStatus)
        assert all(isinstance(message, PacketIn) for message in heard[:-1])


@pytest.mark.parametrize("version", [4, 5])
def test_a_second_controller_takes_over(agent: SwitchAgent, version: int) -> None:
    first, second = End(agent, version), End(agent, version)
    first.ask(RoleRequest(MASTER, 5), RoleReply)
    stale = second.ask(RoleRequest(MASTER, 4), Error)
    assert (stale.type, stale.code) == (11, 0)
    second.ask(RoleRequest(MASTER, 6), RoleReply)
    heard = first.heard()
    assert heard == ([] if version == 4 else [RoleStatus(SLAVE, 0, 6)])
    assert first.ask(RoleRequest(ControllerRole.NOCHANGE), RoleReply).role is SLAVE
    first.ask(FlowMod(0), Error)  # type: ignore[arg-type]
    second.channel.close()
    first.ask(RoleRequest(MASTER, 6), RoleReply)  # equal is not older
    first.say(rule(Match(), Output(1)).add())
    assert len(agent.switch.tables[0]) == 1


def test_generations_wrap_around(agent: SwitchAgent) -> None:
    end = End(agent)
    end.ask(RoleRequest(MASTER, 0xFFFFFFFFFFFFFFFF), RoleReply)
    end.ask(RoleRequest(MASTER, 1), RoleReply)
    end.ask(RoleRequest(MASTER, 0xFFFFFFFFFFFFFFFF), Error)


def test_nothing_unasked_before_the_handshake(agent: SwitchAgent) -> None:
    end = End(agent, up=False)
    agent.switch.set_port(1, False)
    agent.tell()
    (hello,) = end.heard()
    assert hello == Hello(frozenset({4, 5, 6}), 6)


def talk() -> bytes:
    requests: list[Request] = [
        Hello(frozenset({4})),
        FeaturesRequest(),
        rule(Match(in_port=1), Output(2), meter=1).add(),
        group(1, GroupType.SELECT, to(2, weight=1)),
        GroupMod(GroupCommand.DELETE, 1),
        PacketOut(udp(), (Output(2),)),
        RoleRequest(MASTER, 3),
        *(MultipartRequest(kind) for kind in MultipartType),
    ]
    return b"".join(map(encode, requests))


@given(st.binary(max_size=200), st.integers(0, len(talk())), st.booleans())
def test_any_bytes_are_messages_or_a_protocol_error(data: bytes, at: int, insert: bool) -> None:
    whole = talk()
    spoilt = whole[:at] + data + whole[at if insert else at + len(data) :]
    outcomes: list[object] = []
    for size in (len(spoilt) or 1, 7):
        channel = SwitchAgent(SoftSwitch(1, (1, 2))).connect()
        sent: list[Emission] = []
        failed = False
        try:
            for start in range(0, len(spoilt), size):
                sent += channel.receive(spoilt[start : start + size], 0.0)
        except ProtocolError:
            failed = True
        # Where it fails the framer may already have taken messages from the same piece.
        outcomes.append("failed" if failed else (channel.data_to_send(), sent))
    assert outcomes[0] == outcomes[1]
