"""The tuple space search against a search through all entries."""

from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from anabranch.fabric import frames
from anabranch.fabric.openflow.actions import ApplyActions, Group, Output
from anabranch.fabric.openflow.messages import Command, FlowMod
from anabranch.fabric.openflow.oxm import Match
from anabranch.fabric.openflow.refusals import Refusal
from anabranch.fabric.softswitch.flow_table import FlowEntry, FlowTable, terms_of
from anabranch.fabric.softswitch.refusals import RefusedError

FIELDS: dict[str, Sequence[Any]] = {
    "in_port": (1, 2),
    "metadata": (0, 1, (1, 1), (0x10, 0xF0)),
    "eth_dst": ("02:00:00:00:00:01", "02:00:00:00:00:00/ff:ff:ff:ff:ff:f0"),
    "vlan_vid": (0, 0x1005, (0x1000, 0x1000)),
    "ipv4_dst": ("10.0.0.1", "10.0.0.0/24", "10.0.0.1/255.0.0.255"),
    "udp_dst": (1, 2),
}
matches = st.fixed_dictionaries(
    {}, optional={name: st.sampled_from(values) for name, values in FIELDS.items()}
).map(lambda fields: Match(**fields))
packets = st.fixed_dictionaries(
    {
        "in_port": st.integers(1, 3),
        "metadata": st.sampled_from([0, 1, 0x10, 0x11]),
        "eth_dst": st.sampled_from([0x020000000001, 0x020000000002, 0x020000000100]),
        "vlan_vid": st.sampled_from([0, 0x1005, 0x1006]),
    },
    optional={
        "ipv4_dst": st.sampled_from([0x0A000001, 0x0A000002, 0x0A050501]),
        "udp_dst": st.integers(1, 3),
    },
)


def entry(match: Match, priority: int, *, cookie: int = 0, actions: Any = ()) -> FlowEntry:
    instructions = (ApplyActions(tuple(actions)),)
    mod = FlowMod(Command.ADD, match, instructions, priority=priority, cookie=cookie)
    return FlowEntry.of(mod, 0.0)


def matching(match: Match, packet: dict[str, int]) -> bool:
    """Read the specification literally: each field must be there and equal under its mask."""
    for name, value in match.fields:
        if name not in packet:
            return False
        wanted: int | str
        if isinstance(value, tuple):
            wanted, mask = value
        elif isinstance(value, str) and "/" in value:
            wanted, _, text = value.partition("/")
            mask = 0xFFFFFF00 if text == "24" else frames.number(name, text)
        else:
            wanted, mask = value, -1
        if packet[name] & mask != frames.number(name, wanted) & mask:
            return False
    return True


@given(st.lists(matches, min_size=1, max_size=12), st.lists(packets, max_size=8), st.data())
def test_lookup_is_the_best_of_all(
    wanted: list[Match], seen: list[dict[str, int]], data: st.DataObject
) -> None:
    table = FlowTable()
    entries = [entry(match, priority) for priority, match in enumerate(wanted)]
    for one in data.draw(st.permutations(entries)):
        table.add(one)
    gone = data.draw(st.lists(st.sampled_from(entries), unique=True))
    for one in gone:
        table.remove(one)
        assert not one.live
    left = [one for one in entries if one not in gone]
    assert sorted(one.priority for one in table) == sorted(one.priority for one in left)
    for packet in seen:
        fitting = [one for one in left if matching(one.match, packet)]
        expected = max(fitting, key=lambda one: one.priority, default=None)
        assert table.lookup(packet) is expected
    assert table.lookups == len(seen)


@given(matches, matches, packets)
def test_narrower_means_that_no_packet_matches_only_the_narrower(
    wide: Match, narrow: Match, packet: dict[str, int]
) -> None:
    table = FlowTable()
    one = entry(narrow, 1)
    table.add(one)
    if table.chosen(wide) and matching(narrow, packet):
        assert matching(wide, packet)
    if matching(wide, packet) and matching(narrow, packet):
        assert table.overlaps(1, wide)
    assert table.chosen(narrow) == [one]
    assert table.chosen(Match()) == [one]


def test_filters_of_a_request() -> None:
    table = FlowTable()
    first = entry(Match(in_port=1), 1, cookie=0x11, actions=[Output(2), Group(7)])
    second = entry(Match(in_port=2), 1, cookie=0x21, actions=[Output(3)])
    for one in (first, second):
        table.add(one)
    assert table.chosen(Match(), cookie=0x10, cookie_mask=0xF0) == [first]
    assert table.chosen(Match(), cookie=0x01, cookie_mask=0x0F) == [first, second]
    assert table.chosen(Match(), out_port=3) == [second]
    assert table.chosen(Match(), out_group=7) == [first]
    assert table.chosen(Match(), out_group=7, out_port=3) == []
    assert table.chosen(Match(in_port=2), strict_priority=1) == [second]
    assert table.chosen(Match(in_port=2), strict_priority=2) == []


def test_a_field_that_nobody_knows_is_refused() -> None:
    with pytest.raises(RefusedError) as caught:
        terms_of(Match(other=b"\x80\x00\x04\x04\0\0\0\1"))
    assert caught.value.refusal is Refusal.BAD_FIELD
