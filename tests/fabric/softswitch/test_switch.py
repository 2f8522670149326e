"""What the conformance suite does not reach: OpenFlow 1.5 buckets, limits, ports, oracles."""

from collections import Counter
from dataclasses import replace

import pytest
from tests.fabric.softswitch.cases import A, B, C, group, rule, to, udp

from anabranch.fabric.openflow.actions import (
    PORT_CONTROLLER,
    Action,
    Group,
    OtherAction,
    OtherInstruction,
    Output,
    SetField,
)
from anabranch.fabric.openflow.messages import (
    BUCKET_ALL,
    BUCKET_FIRST,
    BUCKET_LAST,
    GROUP_ALL,
    Bucket,
    Command,
    FlowMod,
    FlowRemoved,
    GroupCommand,
    GroupMod,
    GroupType,
    MeterBand,
    MultipartRequest,
    MultipartType,
    PacketIn,
    PacketOut,
    PortReason,
    PortStats,
    PortStatus,
)
from anabranch.fabric.openflow.oxm import Match
from anabranch.fabric.openflow.refusals import Refusal
from anabranch.fabric.softswitch.meter_table import MeterEntry
from anabranch.fabric.softswitch.refusals import RefusedError
from anabranch.fabric.softswitch.statistics import answer
from anabranch.fabric.softswitch.switch import Emission, SoftSwitch
from anabranch.fabric.tables import GroupSpec, MeterSpec, Rule, Tables


def made(*rules: Rule, ports: int = 4, table_size: int = 1000) -> SoftSwitch:
    switch = SoftSwitch(1, range(1, ports + 1), table_size=table_size)
    for one in rules:
        switch.flow_mod(one.add(), 0.0)
    return switch


def refused(switch: SoftSwitch, mod: FlowMod | GroupMod | PacketOut) -> Refusal:
    def do() -> None:
        match mod:
            case FlowMod():
                switch.flow_mod(mod, 0.0)
            case GroupMod():
                switch.group_mod(mod, 0.0)
            case PacketOut():
                switch.packet_out(mod, 0.0)

    with pytest.raises(RefusedError) as caught:
        do()
    return caught.value.refusal


def named(bucket_id: int, port_no: int) -> Bucket:
    return replace(to(port_no), bucket_id=bucket_id)


def test_buckets_come_and_go_one_by_one() -> None:
    """OpenFlow 1.5.1, section 6.7.3."""
    switch = made()
    switch.group_mod(group(1, GroupType.ALL, named(1, 1)), 0.0)

    def insert(where: int, *buckets: Bucket) -> GroupMod:
        return GroupMod(GroupCommand.INSERT_BUCKET, 1, GroupType.ALL, buckets, where)

    def remove(which: int) -> GroupMod:
        return GroupMod(GroupCommand.REMOVE_BUCKET, 1, command_bucket_id=which)

    def ids() -> list[int | None]:
        return [entry.bucket.bucket_id for entry in switch.groups.groups[1].buckets]

    for mod, expected in (
        (insert(BUCKET_LAST, named(2, 2)), [1, 2]),
        (insert(BUCKET_FIRST, named(3, 3)), [3, 1, 2]),
        (insert(1, named(4, 4), named(5, 4)), [3, 1, 4, 5, 2]),
        (remove(4), [3, 1, 5, 2]),
        (remove(BUCKET_FIRST), [1, 5, 2]),
        (remove(BUCKET_LAST), [1, 5]),
    ):
        switch.group_mod(mod, 0.0)
        assert ids() == expected
    assert refused(switch, insert(BUCKET_LAST, named(5, 1))) is Refusal.BUCKET_EXISTS
    assert refused(switch, insert(77, named(6, 1))) is Refusal.UNKNOWN_BUCKET
    assert refused(switch, remove(77)) is Refusal.UNKNOWN_BUCKET
    assert ids() == [1, 5]
    switch.group_mod(remove(BUCKET_ALL), 0.0)
    assert ids() == []
    assert refused(switch, replace(remove(BUCKET_ALL), group_id=2)) is Refusal.UNKNOWN_GROUP


def test_select_shares_by_weight_and_a_flow_stays_with_its_bucket() -> None:
    switch = made()
    switch.group_mod(
        group(1, GroupType.SELECT, to(2, weight=3), to(3, weight=1), to(4, weight=0)), 0.0
    )
    switch.flow_mod(rule(Match(in_port=1), Group(1)).add(), 0.0)

    def chosen() -> dict[int, int]:
        return {n: switch.process(1, udp(sport=n), 0.0)[0].port_no for n in range(1000)}

    before = chosen()
    shares = Counter(before.values())
    assert set(shares) == {2, 3}
    assert 0.7 < shares[2] / 1000 < 0.8
    assert chosen() == before
    switch.group_mod(
        GroupMod(
            GroupCommand.MODIFY,
            1,
            GroupType.SELECT,
            (to(2, weight=3, watch=2), to(3, weight=1, watch=3), to(4, weight=4, watch=4)),
        ),
        0.0,
    )
    grown = chosen()
    assert all(grown[n] in (before[n], 4) for n in before)  # only to the new one do flows move
    switch.set_port(4, False)
    assert chosen() == before


def test_a_loop_through_watched_groups_and_others_is_refused() -> None:
    switch = made()
    for number in (1, 2, 3):
        switch.group_mod(group(number, GroupType.ALL), 0.0)
    leads = GroupMod(GroupCommand.MODIFY, 1, GroupType.ALL, (Bucket((Group(2),)),))
    switch.group_mod(leads, 0.0)
    switch.group_mod(replace(leads, group_id=2, buckets=(Bucket((Group(3),)),)), 0.0)
    own = replace(leads, group_id=3, buckets=(Bucket((Group(3),)),))
    assert refused(switch, own) is Refusal.GROUP_LOOP
    assert refused(switch, replace(own, buckets=(Bucket((Group(1),)),))) is Refusal.GROUP_LOOP
    watching = (Bucket((Output(2),), watch_group=1),)
    kind = GroupType.FAST_FAILOVER
    assert refused(switch, replace(own, type=kind, buckets=watching)) is Refusal.GROUP_LOOP
    switch.group_mod(GroupMod(GroupCommand.DELETE, GROUP_ALL), 0.0)
    assert not switch.groups.groups


def test_a_full_table_takes_no_more_but_replaces() -> None:
    switch = made(rule(Match(in_port=1), Output(2)), rule(Match(in_port=2)), table_size=2)
    assert refused(switch, rule(Match(in_port=3)).add()) is Refusal.TABLE_FULL
    switch.flow_mod(rule(Match(in_port=1), Output(3)).add(), 0.0)
    assert switch.process(1, udp(), 0.0) == [Emission(3, udp())]
    switch.flow_mod(rule(Match(in_port=3), Output(2), table=1).add(), 0.0)


@pytest.mark.parametrize(
    ("action", "refusal"),
    [
        (Output(0xFFFFFFFA), Refusal.BAD_OUT_PORT),  # NORMAL
        (Output(0xFFFFFFF9), Refusal.BAD_OUT_PORT),  # TABLE: only in a packet_out
        (Output(0xFFFFFFFF), Refusal.BAD_OUT_PORT),
        (Group(1), Refusal.BAD_OUT_GROUP),
        (OtherAction(bytes(8)), Refusal.BAD_ACTION_TYPE),
    ],
)
def test_impossible_actions_are_refused(action: Action, refusal: Refusal) -> None:
    switch = made()
    assert refused(switch, rule(Match(), action).add()) is refusal
    assert refused(switch, group(2, GroupType.ALL, Bucket((action,)))) is refusal
    if action != Output(0xFFFFFFF9):
        assert refused(switch, PacketOut(udp(), (action,))) is refusal
    unknown = FlowMod(Command.ADD, instructions=(OtherInstruction(bytes(8)),))
    assert refused(switch, unknown) is Refusal.UNSUPPORTED_INSTRUCTION
    assert refused(switch, FlowMod(Command.ADD, table_id=254)) is Refusal.BAD_TABLE
    assert not switch.tables


def test_ports_come_and_go_and_are_counted() -> None:
    switch = made(rule(Match(in_port=1), Output(2), Output(3)), ports=2)
    assert switch.process(1, udp(), 1.0) == [Emission(2, udp())]
    switch.add_port(3, 2.0)
    switch.set_port(2, False)
    switch.set_port(2, False)  # no news
    assert switch.process(1, udp(), 3.0) == [Emission(3, udp())]
    assert switch.process(2, udp(), 3.0) == []
    assert switch.process(9, udp(), 3.0) == []
    switch.remove_port(3)
    told = [
        (n.reason, n.port.port_no, n.port.up) for n in switch.news() if isinstance(n, PortStatus)
    ]
    assert told == [
        (PortReason.ADD, 3, True),
        (PortReason.MODIFY, 2, False),
        (PortReason.DELETE, 3, True),
    ]
    stats = {
        entry.port_no: (entry.rx_packets, entry.rx_bytes, entry.tx_packets, entry.tx_dropped)
        for entry in answer(switch, MultipartRequest(MultipartType.PORT_STATS), 4.0)
        if isinstance(entry, PortStats)
    }
    assert stats == {1: (2, 2 * len(udp()), 0, 0), 2: (0, 0, 1, 1)}


def test_time_outs_step_by_step() -> None:
    switch = made(
        rule(Match(in_port=1), Output(2), cookie=1, idle=10, hard=25, notify=True),
        rule(Match(in_port=2), cookie=2, hard=12),
    )
    assert switch.next_timer() == 10
    for now in (8.0, 17.0, 24.0):
        switch.handle_timer(now)
        assert switch.process(1, udp(), now) != []
    assert switch.process(2, udp(), 24.0) == []
    assert switch.news() == []
    assert len(switch.tables[0]) == 1
    switch.handle_timer(25.0)
    (ended,) = switch.news()
    assert isinstance(ended, FlowRemoved)
    assert (ended.cookie, ended.reason, ended.duration, ended.packet_count) == (1, 1, 25.0, 3)
    assert switch.next_timer() is None


def test_a_flow_deleted_and_added_again_is_not_ended_by_its_old_timer() -> None:
    one = rule(Match(in_port=1), Output(2), hard=5)
    switch = made(one)
    switch.flow_mod(FlowMod(Command.DELETE), 1.0)
    switch.flow_mod(one.add(), 3.0)
    switch.handle_timer(5.0)
    assert len(switch.tables[0]) == 1
    assert switch.next_timer() == 8.0


def test_packets_to_the_controller() -> None:
    cut = rule(Match(in_port=1), Output(PORT_CONTROLLER, 20), cookie=9, table=1)
    switch = made(rule(Match(), metadata=(5, 7), goto=1), cut)
    switch.process(1, udp(), 0.0)
    (packet,) = switch.news()
    assert packet == PacketIn(
        0xFFFFFFFF, len(udp()), 1, 1, 9, Match(in_port=1, metadata=5), udp()[:20]
    )
    whole = (SetField("eth_dst", C), Output(PORT_CONTROLLER, 0xFFFF))
    assert switch.packet_out(PacketOut(udp(), whole, in_port=2), 0.0) == []
    (packet,) = switch.news()
    assert isinstance(packet, PacketIn)
    assert packet.data == udp(dst=C)


def test_it_is_loaded_whatever_the_order_of_groups() -> None:
    tables = Tables(
        frozenset({rule(Match(in_port=1), Group(1), meter=1)}),
        frozenset(
            {
                GroupSpec(1, GroupType.ALL, (Bucket((Group(2),)), to(3))),
                GroupSpec(2, GroupType.INDIRECT, (to(2),)),
            }
        ),
        frozenset({MeterSpec(1, (MeterBand(1, 2),), packets=True)}),
    )
    switch = made(rule(Match(), Output(4)))
    for _ in range(2):
        switch.load(tables, 0.0)
        for _ in range(2):
            assert switch.process(1, udp(), 0.0) == [Emission(2, udp()), Emission(3, udp())]
        assert switch.process(1, udp(), 0.0) == []
        assert switch.process(2, udp(), 0.0) == []


def test_a_meter_over_time() -> None:
    meter = MeterEntry.of(1, (MeterBand(10, 5), MeterBand(100, 50)), True, 0.0)
    assert [meter.passes(100, 0.0) for _ in range(7)] == [True] * 5 + [False] * 2
    assert [meter.passes(100, 0.25) for _ in range(3)] == [True, True, False]
    assert [meter.passes(100, 100.0) for _ in range(6)] == [True] * 5 + [False]
    assert meter.packets == 16
    assert [band.packets for band in meter.bands] == [4, 0]
    large = MeterEntry.of(1, (MeterBand(8, 8),), False, 0.0)  # 1,000 bytes, and as many a second
    assert [large.passes(600, 0.0) for _ in range(2)] == [True, False]
    assert large.passes(600, 0.2) is True
    assert large.passes(600, -5.0) is False  # a clock that goes back fills nothing


def test_what_is_no_frame_is_carried_like_any_other() -> None:
    switch = made(rule(Match(), SetField("eth_dst", B), Output(2)))
    assert switch.process(1, b"", 0.0) == [Emission(2, b"")]
    assert switch.process(1, b"short", 0.0) == [Emission(2, b"short")]
    assert switch.process(1, udp(dst=A), 0.0) == [Emission(2, udp())]
